"""Which certificates lead to an authority on record, and which were taken back."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.attesting import DAY, NOW, image, signer_of
from tests.core.authorities import Issuer
from vws import signing
from vws.core import certificates, trust
from vws.core.errors import InvalidRequest
from vws.core.manifest import digest
from vws.core.trust import TrustedKey, write_envelope

ROOT = Issuer("Grid CA")
SUB = Issuer("Sub CA", ROOT)
LEAF = Issuer("DESY", SUB, ca=False)


def signed(by: Issuer = LEAF, *between: Issuer):
    chain = "".join(each.pem for each in (by, *between))
    return write_envelope(signing.sign(image(), "debian", {}, signer_of(by.key), signed_at=NOW - 60, certificate=chain))


def judged(content: bytes, *, chain=(ROOT,), crls=(), now=NOW):
    grid = TrustedKey("grid", "".join(each.pem for each in chain), crls=tuple(crls))
    return trust.judged(content, digest(image()), [grid], now)


def test_intermediate_authorities_come_with_the_signature_or_are_on_record():
    assert "it was issued by another one" in judged(signed()).problem
    for found in (judged(signed(LEAF, SUB)), judged(signed(), chain=(ROOT, SUB))):
        assert (list(found.keys), found.problem) == (["grid"], "")
    deep = Issuer("Deep CA", SUB)
    maker = Issuer("Maker", deep, ca=False)
    assert judged(signed(maker, deep, SUB)).keys, "in any order"
    assert judged(signed(maker, SUB, deep)).keys
    assert judged(signed(maker, deep), chain=(ROOT, SUB)).keys, "some of each"


KEY_USE = x509.KeyUsage(True, *[False] * 8)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\0")
LIKE_SUB = {"key": SUB.key}
NO_WAY = {
    "one on the way is no authority's": lambda: (ROOT, Issuer("Sub CA", ROOT, ca=False, **LIKE_SUB)),
    "longer than an authority on it allows": lambda: (
        Issuer("Grid CA", key=ROOT.key, path=0),
        Issuer("Sub CA", ROOT, **LIKE_SUB),
    ),
    "not for issuing certificates": lambda: (ROOT, Issuer("Sub CA", ROOT, more=[(KEY_USE, True)], **LIKE_SUB)),
    "not understood here": lambda: (ROOT, Issuer("Sub CA", ROOT, more=[(UNKNOWN, True)], **LIKE_SUB)),
    "no way of valid signatures": lambda: (ROOT, Issuer("Sub CA", Issuer("Grid CA"), **LIKE_SUB)),
    "the certificate of CN=Sub CA expired": lambda: (ROOT, Issuer("Sub CA", ROOT, since=NOW - DAY, days=1, **LIKE_SUB)),
    "a key of a kind": lambda: (Issuer("Grid CA", key=Ed25519PrivateKey.generate()),),
}


@pytest.mark.parametrize("said", NO_WAY)
def test_a_way_that_does_not_hold_says_why(said):
    own, *between = NO_WAY[said]()
    sub = between[0] if between else Issuer("Sub CA", own, key=Ed25519PrivateKey.generate())
    leaf = Issuer("DESY", sub, ca=False) if not between else LEAF
    found = judged(signed(leaf, sub), chain=(own,), now=NOW + 1)
    assert not found.keys
    assert said in found.problem


def test_whose_time_is_over_is_told_by_name():
    short = Issuer("DESY", SUB, ca=False, days=2)
    assert judged(signed(short, SUB)).keys
    late = judged(signed(short, SUB), now=NOW + 2 * DAY)
    assert "the certificate that grid issued to the signing key expired" in late.problem
    assert "the certificate of grid expired" in judged(signed(LEAF, SUB), now=NOW + 366 * DAY).problem


def test_an_intermediate_authority_signs_no_images_itself():
    assert "not for signing images" in judged(signed(SUB), chain=(ROOT,)).problem


def test_what_was_taken_back_does_not_count():
    content = signed(LEAF, SUB)
    other = Issuer("Other", SUB, ca=False)
    assert judged(content, crls=[ROOT.crl(), SUB.crl(other)]).keys, "others were revoked"
    found = judged(content, crls=[ROOT.crl(), SUB.crl(LEAF)])
    assert not found.keys
    assert "the certificate of CN=DESY was revoked at 2027-" in found.problem
    assert "by CN=Sub CA" in found.problem
    assert "the certificate of CN=Sub CA was revoked" in judged(content, crls=[ROOT.crl(SUB)]).problem
    direct = Issuer("Direct", ROOT, ca=False)
    assert "CN=Direct was revoked" in judged(signed(direct), crls=[ROOT.crl(direct)]).problem


def test_a_list_that_has_expired_is_said_and_nothing_of_its_authority_counts():
    content, crl = signed(LEAF, SUB), SUB.crl(days=1)
    assert judged(content, crls=[crl]).keys
    late = judged(content, crls=[crl], now=NOW + DAY)
    assert "the list of revoked certificates (CRL) of CN=Sub CA expired at" in late.problem
    assert judged(content, crls=[SUB.crl(days=30)], now=NOW + DAY).keys


def test_a_list_of_one_of_the_same_name_says_nothing():
    namesake = Issuer("Sub CA")
    assert judged(signed(LEAF, SUB), crls=[namesake.crl(LEAF)]).keys
    with pytest.raises(InvalidRequest, match="no authority that is on record here signed it"):
        certificates.with_crl((), namesake.crl(LEAF), ROOT.pem + SUB.pem)


def test_a_newer_list_takes_the_place_of_the_same_authoritys_and_an_older_one_is_refused():
    pem = ROOT.pem + SUB.pem
    crls = certificates.with_crl((), ROOT.crl(), pem)
    first, newer = SUB.crl(at=NOW - 7200), SUB.crl(LEAF, at=NOW - 3600)
    crls = certificates.with_crl(certificates.with_crl(crls, first, pem), newer, pem)
    assert (len(crls), crls[1]) == (2, newer)
    with pytest.raises(InvalidRequest, match="older than the one on record") as caught:
        certificates.with_crl(crls, first, pem)
    assert caught.value.field == "crl"
    facts = certificates.crl_facts(newer)
    assert (facts.issuer, facts.revoked, facts.expires_at) == ("CN=Sub CA", 1, NOW - 3600 + 7 * DAY)


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        ("", "it is none"),
        (ROOT.pem, "it is none"),
        (ROOT.crl() * 2, "more than one"),
        ("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "cannot be read"),
        (ROOT.crl(more=[(x509.DeltaCRLIndicator(1), True)]), "a delta"),
        ("x" * (certificates.CRL_BYTES_MAX + 1), "very long"),
    ],
)
def test_what_is_no_whole_list_is_refused(pem, said):
    with pytest.raises(InvalidRequest, match=said) as caught:
        certificates.with_crl((), pem, ROOT.pem)
    assert caught.value.field == "crl"


def test_only_what_leads_to_an_authority_is_taken_beside_it():
    assert trust.checked_signer(ROOT.pem + SUB.pem)[1] == "ECDSA authority"
    assert trust.checked_signer(ROOT.pem + SUB.pem)[0] == trust.checked_signer(ROOT.pem)[0]
    for beside in (LEAF, Issuer("Stranger")):
        with pytest.raises(InvalidRequest, match="does not lead to"):
            trust.checked_signer(ROOT.pem + beside.pem)
    with pytest.raises(InvalidRequest, match="more than 8 certificates"):
        trust.checked_signer(ROOT.pem * 9)


def test_a_chain_of_a_stranger_gives_no_more_than_a_refusal():
    content = trust.read_envelope(signed(LEAF, SUB))
    signature = content.signatures[0]

    @settings(max_examples=50, deadline=None)
    @given(st.data())
    def alter(data):
        at = data.draw(st.integers(0, len(signature.certificate) - 1))
        put = data.draw(st.characters(codec="ascii"))
        pem = signature.certificate[:at] + put + signature.certificate[at + 1 :]
        judged(write_envelope(replace(content, signatures=(replace(signature, certificate=pem),))))

    alter()


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_a_list_or_refused(body):
    pem = f"-----BEGIN X509 CRL-----\n{base64.encodebytes(body).decode()}-----END X509 CRL-----\n"
    with pytest.raises(InvalidRequest):
        certificates.with_crl((), pem, ROOT.pem)
