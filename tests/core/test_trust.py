"""Attestations: what counts, and for all that does not a sentence of its own."""

import base64
import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as Dsse

from tests.core.attesting import (
    DAY,
    NOW,
    attestation,
    certificate,
    envelope,
    image,
    key,
    new_private,
    pem_of,
    public,
    signer_of,
    trusted,
)
from vws import signing
from vws.core import trust
from vws.core.errors import InvalidRequest
from vws.core.manifest import digest
from vws.core.trust import Vouched, judged, read_envelope, read_statement, why_not_vouched, write_envelope

DESY = trusted("desy")


def of(content=None, on_record=DESY, now=NOW, about=None):
    return judged(content or attestation(), digest(about or image()), on_record, now)


def test_a_good_attestation_says_who_vouches_and_what_is_asserted():
    found = of()
    assert (found.problem, found.problems) == ("", ())
    assert found.keys == {"desy": public("desy")}
    assert found.statement.digest == digest(image())
    assert found.statement.files == (("disk", "a" * 64), ("kernel", "c" * 64))
    assert found.statement.assertions["listening"] == ("22/tcp",)
    assert found.statement.signed_at == NOW - DAY


def test_other_tools_read_our_envelopes_and_we_read_theirs():
    theirs = Dsse.from_dict(json.loads(attestation()))
    assert theirs.verify([key("desy").public_key], 1)
    made = Dsse(envelope().payload, trust.PAYLOAD_TYPE, {})
    made.sign(key("desy"))
    assert of(json.dumps(made.to_dict()).encode()).keys


def altered(**changes):
    """Signed, and then changed by somebody else."""
    good = envelope()
    said = json.loads(good.payload)
    said["predicate"] |= changes
    return write_envelope(replace(good, payload=json.dumps(said).encode()))


@pytest.mark.parametrize(
    ("content", "on_record", "now", "problem"),
    [
        (attestation(image("b")), DESY, NOW, "about another image: it vouches for sha256:"),
        (altered(assertions={"maker": "me"}), DESY, NOW, "desy does not fit: the attestation was altered after"),
        (altered(**{"signed-at": "2020-01-01"}), DESY, NOW, "altered after"),
        (attestation(expires=NOW - 1), DESY, NOW, "expired at 2027-01-15T07:59:59Z"),
        (attestation(at=NOW + 2 * DAY), DESY, NOW, "which is still to come"),
        (attestation(), trusted("cern"), NOW, "is not on record here"),
        (attestation(), trusted("desy", revoked="its key was stolen"), NOW, "was revoked: its key was stolen"),
        (b"{", DESY, NOW, "cannot be read: the envelope is not JSON"),
        (b"{}", DESY, NOW, "cannot be read: signatures is 'None', not 1 to 16"),
    ],
)
def test_what_does_not_count_says_why(content, on_record, now, problem):
    found = judged(content, digest(image()), on_record, now)
    assert problem in found.problem
    assert not found.keys


def test_an_attestation_copied_beside_another_image_is_not_believed():
    found = judged(attestation(), digest(image(ready="boot")), DESY, NOW)
    assert found.problem.startswith("an attestation is about another image")


def test_each_signature_of_an_envelope_is_judged_by_itself():
    both = signing.also_sign(envelope(by="mallory"), key("desy"))
    found = of(write_envelope(both))
    assert set(found.keys) == {"desy"}
    assert "not on record" in found.problems[0]
    spoiled = replace(both, signatures=(replace(both.signatures[1], signed=b"\0" * 64), *both.signatures))
    assert set(of(write_envelope(spoiled)).keys) == {"desy"}
    two = of(write_envelope(signing.also_sign(envelope(by="cern"), key("desy"))), trusted("desy", "cern"))
    assert set(two.keys) == {"desy", "cern"}


def test_a_statement_of_another_kind_that_the_same_key_signed_is_not_ours():
    provenance = json.dumps(
        json.loads(envelope().payload) | {"predicateType": "https://slsa.dev/provenance/v1", "predicate": {}}
    ).encode()
    made = Dsse(provenance, trust.PAYLOAD_TYPE, {})
    made.sign(key("desy"))
    found = of(json.dumps(made.to_dict()).encode())
    assert "predicateType is 'https://slsa.dev/provenance/v1'" in found.problem


def test_a_key_signs_by_a_certificate_of_an_authority_on_record():
    root, leaf = new_private(), new_private()
    authority = certificate("Grid CA", root, ca=True)
    issued = certificate("DESY", leaf, "Grid CA", root)
    grid = [trust.TrustedKey("grid", authority)]
    good = signing.sign(image(), "debian", {}, signer_of(leaf), signed_at=NOW - 60, certificate=issued)
    found = of(write_envelope(good), grid)
    assert found.keys == {"grid": pem_of(signer_of(leaf))}, "a node is given the key itself"
    assert (
        "not on record"
        in of(write_envelope(good), [trust.TrustedKey("x", certificate("x", new_private(), ca=True))]).problem
    )
    bare = replace(good, signatures=(replace(good.signatures[0], certificate=""),))
    assert "not on record" in of(write_envelope(bare), grid).problem
    late = of(write_envelope(good), grid, now=NOW + 365 * DAY + 1)
    assert "the certificate of grid expired" in late.problem


def test_certificates_that_do_not_count():
    root, leaf, other = new_private(), new_private(), new_private()
    grid = [trust.TrustedKey("grid", certificate("Grid CA", root, ca=True, days=3650))]
    short = certificate("DESY", leaf, "Grid CA", root, days=2)
    good = signing.sign(image(), "debian", {}, signer_of(leaf), signed_at=NOW - 60, certificate=short)
    assert "that grid issued to the signing key expired" in of(write_envelope(good), grid, now=NOW + 2 * DAY).problem
    forged = certificate("DESY", leaf, "Grid CA", other)
    fake = replace(good, signatures=(replace(good.signatures[0], certificate=forged),))
    assert "not on record" in of(write_envelope(fake), grid).problem
    under = certificate("Sub CA", leaf, "Grid CA", root, ca=True)
    sub = replace(good, signatures=(replace(good.signatures[0], certificate=under),))
    assert "not for signing images" in of(write_envelope(sub), grid).problem
    with pytest.raises(InvalidRequest, match="for another key"):
        signing.sign(image(), "debian", {}, signer_of(other), signed_at=NOW, certificate=short)


def test_a_certificate_itself_may_be_on_record():
    own = new_private()
    pinned = [trust.TrustedKey("desy", certificate("DESY", own, days=2))]
    made = write_envelope(signing.sign(image(), "debian", {}, signer_of(own), signed_at=NOW))
    assert of(made, pinned).keys
    assert "the certificate of desy expired" in of(made, pinned, now=NOW + 2 * DAY).problem


def test_keys_that_are_taken_on_record():
    assert trust.checked_key(public("desy"))[1] == "Ed25519 key"
    assert trust.checked_key(certificate("CA", new_private(), ca=True))[1] == "ECDSA authority"
    with pytest.raises(InvalidRequest, match="stays with its owner"):
        trust.checked_key(signing.new_key()[0].decode())
    for pem in ("", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(InvalidRequest, match="cannot be read as a key or certificate"):
            trust.checked_key(pem)


def test_weak_rsa_is_refused():
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    weak = rsa.generate_private_key(65537, 1024).public_key()
    pem = weak.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InvalidRequest, match="RSA of 1024 bits"):
        trust.checked_key(pem.decode())


def test_private_keys_are_kept_from_others(tmp_path):
    private, shown = signing.new_key("secret")
    beside = signing.write_key(tmp_path / "key", private, shown)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert beside.read_bytes() == shown
    assert signing.is_locked(private)
    assert pem_of(signing.read_key(private, "secret")) == shown.decode()
    with pytest.raises(InvalidRequest, match="the key cannot be used"):
        signing.read_key(private, "wrong")
    with pytest.raises(FileExistsError):
        signing.write_key(tmp_path / "key", private, shown)
    (tmp_path / "key").unlink()
    with pytest.raises(FileExistsError):
        signing.write_key(tmp_path / "key", private, shown)
    assert not (tmp_path / "key").exists(), "no half of a pair"


# ---------------------------------------------------------------- on the node


def vouched(**changes):
    return replace(Vouched(digest(image()), (attestation().decode(),), (public("desy"),)), **changes)


def test_a_node_boots_what_is_vouched_for():
    assert why_not_vouched(image(), vouched()) == ""
    assert why_not_vouched(image(), Vouched(digest(image()))) == "", "unsigned, as the policy allows"


@pytest.mark.parametrize(
    ("said", "about", "reason"),
    [
        (vouched(), image("b"), "is not what was granted"),
        (vouched(), image(ready="boot"), "is not what was granted"),
        (vouched(digest=digest(image("b"))), image("b"), "is about another image"),
        (vouched(keys=(public("cern"),)), image(), "does not fit any key that counts"),
        (vouched(envelopes=()), image(), "no attestation came with it"),
        (vouched(envelopes=("{}",)), image(), "cannot be read"),
        (vouched(refused="its signer was revoked"), image(), "its signer was revoked"),
    ],
)
def test_a_node_refuses_what_is_not(said, about, reason):
    assert reason in why_not_vouched(about, said)


# ---------------------------------------------------------------- what strangers send


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_anything_is_an_envelope_or_refused(content):
    with suppress(InvalidRequest):
        assert read_envelope(content).signatures


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(trust.STATEMENT_TYPE)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "_type",
                    "subject",
                    "predicateType",
                    "predicate",
                    "assertions",
                    "signed-at",
                    "expires",
                    "digest",
                    "sha256",
                ]
            )
            | st.text(max_size=8),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_payload_is_a_statement_or_refused(said):
    payload = json.dumps(said).encode()
    for content in (payload, json.dumps(json.loads(envelope().payload) | {"predicate": said}).encode()):
        with suppress(InvalidRequest):
            assert len(read_statement(content).digest) == 64


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_of_an_envelope_is_believed(place, change):
    good = bytearray(attestation())
    good[place % len(good)] ^= change
    found = judged(bytes(good), digest(image()), DESY, NOW)
    if found.keys:  # a byte that says nothing: space, the keyid, padding of base64
        assert found.statement == of().statement


def test_one_key_twice_and_a_nest_without_end_are_no_json():
    with pytest.raises(InvalidRequest, match="a key is there twice"):
        read_envelope(b'{"payload": "", "payload": "", "payloadType": "", "signatures": []}')
    with pytest.raises(InvalidRequest, match="is not JSON"):
        read_envelope(b"[" * 60_000)
    with pytest.raises(InvalidRequest, match="at most 65536 bytes"):
        read_envelope(b" " * 70_000)


def test_base64_is_read_strictly():
    said = json.loads(attestation())
    said["payload"] = base64.urlsafe_b64encode(b"\xff\xfe\xfd").decode()
    with pytest.raises(InvalidRequest, match="payload is"):
        read_envelope(json.dumps(said).encode())
