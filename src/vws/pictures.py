"""The calendars that the documents show: small plans, drawn by the same code as everybody's.

They are made up, but as the planner would plan them: a hard lease runs at its
start, so staging and boot lie before it; what it displaces is saved before that.
"""

from __future__ import annotations

from collections.abc import Callable

from vws.calendar_svg import render_svg
from vws.core.calendar import Bar, Calendar, Step

HOUR_S = 3600
MINUTE_S = 60
MONDAY_S = 1_790_586_000  # 2026-09-28 09:00:00 UTC

Phase = tuple[Step, float]  # and for how many minutes
BOOT, RUN, SHUTDOWN = Step.BOOT, Step.RUN, Step.SHUTDOWN


def chain(node: str, start_min: float, phases: list[Phase], lease: str, label: str, kind: str) -> list[Bar]:
    """The steps of one workspace on one node, one after the other, from minutes after MONDAY_S."""
    bars, at = [], start_min
    for step, minutes in phases:
        start, end = (MONDAY_S + int(m * MINUTE_S) for m in (at, at + minutes))
        bars.append(Bar(node, start, end, step, lease, label, kind, f"{lease}-{node}", "ada", "", 2, 4096))
        at += minutes
    return bars


def _calendar(title: str, nodes: int, hours: float, *chains: list[Bar]) -> Calendar:
    bars = tuple(bar for chain in chains for bar in chain)
    names = tuple(f"node-{i + 1}" for i in range(nodes))
    return Calendar(title, names, bars, MONDAY_S, MONDAY_S + int(hours * HOUR_S))


def interleaving() -> Calendar:
    """A reservation of two nodes suspends a best-effort lease of two, which resumes, one member elsewhere."""
    soft = ("lse-0a", "simulation", "best-effort")
    hard = ("lse-0c", "lecture", "reservation")
    before: list[Phase] = [(Step.STAGE, 5), (BOOT, 4), (RUN, 91), (Step.SUSPEND, 6)]
    after: list[Phase] = [(Step.RESUME, 5), (RUN, 49)]
    lecture: list[Phase] = [(BOOT, 4), (RUN, 70), (SHUTDOWN, 2)]
    return _calendar(
        "A reservation among best-effort leases", 3, 4,
        chain("node-1", 2, [*before, (Step.SAVED, 78), *after], *soft),
        chain("node-2", 2, [*before, (Step.SAVED, 36), (Step.MIGRATE, 42)], *soft),
        chain("node-3", 144, [(Step.MIGRATE, 42), *after], *soft),
        chain("node-1", 108, lecture, *hard),
        chain("node-2", 108, lecture, *hard),
        chain("node-3", 10, [(BOOT, 4), (RUN, 86), (SHUTDOWN, 2)], "lse-0b", "compile", "immediate"),
    )  # fmt: skip


def draining() -> Calendar:
    """The same site as one without suspension must plan it: what does not end before the reservation does not begin."""
    hard = ("lse-0c", "lecture", "reservation")
    lecture: list[Phase] = [(BOOT, 4), (RUN, 70), (SHUTDOWN, 2)]
    late: list[Phase] = [(Step.STAGE, 5), (BOOT, 4), (RUN, 52)]
    return _calendar(
        "Without suspension: two nodes wait empty for the reservation", 3, 4,
        chain("node-1", 108, lecture, *hard),
        chain("node-2", 108, lecture, *hard),
        chain("node-1", 179, late, "lse-0a", "simulation", "best-effort"),
        chain("node-2", 179, late, "lse-0a", "simulation", "best-effort"),
        chain("node-3", 10, [(BOOT, 4), (RUN, 86), (SHUTDOWN, 2)], "lse-0b", "compile", "immediate"),
    )  # fmt: skip


def kinds() -> Calendar:
    """One lease of each kind."""

    def short(run_min: float) -> list[Phase]:
        return [(BOOT, 4), (RUN, run_min), (SHUTDOWN, 2)]

    return _calendar(
        "A lease of each kind", 4, 6,
        chain("node-1", 0, short(110), "lse-1a", "now", "immediate"),
        chain("node-1", 176, short(90), "lse-1b", "at 12:00", "reservation"),
        chain("node-2", 56, short(50), "lse-1c", "every 2 hours", "periodic"),
        chain("node-2", 176, short(50), "lse-1c", "every 2 hours", "periodic"),
        chain("node-2", 296, short(50), "lse-1c", "every 2 hours", "periodic"),
        chain("node-3", 0, [(BOOT, 4), (RUN, 166), (Step.SUSPEND, 6), (Step.SAVED, 96), (Step.RESUME, 5), (RUN, 78)],
              "lse-1d", "best effort", "best-effort"),
        chain("node-3", 176, short(90), "lse-1b", "at 12:00", "reservation"),
        chain("node-4", 60, short(200), "lse-1e", "done by 15:00", "deadline"),
    )  # fmt: skip


PICTURES: dict[str, Callable[[], str]] = {
    "interleaving.svg": lambda: render_svg(interleaving()),
    "draining.svg": lambda: render_svg(draining()),
    "lease-kinds.svg": lambda: render_svg(kinds()),
}
