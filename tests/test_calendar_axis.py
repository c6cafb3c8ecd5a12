"""Moments and marks of a time axis."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vws.calendar_axis import DAY_S, HOUR_S, STEPS_S, Clock, step_of, ticks

NOON = int(datetime(2026, 10, 12, 12, tzinfo=UTC).timestamp())  # a Monday


def labels(start: int, end: int, most: int, clock: Clock) -> list[str]:
    return [tick.label for tick in ticks(start, end, most, clock)]


def test_marks_are_on_whole_hours_of_the_readers_clock_and_a_day_is_named_where_it_begins():
    india = Clock(offset_s=5 * HOUR_S + 1800)
    assert labels(NOON, NOON + 9 * HOUR_S, 5, Clock()) == ["12:00", "14:00", "16:00", "18:00", "20:00"]
    assert labels(NOON, NOON + 9 * HOUR_S, 5, india) == ["18:00", "20:00", "22:00", "Tue 13 Oct", "02:00"]
    assert labels(NOON, NOON + 40, 4, Clock()) == ["12:00:00", "12:00:10", "12:00:20", "12:00:30"]


def test_weeks_begin_on_mondays():
    assert labels(NOON, NOON + 30 * DAY_S, 5, Clock()) == ["Mon 19 Oct", "Mon 26 Oct", "Mon 2 Nov", "Mon 9 Nov"]


def test_a_simulation_counts_days():
    assert labels(0, 2 * DAY_S, 5, Clock(virtual=True)) == ["00:00", "12:00", "day 1", "12:00"]
    assert labels(0, 4 * DAY_S, 4, Clock(virtual=True)) == ["00:00", "day 1", "day 2", "day 3"]


@pytest.mark.parametrize(
    ("clock", "told"),
    [
        (Clock(), "2026-10-12 12:00:00 to 12:00:05, UTC"),
        (Clock(offset_s=-3 * HOUR_S - 1800), "2026-10-12 08:30:00 to 08:30:05, UTC-3:30"),
        (Clock(virtual=True), "day 20738, 12:00:00 to 12:00:05, simulated time"),
    ],
)
def test_a_span_names_its_day_once(clock, told):
    assert f"{clock.span(NOON, NOON + 5)}, {clock.name}" == told


def test_a_span_over_midnight_names_both_days():
    assert Clock().span(NOON, NOON + DAY_S) == "2026-10-12 12:00:00 to 2026-10-13 12:00:00"
    assert Clock(virtual=True).span(5, 3 * DAY_S) == "day 0, 00:00:05 to day 3, 00:00:00"


@given(st.integers(0, 2**32), st.integers(1, 400 * DAY_S), st.integers(1, 20), st.integers(-12, 14))
def test_there_are_never_more_marks_than_asked_for_and_they_are_evenly_apart(start, length, most, hours):
    found = [tick.at for tick in ticks(start, start + length, most, Clock(offset_s=hours * HOUR_S))]
    step_s = step_of(length, most)
    assert len(found) <= most + 1
    assert all(start <= at < start + length for at in found)
    assert {b - a for a, b in pairwise(found)} <= {step_s}
    assert step_s in STEPS_S or step_s % STEPS_S[-1] == 0
