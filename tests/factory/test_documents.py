"""The bill of materials and the provenance: what they name, and that they are the same for the same build."""

from __future__ import annotations

import hashlib
import json

import pytest

from vws.core.bill import read_bill
from vws.core.manifest import digest
from vws.core.recipe import Boot, Recipe
from vws.factory import bundle, documents
from vws.factory.debian import Package
from vws.factory.recipes import Source

PACKAGES = (
    Package("libssl3", "3.0.17-1~deb12u3", "amd64", "ab" * 32, "openssl@3.0.17-1~deb12u3"),
    Package("openssl", "3.0.17-1~deb12u3", "amd64", "cd" * 32),
    Package("busybox-static", "1:1.35.0-4+b1", "amd64", "", "busybox@1:1.35.0-4"),
)
SOURCES = (Source("files/motd", "11" * 32), Source("mine.yaml", "22" * 32))
RECIPE = Recipe(name="mine", version="7", about="for tests")


@pytest.fixture
def parts(tmp_path):
    found = {}
    for name in ("kernel", "initrd", "disk.qcow2"):
        (tmp_path / name).write_bytes(name.encode())
        found[name] = tmp_path / name
    return found


def test_a_bill_names_every_package_with_its_hash_and_source(parts):
    image = bundle.image_of(RECIPE, parts)
    bill = documents.bill_of_materials(RECIPE, image, PACKAGES)
    assert bill == documents.bill_of_materials(RECIPE, image, PACKAGES[::-1])
    said = json.loads(bill)
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.6")
    assert said["metadata"]["component"]["name"] == "mine"
    found = {each["name"]: each for each in said["components"]}
    assert found["openssl"]["hashes"] == [{"alg": "SHA-256", "content": "cd" * 32}]
    assert "hashes" not in found["busybox-static"]
    assert set(documents.packages_in(bill)) == set(PACKAGES)


def test_a_sites_policy_reads_the_same_from_it(parts):
    bill = documents.bill_of_materials(RECIPE, bundle.image_of(RECIPE, parts), PACKAGES)
    read = read_bill(bill, hashlib.sha256(bill).hexdigest())
    assert {(each.name, each.version, each.source, each.source_version) for each in read.packages} == {
        ("libssl3", "3.0.17-1~deb12u3", "openssl", "3.0.17-1~deb12u3"),
        ("openssl", "3.0.17-1~deb12u3", "openssl", "3.0.17-1~deb12u3"),
        ("busybox-static", "1:1.35.0-4+b1", "busybox", "1:1.35.0-4"),
    }


def test_the_provenance_is_a_statement_about_what_boots(parts):
    image = bundle.image_of(RECIPE, parts)
    said = json.loads(documents.provenance(RECIPE, image, PACKAGES, SOURCES, {"e2fsprogs": "1.47.0-2"}))
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {each["name"]: each["digest"]["sha256"] for each in said["subject"]}
    assert subjects["mine"] == digest(image)
    assert subjects["disk"] == hashlib.sha256(b"disk.qcow2").hexdigest()
    definition = said["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["recipe"] == ["mine.yaml"]
    used = {each["name"]: each.get("digest") for each in definition["resolvedDependencies"]}
    assert used["files/motd"] == {"sha256": "11" * 32}
    assert used["openssl"] == {"sha256": "cd" * 32}
    assert used["busybox-static"] is None
    builder = said["predicate"]["runDetails"]["builder"]
    assert builder["version"]["e2fsprogs"] == "1.47.0-2"
    assert [each["name"] for each in builder["builderDependencies"]] == ["vws.guest"]


def test_a_bundle_has_them_inside_and_beside(parts, tmp_path):
    recipe = Recipe(name="mine", boot=Boot(by="loader", init="system"), roles={"worker": "works"})
    disk_only = {"disk.qcow2": parts["disk.qcow2"]}
    image = bundle.image_of(recipe, disk_only)
    assert (image.boot, image.cmdline, image.files[0].virtual_size_mib) == ("disk", "", 1024)
    out = tmp_path / "out" / "mine.vws"
    out.parent.mkdir()
    said = {bundle.SBOM: b"bill", bundle.PROVENANCE: b"statement"}
    sha256 = bundle.write(out, recipe, image, disk_only, said)
    assert sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert sorted(path.name for path in out.parent.iterdir()) == [
        *("mine.provenance.json", "mine.sbom.cdx.json", "mine.vws"),
    ]
    (tmp_path / "in").mkdir()
    description = bundle.unpack(out, tmp_path / "in")
    assert (description["boot"], description["roles"], description["digest"]) == (
        *("disk", {"worker": "works"}, digest(image)),
    )
    assert (tmp_path / "in" / bundle.SBOM).read_bytes() == b"bill"


def test_a_bundle_that_cannot_be_written_leaves_the_former_one(parts, tmp_path, monkeypatch):
    out = tmp_path / "mine.vws"
    out.write_bytes(b"former")
    image = bundle.image_of(RECIPE, parts)
    parts["kernel"].unlink()
    with pytest.raises(FileNotFoundError):
        bundle.write(out, RECIPE, image, parts, {})
    assert out.read_bytes() == b"former"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("member", ["../evil", "/etc/passwd", "other"])
def test_a_bundle_with_other_members_is_not_unpacked(tmp_path, member):
    import tarfile

    with tarfile.open(tmp_path / "b.vws", "w") as tar:
        tar.addfile(tarfile.TarInfo(member))
    with pytest.raises(ValueError, match="it holds"):
        bundle.unpack(tmp_path / "b.vws", tmp_path)


def test_what_is_no_bill_gives_no_packages():
    with pytest.raises(ValueError, match=r".*"):
        documents.packages_in(b"not json")
    with pytest.raises(ValueError, match="no table"):
        documents.packages_in(b"[]")
