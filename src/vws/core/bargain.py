"""What would be accepted of a lease that cannot be had as asked.

Each offer is tried before it is made: the planner is asked for just that, and so is the site's policy. So an offer that
is taken at once is granted, as long as nothing else happens in between. What hangs on the present moment (a start as
soon as it can be prepared, a run from now until others come) has a minute to spare, for nobody answers at once.

Offered are the most members at the asked time, the longest run from then, the earliest start for the whole, a later
deadline, a start as near as limits let one ask for; where fewer do not help, one workspace of the largest size that
fits. Where no such change is enough, two are tried together. Those who could give way for the lease asked for could do
so for what is offered; where very many could, trying would take too long, and offered is what needs nobody to.

Room and limits refuse independently, and it makes no difference here which of them did: a limit says itself what it
would let pass, and that is where the search for room goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Any, TypeVar

from vws.core.admission import Holdings
from vws.core.disks import granted_mib
from vws.core.errors import VwsError
from vws.core.membership import Limits
from vws.core.plan.demand import Block, Demand, Part
from vws.core.plan.profile import NODE_BITS, Amount
from vws.core.present import Present
from vws.core.site import Group, Lease, LeaseKind, NodeState
from vws.core.spans import show_duration, show_exactly
from vws.core.terms import AHEAD_S_MAX, COUNT_MAX, MEMORY_MIB_MIN, Size

T = TypeVar("T")
Offer = dict[str, Any]
# What each party holds whose limits a lease must keep, and those limits.
Held = Sequence[tuple[Holdings, Limits]]

# Shorter is no lease that anybody wants.
SHORTEST_S = 60
# So long one may take to accept an offer that hangs on the present moment.
ANSWER_S = 60
# Of the moments at which others could give way so many are tried, while no more than so many could.
TRIED = 64
VICTIMS_MAX = 500
# Of the nodes where one that is smaller could be, by what they have free when it would begin.
NODES_LOOKED_AT = 16
NODES_TRIED = 3
# So often a limit is asked for what it would let pass: there are a few parties, each with a few limits.
HINTS_MAX = 20
# So often a start that has room is beyond a limit, or one within the limits has no room.
TURNS_MAX = 8


def words(size: Size) -> str:
    cpus = "1 CPU" if size.cpus == 1 else f"{size.cpus} CPUs"
    return f"{cpus}, {size.memory_mib} MiB memory, {size.disk_mib} MiB disk"


def offers_for(present: Present, lease: Lease, demand: Demand, held: Held, *, now: int) -> list[Offer]:
    """The offers, the nearest to what was asked for first. demand: what the planner is asked for `lease`."""
    if not any(node.state is NodeState.READY for node in present.nodes.values()):
        return []
    bargain = _Bargain(present, lease, demand, held, now)
    return bargain.offers() or list(bargain.combined())


class _Bargain:
    """what: the lease in words."""

    def __init__(
        self, present: Present, lease: Lease, demand: Demand, held: Held, now: int, what: str = "all of it"
    ) -> None:
        self._present, self._outlook = present, present.outlook
        self._planner = present.outlook.planner
        self._lease, self._demand, self._held, self._now = lease, demand, held, now
        self._what = what
        self._at = max(now, demand.at)
        self._victims = self._planner.could_give_way(demand, VICTIMS_MAX)

    def offers(self) -> list[Offer]:
        found = [self._done_by(), self._fewer(), self._shorter(), self._later(), self._sooner(), self._at_once()]
        offers = [offer for offer in found if offer is not None]
        smaller = None if any(offer["kind"] == "fewer" for offer in offers) else self._smaller()
        return offers if smaller is None else [*offers, smaller]

    # ------------------------------------------------------------ two changes at once

    def combined(self) -> Iterator[Offer]:
        """What could be had some time or other, at another time than asked for; or else fewer for a shorter run."""
        found = [self._both(change, lease) for change, lease in self._some_time()]
        offers = [offer for offer in found if offer is not None]
        yield from offers
        if not offers:
            briefly = self._lasting(min(SHORTEST_S, self._lease.duration_s))
            fewer = self._of(briefly)._fewer()
            if fewer is not None:
                shorter = self._of(self._taking(fewer), self._said(fewer))._shorter()
                yield from [] if shorter is None else [_joined(fewer, shorter)]

    def _some_time(self) -> Iterator[tuple[Offer, Lease]]:
        """Changes that would do if the lease waited as long as it likes."""
        queued = self._of(_queued(self._lease))
        for change in (queued._fewer(), queued._shorter(), queued._smaller()):
            if change is not None:
                yield change, self._taking(change)

    def _both(self, change: Offer, lease: Lease) -> Offer | None:
        other = self._of(lease, self._said(change))
        second = other._later() or other._sooner() or other._done_by()
        return None if second is None else _joined(change, second)

    def _of(self, lease: Lease, what: str = "") -> _Bargain:
        demand = self._outlook.demand_of(lease, self._demand.number)
        return _Bargain(self._present, lease, demand, self._held, self._now, what or self._what)

    def _taking(self, change: Offer) -> Lease:
        """The lease asked for with that change."""
        if "duration_s" in change:
            return self._lasting(change["duration_s"])
        if "group" in change:
            named = next(group for group in self._lease.groups if group.name == change["group"])
            return self._with_count(named, change["count"])
        size = {name: change[name] for name in ("cpus", "memory_mib", "disk_mib") if name in change}
        return self._with_groups(replace(self._lease.groups[0], count=change["count"], **size))

    def _said(self, change: Offer) -> str:
        if "duration_s" in change:
            return f"{self._what} for {show_exactly(change['duration_s'])}"
        if "memory_mib" in change:
            return f"one workspace of {words(Size(change['cpus'], change['memory_mib'], change['disk_mib']))}"
        return _counted(change)

    # ------------------------------------------------------------ trying

    def _granted(self, lease: Lease) -> bool:
        """Whether `lease` would be granted now."""
        outlook = self._outlook
        if self._limit(lease, self._now) is not None:
            return False
        demand = outlook.demand_of(lease, self._demand.number)
        if lease.kind is LeaseKind.BEST_EFFORT:
            return outlook.could_ever(demand)
        if demand.hard and demand.at - demand.prepare_s < self._now:
            return False
        if demand.hard and not self._victims:
            return self._planner.placing.at(demand, demand.at - demand.prepare_s) is not None
        return outlook.look(demand, self._now)[0] is not None

    def _limit(self, lease: Lease, now: int) -> VwsError | None:
        """What a limit says against `lease` when it is asked for at `now`."""
        try:
            self._outlook.chosen.check_beside(lease, self._held, now)
            if lease.kind is LeaseKind.DEADLINE:
                self._outlook.check_promise(self._outlook.demand_of(lease, self._demand.number), self._now)
        except VwsError as reached:
            return reached
        return None

    def _let_pass(self, terms: Callable[[int], Lease], value: int, kind: str, name: str, now: int) -> int | None:
        """`value`, or if the limits refuse `terms` with it the nearest by their own offers with which they do not."""
        for _ in range(HINTS_MAX):
            reached = self._limit(terms(value), now)
            if reached is None:
                return value
            offers = reached.details.get("offers", ())
            hint = next((offer[name] for offer in offers if offer.get("kind") == kind), value)
            if hint == value:
                return None
            value = hint
        return None

    def _with_groups(self, *groups: Group) -> Lease:
        return replace(self._lease, groups=groups)

    def _lasting(self, duration_s: int) -> Lease:
        end = None if self._lease.start is None else self._lease.start + duration_s
        return replace(self._lease, duration_s=duration_s, end=end)

    def _reserved(self, start: int) -> Lease:
        return replace(self._lease, kind=LeaseKind.RESERVATION, start=start, end=start + self._lease.duration_s)

    def _begin(self) -> int:
        """When its block would have to begin."""
        return max(self._now, self._demand.at - self._demand.prepare_s) if self._demand.hard else self._now

    def _end(self) -> int:
        return self._at + self._lease.duration_s + self._demand.shutdown_s

    def _if_all_gave_way(self, look: Callable[[], T]) -> T:
        if not self._victims or not self._demand.hard:
            return look()
        return self._without(self._planner._victims(self._demand, self._begin(), self._end(), self._now), look)

    def _without(self, victims: Sequence[Demand], look: Callable[[], T]) -> T:
        """What `look` finds while they are out of the way."""
        for victim in victims:
            self._planner._lift(victim, self._now)
        try:
            return look()
        finally:
            for victim in victims:
                self._planner._put_back(victim, self._now)

    def _changes(self) -> list[int]:
        """When the room of any node changes."""
        return [time for profile in self._planner.timeline.profiles for time in profile.times]

    def _openings(self, part: Part) -> list[int]:
        """Until when each opening for a member stays open, once all have given way who can; the longest first."""
        found = self._if_all_gave_way(lambda: list(self._planner.timeline.openings(part, self._begin())))
        return sorted((opening >> NODE_BITS for opening in found), reverse=True)

    def _when(self) -> str:
        return "now" if self._at <= self._now else f"{show_duration(self._at - self._now)} from now"

    # ------------------------------------------------------------ fewer

    def _fewer(self) -> Offer | None:
        """The largest group smaller, and all others as they are."""
        groups = self._lease.groups
        largest = max(groups, key=lambda group: group.count)
        most = min(largest.count - 1, self._fit_at_most())
        count = last(range(1, most + 1), lambda count: self._granted(self._with_count(largest, count)))
        if count is None:
            return None
        when = self._when() if self._demand.hard else "in time" if self._demand.by >= 0 else "on this site"
        offer = {"kind": "fewer", "count": count} | ({"group": largest.name} if len(groups) > 1 else {})
        return offer | {"text": f"{_counted(offer)} would fit {when}"}

    def _with_count(self, group: Group, count: int) -> Lease:
        smaller = replace(group, count=count)
        return self._with_groups(*(smaller if each is group else each for each in self._lease.groups))

    def _fit_at_most(self) -> int:
        """A number of members of the only group above which they surely do not fit: to look is dearer than to count."""
        part = self._demand.asks[0]
        if len(self._lease.groups) > 1 or not self._demand.hard or part.together:
            return COUNT_MAX
        # What one alone would take to be prepared, and all that could give way at any time: no more will fit.
        alone = self._outlook.demand_of(self._with_groups(replace(self._lease.groups[0], count=1)), self._demand.number)
        begin = max(self._now, alone.at - alone.prepare_s)
        found = self._without(self._victims, lambda: list(self._planner.timeline.openings(part, begin)))
        return sum(opening >> NODE_BITS >= self._end() for opening in found)

    # ------------------------------------------------------------ shorter

    def _shorter(self) -> Offer | None:
        lengths = sorted(self._worth_having(chain(self._lengths(), self._admitted_lengths())))
        longest = last(lengths, lambda length: self._granted(self._lasting(length)))
        if longest is None:
            return None
        soft = "in time" if self._demand.by >= 0 else "on this site"
        when = soft if not self._demand.hard else "then" if self._at > self._now else "now"
        return {
            "kind": "shorter",
            "duration_s": longest,
            "text": f"{self._what} for {show_duration(longest)} would fit {when}",
        }

    def _lengths(self) -> Iterator[int]:
        """Lengths of runs that may be the longest possible: up to where openings close, or to the deadline."""
        demand = self._demand
        if demand.by >= 0:
            return self._lengths_in_time()
        if not demand.hard:
            return iter(())
        spare_s = ANSWER_S if self._at <= self._now else 0
        if len(demand.asks) == 1:
            needed = demand.asks[0].openings_needed
            ends = self._openings(demand.asks[0])[needed - 1 : needed]
        else:
            ends = self._if_all_gave_way(self._changes)
        return (end - self._at - demand.shutdown_s - spare_s for end in ends)

    def _lengths_in_time(self) -> Iterator[int]:
        demand = self._demand
        blocks = [self._planner.placing.best(demand, self._now), self._planner.placing.later(demand, self._now)]
        runs = [block.run for block in blocks if block is not None]
        for part in demand.asks:
            untils = self._openings(part)[part.openings_needed - 1 : part.openings_needed]
            runs += [demand.by - (until - self._now - demand.prepare_s - demand.shutdown_s) for until in untils]
        return (demand.by - run - ANSWER_S for run in runs)

    def _admitted_lengths(self) -> Iterator[int]:
        """The longest that the limits let pass, also to who takes his time to answer."""
        at_once = self._lease.kind is LeaseKind.IMMEDIATE
        now = self._now + ANSWER_S if at_once else self._now

        def lasting(length: int) -> Lease:
            lease = self._lasting(length)
            return replace(lease, start=now, end=now + length) if at_once else lease

        longest = self._let_pass(lasting, self._lease.duration_s, "shorter", "duration_s", now)
        return iter(() if longest is None else (longest,))

    def _worth_having(self, lengths: Iterable[int]) -> set[int]:
        return {length for length in lengths if SHORTEST_S <= length < self._lease.duration_s}

    # ------------------------------------------------------------ another time

    def _later(self) -> Offer | None:
        """The whole, as a reservation: where there is room and no limit is reached, in turn."""
        if not self._demand.hard:
            return None
        demand = self._outlook.demand_of(self._reserved(self._at), self._demand.number)
        first: int | None = max(self._at, self._now + demand.prepare_s + ANSWER_S)
        for _ in range(TURNS_MAX):
            assert first is not None
            first = self._let_pass(self._reserved, first, "later", "start", self._now)
            if first is None or first > self._now + AHEAD_S_MAX:
                return None
            sooner, free = self._starts(demand, first)
            starts = sooner if free is None else [*sooner, free]
            start = next((start for start in starts if self._granted(self._reserved(start))), None)
            if start is not None:
                text = f"{self._what} would run {show_duration(start - self._now)} from now"
                return {"kind": "later", "start": start, "text": text}
            if free is None or self._limit(self._reserved(free), self._now) is None:
                return None
            first = free
        return None

    def _starts(self, demand: Demand, first: int) -> tuple[list[int], int | None]:
        """Starts worth trying, the earliest first: when it is prepared, when others can be out of the way; and that at
        which others have ended. There it fits without anybody giving way, if it fits at all."""
        free = self._earliest(demand, first)
        if free is not None and free > self._now + AHEAD_S_MAX:
            free = None
        last_start = self._now + AHEAD_S_MAX if free is None else free
        starts = {first, *self._given_way(demand, first)}
        return sorted(start for start in starts if first <= start < last_start)[:TRIED], free

    def _sooner(self) -> Offer | None:
        """The whole, as a reservation that is no further ahead than the limits let one ask."""
        if self._lease.kind is not LeaseKind.RESERVATION or self._limit(self._lease, self._now) is None:
            return None
        edge = self._let_pass(self._reserved, self._at, "sooner", "start", self._now)
        start = edge if edge is not None and edge < self._at and self._granted(self._reserved(edge)) else None
        if start is None:
            earliest = self._of(self._reserved(self._now))._later()
            start = None if earliest is None or earliest["start"] >= self._at else earliest["start"]
        if start is None:
            return None
        text = f"{self._what} would run {show_duration(start - self._now)} from now"
        return {"kind": "sooner", "start": start, "text": text}

    def _earliest(self, demand: Demand, first: int) -> int | None:
        """The first start at which all of it has room without anybody giving way."""
        placing = self._planner.placing
        before_s, whole_s = demand.prepare_s, demand.prepare_s + demand.requested + demand.shutdown_s
        begin = first - before_s
        for moment in chain([begin], placing.each_moment(demand, begin, whole_s, None)):
            if placing.nodes(demand, moment, moment + whole_s, moment + whole_s)[0] is not None:
                return moment + before_s
        return None

    def _given_way(self, demand: Demand, first: int) -> Iterator[int]:
        """Starts at which others could leave enough room: when those that cannot do so have left it, and from when on
        the others can be saved."""
        placing, rules = self._planner.placing, self._planner.rules
        if not self._victims:
            return
        begin, whole_s = first - demand.prepare_s, demand.prepare_s + demand.requested + demand.shutdown_s
        moments = self._without(self._victims, lambda: list(placing.moments(demand, begin, whole_s, None)))
        for victim in self._victims:
            assert victim.block is not None
            save_s = rules.save_s(victim, victim.block.hosts)
            moments += [self._now + save_s + ANSWER_S, victim.block.run + save_s + 1]
        yield from (max(moment + demand.prepare_s, first) for moment in moments)

    def _done_by(self) -> Offer | None:
        """The whole, by a later deadline."""
        if self._demand.by < 0:
            return None
        placing = self._planner.placing
        block: Block | None = placing.best(self._demand, self._now) or placing.later(self._demand, self._now)
        if block is None or block.stop + ANSWER_S > self._now + AHEAD_S_MAX:
            return None
        deadline = block.stop + ANSWER_S
        if deadline <= self._demand.by or not self._granted(replace(self._lease, deadline=deadline)):
            return None
        text = f"{self._what} could be done by {show_duration(deadline - self._now)} from now"
        return {"kind": "deadline", "deadline": deadline, "text": text}

    def _at_once(self) -> Offer | None:
        """Without the promise to run at a time."""
        if self._lease.kind is not LeaseKind.RESERVATION or self._at - self._demand.prepare_s >= self._now:
            return None
        end = self._now + self._lease.duration_s
        if not self._granted(replace(self._lease, kind=LeaseKind.IMMEDIATE, start=self._now, end=end)):
            return None
        return {"kind": "now", "text": "all of it would start now, and run as soon as it is up"}

    # ------------------------------------------------------------ smaller

    def _smaller(self) -> Offer | None:
        """One workspace, as near to the size asked for as fits."""
        if len(self._lease.groups) != 1:
            return None
        group = self._lease.groups[0]
        beside_mib = granted_mib(group.disks)
        for room, node in self._rooms(group)[:NODES_TRIED]:
            capacity, name = self._outlook.capacity(node)
            memory_mib = room.memory_mib - self._outlook.overhead_mib
            whole = Size(min(room.cpus, capacity.cpus), memory_mib, room.disk_mib - beside_mib)
            size = whole.within(_size_of(group))
            if size == _size_of(group) or not self._is_enough(group, size):
                continue
            disk_mib = size.disk_mib + beside_mib
            single = replace(group, count=1, cpus=size.cpus, memory_mib=size.memory_mib, disk_mib=disk_mib)
            if self._granted(self._with_groups(single)):
                when = self._when() if self._demand.hard else "there"
                text = f"one workspace of {words(size)} would fit {when} on {name}"
                return {"kind": "smaller", "count": 1, **asdict(size), "text": text}
        return None

    def _is_enough(self, group: Group, size: Size) -> bool:
        """Whether its image could boot with it."""
        image = self._present.images.get(group.image)
        memory_mib = max(MEMORY_MIB_MIN, image.memory_mib_min if image is not None else 0)
        disk_mib = max(1, image.disk_mib_min if image is not None else 0)
        return size.cpus >= 1 and size.memory_mib >= memory_mib and size.disk_mib >= disk_mib

    def _rooms(self, group: Group) -> list[tuple[Amount, str]]:
        """What nodes that would do have left while it would run, the largest first."""
        outlook, timeline, begin = self._outlook, self._planner.timeline, self._begin()
        fit = outlook.mask(group.requirement, 1)
        if self._lease.kind is LeaseKind.BEST_EFFORT:
            return self._whole_rooms(group, fit)
        nodes = [outlook.nodes[i] for i in timeline.roomiest(fit, begin, NODES_LOOKED_AT)]
        rooms = [(outlook.room(node, begin, self._end()), i) for i, node in enumerate(nodes)]
        free = [(room, nodes[i]) for room, i in sorted(rooms, key=_nearness(group)) if room.places > 0]
        return free if self._demand.hard else [*self._whole_rooms(group, fit)[:1], *free]

    def _whole_rooms(self, group: Group, fit: Sequence[int]) -> list[tuple[Amount, str]]:
        """What nodes that would do have to give once they are empty, the largest first."""
        profiles = self._planner.timeline.profiles
        rooms = [(profile.capacity, i) for i, profile in enumerate(profiles) if fit[i]]
        return [(room, self._outlook.nodes[i]) for room, i in sorted(rooms, key=_nearness(group))]


def _queued(lease: Lease) -> Lease:
    """The same, to run whenever it fits."""
    return replace(lease, kind=LeaseKind.BEST_EFFORT, start=None, end=None, deadline=None)


def _counted(change: Offer) -> str:
    """How many a change leaves, in words."""
    if "group" in change:
        return f"{change['count']} of {change['group']} and all others"
    return f"{change['count']} of this size"


def _joined(first: Offer, second: Offer) -> Offer:
    """Both changes; the second's words say the first's too."""
    return first | second | {"kind": "combined"}


def _size_of(group: Group) -> Size:
    """As it is asked for: the disk is the root's."""
    return Size(group.cpus, group.memory_mib, group.root_mib)


def _nearness(group: Group) -> Callable[[tuple[Amount, int]], tuple[int, int, int, int]]:
    """The rooms first that come nearest to what one of the group asks for."""

    def missing(room: tuple[Amount, int]) -> tuple[int, int, int, int]:
        size = Size(room[0].cpus, room[0].memory_mib, room[0].disk_mib).within(_size_of(group))
        return -size.memory_mib, -size.cpus, -size.disk_mib, room[1]

    return missing


def last(candidates: Sequence[T], granted: Callable[[T], bool]) -> T | None:
    """The last of the candidates that is granted; if one is, so are those before it."""
    if not candidates:
        return None
    if granted(candidates[-1]):
        return candidates[-1]
    low, high = -1, len(candidates) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if granted(candidates[middle]):
            low = middle
        else:
            high = middle
    return candidates[low] if low >= 0 else None
