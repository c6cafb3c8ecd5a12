"""Disks as people type them, and as they are told of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import FakeClient
from vws.cli.disks import disk_text, read_disk, split

Run = Callable[..., Result]

READ: dict[str, Any] = {
    "10GiB": 10240,
    "512": 512,
    "blank:10GiB": {"name": "blank", "size_mib": 10240},
    "blank:10GiB:/data": {"name": "data", "size_mib": 10240, "mount": "/data"},
    "blank:1GiB:xfs:/srv/My.Data": {"name": "my-data", "size_mib": 1024, "filesystem": "xfs", "mount": "/srv/My.Data"},
    "scratch=blank:1GiB": {"name": "scratch", "size_mib": 1024},
    "swap:512MiB": {"name": "swap", "size_mib": 512, "filesystem": "swap"},
    "data:genomes": {"name": "genomes", "image": "genomes"},
    "data:genomes:ro:/g": {"name": "genomes", "image": "genomes", "mount": "/g"},
    "data:genomes:2:/g": {"name": "genomes", "image": "genomes:2", "mount": "/g"},
    "data:genomes:copy:/g": {"name": "genomes", "image": "genomes", "private": True, "mount": "/g"},
    "data:genomes:2:copy:20GiB": {"name": "genomes", "image": "genomes:2", "private": True, "size_mib": 20480},
    "data:img-01jd3k9q4t7c2vx": {"name": "img-01jd3k9q4t7c", "image": "img-01jd3k9q4t7c2vx"},
}
REFUSED = (
    "1GB", "blank", "swap", "data:", "blank:", "blank:/data", "blank:1GiB:zfs:/data", "swap:1GiB:/x", "x=10GiB",
    "flash:1GiB", "data:a:b:c:/x", "data:a:copy:much:/x",
)  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_a_disk_is_read(text) -> None:
    assert read_disk(text) == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_disk_is_refused_with_what_is_one(text) -> None:
    with pytest.raises(ValueError, match=r"write |is not a size|decimal unit"):
        read_disk(text)


def test_each_has_a_name_of_its_own_and_there_is_one_root() -> None:
    words = [read_disk(text) for text in ("blank:1GiB", "2GiB", "blank:1GiB", "data:sixteen-letters-", "blank:3MiB")]
    root_mib, disks = split(words)
    assert root_mib == 2048
    assert [disk["name"] for disk in disks] == ["blank", "blank-2", "sixteen-letters", "blank-3"]
    with pytest.raises(ValueError, match="there is one root disk"):
        split([1, 2])


def test_a_lease_is_asked_for_with_its_disks(vws: Run, client: FakeClient) -> None:
    common = ("--image", "demo", "--for", "2h", "--disk", "2GiB", "--disk", "swap:64MiB")
    result = vws("lease", "request", *common, "--group", "name=a,disk=blank:1GiB:/data,disk=4GiB", "--group", "name=b")
    assert result.exit_code == 0, result.output
    [(_, asked)] = client.asked
    one, other = asked["groups"]
    assert (one["disk_mib"], other["disk_mib"]) == (4096, 2048)
    assert [disk["name"] for disk in one["disks"]] == ["data"], "its own instead of the common ones"
    assert [disk["name"] for disk in other["disks"]] == ["swap"]


def test_a_word_that_is_no_disk_is_told_as_such(vws: Run) -> None:
    result = vws("lease", "request", "--image", "demo", "--for", "2h", "--disk", "flash:1GiB")
    assert result.exit_code == 2
    assert "'flash' is no kind of disk; write 10GiB, blank:10GiB:/data" in " ".join(result.output.split())


def test_disks_are_told_in_words() -> None:
    def disk(**said: Any) -> dict[str, Any]:
        return {"name": "d", "size_mib": 0, "filesystem": "", "mount": "", "image": "", "private": False} | said

    assert disk_text(disk(size_mib=1024, mount="/data")) == "d 1 GiB at /data"
    assert disk_text(disk(size_mib=64, filesystem="swap")) == "d 64 MiB swap"
    assert disk_text(disk(name="swap", size_mib=64, filesystem="swap")) == "swap 64 MiB"
    assert disk_text(disk(image="img-1")) == "d (img-1)"
    assert disk_text(disk(image="img-1", private=True, size_mib=64)) == "d 64 MiB (copy of img-1)"
