"""Signed lists: ours verify with openssl as others run it, and nothing else than what its endorser signed is taken.

The authorities are made here, in temporary folders.
"""

from __future__ import annotations

import datetime
import shutil
import subprocess
from dataclasses import dataclass, replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_image_lists import LIST, NOW
from vws.core.errors import InvalidRequest
from vws.core.image_lists import read
from vws.endorsing import endorser_of, sign
from vws.service.smime import slashed, verify

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


def named(common_name: str) -> x509.Name:
    parts = [
        (NameOID.DOMAIN_COMPONENT, "org"),
        (NameOID.ORGANIZATION_NAME, "Example"),
        (NameOID.COMMON_NAME, common_name),
    ]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


@dataclass
class Holder:
    key: object
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()


def issue(
    name: str, by: Holder | None = None, *, key=None, days: int = 1000, authority: bool | None = None, now=NOW
) -> Holder:
    key = key or ec.generate_private_key(ec.SECP256R1())
    begin = datetime.datetime.fromtimestamp(now - 86400 * 10, datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(by.certificate.subject if by else named(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(authority if authority is not None else by is None, None), critical=True)
    )
    return Holder(key, builder.sign(by.key if by else key, hashes.SHA256()))


@pytest.fixture(scope="module")
def ca():
    return issue("Example CA")


@pytest.fixture(scope="module")
def ann(ca):
    return issue("Ann Endorser", ca, key=rsa.generate_private_key(65537, 2048))


def list_of(holder: Holder):
    return replace(LIST, endorser=endorser_of(holder.certificate, "ann@example.org", "Ann"))


def signed(holder: Holder, **more) -> bytes:
    return sign(list_of(holder), holder.certificate, holder.key_pem, **more)


def refused(message: bytes, ca_pem: str, folder, now=NOW) -> str:
    with pytest.raises(InvalidRequest) as error:
        verify(message, ca_pem, now, folder)
    assert error.value.possible
    assert not list(folder.iterdir())
    return error.value.problem


def test_what_is_signed_is_read_again_and_told_by_whom(ca, ann, tmp_path):
    found = verify(signed(ann), ca.pem, NOW, tmp_path)
    assert (found.dn, found.ca) == ("/DC=org/O=Example/CN=Ann Endorser", "/DC=org/O=Example/CN=Example CA")
    assert read(found.payload) == list_of(ann)
    assert not list(tmp_path.iterdir())


def test_openssl_verifies_it_as_others_run_it(ca, ann, tmp_path):
    (tmp_path / "list").write_bytes(signed(ann))
    (tmp_path / "ca.pem").write_text(ca.pem)
    for command in ("cms", "smime"):
        verifying = ["openssl", command, "-verify", "-in", tmp_path / "list", "-CAfile", tmp_path / "ca.pem"]
        done = subprocess.run([*verifying, "-attime", str(NOW)], capture_output=True, check=True)
        assert read(done.stdout) == list_of(ann)


def test_what_openssl_signs_is_taken(ca, ann, tmp_path):
    """As VMcaster does, whose messages are openssl's."""
    (tmp_path / "list").write_bytes(b'{"some": "list"}\n')
    (tmp_path / "key").write_bytes(ann.key_pem)
    (tmp_path / "cert").write_text(ann.pem)
    signing = ["openssl", "smime", "-sign", "-in", tmp_path / "list", "-signer", tmp_path / "cert"]
    done = subprocess.run([*signing, "-inkey", tmp_path / "key"], capture_output=True, check=True)
    assert verify(done.stdout, ca.pem, NOW, tmp_path / "work").payload.strip() == b'{"some": "list"}'


def test_an_altered_list_is_refused(ca, ann, tmp_path):
    altered = signed(ann).replace(b"Scientific Linux", b"Scientifix Linux")
    assert "altered" in refused(altered, ca.pem, tmp_path)


def test_another_authoritys_is_refused_though_it_has_the_same_name(ann, tmp_path):
    other = issue("Example CA")
    assert "another authority" in refused(signed(ann), other.pem, tmp_path)


def test_who_signs_for_oneself_is_refused(ca, tmp_path):
    eve = issue("Ann Endorser")
    assert "another authority" in refused(signed(eve), ca.pem, tmp_path)


def test_a_certificate_that_an_endorser_issued_is_refused(ca, ann, tmp_path):
    eve = issue("Eve", ann)
    refused(signed(eve, chain=[ann.certificate]), ca.pem, tmp_path)


def test_a_certificate_under_an_authority_in_between_is_taken(ca, tmp_path):
    between = issue("Between", ca, authority=True)
    bob = issue("Bob", between)
    assert verify(signed(bob, chain=[between.certificate]), ca.pem, NOW, tmp_path).ca == slashed(named("Between"))


@pytest.mark.parametrize(("days", "said"), [(-20, "not valid yet"), (1001, "expired")])
def test_a_certificate_of_another_time_is_refused(ca, ann, tmp_path, days, said):
    assert said in refused(signed(ann), ca.pem, tmp_path, NOW + 86400 * days)


@pytest.mark.parametrize("message", [b"", b"{}", b"MIME-Version: 1.0\n\nx", b"\0" * 1000, b"x" * (9 << 20)])
def test_what_is_not_signed_is_refused(ca, tmp_path, message):
    refused(message, ca.pem, tmp_path)


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\udc80"])
def test_what_is_no_authority_is_refused(ann, tmp_path, text):
    with pytest.raises(InvalidRequest) as error:
        verify(signed(ann), text, NOW, tmp_path)
    assert error.value.field == "ca"


def test_only_the_endorser_signs_a_list_and_only_with_a_key_that_can(ca, ann):
    other = issue("Other", ca)
    with pytest.raises(InvalidRequest, match="hv:dn"):
        sign(list_of(ann), other.certificate, other.key_pem)
    with pytest.raises(InvalidRequest, match="not the certificate's"):
        sign(list_of(ann), ann.certificate, other.key_pem)
    edwards = issue("Ed", ca, key=ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(InvalidRequest, match="no signatures with such a key"):
        signed(edwards)
    with pytest.raises(InvalidRequest, match="cannot be used"):
        sign(list_of(ann), ann.certificate, b"no key")


def test_no_alteration_is_believed_and_none_does_more_than_be_refused(ca, ann, tmp_path):
    whole = signed(ann)
    payload = verify(whole, ca.pem, NOW, tmp_path).payload

    @settings(max_examples=max(12, settings.default.max_examples // 10), deadline=None)
    @given(st.data())
    def alter(data):
        changed = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(changed) - 1))
            changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        try:
            assert same_text(verify(bytes(changed), ca.pem, NOW, tmp_path).payload, payload)
        except InvalidRequest as error:
            told = error
        else:
            return
        assert told.field == "list"
        assert told.possible

    alter()
    assert list(tmp_path.iterdir()) == []


def same_text(first: bytes, second: bytes) -> bool:
    """A message's text may come with other ends of lines."""
    return first.replace(b"\r\n", b"\n") == second.replace(b"\r\n", b"\n")
