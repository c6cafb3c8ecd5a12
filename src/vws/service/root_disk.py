"""A root file system's tar becomes a disk that boots: ext4, filled without mounting it, and the kernel that is in it.

Mounting a stranger's file system hands it to the kernel of this machine; so it is made by programs that see nothing but
files (root_tree.py, mke2fs, debugfs), each confined. A root file system boots with a kernel whose modules it has, which
is the one in its own boot/: any other would come up without drivers. If there is none, the tar is refused.

The same tar gives the same disk: ids are derived from its sha256, the file system's own clock stands still.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vws.core.errors import Unavailable
from vws.core.image_formats import wrong
from vws.service import conversion
from vws.service.confined import Bounds, Outcome, program

_TREE = Path(__file__).with_name("root_tree.py")
_FILTERS = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"))
_BOUNDS = Bounds(memory_mib=2048, cpu_s=600, wall_s=840)
# E2FSPROGS_FAKE_TIME of 0 would mean the real time.
_CLOCK = {"E2FSPROGS_FAKE_TIME": "1"}
# Room for what the guest will write, on top of what came, and for each file's last block.
_FREE_MIB = 256
_FREE_SHARE = 1.25
_FILE_BYTES = 4096
_INODE_BYTES = 256
_JOURNAL_MIB = 16
# Debian's names, then those of others: kernel -> its initial file system.
_INITRDS = ("boot/initrd.img-{}", "boot/initramfs-{}.img", "boot/initrd-{}", "boot/initrd-{}.img")
CMDLINE = "root=UUID={} ro console=tty0 console=ttyS0 net.ifnames=0"


@dataclass(frozen=True)
class RootDisk:
    """ready: `ssh` if a server of it is in the tree, else `boot`."""

    disk: Path
    kernel: Path
    initrd: Path
    cmdline: str
    ready: str


def make(tar: Path, sha256: str, folder: Path, bytes_max: int) -> RootDisk:
    """The disk of a tar, in `folder`, which exists. Raises InvalidRequest with field "file", or Unavailable."""
    tree = folder / "tree"
    tree.mkdir(mode=0o700)
    try:
        told = _take_apart(tar, tree, bytes_max)
        kernel, initrd = _boots(told)
        identity = uuid.uuid5(uuid.NAMESPACE_OID, f"vws:{sha256}")
        disk = _fill(tree, told, identity, folder, bytes_max)
        for name, path in (("kernel", kernel), ("initrd", initrd)):
            (tree / "content" / str(told["boot"][path][0])).rename(folder / name)
    finally:
        shutil.rmtree(tree)
    ready = "ssh" if {"usr/sbin/sshd", "usr/sbin/dropbear"} & set(told["programs"]) else "boot"
    return RootDisk(disk, folder / "kernel", folder / "initrd", CMDLINE.format(identity), ready)


def _take_apart(tar: Path, tree: Path, bytes_max: int) -> dict[str, Any]:
    with tar.open("rb") as file:
        head = file.read(8)
    compression = next((name for mark, name in _FILTERS if head.startswith(mark)), "none")
    command: list[str | Path] = [
        sys.executable,
        "-I",
        _TREE,
        tar.resolve(),
        compression,
        tree.resolve(),
        str(bytes_max),
    ]
    outcome = conversion.write_confined(
        command, "unpacking this tar", tree, bytes_max, read=[tar, *_python()], write=[tree], bounds=_BOUNDS,
        environment={"LIBARCHIVE": "libarchive.so.13"},
    )  # fmt: skip
    try:
        told: dict[str, Any] = json.loads(outcome.said)
    except ValueError:
        raise _broken("unpacking this tar", outcome) from None
    if "problem" in told:
        raise wrong(told["problem"], told["possible"])
    return told


def _python() -> list[Path]:
    """Where this interpreter and its packages are."""
    return [Path(place) for place in {sys.prefix, sys.base_prefix, str(_TREE.parent)}]


def _broken(doing: str, outcome: Outcome) -> Exception:
    if b"libarchive" in outcome.complained and b"cannot open shared object" in outcome.complained:
        return Unavailable("libarchive is missing on the service's host", possible="install libarchive13")
    return wrong(f"{doing} failed: {outcome.reason}", "an undamaged copy of it")


# ---------------------------------------------------------------- what boots


def _boots(told: dict[str, Any]) -> tuple[str, str]:
    """The newest kernel that has its initial file system beside it, and that."""
    found: dict[str, str] = {}
    for path in told["boot"]:
        version = path.removeprefix("boot/vmlinuz-")
        initrd = next((name for form in _INITRDS if (name := form.format(version)) in told["boot"]), None)
        if version != path and initrd:
            found[path] = initrd
    if not found:
        raise wrong(
            "this tar of a root file system has no kernel to boot it with: no boot/vmlinuz-VERSION with its "
            "boot/initrd.img-VERSION",
            "install one before packing it (Debian: apt install linux-image-cloud-amd64 initramfs-tools), or build an "
            "appliance with these files (vws image build)",
        )
    newest = max(found, key=_by_version)
    return newest, found[newest]


def _by_version(path: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.findall(r"\d{1,18}|\D+", path)]


# ---------------------------------------------------------------- the file system


def _fill(tree: Path, told: dict[str, Any], identity: uuid.UUID, folder: Path, bytes_max: int) -> Path:
    raw, disk = folder / "disk.raw", folder / "disk.qcow2"
    size_mib = _size_mib(told)
    bounds_bytes = max(bytes_max, size_mib << 20)
    _run(["mke2fs", *_layout(told, identity), raw, f"{size_mib}M"], raw, bounds_bytes)
    said = _run(["debugfs", "-w", "-f", tree / "commands", raw], raw, bounds_bytes, read=[tree])
    # debugfs goes on after an error, and says its own name and version first.
    wrong_lines = [line for line in said.complained.decode(errors="replace").splitlines()[1:] if line.strip()]
    if wrong_lines:
        raise wrong(f"the file system could not be filled: {wrong_lines[0][-200:]}", "a smaller root file system")
    _run(["e2fsck", "-f", "-n", raw], raw, bounds_bytes)
    conversion.convert(raw, "raw", disk, "qcow2", bytes_max)
    raw.unlink()
    return disk


def _size_mib(told: dict[str, Any]) -> int:
    used = told["bytes"] + told["entries"] * (_FILE_BYTES + 2 * _INODE_BYTES)
    needed = int(used * _FREE_SHARE / (1 << 20)) + _JOURNAL_MIB + _FREE_MIB
    return -(-needed // 64) * 64


def _layout(told: dict[str, Any], identity: uuid.UUID) -> list[str]:
    inodes = told["entries"] * 2 + 16384
    fixed = ["-U", str(identity), "-E", f"hash_seed={identity},lazy_itable_init=0,lazy_journal_init=0,nodiscard"]
    return ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", str(_INODE_BYTES), "-N", str(inodes), "-m", "1",
            "-J", f"size={_JOURNAL_MIB}", *fixed]  # fmt: skip


def _run(command: list[str | Path], raw: Path, bytes_max: int, read: list[Path] | None = None) -> Outcome:
    named = str(command[0])
    outcome = conversion.write_confined(
        [program(named, "e2fsprogs"), *command[1:]], "making a file system of this tar", raw, bytes_max,
        read=read or [], bounds=_BOUNDS, environment=_CLOCK, listen=False, sparse=True,
    )  # fmt: skip
    if outcome.status != 0:
        raise wrong(f"{named} failed on this tar's file system: {outcome.reason}", "an undamaged copy of the tar")
    return outcome
