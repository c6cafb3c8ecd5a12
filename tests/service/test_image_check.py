"""What an uploaded file is, told from its bytes: disks and bundles in, everything else out with its own reason."""

import gzip
import hashlib
import io
import json
import shutil
import struct
import subprocess
import tarfile

import pytest

from vws.core.errors import InvalidRequest, Unavailable
from vws.service import confined
from vws.service.image_check import examine

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


def qemu_img(*arguments):
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


def look(path):
    return examine(path, path.with_suffix(".parts"))


def refused(path) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        look(path)
    assert error.value.field == "file"
    assert error.value.possible
    return error.value


@pytest.fixture
def qcow2(tmp_path):
    path = tmp_path / "disk"
    qemu_img("create", "-q", "-f", "qcow2", path, "64M")
    return path


def test_a_qcow2_image_is_a_disk_with_its_virtual_size(qcow2):
    found = look(qcow2)
    ((file, path),) = found.files
    assert (found.boot, file.role, file.format, file.virtual_size_mib) == ("disk", "disk", "qcow2", 64)
    assert found.disk_mib_min == 64
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_raw_disk_is_known_by_its_boot_sector(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"\0" * 510 + b"\x55\xaa" + b"\0" * (1 << 20))
    ((file, _),) = look(path).files
    assert (file.format, file.virtual_size_mib) == ("raw", 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a disk image"),
        (b"hello, this is text\n" * 1000, "not a disk image"),
        (b"\x7fELF" + b"\0" * 5000, "not a disk image"),
        (gzip.compress(b"x" * 100000), "compressed (gzip)"),
        (b"KDMV" + b"\0" * 5000, "vmdk"),
        (b"QFI\xfb" + b"\0" * 10, "cut short"),
        (b"QFI\xfb" + struct.pack(">I", 9) + b"\0" * 200, "version 9"),
    ],
)
def test_what_is_no_disk_image_is_refused_by_its_own_reason(tmp_path, content, said):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert said in refused(path).problem


def test_a_backing_file_is_refused_before_any_tool_follows_it(tmp_path):
    path = tmp_path / "evil"
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", path, "1M")
    assert "backing file" in refused(path).problem


def test_an_external_data_file_is_refused(tmp_path):
    path = tmp_path / "evil"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path}/data", path, "1M")
    assert "another file" in refused(path).problem


def test_an_absurd_virtual_size_is_refused(tmp_path, qcow2):
    data = bytearray(qcow2.read_bytes())
    data[24:32] = struct.pack(">Q", 1 << 62)
    path = tmp_path / "huge"
    path.write_bytes(data)
    refused(path)


def test_a_damaged_qcow2_is_refused(qcow2):
    qemu_img("convert", "-O", "qcow2", "-f", "raw", _noise(qcow2.with_name("noise")), qcow2)
    data = bytearray(qcow2.read_bytes())
    (l1,) = struct.unpack(">Q", data[40:48])
    data[l1 : l1 + 8] = struct.pack(">Q", (1 << 63) | (1 << 40))
    qcow2.write_bytes(data)
    refused(qcow2)


def test_a_missing_program_is_named_with_its_package(qcow2, monkeypatch):
    monkeypatch.setattr(confined.shutil, "which", lambda name, path: None)
    with pytest.raises(Unavailable) as error:
        look(qcow2)
    assert "qemu-img" in error.value.problem
    assert "qemu-utils" in error.value.possible


def _noise(path):
    path.write_bytes(bytes(range(256)) * 4096)
    return path


# ---------------------------------------------------------------- bundles


def bundle(path, files, manifest=None, extra=(), documents=()):
    described = {name: {"sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    document = {"format": "vws-appliance/1", "boot": "direct", "cmdline": "quiet", "files": described} | (
        manifest or {}
    )
    with tarfile.open(path, "w") as tar:
        for name, data in [("appliance.json", json.dumps(document).encode()), *files.items(), *documents]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return path


FILES = {"kernel": b"kernel bytes", "initrd": b"initrd bytes"}


def test_a_bundle_gives_its_files_and_how_it_boots(tmp_path, qcow2):
    files = FILES | {"disk.qcow2": qcow2.read_bytes()}
    found = look(bundle(tmp_path / "b", files, {"memory_mib_min": 96, "user": "root"}))
    assert [file.role for file, _ in found.files] == ["kernel", "initrd", "disk"]
    assert (found.boot, found.cmdline, found.memory_mib_min, found.disk_mib_min) == ("direct", "quiet", 96, 64)
    assert all(path.read_bytes() == files[path.name] for _, path in found.files)
    assert found.documents == ()


def test_a_bundle_may_boot_from_its_disk_and_brings_what_is_said_of_it(tmp_path, qcow2):
    said = [("provenance.json", b"{}"), ("sbom.cdx.json", b"not even read")]
    found = look(
        bundle(tmp_path / "b", {"disk.qcow2": qcow2.read_bytes()}, {"boot": "disk", "cmdline": ""}, documents=said)
    )
    assert (found.boot, [file.role for file, _ in found.files], found.disk_mib_min) == ("disk", ["disk"], 64)
    assert [(kind.value, content) for kind, _, content in found.documents] == [
        ("sbom", b"not even read"),
        ("provenance", b"{}"),
    ]


@pytest.mark.parametrize(
    ("files", "manifest", "said"),
    [
        ({"kernel": b"k"}, {}, "not those"),
        (FILES, {"boot": "disk"}, "not those"),
        (FILES, {"format": "other/1"}, "another kind"),
        (FILES, {"files": {"kernel": {"sha256": "00"}, "initrd": {"sha256": "00"}}}, "not the one"),
        (FILES, {"cmdline": "a\nb"}, "no plain text"),
        (FILES, {"cmdline": "x" * 5000}, "no plain text"),
        (FILES, {"memory_mib_min": -1}, "memory_mib_min"),
        (FILES, {"ready": "maybe"}, "ready"),
        (FILES | {"../evil": b"x"}, {}, "does not hold"),
    ],
)
def test_a_wrong_bundle_is_refused_by_its_own_reason(tmp_path, files, manifest, said):
    assert said in refused(bundle(tmp_path / "b", files, manifest)).problem


def test_a_bundle_with_a_link_in_it_is_refused(tmp_path):
    link = tarfile.TarInfo("disk.qcow2")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
    assert "'disk.qcow2' is not a plain file" in refused(bundle(tmp_path / "b", FILES, extra=[link])).problem


def sparse_member(name, size_bytes):
    """A GNU sparse member that has no bytes and says it has many (tar's manual, "Old GNU Format")."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (size_bytes, 0)
    header[483:495] = b"%011o\0" % size_bytes
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def with_member(path, member):
    """The bundle with one more member before its end."""
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + tarfile.BLOCKSIZE
    path.write_bytes(path.read_bytes()[:end] + member + b"\0" * tarfile.RECORDSIZE)
    return path


def unpacked_bytes(path):
    return sum(part.stat().st_size for part in path.with_suffix(".parts").iterdir())


def test_a_sparse_member_is_refused_before_it_takes_room(tmp_path):
    path = with_member(bundle(tmp_path / "b", FILES), sparse_member("disk.qcow2", 64 << 20))
    assert "'disk.qcow2' is not a plain file" in refused(path).problem
    assert unpacked_bytes(path) < path.stat().st_size


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(64 << 20)},
        {"GNU.sparse.size": "9", "GNU.sparse.map": "no numbers"},
        {"comment": "x" * 100_000},
    ],
    ids=["sparse", "damaged", "long"],
)
def test_an_extended_header_is_refused_before_it_is_followed(tmp_path, headers):
    extended = tarfile.TarInfo("disk.qcow2")
    extended.pax_headers = headers
    assert "is not a plain file" in refused(bundle(tmp_path / "b", FILES, extra=[extended])).problem


@pytest.mark.parametrize("name", ["appliance.json", "kernel"])
def test_a_repeated_member_is_refused(tmp_path, name):
    assert f"holds '{name}' twice" in refused(bundle(tmp_path / "b", FILES, extra=[tarfile.TarInfo(name)])).problem


@pytest.mark.parametrize("size_bytes", [1 << 33, -512])
def test_a_member_of_a_size_that_cannot_be_is_refused(tmp_path, size_bytes):
    info = tarfile.TarInfo("disk.qcow2")
    info.size = size_bytes
    path = with_member(bundle(tmp_path / "b", FILES), info.tobuf(tarfile.GNU_FORMAT))
    assert f"'disk.qcow2' says it has {size_bytes} bytes" in refused(path).problem


@pytest.mark.parametrize(
    ("manifest", "said"),
    [(b"[" * 100_000, "not JSON"), (b" " * (2 << 20), "too long"), (None, "appliance.json is missing")],
    ids=["deep", "long", "none"],
)
def test_a_bundle_without_a_readable_manifest_is_refused(tmp_path, manifest, said):
    path = tmp_path / "b"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("appliance.json" if manifest else "kernel")
        info.size = len(manifest or b"")
        tar.addfile(info, io.BytesIO(manifest or b""))
    assert said in refused(path).problem


def test_a_bundles_disk_must_stand_alone_too(tmp_path):
    evil = tmp_path / "evil"
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", evil, "1M")
    assert "backing file" in refused(bundle(tmp_path / "b", FILES | {"disk.qcow2": evil.read_bytes()})).problem


def test_a_bundle_cut_short_is_refused(tmp_path):
    path = bundle(tmp_path / "b", FILES | {"kernel": b"x" * 100_000})
    path.write_bytes(path.read_bytes()[:50_000])
    refused(path)
