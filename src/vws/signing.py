"""What only the holder of a private key does: make it, read it, sign an attestation.

Apart from core/trust.py, since the service and the nodes never see a private key. Signing is securesystemslib's, so
that its envelopes are those of in-toto's other tools; keys are files in PEM (PKCS #8), which OpenSSL reads too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.dsse import Envelope as Dsse
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from vws.core.errors import InvalidRequest
from vws.core.manifest import Bootable
from vws.core.trust import PAYLOAD_TYPE, Envelope, Signature, Value, checked_key, statement


def new_key(passphrase: str = "") -> tuple[bytes, bytes]:
    """(private, public) of a new Ed25519 key, in PEM."""
    key = Ed25519PrivateKey.generate()
    locked = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked), public


def write_key(path: Path, private: bytes, public: bytes) -> Path:
    """Keep a new key, and its public half in PATH.pub, whose path is returned. FileExistsError if either is there: then
    neither is written."""
    beside = path.with_name(path.name + ".pub")
    for target in (path, beside):
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    for target, content, mode in ((path, private, 0o600), (beside, public, 0o644)):
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
    return beside


def is_locked(pem: bytes) -> bool:
    """Whether a private key needs a passphrase."""
    return b"ENCRYPTED" in pem


def read_key(pem: bytes, passphrase: str = "") -> CryptoSigner:
    """What signs with that private key. Raises InvalidRequest for what is none that can."""
    possible = "a private key in PEM (vws image key new)"
    if b"PRIVATE KEY" not in pem:
        kind = "a public one, or a certificate" if b"-----BEGIN" in pem else "no key in PEM"
        raise InvalidRequest(f"the key cannot be used: it is {kind}", field="key", possible=possible)
    try:
        key = load_pem_private_key(pem, passphrase.encode() if passphrase else None)
        return CryptoSigner(key)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidRequest(f"the key cannot be used: {error}", field="key", possible=possible) from None


def sign(
    image: Bootable,
    name: str,
    assertions: Mapping[str, Value],
    key: CryptoSigner,
    *,
    signed_at: int,
    expires: int | None = None,
    certificate: str = "",
) -> Envelope:
    """An attestation about `image`. certificate: what an authority issued for the key, PEM; "": none goes with it."""
    payload = statement(image, name, assertions, signed_at=signed_at, expires=expires)
    return also_sign(Envelope(payload, PAYLOAD_TYPE, ()), key, certificate)


def also_sign(envelope: Envelope, key: CryptoSigner, certificate: str = "") -> Envelope:
    """The same statement with one signature more."""
    if certificate:
        _must_belong(certificate, key)
    made = Dsse(envelope.payload, envelope.payload_type, {}).sign(key)
    more = Signature(made.keyid, bytes.fromhex(made.signature), certificate)
    return Envelope(envelope.payload, envelope.payload_type, (*envelope.signatures, more))


def _must_belong(certificate: str, key: CryptoSigner) -> None:
    keyid, _ = checked_key(certificate, "certificate")
    if keyid != key.public_key.keyid:
        subject = x509.load_pem_x509_certificate(certificate.encode()).subject.rfc4514_string()
        raise InvalidRequest(
            f"the certificate of {subject} is for another key", field="certificate", possible="that of the key itself"
        )
