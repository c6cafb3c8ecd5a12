"""The room of all nodes over time, and the two questions that placing asks: what is open from a moment on, and when
enough is open for so long.

Blocks are laid on the nodes' profiles and lifted off them again; `now` moves the profiles' past out of the way.
"""

from __future__ import annotations

from typing import final

from vws.core.plan.demand import Block, Part
from vws.core.plan.profile import FOREVER, NODE_BITS, NODE_MASK, Amount, Profile


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
    """profiles: by node. open: by node, whether it takes new members."""

    def __init__(self, capacities: list[Amount]) -> None:
        self.profiles: list[Profile] = [Profile(capacity) for capacity in capacities]
        self.open: list[bool] = [True for _ in capacities]
        self._kept = Kept(Amount(0, 0), 0, None, -1, [])

    def add(self, capacity: Amount) -> int:
        """A node more; its index. It takes members once it is opened."""
        self.profiles.append(Profile(capacity))
        self.open.append(False)
        return len(self.profiles) - 1

    # ------------------------------------------------------------ holding

    def lay(self, parts: list[Part], block: Block, now: int) -> None:
        """Take what the steps of the block occupy."""
        self._shift(parts, block, now, True)

    def lift(self, parts: list[Part], block: Block, now: int) -> None:
        """Give back what it occupies from `now` on."""
        self._shift(parts, block, now, False)

    def _shift(self, parts: list[Part], block: Block, now: int, down: bool) -> None:
        self.changed()
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
        found: list[int] = []
        profiles, is_open = self.profiles, self.open
        for node in range(len(profiles)):
            if is_open[node] and (eligible is None or eligible[node]):
                profiles[node].openings(size, at, node, most, found)
        found.sort()
        self._kept = Kept(size, most, eligible, at, found)
        return found

    def changed(self) -> None:
        """Forget the kept answer: call it after changing a profile or `open` from outside."""
        self._kept.at = -1

    def earliest(self, part: Part, after: int, duration: int) -> int:
        """The first moment from `after` on at which all members of a part have room for `duration`; -1 if never."""
        moments = self.moments(part, after, duration, 1)
        return moments[0] if moments else -1

    def changes(self, after: int, most: int) -> list[int]:
        """The first `most` moments after `after` at which any node's room changes."""
        found: set[int] = set()
        for profile in self.profiles:
            for i in range(profile.step(after) + 1, min(len(profile.times), profile.step(after) + 1 + most)):
                if profile.times[i] < FOREVER:
                    found.add(profile.times[i])
        return sorted(found)[:most]

    def last_change(self, after: int) -> int:
        """The moment, `after` or later, from which on every node's room stays as it is."""
        for profile in self.profiles:
            times = profile.times
            i = len(times) - 1
            while i > 0 and times[i] >= FOREVER:
                i -= 1
            after = max(after, times[i])
        return after

    def moments(self, part: Part, after: int, duration: int, most: int) -> list[int]:
        """The first `most` moments, from `after` on, at which enough has just become open for all members of a part."""
        opens: list[int] = []
        closes: list[int] = []
        size, per_node, eligible = part.asked, part.most_per_node, part.eligible
        for node in range(len(self.profiles)):
            if self.open[node] and (eligible is None or eligible[node]):
                self.profiles[node].windows(size, after, duration, per_node, opens, closes)
        opens.sort()
        needed = part.openings_needed
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


def until_of(opening: int) -> int:
    return opening >> NODE_BITS


def node_of(opening: int) -> int:
    return opening & NODE_MASK


__all__ = ["FOREVER", "Timeline", "first_open_until", "node_of", "until_of"]
