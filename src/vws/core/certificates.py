"""Certificates of signers: by which way one leads to an authority on record, and which were taken back.

An authority seldom certifies keys itself: intermediate ones stand between. They come with the signature or were put on
record beside the authority; the way is looked for by `cryptography`'s verifier, which holds every certificate on it to
its dates, to what it may be used for and to the constraints of those above it.

What an authority takes back before its time stands in its list of revoked certificates (CRL), which an administrator
puts on record. A list says until when it holds: afterwards it is not known any more who was revoked, and nothing that
the authority certified counts until a newer list is there, as RFC 5280 has it. A list never goes back in time, since
whoever could bring an older one could undo a revocation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509 import verification

from vws.core.errors import InvalidRequest

CHAIN_MAX = 8
CRL_BYTES_MAX = 4 << 20
CRLS_MAX = 16
_BEGIN_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_BEGIN_CRL = "-----BEGIN X509 CRL-----"
_MISSES = (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm)

Chain = tuple[x509.Certificate, ...]


def is_certificate(pem: str) -> bool:
    return _BEGIN_CERTIFICATE in pem


@lru_cache(1024)
def chain_in(pem: str) -> Chain:
    """All certificates in a text, in its order. ValueError for none, one that cannot be read, or too many."""
    if pem.count(_BEGIN_CERTIFICATE) > CHAIN_MAX:
        raise ValueError(f"more than {CHAIN_MAX} certificates")
    return tuple(x509.load_pem_x509_certificates(pem.encode()))


def is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def out_of_time(certificate: x509.Certificate, what: str, now: float) -> str:
    if now < certificate.not_valid_before_utc.timestamp():
        return f"{what} is not valid yet"
    if now > certificate.not_valid_after_utc.timestamp():
        return f"{what} expired at {written(certificate.not_valid_after_utc)}"
    return ""


def written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------- the way to an authority


def way(leaf: x509.Certificate, between: Iterable[x509.Certificate], authority: x509.Certificate, now: float) -> Chain:
    """The certificates from `leaf` to `authority`, both included. ValueError, saying why, if none leads there.

    Whether `leaf` and `authority` themselves are out of time is not asked if the one issued the other. The answer is
    remembered for its second, as many leases may ask in it.
    """
    found, why = _way(leaf, tuple(between), authority, int(now))
    if why:
        raise ValueError(why)
    return found


@lru_cache(4096)
def _way(leaf: x509.Certificate, between: Chain, authority: x509.Certificate, now: int) -> tuple[Chain, str]:
    try:
        leaf.verify_directly_issued_by(authority)
        return (leaf, authority), ""
    except _MISSES:
        pass
    try:
        return _longer_way(leaf, between, authority, now), ""
    except ValueError as error:
        return (), str(error)


def _longer_way(leaf: x509.Certificate, between: Chain, authority: x509.Certificate, now: int) -> Chain:
    if not between:
        raise ValueError("it was issued by another one")
    try:
        verifier = (
            verification.PolicyBuilder()
            .store(verification.Store([authority]))
            .time(datetime.fromtimestamp(now, UTC))
            .max_chain_depth(CHAIN_MAX)
            .extension_policies(ca_policy=_may_issue(), ee_policy=verification.ExtensionPolicy.permit_all())
            .build_client_verifier()
        )
        return tuple(verifier.verify(leaf, list(between)).chain)
    except (verification.VerificationError, *_MISSES) as error:
        late = next(filter(None, (out_of_time(each, _called(each), now) for each in between)), "")
        raise ValueError(late or _reason(str(error))) from None


def _may_issue() -> verification.ExtensionPolicy:
    """Of certificates that issued others: authorities, and if it is said what their keys are for, for that."""
    return (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
        .may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _signs_certificates)
    )


def _signs_certificates(_: object, __: object, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("one on the way is not for issuing certificates (keyUsage)")


def _reason(said: str) -> str:
    for part, meaning in (
        ("Forbidden public key", "one on the way has a key of a kind (Ed25519, weak RSA) that is not followed"),
        ("not for issuing", "one on the way is not for issuing certificates (keyUsage)"),
        ("basicConstraints", "one on the way is no authority's"),
        ("path length", "the way is longer than an authority on it allows"),
        ("name constraint", "an authority on the way may not issue such names"),
        ("critical extension", "one on the way says something, as critical, that is not understood here"),
    ):
        if part in said:
            return meaning
    return "no way of valid signatures leads there"


def _called(certificate: x509.Certificate) -> str:
    return f"the certificate of {certificate.subject.rfc4514_string()[:200]}"


def check_between(authority: x509.Certificate, between: Sequence[x509.Certificate]) -> None:
    """Raise InvalidRequest for certificates beside an authority's that could never stand between it and a key."""
    # As soon as all of them hold: who puts them on record early does no wrong.
    moment = max(each.not_valid_before_utc.timestamp() for each in (authority, *between))
    for each in between:
        problem = ""
        try:
            way(each, [other for other in between if other != each], authority, moment)
            problem = "" if is_authority(each) and is_authority(authority) else "one of the two is no authority's"
        except ValueError as error:
            problem = str(error)
        if problem:
            raise InvalidRequest(
                f"{_called(each)} does not lead to {_called(authority)}: {problem}",
                field="key",
                possible="the authority's own certificate first, then those of the intermediate ones",
            )


# ---------------------------------------------------------------- what was taken back


@dataclass(frozen=True, slots=True)
class CrlFacts:
    """issuer: who took back. made_at, expires_at: UTC seconds. revoked: how many certificates."""

    issuer: str
    made_at: float
    expires_at: float
    revoked: int


@lru_cache(64)
def _crl(pem: str) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl(pem.encode())


def crl_facts(pem: str) -> CrlFacts:
    """Of a list that `with_crl` took."""
    crl = _crl(pem)
    assert crl.next_update_utc is not None
    made_at, expires_at = crl.last_update_utc.timestamp(), crl.next_update_utc.timestamp()
    return CrlFacts(crl.issuer.rfc4514_string(), made_at, expires_at, len(crl))


def with_crl(crls: Sequence[str], pem: str, signer_pem: str) -> tuple[str, ...]:
    """The lists on record of a signer, once a newer one took its place among them.

    signer_pem: the authority's certificate and those of intermediate ones. Raises InvalidRequest with field "crl".
    """
    crl = _read_crl(pem)
    issuer = next((each for each in chain_in(signer_pem) if _issued(pem, each)), None)
    if issuer is None:
        raise _wrong_crl(
            f"no authority that is on record here signed it; it says it is of {crl.issuer.rfc4514_string()[:200]}",
            "the list of the authority itself, or the intermediate one's certificate first (trust add --chain)",
        )
    kept = [each for each in crls if _crl(each).issuer != crl.issuer]
    for other in set(crls) - set(kept):
        if crl.last_update_utc < _crl(other).last_update_utc:
            raise _wrong_crl(f"it is older than the one on record, of {written(_crl(other).last_update_utc)}", "")
    if len(kept) >= CRLS_MAX:
        raise _wrong_crl(f"{len(kept)} lists are on record already", f"at most {CRLS_MAX} of one signer")
    return (*kept, pem)


def _read_crl(pem: str) -> x509.CertificateRevocationList:
    possible = "a CRL in PEM (BEGIN X509 CRL)"
    if len(pem) > CRL_BYTES_MAX or pem.count(_BEGIN_CRL) != 1:
        raise _wrong_crl("it is none, more than one, or very long", f"{possible} of at most {CRL_BYTES_MAX} bytes")
    try:
        crl = _crl(pem)
        partial = [each.oid.dotted_string for each in crl.extensions if each.critical]
        sum(1 for _ in crl)
    except _MISSES as error:
        raise _wrong_crl(f"it cannot be read: {error}", possible) from None
    if partial:
        raise _wrong_crl("it is a delta, or of some certificates only", "the whole list")
    if crl.next_update_utc is None:
        raise _wrong_crl("it does not say until when it holds", "a list with nextUpdate")
    return crl


@lru_cache(256)
def _issued(pem: str, authority: x509.Certificate) -> bool:
    crl = _crl(pem)
    try:
        return crl.issuer == authority.subject and crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except _MISSES:
        return False


def _wrong_crl(problem: str, possible: str) -> InvalidRequest:
    return InvalidRequest(
        f"this list of revoked certificates cannot be taken: {problem}", field="crl", possible=possible or None
    )


def why_taken_back(chain: Chain, crls: Sequence[str], now: float) -> str:
    """Why one certificate on a way does not count by the lists on record; "": all do, or nothing is known of them."""
    for certificate, issuer in pairwise(chain):
        for pem in crls:
            crl = _crl(pem)
            if not _issued(pem, issuer):
                continue
            found = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if found is not None:
                at = written(found.revocation_date_utc)
                return f"{_called(certificate)} was revoked at {at} by {issuer.subject.rfc4514_string()[:200]}"
            if crl.next_update_utc is not None and crl.next_update_utc.timestamp() <= now:
                return f"{_of_crl(crl)} expired at {written(crl.next_update_utc)}: who was revoked since is not known"
    return ""


def _of_crl(crl: x509.CertificateRevocationList) -> str:
    return f"the list of revoked certificates (CRL) of {crl.issuer.rfc4514_string()[:200]}"
