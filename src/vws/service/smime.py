"""Signed messages of others (S/MIME), verified by openssl and told by whom.

Python's `cryptography` signs such messages and does not verify them; openssl does both. It reads a stranger's bytes, so
it runs confined. The only authority that counts is the one handed in, never those that the host trusts: an endorser is
named beforehand, together with who issued the certificate.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from vws.core.errors import InvalidRequest
from vws.service.confined import Bounds, program, run

MESSAGE_BYTES_MAX = 8 << 20
_BOUNDS = Bounds(memory_mib=512, cpu_s=20, wall_s=60, output_bytes=MESSAGE_BYTES_MAX)
# As openssl and the grid's tools write them; RFC 4514 has no names for the last two.
_SHORT = {
    NameOID.COMMON_NAME: "CN",
    NameOID.COUNTRY_NAME: "C",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.LOCALITY_NAME: "L",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.USER_ID: "UID",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
}


@dataclass(frozen=True)
class Signed:
    """What was signed, and the subjects of the signer's certificate and of its issuer, as /C=.../CN=..."""

    payload: bytes
    dn: str
    ca: str


def verify(message: bytes, ca_pem: str, now: float, folder: Path) -> Signed:
    """What a message says, if one certificate that `ca_pem` issued signed it and both are good at `now`.

    folder: for its files, which are gone afterwards. Raises InvalidRequest with field "list", or "ca".
    """
    if len(message) > MESSAGE_BYTES_MAX:
        raise _wrong(f"it has more than {MESSAGE_BYTES_MAX} bytes", "the message as it was published")
    check_authority(ca_pem)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    work = Path(tempfile.mkdtemp(dir=folder))
    try:
        return _verify(message, ca_pem, now, work)
    finally:
        shutil.rmtree(work)


def _verify(message: bytes, ca_pem: str, now: float, work: Path) -> Signed:
    given, authority, payload, signer = (work / name for name in ("message", "ca.pem", "payload", "signer.pem"))
    given.write_bytes(message)
    authority.write_text(ca_pem)
    for made in (payload, signer):
        made.touch()
    command: list[str | Path] = [program("openssl", "openssl"), "cms", "-verify", "-inform", "SMIME", "-in", given]
    command += [
        "-CAfile",
        authority,
        "-no-CApath",
        "-no-CAstore",
        "-purpose",
        "any",
        "-attime",
        str(int(now)),
        "-signer",
        signer,
    ]
    outcome = run(
        [*command, "-out", payload], "verifying this message", _BOUNDS, read=[given, authority], write=[payload, signer]
    )
    if outcome.status != 0:
        raise _wrong(_reason(outcome.complained), "the message as its endorser signed it, and the endorser's authority")
    certificates = x509.load_pem_x509_certificates(signer.read_bytes())
    if len(certificates) != 1:
        raise _wrong(f"{len(certificates)} certificates signed it", "one signature")
    return Signed(payload.read_bytes(), slashed(certificates[0].subject), slashed(certificates[0].issuer))


def _reason(complained: bytes) -> str:
    text = complained.decode(errors="replace")
    for said, meaning in _MEANINGS:
        if said in text:
            return meaning
    lines = [line.rsplit(":", 2)[-2] for line in text.splitlines() if line.count(":") > 4]
    return f"openssl cannot verify it ({lines[0][:100] if lines else 'it says nothing'})"


_MEANINGS = (
    ("certificate has expired", "the certificate of who signed it, or of the authority, has expired"),
    ("certificate is not yet valid", "the certificate of who signed it is not valid yet"),
    ("self-signed certificate", "the certificate that signed it is another authority's"),
    ("unable to get local issuer", "the certificate that signed it is another authority's"),
    ("certificate signature failure", "the certificate that signed it is another authority's"),
    ("certificate verify error", "the certificate that signed it is not one of this authority's"),
    ("digest failure", "it was altered after it was signed"),
    ("verification failure", "it was altered after it was signed"),
    ("signature failure", "it was altered after it was signed"),
)


def check_authority(ca_pem: str) -> x509.Certificate:
    """The authority's certificate. Raises InvalidRequest with field "ca" if the text is not that of one."""
    try:
        return x509.load_pem_x509_certificate(ca_pem.encode())
    except (ValueError, UnicodeEncodeError):
        raise InvalidRequest(
            "the authority is no certificate", field="ca", possible="a certificate in PEM (BEGIN CERTIFICATE)"
        ) from None


def slashed(name: x509.Name) -> str:
    """/C=DE/O=.../CN=...: first the widest, as the certificate has it."""
    return "".join(f"/{_SHORT.get(part.oid, part.oid.dotted_string)}={_value(part.value)}" for part in name)


def _value(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def _wrong(problem: str, possible: str) -> InvalidRequest:
    return InvalidRequest(f"this signed list cannot be taken: {problem}", field="list", possible=possible)
