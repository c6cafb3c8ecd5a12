"""What goes out in any format comes in again as the same: the disk's content, and all that boots if that is said."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from dataclasses import replace

import pytest

from tests.service.conftest import ADMIN, ANN
from tests.service.disk_images import disk, qemu_img, same_content
from tests.service.test_image_check import FILES, bundle
from vws.core.disks import Disk, described
from vws.core.errors import Conflict, Forbidden, InvalidRequest, NotFound
from vws.core.image_formats import DISKS, EXPORTED
from vws.core.manifest import MEDIA_TYPE, digest, manifest
from vws.core.site import DocumentKind, Image, ImageFile
from vws.service import oci_layout
from vws.service.image_check import examine

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


SAID = {DocumentKind.PROVENANCE: b'{"made": "here"}', DocumentKind.SBOM: b'{"bill": "x"}'}


def add(rig, source, name, caller=ADMIN):
    temporary = rig.services.images.begin()
    shutil.copyfile(source, temporary)
    return rig.services.images.add(caller, temporary, name)


@pytest.fixture
def debian(rig, tmp_path):
    return add(rig, disk(tmp_path / "debian.qcow2", "qcow2"), "debian")


@pytest.fixture
def appliance(rig, tmp_path):
    inner = disk(tmp_path / "inner.qcow2", "qcow2").read_bytes()
    files = FILES | {"disk.qcow2": inner}
    more = {"memory_mib_min": 96, "user": "ann", "ready": "boot"}
    image = add(rig, bundle(tmp_path / "demo.vws", files, more), "demo")
    for kind, content in SAID.items():
        rig.services.images.add_document(ADMIN, image.id, kind, f"application/{kind}", content)
    return image


def exported(rig, image, kind, target, caller=ADMIN):
    made = rig.services.exports.export(caller, image.id, kind)
    target.write_bytes(b"".join(made.read(0)))
    assert target.stat().st_size == made.length_bytes
    assert not list((rig.directory / "exports").glob("work-*"))
    return made


@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_goes_out_and_comes_in_with_the_same_content(rig, debian, tmp_path, kind):
    out = tmp_path / "out"
    assert exported(rig, debian, kind, out).left_out == ""
    assert same_content(tmp_path / "debian.qcow2", "qcow2", out, kind)
    again = add(rig, out, f"again-{kind}")
    ((file, path),) = examine(out, tmp_path / "parts", kind).files
    assert same_content(tmp_path / "debian.qcow2", "qcow2", path, file.format)
    assert again.disk_mib_min == debian.disk_mib_min


def test_what_is_stored_in_the_format_goes_out_as_it_lies(rig, debian, tmp_path, monkeypatch):
    monkeypatch.setattr("vws.service.conversion.convert", None)
    exported(rig, debian, "qcow2", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "debian.qcow2").read_bytes()


@pytest.mark.parametrize("kind", ["bundle", "oci"])
def test_an_appliance_comes_in_again_as_the_same_to_the_digest(rig, appliance, tmp_path, kind):
    out = tmp_path / "out"
    exported(rig, appliance, kind, out)
    found = examine(out, tmp_path / "parts", kind)
    files = tuple(file for file, _ in found.files)
    assert digest(replace(appliance, files=files, cmdline=found.cmdline, user=found.user)) == digest(appliance)
    assert (found.boot, found.user, found.ready, found.memory_mib_min) == ("direct", "ann", "boot", 96)
    assert found.disk_mib_min == appliance.disk_mib_min
    said = {kind: content for kind, _, content in found.documents}
    assert said == SAID


WORDS, PAGE = Disk("words", 3, "ext4", mount="/srv/words", brought=True), Disk("page", 64, "swap")


@pytest.fixture
def two_disks(rig, tmp_path):
    """An appliance that brings a disk beside the root's, and declares one to swap on."""
    files = FILES | {name: disk(tmp_path / name, "qcow2").read_bytes() for name in ("disk.qcow2", "data-words.qcow2")}
    return add(rig, bundle(tmp_path / "two.vws", files, {"disks": described((PAGE, WORDS))}), "two")


@pytest.mark.parametrize("kind", ["bundle", "oci"])
def test_the_disks_that_an_appliance_declares_go_out_with_it(rig, two_disks, tmp_path, kind):
    assert two_disks.beside == (PAGE, WORDS)
    assert rig.store.get(Image, two_disks.id).beside == (PAGE, WORDS)
    exported(rig, two_disks, kind, tmp_path / "out")
    found = examine(tmp_path / "out", tmp_path / "parts", kind)
    assert {file for file, _ in found.files} == set(two_disks.files)
    assert digest(replace(two_disks, beside=found.beside)) == digest(two_disks)
    assert "its further disks" in exported(rig, two_disks, "raw", tmp_path / "raw").left_out


def _without(said):
    return {key: value for key, value in said.items() if key != "data-words.qcow2"}


@pytest.mark.parametrize(
    ("disks", "files", "problem"),
    [
        (described((WORDS,)), _without, "not those that appliance.json names"),
        ([], dict, "not those that appliance.json names"),
        (described((replace(WORDS, size_mib=4),)), dict, "the disk words has 3 MiB, declared are 4"),
        ([{"name": "words"}], dict, "disks in appliance.json cannot be had"),
        (described((replace(WORDS, name="other"),)), dict, "not those that appliance.json names"),
    ],
)
def test_a_bundle_whose_disks_are_not_those_that_it_declares_is_refused(tmp_path, disks, files, problem):
    content = disk(tmp_path / "any", "qcow2").read_bytes()
    held = files(FILES | {"disk.qcow2": content, "data-words.qcow2": content})
    with pytest.raises(InvalidRequest, match=problem):
        examine(bundle(tmp_path / "b.vws", held, {"disks": disks}), tmp_path / "parts")


def test_a_raw_disk_goes_out_as_an_oci_layout_too(rig, tmp_path):
    image = add(rig, disk(tmp_path / "plain", "raw"), "plain")
    exported(rig, image, "oci", tmp_path / "out")
    ((file, path),) = examine(tmp_path / "out", tmp_path / "parts").files
    assert file == image.files[0]
    assert path.read_bytes() == (tmp_path / "plain").read_bytes()
    with pytest.raises(InvalidRequest, match="qcow2 disk only"):
        rig.services.exports.export(ADMIN, image.id, "bundle")


def test_what_a_disk_of_an_appliance_leaves_out_is_said(rig, appliance, tmp_path):
    assert "kernel" in exported(rig, appliance, "vdi", tmp_path / "out").left_out


def with_delta(rig, base, tmp_path):
    """An image on record that is a delta on `base`, its disk without a name of what is beneath it."""
    delta = tmp_path / "delta"
    qemu_img("create", "-q", "-f", "qcow2", "-b", tmp_path / "debian.qcow2", "-F", "qcow2", delta)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 64k 64k", str(delta)], check=True, capture_output=True)
    qemu_img("convert", "-f", "qcow2", "-O", "raw", delta, tmp_path / "flat.raw")
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", "", delta)
    content = delta.read_bytes()
    sha256 = subprocess.run(["sha256sum", delta], check=True, capture_output=True, text=True).stdout.split()[0]
    rig.services.images.files.blobs.adopt(delta, sha256)
    file = ImageFile("disk", sha256, len(content), "qcow2", base.files[0].virtual_size_mib, base.files[0].sha256)
    image = replace(
        base,
        id="img-delta",
        name="saved",
        sha256=sha256,
        files=(file, replace(base.files[0], role="base")),
        base=base.id,
    )
    rig.site.change("site", lambda draft: draft.put_image(image))
    return image


@pytest.mark.parametrize("kind", ["raw", "qcow2", "vdi"])
def test_a_delta_goes_out_as_a_disk_that_stands_alone(rig, debian, tmp_path, kind):
    image = with_delta(rig, debian, tmp_path)
    exported(rig, image, kind, tmp_path / "out")
    assert same_content(tmp_path / "flat.raw", "raw", tmp_path / "out", kind)


def test_a_delta_is_flattened_on_demand_into_an_image_of_ones_own(rig, debian, tmp_path):
    image = with_delta(rig, debian, tmp_path)
    rig.site.change("site", lambda draft: draft.put_image(replace(image, shared=("public",))))
    flat = rig.services.flattening.copy(ANN, image.id, "alone:1")
    (file,) = flat.files
    assert (flat.owner, flat.base, file.base, flat.shared, flat.boot) == (ANN.subject, "", "", (), image.boot)
    rig.services.images.files.blobs.place(file.sha256, tmp_path / "out")
    assert same_content(tmp_path / "flat.raw", "raw", tmp_path / "out", "qcow2")
    assert rig.services.images.verify(ANN, "alone:1").damaged == ""
    (said,) = rig.services.images.documents(ANN, flat.id)
    (beneath,) = json.loads(said.content)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert beneath["digest"]["sha256"] == digest(image), "what it was made from"
    assert not list(rig.services.images.begin().parent.iterdir()), "nothing is left of it"
    rig.services.images.remove(ADMIN, image.id)
    rig.services.images.remove(ADMIN, debian.id)
    assert rig.services.images.verify(ANN, "alone:1").damaged == "", "it stays when they go"


def test_what_stands_alone_is_copied_as_it_is(rig, debian):
    copy = rig.services.flattening.copy(ANN, debian.id, "mine")
    assert copy.files == debian.files


def test_how_far_a_flattening_is_can_be_asked_while_it_goes_on(rig, debian, tmp_path, monkeypatch):
    image, seen = with_delta(rig, debian, tmp_path), []

    def write(image, target):
        target.write_bytes(b"x" * 1000)
        seen.append(rig.services.flattening.progress(ADMIN, image.id))
        raise Conflict("no")

    monkeypatch.setattr(rig.services.exports, "write_flat", write)
    with pytest.raises(Conflict):
        rig.services.flattening.copy(ADMIN, image.id, "alone")
    assert (seen[0].done_bytes, seen[0].most_bytes) == (1000, sum(file.size_bytes for file in image.files))
    with pytest.raises(NotFound):
        rig.services.flattening.progress(ADMIN, image.id)
    assert not list(rig.services.images.begin().parent.iterdir()), "nothing is left of one that failed"


@pytest.mark.parametrize("kind", ["bundle", "oci"])
def test_a_delta_in_a_tar_is_flattened_and_that_is_said(rig, debian, tmp_path, kind):
    image = with_delta(rig, debian, tmp_path)
    assert "another image" in exported(rig, image, kind, tmp_path / "out").left_out
    ((_, path),) = examine(tmp_path / "out", tmp_path / "parts").files
    assert same_content(tmp_path / "flat.raw", "raw", path, "qcow2")


def test_a_delta_whose_base_is_gone_is_told_so(rig, debian, tmp_path):
    image = with_delta(rig, debian, tmp_path)
    broken = replace(image, files=image.files[:1])
    rig.site.change("site", lambda draft: draft.put_image(broken))
    with pytest.raises(Conflict, match="is not on record"):
        rig.services.exports.export(ADMIN, image.id, "vmdk")


@pytest.mark.parametrize("kind", ["", "iso", "tar", "qcow3"])
def test_other_formats_are_refused(rig, debian, kind):
    with pytest.raises(InvalidRequest) as error:
        rig.services.exports.export(ADMIN, debian.id, kind)
    assert error.value.field == "format"
    assert all(name in error.value.possible for name in EXPORTED)


def test_only_who_may_use_an_image_exports_it(rig, tmp_path):
    private = add(rig, disk(tmp_path / "mine", "qcow2"), "mine", ANN)
    with pytest.raises(Forbidden):
        rig.services.exports.export(replace(ANN, subject="bob"), private.id, "raw")


def test_a_simulated_image_has_nothing_to_export(rig):
    rig.services.images.simulate("demo")
    with pytest.raises(Conflict, match="simulated"):
        rig.services.exports.export(ADMIN, "demo", "raw")


def test_a_conversion_that_fails_leaves_nothing(rig, debian, monkeypatch):
    monkeypatch.setattr("vws.service.conversion.room_for", lambda target: 1_200_000)
    with pytest.raises(Exception, match="no room"):
        rig.services.exports.export(ADMIN, debian.id, "vdi")
    assert not list((rig.directory / "exports").iterdir())


def test_what_a_killed_service_left_is_swept(rig):
    left = rig.directory / "exports" / "work-1"
    left.mkdir(parents=True)
    (left / "made").write_bytes(b"half")
    rig.services.exports.converted.sweep()
    assert not left.exists()


# ---------------------------------------------------------------- OCI


@pytest.fixture
def layout(rig, appliance, tmp_path):
    exported(rig, appliance, "oci", tmp_path / "oci.tar")
    with tarfile.open(tmp_path / "oci.tar") as tar:
        tar.extractall(tmp_path / "layout")
    return tmp_path / "layout"


def blob(layout, described):
    return (layout / "blobs" / described["digest"].replace(":", "/")).read_bytes()


def test_a_layout_says_what_the_specification_asks(layout, appliance):
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout / "index.json").read_text())
    (described,) = index["manifests"]
    assert described["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    found = json.loads(blob(layout, described))
    assert len(blob(layout, described)) == described["size"]
    assert found["artifactType"] == "application/vnd.vws.image.v1"
    assert found["config"]["mediaType"] == MEDIA_TYPE
    assert blob(layout, found["config"]) == manifest(appliance)
    assert found["config"]["digest"] == f"sha256:{digest(appliance)}"  # what is signed is what it is known by
    titles = [layer["annotations"].get("org.opencontainers.image.title") for layer in found["layers"]]
    assert titles[:3] == ["kernel", "initrd", "disk.qcow2"]
    assert all(len(blob(layout, layer)) == layer["size"] for layer in found["layers"])


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_skopeo_reads_and_copies_a_layout(layout, appliance, tmp_path):
    inspected = subprocess.run(["skopeo", "inspect", "--raw", f"oci:{layout}"], check=True, capture_output=True)
    assert json.loads(inspected.stdout)["artifactType"] == "application/vnd.vws.image.v1"
    copying = ["skopeo", "--insecure-policy", "copy", "--preserve-digests", f"oci:{layout}", f"oci:{tmp_path / 'copy'}"]
    subprocess.run(copying, check=True, capture_output=True)
    for file in appliance.files:
        path = tmp_path / "copy" / "blobs" / "sha256" / file.sha256
        assert path.read_bytes() == (layout / "blobs" / "sha256" / file.sha256).read_bytes()


def test_a_layout_that_another_tool_packed_comes_in(layout, appliance, tmp_path):
    subprocess.run(["tar", "-cf", tmp_path / "packed", "-C", layout, "blobs", "index.json", "oci-layout"], check=True)
    found = examine(tmp_path / "packed", tmp_path / "parts", "oci")
    assert {file.sha256 for file, _ in found.files} == {file.sha256 for file in appliance.files}


def alter(source, target, change):
    """The tar with each member's bytes as `change(name, bytes)` gives them; None leaves it out."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            data = change(member.name, old.extractfile(member).read())
            if data is not None:
                info = tarfile.TarInfo(member.name)
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
    return target


def without_manifest(name, data):
    return data if name != "index.json" else b'{"schemaVersion": 2, "manifests": []}'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda name, data: None if name == "index.json" else data, "index.json is missing"),
        (lambda name, data: b"{" if name == "index.json" else data, "no JSON object"),
        (without_manifest, "holds 0 manifests"),
        (lambda name, data: None if len(data) == len(b"kernel bytes") else data, "is missing"),
        (lambda name, data: b"KERNEL bytes" if data == b"kernel bytes" else data, "is not what its name says"),
    ],
)
def test_an_altered_layout_is_refused(rig, appliance, tmp_path, change, said):
    exported(rig, appliance, "oci", tmp_path / "whole")
    with pytest.raises(InvalidRequest) as error:
        examine(alter(tmp_path / "whole", tmp_path / "altered", change), tmp_path / "parts", "oci")
    assert said in error.value.problem


def test_a_containers_layout_is_no_image_of_ours(tmp_path):
    from vws.service.tar_stream import in_memory, written

    manifest = oci_layout._json({"schemaVersion": 2, "config": {}, "layers": []})
    sha256 = oci_layout._sha256(manifest)
    index = {"manifests": [oci_layout._descriptor(oci_layout.MANIFEST_TYPE, sha256, len(manifest))]}
    members = [
        in_memory("oci-layout", oci_layout.VERSION),
        in_memory("index.json", oci_layout._json(index)),
        in_memory(f"blobs/sha256/{sha256}", manifest),
    ]
    (tmp_path / "file").write_bytes(b"".join(written(members)))
    with pytest.raises(InvalidRequest, match="no VWS image, but perhaps a container's"):
        examine(tmp_path / "file", tmp_path / "parts")


def test_an_image_of_the_record_has_a_bundle_of_its_own_name(rig, debian, tmp_path):
    exported(rig, debian, "bundle", tmp_path / "out")
    with tarfile.open(tmp_path / "out") as tar:
        assert tar.getnames() == ["appliance.json", "disk.qcow2"]
        assert json.load(tar.extractfile("appliance.json"))["name"] == "debian"
    found = examine(tmp_path / "out", tmp_path / "parts")
    assert isinstance(debian, Image)
    assert (found.boot, found.files[0][0]) == ("disk", debian.files[0])
