"""Building on an image: its files as they were, what it says of itself, and what is refused."""

from __future__ import annotations

import json
import os
import tarfile
import time
from pathlib import Path

import pytest

from tests.factory.conftest import needs_root
from tests.factory.test_disk import NET_RAW, layout
from vws.core.disks import Disk, described
from vws.core.errors import InvalidRequest
from vws.core.recipe import By, Init, Recipe
from vws.factory import base, disk
from vws.factory.disk import CAPABILITY, PART_START
from vws.factory.log import Log
from vws.guest import debs

pytestmark = needs_root


@pytest.fixture
def system(tmp_path) -> Path:
    """A folder that could be a Debian system's."""
    top = tmp_path / "system"
    for name in ("var/lib/dpkg", "usr/bin", "etc/vws"):
        (top / name).mkdir(parents=True)
    (top / "var/lib/dpkg/status").write_text("")
    for name in ("su", "ping", "tool"):
        (top / "usr/bin" / name).write_text(name)
        (top / "usr/bin" / name).chmod(0o755)
    (top / "usr/bin/su").chmod(0o4755)
    os.setxattr(top / "usr/bin/ping", CAPABILITY, NET_RAW)
    (top / "etc/owned").write_text("x")
    os.chown(top / "etc/owned", 1000, 2000)
    (top / "etc/owned").chmod(0o640)
    os.utime(top / "etc/owned", (1, 1_600_000_000))
    (top / "etc/link").symlink_to("/nowhere")
    return top


def image(system: Path, path: Path, offset: int = 0) -> Path:
    inodes, _ = disk.inodes_of_folder(system, time.time() + 10)
    disk.make_qcow2(inodes, system, path, layout(32, offset), bytes(offset))
    return path


def taken(path: Path, tmp_path: Path) -> tuple[base.Base, Path]:
    tree, folder = tmp_path / "tree", tmp_path / "work"
    folder.mkdir()
    return base.take_out(path, tree, folder, Log(tmp_path / "log", lambda at_s, step: None)), tree


@pytest.mark.parametrize("offset", [0, PART_START])
def test_files_are_as_they_were(system, tmp_path, offset):
    found, tree = taken(image(system, tmp_path / "a.qcow2", offset), tmp_path)
    assert (tree / "usr/bin/su").stat().st_mode & 0o7777 == 0o4755
    assert (tree / "usr/bin/tool").stat().st_mode & 0o7777 == 0o755
    assert os.getxattr(tree / "usr/bin/ping", CAPABILITY) == NET_RAW
    owned = (tree / "etc/owned").stat()
    assert (owned.st_uid, owned.st_gid, owned.st_mode & 0o777, owned.st_mtime) == (1000, 2000, 0o640, 1_600_000_000)
    assert os.readlink(tree / "etc/link") == "/nowhere"
    assert (found.recipe.by, found.recipe.init, found.recipe.disk_mib) == (By.LOADER, Init.SYSTEM, 32)
    assert found.packages == ()


def test_a_bundle_says_how_it_boots_and_a_recipe_has_the_last_word(system, tmp_path):
    (system / "etc/vws/system").write_text("debian 12\n")
    path = tmp_path / "a.vws"
    said = {"format": "vws-appliance/1", "boot": "direct", "cmdline": "quiet", "memory_mib_min": 192, "user": "ann",
            "roles": {"worker": "works"}}  # fmt: skip
    (tmp_path / "appliance.json").write_text(json.dumps(said))
    with tarfile.open(path, "w") as bundle:
        bundle.add(tmp_path / "appliance.json", "appliance.json")
        bundle.add(image(system, tmp_path / "disk.qcow2"), "disk.qcow2")
    found, _ = taken(path, tmp_path)
    ours = base.built_on(found, Recipe(name="mine", version="2", user="root", roles={"head": "leads"}))
    assert (ours.name, ours.version, ours.user, ours.memory_mib) == ("mine", "2", "root", 192)
    assert (ours.by, ours.init, ours.cmdline) == (By.KERNEL, Init.VWS, "quiet")
    assert ours.roles == {"worker": "works", "head": "leads"}


def of_two_disks(system: Path, tmp_path: Path, mount: str = "/srv/words") -> Path:
    """A bundle that brings a disk with `word` on it, and declares a blank one."""
    (tmp_path / "words").mkdir()
    (tmp_path / "words/word").write_text("theirs")
    disks = [Disk("words", 32, "ext4", mount=mount, brought=True), Disk("page", 64, "swap")]
    said = {"format": "vws-appliance/1", "boot": "disk", "disks": described(disks)}
    (tmp_path / "appliance.json").write_text(json.dumps(said))
    with tarfile.open(tmp_path / "two.vws", "w") as bundle:
        bundle.add(tmp_path / "appliance.json", "appliance.json")
        bundle.add(image(system, tmp_path / "disk.qcow2"), "disk.qcow2")
        bundle.add(image(tmp_path / "words", tmp_path / "data.qcow2"), "data-words.qcow2")
    return tmp_path / "two.vws"


def test_what_further_disks_bring_is_in_the_tree_where_they_are_mounted(system, tmp_path):
    found, tree = taken(of_two_disks(system, tmp_path), tmp_path)
    assert (tree / "srv/words/word").read_text() == "theirs"
    assert found.recipe.beside == (Disk("page", 64, "swap"), Disk("words", 32, "ext4", mount="/srv/words"))


def test_a_disk_that_would_lead_out_of_the_tree_is_refused(system, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (system / "srv").mkdir()
    (system / "srv/away").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidRequest, match="a disk words with files, and no empty folder to have them in"):
        taken(of_two_disks(system, tmp_path, "/srv/away/x"), tmp_path)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_disk_over_what_a_machine_needs_is_refused(system, tmp_path):
    with pytest.raises(InvalidRequest, match="disks that cannot be had: /etc/owned is needed before"):
        taken(of_two_disks(system, tmp_path, "/etc/owned"), tmp_path)


def test_what_is_no_system_is_refused(system, tmp_path):
    (system / "var/lib/dpkg/status").unlink()
    with pytest.raises(InvalidRequest, match=r"from: a.qcow2 holds no Debian system"):
        taken(image(system, tmp_path / "a.qcow2"), tmp_path)


def test_what_names_other_files_is_never_opened(tmp_path):
    backed = tmp_path / "a.qcow2"
    debs.run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", str(backed), "1M"])
    with pytest.raises(InvalidRequest, match="cannot be taken: this qcow2 image has a backing file"):
        taken(backed, tmp_path)
    assert not (tmp_path / "tree").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 100_000, b"QFI\xfb" + bytes(100)])
def test_what_is_no_image_is_refused(tmp_path, content):
    for name in ("a.vws", "a.qcow2"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((InvalidRequest, debs.BuildError)):
            base.take_out(tmp_path / name, tmp_path / "tree", tmp_path, Log(tmp_path / "log", lambda at_s, step: None))


def test_an_empty_disk_is_refused(tmp_path):
    empty = tmp_path / "a.qcow2"
    debs.run(["qemu-img", "create", "-q", "-f", "qcow2", str(empty), "8M"])
    with pytest.raises(InvalidRequest, match="has no ext4 file system"):
        taken(empty, tmp_path)
