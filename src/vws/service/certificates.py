"""The site's own certificate authority, and the service's certificate from it (RFC 5280).

Made by `site init`, so that TLS is on from the first second with nothing to buy. Clients and nodes trust this one CA
and no other; a joining node knows it by the fingerprint in its join token.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vws.core.errors import InvalidRequest

CA_DAYS = 3650
SERVER_DAYS = 397
RENEW_BEFORE_DAYS = 60
# A clock that is a little behind must not find a new certificate not yet valid.
BACKDATE = datetime.timedelta(hours=24)


def make_ca(directory: Path, site: str, now: float) -> None:
    """Write ca.key (0600) and ca.crt into `directory`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"VWS site {site}"[:64])])
    builder = _builder(subject, subject, key.public_key(), now, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(ca=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    _write_key(directory / "ca.key", key)
    _write(directory / "ca.crt", builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), 0o644)


def make_server(directory: Path, names: Iterable[str], now: float) -> None:
    """Write server.key (0600) and server.crt for `names` (host names and addresses), signed by the CA there."""
    ca_key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "VWS service")])
    builder = _builder(subject, ca.subject, key.public_key(), now, SERVER_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(ca=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([_name(n) for n in names]), critical=False)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = builder.add_extension(issuer_key, critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    _write_key(directory / "server.key", key)
    certificate = builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    _write(directory / "server.crt", certificate, 0o644)


def sign_host(directory: Path, request_pem: bytes, own: Sequence[str], now: float) -> bytes:
    """A certificate for a guest, by its signing request, and after it the CA's; PEM. The first line, which readers of
    PEM pass over, says in how many seconds the guest is to ask again: when two thirds of its life are over.

    own: the names and addresses that are the guest's: the first is the certificate's subject. Raises InvalidRequest for
    what is no request, a weak key, and a name that is not its own. The service's names are nobody's: with one of them
    a guest could stand in its place.
    """
    request = _read_request(request_pem)
    taken = _names_of(x509.load_pem_x509_certificate((directory / "server.crt").read_bytes()))
    allowed = [name for name in dict.fromkeys(own) if _name(name) not in taken and name not in _NOBODYS]
    wanted = _names_of(request) or [_name(name) for name in allowed]
    others = [str(name.value) for name in wanted if name not in [_name(each) for each in allowed]]
    others += [
        str(each.value) for each in request.subject if each.oid != NameOID.COMMON_NAME or str(each.value) not in own
    ]
    if others or not allowed:
        raise InvalidRequest(
            f"{', '.join(others)[:120] or 'no name'} is not this machine's own",
            field="request",
            asked=", ".join(others)[:120],
            possible=f"CN={allowed[0]} and names among {', '.join(allowed)}" if allowed else "a qualified name",
        )
    signed = _sign_host(directory, request, allowed[0], wanted, now)
    return f"# renew in {HOST_DAYS * 86400 * 2 // 3} s\n".encode() + signed + (directory / "ca.crt").read_bytes()


_NOBODYS = ("localhost",)
_RSA_BITS_MIN = 2048
HOST_DAYS = 90


def _read_request(request_pem: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key, is_signed = request.public_key(), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidRequest(
            "this is no signing request", field="request", possible="PEM, as `openssl req -new` writes it"
        ) from None
    is_strong = isinstance(key, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS_MIN
    )
    if not is_signed or not is_strong:
        raise InvalidRequest(
            "the request is not signed by its key, or that is weak",
            field="request",
            possible=f"a key of an elliptic curve, or of RSA with {_RSA_BITS_MIN} bits",
        )
    return request


def _names_of(holder: x509.Certificate | x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(holder.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (ValueError, x509.ExtensionNotFound):
        return []


def _sign_host(
    directory: Path, request: x509.CertificateSigningRequest, name: str, names: list[x509.GeneralName], now: float
) -> bytes:
    ca_key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    key = request.public_key()
    builder = _builder(subject, ca.subject, key, now, HOST_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(ca=False), critical=True)
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = builder.add_extension(issuer_key, critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def server_is_good(directory: Path, names: Iterable[str], now: float) -> bool:
    """Is there a server certificate that holds for all `names` and for some time to come?"""
    try:
        certificate = x509.load_pem_x509_certificate((directory / "server.crt").read_bytes())
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    left = certificate.not_valid_after_utc - datetime.datetime.fromtimestamp(now, datetime.UTC)
    wanted = [_name(name) for name in names]
    return left > datetime.timedelta(days=RENEW_BEFORE_DAYS) and all(name in held for name in wanted)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, now: float, days: int
) -> x509.CertificateBuilder:
    start = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATE)
        .not_valid_after(start + datetime.timedelta(days=days))
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(path, pem, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
