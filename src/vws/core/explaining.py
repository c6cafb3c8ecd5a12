"""Why a lease is as the plan has it, in words: why it waits and behind whom, when it is to run, who gives way.

Everything is read off the plan as it stands, so it is true now, not promised: what waits comes sooner when others end
early, and later when those come who may go before it. A reader is told the names of leases that are his to know; of
the others only how many they are and until when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from vws.core.offers import reasons
from vws.core.plan.demand import BOOKED, PREPARING, RUNNING, SAVING, STOPPING, Block, Demand
from vws.core.plan.profile import NODE_BITS, NODE_MASK
from vws.core.present import Present
from vws.core.requirements import hints, node_attributes, parse
from vws.core.site import Group, Lease, LeaseState
from vws.core.spans import show_duration

NAMED_MAX = 5
# Of those who hold the room the first to be over are told one by one; the sentence counts all.
OTHERS_TOLD = 200
ANOTHERS = "another's"


@dataclass(frozen=True, slots=True)
class Other:
    """Another lease. role: `holds` (the room that is waited for), `comes` (has the nodes next), `gives-way` (for this
    one). lease, name: "" if they are not the reader's to know. until: by the plan, UTC seconds."""

    role: str
    lease: str
    name: str
    until: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """says: sentences. place: how many are before it in the queue; None: it is not in it. start: when it is to run by
    the plan, or could at the soonest; None if it does. nodes: why each has no room for all of it now."""

    says: tuple[str, ...]
    place: int | None = None
    start: int | None = None
    nodes: tuple[dict[str, str], ...] = ()
    others: tuple[Other, ...] = field(default=())


def explain(present: Present, lease: Lease, *, now: int, knows: Callable[[str], bool]) -> Explanation:
    """knows: whether the reader may know the leases of an owner."""
    demand = present.outlook.planner.demands.get(lease.id)
    if demand is None or lease.ended or lease.state is LeaseState.ENDING:
        return Explanation(())
    teller = _Teller(present, lease, demand, now, knows)
    if demand.block is None or (demand.phase == BOOKED and lease.soft):
        return teller.waits(demand.block)
    if demand.phase == BOOKED:
        return teller.is_planned(demand.block)
    return teller.has_begun(demand.block)


class _Teller:
    def __init__(self, present: Present, lease: Lease, demand: Demand, now: int, knows: Callable[[str], bool]) -> None:
        self._present, self._outlook, self._planner = present, present.outlook, present.outlook.planner
        self._lease, self._demand, self._now, self._knows = lease, demand, now, knows

    # ------------------------------------------------------------ waiting

    def waits(self, block: Block | None) -> Explanation:
        ahead = self._ahead()
        never = self._outlook.never_admitted(self._demand)
        if never:
            return Explanation((*self._standing(ahead), *self._for_ever(never)), len(ahead))
        holders = [] if block is not None and block.begin <= self._now else self._holders()
        says = [*self._standing(ahead), *self._plan(block), *self._limit()]
        start = None if block is None else block.run
        if block is None:
            soonest, _ = self._outlook.look(self._demand, self._now)
            start = None if soonest is None else soonest.run
            says += [*self._room(), *self._soonest(soonest)]
        nodes = () if self._demand.saved_on else tuple(self._reasons())
        return Explanation((*says, *self._held(holders)), len(ahead), start, nodes, tuple(holders[:OTHERS_TOLD]))

    def _ahead(self) -> list[Demand]:
        """Those before it in turn."""
        mine = self._demand.turn, self._demand.number
        waiting = [*self._planner.queue, *self._planner.booked]
        return [each for each in waiting if (each.turn, each.number) < mine]

    def _standing(self, ahead: Sequence[Demand]) -> Iterator[str]:
        if self._demand.saved_on:
            done = f"{show_duration(self._demand.worked)} of {show_duration(self._demand.requested)} are done"
            yield f"It was suspended {self._suspended_for()}ago to make room for others; {done}"
        elif self._demand.restarts or self._lease.reason:
            yield f"It is to begin anew: {self._lease.reason or 'its nodes were needed by others'}"
        if not ahead:
            yield "It waits in the queue, and nobody is before it"
            return
        count = "1 lease is" if len(ahead) == 1 else f"{len(ahead)} leases are"
        named = [name for each in ahead if (name := self._name(each.id)) != ANOTHERS]
        yield f"It waits in the queue; {count} before it in turn" + (f" ({_listed(named)} of yours)" if named else "")

    def _suspended_for(self) -> str:
        changed = [w.changed_at for w in self._present.members(self._lease.id) if w.released_at is None]
        return f"{show_duration(self._now - max(changed))} " if changed else ""

    def _plan(self, block: Block | None) -> Iterator[str]:
        if block is None:
            return
        verb = "goes on" if block.restores else "runs"
        yield (
            f"By the present plan it {verb} {self._in(block.run)} on {self._nodes(block)}; sooner if others end before "
            "their time"
        )
        if block.saves:
            yield f"It will then be suspended again {self._in(block.stop)}"

    def _for_ever(self, limit: str) -> Iterator[str]:
        kept = ", and what is saved of it goes with it" if self._demand.saved_on else ""
        yield f"A limit keeps it from ever running, whatever ends before: {limit}"
        yield f"Cancel it{kept}, and ask for as much as the limit allows; or ask your administrator for a higher limit"

    def _limit(self) -> Iterator[str]:
        limit = self._outlook.held_back(self._demand, self._now)
        if limit:
            yield f"A limit keeps it from running now: {limit}"

    def _room(self) -> Iterator[str]:
        """How many of its members have room now, group by group."""
        if self._demand.saved_on:
            yield "It can only go on where its memory is saved, and there is no room now"
            return
        until = self._now + self._needed_s()
        for group, part in zip(self._asked(), self._demand.asks, strict=True):
            found = list(self._planner.timeline.openings(part, self._now))
            fit = sum(opening >> NODE_BITS >= until for opening in found)
            if fit < part.openings_needed:
                named = f" of {group.name}" if group.name else ""
                place = " together" if part.together else ""
                have = f"{fit} of them have" if not part.together else "no node has"
                wanted = f"{group.count} {_workspaces(group.count)}{named}{place}"
                yield f"It needs room for {wanted}; {have} room now and for so long"

    def _asked(self) -> Sequence[Group]:
        """Its groups, as one if they are to be on one node."""
        groups = self._lease.groups
        return [replace(groups[0], name="", count=sum(g.count for g in groups))] if self._demand.one_node else groups

    def _soonest(self, block: Block | None) -> Iterator[str]:
        if block is not None:
            yield (
                f"There is room for it {self._in(block.run)} at the soonest, if those before it leave it that; it is "
                "promised no start yet"
            )
            return
        yield "No node that takes new workspaces now will have room for it"
        attributes = [node_attributes(node) for node in self._present.nodes.values()]
        for group in self._lease.groups:
            if group.requirement:
                yield from hints(parse(group.requirement), attributes)

    def _needed_s(self) -> int:
        return self._planner.placing.least(self._demand)

    def _reasons(self) -> list[dict[str, str]]:
        end = self._now + self._needed_s()
        return reasons(self._present, self._lease.groups, self._now, end, now=self._now)

    # ------------------------------------------------------------ who has the room

    def _holders(self) -> list[Other]:
        """Those who have the nodes that it could be on, where it has no room now; the first to be over first."""
        wanted, until = self._wanted(), self._now + self._needed_s()
        found: list[Other] = []
        for each in self._planner.demands.values():
            block = each.block
            if each is self._demand or block is None or block.begin >= until:
                continue
            if any(host in wanted for host in block.hosts):
                found.append(self._other("holds", each, block.end))
        return sorted(found, key=lambda other: (other.until, other.lease))

    def _wanted(self) -> set[int]:
        """The nodes where it could be if they had room."""
        if self._demand.saved_on:
            return set(self._demand.saved_on)
        wanted: set[int] = set()
        until = self._now + self._needed_s()
        nodes = range(len(self._outlook.nodes))
        for part in self._demand.asks:
            openings = self._planner.timeline.openings(part, self._now)
            has_room = {opening & NODE_MASK for opening in openings if opening >> NODE_BITS >= until}
            fit = part.eligible
            wanted |= {
                node
                for node in nodes
                if self._planner.timeline.open[node] and (fit is None or fit[node]) and node not in has_room
            }
        return wanted

    def _held(self, holders: Sequence[Other]) -> Iterator[str]:
        if holders:
            first = "it is" if len(holders) == 1 else "the first of them is"
            yield f"The room is held by {_named(holders)}; {first} over {self._in(holders[0].until)}"

    def _other(self, role: str, demand: Demand, until: int) -> Other:
        name = self._name(demand.id)
        return Other(role, "" if name == ANOTHERS else demand.id, "" if name == ANOTHERS else name, until)

    def _name(self, id: str) -> str:
        lease = self._present.leases.get(id)
        return lease.name if lease is not None and self._knows(lease.owner) else ANOTHERS

    # ------------------------------------------------------------ planned

    def is_planned(self, block: Block) -> Explanation:
        giving = [
            self._other("gives-way", each, each.block.stop)
            for each in self._planner.demands.values()
            if each.block is not None and _makes_room(each.block) and self._demand in self._successors(each.block)
        ]
        says = [f"It is granted, and runs {self._in(block.run)} on {self._nodes(block)}"]
        if block.begin < block.run:
            takes = show_duration(block.run - block.begin)
            says.append(f"It begins to be prepared {self._in(block.begin)}, for that may take {takes}")
        if giving:
            says.append(f"{_named(giving)} will give way for it")
        return Explanation(tuple(says), start=block.run, others=tuple(giving))

    # ------------------------------------------------------------ begun

    def has_begun(self, block: Block) -> Explanation:
        coming = self._coming(block) if _makes_room(block) else []
        says = [*self._going(block), *self._end(block, coming)]
        ahead = block.run if block.run > self._now else None
        return Explanation(tuple(says), start=ahead, others=tuple(coming))

    def _going(self, block: Block) -> Iterator[str]:
        if self._demand.phase == PREPARING:
            doing = "resumed from what was saved" if block.restores else "staged and booted"
            yield f"It is being {doing}, and planned to run {self._in(block.run)}"
        elif self._demand.phase == RUNNING and self._lease.state is LeaseState.PENDING:
            yield "It is being staged and booted"

    def _end(self, block: Block, coming: Sequence[Other]) -> Iterator[str]:
        phase, whom = self._demand.phase, self._for_whom(block, coming)
        if phase == SAVING:
            yield f"It is being suspended{whom}, until {self._in(block.end)}"
        elif phase == STOPPING:
            yield "What is left of it is being removed" + (f"{whom}; it begins anew" if block.doomed else "")
        elif block.saves:
            yield f"It will be suspended {self._in(block.stop)}{whom}, and goes on when there is room"
        elif block.doomed:
            yield f"It will be ended {self._in(block.stop)}{whom}, and begins anew when there is room"
        else:
            yield f"It runs until {self._in(block.stop)}"

    def _for_whom(self, block: Block, coming: Sequence[Other]) -> str:
        if coming:
            return f" for {_named(coming)}"
        closed = [
            reason
            for node in self._outlook.hosts_of(self._demand)
            if (reason := self._present.closed(node, block.end, block.end + 1, now=self._now))
        ]
        return f" for {closed[0]}" if closed else ""

    def _coming(self, block: Block) -> list[Other]:
        found = [(each, each.block) for each in self._successors(block)]
        return [self._other("comes", each, next_block.end) for each, next_block in found if next_block is not None]

    def _successors(self, block: Block) -> list[Demand]:
        """Who has its nodes next."""
        hosts = {host for host in block.hosts if host >= 0}
        later = [
            (each.block.begin, each)
            for each in self._planner.demands.values()
            if each.block is not None and each.block.begin >= block.stop and not hosts.isdisjoint(each.block.hosts)
        ]
        first = min((begin for begin, each in later if each.block is not block), default=None)
        return [each for begin, each in later if begin == first and each.block is not block]

    # ------------------------------------------------------------ words

    def _in(self, at: int) -> str:
        return "now" if at <= self._now else f"{show_duration(at - self._now)} from now"

    def _nodes(self, block: Block) -> str:
        ids = dict.fromkeys(self._outlook.nodes[host] for host in block.hosts if host >= 0)
        return _listed([self._present.nodes[id].name for id in ids if id in self._present.nodes])


def _makes_room(block: Block) -> bool:
    return block.saves or block.doomed


def _workspaces(count: int) -> str:
    return "workspace" if count == 1 else "workspaces"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:NAMED_MAX])} and {more} more"


def _named(others: Sequence[Other]) -> str:
    """Those whose names are told, and how many there are beside."""
    names = [other.name for other in others if other.name]
    hidden = len(others) - len(names)
    counted = "1 lease of others" if hidden == 1 else f"{hidden} leases of others"
    return " and ".join([*([_listed(names)] if names else []), *([counted] if hidden else [])])
