"""The disks beside a real guest's first: swapped on, mounted, and one's own where that was asked for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.sites import RealSite

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

DISKS = [
    {"name": "scratch", "size_mib": 16, "mount": "/scratch"},
    {"name": "page", "size_mib": 32, "filesystem": "swap"},
    {"name": "ours", "image": "words", "mount": "/ours"},
    {"name": "mine", "image": "words", "private": True, "size_mib": 24, "mount": "/mine"},
]
SWAP = "/proc/swaps"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSite]:
    made = RealSite(tmp_path_factory.mktemp("live") / "site")
    try:
        made.start()
        image = _words(tmp_path_factory.mktemp("words"))
        made.ask(lambda c: c.upload_image(image, "words"))
        made.lease(2, "two", duration_s=7200, group={"disks": DISKS})
        yield made
    finally:
        made.stop()


def _words(folder: Path) -> Path:
    """A raw disk of 8 MiB with a file system."""
    (folder / "tree").mkdir()
    (folder / "tree/word").write_text("theirs\n")
    image = folder / "words.raw"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", folder / "tree", image], check=True)
    return image


def ready(site: RealSite, name: str) -> None:
    look = f"grep -c ' /mine ' /proc/mounts; grep -c vd {SWAP}; true"
    site.until(lambda _: site.ssh(name, look).split() == ["1", "1"], "mounted and swapping")


def test_it_swaps_where_it_may_and_has_what_was_granted(site: RealSite) -> None:
    ready(site, "two-1")
    kind, size_kib = site.ssh("two-1", f"awk '/vd/ {{ print $2, $3 }}' {SWAP}").split()
    assert (kind, int(size_kib)) == ("partition", 32 * 1024 - 4), "without the page of its header"
    sizes = "for d in /sys/block/vd?; do echo $(cat $d/serial) $(($(cat $d/size) / 2048)); done"
    found = dict(line.split() for line in site.ssh("two-1", sizes).splitlines() if line.startswith("vws-"))
    assert found == {"vws-scratch": "16", "vws-page": "32", "vws-ours": "8", "vws-mine": "24"}
    assert site.ask(lambda c: c.workspace("two-1"))["disk_mib"] == 128 + 16 + 32 + 24, "what it takes on its node"


def test_a_copy_is_its_own_and_what_is_shared_is_nobodys(site: RealSite) -> None:
    for name in ("two-1", "two-2"):
        ready(site, name)
        assert site.ssh(name, "cat /ours/word /mine/word").split() == ["theirs", "theirs"]
    site.ssh("two-1", "echo my own > /mine/word; sync")
    assert site.ssh("two-1", "cat /mine/word /ours/word").splitlines() == ["my own", "theirs"]
    assert site.ssh("two-2", "cat /mine/word") == "theirs", "another's copy is another's"
    assert "Read-only" in site.ssh("two-1", "echo x 2>&1 >/ours/word; true")
    site.ssh("two-2", "echo kept > /scratch/file; sync")
    assert site.ssh("two-2", "cat /scratch/file") == "kept"


def test_a_disk_is_full_at_its_size_whatever_is_written(site: RealSite) -> None:
    ready(site, "two-2")
    device = "/dev/$(grep -l vws-page /sys/block/vd?/serial | cut -d/ -f4)"
    said = site.ssh("two-2", f"swapoff -a; dd if=/dev/zero of={device} bs=1M count=40 2>&1; true")
    assert "No space left" in said
    workspace = site.ask(lambda c: c.workspace("two-2"))["id"]
    took = (site.directory.node / "workspaces" / workspace / "blank-page.qcow2").stat().st_blocks * 512
    assert 31 << 20 < took < 33 << 20
