"""What a run comes to: the numbers by which schedules are compared.

Waits and slowdowns are means over the best-effort leases, because a reservation
starts when it asked to or is refused. The makespan is when the last best-effort
lease completes, counted from the trace's begin, and the utilization is the work
done until then as a share of what the nodes' CPUs could have done. Work is what
leases ran: what was lost, or spent on saving and restoring memory, does not count.

A slowdown is bounded (a lease of less than 10 s counts as one of 10 s), for else
the mean is made by jobs that failed at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vws.sim.workload import Job

if TYPE_CHECKING:
    from vws.core.calendar import Bar

SHORTEST_S = 10


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a job. start: of its run; end: of its work. None: never."""

    job: Job
    granted: bool
    start: int | None
    end: int | None
    suspensions: int = 0
    migrations: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """fates: one a job. bars: what a calendar draws, when asked to be kept. cpu_s: what the planning took."""

    fates: tuple[Fate, ...]
    bars: tuple[Bar, ...]
    cpu_s: float
