"""What guests say on their consoles of disks that they could not format, swap on or mount.

A console is the guest's to write on, so what is read there is its word and no more: of the disks that its order has,
of each the first word in a boot and no other, so that nobody can fill the record by printing. What a guest does not say
again after it has rebooted by itself is mended, and is not heard of again until the next boot that was ordered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from vws.core.deployment import DiskTrouble


def disk_troubles(console: bytes) -> tuple[DiskTrouble, ...] | None:
    """What the guest said in its last boot of disks that it could not prepare, by the end of a console's log; None: it
    says nothing of that boot's disks."""
    _, begun, said = console.rpartition(b"vws-context: preparing disks")
    found = re.findall(rb"vws-context: the disk ([a-z0-9-]{1,16}) could not be prepared: ([ -~]{0,200})", said)
    return tuple(DiskTrouble(disk.decode(), why.decode()) for disk, why in found) if begun else None


class Heard:
    """What was heard of a workspace in the boot `boots`. disks: the names of those that its order has."""

    def __init__(self, boots: int, disks: Collection[str]) -> None:
        self.boots = boots
        self._disks = disks
        self._length = 0
        self._told: set[str] = set()
        self._standing: dict[str, DiskTrouble] = {}

    @property
    def standing(self) -> tuple[DiskTrouble, ...]:
        return tuple(self._standing.values())

    def listen(self, length: int, tail: Callable[[], bytes]) -> None:
        """Hear what is new, if the console's log has grown to another `length` (bytes). tail: its end."""
        if length == self._length or not self._disks:
            return
        self._length = length
        found = disk_troubles(tail())
        if found is not None:
            self._hear({each.disk: each for each in reversed(found) if each.disk in self._disks})

    def _hear(self, said: dict[str, DiskTrouble]) -> None:
        still = {name: trouble for name, trouble in self._standing.items() if name in said}
        new = {name: trouble for name, trouble in said.items() if name not in self._told}
        self._standing = still | new
        self._told |= new.keys()
