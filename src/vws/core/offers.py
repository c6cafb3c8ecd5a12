"""What to say when a lease cannot be had as asked: why not, node by node, and what would be accepted."""

from __future__ import annotations

from collections.abc import Sequence

from vws.core.bargain import offers_for, words
from vws.core.errors import CannotFit
from vws.core.plan.demand import Demand
from vws.core.plan.profile import Amount
from vws.core.present import Present
from vws.core.requirements import hints, node_attributes, parse
from vws.core.site import Group, Lease, Node, NodeState
from vws.core.spans import show_duration
from vws.core.terms import Size

# Nobody reads the reasons of more.
NODES_TOLD = 200
STATES = {
    NodeState.JOINING: "it has not reported yet",
    NodeState.DRAINED: "it is drained",
    NodeState.SILENT: "it has not been heard from",
    NodeState.LOST: "it is lost",
}


def refusal(present: Present, lease: Lease, demand: Demand, *, now: int) -> CannotFit:
    """Why `lease` cannot be had as asked, and what would be accepted. demand: what the planner was asked."""
    at = max(now, demand.at)
    offers = offers_for(present, lease, demand, now=now)
    possible = "; ".join(offer["text"] for offer in offers) or _nothing(present, lease)
    return CannotFit(
        why_not(present, lease, demand, now=now),
        field="deadline" if demand.by >= 0 else "groups",
        asked=_asked(lease),
        possible=possible,
        details={
            "nodes": reasons(present, lease.groups, at, at + lease.duration_s, now=now, ever=_is_of_ever(demand)),
            "offers": offers,
        },
    )


def too_soon(present: Present, lease: Lease, demand: Demand, *, now: int) -> CannotFit:
    """A reservation whose start is so near that it could not be prepared."""
    offers = offers_for(present, lease, demand, now=now)
    ready = f"a start {show_duration(demand.prepare_s)} from now or later"
    return CannotFit(
        f"it could not be running at its start, {show_duration(demand.at - now)} from now: to stage and boot it may "
        f"take {show_duration(demand.prepare_s)}",
        field="start",
        asked=demand.at,
        possible="; ".join(offer["text"] for offer in offers) or ready,
        details={"nodes": [], "offers": offers},
    )


def why_not(present: Present, lease: Lease, demand: Demand, *, now: int) -> str:
    """In a sentence, why `lease` cannot be had as asked."""
    if not present.nodes:
        return "this site has no nodes yet"
    if not any(node.state is NodeState.READY for node in present.nodes.values()):
        return "no node takes new workspaces now"
    if demand.by >= 0:
        return f"{_asked(lease)} for {show_duration(lease.duration_s)} cannot be done in time"
    if _is_of_ever(demand):
        return f"this site will never have room for {_asked(lease)} together"
    when = "now" if demand.at <= now else f"{show_duration(demand.at - now)} from now"
    return f"the site has no room for {_asked(lease)} together {when}"


def _is_of_ever(demand: Demand) -> bool:
    """What may wait as long as it likes is refused for what the site is, not for who is there now."""
    return not demand.hard and demand.by < 0


def _asked(lease: Lease) -> str:
    return " and ".join(f"{g.count} × ({_words(g)})" for g in lease.groups)


def _nothing(present: Present, lease: Lease) -> str:
    requirements = [parse(g.requirement) for g in lease.groups if g.requirement]
    nodes = [node_attributes(node) for node in present.nodes.values()]
    said = [hint for requirement in requirements for hint in hints(requirement, nodes)]
    if said:
        return "; ".join(said)
    ready = any(node.state is NodeState.READY for node in present.nodes.values())
    return "another size, time or requirement" if ready else "wait until a node is ready (vws node list)"


def _words(group: Group) -> str:
    network = f", {group.bandwidth_mbit} Mbit/s" if group.bandwidth_mbit else ""
    return words(Size(group.cpus, group.memory_mib, group.disk_mib)) + network


# ---------------------------------------------------------------- why not


def reasons(
    present: Present, groups: Sequence[Group], start: int, end: int, *, now: int, ever: bool = False
) -> list[dict[str, str]]:
    """For each node, of a large site for the first of them, why it cannot hold all of it over [start, end).

    ever: why it could not even if it were empty.
    """
    return [
        {"node": n.id, "name": n.name, "reason": _reason(present, n, groups, start, end, now, ever)}
        for n in map(present.nodes.__getitem__, sorted(present.nodes)[:NODES_TOLD])
    ]


def _reason(present: Present, node: Node, groups: Sequence[Group], start: int, end: int, now: int, ever: bool) -> str:
    if node.state is not NodeState.READY:
        return STATES.get(node.state) or f"it is unfit: {node.problem}"
    closed = "" if ever else present.closed(node.id, start, end, now=now)
    if closed:
        return closed
    outlook = present.outlook
    room = outlook.whole_room(node.id) if ever else outlook.room(node.id, start, end)
    lacks = [_lack(node, group, room) for group in groups]
    return "; ".join(dict.fromkeys(lack for lack in lacks if lack)) or "it has room for some of them, not for all"


def _lack(node: Node, group: Group, room: Amount) -> str:
    if group.cpus > node.capacity.cpus:
        return f"it has {node.capacity.cpus} CPUs, one workspace asks for {group.cpus}"
    if group.requirement:
        why_not = parse(group.requirement).why_not(node_attributes(node))
        if why_not:
            return why_not
    if room.places < 1:
        return "no address is free on its network"
    need = node.capacity.taken_by(Size(group.cpus, group.memory_mib, group.disk_mib))
    lacks = [
        f"{free} {unit} free, {asked} needed"
        for free, asked, unit in (
            (max(room.cpus, 0), need.cpus, "CPUs"),
            (max(room.memory_mib, 0), need.memory_mib, "MiB of memory"),
            (max(room.disk_mib, 0), need.disk_mib, "MiB of disk"),
            (max(room.bandwidth_mbit, 0), group.bandwidth_mbit, "Mbit/s of its network"),
        )
        if asked > free
    ]
    return ", ".join(lacks)
