"""Authorities, intermediate ones, what they certify and what they take back, for tests."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from tests.core.attesting import DAY, NOW

PEM = serialization.Encoding.PEM


class Issuer:
    """An authority (or, with ca=False, who holds a certificate), and what it issues."""

    def __init__(self, name: str, by: Issuer | None = None, *, key=None, since: int = NOW - DAY, **more) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (by or self).issue(self, since=since, **more)
        self.pem = self.certificate.public_bytes(PEM).decode()

    def issue(self, to: Issuer, *, since: int, ca: bool = True, days: int = 365, path=None, more=()):
        start = datetime.datetime.fromtimestamp(since, datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(to.name)
            .issuer_name(self.name)
            .public_key(to.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, path), critical=True)
        )
        for extension, critical in more:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, _hash(self.key))

    def crl(self, *revoked: Issuer, at: int = NOW - 3600, days: float = 7, more=()) -> str:
        made = datetime.datetime.fromtimestamp(at, datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(made)
            .next_update(made + datetime.timedelta(days=days))
        )
        for each in revoked:
            serial = each.certificate.serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(made).build()
            builder = builder.add_revoked_certificate(entry)
        for extension, critical in more:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, _hash(self.key)).public_bytes(PEM).decode()


def _hash(key):
    return None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256()
