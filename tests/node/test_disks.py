"""Blank disks: as large as was ordered, made once, never made over."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import pytest

from vws.core.deployment import DiskOrder
from vws.node.commands import Commands
from vws.node.disks import check_blank, make_blank, serial
from vws.ports import HypervisorError

DISK = DiskOrder("scratch", 64, "ext4")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "blank-scratch.qcow2"
    make_blank(Commands(), path, DISK)
    return path


def test_a_disk_is_blank_and_of_its_size(path) -> None:
    said = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", path]))
    assert (said["format"], said["virtual-size"]) == ("qcow2", 64 << 20)
    assert path.stat().st_mode & 0o077 == 0
    assert path.stat().st_blocks * 512 < 1 << 20
    check_blank(path, DISK)
    assert serial(DISK) == "vws-scratch"


def test_what_is_there_is_kept(path) -> None:
    before = path.stat()
    make_blank(Commands(), path, DISK)
    assert path.stat() == before


def test_one_that_is_gone_or_of_another_size_is_a_final_error(path) -> None:
    with pytest.raises(HypervisorError, match="has 64 MiB and not the 65 MiB ordered") as raised:
        check_blank(path, replace(DISK, size_mib=65))
    assert raised.value.final
    path.unlink()
    with pytest.raises(HypervisorError, match="disk scratch has vanished") as raised:
        check_blank(path, DISK)
    assert raised.value.final
