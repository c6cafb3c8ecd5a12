"""Who could give way: all who hold nodes and may be made to, and of those the ones that it takes.

Most often there is no time even to save one that is alone on its node. So those who hold nodes are kept by what that
takes, and whoever would take too long need not be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Final, final

from vws.core.plan.demand import BOOKED, Demand
from vws.core.plan.rules import Rules

# Nothing is to be saved of those that have not begun; those that may be killed need not be.
AT_WILL: Final = (0, 0)


@final
class Preemptible:
    """Those who hold nodes and may be made to give way, by the largest memory of a member and how many there are."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._alike: dict[tuple[int, int], dict[str, Demand]] = {AT_WILL: {}}

    def put(self, demand: Demand) -> None:
        """It holds nodes, or has begun, or has other sizes than before."""
        self.remove(demand)
        if demand.preemptible:
            at_will = demand.phase == BOOKED or demand.restartable
            key = AT_WILL if at_will else (demand.largest_mib, demand.members)
            alike = self._alike.get(key)
            if alike is None:
                alike = self._alike[key] = {}
            alike[demand.id] = demand
            demand.alike = alike

    def remove(self, demand: Demand) -> None:
        if demand.alike is not None:
            del demand.alike[demand.id]
            demand.alike = None

    def all(self) -> list[Demand]:
        return [demand for alike in self._alike.values() for demand in alike.values()]

    def within(self, time_s: int) -> list[Demand]:
        """Those whom so much time may be enough to save."""
        found: list[Demand] = []
        for (largest_mib, members), alike in self._alike.items():
            if alike and self._rules.alone_s(largest_mib, members) <= time_s:
                found.extend(alike.values())
        return found

    def save_times(self, may: Callable[[Demand], bool]) -> Iterator[int]:
        """How long it takes to save each who may: each length once, the shortest first. They are looked at as far as
        they are asked for."""
        known: set[int] = set()
        ahead: list[int] = []
        for least_s, key in sorted([(self._rules.alone_s(*key), key) for key in self._alike if self._alike[key]]):
            while ahead and ahead[0] < least_s:
                yield heappop(ahead)
            for demand in self._alike[key].values():
                save_s = self._rules.save_s(demand, demand.block.hosts if demand.block is not None else None)
                if save_s not in known and may(demand):
                    known.add(save_s)
                    heappush(ahead, save_s)
                if key[1] == 1 and save_s in known:
                    break  # the same for all of them
        while ahead:
            yield heappop(ahead)


@final
class Givers:
    """Demands that could give way, the cheapest first: those that have not begun, then those with few members and
    little time behind them. They are put in order as they are asked for: mostly the first few will do."""

    def __init__(self) -> None:
        self._by_members: dict[int, list[Demand]] = {}

    def add(self, demand: Demand, members: int) -> None:
        """members: of one that has begun; 0 for others."""
        self._by_members.setdefault(members, []).append(demand)

    def in_order(self, hard: Demand, may: Callable[[Demand, Demand], bool] | None) -> Iterator[Demand]:
        """Those that may, by the site's policy, be made to give way for a hard one."""
        for members in sorted(self._by_members):
            group = self._by_members[members]
            if members == 0:
                group.sort(key=_number)
            else:
                group.sort(key=_taken)
                group.sort(key=_run, reverse=True)
            for victim in group:
                if may is None or may(hard, victim):
                    yield victim

    def all(self) -> list[Demand]:
        return [demand for group in self._by_members.values() for demand in group]


def _number(demand: Demand) -> int:
    return demand.number


def _taken(demand: Demand) -> int:
    return demand.taken


def _run(demand: Demand) -> int:
    return demand.block.run if demand.block is not None else 0
