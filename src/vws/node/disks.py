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
from vws.core.site import ImageFile
from vws.node.commands import Commands
from vws.node.daemons import qemu_ids
from vws.node.images import virtual_size_mib
from vws.ports import HypervisorError

# Where a qcow2's header has the size of its disk, in bytes. That of an overlay is the node's own, and names an image.
_SIZE_AT = 24
FORMAT = ("-q", "-f", "qcow2")


def serial(disk: DiskOrder) -> str:
    return f"vws-{disk.name}"


def make_disk(commands: Commands, path: Path, disk: DiskOrder, images: Path) -> None:
    """One that is not shared, unless it is there already. images: the folder of the node's cache."""
    if path.exists():
        return
    new = path.with_suffix(".new")
    if disk.file is not None:
        make_overlay(commands, new, images / disk.file.sha256, disk.file, disk.size_mib)
    elif disk.filesystem == SWAP:
        _make_swap(commands, new, disk)
    else:
        commands.run("qemu-img", "create", *FORMAT, new.name, f"{disk.size_mib}M", cwd=path.parent)
    hand_over(new, path)


def make_overlay(commands: Commands, new: Path, image: Path, file: ImageFile, size_mib: int) -> None:
    """A disk of `size_mib` on an image's, by a relative path, right wherever the directory is seen. Raises a final
    HypervisorError if the image is larger."""
    with image.open("rb") as opened:
        found_mib = virtual_size_mib(opened.read(104), file.size_bytes, file.format)
    if found_mib > size_mib:
        raise HypervisorError(
            f"the image's disk has {found_mib} MiB, more than the {size_mib} MiB asked for", final=True
        )
    beneath = ("-F", file.format, "-b", os.path.relpath(image, new.parent))
    commands.run("qemu-img", "create", *FORMAT, *beneath, new.name, f"{size_mib}M", cwd=new.parent)


def _make_swap(commands: Commands, new: Path, disk: DiskOrder) -> None:
    raw = new.with_suffix(".raw")
    try:
        with raw.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(disk.size_mib << 20)
        label = (disk.label or disk.name)[: FILESYSTEMS[SWAP]]
        commands.run("mkswap", "-L", label, raw.name, cwd=new.parent)
        commands.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw.name, new.name, cwd=new.parent)
    finally:
        raw.unlink(missing_ok=True)


def check_disk(path: Path, name: str, size_mib: int) -> None:
    """A final HypervisorError if the disk is not there, or has another size. name: "" for the root's."""
    said = f"disk {name}" if name else "root disk"
    try:
        with path.open("rb") as file:
            found_mib = struct.unpack_from(">Q", file.read(32), _SIZE_AT)[0] >> 20
    except FileNotFoundError:
        raise HypervisorError(f"its {said} has vanished from the node; what it held is lost", final=True) from None
    if found_mib != size_mib:
        raise HypervisorError(
            f"its {said} has {found_mib} MiB and not the {size_mib} MiB ordered; it was left as it is", final=True
        )


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
