"""A recurrence rule of RFC 5545 ("FREQ=WEEKLY;BYDAY=MO;BYHOUR=8") as the starts of the leases of a series.

python-dateutil follows the rule. Read it is here, part by part, so that a refusal names the part that is wrong.

A rule goes by the clock on somebody's wall: "Mondays at 8" stays at 8 when the clocks change. A local time that such a
change leaves out is taken by the offset before it, one that comes twice is its first (RFC 5545, 3.3.5); both is what
Python's `fold=0` means. Zones are handed in, for their tables are read from files.

dateutil stops looking when it has found something, or after the year 9999: a rule that never comes true (30 February)
would take it minutes. Calendars repeat, so the rule is followed in the last years whose calendars are the asked ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final

import dateutil.rrule as rrule

from vws.core.errors import InvalidRequest

INSTANCES_MAX = 1000
RULE_LENGTH_MAX = 500
INTERVAL_MAX = 1000
# How far ahead a series may reach.
SERIES_S_MAX = 5 * 366 * 24 * 3600
YEAR_LAST = 9999

FREQUENCIES: Final[dict[str, Any]] = {
    "YEARLY": rrule.YEARLY,
    "MONTHLY": rrule.MONTHLY,
    "WEEKLY": rrule.WEEKLY,
    "DAILY": rrule.DAILY,
    "HOURLY": rrule.HOURLY,
}
WEEKDAYS: Final = {str(day): day for day in (rrule.MO, rrule.TU, rrule.WE, rrule.TH, rrule.FR, rrule.SA, rrule.SU)}

# part: (what dateutil calls it, lowest, highest, whether it counts from the end too)
NUMBERS: Final[dict[str, tuple[str, int, int, bool]]] = {
    "BYMONTH": ("bymonth", 1, 12, False),
    "BYMONTHDAY": ("bymonthday", 1, 31, True),
    "BYYEARDAY": ("byyearday", 1, 366, True),
    "BYWEEKNO": ("byweekno", 1, 53, True),
    "BYHOUR": ("byhour", 0, 23, False),
    "BYMINUTE": ("byminute", 0, 59, False),
    "BYSECOND": ("bysecond", 0, 59, False),
    "BYSETPOS": ("bysetpos", 1, 366, True),
}
PARTS: Final = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", *NUMBERS)
# With which frequencies a part means nothing (RFC 5545, 3.3.10), or nothing that a lease is asked for by.
MEANINGLESS: Final = {
    "BYWEEKNO": ("MONTHLY", "WEEKLY", "DAILY", "HOURLY"),
    "BYYEARDAY": ("MONTHLY", "WEEKLY", "DAILY"),
    "BYMONTHDAY": ("WEEKLY",),
    "BYSETPOS": ("HOURLY",),
}
EXAMPLE: Final = "such as FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=8;BYMINUTE=30"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that was read. count: how many starts at most; until: the last, on the wall or in UTC as it was written;
    choices: the rest, as dateutil takes it."""

    frequency: Any
    count: int | None
    until: datetime | None
    choices: dict[str, Any]

    @property
    def ends(self) -> bool:
        return self.count is not None or self.until is not None


def starts(
    text: str,
    *,
    zone: tzinfo,
    now: int,
    start: int | None = None,
    until: int | None = None,
    field: str = "rule",
) -> tuple[int, ...]:
    """When the instances of the rule `text` start: UTC seconds, in order, none before `now`.

    start: from then on, and at that time of day where the rule says none; None: from now on, and at midnight.
    until: the last possible start; None if the rule itself ends, by COUNT or UNTIL. Both: what comes first.
    Raises InvalidRequest, naming `field` and the part, for a rule that is wrong, endless, too long or never comes true.
    """
    rule = read(text, field)
    earliest = now if start is None else max(now, start)
    last = min([now + SERIES_S_MAX, *([] if until is None else [until]), *_own_end(rule, zone)])
    first = _on_the_wall(now, zone).replace(hour=0, minute=0, second=0) if start is None else _on_the_wall(start, zone)
    found = sorted(_follow(rule, first, earliest, max(last, earliest), zone, field))[: rule.count]
    wanted = [at for at in found if at <= last]
    _check_found(rule, text, wanted, last, endless=until is None, field=field)
    return tuple(wanted)


def _check_found(rule: Rule, text: str, wanted: list[int], last: int, *, endless: bool, field: str) -> None:
    if endless and not rule.ends:
        raise _refused("the rule has no end", text, field, "a last start (until), or COUNT or UNTIL in the rule")
    if not wanted:
        raise _refused(f"the rule names no time before {said(last)}", text, field, "a rule that comes true by then")
    if len(wanted) > INSTANCES_MAX:
        raise _refused(
            f"the rule has more than {INSTANCES_MAX} instances", text, field, "an earlier end, or a longer INTERVAL"
        )
    if endless and rule.until is None and len(wanted) < (rule.count or 0):
        raise _refused(
            f"only {len(wanted)} instances lie before {said(last)}", text, field, f"COUNT={len(wanted)}, or fewer"
        )


def _own_end(rule: Rule, zone: tzinfo) -> list[int]:
    if rule.until is None:
        return []
    return [int((rule.until if rule.until.tzinfo else rule.until.replace(tzinfo=zone)).timestamp())]


def _on_the_wall(at: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(at, zone).replace(tzinfo=None)


def said(at: int) -> str:
    """An instant as refusals write it: 2026-11-23T08:00:00Z."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}Z"


# ---------------------------------------------------------------- following


def _follow(rule: Rule, first: datetime, earliest: int, last: int, zone: tzinfo, field: str) -> set[int]:
    """The rule's instants in [earliest, last], counted from `first` on: all of them, or one more than is allowed."""
    # A change of clocks moves a time by hours at most, so a day more is looked at.
    end = _on_the_wall(last, zone) + timedelta(days=1)
    years = _same_calendar(first.year, end.year - first.year) - first.year
    found: set[int] = set()
    try:
        twin = first.replace(year=first.year + years)
        for at in rrule.rrule(rule.frequency, dtstart=twin, until=end.replace(year=end.year + years), **rule.choices):
            instant = int(at.replace(year=at.year - years, tzinfo=zone).timestamp())
            if earliest <= instant <= last:
                found.add(instant)
            if len(found) > INSTANCES_MAX:
                break
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"the rule cannot be followed: {error}", field=field, possible=EXAMPLE) from None
    return found


def _same_calendar(year: int, more: int) -> int:
    """The last year from which on the calendars are those of `year` and of `more` years after it."""
    weekdays = [date(year + k, 1, 1).weekday() for k in range(-1, more + 2)]
    candidates = range(YEAR_LAST - more - 1, year, -1)
    return next(
        (y for y in candidates if all(date(y + k, 1, 1).weekday() == day for k, day in enumerate(weekdays, start=-1))),
        year,
    )


# ---------------------------------------------------------------- reading


def read(text: str, field: str = "rule") -> Rule:
    """The rule that `text` says, with or without "RRULE:" before it. Raises InvalidRequest, naming the part."""
    line = text.strip().upper().removeprefix("RRULE:").rstrip(";")
    if len(line) > RULE_LENGTH_MAX:
        raise _refused("the rule is too long", text, field, f"at most {RULE_LENGTH_MAX} characters")
    if line.startswith(("DTSTART", "EXDATE", "RDATE", "EXRULE")):
        raise _refused(
            f"{line[:7].rstrip(';:=')} is not part of a rule", text, field, "the first start and the zone by themselves"
        )
    parts = _parts(line, field)
    frequency = _frequency(parts, field)
    _check_together(parts, field)
    return Rule(
        frequency,
        count=_number(parts["COUNT"], "COUNT", 1, INSTANCES_MAX, field) if "COUNT" in parts else None,
        until=_until(parts["UNTIL"], field) if "UNTIL" in parts else None,
        choices=_choices(parts, field),
    )


def _parts(line: str, field: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in line.split(";"):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value:
            raise _refused(f"{part[:40]!r} is not of the form NAME=VALUE", part, field, EXAMPLE)
        if name not in PARTS:
            raise _refused(f"a rule has no part {name[:40]}", part, field, f"one of {', '.join(PARTS)}")
        if name in parts:
            raise _refused(f"{name} is given twice", part, field, "each part once; several values as BYDAY=MO,WE")
        parts[name] = value
    return parts


def _frequency(parts: dict[str, str], field: str) -> Any:
    asked = parts.get("FREQ", "")
    if asked not in FREQUENCIES:
        problem = f"FREQ={asked[:40]} is no frequency of leases" if asked else "the rule has no FREQ"
        raise _refused(problem, asked, field, f"FREQ={', '.join(FREQUENCIES)}")
    return FREQUENCIES[asked]


def _check_together(parts: dict[str, str], field: str) -> None:
    """What RFC 5545 rules out, and dateutil takes for something else or for nothing."""
    frequency = parts["FREQ"]
    for name, frequencies in MEANINGLESS.items():
        if name in parts and frequency in frequencies:
            raise _refused(f"{name} means nothing with FREQ={frequency}", parts[name], field, f"no {name}")
    numbered = any(character.isdigit() for character in parts.get("BYDAY", ""))
    if numbered and (frequency not in ("MONTHLY", "YEARLY") or "BYWEEKNO" in parts):
        raise _refused(
            f"BYDAY={parts['BYDAY'][:40]} numbers its days, which only a month or a year can",
            parts["BYDAY"],
            field,
            "FREQ=MONTHLY or YEARLY without BYWEEKNO, or days without numbers",
        )
    if "BYSETPOS" in parts and not any(name.startswith("BY") and name != "BYSETPOS" for name in parts):
        raise _refused("BYSETPOS has nothing to choose from", parts["BYSETPOS"], field, "another BY... part with it")
    if "COUNT" in parts and "UNTIL" in parts:
        raise _refused("COUNT and UNTIL exclude each other", parts["UNTIL"], field, "one of them")


def _choices(parts: dict[str, str], field: str) -> dict[str, Any]:
    choices: dict[str, Any] = {"wkst": _weekday(parts.get("WKST", "MO"), "WKST", field)}
    if "INTERVAL" in parts:
        choices["interval"] = _number(parts["INTERVAL"], "INTERVAL", 1, INTERVAL_MAX, field)
    if "BYDAY" in parts:
        choices["byweekday"] = _each(parts["BYDAY"], lambda word: _numbered_weekday(word, field))
    for name, (called, low, high, backwards) in NUMBERS.items():
        if name in parts:
            choices[called] = _numbers(parts[name], name, low, high, field, backwards=backwards)
    return choices


def _each(value: str, reader: Callable[[str], Any]) -> list[Any]:
    return [reader(word.strip()) for word in value.split(",")]


def _numbers(value: str, part: str, low: int, high: int, field: str, *, backwards: bool) -> list[int]:
    return _each(value, lambda word: _number(word, part, low, high, field, backwards=backwards))


def _number(word: str, part: str, low: int, high: int, field: str, *, backwards: bool = False) -> int:
    digits = word.removeprefix("+").removeprefix("-" if backwards else "")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 6 and low <= int(digits) <= high):
        possible = f"{part}={low} to {high}" + (f", or -{high} to -{low} from the end" if backwards else "")
        raise _refused(f"{part}={word[:40]} is out of its range", word, field, possible)
    return int(word)


def _weekday(word: str, part: str, field: str) -> Any:
    if word not in WEEKDAYS:
        raise _refused(f"{part}={word[:40]} is no day of the week", word, field, f"{part}={', '.join(WEEKDAYS)}")
    return WEEKDAYS[word]


def _numbered_weekday(word: str, field: str) -> Any:
    """MO, 1MO (the first), -1FR (the last)."""
    day, number = _weekday(word[-2:], "BYDAY", field), word[:-2]
    return day(_number(number, "BYDAY", 1, 53, field, backwards=True)) if number else day


def _until(word: str, field: str) -> datetime:
    """20261231 (to the end of that day), 20261231T080000 (on the wall) or 20261231T080000Z (UTC)."""
    found = re.fullmatch(r"([0-9]{8})(?:T([0-9]{6})(Z?))?", word)
    try:
        until = datetime.strptime(f"{found[1]}{found[2] or '235959'}", "%Y%m%d%H%M%S") if found else None
    except ValueError:
        until = None
    if found is None or until is None:
        raise _refused(f"UNTIL={word[:40]} is no time", word, field, "UNTIL=20261231 or UNTIL=20261231T080000Z")
    return until.replace(tzinfo=UTC) if found[3] else until


def _refused(problem: str, asked: str, field: str, possible: str) -> InvalidRequest:
    return InvalidRequest(problem, field=field, asked=asked[:60], possible=possible)
