"""All slots: who holds how much of which node, from when to when.

A mutable structure on purpose: its owner loads it once and moves it with the
same commits as the store, so that a request costs what it touches. A test
rebuilds it from the store and compares.

A slot ends for others only when its node has said that nothing is left of the
workspace (`release`). Until then a slot past its end goes on counting for the
present moment, though not for the future: what is overdue is being removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vws.core.terms import Size

NOTHING = Size(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Slot:
    """`size` taken from `node` over [start, end), UTC seconds, for a workspace."""

    workspace: str
    node: str
    size: Size
    start: int
    end: int

    def counts(self, start: int, end: int, now: int) -> bool:
        overdue_now = self.end <= now and start <= now
        return self.start < end and (self.end > start or overdue_now)


class Timeline:
    """Slots by node. Nodes' totals are given at each question, for they change with what nodes report."""

    def __init__(self, slots: Iterable[Slot] = ()) -> None:
        self._slots: dict[str, Slot] = {}
        self._by_node: dict[str, dict[str, Slot]] = {}
        self._sum: dict[str, Size] = {}
        for slot in slots:
            self.hold(slot)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timeline) and self._slots == other._slots

    def __len__(self) -> int:
        return len(self._slots)

    def hold(self, slot: Slot) -> None:
        """Enter a slot, replacing the workspace's earlier one."""
        self.release(slot.workspace)
        self._slots[slot.workspace] = slot
        self._by_node.setdefault(slot.node, {})[slot.workspace] = slot
        self._sum[slot.node] = self._sum.get(slot.node, NOTHING) + slot.size

    def release(self, workspace: str) -> None:
        slot = self._slots.pop(workspace, None)
        if slot is None:
            return
        here = self._by_node[slot.node]
        del here[workspace]
        self._sum[slot.node] -= slot.size
        if not here:
            del self._by_node[slot.node], self._sum[slot.node]

    def held(self, node: str) -> Size:
        """The sum of all slots of a node, whenever they are: never less than any peak."""
        return self._sum.get(node, NOTHING)

    def peak(self, node: str, start: int, end: int, *, now: int, without: frozenset[str] = frozenset()) -> Size:
        """The most that is taken of each resource at any instant of [start, end)."""
        slots = [
            s for s in self._by_node.get(node, {}).values() if s.workspace not in without and s.counts(start, end, now)
        ]
        # What is taken grows only where a slot starts, so these instants hold every peak.
        later = {s.start for s in slots if s.start > start}
        if not later:
            return _sum(s.size for s in slots)
        sums = [_sum(s.size for s in slots if s.counts(t, t + 1, now)) for t in {start} | later]
        return Size(max(s.cpus for s in sums), max(s.memory_mib for s in sums), max(s.disk_mib for s in sums))

    def ends_after(self, instant: int) -> list[int]:
        """The instants at which something is freed, in order."""
        return sorted({slot.end for slot in self._slots.values() if slot.end > instant})


def _sum(sizes: Iterable[Size]) -> Size:
    cpus = memory_mib = disk_mib = 0
    for size in sizes:
        cpus += size.cpus
        memory_mib += size.memory_mib
        disk_mib += size.disk_mib
    return Size(cpus, memory_mib, disk_mib)
