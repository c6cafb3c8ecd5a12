"""The room of all nodes over time, and the two questions that placing asks: what is open from a moment on, and when
enough is open for so long.

Blocks are laid on the nodes' profiles and lifted off them again; `now` moves the profiles' past out of the way.

A large site is full, and most questions are asked at its present: so the nodes that have anything left now are noted,
and only those are looked at.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from vws.core.plan.demand import Block, Demand, Kind, Part
from vws.core.plan.profile import FOREVER, NODE_BITS, NODE_MASK, NOTHING, Amount, Profile

# So many of the longest openings are known of each kind.
LONGEST: Final = 256
KINDS_MAX: Final = 4096
# All nodes are looked at anew once those that may have something left have been gone through for so many times as much.
IDLE_WORTH: Final = 4


@final
class Kept:
    """The last answer of `Timeline.openings`, with its question; `at` is -1 when it does not hold any more."""

    def __init__(self, size: Amount, most: int, eligible: list[bool] | None, at: int, openings: list[int]) -> None:
        self.size = size
        self.most = most
        self.eligible = eligible
        self.at = at
        self.openings = openings


@final
class Timeline:
    """profiles: by node. open: by node, whether it takes new members; awake: whether what is there, or was promised
    it, may begin."""

    def __init__(self, capacities: list[Amount]) -> None:
        self.profiles: list[Profile] = [Profile(capacity) for capacity in capacities]
        self.open: list[bool] = [True for _ in capacities]
        self.awake: list[bool] = [True for _ in capacities]
        self.now = 0  # its owner moves it
        # The nodes that may have CPUs, memory and a place left now: until then there are no others but those that are
        # given room, after which some of the former are full.
        self._idle: list[int] = []
        self._all: list[int] = []
        self._alike: list[tuple[Amount, list[int]]] = []  # empty: not known
        self._is_idle: list[bool] = [False for _ in capacities]
        self._idle_until = 0
        self._idle_asked = 0
        self._kept = Kept(Amount(0, 0), 0, None, -1, [])
        self._kinds: dict[tuple[int, int, int, int, int, bool, int], Kind] = {}
        self._grown = 1  # how often any node may have got more room

    def add(self, capacity: Amount) -> int:
        """A node more; its index. It takes members once it is opened."""
        self.profiles.append(Profile(capacity))
        self.open.append(False)
        self.awake.append(False)
        self._is_idle.append(False)
        self._idle_until = 0
        self._alike = []
        return len(self.profiles) - 1

    def resize(self, node: int, capacity: Amount) -> None:
        """The node has another capacity from now on, whatever is taken of it."""
        self.profiles[node].resize(capacity)
        self._alike = []
        self.changed()

    # ------------------------------------------------------------ holding

    def lay(self, parts: list[Part], block: Block, now: int) -> None:
        """Take what the steps of the block occupy."""
        self._shift(parts, block, now, True)

    def lift(self, parts: list[Part], block: Block, now: int) -> None:
        """Give back what it occupies from `now` on."""
        self._shift(parts, block, now, False)

    def _shift(self, parts: list[Part], block: Block, now: int, down: bool) -> None:
        self._kept.at = -1
        if not down:
            self._grown += 1
        busy_from = block.run if block.restores else block.moved
        busy_to = block.stop if block.saves else block.end
        member = 0
        for part in parts:
            size, saved = part.size, part.saved_size
            for _ in range(part.count):
                host = block.hosts[member]
                member += 1
                if host < 0:
                    continue
                profile = self.profiles[host]
                if not down:
                    self._may_idle(host)
                profile.forget(now)
                if block.begin < busy_from:
                    self._step(profile, saved, block.begin, busy_from, now, down)
                self._step(profile, size, busy_from, busy_to, now, down)
                if busy_to < block.end:
                    self._step(profile, saved, busy_to, block.end, now, down)

    def _step(self, profile: Profile, amount: Amount, start: int, end: int, now: int, down: bool) -> None:
        if end > now:
            if start <= now:
                start = 0  # the profile's first step is the present
            if down:
                profile.take(amount, start, end)
            else:
                profile.give(amount, start, end)

    # ------------------------------------------------------------ asking

    def openings(self, part: Part, at: int) -> list[int]:
        """The openings for members of a part at `at`, those that close first before the others.

        Many in a queue ask for the same size at the same moment and are told no: the last answer is kept.
        """
        size, most, eligible = part.asked, part.most_per_node, part.eligible
        kept = self._kept
        if kept.at == at and kept.most == most and kept.eligible is eligible and kept.size.same(size):
            return kept.openings
        found = self._open_for(size, most, eligible, at)
        found.sort()
        self._kept = Kept(size, most, eligible, at, found)
        return found

    def _open_for(self, size: Amount, most: int, eligible: list[bool] | None, at: int) -> list[int]:
        found: list[int] = []
        profiles, is_open = self.profiles, self.open
        for node in self.nodes_for(size, at):
            if is_open[node] and (eligible is None or eligible[node]):
                profiles[node].openings(size, at, node, most, found)
        return found

    def rooms(self, part: Part, at: int, end: int) -> list[int]:
        """How many members of a part each node has room for throughout [at, end): `count << NODE_BITS | node`, where
        there is room for any."""
        found: list[int] = []
        size, most = part.asked, part.most_per_node
        eligible = part.eligible
        for node in self.nodes_for(size, at):
            if self.open[node] and (eligible is None or eligible[node]):
                count = self.profiles[node].count(size, at, end, most)
                if count > 0:
                    found.append(count << NODE_BITS | node)
        return found

    def nodes_for(self, size: Amount, at: int) -> list[int]:
        """The nodes that may have room for one of a size at `at`."""
        if at == self.now and _asks_for_some(size):
            if at >= self._idle_until or self._idle_asked > IDLE_WORTH * len(self.profiles):
                self._find_idle(at)
            self._idle_asked += len(self._idle)
            return self._idle
        if len(self._all) < len(self.profiles):
            self._all = list(range(len(self.profiles)))
        return self._all

    def alike(self) -> list[tuple[Amount, list[int]]]:
        """All nodes, those of equal capacity together."""
        if not self._alike:
            found: dict[Amount, list[int]] = {}
            for node in range(len(self.profiles)):
                found.setdefault(self.profiles[node].capacity, []).append(node)
            self._alike = list(found.items())
        return self._alike

    def _find_idle(self, at: int) -> None:
        self._idle = []
        moment: i64 = at
        until: i64 = FOREVER
        for node in range(len(self.profiles)):
            step = self.profiles[node].first
            following = step.next
            if following is not None and following.begin <= moment:
                step = self.profiles[node].during(moment)
            is_idle = _asks_for_some(step)
            self._is_idle[node] = is_idle
            if is_idle:
                self._idle.append(node)
            elif step.next is not None and step.next.begin < until:
                until = step.next.begin
        self._idle_until = until
        self._idle_asked = 0

    def _may_idle(self, node: int) -> None:
        if not self._is_idle[node]:
            self._is_idle[node] = True
            self._idle.append(node)

    def open_until(self, part: Part, at: int) -> int:
        """Until when as many members of a part as it has could have room from `at` on, looking at this part alone: `at`
        if they have none; never too early, as long as no room was given back since it was first asked at `at`."""
        kind = self.kind(part)
        if kind.at != at or kind.grown != self._grown:
            if part.apart or part.together:
                longest = self.openings(part, at)
            else:
                longest = self._open_for(part.asked, LONGEST, part.eligible, at)
                longest.sort()
            kind.longest = longest if len(longest) <= LONGEST else longest[-LONGEST:]
            kind.at, kind.grown = at, self._grown
        needed = part.openings_needed
        if needed <= len(kind.longest):
            return kind.longest[-needed] >> NODE_BITS
        return at if len(kind.longest) < LONGEST else FOREVER

    def doubt(self, part: Part) -> None:
        """What `open_until` promised was not there: others have taken it."""
        self.kind(part).at = -1

    def kind(self, part: Part) -> Kind:
        if part.kind is None:
            size, alone = part.asked, part.apart or part.together
            mask = id(part.eligible)
            key = (size.cpus, size.memory_mib, size.disk_mib, size.bandwidth_mbit, size.places, alone, mask)
            kind = self._kinds.get(key)
            if kind is None:
                if len(self._kinds) >= KINDS_MAX:
                    self._kinds.clear()
                kind = self._kinds[key] = Kind(part.eligible)
            part.kind = kind
        return part.kind

    def touch(self, node: int) -> None:
        """Call it after changing a node's profile from outside."""
        self.lent(node)
        self._grown += 1

    def lent(self, node: int) -> None:
        """The same where what is taken is given back before anything else happens, and when it is."""
        self._kept.at = -1
        self._may_idle(node)

    def changed(self) -> None:
        """Forget what is known of nodes: call it after changing profiles, masks or `open` from outside."""
        self._idle_until = 0
        self._kept.at = -1
        self._grown += 1

    def roomiest(self, eligible: list[bool], at: int, most: int) -> list[int]:
        """The open nodes that have the most memory left at `at`, then the most CPUs: `most` of them, in order."""
        found: list[tuple[int, int, int]] = []
        least: i64 = -1  # who has no more memory than that is of no use
        for node in range(len(self.profiles)):
            if self.open[node] and eligible[node]:
                free = self.profiles[node].during(at)
                if free.memory_mib >= least:
                    found.append((-int(free.memory_mib), -int(free.cpus), node))
                    if len(found) == 2 * most:
                        found.sort()
                        del found[most:]
                        least = -found[-1][0]
        found.sort()
        return [node for _, _, node in found[:most]]

    def could_hold(self, part: Part) -> bool:
        """Whether all members of a part would have room if nothing were held."""
        room, eligible = 0, part.eligible
        for node in range(len(self.profiles)):
            if eligible is None or eligible[node]:
                room += part.asked.count_in(self.profiles[node].capacity, part.most_per_node)
                if room >= part.openings_needed:
                    return True
        return False

    def earliest(self, part: Part, after: int, duration: int) -> int:
        """The first moment from `after` on at which all members of a part have room for `duration`; -1 if never."""
        moments = self.moments(part, after, duration, 1)
        return moments[0] if moments else -1

    def changes(self, after: int, most: int) -> list[int]:
        """The first `most` moments after `after` at which any node's room changes."""
        found: set[int] = set()
        latest = FOREVER - 1
        for profile in self.profiles:
            step = profile.during(after).next
            while step is not None and step.begin <= latest:
                found.add(step.begin)
                step = step.next
            if len(found) > 4 * most:
                found = set(sorted(found)[:most])
                latest = max(found)
        return sorted(found)[:most]

    def last_change(self, after: int) -> int:
        """The moment, `after` or later, from which on every node's room stays as it is."""
        for profile in self.profiles:
            for step in profile.steps():
                if step.begin < FOREVER:
                    after = max(after, step.begin)
        return after

    def moments(self, part: Part, after: int, duration: int, most: int) -> list[int]:
        """The first `most` moments, from `after` on, at which enough has just become open for all members of a part."""
        opens: list[int] = []
        closes: list[int] = []
        lasting: list[int] = []
        latest, needed = FOREVER, part.openings_needed
        size, per_node, eligible = part.asked, part.most_per_node, part.eligible
        for node in range(len(self.profiles)):
            if self.open[node] and (eligible is None or eligible[node]):
                last = self.profiles[node].windows(size, after, duration, per_node, opens, closes, latest)
                if most > 1 or last == 0:
                    continue
                for i in range(len(opens) - last, len(opens)):
                    lasting.append(opens[i])
                if len(lasting) >= 2 * needed:
                    # By the time that so many are open for good the first moment has been.
                    lasting.sort()
                    del lasting[needed:]
                    latest = lasting[-1]
        opens.sort()
        if not closes and most == 1:
            return [opens[needed - 1]] if len(opens) >= needed and opens[needed - 1] < FOREVER else []
        closes.sort()
        found: list[int] = []
        closed = 0
        for i in range(len(opens)):
            moment = opens[i]
            if moment >= FOREVER:
                break
            while closed < len(closes) and closes[closed] <= moment:
                closed += 1
            last_at_moment = i + 1 == len(opens) or opens[i + 1] > moment
            if last_at_moment and i + 1 - closed >= needed:
                found.append(moment)
                if len(found) == most:
                    break
        return found


@final
class Tally:
    """How many members of each part have room throughout [start, end), each part looked at alone: too few of any, and
    there is no room for all. Kept right as nodes change, where asking anew would look at all nodes each time."""

    def __init__(self, timeline: Timeline, parts: list[Part], start: int, end: int) -> None:
        self.timeline = timeline
        self.parts = parts
        self.start = start
        self.end = end
        self.is_exact = len(parts) == 1  # several compete with each other
        self.missing: list[int] = []
        self.counts: list[dict[int, int]] = []
        for part in parts:
            rooms = timeline.rooms(part, start, end)
            counts: dict[int, int] = {}
            for room in rooms:
                counts[room & NODE_MASK] = room >> NODE_BITS
            self.counts.append(counts)
            self.missing.append(part.openings_needed - sum(counts.values()))

    def is_enough(self) -> bool:
        return max(self.missing) <= 0

    def recount(self, hosts: list[int]) -> None:
        """The room of these nodes has changed."""
        for i in range(len(self.parts)):
            part, counts, last = self.parts[i], self.counts[i], -1
            for host in hosts:
                if host == last or not self._may_be_on(part, host):
                    continue
                last = host
                profile = self.timeline.profiles[host]
                count = profile.count(part.asked, self.start, self.end, part.most_per_node)
                self.missing[i] += counts.get(host, 0) - count
                counts[host] = count

    def _may_be_on(self, part: Part, node: int) -> bool:
        return node >= 0 and self.timeline.open[node] and (part.eligible is None or part.eligible[node])

    def could_be_enough(self, demands: list[Demand]) -> bool:
        """Whether there might be enough if nothing of these demands were anywhere."""
        freed: dict[int, Amount] = {}
        for demand in demands:
            assert demand.block is not None
            sizes = demand.sizes()
            for member in range(len(sizes)):
                host = demand.block.hosts[member]
                if host >= 0:
                    freed[host] = freed.get(host, NOTHING).plus(sizes[member])
        for i in range(len(self.parts)):
            part, missing = self.parts[i], self.missing[i]
            for host, amount in freed.items():
                if self._may_be_on(part, host):
                    free = self.timeline.profiles[host].least(self.start, self.end).plus(amount)
                    missing -= part.asked.count_in(free, part.most_per_node) - self.counts[i].get(host, 0)
            if missing > 0:
                return False
        return True


def first_open_until(openings: list[int], end: int) -> int:
    """The index of the first of sorted `openings` that stays open until `end`."""
    wanted = end << NODE_BITS
    low, high = 0, len(openings)
    while low < high:
        middle = (low + high) >> 1
        if openings[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def _asks_for_some(size: Amount) -> bool:
    return size.cpus > 0 and size.memory_mib > 0 and size.places > 0


def until_of(opening: int) -> int:
    return opening >> NODE_BITS


def node_of(opening: int) -> int:
    return opening & NODE_MASK


__all__ = ["FOREVER", "Tally", "Timeline", "first_open_until", "node_of", "until_of"]
