"""Times and rules: what is read on which clock, what is refused and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vws.cli.times import parse_rule, parse_time, show_time, zone_name
from vws.core.recurrence import read

# A Saturday, 11:00:37 in Berlin.
NOW = datetime(2026, 11, 21, 10, 0, 37, tzinfo=UTC).timestamp()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts the reader into a zone."""

    def put(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("+90s", "2026-11-21T10:02:07"),
        ("+1h30m", "2026-11-21T11:30:37"),
        ("2026-11-23T08:00:00Z", "2026-11-23T08:00:00"),
        ("2026-11-23T08:00+05:30", "2026-11-23T02:30:00"),
        ("2026-11-23t08:00", "2026-11-23T07:00:00"),
        ("2026-11-23 08:00:15", "2026-11-23T07:00:15"),
        ("2026-11-23", "2026-11-22T23:00:00"),
        ("2027-07-01 08:00", "2027-07-01T06:00:00"),
        ("14:30", "2026-11-21T13:30:00"),
        ("8:05", "2026-11-22T07:05:00"),
        ("11:00:37", "2026-11-22T10:00:37"),
        ("today 08:00", "2026-11-21T07:00:00"),
        ("tomorrow 08:00", "2026-11-22T07:00:00"),
        ("Monday 08:00", "2026-11-23T07:00:00"),
        ("sat 12:00", "2026-11-21T11:00:00"),
        ("saturday 11:00", "2026-11-28T10:00:00"),
    ],
)
def test_times_are_read_on_the_readers_clock(clock: Callable[[str], None], text: str, meant: str) -> None:
    clock("Europe/Berlin")
    assert parse_time(text, NOW) == utc(meant)


def test_tomorrow_at_eight_is_at_eight_after_a_change_of_clocks(clock: Callable[[str], None]) -> None:
    clock("Europe/Berlin")
    assert parse_time("tomorrow 08:00", utc("2027-03-27T12:00:00")) == utc("2027-03-28T06:00:00")


@pytest.mark.parametrize(
    "text",
    ["", "soon", "25:00", "8", "08:60", "tomorrow", "monday", "mo 08:00", "yesterday 08:00", "2026-13-01", "1800000000",
     "2026-11-23T08:00:00+99:00", "2026-02-29 08:00"],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a time.*write 14:30, tomorrow 08:00"):
        parse_time(text, NOW)


def test_a_pause_needs_a_unit() -> None:
    with pytest.raises(ValueError, match="which unit: 90s"):
        parse_time("+90", NOW)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FREQ=WEEKLY;BYDAY=MO", "FREQ=WEEKLY;BYDAY=MO"),
        (" rrule:freq=daily ", "rrule:freq=daily"),
        ("hourly", "FREQ=HOURLY"),
        ("Daily  08:00", "FREQ=DAILY;BYHOUR=8;BYMINUTE=0;BYSECOND=0"),
        ("weekdays 7:30", "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR;BYHOUR=7;BYMINUTE=30;BYSECOND=0"),
        ("monday 08:00", "FREQ=WEEKLY;BYDAY=MO;BYHOUR=8;BYMINUTE=0;BYSECOND=0"),
        ("tue, friday 23:59:30", "FREQ=WEEKLY;BYDAY=TU,FR;BYHOUR=23;BYMINUTE=59;BYSECOND=30"),
    ],
)
def test_rules_are_read_in_words_too(text: str, rule: str) -> None:
    assert parse_rule(text) == rule
    assert read(rule).choices["wkst"] is not None, "the service reads it"


@pytest.mark.parametrize("text", ["", "daily", "monday", "every monday", "08:00", "weekdays 8", "monthly 08:00"])
def test_what_is_no_rule_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a rule; write daily 08:00, weekdays 08:00"):
        parse_rule(text)


def test_the_zone_is_named(clock: Callable[[str], None]) -> None:
    clock(":America/New_York")
    assert zone_name() == "America/New_York"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "CET-1CEST"])
def test_a_zone_without_a_name_is_asked_for(clock: Callable[[str], None], zone: str) -> None:
    clock(zone)
    with pytest.raises(ValueError, match=r"not known .*set it, as by TZ=Europe/Berlin"):
        zone_name()


def test_without_tz_the_machines_zone_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)
    monkeypatch.setattr(Path, "resolve", lambda self: Path("/usr/share/zoneinfo/Asia/Tokyo"))
    assert zone_name() == "Asia/Tokyo"


def test_times_are_shown_here_and_in_utc(clock: Callable[[str], None]) -> None:
    clock("Europe/Berlin")
    assert show_time(NOW) == "2026-11-21 11:00:37 CET (10:00:37 UTC)"
    assert show_time(utc("2026-11-21T23:30:00")) == "2026-11-22 00:30:00 CET (2026-11-21 23:30:00 UTC)"
    clock("UTC")
    assert show_time(NOW) == "2026-11-21 10:00:37 UTC"
    assert show_time(None) == "-"
