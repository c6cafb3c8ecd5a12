"""The picture of a plan: what each node does when, as bars on rows.

A calendar is what the planner, the record of the past and a simulation have in
common once everything but the picture is left out. It is drawn in a terminal
(vws/calendar_text.py), as a page (vws/calendar_page.py) and as a still picture
(vws/calendar_svg.py); what the drawings share is decided here, so that a lease
has the same colour and a node the same lanes in all of them.

A bar is one step of one workspace on one node. Whether it has begun is not
said by the bar but by the calendar's `now`: a plan that nobody touches becomes
the past by itself. Steps that only move or keep data (an image being staged,
memory that is saved or on its way) take no room on a node: they are thin lines
along the lane of their workspace, above which something else may run. A node's
maintenance is drawn across its whole row.
"""

from __future__ import annotations

import binascii
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto
from typing import Any

from vws.core.errors import InvalidRequest
from vws.core.wire import from_json, to_json


class Step(StrEnum):
    """SAVED: suspended, its memory on the node's disk. MIGRATE: on both the node left and the node reached."""

    STAGE = auto()
    BOOT = auto()
    RUN = auto()
    SUSPEND = auto()
    SAVED = auto()
    MIGRATE = auto()
    RESUME = auto()
    SHUTDOWN = auto()
    MAINTENANCE = auto()


STEP_NAMES = {
    Step.STAGE: "staging",
    Step.BOOT: "boot",
    Step.RUN: "running",
    Step.SUSPEND: "suspend",
    Step.SAVED: "saved on disk",
    Step.MIGRATE: "migration",
    Step.RESUME: "resume",
    Step.SHUTDOWN: "shutdown",
    Step.MAINTENANCE: "maintenance",
}
DATA = frozenset({Step.STAGE, Step.SAVED, Step.MIGRATE})
ROOMLESS = DATA | {Step.MAINTENANCE}
KINDS = ("immediate", "reservation", "best-effort", "deadline", "periodic", "maintenance")
HARD = frozenset({"immediate", "reservation", "periodic"})  # never moved once granted


@dataclass(frozen=True, slots=True)
class Bar:
    """A step over [start, end) on `node` (a name), UTC seconds, or seconds of the simulation's clock.

    lease: its id, by which it is coloured; label: its name; kind: one of KINDS. workspace: which of the lease's several
    on a node, if known; state: of the workspace or lease, in its own words. What is not known is empty or 0.
    """

    node: str
    start: int
    end: int
    step: Step
    lease: str
    label: str
    kind: str
    workspace: str = ""
    owner: str = ""
    state: str = ""
    cpus: int = 0
    memory_mib: int = 0


@dataclass(frozen=True, slots=True)
class Calendar:
    """Bars of `nodes` (in the order of their rows) over [start, end).

    now: the present moment, None where there is none (a finished simulation). virtual: times are seconds since the
    start of a simulation rather than UTC seconds.
    """

    title: str
    nodes: tuple[str, ...]
    bars: tuple[Bar, ...]
    start: int
    end: int
    now: int | None = None
    virtual: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A node's bars by start, and the lane (from 0, the topmost) of each; `lanes`: how many, at least 1."""

    node: str
    bars: tuple[Bar, ...]
    lane_of: tuple[int, ...]
    lanes: int


# ---------------------------------------------------------------- making


def spanning(
    title: str, nodes: Iterable[str], bars: Iterable[Bar], *, now: int | None = None, virtual: bool = False
) -> Calendar:
    """A calendar as long as its bars, `now` within; an hour if there is nothing at all."""
    kept = tuple(bars)
    present = [] if now is None else [now]
    start = min([bar.start for bar in kept] + present, default=0)
    end = max([bar.end for bar in kept] + present, default=0)
    return Calendar(title, tuple(nodes), kept, start, end if end > start else start + 3600, now, virtual)


def window(calendar: Calendar, start: int, end: int, nodes: Sequence[str] = ()) -> Calendar:
    """What of it lies in [start, end), on `nodes` (none named: on all). Bars that reach beyond keep their own times.

    Raises InvalidRequest for an empty window or a node that the calendar does not have.
    """
    if end <= start:
        raise InvalidRequest("the window ends before it starts", field="end", asked=end, possible=f"after {start}")
    known = set(calendar.nodes)
    for node in nodes:
        if node not in known:
            raise InvalidRequest(f"there is no node {node!r} in the calendar", field="node", asked=node)
    wanted = set(nodes) or known
    bars = tuple(b for b in calendar.bars if b.node in wanted and b.start < end and b.end > start)
    return replace(calendar, nodes=tuple(n for n in calendar.nodes if n in wanted), bars=bars, start=start, end=end)


# ---------------------------------------------------------------- rows and lanes


def rows(calendar: Calendar) -> tuple[Row, ...]:
    """A row for each node, in order; bars of nodes that the calendar does not name are left out."""
    of_node: dict[str, list[Bar]] = {node: [] for node in calendar.nodes}
    for bar in calendar.bars:
        if bar.node in of_node:
            of_node[bar.node].append(bar)
    return tuple(_row(node, bars) for node, bars in of_node.items())


def _row(node: str, bars: list[Bar]) -> Row:
    # What goes on from an earlier bar is placed before what newly begins, for it has its lane already.
    ends = {(_chain(bar), bar.end) for bar in bars}
    ordered = sorted(bars, key=lambda b: (b.start, (_chain(b), b.start) not in ends, b.lease, b.workspace, b.end))
    lane_of = _lanes(ordered)
    return Row(node, tuple(ordered), tuple(lane_of), max(lane_of, default=0) + 1)


def _chain(bar: Bar) -> tuple[str, str]:
    return bar.lease, bar.workspace


def _lanes(ordered: Sequence[Bar]) -> list[int]:
    """The lowest free lane of each bar, but a workspace's own last one if that is free: it should not jump about.

    What takes no room lies along the lane that its workspace had before, or else will have.
    """
    free_at: list[int] = []
    first: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], int] = {}
    lanes = []
    for bar in ordered:
        lane = last.get(_chain(bar), -1)
        if bar.step not in ROOMLESS:
            if lane < 0 or free_at[lane] > bar.start:
                lane = _first_free(free_at, bar.start)
            if lane == len(free_at):
                free_at.append(0)
            free_at[lane] = bar.end
            first.setdefault(_chain(bar), lane)
            last[_chain(bar)] = lane
        lanes.append(lane)
    return [lane if lane >= 0 else first.get(_chain(bar), 0) for bar, lane in zip(ordered, lanes, strict=True)]


def _first_free(free_at: Sequence[int], start: int) -> int:
    return next((lane for lane, free in enumerate(free_at) if free <= start), len(free_at))


# ---------------------------------------------------------------- what drawings ask


def is_planned(bar: Bar, now: int | None) -> bool:
    """It has not begun."""
    return now is not None and bar.start > now


def colours(leases: Iterable[str], count: int) -> dict[str, int]:
    """Which of `count` colours, a circle of hues, each lease has: its own by its id, or the next that is not taken.

    Taken are those of the few leases whose ids come just before, and the hues next to the last of these. So a lease
    has another colour than those of its time and, being decided by so few, the same one in nearly every picture.
    """
    of: dict[str, int] = {}
    elders: deque[int] = deque(maxlen=count // 3)
    for lease in sorted(set(leases)):
        own = binascii.crc32(lease.encode(errors="replace"))
        free = [c for c in ((own + i) % count for i in range(count)) if c not in elders]
        close = {(c + d) % count for c in list(elders)[-(count // 6) :] for d in (-1, 1)}
        of[lease] = next((c for c in free if c not in close), free[0])
        elders.append(of[lease])
    return of


def grouped(nodes: Sequence[str], groups_max: int) -> tuple[tuple[str, ...], ...]:
    """`nodes` in at most `groups_max` neighbourhoods of equal size (the last may be smaller)."""
    size = -(-len(nodes) // max(groups_max, 1)) or 1
    return tuple(tuple(nodes[i : i + size]) for i in range(0, len(nodes), size))


def share_in_use(bars: Iterable[Bar], nodes: int, start: int, end: int, cells: int) -> list[float]:
    """How much of `nodes` nodes' time is taken by at least one workspace, 0 to 1, in each of `cells` equal parts."""
    seconds = [0.0] * cells
    cell_s = (end - start) / cells
    for busy_from, busy_to in _busy(bars, start, end):
        first, last = (min(int((t - start) / cell_s), cells - 1) for t in (busy_from, busy_to))
        for cell in range(first, last + 1):
            cell_start = start + cell * cell_s
            seconds[cell] += max(0.0, min(busy_to, cell_start + cell_s) - max(busy_from, cell_start))
    return [min(1.0, s / (cell_s * max(nodes, 1))) for s in seconds]


def _busy(bars: Iterable[Bar], start: int, end: int) -> Iterable[tuple[int, int]]:
    """The intervals within [start, end) in which a node holds something, node by node."""
    node, busy_from, busy_to = "", start, start
    taking = (b for b in bars if b.step not in ROOMLESS and b.start < end and b.end > start)
    for bar in sorted(taking, key=lambda b: (b.node, b.start)):
        if bar.node != node or bar.start > busy_to:
            if busy_to > busy_from:
                yield busy_from, busy_to
            node, busy_from, busy_to = bar.node, max(bar.start, start), start
        busy_to = max(busy_to, min(bar.end, end))
    if busy_to > busy_from:
        yield busy_from, busy_to


# ---------------------------------------------------------------- JSON


def calendar_to_json(calendar: Calendar) -> dict[str, Any]:
    """As it crosses the API and lies in files."""
    made: dict[str, Any] = to_json(calendar)
    return made


def calendar_from_json(data: Any) -> Calendar:
    """Raises InvalidRequest naming the field that is wrong."""
    return from_json(Calendar, data)
