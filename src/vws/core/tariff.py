"""What time costs: the price of a node-hour by kind of lease, time of day and day of the week.

A charge is the integral of a price over a span, so it is the same whether a bill covers a month or its days one by one.
Prices are piecewise constant: a `Clock` cuts the interval of a report once where the factor of the bands changes, keeps
the running integral at each cut, and a span then costs two look-ups however many nights it lasts.

Bands are times of the site's own clock. The core knows no time zones: a clock is given as a function from UTC seconds
to the offset of local time, and where that changes (daylight saving) the interval is cut too. An hour that a spring
night does not have costs nothing, one that an autumn night has twice is paid twice.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from vws.core.errors import InvalidRequest

DAY_S = 86_400
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = r"([01]\d|2[0-3]):[0-5]\d"
EPOCH_WEEKDAY = 3  # 1 January 1970 was a Thursday

# Seconds that local time is ahead of UTC, at an instant.
OffsetAt = Callable[[float], int]


@dataclass(frozen=True, slots=True)
class Band:
    """From `begin` to `end` by the site's clock on `days`, the price is `factor` times as high. Until the next morning
    if the end is not after the beginning; the day is then that of the beginning."""

    factor: float = 1.0
    days: tuple[str, ...] = DAYS
    begin: str = "00:00"
    end: str = "24:00"


@dataclass(frozen=True, slots=True)
class Tariff:
    """unit: what charges are called. price: the name of a function in PRICES, or module:function. base: of one hour.

    kinds: a factor for a kind of lease (1 for those not named). preemptible, urgent: factors for leases that are so.
    bands: the first that covers an instant gives its factor (1 if none does). time_zone: an IANA name.
    """

    unit: str = "node-hour"
    price: str = "per-node-hour"
    base: float = 1.0
    kinds: dict[str, float] = field(default_factory=dict)
    preemptible: float = 1.0
    urgent: float = 1.0
    bands: tuple[Band, ...] = ()
    time_zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Metered:
    """What is priced: a part of a lease, in hours at the bands' factors (an hour at half price counts as half)."""

    kind: str
    preemptible: bool
    urgent: bool
    owner: str
    vo: str
    node_hours: float
    cpu_hours: float


# A price must be proportional to the hours: a span may be priced in one piece or in many.
Price = Callable[[Tariff, Metered], float]


def per_node_hour(tariff: Tariff, metered: Metered) -> float:
    return metered.node_hours * tariff.base * factor_of(tariff, metered)


def per_cpu_hour(tariff: Tariff, metered: Metered) -> float:
    return metered.cpu_hours * tariff.base * factor_of(tariff, metered)


PRICES: Mapping[str, Price] = {"per-node-hour": per_node_hour, "per-cpu-hour": per_cpu_hour}


def factor_of(tariff: Tariff, metered: Metered) -> float:
    """By what the lease is: its kind, preemptible, urgent."""
    factor = tariff.kinds.get(metered.kind, 1.0)
    if metered.preemptible:
        factor *= tariff.preemptible
    return factor * tariff.urgent if metered.urgent else factor


def check_tariff(tariff: Tariff, kinds: tuple[str, ...]) -> Tariff:
    """The tariff, or InvalidRequest naming the setting that is wrong. kinds: those that leases may be of."""
    factors = {"base": tariff.base, "preemptible": tariff.preemptible, "urgent": tariff.urgent}
    factors |= {f"kinds.{kind}": factor for kind, factor in tariff.kinds.items()}
    factors |= {f"bands[{i}].factor": band.factor for i, band in enumerate(tariff.bands)}
    for name, factor in factors.items():
        if factor < 0:
            raise _wrong(f"tariff.{name}", factor, "0 or more")
    for kind in tariff.kinds:
        if kind not in kinds:
            raise _wrong(f"tariff.kinds.{kind}", kind, f"a kind of lease: {', '.join(kinds)}")
    for i, band in enumerate(tariff.bands):
        _check_band(band, f"tariff.bands[{i}]")
    return tariff


def _check_band(band: Band, where: str) -> None:
    for day in band.days:
        if day not in DAYS:
            raise _wrong(f"{where}.days", day, f"some of {', '.join(DAYS)}")
    if not re.fullmatch(_TIME, band.begin):
        raise _wrong(f"{where}.begin", band.begin, "a time from 00:00 to 23:59")
    if not re.fullmatch(f"{_TIME}|24:00", band.end):
        raise _wrong(f"{where}.end", band.end, "a time from 00:00 to 24:00")


def _wrong(where: str, asked: object, possible: str) -> InvalidRequest:
    return InvalidRequest(f"{where} is {asked!r}", field=where, asked=str(asked), possible=possible)


# ---------------------------------------------------------------- the site's clock


@dataclass(frozen=True, slots=True)
class Clock:
    """Local time over [start, end): where its days begin, and what hours cost.

    midnights: where a local day begins within the interval, in UTC seconds.
    """

    start: float
    end: float
    midnights: tuple[float, ...]
    _cuts: tuple[float, ...]
    _hours: tuple[float, ...]
    _factors: tuple[float, ...]

    @classmethod
    def over(cls, start: float, end: float, offset_at: OffsetAt, bands: tuple[Band, ...] = ()) -> Clock:
        windows = [_window(band) for band in bands]
        times = sorted({0, *(edge % DAY_S for _, begin, stop, _ in windows for edge in (begin, stop))})
        midnights: list[float] = []
        cuts, hours, factors = [start], [0.0], [1.0]
        day = int(start + offset_at(start)) // DAY_S
        for low, high, offset in _offsets(start, end, offset_at):
            for at in _edges(low, high, offset, times):
                local = int(at + offset)
                # Not "where it is midnight": a change of the clock may leave midnight out, or have it twice.
                if local // DAY_S > day:
                    day = local // DAY_S
                    midnights.append(at)
                if at > cuts[-1]:
                    hours.append(hours[-1] + factors[-1] * (at - cuts[-1]) / 3600)
                    cuts.append(at)
                    factors.append(1.0)
                factors[-1] = _factor_at(local, windows)
        return cls(start, end, tuple(midnights), tuple(cuts), tuple(hours), tuple(factors))

    def hours(self, start: float, end: float) -> float:
        """Hours of [start, end), each times its factor; what lies outside the clock's interval counts nothing."""
        start, end = max(start, self.start), min(end, self.end)
        return self._until(end) - self._until(start) if end > start else 0.0

    def _until(self, at: float) -> float:
        i = bisect_right(self._cuts, at) - 1
        return self._hours[i] + self._factors[i] * (at - self._cuts[i]) / 3600

    def days(self, start: float, end: float) -> Iterator[tuple[int, float, float]]:
        """[start, end) cut at midnights, with the number of each part's day (0: that of the interval's start)."""
        day = bisect_right(self.midnights, start)
        while start < end:
            stop = min(end, self.midnights[day]) if day < len(self.midnights) else end
            yield day, start, stop
            start, day = stop, day + 1


Window = tuple[frozenset[int], int, int, float]


def _window(band: Band) -> Window:
    begin, end = _seconds(band.begin), _seconds(band.end)
    return frozenset(map(DAYS.index, band.days)), begin, end if end > begin else end + DAY_S, band.factor


def _seconds(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60


def _factor_at(local: int, windows: list[Window]) -> float:
    day, time = divmod(local, DAY_S)
    weekday = (day + EPOCH_WEEKDAY) % 7
    for days, begin, end, factor in windows:
        since_yesterday = time + DAY_S < end and (weekday - 1) % 7 in days
        if (begin <= time < end and weekday in days) or since_yesterday:
            return factor
    return 1.0


def _offsets(start: float, end: float, offset_at: OffsetAt) -> Iterator[tuple[float, float, int]]:
    """[start, end) in parts of one offset. Daily looks see every change: no place has changed its clock twice a day."""
    low, offset = start, offset_at(start)
    at = start
    while at < end:
        following = min(at + DAY_S, end)
        if offset_at(following) != offset:
            change = _change(at, following, offset_at)
            if change >= end:
                break
            yield low, change, offset
            low, offset, following = change, offset_at(change), change
        at = following
    yield low, end, offset


def _change(before: float, after: float, offset_at: OffsetAt) -> float:
    """The whole second at which the offset changes."""
    old, low, high = offset_at(before), int(before), int(-(-after // 1))
    while high - low > 1:
        middle = (low + high) // 2
        if offset_at(middle) == old:
            low = middle
        else:
            high = middle
    return float(high)


def _edges(low: float, high: float, offset: int, times: list[int]) -> Iterator[float]:
    """`low`, and every instant of [low, high) at which local time is one of `times` (seconds of a day)."""
    yield low
    day = int(low + offset) // DAY_S
    while day * DAY_S - offset < high:
        for time in times:
            at = float(day * DAY_S + time - offset)
            if low < at < high:
                yield at
        day += 1
