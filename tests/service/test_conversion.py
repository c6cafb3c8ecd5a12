"""Disks of other hypervisors come in as qcow2 with the same content, and what would unpack without end does not."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tarfile

import pytest

from tests.service.disk_images import SIZE_BYTES, disk, qemu_img, raw_disk, repeating_qcow2, same_content
from vws.core.errors import InvalidRequest, Unavailable
from vws.service import conversion
from vws.service.image_check import examine

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")

FOREIGN = [
    ("vmdk", ()),
    ("vmdk", ("-o", "subformat=streamOptimized")),
    ("vdi", ()),
    ("vpc", ("-o", "force_size=on")),
    ("vpc", ("-o", "force_size=on,subformat=fixed")),
    ("vhdx", ()),
]


def refused(path, **more) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        examine(path, path.with_suffix(".parts"), **more)
    return error.value


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(("kind", "options"), FOREIGN)
def test_other_formats_come_in_as_qcow2_with_the_same_content(tmp_path, kind, options, declared):
    path = disk(tmp_path / "disk", kind, *options)
    found = examine(path, tmp_path / "parts", kind if declared else None)
    ((file, made),) = found.files
    assert (found.boot, file.role, file.format, file.virtual_size_mib) == ("disk", "disk", "qcow2", 3)
    assert made.stat().st_size == file.size_bytes
    assert same_content(raw_disk(tmp_path / "raw"), "raw", made, "qcow2")


@pytest.mark.parametrize("kind", ["vmdk", "vdi", "vpc", "vhdx"])
def test_a_damaged_image_is_refused_and_leaves_nothing(tmp_path, kind):
    path = disk(tmp_path / "disk", kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path)
    assert not list(tmp_path.glob("*.parts/disk.qcow2"))


def test_an_image_that_unpacks_to_more_than_the_site_takes_is_refused(tmp_path):
    """A stream-optimised vmdk is compressed: a small file that comes to much."""
    raw = tmp_path / "raw"
    raw.write_bytes(b"\x01" * (20 << 20))
    path = tmp_path / "bomb"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path)
    assert path.stat().st_size < 1 << 20
    error = refused(path, bytes_max=4 << 20)
    assert f"more than {4 << 20} bytes" in error.problem
    assert not list(tmp_path.glob("*.parts/*"))


def test_a_compressed_qcow2_that_unpacks_to_more_than_the_site_takes_is_refused(tmp_path):
    raw = tmp_path / "raw"
    raw.write_bytes(b"\x01" * (20 << 20))
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, tmp_path / "bomb")
    assert (tmp_path / "bomb").stat().st_size < 1 << 20
    assert f"unpacks to {20 << 20} bytes" in refused(tmp_path / "bomb", bytes_max=4 << 20).problem


def test_a_qcow2_that_is_one_cluster_everywhere_is_refused(tmp_path):
    path = repeating_qcow2(tmp_path / "bomb", 1 << 30)
    assert path.stat().st_size < 1 << 20
    assert subprocess.run(["qemu-img", "check", "-f", "qcow2", path], capture_output=True, check=False).returncode == 0
    assert "same bytes for many places" in refused(path).problem


def test_a_disk_without_room_is_told_as_such_and_not_as_the_images_fault(tmp_path, monkeypatch):
    path = disk(tmp_path / "disk", "vmdk")
    monkeypatch.setattr(conversion, "room_for", lambda target: 100_000)
    with pytest.raises(Unavailable, match="no room"):
        examine(path, tmp_path / "parts")
    monkeypatch.undo()
    monkeypatch.setattr(conversion, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(Unavailable, match="no room"):
        examine(path, tmp_path / "parts-2")


def iso(path, *, boot_sector: bool):
    data = bytearray(1 << 20)
    data[0x8000:0x8006] = b"\x01CD001"
    if boot_sector:
        data[510:512] = b"\x55\xaa"
    path.write_bytes(data)
    return path


def test_an_iso_with_a_boot_sector_is_a_raw_disk(tmp_path):
    path = iso(tmp_path / "iso", boot_sector=True)
    ((file, kept),) = examine(path, tmp_path / "parts").files
    assert (file.format, file.virtual_size_mib, kept) == ("raw", 1, path)


def test_an_iso_that_boots_from_a_cd_only_is_taken_as_data_if_that_is_said(tmp_path):
    path = iso(tmp_path / "iso", boot_sector=False)
    assert "CD drive only" in refused(path).problem
    ((file, _),) = examine(path, tmp_path / "parts", "iso").files
    assert file.format == "raw"


def ova(path, *members):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, source in members:
            tar.add(source, name)
    return path


@pytest.fixture
def described(tmp_path):
    (tmp_path / "description").write_text("<Envelope/>")
    return tmp_path / "description"


def test_of_an_ova_its_disk_is_taken(tmp_path, described):
    made = disk(tmp_path / "made", "vmdk", "-o", "subformat=streamOptimized")
    path = ova(tmp_path / "ova", ("m.ovf", described), ("m.mf", described), ("m-disk1.vmdk", made))
    ((file, at),) = examine(path, tmp_path / "parts").files
    assert file.format == "qcow2"
    assert same_content(raw_disk(tmp_path / "raw"), "raw", at, "qcow2")
    assert [left.name for left in (tmp_path / "parts").iterdir()] == ["disk.qcow2"]


def test_an_ova_of_no_disk_or_of_two_is_refused(tmp_path, described):
    made = disk(tmp_path / "made", "vmdk")
    assert "no disk" in refused(ova(tmp_path / "none", ("m.ovf", described))).problem
    two = ova(tmp_path / "two", ("m.ovf", described), ("1.vmdk", made), ("2.vmdk", made))
    assert "twice" in refused(two).problem


def test_a_raw_disk_that_looks_like_qcow2_inside_is_never_opened_as_one(tmp_path):
    """What a guest can do: write a header that names a file of the host into its own first sector."""
    path = tmp_path / "evil"
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", path, "1M")
    assert refused(path, declared="raw").field == "format"


def test_a_delta_is_flattened_on_what_the_record_says_and_not_on_what_it_names(tmp_path):
    base, decoy, delta = tmp_path / "base", tmp_path / "decoy", tmp_path / "delta"
    disk(base, "qcow2")
    disk(decoy, "qcow2", size_bytes=SIZE_BYTES)
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", delta)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", str(delta)], check=True, capture_output=True)
    qemu_img("convert", "-f", "qcow2", "-O", "raw", delta, tmp_path / "expected")
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", "", delta)  # as it is stored: without a name
    conversion.convert(delta, "qcow2", tmp_path / "flat", "vdi", 1 << 30, beneath=[(base, "qcow2")])
    assert same_content(tmp_path / "expected", "raw", tmp_path / "flat", "vdi")
    assert struct.unpack_from("<I", (tmp_path / "flat").read_bytes(), 0x4C) == (1,)
