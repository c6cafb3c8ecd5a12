"""The files behind a workspace's disks: overlays on images of the node's cache, and disks that hold nothing at first.

All are qcow2, and each has from the start the size that was ordered, beyond which no guest can make it grow. The guest
finds one by its serial, whatever the kernel calls it. What is on one lives as long as the workspace; a disk that is not
as it was ordered is not made over, for it may hold what somebody needs.

A disk to swap on is formatted here, so that a guest needs no program for that, and can swap in its first seconds: the
header is written to an empty file and never mounted, nor is anything read that a guest wrote.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from vws.core.deployment import DiskOrder
from vws.core.disks import FILESYSTEMS, SWAP
from vws.core.luks import LUKS_OPTIONS, SECRET_ID, UNTIMED, UNTIMED_TRIES
from vws.core.site import ImageFile
from vws.node.commands import CommandFailed, Commands
from vws.node.daemons import qemu_ids
from vws.node.images import virtual_size_mib
from vws.ports import HypervisorError

# Where a qcow2's header has the size of its disk, in bytes. That of an overlay is the node's own, and names an image.
_SIZE_AT = 24


def serial(disk: DiskOrder) -> str:
    return f"vws-{disk.name}"


def make_disk(commands: Commands, path: Path, disk: DiskOrder, images: Path, passphrase: str = "") -> None:
    """One that is not shared, unless it is there already. images: the folder of the node's cache. passphrase: with
    which it is encrypted; "": it is not."""
    if path.exists():
        return
    new = path.with_suffix(".new")
    if disk.file is not None:
        make_overlay(commands, new, images / disk.file.sha256, disk.file, disk.size_mib, passphrase)
    elif disk.filesystem == SWAP:
        _make_swap(commands, new, disk, passphrase)
    else:
        make_blank(commands, new, disk.size_mib, passphrase)
    hand_over(new, path)


def make_blank(commands: Commands, new: Path, size_mib: int, passphrase: str = "") -> None:
    _qemu_img(commands, "create", "-q", "-f", "qcow2", new.name, f"{size_mib}M", passphrase=passphrase, cwd=new.parent)


def make_overlay(
    commands: Commands, new: Path, image: Path, file: ImageFile, size_mib: int, passphrase: str = ""
) -> None:
    """A disk of `size_mib` on an image's, by a relative path, right wherever the directory is seen. Raises a final
    HypervisorError if the image is larger."""
    with image.open("rb") as opened:
        found_mib = virtual_size_mib(opened.read(104), file.size_bytes, file.format)
    if found_mib > size_mib:
        raise HypervisorError(
            f"the image's disk has {found_mib} MiB, more than the {size_mib} MiB asked for", final=True
        )
    # qemu-img would open what is beneath, which takes the key of an encrypted one.
    unopened = ("-u",) if file.encryption else ()
    beneath = (*unopened, "-F", file.format, "-b", os.path.relpath(image, new.parent))
    arguments = ("-q", "-f", "qcow2", *beneath, new.name, f"{size_mib}M")
    _qemu_img(commands, "create", *arguments, passphrase=passphrase, cwd=new.parent)


def _make_swap(commands: Commands, new: Path, disk: DiskOrder, passphrase: str) -> None:
    raw = new.with_suffix(".raw")
    try:
        with raw.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(disk.size_mib << 20)
        label = (disk.label or disk.name)[: FILESYSTEMS[SWAP]]
        commands.run("mkswap", "-L", label, raw.name, cwd=new.parent)
        arguments = ("-f", "raw", "-O", "qcow2", raw.name, new.name)
        _qemu_img(commands, "convert", *arguments, passphrase=passphrase, cwd=new.parent)
    finally:
        raw.unlink(missing_ok=True)


def _qemu_img(commands: Commands, command: str, *arguments: str, passphrase: str, cwd: Path) -> None:
    """Makes a qcow2, encrypted if there is a passphrase."""
    luks = ("--object", f"secret,id={SECRET_ID},file=/dev/stdin", "-o", LUKS_OPTIONS) if passphrase else ()
    for left in reversed(range(UNTIMED_TRIES)):
        try:
            commands.run("qemu-img", command, *luks, *arguments, stdin=passphrase.encode(), cwd=cwd)
        except CommandFailed as error:
            if UNTIMED not in error.output or not left:
                raise
        else:
            return


def check_disk(path: Path, name: str, size_mib: int) -> None:
    """A final HypervisorError if the disk is not there, or has another size. name: "" for the root's."""
    said = f"disk {name}" if name else "root disk"
    try:
        with path.open("rb") as file:
            found_mib = disk_size_bytes(file.read(32)) >> 20
    except FileNotFoundError:
        raise HypervisorError(f"its {said} has vanished from the node; what it held is lost", final=True) from None
    if found_mib != size_mib:
        raise HypervisorError(
            f"its {said} has {found_mib} MiB and not the {size_mib} MiB ordered; it was left as it is", final=True
        )


def disk_size_bytes(header: bytes) -> int:
    """That of a disk of the node's own, whose header nobody else writes."""
    size_bytes: int = struct.unpack_from(">Q", header, _SIZE_AT)[0]
    return size_bytes


def hand_over(new: Path, path: Path) -> None:
    """Put a finished file in place, on disk for sure, for QEMU alone."""
    fd = os.open(new, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fchown(fd, *qemu_ids())
        os.fchmod(fd, 0o600)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(new, path)
