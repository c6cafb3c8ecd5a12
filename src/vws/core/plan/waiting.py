"""Who waits, in turn; and by what would have to be open for him.

On a large site very many wait, and nearly all of them in vain: each time that something is freed it is only asked who
could begin on what is open now. So they are kept in groups of those who ask for the same number of members of the same
size, and in each group by how long a block they need at least: one look at what is open tells for whom it is enough.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final, final

from vws.core.plan.demand import Demand, Part
from vws.core.plan.placing import Placing
from vws.core.plan.profile import FOREVER, Amount

# Those of whom no group says enough: their memory is on nodes, or they ask for members of several sizes.
EACH_APART: Final = (0, 0)


@final
class Group:
    """Those who ask for as many openings of the same kind, by the shortest block that is worth having."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.total = part.asked.times(part.openings_needed)
        self.leasts: list[int] = []
        self.demands: list[Demand] = []

    def put(self, demand: Demand, least: int) -> None:
        at = bisect_right(self.leasts, least)
        self.leasts.insert(at, least)
        self.demands.insert(at, demand)

    def remove(self, demand: Demand, least: int) -> None:
        at = bisect_left(self.leasts, least)
        while self.demands[at] is not demand:
            at += 1
        del self.leasts[at]
        del self.demands[at]


@final
class Waiting:
    """Those who wait, by what would have to be open for them."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing
        self._groups: dict[tuple[int, int], Group] = {}
        self._apart: dict[str, Demand] = {}
        self._new: dict[str, Demand] = {}  # not put in a group yet: most are gone before anybody asks for them
        self._kept_as: dict[
            str, tuple[tuple[int, int], int]
        ] = {}  # the group, and the least that it was put there with

    def has(self, demand: Demand) -> bool:
        return demand.id in self._new or demand.id in self._kept_as

    def put(self, demand: Demand) -> None:
        """It waits, or asks for something else than before."""
        self.remove(demand)
        self._new[demand.id] = demand

    def _put_in_group(self, demand: Demand) -> None:
        if demand.saved_on or len(demand.asks) > 1:
            self._apart[demand.id] = demand
            self._kept_as[demand.id] = EACH_APART, 0
            return
        part = demand.asks[0]
        key = (id(self._placing.timeline.kind(part)), part.openings_needed)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(part)
        demand.least = self._placing.least(demand)
        self._kept_as[demand.id] = key, demand.least
        group.put(demand, demand.least)

    def remove(self, demand: Demand) -> None:
        known = self._kept_as.pop(demand.id, None)
        if known is None:
            self._new.pop(demand.id, None)
            return
        key, least = known
        if key == EACH_APART:
            del self._apart[demand.id]
            return
        group = self._groups[key]
        group.remove(demand, least)
        if not group.demands:
            del self._groups[key]

    def hopeful(self, free: Amount, now: int) -> list[Demand]:
        """Those for whom it is not sure, without looking at nodes, that they cannot begin now; in no order. free: what
        is not in use, wherever it is."""
        for demand in self._new.values():
            self._put_in_group(demand)
        self._new = {}
        found: list[Demand] = []
        timeline = self._placing.timeline
        for group in self._groups.values():
            if group.total.fits_in(free):
                until = timeline.open_until(group.part, now)
                if until >= FOREVER:
                    found.extend(group.demands)
                elif until > now:
                    found.extend(group.demands[: bisect_right(group.leasts, until - now)])
        for demand in self._apart.values():
            if demand.total.fits_in(free) and not self._placing.is_hopeless(demand, now):
                found.append(demand)
        return found
