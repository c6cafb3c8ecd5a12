"""The time axis of a calendar: where its marks are, and how a moment is written.

Marks fall on whole hours, days and weeks of the reader's clock, so they are laid
on seconds shifted by the clock's distance from UTC and then shifted back. A
simulation has no calendar: its seconds are counted in days from its start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
STEPS_S = (
    1, 2, 5, 10, 15, 30,
    MINUTE_S, 2 * MINUTE_S, 5 * MINUTE_S, 10 * MINUTE_S, 15 * MINUTE_S, 30 * MINUTE_S,
    HOUR_S, 2 * HOUR_S, 3 * HOUR_S, 6 * HOUR_S, 12 * HOUR_S,
    DAY_S, 2 * DAY_S, 7 * DAY_S, 14 * DAY_S, 28 * DAY_S, 84 * DAY_S, 364 * DAY_S,
)  # fmt: skip
# The epoch was a Thursday; weeks begin on Mondays.
MONDAY_S = 4 * DAY_S
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """How a calendar's seconds are read: `offset_s` east of UTC, or since a simulation's start if `virtual`."""

    offset_s: int = 0
    virtual: bool = False

    @property
    def name(self) -> str:
        if self.virtual:
            return "simulated time"
        if not self.offset_s:
            return "UTC"
        hours, rest = divmod(abs(self.offset_s), HOUR_S)
        return f"UTC{'+' if self.offset_s > 0 else '-'}{hours}" + (f":{rest // MINUTE_S:02}" if rest else "")

    def date(self, at: int) -> datetime:
        return EPOCH + timedelta(seconds=at + self.offset_s)

    def moment(self, at: int) -> str:
        """In full: `2026-10-12 14:00:00`, or `day 2, 14:00:00`."""
        if not self.virtual:
            return f"{self.date(at):%Y-%m-%d %H:%M:%S}"
        day, rest = divmod(at, DAY_S)
        return f"day {day}, {_clock(rest, seconds=True)}"

    def span(self, start: int, end: int) -> str:
        """From when to when, the day named once if it is the same."""
        first, last = self.moment(start), self.moment(end)
        day = first[:-8]
        return f"{first} to {last[-8:] if last.startswith(day) else last}"


@dataclass(frozen=True, slots=True)
class Tick:
    at: int
    label: str
    major: bool  # a day begins


def step_of(length_s: float, ticks_max: int) -> int:
    """The shortest step (s) that makes at most `ticks_max` marks on `length_s` seconds."""
    wanted = length_s / max(ticks_max, 1)
    longest = STEPS_S[-1]
    return next((step for step in STEPS_S if step >= wanted), longest * max(1, -(-int(wanted) // longest)))


def ticks(start: int, end: int, ticks_max: int, clock: Clock) -> Iterator[Tick]:
    step_s = step_of(end - start, ticks_max)
    shift_s = 0 if clock.virtual else clock.offset_s - (MONDAY_S if step_s % (7 * DAY_S) == 0 else 0)
    first = -((-start - shift_s) // step_s) * step_s - shift_s
    for at in range(first, end, step_s):
        midnight = (at + (0 if clock.virtual else clock.offset_s)) % DAY_S == 0
        yield Tick(at, _label(at, step_s, midnight, clock), midnight)


def _label(at: int, step_s: int, midnight: bool, clock: Clock) -> str:
    if clock.virtual:
        return f"day {at // DAY_S}" if midnight and at else _clock(at % DAY_S, seconds=step_s < MINUTE_S)
    if midnight:
        return f"{clock.date(at):%a} {clock.date(at).day} {clock.date(at):%b}"
    return f"{clock.date(at):%H:%M:%S}" if step_s < MINUTE_S else f"{clock.date(at):%H:%M}"


def _clock(seconds_of_day: int, *, seconds: bool) -> str:
    minutes, rest = divmod(seconds_of_day, MINUTE_S)
    return f"{minutes // 60:02}:{minutes % 60:02}" + (f":{rest:02}" if seconds else "")
