"""One node's free room over time.

A profile is a step function: each `Step` is what the node has left from its beginning until the next one's, the last
step lasting for ever. Taking room for an interval lowers the steps inside it; giving it back raises them again, and
equal neighbours become one step. Profiles hold no leases: who took what is the planner's to know, and to give back
exactly. Steps are linked and changed in place: most questions are about the first few of them.

This module and those it shares the planner with are compiled by mypyc where a compiler is at hand, and run the same
uncompiled. Hence plain classes, whole numbers (`i64`: as the machine has them), and loops where a comprehension would
be usual elsewhere.

An *opening* is room for one more member of a size on a node, from a moment until another. Openings are single numbers
(`until << NODE_BITS | node`): sorting them sorts by how long they stay open, then by node.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64, mypyc_attr

NODE_BITS: Final = 20
NODE_MASK: Final = (1 << NODE_BITS) - 1
# Past every time that occurs; with the node's bits it still fits a machine word.
FOREVER: Final = 1 << 40
# So many steps are gone along before an index is made of all.
NEAR: Final = 8


@mypyc_attr(acyclic=True)
class Amount:
    """How much of a node: CPUs, memory and disk in MiB, bandwidth in Mbit/s, places (for one workspace each)."""

    def __init__(self, cpus: i64, memory_mib: i64, disk_mib: i64 = 0, bandwidth_mbit: i64 = 0, places: i64 = 1) -> None:
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

    @final
    def same(self, other: Amount) -> bool:
        return (
            self.cpus == other.cpus
            and self.memory_mib == other.memory_mib
            and self.disk_mib == other.disk_mib
            and self.bandwidth_mbit == other.bandwidth_mbit
            and self.places == other.places
        )

    @final
    def plus(self, other: Amount) -> Amount:
        return Amount(
            self.cpus + other.cpus,
            self.memory_mib + other.memory_mib,
            self.disk_mib + other.disk_mib,
            self.bandwidth_mbit + other.bandwidth_mbit,
            self.places + other.places,
        )

    @final
    def minus(self, other: Amount) -> Amount:
        return Amount(
            self.cpus - other.cpus,
            self.memory_mib - other.memory_mib,
            self.disk_mib - other.disk_mib,
            self.bandwidth_mbit - other.bandwidth_mbit,
            self.places - other.places,
        )

    @final
    def times(self, count: i64) -> Amount:
        return Amount(
            self.cpus * count,
            self.memory_mib * count,
            self.disk_mib * count,
            self.bandwidth_mbit * count,
            self.places * count,
        )

    @final
    def fits_in(self, free: Amount) -> bool:
        return (
            self.cpus <= free.cpus
            and self.memory_mib <= free.memory_mib
            and self.disk_mib <= free.disk_mib
            and self.bandwidth_mbit <= free.bandwidth_mbit
            and self.places <= free.places
        )

    @final
    def count_in(self, free: Amount, most: i64) -> i64:
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
@mypyc_attr(acyclic=True)
class Step(Amount):
    """What is left from `begin` on, until `next` begins."""

    def __init__(self, begin: i64, free: Amount, next: Step | None) -> None:
        super().__init__(free.cpus, free.memory_mib, free.disk_mib, free.bandwidth_mbit, free.places)
        self.begin = begin
        self.next = next

    def count(self, size: Amount, end: i64, most: i64) -> i64:
        """How many of `size`, `most` at most, have room together from this step on until `end`."""
        step: Step | None = self
        while most > 0 and step is not None and step.begin < end:
            most = size.count_in(step, most)
            step = step.next
        return most

    def add(self, amount: Amount, times: i64) -> None:
        self.cpus += amount.cpus * times
        self.memory_mib += amount.memory_mib * times
        self.disk_mib += amount.disk_mib * times
        self.bandwidth_mbit += amount.bandwidth_mbit * times
        self.places += amount.places * times


@final
class Profile:
    """What one node has left, now and later; all of `capacity` at first."""

    def __init__(self, capacity: Amount) -> None:
        self.capacity = capacity
        self.first = Step(0, capacity, None)
        self._index: list[Step] | None = None  # all of them, for who asks far ahead; None: not known

    @property
    def times(self) -> list[int]:
        """When steps begin."""
        return [step.begin for step in self.steps()]

    @property
    def free(self) -> list[Amount]:
        """What is left in each step."""
        return [step.plus(NOTHING) for step in self.steps()]

    def steps(self) -> list[Step]:
        found: list[Step] = []
        step: Step | None = self.first
        while step is not None:
            found.append(step)
            step = step.next
        return found

    def during(self, at: i64) -> Step:
        """The step that `at` is in."""
        step = self.first
        following = step.next
        gone: i64 = 0 if self._index is None else NEAR - 2
        while following is not None and following.begin <= at:
            if gone == NEAR:
                return self._far(at)
            gone += 1
            step = following
            following = step.next
        return step

    def _far(self, at: i64) -> Step:
        index = self._index
        if index is None:
            index = self._index = self.steps()
        low: i64 = 0
        high: i64 = len(index)
        while high - low > 1:
            middle = (low + high) >> 1
            if index[middle].begin <= at:
                low = middle
            else:
                high = middle
        return index[low]

    def step(self, at: int) -> int:
        """The index of the step that `at` is in."""
        return sum(begin <= at for begin in self.times[1:])

    def free_at(self, at: i64) -> Amount:
        return self.during(at).plus(NOTHING)

    # ------------------------------------------------------------ changing

    def take(self, amount: Amount, start: i64, end: i64) -> None:
        """Lower what is free over [start, end)."""
        if start < end:
            self._add(amount, start, end, -1)

    def give(self, amount: Amount, start: i64, end: i64) -> None:
        """Raise what is free over [start, end): what was taken there before."""
        if start < end:
            self._add(amount, start, end, 1)

    def _add(self, amount: Amount, start: i64, end: i64, times: i64) -> None:
        self._index = None
        before: Step | None = None
        step = self.first
        following = step.next
        while following is not None and following.begin <= start:
            before, step = step, following
            following = step.next
        if step.begin < start:
            before = step
            before.next = step = Step(start, step, following)
        changed = step
        while following is not None and following.begin < end:
            step.add(amount, times)
            step = following
            following = step.next
        if following is None or following.begin > end:
            following = step.next = Step(end, step, following)
        step.add(amount, times)
        if following.same(step):
            step.next = following.next
        if before is not None and before.same(changed):
            before.next = changed.next

    def forget(self, before: i64) -> None:
        """Drop the steps that ended by `before`: nobody asks about the past."""
        step = self.during(before)
        if step is not self.first:
            step.begin = 0
            self.first = step
            self._index = None

    def resize(self, capacity: Amount) -> None:
        """The node has another capacity from now on, whatever is taken of it."""
        change = capacity.minus(self.capacity)
        self.capacity = capacity
        for step in self.steps():
            step.add(change, 1)

    # ------------------------------------------------------------ asking

    def fits(self, size: Amount, start: i64, end: i64) -> bool:
        """Whether one of `size` has room throughout [start, end)."""
        return self.until(size, start, end) >= end

    def until(self, size: Amount, at: i64, end: i64) -> i64:
        """Until when one of `size` has room from `at` on: `at` if it has none, `end` at most."""
        step: Step | None = self.during(at)
        if step is None or not size.fits_in(step):
            return at
        step = step.next
        while step is not None and step.begin < end:
            if not size.fits_in(step):
                return step.begin
            step = step.next
        return end

    def count(self, size: Amount, start: i64, end: i64, most: i64) -> i64:
        """How many of `size`, `most` at most, have room together throughout [start, end)."""
        return self.during(start).count(size, end, most)

    def least(self, start: i64, end: i64) -> Amount:
        """The least of everything that is left at any time in [start, end)."""
        step = self.during(start)
        least = Step(start, step, None)
        following = step.next
        while following is not None and following.begin < end:
            least.cpus = min(least.cpus, following.cpus)
            least.memory_mib = min(least.memory_mib, following.memory_mib)
            least.disk_mib = min(least.disk_mib, following.disk_mib)
            least.bandwidth_mbit = min(least.bandwidth_mbit, following.bandwidth_mbit)
            least.places = min(least.places, following.places)
            following = following.next
        return least

    def openings(self, size: Amount, at: i64, node: i64, most: i64, found: list[int]) -> None:
        """Append an opening for each member of `size` that has room at `at`, `most` at most."""
        first = self.during(at)
        fit = size.count_in(first, most)
        step = first.next
        while fit > 0 and step is not None:
            left = size.count_in(step, fit)
            while fit > left:
                found.append(step.begin << NODE_BITS | node)
                fit -= 1
            step = step.next
        while fit > 0:
            found.append(FOREVER << NODE_BITS | node)
            fit -= 1

    def windows(
        self,
        size: Amount,
        after: i64,
        duration: i64,
        most: i64,
        opens: list[int],
        closes: list[int],
        latest: i64 = FOREVER,
    ) -> i64:
        """When a block of `duration` could start here: `opens` gets the first moment, `closes` the moment after the
        last one, of each span of possible starts from `after` to `latest`, once for each member that could be there.
        So many of the last ones never close, which is the answer."""
        if most == 1:
            return self._windows_of_one(size, after, duration, opens, closes, latest)
        since: list[int] = []  # when room for the first, second, ... member opened
        fit: i64 = 0
        step: Step | None = self.during(after)
        while step is not None:
            begin = step.begin
            count = size.count_in(step, most)
            while fit > count:
                fit -= 1
                opened: i64 = since.pop()
                if begin - opened >= duration:
                    opens.append(opened)
                    closes.append(begin - duration + 1)
            if begin > latest:
                if fit == 0:
                    return 0
            else:
                while fit < count:
                    fit += 1
                    since.append(max(begin, after))
            step = step.next
        opens.extend(since)
        return fit

    def _windows_of_one(
        self, size: Amount, after: i64, duration: i64, opens: list[int], closes: list[int], latest: i64
    ) -> i64:
        since: i64 = -1
        step: Step | None = self.during(after)
        while step is not None:
            begin = step.begin
            if size.fits_in(step):
                if since < 0:
                    if begin > latest:
                        return 0
                    since = max(begin, after)
            elif since >= 0:
                if begin - since >= duration:
                    opens.append(since)
                    closes.append(begin - duration + 1)
                since = -1
            step = step.next
        if since < 0:
            return 0
        opens.append(since)
        return 1
