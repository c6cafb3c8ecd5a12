"""Copies of disks on their way to become images: cleaned without being mounted, and what is under them is told apart.

Real file systems, made and read by e2fsprogs; qemu-storage-daemon shows them as files, which needs root.
"""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
from pathlib import Path

import pytest

from tests.service.disk_images import qemu_img
from vws.core.deployment import CaptureOrder, Quiesced
from vws.core.site import ImageFile
from vws.node import captures
from vws.node.captures import CaptureFolders
from vws.ports import HypervisorError

pytestmark = pytest.mark.live

SECRET = b"secret of this machine"
GOING = (
    "etc/ssh/ssh_host_rsa_key",
    "var/log/a/b/we ird'\"$(x)\nname",
    "home/a/.ssh/authorized_keys",
    "vws/token",
    "root/.ssh/id_ed25519",
    "root/.ssh/id_ed25519.pub",
    "etc/munge/munge.key",
)
STAYING = ("etc/ssh/sshd_config", "home/a/.ssh/id_rsa", "data/file")
PART_AT = 1 << 20


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "captures").mkdir()
    return CaptureFolders(tmp_path, tmp_path / "images")


def tree(at: Path, names=(*GOING, *STAYING)) -> Path:
    for name in names:
        path = at / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SECRET if name in GOING else b"kept " + name.encode())
    (at / "etc/machine-id").write_text("0123456789abcdef\n")
    return at


def file_system(at: Path, content: Path, *options: str) -> Path:
    with at.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", *options, "-d", content, at], check=True)
    return at


def base_of(folders, raw: Path) -> ImageFile:
    """An image in the node's cache."""
    data = raw.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    (folders._images / sha256).write_bytes(data)
    return ImageFile("disk", sha256, len(data), "raw", len(data) >> 20)


def overlay(folders, base: ImageFile, at: Path) -> Path:
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", folders._images / base.sha256, at)
    return at


def order(base: ImageFile, clean=True) -> CaptureOrder:
    return CaptureOrder("sav-1", "wsp-1", at_end=False, clean=clean, beneath=(base,))


def delta_of(folders, ordered: CaptureOrder, disk: Path) -> Path:
    folders.copy(ordered, disk)
    folders.keep(ordered, Quiesced.PAUSE)
    return folders.delta(ordered)


def flat(folders, delta: Path, base: ImageFile, target: Path) -> Path:
    under = f'{{"driver":"raw","file":{{"driver":"file","filename":"{folders._images / base.sha256}"}}}}'
    top = f'{{"driver":"qcow2","file":{{"driver":"file","filename":"{delta}"}},"backing":{under}}}'
    qemu_img("convert", "-O", "raw", f"json:{top}", target)
    return target


def read(disk: Path, name: str) -> bytes:
    return subprocess.run(["debugfs", "-R", f'cat "/{name}"', disk], capture_output=True, check=True).stdout.rstrip(
        b"\0"
    )


def check_cleaned(disk: Path) -> None:
    assert SECRET not in disk.read_bytes(), "nor in free blocks, nor in the journal"
    assert [read(disk, name) for name in STAYING] == [b"kept " + name.encode() for name in STAYING]
    assert b"Size: 0" in subprocess.run(["debugfs", "-R", "stat /etc/machine-id", disk], capture_output=True).stdout
    subprocess.run(["e2fsck", "-fn", disk], check=True, capture_output=True)


@pytest.mark.parametrize("options", [(), ("-b", "1024"), ("-O", "^has_journal"), ("-O", "inline_data")])
def test_what_must_differ_is_gone_and_all_else_stays(folders, tmp_path, options):
    base = base_of(folders, file_system(tmp_path / "raw", tree(tmp_path / "tree"), *options))
    delta = delta_of(folders, order(base), overlay(folders, base, tmp_path / "disk"))
    assert b"backing" not in qemu_img("info", "--output=json", delta)
    check_cleaned(flat(folders, delta, base, tmp_path / "flat"))
    assert delta.stat().st_size < 8 << 20
    assert "export" not in Path("/proc/mounts").read_text()


def test_of_a_disk_with_partitions_each_is_cleaned(folders, tmp_path):
    part = file_system(tmp_path / "part", tree(tmp_path / "tree"))
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        file.truncate(50 << 20)
    with raw.open("r+b") as file:
        file.seek(446)
        file.write(struct.pack("<B3sB3sII", 0x80, b"", 0x83, b"", PART_AT >> 9, part.stat().st_size >> 9))
        file.seek(510)
        file.write(b"\x55\xaa")
        file.seek(PART_AT)
        file.write(part.read_bytes())
    base = base_of(folders, raw)
    delta = delta_of(folders, order(base), overlay(folders, base, tmp_path / "disk"))
    whole = flat(folders, delta, base, tmp_path / "flat").read_bytes()
    (tmp_path / "cut").write_bytes(whole[PART_AT : PART_AT + (48 << 20)])
    assert SECRET not in whole
    check_cleaned(tmp_path / "cut")


def test_what_cannot_be_cleaned_is_refused_with_a_way_out(folders, tmp_path):
    raw = tmp_path / "raw"
    raw.write_bytes(b"XFSB" + bytes((48 << 20) - 4))
    base = base_of(folders, raw)
    disk = overlay(folders, base, tmp_path / "disk")
    with pytest.raises(HypervisorError, match="--uncleaned") as error:
        delta_of(folders, order(base), disk)
    assert error.value.final
    folders.drop("sav-1")
    uncleaned = delta_of(folders, order(base, clean=False), disk)
    assert flat(folders, uncleaned, base, tmp_path / "flat").read_bytes() == raw.read_bytes()


def test_the_name_of_a_base_in_a_header_is_never_followed(folders, tmp_path):
    base = base_of(folders, file_system(tmp_path / "raw", tree(tmp_path / "tree")))
    decoy = tmp_path / "decoy"
    decoy.write_bytes(b"a file of the host " * (1 << 20))
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", decoy, tmp_path / "disk", "48M")
    delta = delta_of(folders, order(base), tmp_path / "disk")
    whole = flat(folders, delta, base, tmp_path / "flat")
    assert b"a file of the host" not in delta.read_bytes() + whole.read_bytes()
    check_cleaned(whole)


def test_only_what_a_file_system_cannot_copy_at_once_takes_long(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(captures, "COPIED_AT_ONCE_BYTES", 1 << 20)
    monkeypatch.setattr(captures, "_cloned", lambda *_: False)
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(range(256)) * (8 << 10))
    ordered = CaptureOrder("sav-1", "wsp-1", at_end=False, clean=False)
    assert folders.takes_long(ordered, disk)
    monkeypatch.setattr(captures, "_cloned", lambda *_: True)
    assert not folders.takes_long(ordered, disk)
    assert not folders.is_taken("sav-1")
    assert [path.name for path in folders.folder("sav-1").iterdir()] == ["beneath.json"]


def test_what_was_taken_says_what_kept_its_guest_from_writing(folders, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 4096)
    ordered = CaptureOrder("sav-1", "wsp-1", at_end=False, clean=False)
    folders.copy(ordered, disk)
    folders.keep(ordered, Quiesced.AGENT)
    assert folders.quiesced("sav-1") is Quiesced.AGENT
    assert (folders.folder("sav-1") / "disk.qcow2").read_bytes() == disk.read_bytes()
    last = CaptureOrder("sav-2", "wsp-1", at_end=True, clean=False)
    folders.move(last, disk)
    assert (folders.quiesced("sav-2"), disk.exists()) == (Quiesced.OFF, False)


def test_a_twin_is_an_empty_disk_of_the_same_size_on_the_same_image(folders, tmp_path):
    base = base_of(folders, file_system(tmp_path / "raw", tree(tmp_path / "tree")))
    disk, twin = overlay(folders, base, tmp_path / "disk"), tmp_path / "twin.qcow2"
    folders.prepare(order(base), disk, twin)
    said = json.loads(qemu_img("info", "--output=json", twin))
    assert (said["virtual-size"], said["backing-filename"]) == (48 << 20, f"images/{base.sha256}")
    folders.adopt(order(base), twin)
    folders.keep(order(base), Quiesced.PAUSE)
    check_cleaned(flat(folders, folders.delta(order(base)), base, tmp_path / "flat"))


def test_a_full_disk_is_said_and_nothing_is_left(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(captures.shutil, "disk_usage", lambda _: type("U", (), {"free": 1 << 20}))
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 4096)
    with pytest.raises(HypervisorError, match="too full"):
        folders.copy(CaptureOrder("sav-1", "wsp-1", at_end=False, clean=False), disk)
    assert [path.name for path in folders.folder("sav-1").iterdir()] == ["beneath.json"]
