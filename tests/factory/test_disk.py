"""Trees on disks: the same bytes for the same tree, everything of a file kept, a disk too small told."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from vws.core.errors import InvalidRequest
from vws.factory import disk, loader
from vws.factory.disk import CAPABILITY, PART_START, Layout
from vws.guest import debs
from vws.guest.cpio import file, folder, link

IDENTITY = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
# cap_net_raw=ep, as setcap writes it
NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners and capabilities take root")


def layout(size_mib: int = 32, offset: int = 0) -> Layout:
    return Layout(size_mib, IDENTITY, "test", 1_700_000_000, offset)


def made(tmp_path: Path, name: str, inodes, contents: Path, at: Layout, start: bytes = b"") -> Path:
    """The raw disk, of which the qcow2 is beside it."""
    target = tmp_path / f"{name}.qcow2"
    disk.make_qcow2(inodes, contents, target, at, start)
    raw = tmp_path / f"{name}.img"
    debs.run(["qemu-img", "convert", "-O", "raw", str(target), str(raw)])
    return raw


def asked(raw: Path, question: str) -> str:
    return debs.run(["debugfs", "-R", question, str(raw)])


def test_a_tree_in_memory_is_on_it(tmp_path):
    tree = {"data": folder(), "usr/bin/tool": file(b"x" * 9000, 0o755), "usr/bin/alias": link("tool")}
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        inodes = disk.inodes_of_tree(tree, tmp_path / name, 1_700_000_000)
        found.append(made(tmp_path, name, inodes, tmp_path / name, layout()))
    assert (tmp_path / "one.qcow2").read_bytes() == (tmp_path / "two.qcow2").read_bytes()
    told = asked(found[0], "stat /usr/bin/tool")
    assert "Mode:  0755" in told
    assert "Size: 9000" in told
    assert "User:     0" in told
    assert "Nov 14 22:13:20 2023" in told or "2023" in told
    assert "tool" in asked(found[0], "stat /usr/bin/alias")
    assert not (tmp_path / "one.raw").exists()


def test_what_is_below_a_mount_point_is_on_the_disk_that_is_mounted_there(tmp_path):
    tree = {"srv/data/in/deep": file(b"deep"), "srv/data/one": file(b"1"), "etc/a": file(b"a"), "srv/empty": folder()}
    inodes = disk.inodes_of_tree(tree, tmp_path, 1_700_000_000)
    found = disk.split(inodes, ("/srv/data", "/srv/data/in", "/srv/empty", "/none"))
    paths = {mount: [each.path for each in on] for mount, on in found.items()}
    assert paths == {
        "": ["etc", "etc/a", "srv", "srv/data", "srv/empty"],
        "/srv/data": ["", "in", "one"],
        "/srv/data/in": ["", "deep"],
    }
    raw = made(tmp_path, "data", found["/srv/data"], tmp_path, layout(16))
    assert "Mode:  0755" in asked(raw, "stat /")
    assert asked(raw, "cat /one") == "1"


def test_a_file_of_two_names_on_two_disks_is_two_files(tmp_path):
    for name in ("a/x", "b/x"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True)
    (tmp_path / "tree/a/x").write_text("both")
    for name in ("b/x", "b/y"):
        (tmp_path / "tree" / name).hardlink_to(tmp_path / "tree/a/x")
    inodes, _ = disk.inodes_of_folder(tmp_path / "tree", time.time() + 10)
    (top, one, other) = disk.split(inodes, ("/b",))["/b"]
    assert [(each.path, each.content, each.same_as) for each in (top, one, other)] == [
        ("", "", ""), ("x", "b/x", ""), ("y", "b/y", "x"),
    ]  # fmt: skip
    raw = made(tmp_path, "b", (top, one, other), tmp_path / "tree", layout(16))
    assert (asked(raw, "cat /x"), asked(raw, "cat /y")) == ("both", "both")


@root_only
def test_all_of_a_file_is_kept_whatever_the_order_of_its_folder(tmp_path):
    """Two folders that were filled in another order, at another time, give the same bytes."""
    since, found = time.time(), []
    for name, order in (("one", 1), ("two", -1)):
        top = tmp_path / name
        top.mkdir()
        for number in range(50)[::order]:
            (top / f"file-{number}").write_text(str(number))
        os.link(top / "file-3", top / "same")
        os.utime(top / "file-4", (5, 1_600_000_000))
        os.chown(top / "file-5", 1234, 70_000)
        (top / "run").mkdir()
        (top / "run/leftover").write_text("x")
        (top / r"a\x2db").write_text("a name with a backslash")
        os.setxattr(top / "file-6", CAPABILITY, NET_RAW)
        (top / "link").symlink_to("/nowhere/at/all")
        inodes, newest_s = disk.inodes_of_folder(top, since)
        assert newest_s == 1_600_000_000
        found.append(made(tmp_path, name, inodes, top, layout()))
        time.sleep(0.01)
    assert (tmp_path / "one.qcow2").read_bytes() == (tmp_path / "two.qcow2").read_bytes()
    assert "Links: 2" in asked(found[0], "stat /same")
    assert "User:  1234   Group: 70000" in asked(found[0], "stat /file-5")
    assert "20 bytes" in asked(found[0], f"ea_get /file-6 {CAPABILITY}") or NET_RAW.hex() in asked(
        found[0], f"ea_get -x /file-6 {CAPABILITY}"
    ).replace(" ", "")
    assert "leftover" not in asked(found[0], "ls /run")
    assert asked(found[0], r'cat "/a\x2db"') == "a name with a backslash"
    assert "/nowhere/at/all" in asked(found[0], "stat /link")


def test_what_does_not_fit_is_told(tmp_path):
    contents = tmp_path / "contents"
    contents.mkdir()
    inodes = disk.inodes_of_tree({"big": file(os.urandom(40 << 20))}, contents, 1)
    with pytest.raises(InvalidRequest) as error:
        disk.make_qcow2(inodes, contents, tmp_path / "big.qcow2", layout())
    assert error.value.problem == "disk.size: 1 files do not fit on a disk of 32 MiB"
    assert error.value.possible == "a larger disk, or fewer packages and files"
    assert not list(tmp_path.glob("big*"))


def test_devices_and_names_that_could_be_commands_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(debs.BuildError, match="/pipe is a device, pipe or socket"):
        disk.inodes_of_folder(tmp_path, time.time())
    (tmp_path / "pipe").unlink()
    (tmp_path / 'x"\nrm /').mkdir(parents=True)
    with pytest.raises(debs.BuildError, match="which is not taken in"):
        disk.inodes_of_folder(tmp_path, time.time())


def test_a_loader_is_before_the_partition_that_it_boots(tmp_path):
    start = b"\xeb".ljust(510, b"\0") + b"\x55\xaa"
    contents = tmp_path / "contents"
    contents.mkdir()
    inodes = disk.inodes_of_tree({"vmlinuz": file(b"kernel")}, contents, 1)
    raw = made(tmp_path, "boots", inodes, contents, layout(32, PART_START), start.ljust(PART_START, b"\0"))
    assert raw.read_bytes()[:512] == start
    assert asked(Path(f"{raw}?offset={PART_START}"), "cat /vmlinuz") == "kernel"


def test_a_partition_table_is_one_that_fdisk_reads(tmp_path):
    raw = tmp_path / "disk"
    raw.write_bytes(loader._laid_out(bytes(512), b"core", 64, IDENTITY))
    os.truncate(raw, 64 << 20)
    told = subprocess.run(["file", "-b", raw], capture_output=True, text=True, check=False).stdout
    head = raw.read_bytes()[446:512]
    assert head[0] == 0x80
    assert head[4] == loader.LINUX
    assert int.from_bytes(head[8:12], "little") * 512 == PART_START
    assert int.from_bytes(head[12:16], "little") * 512 == (64 << 20) - PART_START
    assert head[-2:] == b"\x55\xaa"
    assert "boot sector" in told or not told


def test_a_core_that_is_too_large_is_refused():
    with pytest.raises(debs.BuildError, match="more than there is room for"):
        loader._laid_out(bytes(512), bytes(PART_START), 64, IDENTITY)
