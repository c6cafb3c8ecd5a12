"""Signing, trusting and judging from the command line, against a real service."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.core.attesting import signer_of
from tests.core.authorities import Issuer
from tests.frontends.conftest import Running, Server, asked
from tests.service.test_image_check import FILES, bundle
from vws.cli import doctor
from vws.cli.main import cli
from vws.core.chosen import Chosen
from vws.core.membership import VO, Membership
from vws.core.trust import read_envelope, read_statement

POLICY = """
[[rule]]
for = "vo:cms"
signers = ["desy"]
assert = {maker = "DESY", remote-root-login = "off"}
updates-within = "3650d"

[[rule]]
for = "all"
network = "isolated"
"""
BILL = ("sbom.cdx.json", b'{"bomFormat": "CycloneDX", "components": []}')
ASSERTED = """
maker = "DESY"
updates-until = 2026-11-21
remote-root-login = "off"
listening = ["22/tcp"]
"""


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def site(server, sqlite_store, tmp_path, monkeypatch):
    path = tmp_path / "image-policy.toml"
    path.write_text(POLICY)
    chosen = Chosen(membership=Membership({"cms": VO(("ann",))}))
    running = Running(server, sqlite_store, tmp_path, chosen=chosen, image_policy=path)
    (running.node,) = running.enroll("one")
    monkeypatch.chdir(tmp_path)
    yield running
    running.close()


@pytest.fixture
def vws(site, monkeypatch):
    """Run a command as somebody; the tests' own errors come through."""

    def run(*words: str, by: str = "root", status: int = 0, text: str | None = None):
        token = {"root": site.root_token, "ann": site.ann_token}[by]
        monkeypatch.setenv("VWS_URL", site.url)
        monkeypatch.setenv("VWS_TOKEN", token)
        result = CliRunner().invoke(cli, words, input=text)
        assert result.exit_code == status, result.output + repr(result.exception)
        return result

    return run


@pytest.fixture
def trusted(vws):
    """desy is on record, and what he asserts is in a file."""
    Path("asserted.toml").write_text(ASSERTED)
    assert "is your private key" in vws("image", "key", "new", "maker.key").stdout
    assert "desy is on record: Ed25519 key" in vws("image", "trust", "add", "desy", "--key", "maker.key.pub").stdout
    return ("--key", "maker.key", "--assert", "asserted.toml")


def test_from_key_to_lease_to_revocation(site, vws, trusted) -> None:
    refused = vws("image", "policy", "test", "demo", by="ann", status=1).stdout
    assert "demo may not run: it is not signed" in refused
    assert "accepted  an image signed by desy" in refused
    assert "network" not in refused, "it has none"
    nothing = vws("image", "decisions", "demo", by="ann").stderr
    assert "Nothing that you may see was decided" in nothing
    refused = vws("lease", "request", "--image", "demo", "--for", "1h", "--memory", "128MiB", by="ann", status=1).stderr
    digest = json.loads(vws("image", "show", "demo", "--json").stdout)["digest"]
    why = "may not be run here: it is not signed (image-policy.toml:2, rule 1)"
    assert f"Error: the image demo (sha256:{digest[:12]}) {why}" in refused
    assert "possible: an image signed by desy" in refused
    assert "kept: nothing was leased" in refused

    signed = vws("image", "sign", "demo", *trusted, "--expires", "+180d", by="ann").stdout
    assert "is signed by the key" in signed
    told = vws("image", "attestations", "demo", by="ann").stdout
    assert "listening=22/tcp, maker=DESY, remote-root-login=off, updates-until=2026-11-21" in told
    shown = vws("image", "policy", "test", "demo", by="ann").stdout
    assert "demo may run: desy vouches for it" in shown
    assert "yes  maker is DESY: its maker is DESY" in shown
    assert json.loads(vws("image", "policy", "test", "demo", "--vo", "cms", "--json").stdout)["allowed"]
    assert json.loads(vws("image", "policy", "test", "demo", "--vo", "", "--json").stdout)["network"] == "isolated"

    assert site.ann.post("/v1/leases", json=asked(name="mine")).status_code == 201
    site.node.obey()
    lines = vws("image", "decisions", "demo").stdout.splitlines()
    assert [kind in line for kind, line in zip(("refused", "allowed", "allowed", "running"), lines, strict=True)]
    assert "desy vouches for it" in lines[1]
    assert "lease=mine" in lines[2]
    assert "on=one" in lines[2]
    assert len(json.loads(vws("image", "decisions", "demo", "--json").stdout)) == 4

    told = vws("image", "trust", "revoke", "desy", "--reason", "its key was stolen").stdout
    assert "desy is revoked; 1 lease runs or waits still:" in told
    assert "mine" in told
    advised = shlex.split(told.splitlines()[-1])
    assert advised[:4] == ["vws", "image", "trust", "revoke"]
    assert json.loads(vws("image", "trust", "list", "--json").stdout) == []
    assert "its key was stolen" in vws("image", "trust", "list", "--all").stdout
    assert "was revoked: its key was stolen" in vws("image", "policy", "test", "demo", by="ann", status=1).stdout
    told = vws("workspace", "reboot", "mine-1", by="ann", status=1).stderr
    assert "desy, who was revoked: its key was stolen" in told
    assert "it runs on until its lease ends" in told
    assert "no new start" in vws("workspace", "show", "mine-1", by="ann").stdout
    assert "does not start again" in vws("lease", "explain", "mine", by="ann").stdout
    assert "1 lease is being ended" in vws(*advised[1:]).stdout, "as it was printed"
    assert "desy was revoked: its key was stolen" in vws("lease", "show", "mine", by="ann").stdout


def test_a_file_is_signed_where_it_is_and_its_attestation_kept_later(site, vws, trusted) -> None:
    file = Path("mine.vws")
    bundle(file, FILES, documents=[BILL])
    told = json.loads(vws("image", "sign", "mine.vws", *trusted, "--set", "purpose=test", "--json").stdout)
    envelope = Path(told["file"])
    assert envelope.name == "mine.vws.attestation.json"
    statement = read_statement(read_envelope(envelope.read_bytes()).payload)
    assert statement.assertions["purpose"] == "test"
    assert statement.assertions["packages"] == f"sha256:{hashlib.sha256(BILL[1]).hexdigest()}"
    vws("image", "import", "mine.vws", "--name", "mine")
    assert json.loads(vws("image", "show", "mine", "--json").stdout)["digest"] == told["digest"] == statement.digest
    assert "is kept beside mine" in vws("image", "attest", "mine", str(envelope)).stdout
    assert json.loads(vws("image", "attestations", "mine", "--json").stdout)[0]["signers"] == ["desy"]
    of_the_site = json.loads(vws("image", "sign", "mine", *trusted, "--json").stdout)
    assert of_the_site["assertions"]["packages"] == statement.assertions["packages"], "found beside the image"
    refused = vws("image", "attest", "demo", str(envelope), status=1).stderr
    assert "the attestation is about another image" in refused


def test_a_locked_key_asks_for_its_passphrase(vws) -> None:
    vws("image", "key", "new", "--passphrase", "locked.key", text="secret\nsecret\n")
    vws("image", "sign", "demo", "--key", "locked.key", text="secret\n")
    wrong = vws("image", "sign", "demo", "--key", "locked.key", text="wrong\n", status=1)
    assert "the key cannot be used" in wrong.stderr
    again = vws("image", "key", "new", "locked.key", status=1).stderr
    assert "locked.key is there already" in again
    assert os.stat("locked.key").st_mode & 0o777 == 0o600


def test_what_cannot_be_signed_is_said(vws, trusted) -> None:
    Path("bad.toml").write_text("maker = ")
    assert "bad.toml is not TOML" in vws("image", "sign", "demo", *trusted[:2], "--assert", "bad.toml", status=1).stderr
    assert "says no value" in vws("image", "sign", "demo", *trusted[:2], "--set", "maker", status=2).stderr
    wrong = vws("image", "sign", "demo", *trusted[:2], "--set", "updates-until=soon", status=1).stderr
    assert "--set updates-until is 'soon', not a time such as" in wrong
    early = vws("image", "sign", "demo", *trusted[:2], "--set", "updates-until=2999-12-31", status=1).stderr
    assert "updates until 2999-12-31 were still to come when it was signed" in early
    wrong = vws("image", "sign", "demo", *trusted[:2], "--set", "bad name=1", status=1).stderr
    assert "--set: 'bad name' is no name of an assertion" in wrong
    assert "letters, digits and - . _, a letter or digit first" in wrong
    public = vws("image", "sign", "demo", "--key", "maker.key.pub", status=1).stderr
    assert "the key cannot be used: it is a public one" in public
    late = vws("image", "sign", "demo", *trusted[:2], "--expires", "2020-01-01", status=2).stderr
    assert "it is over already" in late
    Path("odd.bin").write_bytes(bytes(range(256)))
    assert "no key in PEM" in vws("image", "sign", "demo", "--key", "odd.bin", status=1).stderr
    for words in (("trust", "add", "odd", "--key", "odd.bin"), ("sign", "demo", *trusted[:2], "--cert", "odd.bin")):
        assert "odd.bin is no key, certificate or list in PEM" in vws("image", *words, status=1).stderr
    secret = vws("image", "trust", "add", "oops", "--key", "maker.key", status=1).stderr
    assert "is a private key, which stays with its owner" in secret


def test_images_are_revoked_and_reinstated(site, vws) -> None:
    assert "demo is revoked; no lease runs by it." in vws("image", "revoke", "demo", "--reason", "a bad kernel").stdout
    assert "a bad kernel" in vws("image", "trust", "list", "--images").stdout
    assert "demo may run again" in vws("image", "reinstate", "demo").stdout
    site.root.post("/v1/leases", json=asked(2))
    told = vws("image", "revoke", "demo", "--reason", "a bad kernel", "--end").stdout
    assert "1 lease is being ended" in told
    told = vws("image", "revoke", "demo", "--reason", "another").stdout
    assert "demo is revoked already, since" in told
    assert "stays so for the reason given then: a bad kernel" in told
    assert json.loads(vws("image", "trust", "list", "--images", "--json").stdout)[0]["reason"] == "a bad kernel"


def test_what_was_made_from_a_revoked_image_says_so_and_comes_back_with_it(vws) -> None:
    bundle(Path("mine.vws"), FILES)
    vws("image", "import", "mine.vws", "--name", "mine:1", "--share", "public")
    vws("image", "copy", "mine:1", "copy", by="ann")
    first = json.loads(vws("image", "show", "mine:1", "--json").stdout)
    assert f"mine:1 ({first['id']}, sha256:{first['digest'][:12]}), copied" in vws("image", "show", "copy").stdout
    told = vws("image", "revoke", "mine:1", "--reason", "a bad kernel").stdout
    assert "1 other image can be run by nobody any more, by this:" in told
    assert told.splitlines()[-1].split()[:5] == ["copy", "ann", "the", "same", "image"]
    (other,) = json.loads(vws("image", "revoke", "mine:1", "--reason", "a bad kernel", "--json").stdout)["images"]
    assert (other["name"], other["owner"], other["how"]) == ("copy", "ann", "the same image")
    vws("image", "tag", "mine:1", "mine:2")
    assert "mine:1 belongs to another user" in vws("image", "remove", "mine:1", by="ann", status=1).stderr
    assert "All its names went with it: mine:1, mine:2." in vws("image", "remove", "mine:1").stdout
    listed = vws("image", "list", by="ann").stdout.splitlines()
    assert [line.split()[1] for line in listed if line.startswith("copy")] == ["revoked"]
    assert "by root: a bad kernel" in vws("image", "show", "copy", by="ann").stdout
    assert json.loads(vws("image", "show", "copy", "--json").stdout)["revoked"]["reason"] == "a bad kernel"
    assert "may run again" in vws("image", "reinstate", f"sha256:{first['digest'][:12]}").stdout
    assert json.loads(vws("image", "show", "copy", "--json").stdout)["revoked"] is None
    assert "is not revoked" in vws("image", "reinstate", "copy", status=1).stderr


def test_a_user_who_cannot_be_is_told_what_names_are(vws) -> None:
    wrong = vws("image", "policy", "test", "demo", "--user", "a b", status=1).stderr
    assert "--user is not a name of letters, digits, . _ @ and -, a letter or digit first" in wrong


def test_the_policy_is_shown_with_warnings(site, vws) -> None:
    shown = vws("image", "policy", "show", by="ann")
    assert POLICY.strip() in shown.stdout
    (warning,) = (line for line in shown.stdout.splitlines() if "names desy, of whom no key is on record" in line)
    assert warning.startswith("# Warning: ")
    assert tomllib.loads(shown.stdout) == tomllib.loads(POLICY)
    assert not json.loads(vws("image", "policy", "show", "--json").stdout)["blocked"]


def test_the_doctor_looks_at_the_policys_file(tmp_path) -> None:
    def found() -> list[tuple[str, str]]:
        return [(each.ok, each.found) for each in doctor.check_image_policy(tmp_path)]

    assert found() == []
    (tmp_path / "site.toml").write_text("[service]\n")
    (tmp_path / "service").mkdir()
    assert found() == [("ok", "none: everybody may run every image")]
    (tmp_path / "site.toml").write_text('[images]\npolicy = "image-policy.toml"\n[vos.cms]\nusers = ["ann"]\n')
    assert found()[0][0] == "warn"
    policy = tmp_path / "image-policy.toml"
    policy.write_text(POLICY)
    assert found() == [("ok", f"{policy}: 2 rules")]
    policy.write_text(POLICY.replace("signers", "signer"))
    ((verdict, said),) = found()
    assert verdict == "warn"
    assert "image-policy.toml:4, rule 1: 'signer' is no key; did you mean signers?" in said
    policy.write_text('[[rule]]\nfor = "all"\n[tracker]\nfile = "t.json"\nrelease = "bookworm"\n')
    assert "there is no tracker's file" in found()[0][1]


def test_an_authority_its_intermediate_one_and_what_they_took_back(site, vws) -> None:
    now = int(time.time())
    root = Issuer("Grid CA", since=now - 3600)
    sub = Issuer("Sub CA", root, since=now - 3600)
    maker = Issuer("Maker", sub, ca=False, since=now - 3600)
    for name, pem in (("root.pem", root.pem), ("sub.pem", sub.pem), ("maker.pem", maker.pem)):
        Path(name).write_text(pem)
    Path("maker.key").write_bytes(signer_of(maker.key).private_bytes)
    assert "grid is on record: ECDSA authority" in vws("image", "trust", "add", "grid", "--key", "root.pem").stdout
    vws("image", "sign", "demo", "--key", "maker.key", "--cert", "maker.pem", by="ann")
    assert "nobody who counts" in vws("image", "attestations", "demo", by="ann").stdout
    vws("image", "trust", "add", "grid", "--key", "root.pem", "--chain", "sub.pem")
    assert json.loads(vws("image", "attestations", "demo", "--json").stdout)[0]["signers"] == ["grid"]

    crl = x509.load_pem_x509_crl(sub.crl(maker, at=now - 60).encode())
    Path("sub.crl").write_bytes(crl.public_bytes(Encoding.DER))
    told = vws("image", "trust", "crl", "grid", "--file", "sub.crl").stdout
    assert "CN=Sub CA took 1 certificate back; its list holds until" in told
    assert "the certificate of CN=Maker was revoked" in vws("image", "attestations", "demo").stdout
    (shown,) = json.loads(vws("image", "trust", "list", "--json").stdout)
    assert (shown["crls"][0]["issuer"], shown["crls"][0]["revoked"]) == ("CN=Sub CA", 1)
    assert "either --file FILE or --drop" in vws("image", "trust", "crl", "grid", status=2).stderr
    Path("words").write_text("no list")
    refused = vws("image", "trust", "crl", "grid", "--file", "words", status=1).stderr
    assert "this list of revoked certificates cannot be taken" in refused
    assert "No list" in vws("image", "trust", "crl", "grid", "--drop").stdout
    assert json.loads(vws("image", "attestations", "demo", "--json").stdout)[0]["signers"] == ["grid"]
