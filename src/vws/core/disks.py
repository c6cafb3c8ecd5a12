"""The disks that a workspace has beside its root's: what may be said of one, and how much room it is granted.

Four kinds, told by what is said: a blank disk (a size), one to swap on (the file system `swap`), the disk of an image
that all who have it share and none may write to, and a private copy of that. An image may declare disks too, which its
workspaces have unless their lease asks for others; what is on one may have come with the image (`brought`).

What is written to a disk takes room on its node, so the size of each but a shared one is counted to its workspace, in
full and from the start: no guest can write more than what was set aside for it, and a node that has agreed never runs
out. A shared disk lies in the node's cache of images once, whoever uses it, and is not counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from vws.core.errors import InvalidRequest
from vws.core.wire import from_json

DISKS_MAX: Final = 8
DISK_MIB_MAX: Final = 1024 * 1024 * 1024
# The serial of a virtual disk has at most 20 characters, of which vws- are four.
NAME_LENGTH_MAX: Final = 16
# How long a label each takes.
FILESYSTEMS: Final = {"ext4": 16, "xfs": 12, "vfat": 11, "swap": 15}
SWAP: Final = "swap"
# A page is not worth a disk, and below that mkswap refuses.
SWAP_MIB_MIN: Final = 1
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,14}[a-z0-9])?")
_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{0,16}")
_MOUNT: Final = re.compile(r"(?:/[A-Za-z0-9._-]+)*")
# What a machine needs before its further disks are mounted, where it is told who may log in, and what is on no disk.
_OF_THE_ROOT: Final = re.compile(
    r"/(?:bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|root|run|sbin|sys|tmp|usr)(?:/.*)?"
    r"|/var(?:/lib)?|/var/(?:lock|run|lib/(?:apt|cloud|dbus|dpkg|systemd|vws))(?:/.*)?"
)


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk beside the root's, mounted at `mount` ("": not).

    It is blank at first, and has that file system and label made on it; or it is the disk of `image` (a name or an
    id). That is shared by all who have it and written to by none; with `private` each has its own, which is what it
    writes and the image beneath. size_mib: what is granted, 0 of a shared one; of a copy 0 means as large as its image,
    until that is known. brought: it is not the root's disk of `image` that it is a copy of, but the one of this name
    which that brings beside it.
    """

    name: str
    size_mib: int
    filesystem: str = ""
    label: str = ""
    mount: str = ""
    image: str = ""
    private: bool = False
    brought: bool = False

    @property
    def shared(self) -> bool:
        return bool(self.image) and not self.private


class Fault(NamedTuple):
    """field: of Disk's."""

    field: str
    problem: str
    possible: str


def granted_mib(disks: Iterable[Disk]) -> int:
    """The room that is set aside for them on their node, MiB."""
    return sum(disk.size_mib for disk in disks)


def completed(disk: Disk) -> Disk:
    """With a file system, if what is said of it makes no sense without one."""
    wanted = not disk.image and not disk.filesystem and (disk.mount or disk.label)
    return replace(disk, filesystem="ext4") if wanted else disk


def checked_disks(disks: Sequence[Disk], where: str) -> tuple[Disk, ...]:
    """The disks of a workspace, completed. Raises InvalidRequest naming the field below `where`."""
    if len(disks) > DISKS_MAX:
        raise InvalidRequest(
            "a workspace has too many disks", field=where, asked=len(disks), possible=f"at most {DISKS_MAX}"
        )
    found = tuple(map(completed, disks))
    for number, disk in enumerate(found):
        for fault in (*faults(disk), *clashes(found[:number], disk)):
            asked = getattr(disk, fault.field)
            shown = asked[:60] if isinstance(asked, str) else asked
            raise InvalidRequest(
                fault.problem, field=f"{where}[{number}].{fault.field}", asked=shown, possible=fault.possible
            )
    return found


def with_declared(asked: Sequence[Disk], declared: Iterable[Disk], image: str) -> tuple[Disk, ...]:
    """The disks of a workspace that asked for some, of an image (an id) that declares others. One with the name, the
    mount or the label of a declared disk stands in its place."""
    added = (_of_image(disk, image) if disk.brought else disk for disk in declared if not any(clashes(asked, disk)))
    return (*asked, *added)


def _of_image(disk: Disk, image: str) -> Disk:
    """A copy of what the image brings: file system and label are on it."""
    return replace(disk, image=image, private=True, filesystem="", label="")


def described(disks: Iterable[Disk]) -> list[dict[str, Any]]:
    """Disks that an image declares, as its manifest and bundles say it."""
    said = ("brought", "filesystem", "label", "mount", "name", "size_mib")
    return [{key: getattr(disk, key) for key in said} for disk in sorted(disks, key=lambda disk: disk.name)]


def declared_disks(said: Any, where: str) -> tuple[Disk, ...]:
    """What was `described`, of whomever. Raises InvalidRequest."""
    disks = checked_disks(from_json(tuple[Disk, ...], said, where), where)
    for i, disk in enumerate(disks):
        if disk.image or disk.private:
            raise InvalidRequest(
                f"{where}[{i}] is the disk of another image", field=f"{where}[{i}].image", asked=disk.image[:60],
                possible="a blank disk, or one that the image brings",
            )  # fmt: skip
        for fault in faults_of_declared(disk):
            raise InvalidRequest(fault.problem, field=f"{where}[{i}].{fault.field}", possible=fault.possible)
    return disks


def clashes(before: Sequence[Disk], disk: Disk) -> Iterator[Fault]:
    """What a disk has in common with another that it may not."""
    for field in ("name", "mount", "label"):
        said = getattr(disk, field)
        if said and any(getattr(other, field) == said for other in before):
            yield Fault(field, f"two disks have the {field} {said}", "each its own")


def faults_of_declared(disk: Disk) -> Iterator[Fault]:
    """The same of one that an appliance declares: its users did not ask for what it hides."""
    yield from faults(disk)
    if _OF_THE_ROOT.fullmatch(disk.mount):
        yield Fault("mount", f"{disk.mount} is needed before further disks are mounted", "such as /srv/data")


def faults(disk: Disk) -> Iterator[Fault]:
    """What is wrong with a completed disk."""
    if not _NAME.fullmatch(disk.name):
        possible = f"lower-case letters, digits and inner hyphens, at most {NAME_LENGTH_MAX} characters"
        yield Fault("name", f"{disk.name[:60]!r} cannot be the name of a disk", possible)
    if disk.filesystem and disk.filesystem not in FILESYSTEMS:
        yield Fault("filesystem", f"{disk.filesystem[:60]!r} is no file system of a disk", ", ".join(FILESYSTEMS))
    if not _LABEL.fullmatch(disk.label):
        yield Fault("label", f"{disk.label[:60]!r} cannot be a label", "letters, digits, _ and -, at most 16")
    if not _MOUNT.fullmatch(disk.mount) or {".", ".."} & set(disk.mount.split("/")):
        yield Fault("mount", f"{disk.mount[:60]!r} is no place to mount a disk", "an absolute path, such as /data")
    yield from _faults_of_image(disk) if disk.image else _faults_of_blank(disk)
    if disk.brought and disk.filesystem == SWAP:
        yield Fault("filesystem", "nobody swaps on a disk that has something on it", "another filesystem, or none")


def _faults_of_blank(disk: Disk) -> Iterator[Fault]:
    if disk.private:
        yield Fault("private", f"the disk {disk.name} is blank, there is nothing to copy", "an image, or a blank disk")
    if not 1 <= disk.size_mib <= DISK_MIB_MAX:
        yield Fault("size_mib", f"the disk {disk.name} has {disk.size_mib} MiB", f"1 to {DISK_MIB_MAX} MiB")
    if disk.filesystem == SWAP and disk.mount:
        yield Fault("mount", "swap is not mounted", "no mount, or another filesystem")
    length_max = FILESYSTEMS.get(disk.filesystem, len(disk.label))
    if len(disk.label) > length_max:
        problem = f"the label {disk.label} is too long for {disk.filesystem}"
        yield Fault("label", problem, f"at most {length_max} characters")


def _faults_of_image(disk: Disk) -> Iterator[Fault]:
    if disk.shared and disk.size_mib:
        problem = f"the disk {disk.name} is an image's, shared and as large as that"
        yield Fault("size_mib", problem, "no size, or a private copy, which may be larger")
    if not 0 <= disk.size_mib <= DISK_MIB_MAX:
        yield Fault("size_mib", f"the disk {disk.name} has {disk.size_mib} MiB", f"1 to {DISK_MIB_MAX} MiB")
    if disk.label:
        yield Fault("label", "an image's disk has the label that it has", "without label")
    if disk.filesystem == SWAP:
        yield Fault("filesystem", "nobody swaps on the disk of an image", "another filesystem, or none")
