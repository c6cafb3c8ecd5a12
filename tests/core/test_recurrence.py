"""Rules of RFC 5545 as starts: on whose clock, from when, till when, and what is wrong with those that are none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dateutil import rrule
from hypothesis import given, settings
from hypothesis import strategies as st

from vws.core.errors import InvalidRequest
from vws.core.recurrence import INSTANCES_MAX, RULE_LENGTH_MAX, SERIES_S_MAX, starts

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone=UTC) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


NOW = at("2026-11-21T10:00:37")  # a Saturday
YEAR_S = 366 * 86400


def on_the_wall(rule: str, zone=UTC, **more) -> list[str]:
    """The starts as a clock in `zone` shows them."""
    given = {"now": NOW, "until": NOW + YEAR_S} | more
    return [datetime.fromtimestamp(t, zone).strftime("%a %m-%d %H:%M:%S") for t in starts(rule, zone=zone, **given)]


def refused(rule: str, **more) -> InvalidRequest:
    given = {"zone": UTC, "now": NOW, "until": NOW + YEAR_S} | more
    with pytest.raises(InvalidRequest) as error:
        starts(rule, **given)
    assert error.value.field == "rule"
    assert error.value.possible
    return error.value


# ---------------------------------------------------------------- what a rule means


def test_mondays_at_eight():
    until = at("2026-12-07T08:00:00")
    assert on_the_wall("FREQ=WEEKLY;BYDAY=MO;BYHOUR=8", until=until) == [
        "Mon 11-23 08:00:00",
        "Mon 11-30 08:00:00",
        "Mon 12-07 08:00:00",
    ], "the last possible start is one"


@pytest.mark.parametrize(
    ("rule", "first"),
    [
        ("FREQ=HOURLY", ["Sat 11-21 11:00:00", "Sat 11-21 12:00:00"]),
        ("FREQ=HOURLY;INTERVAL=6;BYMINUTE=15", ["Sat 11-21 12:15:00", "Sat 11-21 18:15:00"]),
        ("FREQ=DAILY", ["Sun 11-22 00:00:00", "Mon 11-23 00:00:00"]),
        ("FREQ=DAILY;BYHOUR=8,20;BYMINUTE=30", ["Sat 11-21 20:30:00", "Sun 11-22 08:30:00"]),
        ("FREQ=WEEKLY;BYHOUR=12", ["Sat 11-21 12:00:00", "Sat 11-28 12:00:00"]),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,TH;BYHOUR=9", ["Tue 12-01 09:00:00", "Thu 12-03 09:00:00"]),
        ("FREQ=MONTHLY;BYDAY=1MO", ["Mon 12-07 00:00:00", "Mon 01-04 00:00:00"]),
        ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;BYHOUR=18", ["Mon 11-30 18:00:00", "Thu 12-31 18:00:00"]),
        ("FREQ=MONTHLY;BYMONTHDAY=-1", ["Mon 11-30 00:00:00", "Thu 12-31 00:00:00"]),
        ("FREQ=MONTHLY;BYMONTHDAY=31", ["Thu 12-31 00:00:00", "Sun 01-31 00:00:00"]),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=14", ["Sun 02-14 00:00:00"]),
        ("FREQ=YEARLY;BYWEEKNO=1;BYDAY=MO", ["Mon 01-04 00:00:00"]),
        ("FREQ=YEARLY;BYYEARDAY=100,-1", ["Thu 12-31 00:00:00", "Sat 04-10 00:00:00"]),
        ("rrule:freq=daily;byhour=8; byminute=30;", ["Sun 11-22 08:30:00", "Mon 11-23 08:30:00"]),
    ],
)
def test_each_frequency_counts_from_the_last_midnight(rule, first):
    soon = at("2026-11-25T00:00:00") if "HOURLY" in rule else NOW + YEAR_S
    assert on_the_wall(rule, until=soon)[:2] == first


def test_a_first_start_gives_the_time_of_day_and_where_counting_begins():
    first = at("2026-12-01T07:45:30")
    assert on_the_wall("FREQ=WEEKLY;COUNT=2", start=first) == ["Tue 12-01 07:45:30", "Tue 12-08 07:45:30"]
    assert on_the_wall("FREQ=WEEKLY;BYDAY=MO;COUNT=1", start=first) == ["Mon 12-07 07:45:30"]


@pytest.mark.parametrize(
    ("own", "last"),
    [
        ("20261124T080000Z", "Tue 11-24 09:00:00"),
        ("20261124T080000", "Mon 11-23 09:00:00"),
        ("20261124", "Tue 11-24 09:00:00"),
    ],
)
def test_a_rule_may_say_its_own_end(own, last):
    rule = f"FREQ=DAILY;BYHOUR=9;UNTIL={own}"
    assert on_the_wall(rule, BERLIN, until=None)[-1] == last
    assert on_the_wall(rule, BERLIN, until=at("2026-11-22T12:00:00")) == ["Sun 11-22 09:00:00"], "what comes first"


def test_a_count_counts_what_is_to_come():
    assert on_the_wall("FREQ=DAILY;BYHOUR=9;COUNT=2", until=None) == ["Sun 11-22 09:00:00", "Mon 11-23 09:00:00"]


# ---------------------------------------------------------------- clocks that change


def test_eight_stays_eight_when_the_clocks_change():
    spring = {"now": at("2027-03-27T00:00:00"), "until": at("2027-03-29T12:00:00")}
    rule = "FREQ=DAILY;BYHOUR=8"
    assert on_the_wall(rule, BERLIN, **spring) == ["Sat 03-27 08:00:00", "Sun 03-28 08:00:00", "Mon 03-29 08:00:00"]
    first, second, third = starts(rule, zone=BERLIN, **spring)
    assert (second - first, third - second) == (23 * 3600, 24 * 3600)


def test_a_time_that_the_clocks_leave_out_is_taken_by_the_offset_before():
    night = {"now": at("2027-03-28T00:00:00"), "until": at("2027-03-28T06:00:00")}
    assert starts("FREQ=DAILY;BYHOUR=2;BYMINUTE=30", zone=BERLIN, **night) == (at("2027-03-28T01:30:00"),)
    # 2:30 is 3:30 then, which comes once.
    hours = starts("FREQ=HOURLY;BYMINUTE=30", zone=BERLIN, **night)
    assert hours == tuple(at(f"2027-03-28T0{hour}:30:00") for hour in (0, 1, 2, 3, 4, 5))


def test_a_time_that_comes_twice_is_its_first():
    night = {"now": at("2026-10-24T22:00:00"), "until": at("2026-10-25T06:00:00")}
    assert starts("FREQ=DAILY;BYHOUR=2;BYMINUTE=30", zone=BERLIN, **night) == (at("2026-10-25T00:30:00"),)


PARTS = st.fixed_dictionaries(
    {"FREQ": st.sampled_from(["YEARLY", "MONTHLY", "DAILY", "HOURLY"])},
    optional={
        "INTERVAL": st.integers(1, 5),
        "BYMONTH": st.integers(1, 12),
        "BYMONTHDAY": st.integers(-31, 31).filter(bool),
        "BYDAY": st.sampled_from(["MO", "TU,SU", "FR"]),
        "BYHOUR": st.sampled_from(["0", "2,14"]),
        "BYMINUTE": st.sampled_from(["0", "30,59"]),
    },
)


@settings(max_examples=150, deadline=None)
@given(PARTS, st.integers(0, 60 * 365), st.integers(1, 700))
def test_the_years_in_which_a_rule_is_followed_make_no_difference(parts, days, length):
    """The same as dateutil gives for the years themselves. It would search for ever for what is never found."""
    now = NOW + days * 86400
    until, rule = now + length * 86400, ";".join(f"{name}={value}" for name, value in parts.items())
    first = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, tzinfo=None)
    mine = _starts_or_none(rule, now, until)
    if mine is None:
        return
    earliest, last = (datetime.fromtimestamp(t, UTC).replace(tzinfo=None) for t in (now, until))
    theirs = rrule.rrulestr(rule, dtstart=first).between(earliest, last, inc=True)
    assert [datetime.fromtimestamp(t, UTC).replace(tzinfo=None) for t in mine] == theirs


def _starts_or_none(rule: str, now: int, until: int) -> tuple[int, ...] | None:
    try:
        return starts(rule, zone=UTC, now=now, until=until)
    except InvalidRequest:
        return None


# ---------------------------------------------------------------- what is wrong with a rule


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ("", "NAME=VALUE"),
        ("every monday", "NAME=VALUE"),
        ("BYDAY=MO", "no FREQ"),
        ("FREQ=SECONDLY", "FREQ=SECONDLY"),
        ("FREQ=MINUTELY", "FREQ=MINUTELY"),
        ("FREQ=WEEKLY;BYDAY=XX", "BYDAY=XX"),
        ("FREQ=WEEKLY;BYDAY=MO,", "BYDAY="),
        ("FREQ=WEEKLY;BYDAY=1MO", "BYDAY=1MO"),
        ("FREQ=MONTHLY;BYDAY=54MO", "BYDAY=54"),
        ("FREQ=MONTHLY;BYDAY=0MO", "BYDAY=0"),
        ("FREQ=DAILY;BYHOUR=24", "BYHOUR=24"),
        ("FREQ=DAILY;BYHOUR=-1", "BYHOUR=-1"),
        ("FREQ=DAILY;BYHOUR=8:30", "BYHOUR=8:30"),
        ("FREQ=DAILY;BYHOUR=٨", "BYHOUR=٨"),
        ("FREQ=DAILY;BYMINUTE=60", "BYMINUTE=60"),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL=0"),
        ("FREQ=DAILY;INTERVAL=1000000000000", "INTERVAL=1000000000000"),
        ("FREQ=DAILY;COUNT=0", "COUNT=0"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270101", "COUNT and UNTIL"),
        ("FREQ=DAILY;UNTIL=2027-01-01", "UNTIL=2027-01-01"),
        ("FREQ=DAILY;UNTIL=20270229", "UNTIL=20270229"),
        ("FREQ=DAILY;FREQ=DAILY", "FREQ is given twice"),
        ("FREQ=DAILY;BYEASTER=0", "no part BYEASTER"),
        ("FREQ=DAILY;BYMONTHDAY=0", "BYMONTHDAY=0"),
        ("FREQ=WEEKLY;BYMONTHDAY=1", "BYMONTHDAY means nothing with FREQ=WEEKLY"),
        ("FREQ=MONTHLY;BYWEEKNO=3", "BYWEEKNO means nothing with FREQ=MONTHLY"),
        ("FREQ=DAILY;BYYEARDAY=3", "BYYEARDAY means nothing with FREQ=DAILY"),
        ("FREQ=MONTHLY;BYSETPOS=1", "BYSETPOS"),
        ("FREQ=HOURLY;BYMINUTE=0;BYSETPOS=1", "BYSETPOS"),
        ("FREQ=DAILY;WKST=MONDAY", "WKST=MONDAY"),
        ("DTSTART:20261123T080000Z\nRRULE:FREQ=DAILY", "DTSTART is not part"),
        ("FREQ=HOURLY;INTERVAL=2;BYHOUR=1", "cannot be followed"),
        ("FREQ=DAILY;BYHOUR=" + ",".join(["8"] * RULE_LENGTH_MAX), "too long"),
    ],
)
def test_a_refusal_names_the_part(rule, names):
    assert names in refused(rule).problem


@pytest.mark.parametrize("frequency", ["YEARLY", "MONTHLY", "DAILY", "HOURLY"])
def test_what_never_comes_true_is_refused_at_once(frequency):
    assert "names no time before 2027-11-22" in refused(f"FREQ={frequency};BYMONTH=2;BYMONTHDAY=30").problem


def test_a_rule_without_an_end_is_refused():
    assert "no end" in refused("FREQ=YEARLY", until=None).problem


def test_a_rule_that_ends_before_now_is_refused():
    assert "names no time" in refused("FREQ=DAILY;UNTIL=20261120").problem
    assert "names no time" in refused("FREQ=DAILY", until=NOW).problem


def test_a_series_is_bounded():
    rule = "FREQ=HOURLY"
    fits = NOW + INSTANCES_MAX * 3600
    assert len(starts(rule, zone=UTC, now=NOW, until=fits)) == INSTANCES_MAX
    assert f"more than {INSTANCES_MAX}" in refused(rule, until=fits + 3600).problem


def test_a_count_that_reaches_beyond_all_bounds_says_how_many_there_are():
    error = refused("FREQ=YEARLY;COUNT=50", until=None)
    years = SERIES_S_MAX // (365 * 86400)
    assert error.problem.startswith(f"only {years} instances lie before ")
    assert error.possible == f"COUNT={years}, or fewer"


def test_a_start_that_is_over_is_no_instance():
    begun = NOW - timedelta(days=3).total_seconds()
    assert starts("FREQ=DAILY;COUNT=1", zone=UTC, now=NOW, start=int(begun)) == (NOW,)
