"""Times as people say them: 14:30, tomorrow 08:00, monday 08:00, +2h, or ISO 8601.

What names no zone is meant on the reader's own clock (TZ, else the machine's), and is shown back on it and in UTC, so
that a slip is seen at once. A time of day alone is the next one: nobody asks for what is over. Whether a time makes
sense is the service's to say; this module only reads.
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from vws.cli.sizes import parse_duration

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# As RFC 5545 has it.
DAYS = dict(zip(WEEKDAYS, ("MO", "TU", "WE", "TH", "FR", "SA", "SU"), strict=True))
WRITE = "write 14:30, tomorrow 08:00, monday 08:00, +2h or 2026-11-23T08:00"
WRITE_RULE = "write daily 08:00, weekdays 08:00, monday,thursday 08:00, hourly, or a rule: FREQ=MONTHLY;BYDAY=1MO"

TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
DATE_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:?[0-9]{2})?)?")


def parse_time(text: str, now: float) -> int:
    """UTC seconds of `text`; ValueError says what would be read."""
    said = text.strip()
    if said.startswith("+"):
        return int(now) + parse_duration(said[1:])
    if DATE_TIME.fullmatch(said.upper()):
        return _instant(said.upper())
    day, _, at = said.lower().rpartition(" ")
    try:
        return _next(day.strip(), at, now)
    except KeyError:
        raise ValueError(f"{text!r} is not a time; {WRITE}") from None


def _instant(text: str) -> int:
    try:
        # A time without a zone is on the reader's clock.
        return int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{text!r} is not a time: {error}; {WRITE}") from None


def _next(day: str, at: str, now: float) -> int:
    """The next such time on the reader's clock; KeyError for what is no day or no time of day."""
    hour, minute, second = _time_of_day(at)
    today = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=second, microsecond=0)
    if day in ("today", "tomorrow"):
        return int((today + timedelta(days=day == "tomorrow")).timestamp())
    ahead = (WEEKDAYS.index(_weekday(day)) - today.weekday()) % 7 if day else 0
    found = today + timedelta(days=ahead)
    if found.timestamp() <= now:
        found += timedelta(days=7 if day else 1)
    return int(found.timestamp())


def _time_of_day(text: str) -> tuple[int, int, int]:
    found = TIME_OF_DAY.fullmatch(text)
    if not found:
        raise KeyError(text)
    return int(found[1]), int(found[2]), int(found[3] or 0)


def _weekday(text: str) -> str:
    """The one day that begins so: monday, mon."""
    for name in WEEKDAYS:
        if len(text) >= 3 and name.startswith(text):
            return name
    raise KeyError(text)


def parse_rule(text: str) -> str:
    """The rule of RFC 5545 that `text` is, or says in words; ValueError says what would be read."""
    said = " ".join(text.strip().lower().split())
    if "=" in said:
        return text.strip()
    if said == "hourly":
        return "FREQ=HOURLY"
    days, _, at = said.rpartition(" ")
    try:
        hour, minute, second = _time_of_day(at)
        by_time = f"BYHOUR={hour};BYMINUTE={minute};BYSECOND={second}"
        if days == "daily":
            return f"FREQ=DAILY;{by_time}"
        named = WEEKDAYS[:5] if days == "weekdays" else [_weekday(day.strip()) for day in days.split(",")]
    except KeyError:
        raise ValueError(f"{text!r} is not a rule; {WRITE_RULE}") from None
    return f"FREQ=WEEKLY;BYDAY={','.join(DAYS[day] for day in named)};{by_time}"


def zone_name() -> str:
    """The IANA name of the reader's zone; ValueError if the machine does not know it."""
    asked = os.environ.get("TZ", "").removeprefix(":")
    machine = Path("/etc/localtime").resolve()
    if not asked and "zoneinfo" in machine.parts:
        asked = "/".join(machine.parts[machine.parts.index("zoneinfo") + 1 :])
    if not asked and not time.timezone and not time.daylight:
        asked = "UTC"
    try:
        return str(ZoneInfo(asked))
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"the name of your time zone is not known{f' ({asked!r})' if asked else ''}; set it, as by TZ=Europe/Berlin"
        ) from None


def show_time(at: float | None) -> str:
    """An instant on the reader's clock, and in UTC if that is another."""
    if at is None:
        return "-"
    here, there = datetime.fromtimestamp(at).astimezone(), datetime.fromtimestamp(at, UTC)
    if not here.utcoffset():
        return f"{there:%Y-%m-%d %H:%M:%S} UTC"
    in_utc = f"{there:%H:%M:%S}" if here.date() == there.date() else f"{there:%Y-%m-%d %H:%M:%S}"
    return f"{here:%Y-%m-%d %H:%M:%S %Z} ({in_utc} UTC)"


class Time(click.ParamType[int]):
    """An instant, in UTC seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_time(value, time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Rule(click.ParamType[str]):
    """A rule of RFC 5545, or words for one."""

    name = "rule"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return parse_rule(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


TIME = Time()
RULE = Rule()
