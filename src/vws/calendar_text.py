"""A calendar in a terminal: a line per node (or lane of a node), a column per stretch of time.

A column shows what takes most of its time; the short steps (a boot, a suspension)
count threefold, for they are what one looks for. Every line says the same
without colours: steps have glyphs of their own and leases their names.

Where a site has more lanes than the reader has lines, a node is one line whose
height in each column says how much of it is in use; where it has more nodes
than lines, neighbours are one line and the height says how many of them are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import click

from vws.calendar_axis import Clock, Tick, ticks
from vws.core.calendar import (
    ROOMLESS,
    STEP_NAMES,
    Bar,
    Calendar,
    Row,
    Step,
    colours,
    grouped,
    is_planned,
    rows,
    share_in_use,
)

WIDTH_MIN = 40
LINES_MIN = 12
NAME_WIDTH_MAX = 24
LEASES_MAX = 8
ROUNDING = 1e-6
SHORT_STEP_WEIGHT = 3.0
# Of the 256 colours of a terminal: the hues of vws/calendar_palette.py, readable on black and on white.
COLOURS = (203, 208, 178, 142, 34, 36, 44, 39, 69, 99, 170, 205)


@dataclass(frozen=True, slots=True)
class Glyphs:
    steps: dict[Step, str]
    planned: str
    levels: str
    now: str
    here: str
    tick: str
    rule: str


UNICODE = Glyphs(
    steps={
        Step.STAGE: "↓", Step.BOOT: "↗", Step.RUN: "█", Step.SUSPEND: "◣", Step.SAVED: "┄", Step.MIGRATE: "→",
        Step.RESUME: "◢", Step.SHUTDOWN: "↘", Step.MAINTENANCE: "╳",
    },
    planned="▒", levels=" ▁▂▃▄▅▆▇█", now="▼", here="│", tick="┴", rule="─",
)  # fmt: skip
ASCII = Glyphs(
    steps={
        Step.STAGE: ".", Step.BOOT: "/", Step.RUN: "#", Step.SUSPEND: "v", Step.SAVED: "_", Step.MIGRATE: ">",
        Step.RESUME: "^", Step.SHUTDOWN: "\\", Step.MAINTENANCE: "x",
    },
    planned="=", levels=" 123456789", now="V", here="|", tick="+", rule="-",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sheet:
    """What every line is drawn with; `columns`: how many the bars have, after the names' `name_width`."""

    calendar: Calendar
    clock: Clock
    glyphs: Glyphs
    name_width: int
    columns: int
    colour_of: dict[str, int]  # empty: without colours

    @property
    def column_s(self) -> float:
        return (self.calendar.end - self.calendar.start) / self.columns

    def column(self, at: float) -> int:
        return int((at - self.calendar.start) / self.column_s)

    @property
    def now_column(self) -> int | None:
        now = self.calendar.now
        return self.column(now) if now is not None and self.calendar.start <= now < self.calendar.end else None

    def paint(self, text: str, lease: str, *, solid: bool = False) -> str:
        """`text` in the lease's colour, or solid: on it."""
        colour = self.colour_of.get(lease)
        if colour is None:
            return text
        return click.style(text, fg=16, bg=colour) if solid else click.style(text, fg=colour)


def draw_text(
    calendar: Calendar,
    *,
    width: int = 100,
    lines_max: int | None = None,
    colour: bool = False,
    ascii_only: bool = False,
    clock: Clock | None = None,
) -> str:
    """`calendar` in lines of at most `width` columns, its rows in at most `lines_max` lines (None: as many as needed).

    clock: the reader's; the default is UTC, and always the simulation's own for a simulated calendar.
    """
    clock = Clock(virtual=True) if calendar.virtual else clock or Clock()
    body = _body_of(calendar, None if lines_max is None else max(lines_max, LINES_MIN))
    name_width = min(max((len(name) for name in body.names), default=0), NAME_WIDTH_MAX)
    columns = max(width, WIDTH_MIN) - name_width - 1
    indices = colours((bar.lease for bar in calendar.bars), len(COLOURS)) if colour else {}
    colour_of = {lease: COLOURS[index] for lease, index in indices.items()}
    sheet = Sheet(calendar, clock, ASCII if ascii_only else UNICODE, name_width, columns, colour_of)
    drawn = [*_head(sheet), *_axis(sheet), *body.lines(sheet), "", *body.legend(sheet)]
    return "\n".join(line.rstrip() for line in drawn).rstrip()


class _Lanes:
    """A line per lane, with the leases' names in their bars."""

    def __init__(self, found: Sequence[Row]) -> None:
        self._rows = found
        self.names = [row.node for row in found]

    def lines(self, sheet: Sheet) -> Iterator[str]:
        for row in self._rows:
            for lane in range(row.lanes):
                bars = [b for b, its in zip(row.bars, row.lane_of, strict=True) if its == lane]
                if lane:  # maintenance is the whole node's
                    bars += [b for b in row.bars if b.step is Step.MAINTENANCE]
                yield _name(sheet, "" if lane else row.node) + _lane(sheet, bars)

    def legend(self, sheet: Sheet) -> Iterator[str]:
        bars = [bar for row in self._rows for bar in row.bars if _visible(sheet, bar)]
        yield from _step_legend(sheet, bars)
        yield from _lease_legend(sheet, bars)


class _Levels:
    """A line per group of nodes (or per node), as high as it is in use."""

    def __init__(self, calendar: Calendar, found: Sequence[Row], lines_max: int) -> None:
        row_of = {row.node: row for row in found}
        self._groups = [[row_of[node] for node in nodes] for nodes in grouped(calendar.nodes, lines_max)]
        self.names = [_group_name(group) for group in self._groups]
        self._what = "nodes" if len(self._groups) < len(found) else "lanes"

    def lines(self, sheet: Sheet) -> Iterator[str]:
        start, end = sheet.calendar.start, sheet.calendar.end
        for name, group in zip(self.names, self._groups, strict=True):
            if self._what == "nodes":
                bars, of = [bar for row in group for bar in row.bars], len(group)
            else:
                bars, of = list(_by_lane(group[0])), group[0].lanes
            shares = share_in_use(bars, of, start, end, sheet.columns)
            yield _name(sheet, name) + "".join(_level(sheet, i, share) for i, share in enumerate(shares))

    def legend(self, sheet: Sheet) -> Iterator[str]:
        levels = sheet.glyphs.levels.strip()
        of = "a line's nodes" if self._what == "nodes" else "a node's workspaces at its fullest"
        yield f"{levels} share of {of} in use"


def _body_of(calendar: Calendar, lines_max: int | None) -> _Lanes | _Levels:
    found = rows(calendar)
    if lines_max is None or sum(row.lanes for row in found) <= lines_max:
        return _Lanes(found)
    return _Levels(calendar, found, lines_max)


def _by_lane(row: Row) -> Iterator[Bar]:
    """The bars as if each lane were a node."""
    for bar, lane in zip(row.bars, row.lane_of, strict=True):
        yield Bar(str(lane), bar.start, bar.end, bar.step, bar.lease, bar.label, bar.kind)


def _group_name(group: Sequence[Row]) -> str:
    first, last = group[0].node, group[-1].node
    if len(group) == 1:
        return first
    return f"{first}..{last}" if len(first) + len(last) + 2 <= NAME_WIDTH_MAX else f"{first} +{len(group) - 1}"


# ---------------------------------------------------------------- around the bars


def _name(sheet: Sheet, name: str) -> str:
    width = sheet.name_width
    return f"{name if len(name) <= width else name[: width - 1] + '~':<{width}} "


def _head(sheet: Sheet) -> Iterator[str]:
    calendar = sheet.calendar
    span = sheet.clock.span(calendar.start, calendar.end)
    yield " · ".join(part for part in (_shown(calendar.title), span, sheet.clock.name) if part)
    yield ""


def _axis(sheet: Sheet) -> Iterator[str]:
    labels, rule = [" "] * sheet.columns, [sheet.glyphs.rule] * sheet.columns
    free_from = 0
    for tick in ticks(sheet.calendar.start, sheet.calendar.end, max(2, sheet.columns // 12), sheet.clock):
        column = sheet.column(tick.at)
        rule[column] = sheet.glyphs.tick
        free_from = _put_label(labels, tick, column, free_from)
    if sheet.now_column is not None:
        rule[sheet.now_column] = sheet.glyphs.now
    yield _name(sheet, "") + "".join(labels)
    yield _name(sheet, "") + "".join(rule)


def _put_label(labels: list[str], tick: Tick, column: int, free_from: int) -> int:
    """Write it centred at `column` unless it meets an earlier one; return where the next may begin."""
    start = min(max(column - len(tick.label) // 2, 0), len(labels) - len(tick.label))
    if start < free_from:
        return free_from
    labels[start : start + len(tick.label)] = tick.label
    return start + len(tick.label) + 1


def _step_legend(sheet: Sheet, bars: Iterable[Bar]) -> Iterator[str]:
    now = sheet.calendar.now
    present = {(bar.step, bar.step is Step.RUN and is_planned(bar, now)) for bar in bars}
    parts = []
    for step in Step:
        if (step, False) in present:
            parts.append(f"{sheet.glyphs.steps[step]} {STEP_NAMES[step]}")
        if (step, True) in present:
            parts.append(f"{sheet.glyphs.planned} planned")
    if sheet.now_column is not None:
        parts.append(f"{sheet.glyphs.now} now")
    if parts:
        yield "  ".join(parts)


def _lease_legend(sheet: Sheet, bars: Iterable[Bar]) -> Iterator[str]:
    leases: dict[str, Bar] = {}
    for bar in sorted(bars, key=lambda b: b.start):
        if bar.step is not Step.MAINTENANCE:
            earliest = leases.setdefault(bar.lease, bar)
            if sheet.calendar.now is not None and bar.start <= sheet.calendar.now:
                leases[bar.lease] = replace(earliest, state=bar.state)  # how it stands, not how it stood at first
    first = sorted(leases.values(), key=lambda b: (b.start, b.lease))
    width = max((len(_shown(bar.label)) for bar in first[:LEASES_MAX]), default=0)
    for bar in first[:LEASES_MAX]:
        mark = sheet.paint(sheet.glyphs.steps[Step.RUN] * 2, bar.lease)
        facts = [f"{_shown(bar.label):<{width}}", f"{bar.kind:<11}", bar.lease, bar.owner, bar.state]
        yield f"{mark} " + "  ".join(_shown(fact) for fact in facts if fact)
    if len(first) > LEASES_MAX:
        left = len(first) - LEASES_MAX
        yield f"and {left} more lease{'s' if left > 1 else ''}"


# ---------------------------------------------------------------- the bars


def _lane(sheet: Sheet, bars: Iterable[Bar]) -> str:
    cells = _cells(sheet, bars)
    drawn, column = [], 0
    while column < sheet.columns:
        bar, upto = cells[column], column + 1
        while upto < sheet.columns and cells[upto] is bar:
            upto += 1
        if bar is None:
            drawn += [_empty(sheet, i) for i in range(column, upto)]
        else:
            drawn.append(_stretch(sheet, bar, upto - column))
        column = upto
    return "".join(drawn)


def _cells(sheet: Sheet, bars: Iterable[Bar]) -> list[Bar | None]:
    """What each column shows."""
    shown: list[Bar | None] = [None] * sheet.columns
    most = [0.0] * sheet.columns
    for bar in bars:
        if not _visible(sheet, bar):
            continue
        weight = 1e-6 if bar.step in ROOMLESS else 1.0 if bar.step is Step.RUN else SHORT_STEP_WEIGHT
        last = min(sheet.columns - 1, sheet.column(bar.end))
        for column in range(max(0, sheet.column(bar.start)), last + 1):
            starts = sheet.calendar.start + column * sheet.column_s
            taken = weight * (min(bar.end, starts + sheet.column_s) - max(bar.start, starts))
            if taken > most[column]:
                shown[column], most[column] = bar, taken
    return shown


def _stretch(sheet: Sheet, bar: Bar, length: int) -> str:
    planned = bar.step is Step.RUN and is_planned(bar, sheet.calendar.now)
    glyph = sheet.glyphs.planned if planned else sheet.glyphs.steps[bar.step]
    label = _shown(bar.label)
    if bar.step not in (Step.RUN, Step.MAINTENANCE) or length < min(len(label), 3) + 2 or not label:
        return sheet.paint(glyph * length, bar.lease)
    label = label[: length - 2]
    fill = glyph * (length - len(label) - 1)
    return sheet.paint(glyph, bar.lease) + sheet.paint(label, bar.lease, solid=True) + sheet.paint(fill, bar.lease)


def _empty(sheet: Sheet, column: int) -> str:
    return sheet.glyphs.here if column == sheet.now_column else " "


def _level(sheet: Sheet, column: int, share: float) -> str:
    levels = sheet.glyphs.levels
    height = math.ceil(share * (len(levels) - 1) - ROUNDING)
    return levels[height] if height else _empty(sheet, column)


def _visible(sheet: Sheet, bar: Bar) -> bool:
    return bar.start < sheet.calendar.end and bar.end > sheet.calendar.start


def _shown(text: str) -> str:
    """As a line of a terminal may hold it: a name may be anything."""
    return "".join(c if c.isprintable() else "?" for c in text)
