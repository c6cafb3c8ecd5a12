"""What to say when a lease cannot be had as asked: why not, node by node, and what would be accepted.

Every offer is found by the planner's own questions, so that asking for it is granted as long as nothing else happens:
the earliest start for the whole, the most members at the asked time, the longest run from then, the largest size that
fits once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vws.core.errors import CannotFit
from vws.core.outlook import Outlook
from vws.core.plan.demand import Demand
from vws.core.plan.profile import NODE_BITS
from vws.core.present import Present
from vws.core.requirements import hints, node_attributes, parse
from vws.core.site import Group, Lease, Node, NodeState
from vws.core.terms import Size

# Shorter is no lease that anybody wants.
SHORTEST_S = 60
STATES = {
    NodeState.JOINING: "it has not reported yet",
    NodeState.DRAINED: "it is drained",
    NodeState.SILENT: "it has not been heard from",
    NodeState.LOST: "it is lost",
}


def refusal(present: Present, lease: Lease, demand: Demand, *, now: int) -> CannotFit:
    """Why `lease` cannot be had as asked, and what would be accepted. demand: what the planner was asked."""
    outlook = present.outlook
    at = max(now, demand.at) if demand.hard else now
    end = at + lease.duration_s
    offers = _offers(outlook, lease, demand, at, now)
    asked = " and ".join(f"{g.count} × ({_words(g)})" for g in lease.groups)
    ready = [n for n in present.nodes.values() if n.state is NodeState.READY]
    if not present.nodes:
        problem = "this site has no nodes yet"
    elif not ready:
        problem = "no node takes new workspaces now"
    elif demand.by >= 0:
        problem = f"{asked} for {lease.duration_s} s cannot be done in time"
    else:
        when = "now" if at <= now else f"{at - now} s from now"
        problem = f"the site has no room for {asked} together {when}"
    possible = "; ".join(offer["text"] for offer in offers) or _nothing(present, lease)
    return CannotFit(
        problem,
        field="deadline" if demand.by >= 0 else "groups",
        asked=asked,
        possible=possible,
        details={"nodes": reasons(present, lease.groups, at, end, now=now), "offers": offers},
    )


def _nothing(present: Present, lease: Lease) -> str:
    requirements = [parse(g.requirement) for g in lease.groups if g.requirement]
    nodes = [node_attributes(node) for node in present.nodes.values()]
    said = [hint for requirement in requirements for hint in hints(requirement, nodes)]
    return "; ".join(said) or "wait until a node is ready (vws node list)"


def _words(group: Group) -> str:
    return words(Size(group.cpus, group.memory_mib, group.disk_mib))


def words(size: Size) -> str:
    cpus = "1 CPU" if size.cpus == 1 else f"{size.cpus} CPUs"
    return f"{cpus}, {size.memory_mib} MiB memory, {size.disk_mib} MiB disk"


# ---------------------------------------------------------------- why not


def reasons(present: Present, groups: Sequence[Group], start: int, end: int, *, now: int) -> list[dict[str, str]]:
    """For each node why it cannot hold all of it over [start, end)."""
    return [
        {"node": n.id, "name": n.name, "reason": _reason(present, n, groups, start, end, now)}
        for n in sorted(present.nodes.values(), key=lambda n: n.id)
    ]


def _reason(present: Present, node: Node, groups: Sequence[Group], start: int, end: int, now: int) -> str:
    if node.state is not NodeState.READY:
        return STATES.get(node.state) or f"it is unfit: {node.problem}"
    closed = present.closed(node.id, start, end, now=now)
    if closed:
        return closed
    lacks = [_lack(present, node, group, start, end) for group in groups]
    return "; ".join(dict.fromkeys(lack for lack in lacks if lack)) or "it has room for some of them, not for all"


def _lack(present: Present, node: Node, group: Group, start: int, end: int) -> str:
    if group.cpus > node.capacity.cpus:
        return f"it has {node.capacity.cpus} CPUs, one workspace asks for {group.cpus}"
    if group.requirement:
        why_not = parse(group.requirement).why_not(node_attributes(node))
        if why_not:
            return why_not
    room = present.outlook.room(node.id, start, end)
    if room.places < 1:
        return "no address is free on its network"
    need = node.capacity.taken_by(Size(group.cpus, group.memory_mib, group.disk_mib))
    lacks = [
        f"{free} {unit} free, {asked} needed"
        for free, asked, unit in (
            (max(room.cpus, 0), need.cpus, "CPUs"),
            (max(room.memory_mib, 0), need.memory_mib, "MiB of memory"),
            (max(room.disk_mib, 0), need.disk_mib, "MiB of disk"),
        )
        if asked > free
    ]
    return ", ".join(lacks)


# ---------------------------------------------------------------- what would be accepted


def _offers(outlook: Outlook, lease: Lease, demand: Demand, at: int, now: int) -> list[dict[str, Any]]:
    found = [
        _fewer(outlook, lease, demand, at, now),
        _shorter(outlook, lease, demand, at),
        _later(outlook, lease, demand, at, now),
    ]
    offers = [offer for offer in found if offer is not None]
    if not any(offer["kind"] == "fewer" for offer in offers):
        smaller = _smaller(outlook, demand, at, at + lease.duration_s)
        offers += [smaller] if smaller else []
    return offers


def _open(outlook: Outlook, demand: Demand, at: int) -> list[int]:
    """Until when each opening for a member of its only group stays open, the longest first."""
    begin = max(at - demand.prepare_s, 0)
    openings = outlook.planner.timeline.openings(demand.parts[0], begin)
    return sorted((opening >> NODE_BITS for opening in openings), reverse=True)


def _fewer(outlook: Outlook, lease: Lease, demand: Demand, at: int, now: int) -> dict[str, Any] | None:
    if len(demand.parts) != 1 or demand.parts[0].together:
        return None
    end = at + lease.duration_s + demand.shutdown_s
    count = sum(until >= end for until in _open(outlook, demand, at))
    if not 0 < count < demand.parts[0].count:
        return None
    when = "now" if at <= now else f"{at - now} s from now"
    return {"kind": "fewer", "count": count, "text": f"{count} of this size would fit {when}"}


def _shorter(outlook: Outlook, lease: Lease, demand: Demand, at: int) -> dict[str, Any] | None:
    if len(demand.parts) != 1:
        return None
    needed = demand.parts[0].openings_needed
    untils = _open(outlook, demand, at)
    if len(untils) < needed:
        return None
    longest = untils[needed - 1] - at - demand.shutdown_s
    if not SHORTEST_S <= longest < lease.duration_s:
        return None
    return {"kind": "shorter", "duration_s": longest, "text": f"all of it for {longest} s would fit then"}


def _later(outlook: Outlook, lease: Lease, demand: Demand, at: int, now: int) -> dict[str, Any] | None:
    start = earliest(outlook, demand, at)
    if start is None or (start <= at and demand.by < 0):
        return None
    text = f"all of it would fit {start - now} s from now, when leases end"
    if demand.by >= 0:
        return {
            "kind": "deadline",
            "deadline": start + lease.duration_s,
            "text": f"all of it could be done by {start + lease.duration_s - now} s from now",
        }
    return {"kind": "later", "start": start, "text": text}


def earliest(outlook: Outlook, demand: Demand, after: int) -> int | None:
    """The first moment from `after` on at which all of it could run, in whole, without anybody giving way."""
    placing = outlook.planner.placing
    whole_s = demand.prepare_s + demand.remaining + demand.shutdown_s
    begin = max(after - demand.prepare_s, 0)
    for moment in [begin, *placing.moments(demand, begin, whole_s, None)]:
        run = moment + demand.prepare_s
        hosts, _ = placing.nodes(demand, moment, moment + whole_s, moment + whole_s)
        if hosts is not None and run >= after:
            return run
    return None


def _smaller(outlook: Outlook, demand: Demand, start: int, end: int) -> dict[str, Any] | None:
    best: tuple[int, int, str] | None = None
    for index, node in enumerate(outlook.nodes):
        if outlook.planner.timeline.open[index]:
            room = outlook.room(node, start, end)
            if room.places > 0 and (best is None or (room.memory_mib, room.cpus) > best[:2]):
                best = (room.memory_mib, room.cpus, node)
    if best is None:
        return None
    room, capacity, name = outlook.room(best[2], start, end), *outlook.capacity(best[2])
    size = Size(min(room.cpus, capacity.cpus), room.memory_mib - capacity.overhead_mib, room.disk_mib)
    if min(size.cpus, size.memory_mib, size.disk_mib) < 1:
        return None
    offer = {"cpus": size.cpus, "memory_mib": size.memory_mib, "disk_mib": size.disk_mib}
    return {"kind": "smaller", **offer, "text": f"one workspace of up to {words(size)} would fit now on {name}"}
