"""Blank disks beside a workspace's own: qcow2 files that hold nothing at first, each as large as was ordered.

The guest finds one by its serial, whatever the kernel calls it. What is on one
lives as long as the workspace; a disk that is not as it was ordered is not made
over, for it may hold what somebody needs.
"""

from __future__ import annotations

import os
from pathlib import Path

from vws.core.deployment import DiskOrder
from vws.node.commands import Commands
from vws.node.daemons import qemu_ids
from vws.node.images import virtual_size_mib
from vws.ports import HypervisorError


def serial(disk: DiskOrder) -> str:
    return f"vws-{disk.name}"


def make_blank(commands: Commands, path: Path, disk: DiskOrder) -> None:
    """Unless it is there already."""
    if path.exists():
        return
    new = path.with_suffix(".new")
    commands.run("qemu-img", "create", "-q", "-f", "qcow2", new.name, f"{disk.size_mib}M", cwd=path.parent)
    hand_over(new, path)


def check_blank(path: Path, disk: DiskOrder) -> None:
    """A final HypervisorError if the disk is not there, or has another size."""
    try:
        with path.open("rb") as file:
            found_mib = virtual_size_mib(file.read(104), path.stat().st_size, "qcow2")
    except FileNotFoundError:
        raise HypervisorError(
            f"its disk {disk.name} has vanished from the node; what it held is lost", final=True
        ) from None
    if found_mib != disk.size_mib:
        raise HypervisorError(
            f"its disk {disk.name} has {found_mib} MiB and not the {disk.size_mib} MiB ordered; it was left as it is",
            final=True,
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
