"""What to say when a lease cannot be had as asked: why not, node by node, and what would be accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from vws.core.bargain import Held, offers_for, words
from vws.core.errors import CannotFit, LimitReached
from vws.core.plan.demand import Demand
from vws.core.plan.profile import Amount
from vws.core.present import Present
from vws.core.quantities import show_bytes
from vws.core.requirements import hints, node_attributes, parse
from vws.core.site import Group, Lease, LeaseKind, Node, NodeState
from vws.core.spans import show_duration
from vws.core.terms import Size

# Nobody reads the reasons of more.
NODES_TOLD = 200
# The parts of a workspace's size, in units of what.
SIZES = (
    ("cpus", "CPUs"),
    ("memory_mib", "MiB of memory"),
    ("disk_mib", "MiB of disk"),
    ("bandwidth_mbit", "Mbit/s of its network"),
)
STATES = {
    NodeState.JOINING: "it has not reported yet",
    NodeState.DRAINED: "it is drained",
    NodeState.SILENT: "it has not been heard from",
    NodeState.LOST: "it is lost",
}


def refusal(present: Present, lease: Lease, demand: Demand, held: Held, *, now: int) -> CannotFit:
    """Why `lease` cannot be had as asked, and what would be accepted. demand: what the planner was asked. held: beside
    what the limits are to be kept."""
    at = max(now, demand.at)
    offers = offers_for(present, lease, demand, held, now=now)
    excess = next(excesses(present, lease), None)
    possible = "; ".join(offer["text"] for offer in offers)
    return CannotFit(
        why_not(present, lease, demand, now=now),
        field=excess.field if excess else "deadline" if demand.by >= 0 else "groups",
        asked=excess.asked if excess else _asked(lease),
        possible=possible or (excess.possible if excess else _nothing(present, lease)),
        details={
            "nodes": reasons(present, lease.groups, at, at + lease.duration_s, now=now, ever=_is_of_ever(demand)),
            "offers": offers,
        },
    )


def beyond(
    present: Present, lease: Lease, demand: Demand, held: Held, reached: LimitReached, *, now: int
) -> LimitReached:
    """What a limit says against `lease`, with offers that all limits and the site's room let pass."""
    offers = offers_for(present, lease, demand, held, now=now)
    possible = "; ".join(offer["text"] for offer in offers) or reached.possible
    if not offers and reached.details.get("offers"):
        possible = f"{possible}, as far as this limit goes; but for that there is no room, or another limit is reached"
    return LimitReached(
        reached.problem,
        field=reached.field,
        asked=reached.asked,
        possible=possible,
        details=reached.details | {"offers": offers},
    )


def too_soon(present: Present, lease: Lease, demand: Demand, held: Held, *, now: int) -> CannotFit:
    """A reservation whose start is so near that it could not be prepared."""
    offers = offers_for(present, lease, demand, held, now=now)
    ready = f"a start {show_duration(demand.prepare_s)} from now or later"
    return CannotFit(
        not_in_time(demand, now=now),
        field="start",
        asked=demand.at,
        possible="; ".join(offer["text"] for offer in offers) or ready,
        details={"nodes": [], "offers": offers},
    )


def not_in_time(demand: Demand, *, now: int) -> str:
    """In a sentence, why a reservation cannot be prepared by its start; "" if it can."""
    if not demand.hard or demand.at - demand.prepare_s >= now:
        return ""
    return (
        f"it could not be running at its start, {show_duration(demand.at - now)} from now: to stage and boot it may "
        f"take {show_duration(demand.prepare_s)}"
    )


def why_not(present: Present, lease: Lease, demand: Demand, *, now: int) -> str:
    """In a sentence, why `lease` cannot be had as asked."""
    if not present.nodes:
        return "this site has no nodes yet"
    if not any(node.state is NodeState.READY for node in present.nodes.values()):
        return "no node takes new workspaces now"
    for excess in excesses(present, lease):
        return excess.problem
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


# ---------------------------------------------------------------- more than any node has


@dataclass(frozen=True, slots=True)
class Excess:
    """One part of a workspace's size that no node has, though it were empty. most: that some node has; node: its
    name."""

    field: str
    asked: int
    most: int
    node: str
    unit: str
    each: str

    @property
    def problem(self) -> str:
        most = f"{self.node} has the most, {self.most}" if self.most else "none has any"
        return f"no node has {self.asked} {self.unit} for {self.each}: {most}"

    @property
    def possible(self) -> str:
        return f"{self.most} {self.unit} or less" if self.most else "none of it"


def excesses(present: Present, lease: Lease) -> Iterator[Excess]:
    """What no node that takes new workspaces, and meets the group's requirement, has for one of its workspaces. Who
    may wait as long as he likes may wait for one that takes none now."""
    for number, group in enumerate(lease.groups):
        count = group.count if group.together else 1
        # So it nearly always is, and one of the first nodes shows it, of however many.
        if any(_holds(_most_each(present, node, count), group) for node in _candidates(present, lease, group)):
            continue
        named = f" of {group.name}" if group.name else ""
        each = f"one workspace{named}" if count == 1 else f"each of {count} workspaces{named} together"
        # Of equals the first by name.
        nodes = sorted(_candidates(present, lease, group), key=lambda node: node.name)
        rooms = [(_most_each(present, node, count), node.name) for node in nodes]
        for name, unit in SIZES:
            asked = getattr(group, name)
            most, node = max(((room[name], of) for room, of in rooms), key=itemgetter(0), default=(asked, ""))
            if asked > most:
                yield Excess(f"groups[{number}].{name}", asked, most, node, unit, each)


def _candidates(present: Present, lease: Lease, group: Group) -> Iterator[Node]:
    wanted = parse(group.requirement) if group.requirement else None
    for node in present.nodes.values():
        if node.removed_at is not None or (
            lease.kind is not LeaseKind.BEST_EFFORT and node.state is not NodeState.READY
        ):
            continue
        if wanted is None or wanted.matches(node_attributes(node)):
            yield node


def _holds(room: dict[str, int], group: Group) -> bool:
    return all(getattr(group, name) <= room[name] for name, _ in SIZES)


def _most_each(present: Present, node: Node, count: int) -> dict[str, int]:
    """The most that a node has for each of so many workspaces when it is empty."""
    room = present.outlook.whole_room(node.id)
    return {
        "cpus": min(room.cpus // count, node.capacity.cpus),
        "memory_mib": max(0, room.memory_mib // count - present.outlook.overhead_mib),
        "disk_mib": room.disk_mib // count,
        "bandwidth_mbit": room.bandwidth_mbit // count,
    }


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
    lacks = [_too_large(present, node, group) or _lack(node, group, room) for group in groups]
    return "; ".join(dict.fromkeys(lack for lack in lacks if lack)) or "it has room for some of them, not for all"


def _too_large(present: Present, node: Node, group: Group) -> str:
    """Why a node could never have the images of a group."""
    size = present.outlook.cache_size(node.id)
    needs = present.outlook.image_bytes(group) if size else 0
    if needs <= size:
        return ""
    return f"its image cache holds {show_bytes(size)} at most, {group.image_name} takes {show_bytes(needs)}"


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
