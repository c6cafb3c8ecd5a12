"""What would be accepted of a lease that cannot be had as asked.

Each offer is tried before it is made: the planner is asked for just that, and so is the site's policy. So an offer that
is taken at once is granted, as long as nothing else happens in between. What hangs on the present moment (a start as
soon as it can be prepared, a run from now until others come) has a minute to spare, for nobody answers at once.

Offered are the most members at the asked time, the longest run from then, the earliest start for the whole, an earlier
or later deadline; where fewer do not help, one workspace of the largest size that fits. Those who could give way for
the lease asked for could do so for what is offered; where very many could, trying would take too long, and offered is
what needs nobody to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Any, TypeVar

from vws.core.errors import VwsError
from vws.core.plan.demand import Block, Demand, Part
from vws.core.plan.profile import NODE_BITS, Amount
from vws.core.present import Present
from vws.core.site import Group, Lease, LeaseKind, NodeState
from vws.core.spans import show_duration
from vws.core.terms import AHEAD_S_MAX, MEMORY_MIB_MIN, Size

T = TypeVar("T")
Offer = dict[str, Any]

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


def words(size: Size) -> str:
    cpus = "1 CPU" if size.cpus == 1 else f"{size.cpus} CPUs"
    return f"{cpus}, {size.memory_mib} MiB memory, {size.disk_mib} MiB disk"


def offers_for(present: Present, lease: Lease, demand: Demand, *, now: int) -> list[Offer]:
    """The offers, the nearest to what was asked for first. demand: what the planner refused."""
    return _Bargain(present, lease, demand, now).offers()


class _Bargain:
    def __init__(self, present: Present, lease: Lease, demand: Demand, now: int) -> None:
        self._present, self._outlook = present, present.outlook
        self._planner = present.outlook.planner
        self._lease, self._demand, self._now = lease, demand, now
        self._at = max(now, demand.at)
        self._held = present.outlook.chosen.held(lease, (), outstanding=present.outstanding)
        self._victims = self._planner.could_give_way(demand, VICTIMS_MAX)

    def offers(self) -> list[Offer]:
        if not any(node.state is NodeState.READY for node in self._present.nodes.values()):
            return []
        found = [self._done_by(), self._fewer(), self._shorter(), self._later(), self._at_once()]
        offers = [offer for offer in found if offer is not None]
        smaller = None if any(offer["kind"] == "fewer" for offer in offers) else self._smaller()
        return offers if smaller is None else [*offers, smaller]

    # ------------------------------------------------------------ trying

    def _granted(self, lease: Lease) -> bool:
        """Whether `lease` would be granted now."""
        outlook = self._outlook
        demand = outlook.demand_of(lease, self._demand.number)
        try:
            outlook.chosen.check_beside(lease, self._held, self._now)
        except VwsError:
            return False
        if lease.kind is LeaseKind.BEST_EFFORT:
            return outlook.could_ever(demand)
        if demand.hard and demand.at - demand.prepare_s < self._now:
            return False
        if demand.hard and not self._victims:
            return self._planner.placing.at(demand, demand.at - demand.prepare_s) is not None
        return outlook.look(demand, self._now)[0] is not None

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
        at = max(range(len(groups)), key=lambda i: groups[i].count)
        group = groups[at]

        def granted(count: int) -> bool:
            return self._granted(self._with_groups(*groups[:at], replace(group, count=count), *groups[at + 1 :]))

        most = group.count - 1 if len(groups) > 1 else self._most_alone()
        count = last(range(1, most + 1), granted)
        if count is None:
            return None
        when = self._when() if self._demand.hard else "in time" if self._demand.by >= 0 else "on this site"
        if len(groups) == 1:
            return {"kind": "fewer", "count": count, "text": f"{count} of this size would fit {when}"}
        text = f"{count} of {group.name} and all others would fit {when}"
        return {"kind": "fewer", "count": count, "group": group.name, "text": text}

    def _most_alone(self) -> int:
        """More members than so many, but fewer than were asked for, will not fit: of a lease of one group."""
        group, part = self._lease.groups[0], self._demand.asks[0]
        most = group.count - 1
        if self._demand.hard and not part.together:
            # What one alone would take to be prepared, and all that could give way at any time: no more will fit.
            alone = self._outlook.demand_of(self._with_groups(replace(group, count=1)), self._demand.number)
            begin = max(self._now, alone.at - alone.prepare_s)
            found = self._without(self._victims, lambda: list(self._planner.timeline.openings(part, begin)))
            most = min(most, sum(opening >> NODE_BITS >= self._end() for opening in found))
        return most

    # ------------------------------------------------------------ shorter

    def _shorter(self) -> Offer | None:
        longest = last(sorted(self._lengths()), lambda length: self._granted(self._lasting(length)))
        if longest is None:
            return None
        when = "in time" if self._demand.by >= 0 else "then" if self._at > self._now else "now"
        return {
            "kind": "shorter",
            "duration_s": longest,
            "text": f"all of it for {show_duration(longest)} would fit {when}",
        }

    def _lengths(self) -> set[int]:
        """Lengths of runs that may be the longest possible: up to where openings close, or to the deadline."""
        demand = self._demand
        if demand.by >= 0:
            return self._lengths_in_time()
        if not demand.hard:
            return set()
        spare_s = ANSWER_S if self._at <= self._now else 0
        if len(demand.asks) == 1:
            needed = demand.asks[0].openings_needed
            ends = self._openings(demand.asks[0])[needed - 1 : needed]
        else:
            ends = self._if_all_gave_way(self._changes)
        return self._worth_having(end - self._at - demand.shutdown_s - spare_s for end in ends)

    def _lengths_in_time(self) -> set[int]:
        demand = self._demand
        blocks = [self._planner.placing.best(demand, self._now), self._planner.placing.later(demand, self._now)]
        runs = [block.run for block in blocks if block is not None]
        for part in demand.asks:
            untils = self._openings(part)[part.openings_needed - 1 : part.openings_needed]
            runs += [demand.by - (until - self._now - demand.prepare_s - demand.shutdown_s) for until in untils]
        return self._worth_having(demand.by - run - ANSWER_S for run in runs)

    def _worth_having(self, lengths: Iterator[int]) -> set[int]:
        return {length for length in lengths if SHORTEST_S <= length < self._lease.duration_s}

    # ------------------------------------------------------------ another time

    def _later(self) -> Offer | None:
        """The whole, as a reservation."""
        if not self._demand.hard:
            return None
        for start in self._starts():
            if start <= self._now + AHEAD_S_MAX and self._granted(self._reserved(start)):
                text = f"all of it would run {show_duration(start - self._now)} from now"
                return {"kind": "later", "start": start, "text": text}
        return None

    def _starts(self) -> list[int]:
        """Starts worth trying, the earliest first: when it is prepared, when others can be out of the way, when they
        have ended. Where all have ended it fits without anybody giving way, if it fits at all."""
        demand = self._outlook.demand_of(self._reserved(self._at), self._demand.number)
        first = max(self._at, self._now + demand.prepare_s + ANSWER_S)
        last_start = self._earliest(demand, first)
        starts = {first, *self._given_way(demand, first)}
        sooner = sorted(start for start in starts if last_start is None or first <= start < last_start)[:TRIED]
        return sooner if last_start is None else [*sooner, last_start]

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
        if not self._granted(replace(self._lease, deadline=deadline)):
            return None
        text = f"all of it could be done by {show_duration(deadline - self._now)} from now"
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
        """One workspace, of the largest size that fits."""
        if len(self._lease.groups) != 1:
            return None
        group = self._lease.groups[0]
        for room, node in self._rooms(group)[:NODES_TRIED]:
            capacity, name = self._outlook.capacity(node)
            size = Size(min(room.cpus, capacity.cpus), room.memory_mib - self._outlook._overhead_mib, room.disk_mib)
            if not self._is_enough(group, size):
                continue
            single = replace(group, count=1, cpus=size.cpus, memory_mib=size.memory_mib, disk_mib=size.disk_mib)
            if self._granted(self._with_groups(single)):
                when = self._when() if self._demand.hard else "there"
                text = f"one workspace of up to {words(size)} would fit {when} on {name}"
                return {"kind": "smaller", **asdict(size), "text": text}
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
            return self._whole_rooms(fit)
        nodes = [outlook.nodes[i] for i in timeline.roomiest(fit, begin, NODES_LOOKED_AT)]
        rooms = [(outlook.room(node, begin, self._end()), i) for i, node in enumerate(nodes)]
        free = [(room, nodes[i]) for room, i in sorted(rooms, key=_largest) if room.places > 0]
        return free if self._demand.hard else [*self._whole_rooms(fit)[:1], *free]

    def _whole_rooms(self, fit: Sequence[int]) -> list[tuple[Amount, str]]:
        """What nodes that would do have to give once they are empty, the largest first."""
        profiles = self._planner.timeline.profiles
        rooms = [(profile.capacity, i) for i, profile in enumerate(profiles) if fit[i]]
        return [(room, self._outlook.nodes[i]) for room, i in sorted(rooms, key=_largest)]


def _largest(room: tuple[Amount, int]) -> tuple[int, int, int]:
    return -room[0].memory_mib, -room[0].cpus, room[1]


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
