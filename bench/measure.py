"""What a measurement is: a number with its target, and the few statistics that the benches need."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Number:
    """One line of a table. target: the most that `measured` may be, in the same unit; None: told for comparison only.

    beside: what it has to be read with (the spread, the other side of a comparison).
    """

    what: str
    measured: float
    unit: str
    target: float | None = None
    beside: str = ""

    @property
    def missed(self) -> bool:
        return self.target is not None and self.measured > self.target

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "MISSED" if self.missed else "met"


@dataclass(frozen=True)
class Section:
    """What one bench found. how: what was done, so that a reader can judge the numbers and do it again."""

    name: str
    title: str
    how: str
    numbers: tuple[Number, ...]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` (0 to 1) of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def spread(values: Sequence[float], unit: str) -> str:
    """Between which values they lay, and how many there were."""
    return f"{shown(min(values))} to {shown(max(values))} {unit} in {len(values)}"


def shown(value: float) -> str:
    """Three digits that count, no more."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
