"""One node's free room over time.

A profile is a step function: `free[i]` is what the node has left from `times[i]` until `times[i + 1]`, the last step
lasting for ever. Taking room for an interval lowers the steps inside it; giving it back raises them again, and equal
neighbours become one step. Profiles hold no leases: who took what is the planner's to know, and to give back exactly.

This module and those it shares the planner with are compiled by mypyc where a compiler is at hand, and run the same
uncompiled. Hence plain classes, whole numbers, and loops where a comprehension would be usual elsewhere.

An *opening* is room for one more member of a size on a node, from a moment until another. Openings are single numbers
(`until << NODE_BITS | node`): sorting them sorts by how long they stay open, then by node.
"""

from __future__ import annotations

from typing import Final, final

NODE_BITS: Final = 20
NODE_MASK: Final = (1 << NODE_BITS) - 1
# Past every time that occurs; with the node's bits it still fits a machine word.
FOREVER: Final = 1 << 40


@final
class Amount:
    """How much of a node: CPUs, memory and disk in MiB, bandwidth in Mbit/s, places (for one workspace each)."""

    def __init__(self, cpus: int, memory_mib: int, disk_mib: int = 0, bandwidth_mbit: int = 0, places: int = 1) -> None:
        self.cpus = cpus
        self.memory_mib = memory_mib
        self.disk_mib = disk_mib
        self.bandwidth_mbit = bandwidth_mbit
        self.places = places

    def __repr__(self) -> str:
        fields = (self.cpus, self.memory_mib, self.disk_mib, self.bandwidth_mbit, self.places)
        return f"Amount{fields}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Amount) and self.same(other)

    def __hash__(self) -> int:
        return hash((self.cpus, self.memory_mib, self.disk_mib, self.bandwidth_mbit, self.places))

    def same(self, other: Amount) -> bool:
        return (
            self.cpus == other.cpus
            and self.memory_mib == other.memory_mib
            and self.disk_mib == other.disk_mib
            and self.bandwidth_mbit == other.bandwidth_mbit
            and self.places == other.places
        )

    def plus(self, other: Amount) -> Amount:
        return Amount(
            self.cpus + other.cpus,
            self.memory_mib + other.memory_mib,
            self.disk_mib + other.disk_mib,
            self.bandwidth_mbit + other.bandwidth_mbit,
            self.places + other.places,
        )

    def minus(self, other: Amount) -> Amount:
        return Amount(
            self.cpus - other.cpus,
            self.memory_mib - other.memory_mib,
            self.disk_mib - other.disk_mib,
            self.bandwidth_mbit - other.bandwidth_mbit,
            self.places - other.places,
        )

    def times(self, count: int) -> Amount:
        return Amount(
            self.cpus * count,
            self.memory_mib * count,
            self.disk_mib * count,
            self.bandwidth_mbit * count,
            self.places * count,
        )

    def fits_in(self, free: Amount) -> bool:
        return (
            self.cpus <= free.cpus
            and self.memory_mib <= free.memory_mib
            and self.disk_mib <= free.disk_mib
            and self.bandwidth_mbit <= free.bandwidth_mbit
            and self.places <= free.places
        )

    def count_in(self, free: Amount, most: int) -> int:
        """How many of this fit in `free` together, `most` at most; never below 0."""
        if not self.fits_in(free):
            return 0
        if most == 1:
            return 1
        if self.cpus > 0:
            most = min(most, free.cpus // self.cpus)
        if self.memory_mib > 0:
            most = min(most, free.memory_mib // self.memory_mib)
        if self.disk_mib > 0:
            most = min(most, free.disk_mib // self.disk_mib)
        if self.bandwidth_mbit > 0:
            most = min(most, free.bandwidth_mbit // self.bandwidth_mbit)
        if self.places > 0:
            most = min(most, free.places // self.places)
        return most


NOTHING: Final = Amount(0, 0, 0, 0, 0)


@final
class Profile:
    """What one node has left, now and later; all of `capacity` at first."""

    def __init__(self, capacity: Amount) -> None:
        self.capacity = capacity
        self.times: list[int] = [0]
        self.free: list[Amount] = [capacity]

    def step(self, at: int) -> int:
        """The index of the step that `at` is in."""
        times = self.times
        low = 0
        high = len(times)
        while high - low > 1:
            middle = (low + high) >> 1
            if times[middle] <= at:
                low = middle
            else:
                high = middle
        return low

    def free_at(self, at: int) -> Amount:
        return self.free[self.step(at)]

    # ------------------------------------------------------------ changing

    def take(self, amount: Amount, start: int, end: int) -> None:
        """Lower what is free over [start, end)."""
        if start < end:
            first = self._boundary(start)
            last = self._boundary(end)
            for i in range(first, last):
                self.free[i] = self.free[i].minus(amount)
            self._join(last)
            self._join(first)

    def give(self, amount: Amount, start: int, end: int) -> None:
        """Raise what is free over [start, end): what was taken there before."""
        if start < end:
            first = self._boundary(start)
            last = self._boundary(end)
            for i in range(first, last):
                self.free[i] = self.free[i].plus(amount)
            self._join(last)
            self._join(first)

    def forget(self, before: int) -> None:
        """Drop the steps that ended by `before`: nobody asks about the past."""
        times = self.times
        gone = self.step(before)
        if gone > 0:
            del times[:gone]
            del self.free[:gone]
            times[0] = 0

    def resize(self, capacity: Amount) -> None:
        """The node has another capacity from now on, whatever is taken of it."""
        change = capacity.minus(self.capacity)
        self.capacity = capacity
        for i in range(len(self.free)):
            self.free[i] = self.free[i].plus(change)

    def _boundary(self, at: int) -> int:
        """The index of the step that begins at `at`, split off if need be."""
        i = self.step(at)
        if self.times[i] == at or at <= 0:
            return i
        self.times.insert(i + 1, at)
        self.free.insert(i + 1, self.free[i])
        return i + 1

    def _join(self, i: int) -> None:
        if 0 < i < len(self.times) and self.free[i].same(self.free[i - 1]):
            del self.times[i]
            del self.free[i]

    # ------------------------------------------------------------ asking

    def fits(self, size: Amount, start: int, end: int) -> bool:
        """Whether one of `size` has room throughout [start, end)."""
        return self.until(size, start, end) >= end

    def until(self, size: Amount, at: int, end: int) -> int:
        """Until when one of `size` has room from `at` on: `at` if it has none, `end` at most."""
        times = self.times
        free = self.free
        i = self.step(at)
        if not size.fits_in(free[i]):
            return at
        i += 1
        count = len(times)
        while i < count and times[i] < end:
            if not size.fits_in(free[i]):
                return times[i]
            i += 1
        return end

    def openings(self, size: Amount, at: int, node: int, most: int, found: list[int]) -> None:
        """Append an opening for each member of `size` that has room at `at`, `most` at most."""
        times = self.times
        free = self.free
        count = len(times)
        i = 0 if count == 1 or at < times[1] else self.step(at)
        fit = size.count_in(free[i], most)
        i += 1
        while fit > 0 and i < count:
            left = size.count_in(free[i], fit)
            while fit > left:
                found.append(times[i] << NODE_BITS | node)
                fit -= 1
            i += 1
        while fit > 0:
            found.append(FOREVER << NODE_BITS | node)
            fit -= 1

    def windows(self, size: Amount, after: int, duration: int, most: int, opens: list[int], closes: list[int]) -> None:
        """When a block of `duration` could start here: `opens` gets the first moment, `closes` the moment after the
        last one, of each span of possible starts from `after` on, once for each member that could be there."""
        first = self.step(after)
        most = self._most(size, first, most)
        level = 1
        while level <= most:
            self._level(size, first, after, duration, level, opens, closes)
            level += 1

    def _most(self, size: Amount, first: int, most: int) -> int:
        found = 0
        for i in range(first, len(self.times)):
            found = max(found, size.count_in(self.free[i], most))
            if found == most:
                break
        return found

    def _level(
        self, size: Amount, first: int, after: int, duration: int, level: int, opens: list[int], closes: list[int]
    ) -> None:
        """The spans in which `level` members have room at once."""
        since = -1
        for i in range(first, len(self.times)):
            if size.count_in(self.free[i], level) >= level:
                if since < 0:
                    since = max(self.times[i], after)
            elif since >= 0:
                if self.times[i] - since >= duration:
                    opens.append(since)
                    closes.append(self.times[i] - duration + 1)
                since = -1
        if since >= 0:
            opens.append(since)
