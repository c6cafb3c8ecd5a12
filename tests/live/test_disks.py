"""The disks beside a real guest's first: swapped on, mounted, and one's own where that was asked for."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.conftest import ROOT
from tests.live.sites import RealSite
from vws.factory import bundle
from vws.guest.debs import sha256_of

DEMO = ROOT / "build/appliance/demo.vws"
pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

DISKS = [
    {"name": "scratch", "size_mib": 16, "mount": "/scratch"},
    {"name": "page", "size_mib": 32, "filesystem": "swap"},
    {"name": "odd", "size_mib": 8, "filesystem": "xfs", "mount": "/odd"},
    {"name": "ours", "image": "words", "mount": "/ours"},
    {"name": "mine", "image": "words", "private": True, "size_mib": 24, "mount": "/mine"},
]
# Declared by the image: one that it brings, one that is blank, and one that the lease has another in the place of.
DECLARED = [
    {"name": "notes", "size_mib": 16, "filesystem": "ext4", "mount": "/srv/notes", "brought": True},
    {"name": "extra", "size_mib": 16, "filesystem": "ext4", "mount": "/extra"},
    {"name": "page", "size_mib": 512, "filesystem": "swap"},
]
SWAP = "/proc/swaps"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSite]:
    made = RealSite(tmp_path_factory.mktemp("live") / "site")
    try:
        made.start()
        image = _words(tmp_path_factory.mktemp("words"))
        made.ask(lambda c: c.upload_image(image, "words"))
        declaring = _declaring(tmp_path_factory.mktemp("declaring"))
        made.ask(lambda c: c.upload_image(declaring, "declaring"))
        made.lease(2, "two", duration_s=7200, group={"disks": DISKS, "image": "declaring"})
        yield made
    finally:
        made.stop()


def _declaring(folder: Path) -> Path:
    """The demo appliance, which declares disks."""
    said = bundle.unpack(DEMO, folder)
    data = folder / "data-notes.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", _words(folder, 16), data], check=True)
    said["files"][data.name] = {"sha256": sha256_of(data)}
    (folder / "appliance.json").write_text(json.dumps(said | {"disks": DECLARED}))
    with tarfile.open(folder / "declaring.vws", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("appliance.json", *said["files"]):
            tar.add(folder / name, name)
    return folder / "declaring.vws"


def _words(folder: Path, size_mib: int = 8) -> Path:
    """A raw disk with a file system."""
    (folder / "tree").mkdir()
    (folder / "tree/word").write_text("theirs\n")
    image = folder / "words.raw"
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", folder / "tree", image], check=True)
    return image


DECLARED_SIZES = {"vws-notes": "16", "vws-extra": "16"}


def ready(site: RealSite, name: str) -> None:
    look = f"grep -c ' /mine ' /proc/mounts; grep -c vd {SWAP}; true"
    site.until(lambda _: site.ssh(name, look).split() == ["1", "1"], "mounted and swapping")


def test_it_swaps_where_it_may_and_has_what_was_granted(site: RealSite) -> None:
    ready(site, "two-1")
    kind, size_kib = site.ssh("two-1", f"awk '/vd/ {{ print $2, $3 }}' {SWAP}").split()
    assert (kind, int(size_kib)) == ("partition", 32 * 1024 - 4), "without the page of its header"
    sizes = "for d in /sys/block/vd?; do echo $(cat $d/serial) $(($(cat $d/size) / 2048)); done"
    found = dict(line.split() for line in site.ssh("two-1", sizes).splitlines() if line.startswith("vws-"))
    assert (
        found
        == {"vws-odd": "8", "vws-scratch": "16", "vws-page": "32", "vws-ours": "8", "vws-mine": "24"} | DECLARED_SIZES
    )
    assert site.ask(lambda c: c.workspace("two-1"))["disk_mib"] == 128 + 16 + 32 + 8 + 24 + 32, (
        "what it takes on its node"
    )


def test_it_has_the_disks_that_its_image_declares(site: RealSite) -> None:
    for name in ("two-1", "two-2"):
        site.until(lambda _, name=name: site.ssh(name, "grep -c ' /extra ' /proc/mounts; true") == "1", "mounted")
        assert site.ssh(name, "cat /srv/notes/word") == "theirs"
    site.ssh("two-1", "echo my own > /srv/notes/word; sync")
    assert site.ssh("two-2", "cat /srv/notes/word") == "theirs", "each has a copy of its own"


def test_a_disk_that_the_guest_cannot_format_is_told_to_its_user(site: RealSite) -> None:
    why = "the disk odd could not be prepared: this machine has no mkfs.xfs"
    for name in ("two-1", "two-2"):
        site.until(lambda c, name=name: c.workspace(name)["reason"] == why, "told")
    assert {w["state"] for w in site.ask(lambda c: c.workspaces())} == {"running"}, "it runs without it"
    said = [e["data"] for e in site.ask(lambda c: list(c.events())) if e["kind"] == "workspace.disk-failed"]
    assert [(each["disk"], each["reason"]) for each in said] == [("odd", "this machine has no mkfs.xfs")] * 2


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
