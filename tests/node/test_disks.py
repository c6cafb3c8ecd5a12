"""The files behind disks: as large as was ordered, made once, never made over."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import replace

import pytest

from tests.service.disk_images import qemu_img
from vws.core.deployment import DiskOrder
from vws.core.site import ImageFile
from vws.node.commands import Commands
from vws.node.disks import check_disk, make_disk, make_overlay, serial
from vws.ports import HypervisorError

DISK = DiskOrder("scratch", 64, "ext4")
CONTENT = b"what others read too" * 4096
MIB = 1 << 20


def info(path):
    return json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", path]))


def make(path, disk, images):
    make_disk(Commands(), path, disk, images)
    return path


@pytest.fixture
def path(tmp_path):
    return make(tmp_path / "blank-scratch.qcow2", DISK, tmp_path)


@pytest.fixture
def data(tmp_path):
    """An image's raw disk of 2 MiB in the cache."""
    content = CONTENT.ljust(2 * MIB, b"\0")
    file = ImageFile("disk", hashlib.sha256(content).hexdigest(), len(content), "raw", 2)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / file.sha256).write_bytes(content)
    return file


def test_a_disk_is_blank_and_of_its_size(path) -> None:
    said = info(path)
    assert (said["format"], said["virtual-size"]) == ("qcow2", 64 << 20)
    assert path.stat().st_mode & 0o077 == 0
    assert path.stat().st_blocks * 512 < MIB
    check_disk(path, "scratch", 64)
    assert serial(DISK) == "vws-scratch"


def test_what_is_there_is_kept(path, tmp_path) -> None:
    before = path.stat()
    make(path, DISK, tmp_path)
    assert path.stat() == before


def test_one_that_is_gone_or_of_another_size_is_a_final_error(path) -> None:
    with pytest.raises(HypervisorError, match="has 64 MiB and not the 65 MiB ordered") as raised:
        check_disk(path, "scratch", 65)
    assert raised.value.final
    path.unlink()
    with pytest.raises(HypervisorError, match="disk scratch has vanished") as raised:
        check_disk(path, "scratch", 64)
    assert raised.value.final


def test_one_to_swap_on_is_formatted_and_takes_next_to_no_room(tmp_path) -> None:
    path = make(tmp_path / "blank-page.qcow2", DiskOrder("page", 512, "swap", "a-label-of-16-ch"), tmp_path)
    assert (info(path)["virtual-size"], path.stat().st_blocks * 512 < MIB) == (512 * MIB, True)
    qemu_img("convert", "-O", "raw", path, tmp_path / "raw")
    blkid = subprocess.check_output(["blkid", "-p", "-o", "export", tmp_path / "raw"], text=True)
    assert "TYPE=swap" in blkid
    assert "LABEL=a-label-of-16-c" in blkid, "as long as mkswap takes"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["blank-page.qcow2", "raw"]


def test_a_private_copy_begins_as_its_image_and_leaves_that_alone(tmp_path, data) -> None:
    disk = DiskOrder("own", 8, image="img-2", file=data, private=True)
    copies = [make(tmp_path / f"{name}.qcow2", disk, tmp_path / "images") for name in ("one", "two")]
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", copies[0]], check=True, capture_output=True)
    for copy in copies:
        assert info(copy)["virtual-size"] == 8 * MIB
        assert not os.path.isabs(info(copy)["backing-filename"])
        qemu_img("convert", "-O", "raw", copy, copy.with_suffix(".raw"))
    one, two = (copy.with_suffix(".raw").read_bytes() for copy in copies)
    assert (one[:4], two[: len(CONTENT)]) == (b"\7" * 4, CONTENT)
    assert (tmp_path / "images" / data.sha256).read_bytes()[: len(CONTENT)] == CONTENT


def test_no_disk_is_smaller_than_the_image_beneath_it(tmp_path, data) -> None:
    with pytest.raises(HypervisorError, match="has 2 MiB, more than the 1 MiB asked for") as raised:
        make_overlay(Commands(), tmp_path / "new", tmp_path / "images" / data.sha256, data, 1)
    assert raised.value.final
    small = DiskOrder("own", 1, image="img-2", file=data, private=True)
    with pytest.raises(HypervisorError, match="more than the 1 MiB"):
        make(tmp_path / "own.qcow2", small, tmp_path / "images")


def test_a_disk_that_was_cut_off_in_the_making_is_made_anew(tmp_path, data) -> None:
    path = tmp_path / "blank-page.qcow2"
    for left in ("blank-page.new", "blank-page.raw"):
        (tmp_path / left).write_bytes(b"half")
    check_disk(make(path, replace(DISK, filesystem="swap"), tmp_path), "page", 64)
