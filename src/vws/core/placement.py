"""Which node takes which workspace, and what to say when none can.

Placing is all or nothing. The first try spreads (the member goes where most is
left, so that a failing node hurts least), the second packs (where least is
left), which keeps room for big ones when spreading fails. Both take the biggest
groups first; ties are broken by node id, so the same question has the same answer.

A refusal is worth as much as a placement: `refusal` gives the reason for each node and
the nearest requests that would be accepted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vws.core.errors import CannotFit
from vws.core.site import Node, NodeState
from vws.core.terms import GroupRequest, Size
from vws.core.timeline import NOTHING, Timeline

LATER_TRIES_MAX = 60


class Closed(Protocol):
    """`Present.closed`: why a node may run nothing over an interval, "" if it may."""

    def __call__(self, node: str, start: int, end: int, *, now: int) -> str: ...


@dataclass(slots=True)
class Room:
    """What is left of one node over the interval in question. `addresses`: how many of its network are free."""

    node: Node
    free: Size
    addresses: int

    def takes(self, size: Size) -> bool:
        return (
            self.addresses > 0
            and size.cpus <= self.node.capacity.cpus
            and self.node.capacity.taken_by(size).fits_in(self.free)
        )

    def take(self, size: Size) -> None:
        self.free -= self.node.capacity.taken_by(size)
        self.addresses -= 1

    def share_left(self, size: Size) -> float:
        """The scarcest resource's free share after taking `size`."""
        total, left = self.node.capacity.size, self.free - self.node.capacity.taken_by(size)
        return min(
            left.cpus / max(total.cpus, 1),
            left.memory_mib / max(total.memory_mib, 1),
            left.disk_mib / max(total.disk_mib, 1),
        )


def rooms(
    nodes: Iterable[Node],
    timeline: Timeline,
    addresses_free: Callable[[Node], int],
    start: int,
    end: int,
    *,
    now: int,
    closed: Closed,
) -> list[Room]:
    """The room on each node that takes new workspaces, sorted by node id."""
    ready = sorted(
        (n for n in nodes if n.state is NodeState.READY and not closed(n.id, start, end, now=now)), key=lambda n: n.id
    )
    return [Room(n, n.capacity.size - timeline.peak(n.id, start, end, now=now), addresses_free(n)) for n in ready]


def place(groups: Sequence[GroupRequest], room: Sequence[Room]) -> list[list[str]] | None:
    """For each group the node ids of its members, or None. `room` is not changed."""
    return _try(groups, room, spread=True) or _try(groups, room, spread=False)


def _try(groups: Sequence[GroupRequest], room: Sequence[Room], *, spread: bool) -> list[list[str]] | None:
    room = [Room(r.node, r.free, r.addresses) for r in room]
    chosen: list[list[str]] = [[] for _ in groups]
    biggest_first = sorted(
        range(len(groups)), key=lambda i: (-groups[i].memory_mib, -groups[i].cpus, -groups[i].disk_mib, i)
    )
    for index in biggest_first:
        group = groups[index]
        chosen[index] = _place_group(group, room, spread)
        if len(chosen[index]) < group.count:
            return None
    return chosen


def _place_group(group: GroupRequest, room: Sequence[Room], spread: bool) -> list[str]:
    size, sign = group.size, -1.0 if spread else 1.0
    heap = [(sign * r.share_left(size), r.node.id, i) for i, r in enumerate(room) if r.takes(size)]
    heapq.heapify(heap)
    chosen: list[str] = []
    while heap and len(chosen) < group.count:
        _, node, i = heap[0]
        room[i].take(size)
        chosen.append(node)
        if room[i].takes(size):
            heapq.heapreplace(heap, (sign * room[i].share_left(size), node, i))
        else:
            heapq.heappop(heap)
    return chosen


def refusal(
    groups: Sequence[GroupRequest],
    duration_s: int,
    nodes: Mapping[str, Node],
    timeline: Timeline,
    addresses_free: Callable[[Node], int],
    *,
    now: int,
    closed: Closed,
) -> CannotFit:
    """Why `groups` cannot all run from now, node by node, and what would be accepted."""
    end = now + duration_s
    present = rooms(nodes.values(), timeline, addresses_free, now, end, now=now, closed=closed)
    here = {r.node.id: r for r in present}
    reasons = [
        {"node": n.id, "name": n.name, "reason": _reason(n, groups, here, closed(n.id, now, end, now=now))}
        for n in sorted(nodes.values(), key=lambda n: n.id)
    ]
    offers = _offers(groups, duration_s, nodes, timeline, addresses_free, present, now, closed)
    asked = " and ".join(f"{g.count} × ({_words(g.size)})" for g in groups)
    if not nodes:
        problem = "this site has no nodes yet"
    elif not present:
        problem = "no node takes new workspaces now"
    else:
        problem = f"the site has no room for {asked} together now"
    possible = "; ".join(offer["text"] for offer in offers) or "wait until a node is ready (vws node list)"
    return CannotFit(
        problem, field="groups", asked=asked, possible=possible, details={"nodes": reasons, "offers": offers}
    )


def _words(size: Size) -> str:
    cpus = "1 CPU" if size.cpus == 1 else f"{size.cpus} CPUs"
    return f"{cpus}, {size.memory_mib} MiB memory, {size.disk_mib} MiB disk"


def _reason(node: Node, groups: Sequence[GroupRequest], present: Mapping[str, Room], closed: str) -> str:
    if node.state is NodeState.READY and closed:
        return closed
    if node.id not in present:
        why = {
            NodeState.JOINING: "it has not reported yet",
            NodeState.DRAINED: "it is drained",
            NodeState.UNFIT: f"it is unfit: {node.problem}",
            NodeState.SILENT: "it has not been heard from",
            NodeState.LOST: "it is lost",
        }
        return why.get(node.state, str(node.state))
    room = present[node.id]
    lacks = [_lack(room, group) for group in groups]
    return "; ".join(dict.fromkeys(lack for lack in lacks if lack)) or "it has room for some of them, not for all"


def _lack(room: Room, group: GroupRequest) -> str:
    capacity, need = room.node.capacity, room.node.capacity.taken_by(group.size)
    if group.cpus > capacity.cpus:
        return f"it has {capacity.cpus} CPUs, one workspace asks for {group.cpus}"
    if room.addresses < 1:
        return "no address is free on its network"
    lacks = [
        f"{free} {unit} free, {asked} needed"
        for free, asked, unit in (
            (max(room.free.cpus, 0), need.cpus, "CPUs"),
            (max(room.free.memory_mib, 0), need.memory_mib, "MiB of memory"),
            (max(room.free.disk_mib, 0), need.disk_mib, "MiB of disk"),
        )
        if asked > free
    ]
    return ", ".join(lacks)


def _offers(
    groups: Sequence[GroupRequest],
    duration_s: int,
    nodes: Mapping[str, Node],
    timeline: Timeline,
    addresses_free: Callable[[Node], int],
    present: Sequence[Room],
    now: int,
    closed: Closed,
) -> list[dict[str, Any]]:
    offers = []
    fewer = _fewer(groups, present)
    if fewer is not None:
        offers.append(fewer)
    later = _later(groups, duration_s, nodes, timeline, addresses_free, now, closed)
    if later is not None:
        offers.append(later)
    if fewer is None:
        smaller = _smaller(groups, present)
        if smaller is not None:
            offers.append(smaller)
    return offers


def _fewer(groups: Sequence[GroupRequest], present: Sequence[Room]) -> dict[str, Any] | None:
    if len(groups) != 1:
        return None
    count = len(_place_group(groups[0], [Room(r.node, r.free, r.addresses) for r in present], spread=False))
    if not 0 < count < groups[0].count:
        return None
    text = f"{count} of this size would fit now"
    return {"kind": "fewer", "count": count, "text": text}


def _later(
    groups: Sequence[GroupRequest],
    duration_s: int,
    nodes: Mapping[str, Node],
    timeline: Timeline,
    addresses_free: Callable[[Node], int],
    now: int,
    closed: Closed,
) -> dict[str, Any] | None:
    # Room only grows where a slot ends, so the earliest start is one of these instants.
    for start in timeline.ends_after(now)[:LATER_TRIES_MAX]:
        # Addresses return with the slots; by then enough are free, or placing then says otherwise.
        end = start + duration_s
        room = rooms(nodes.values(), timeline, lambda n: max(addresses_free(n), 1), start, end, now=now, closed=closed)
        if place(groups, room) is not None:
            text = f"all of it would fit {start - now} s from now, when leases end"
            return {"kind": "later", "start": start, "text": text}
    return None


def _smaller(groups: Sequence[GroupRequest], present: Sequence[Room]) -> dict[str, Any] | None:
    if not present:
        return None
    best = max(present, key=lambda r: (r.free.memory_mib, r.free.cpus, r.node.id))
    overhead = best.node.capacity.taken_by(NOTHING)
    left = best.free - overhead
    size = Size(min(left.cpus, best.node.capacity.cpus), left.memory_mib, left.disk_mib)
    if min(size.cpus, size.memory_mib, size.disk_mib) < 1:
        return None
    text = f"one workspace of up to {_words(size)} would fit now on {best.node.name}"
    offer = {"cpus": size.cpus, "memory_mib": size.memory_mib, "disk_mib": size.disk_mib}
    return {"kind": "smaller", **offer, "text": text}
