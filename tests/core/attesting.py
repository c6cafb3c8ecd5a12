"""Keys, certificates and envelopes for tests, made once: nothing about them matters but who signed what."""

from __future__ import annotations

import datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from vws import signing
from vws.core.site import Image, ImageFile
from vws.core.trust import TrustedKey, write_envelope

NOW = 1_800_000_000
DAY = 86_400
FULL = {
    "maker": "DESY",
    "updates-until": "2027-01-10",
    "listening": ["22/tcp"],
    "remote-root-login": "off",
}


def image(mark: str = "a", **more) -> Image:
    files = (ImageFile("disk", mark * 64, 1 << 20, "qcow2", 1024), ImageFile("kernel", "c" * 64, 5, "kernel"))
    return Image("img-000001", "debian", "ann", "d" * 64, 1 << 20, "direct", files, "root=/dev/vda", **more)


@cache
def key(name: str) -> signing.CryptoSigner:
    return signing.read_key(signing.new_key()[0])


def public(name: str) -> str:
    return pem_of(key(name))


def pem_of(signer: signing.CryptoSigner) -> str:
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return serialization.load_pem_private_key(signer.private_bytes, None).public_key().public_bytes(*form).decode()


def trusted(*names: str, revoked: str = "") -> list[TrustedKey]:
    return [TrustedKey(name, public(name), revoked) for name in names]


def envelope(of=None, by: str = "desy", assertions=None, *, at: int = NOW - DAY, **more):
    return signing.sign(
        of or image(), "debian", FULL if assertions is None else assertions, key(by), signed_at=at, **more
    )


def attestation(of=None, by: str = "desy", assertions=None, **more) -> bytes:
    return write_envelope(envelope(of, by, assertions, **more))


def certificate(
    name: str, key, issuer: str = "", issuer_key=None, *, ca: bool = False, since: int = NOW - DAY, days: int = 365
) -> str:
    """PEM; signed by itself if no issuer is given."""
    start = datetime.datetime.fromtimestamp(since, datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_called(name))
        .issuer_name(_called(issuer or name))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    by = issuer_key or key
    made = builder.sign(by, None if isinstance(by, Ed25519PrivateKey) else hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def new_private():
    return ec.generate_private_key(ec.SECP256R1())


def signer_of(private) -> signing.CryptoSigner:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return signing.read_key(private.private_bytes(*form))
