"""Room over time, second by second: what profiles and timelines are compared with.

Nothing is clever here. A node is a list of what is free in each second of a short horizon, after which all is free for
ever; a question is answered by looking at every second and every node.
"""

from __future__ import annotations

from collections.abc import Sequence

from vws.core.plan.demand import Part
from vws.core.plan.profile import FOREVER, Amount

HORIZON = 60


class Seconds:
    """One node's free room in each second; the horizon's last second stands for all that follow."""

    def __init__(self, capacity: Amount, horizon: int = HORIZON) -> None:
        self.horizon = horizon
        self.free = [capacity] * (horizon + 1)

    def at(self, second: int) -> Amount:
        return self.free[min(second, self.horizon)]

    def take(self, amount: Amount, start: int, end: int) -> None:
        for second in range(start, end):
            self.free[second] = self.free[second].minus(amount)

    def give(self, amount: Amount, start: int, end: int) -> None:
        for second in range(start, end):
            self.free[second] = self.free[second].plus(amount)

    def count(self, size: Amount, start: int, end: int, most: int) -> int:
        """How many of `size` have room throughout [start, end)."""
        return min((how_many(size, self.at(second), most) for second in self._seconds(start, end)), default=most)

    def until(self, size: Amount, start: int) -> int:
        """Until when one of `size` has room from `start` on; FOREVER when nothing ends it."""
        for second in self._seconds(start, FOREVER):
            if how_many(size, self.at(second), 1) == 0:
                return second
        return FOREVER

    def _seconds(self, start: int, end: int) -> range:
        return range(start, min(end, max(start, self.horizon) + 1))


def how_many(size: Amount, free: Amount, most: int) -> int:
    fitting = 0
    while fitting < most and size.times(fitting + 1).fits_in(free):
        fitting += 1
    return fitting


def open_count(nodes: Sequence[Seconds], is_open: Sequence[bool], part: Part, start: int, duration: int) -> int:
    """How many openings for members of `part` stay open throughout [start, start + duration)."""
    allowed = [
        seconds
        for node, seconds in enumerate(nodes)
        if is_open[node] and (part.eligible is None or part.eligible[node])
    ]
    most = 1 if part.apart or part.together else part.count
    size = part.size.times(part.count) if part.together else part.size
    return sum(seconds.count(size, start, start + duration, most) for seconds in allowed)


def first_moment(nodes: Sequence[Seconds], is_open: Sequence[bool], part: Part, after: int, duration: int) -> int:
    """The first second from `after` on at which all members have room for `duration`; -1 if there is none."""
    needed = 1 if part.together else part.count
    for second in range(after, max(after, HORIZON) + 1):
        if open_count(nodes, is_open, part, second, duration) >= needed:
            return second
    return -1
