"""The calendars that the documents show: small plans, drawn by the same code as everybody's.

They are made up, but as the planner would plan them: a hard lease runs at its
start, so staging and boot lie before it; what it displaces is saved before that.
"""

from __future__ import annotations

from vws.core.calendar import Bar, Calendar, Step

HOUR_S = 3600
MINUTE_S = 60
MONDAY_S = 1_790_586_000  # 2026-09-28 09:00:00 UTC

Phase = tuple[Step, float]  # and for how many minutes


def chain(node: str, start_min: float, phases: tuple[Phase, ...], lease: str, label: str, kind: str) -> list[Bar]:
    """The steps of one workspace on one node, one after the other, from minutes after MONDAY_S."""
    bars, at = [], start_min
    for step, minutes in phases:
        start, end = (MONDAY_S + int(m * MINUTE_S) for m in (at, at + minutes))
        bars.append(Bar(node, start, end, step, lease, label, kind, f"{lease}-{node}", "ada", "", 2, 4096))
        at += minutes
    return bars


def interleaving() -> Calendar:
    """A reservation of two nodes suspends a best-effort lease of two, which resumes, one member elsewhere."""
    soft = ("lse-0a", "simulation", "best-effort")
    hard = ("lse-0c", "lecture", "reservation")
    small = ("lse-0b", "compile", "immediate")
    saved = (Step.SUSPEND, 6.0), (Step.SAVED, 78.0)
    bars = [
        *chain(
            "node-1",
            2,
            ((Step.STAGE, 5), (Step.BOOT, 4), (Step.RUN, 91), *saved, (Step.RESUME, 5), (Step.RUN, 53)),
            *soft,
        ),
        *chain(
            "node-2", 2, ((Step.STAGE, 5), (Step.BOOT, 4), (Step.RUN, 91), (Step.SUSPEND, 6), (Step.SAVED, 36)), *soft
        ),
        *chain("node-2", 144, ((Step.MIGRATE, 42),), *soft),
        *chain("node-3", 144, ((Step.MIGRATE, 42), (Step.RESUME, 5), (Step.RUN, 53)), *soft),
        *chain("node-1", 108, ((Step.BOOT, 4), (Step.RUN, 70), (Step.SHUTDOWN, 2)), *hard),
        *chain("node-2", 108, ((Step.BOOT, 4), (Step.RUN, 70), (Step.SHUTDOWN, 2)), *hard),
        *chain("node-3", 10, ((Step.BOOT, 4), (Step.RUN, 86), (Step.SHUTDOWN, 2)), *small),
    ]
    nodes = ("node-1", "node-2", "node-3")
    return Calendar("A reservation among best-effort leases", nodes, tuple(bars), MONDAY_S, MONDAY_S + 4 * HOUR_S, None)
