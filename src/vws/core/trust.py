"""What somebody vouches for about an image, and whether it can be believed.

An attestation is an in-toto statement about an image's digest (core/manifest.py), that is about what boots, in a DSSE
envelope. The envelope is read strictly before anything in it is believed: who made it is not known yet. A signature
covers the exact bytes of the payload, which are therefore parsed only as they came and never written anew.

What could go wrong with an attestation goes wrong for people who did nothing wrong themselves: it was copied beside
another image, it expired, its signer was revoked. Each has a sentence of its own, because "invalid signature" helps
nobody. Several signatures in one envelope are judged one by one: a bad one does not spoil a good one.

A signer on record is a public key or an X.509 certificate. If the certificate is an authority's, each signature brings
the certificate of its key, and those of intermediate authorities that are not on record (core/certificates.py). A node
is given the keys themselves: authorities, what they took back and policies are the service's affair
(`why_not_vouched`).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from securesystemslib.exceptions import UnverifiedSignatureError

from vws.core.certificates import (
    chain_in,
    check_between,
    is_authority,
    is_certificate,
    out_of_time,
    way,
    why_taken_back,
)
from vws.core.errors import InvalidRequest
from vws.core.manifest import Bootable, digest

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:vws:image-assertions:1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MEDIA_TYPE = "application/vnd.dsse.envelope.v1+json"

ENVELOPE_BYTES_MAX = 64 * 1024
SIGNATURES_MAX = 16
ASSERTIONS_MAX = 64
VALUES_MAX = 1000
TEXT_LENGTH_MAX = 1000
# How far a maker's clock may be ahead of the site's.
AHEAD_S_MAX = 3600
# How far after its signature updates may be said to go: where the maker is, the day may have begun before UTC's.
UPDATES_AHEAD_S_MAX = 86_400

# What the site itself understands; any other name may be asserted too and demanded by a policy.
MAKER, UPDATES_UNTIL, PACKAGES = "maker", "updates-until", "packages"
LISTENING, REMOTE_ROOT_LOGIN = "listening", "remote-root-login"

Value = str | int | bool | tuple[str, ...]


# ---------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Statement:
    """What an attestation states: digest: of the image; files: (role, sha256); signed_at, expires: UTC seconds."""

    name: str
    digest: str
    files: tuple[tuple[str, str], ...]
    signed_at: int
    expires: int | None
    assertions: Mapping[str, Value]


def statement(
    image: Bootable, name: str, assertions: Mapping[str, Value], *, signed_at: int, expires: int | None = None
) -> bytes:
    """The payload of an attestation about `image`. InvalidRequest for assertions that cannot be read again, and for
    updates that are still to come."""
    problem = updates_to_come(assertions, signed_at)
    if problem:
        raise InvalidRequest(
            f"{UPDATES_UNTIL}: {problem}",
            field=UPDATES_UNTIL,
            asked=assertions[UPDATES_UNTIL],
            possible=f"when they were last applied, {_written(signed_at)[:10]} at the latest",
        )
    files = sorted((file.role, file.sha256) for file in image.files)
    subjects = [{"name": name, "digest": {"sha256": digest(image)}}]
    subjects += [{"name": f"file:{role}", "digest": {"sha256": sha256}} for role, sha256 in files]
    predicate: dict[str, Any] = {
        "assertions": {key: list(v) if isinstance(v, tuple) else v for key, v in sorted(assertions.items())},
        "signed-at": _written(signed_at),
    }
    if expires is not None:
        predicate["expires"] = _written(expires)
    said = {"_type": STATEMENT_TYPE, "subject": subjects, "predicateType": PREDICATE_TYPE, "predicate": predicate}
    payload = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    read_statement(payload)
    return payload


def read_statement(payload: bytes) -> Statement:
    """Raises InvalidRequest, naming the field, for what is no statement of ours about an image."""
    said = _object(_json(payload, "the attestation's payload"), "statement")
    _must(said.get("_type") == STATEMENT_TYPE, "_type", said.get("_type"), STATEMENT_TYPE)
    _must(said.get("predicateType") == PREDICATE_TYPE, "predicateType", said.get("predicateType"), PREDICATE_TYPE)
    subjects = said.get("subject")
    if not isinstance(subjects, list) or not 1 <= len(subjects) <= 17:
        raise _wrong("subject", subjects, "a list of the image and its files")
    (name, sha256), *files = [_subject(each, f"subject[{i}]") for i, each in enumerate(subjects)]
    predicate = _object(said.get("predicate"), "predicate")
    _known(predicate, ("assertions", "signed-at", "expires"), "predicate")
    expires = predicate.get("expires")
    return Statement(
        name=name,
        digest=sha256,
        files=tuple(sorted((label.removeprefix("file:"), held) for label, held in files)),
        signed_at=read_time(predicate.get("signed-at"), "predicate.signed-at"),
        expires=None if expires is None else read_time(expires, "predicate.expires"),
        assertions=checked_assertions(predicate.get("assertions"), "predicate.assertions"),
    )


def _subject(said: Any, where: str) -> tuple[str, str]:
    subject = _object(said, where)
    sha256 = _object(subject.get("digest"), f"{where}.digest").get("sha256")
    if not isinstance(sha256, str) or len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise _wrong(f"{where}.digest.sha256", sha256, "64 hexadecimal digits")
    return _text(subject.get("name"), f"{where}.name"), sha256


def checked_assertions(said: Any, where: str = "assertions") -> dict[str, Value]:
    """What is asserted, lists as tuples. Raises InvalidRequest for names and values that cannot be."""
    found = _object(said, where)
    _must(len(found) <= ASSERTIONS_MAX, where, len(found), f"at most {ASSERTIONS_MAX} assertions")
    # Of an option the value is named as another word.
    of = f"{where} " if where.startswith("-") else f"{where}."
    return {_name(name, where): _value(name, value, f"{of}{name}") for name, value in found.items()}


def _name(name: str, where: str) -> str:
    good = 0 < len(name) <= 100 and name[0].isalnum() and all(c.isascii() and (c.isalnum() or c in "-._") for c in name)
    if not good:
        shown = str(name)[:60]
        possible = "letters, digits and - . _, a letter or digit first, at most 100"
        raise InvalidRequest(
            f"{where}: {shown!r} is no name of an assertion", field=where, asked=shown, possible=possible
        )
    return name


def _value(name: str, value: Any, where: str) -> Value:
    if name == UPDATES_UNTIL:
        read_time(value, where)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        _must(abs(value) < 1 << 53, where, value, "a number below 2^53")
        return value
    if isinstance(value, list | tuple):
        _must(len(value) <= VALUES_MAX, where, len(value), f"at most {VALUES_MAX} values")
        return tuple(_text(each, where) for each in value)
    return _text(value, where)


def read_time(said: Any, where: str) -> int:
    """UTC seconds of an ISO 8601 date or time; a time without a zone is UTC. Raises InvalidRequest."""
    possible = "a time such as 2026-11-21T16:00:00Z, or a date such as 2026-11-21"
    text = _text(said, where) if isinstance(said, str) else ""
    try:
        found = datetime.fromisoformat(text)
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise _wrong(where, said, possible) from None


def updates_to_come(assertions: Mapping[str, Value], signed_at: int) -> str:
    """Why nobody who signs then can vouch for the updates that are asserted; "": somebody can, or none are. Raises
    InvalidRequest for what is no time."""
    until = assertions.get(UPDATES_UNTIL)
    if until is None or read_time(until, UPDATES_UNTIL) <= signed_at + UPDATES_AHEAD_S_MAX:
        return ""
    return f"updates until {until} were still to come when it was signed ({_written(signed_at)})"


def _written(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------- envelopes


@dataclass(frozen=True, slots=True)
class Signature:
    """certificate: of the key that made it, PEM; "": none is beside it."""

    keyid: str
    signed: bytes
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    @property
    def signed_bytes(self) -> bytes:
        """What the signatures are over."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)


def read_envelope(content: bytes) -> Envelope:
    """Raises InvalidRequest, naming the field, for what is no DSSE envelope; nothing of it is believed yet."""
    _must(len(content) <= ENVELOPE_BYTES_MAX, "envelope", len(content), f"at most {ENVELOPE_BYTES_MAX} bytes")
    said = _object(_json(content, "the envelope"), "envelope")
    _known(said, ("payload", "payloadType", "signatures"), "envelope")
    signatures = said.get("signatures")
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= SIGNATURES_MAX:
        raise _wrong("signatures", signatures, f"1 to {SIGNATURES_MAX} signatures")
    return Envelope(
        _decoded(said.get("payload"), "payload"),
        _text(said.get("payloadType"), "payloadType"),
        tuple(_signature(each, f"signatures[{i}]") for i, each in enumerate(signatures)),
    )


def _signature(said: Any, where: str) -> Signature:
    found = _object(said, where)
    _known(found, ("keyid", "sig", "cert"), where)
    certificate = found.get("cert") or ""
    _must(isinstance(certificate, str), f"{where}.cert", certificate, "a certificate in PEM")
    keyid = found.get("keyid") or ""
    return Signature(_text(keyid, f"{where}.keyid"), _decoded(found.get("sig"), f"{where}.sig"), certificate)


def write_envelope(envelope: Envelope) -> bytes:
    """JSON, as `read_envelope` reads it and as every reader of DSSE does."""
    signatures = [
        {"keyid": each.keyid, "sig": base64.b64encode(each.signed).decode()}
        | ({"cert": each.certificate} if each.certificate else {})
        for each in envelope.signatures
    ]
    payload = base64.b64encode(envelope.payload).decode()
    said = {"payload": payload, "payloadType": envelope.payload_type, "signatures": signatures}
    return json.dumps(said, indent=1).encode() + b"\n"


# ---------------------------------------------------------------- keys and certificates


def checked_key(pem: str, where: str = "key") -> tuple[str, str]:
    """(keyid, what it is) of a public key or a certificate in PEM; the keyid of an authority is its own key's.

    Raises InvalidRequest for what is neither, for weak keys, and for private ones.
    """
    possible = "a public key or a certificate in PEM: Ed25519, ECDSA on P-256, P-384 or P-521, RSA of 2048 bits or more"
    if "PRIVATE KEY" in pem:
        raise InvalidRequest(f"{where} is a private key, which stays with its owner", field=where, possible=possible)
    try:
        key, chain = _key_in(pem), chain_in(pem) if is_certificate(pem) else ()
        authority = bool(chain) and is_authority(chain[0])
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        said = f"{where} cannot be read as a key or certificate: {error}"
        raise InvalidRequest(said, field=where, possible=possible) from None
    if isinstance(key, RSAPublicKey) and key.key_size < 2048:
        raise InvalidRequest(f"{where} is RSA of {key.key_size} bits", field=where, possible=possible)
    kind = "Ed25519" if isinstance(key, Ed25519PublicKey) else "RSA" if isinstance(key, RSAPublicKey) else "ECDSA"
    return keyid_of(pem), f"{kind} {'authority' if authority else 'certificate' if chain else 'key'}"


def checked_signer(pem: str) -> tuple[str, str]:
    """The same of what is to be on record: after an authority's certificate may come those of intermediate ones, which
    must lead to it."""
    found = checked_key(pem)
    own, *between = chain_in(pem) if is_certificate(pem) else (None,)
    if own is not None and between:
        check_between(own, between)
    return found


@lru_cache(1024)
def keyid_of(pem: str) -> str:
    """As securesystemslib and in-toto name a key: the sha256 of its description."""
    return str(_library_key(_public_pem(pem)).keyid)


@lru_cache(1024)
def _library_key(pem: str) -> Any:
    # Only once a signature is looked at: it brings the client libraries of several clouds, a quarter of a second.
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    return SSlibKey.from_crypto(serialization.load_pem_public_key(pem.encode()))


def _public_pem(pem: str) -> str:
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return _key_in(pem).public_bytes(*form).decode()


def _key_in(pem: str) -> Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey:
    key: Any = chain_in(pem)[0].public_key() if is_certificate(pem) else serialization.load_pem_public_key(pem.encode())
    if not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey):
        raise ValueError("keys of this kind are not used for signatures here")
    return key


@lru_cache(4096)
def _fits(pem: str, signed: bytes, message: bytes) -> bool:
    """Whether the holder of that public key made the signature. A pure function, and slow: asked of each boot."""
    from securesystemslib.signer import Signature as DsseSignature  # type: ignore[attr-defined]

    try:
        key = _library_key(pem)
        key.verify_signature(DsseSignature(key.keyid, signed.hex()), message)
    except (UnverifiedSignatureError, InvalidSignature):
        return False
    return True


# ---------------------------------------------------------------- judging


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A signer on record. pem: a key or a certificate; after an authority's, those of its intermediate ones. revoked:
    why it counts no more; "": it counts. crls: of what the authority and they took back (core/certificates.py)."""

    name: str
    pem: str
    revoked: str = ""
    crls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attested:
    """One attestation, judged. keys: by the name of each signer whose signature counts, the public key that made it
    (PEM). problem: why none of it counts. problems: what is wrong with single signatures."""

    content: bytes
    statement: Statement | None
    keys: Mapping[str, str]
    problem: str = ""
    problems: tuple[str, ...] = ()


def judged(content: bytes, of: str, on_record: Sequence[TrustedKey], now: float) -> Attested:
    """What an attestation is worth for the image with the digest `of`. Never raises."""
    try:
        envelope = read_envelope(content)
        _must(envelope.payload_type == PAYLOAD_TYPE, "payloadType", envelope.payload_type, PAYLOAD_TYPE)
        said = read_statement(envelope.payload)
    except InvalidRequest as error:
        return Attested(content, None, {}, f"an attestation cannot be read: {error.problem}")
    problem = _wrong_about(said, of, now)
    if problem:
        return Attested(content, said, {}, problem)
    keys: dict[str, str] = {}
    problems: list[str] = []
    for signature in envelope.signatures:
        name, found = _made_by(signature, envelope.signed_bytes, on_record, now)
        if name:
            keys.setdefault(name, found)
        else:
            problems.append(found)
    return Attested(content, said, keys, "" if keys else "; ".join(problems), tuple(problems))


def check_attestation(content: bytes, of: str) -> None:
    """Raise InvalidRequest for what would never be worth anything beside the image with the digest `of`. Whether its
    signature counts is asked when it matters: signers come and go."""
    envelope = read_envelope(content)
    _must(envelope.payload_type == PAYLOAD_TYPE, "payloadType", envelope.payload_type, PAYLOAD_TYPE)
    said = read_statement(envelope.payload)
    if said.digest != of:
        raise InvalidRequest(
            f"the attestation is about another image: it vouches for sha256:{said.digest[:12]}, this is "
            f"sha256:{of[:12]}",
            field="subject",
            asked=said.digest,
            possible="the attestation of this image",
        )


def _wrong_about(said: Statement, of: str, now: float) -> str:
    if said.digest != of:
        return (
            f"an attestation is about another image: it vouches for sha256:{said.digest[:12]}, this is sha256:{of[:12]}"
        )
    if said.expires is not None and said.expires <= now:
        return f"the attestation of {_written(said.signed_at)} expired at {_written(said.expires)}"
    if said.signed_at > now + AHEAD_S_MAX:
        return f"the attestation says that it was signed at {_written(said.signed_at)}, which is still to come"
    return ""


def _made_by(signature: Signature, message: bytes, on_record: Sequence[TrustedKey], now: float) -> tuple[str, str]:
    """(the signer's name, his public key), or ("", why the signature does not count)."""
    problem, astray = "", list[str]()
    for signer in on_record:
        pem, why = _key_for(signer, signature, now)
        if not pem:
            astray += [f"{signer.name}: {why}"] if why else []
        elif not _fits(pem, signature.signed, message):
            if signature.keyid == keyid_of(pem):
                problem = (
                    f"the signature of {signer.name} does not fit: the attestation was altered after it was signed"
                )
        elif signer.revoked:
            problem = f"it is signed by {signer.name}, who was revoked: {signer.revoked}"
        elif why:
            problem = why
        else:
            return signer.name, pem
    return "", problem or _not_on_record(signature, astray)


def _not_on_record(signature: Signature, astray: Sequence[str]) -> str:
    named = f" {signature.keyid[:12]}" if signature.keyid else ""
    led = f", nor does its certificate lead to an authority that is ({'; '.join(astray[:5])})" if astray else ""
    return f"it is signed by a key{named} that is not on record here{led}"


def _key_for(signer: TrustedKey, signature: Signature, now: float) -> tuple[str, str]:
    """(the public key that this signer would have made the signature with, why it does not count even so); no key, and
    perhaps why, if it cannot be his."""
    if not is_certificate(signer.pem):
        return _public_pem(signer.pem), ""
    own, *between = chain_in(signer.pem)
    if not is_authority(own):
        return _public_pem(signer.pem), out_of_time(own, f"the certificate of {signer.name}", now)
    if not signature.certificate:
        return "", ""
    try:
        leaf, *brought = chain_in(signature.certificate)
        pem = _public_pem(signature.certificate)
        late = out_of_time(own, f"the certificate of {signer.name}", now)
        late = late or out_of_time(leaf, f"the certificate that {signer.name} issued to the signing key", now)
        chain = way(leaf, (*brought, *between), own, _last_good(leaf, own, now) if late else now)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return "", str(error)
    if is_authority(leaf):
        late = f"it is signed with an authority's certificate under {signer.name}, which is not for signing images"
    return pem, late or why_taken_back(chain, signer.crls, now)


def _last_good(leaf: x509.Certificate, own: x509.Certificate, now: float) -> float:
    """When both held, for what is out of time now: so that it is told whose it is."""
    ends = (each.not_valid_after_utc.timestamp() for each in (leaf, own))
    begins = (each.not_valid_before_utc.timestamp() for each in (leaf, own))
    return max(min(now, *ends), *begins)


# ---------------------------------------------------------------- on the node


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a node is told of the image it is to boot. digest: of its manifest, as it was granted. envelopes: the
    attestations, JSON. keys: public keys in PEM, of which one must have signed; (): it is not signed and need not be.

    refused: why it may not be booted any more; "": it may.
    """

    digest: str
    envelopes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    refused: str = ""


def why_not_vouched(image: Bootable, vouched: Vouched) -> str:
    """Why a node must not boot this; "" if it may. Looks at what was ordered, not at the files themselves."""
    if vouched.refused:
        return vouched.refused
    found = digest(image)
    if found != vouched.digest:
        return f"what is to boot (sha256:{found[:12]}) is not what was granted (sha256:{vouched.digest[:12]})"
    if not vouched.keys:
        return ""
    problems = [_why_not(each, image, found, vouched.keys) for each in vouched.envelopes]
    return "" if "" in problems else "; ".join(problems) or "the image is to be signed, and no attestation came with it"


def _why_not(content: str, image: Bootable, of: str, keys: Iterable[str]) -> str:
    try:
        envelope = read_envelope(content.encode())
        said = read_statement(envelope.payload)
        message = envelope.signed_bytes
        signed = any(_fits(key, each.signed, message) for key in keys for each in envelope.signatures)
    except (InvalidRequest, ValueError) as error:
        return f"its attestation cannot be read: {error}"
    if not signed or envelope.payload_type != PAYLOAD_TYPE:
        return "the signature of its attestation does not fit any key that counts"
    if said.digest != of:
        return f"its attestation is about another image (sha256:{said.digest[:12]})"
    if said.files != tuple(sorted((file.role, file.sha256) for file in image.files)):
        return "its attestation names other files"
    return ""


# ---------------------------------------------------------------- reading strictly


def _json(content: bytes, what: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{what} is not JSON: {error}", field="envelope", possible="JSON in UTF-8") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers of a key that is there twice could each believe another one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _object(said: Any, where: str) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise _wrong(where, said, "an object")
    return said


def _known(said: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for name in said:
        _must(name in names, f"{where}.{name[:60]}", name, f"one of {', '.join(names)}")


def _text(said: Any, where: str) -> str:
    if not isinstance(said, str) or len(said) > TEXT_LENGTH_MAX or not said.isprintable():
        raise _wrong(where, said, f"printable text of at most {TEXT_LENGTH_MAX} characters")
    return said


def _decoded(said: Any, where: str) -> bytes:
    try:
        return base64.b64decode(said, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise _wrong(where, said, "base64") from None


def _must(good: bool, where: str, asked: Any, possible: str) -> None:
    if not good:
        raise _wrong(where, asked, possible)


def _wrong(where: str, asked: Any, possible: str) -> InvalidRequest:
    shown = str(asked)[:60]
    return InvalidRequest(f"{where} is {shown!r}, not {possible}", field=where, asked=shown, possible=possible)
