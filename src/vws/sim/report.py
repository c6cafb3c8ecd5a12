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

import resource
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vws.core.calendar import Bar
from vws.sim.workload import Job, SimulatedSite

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

    @property
    def wait_s(self) -> int | None:
        return None if self.start is None else self.start - self.job.submit

    @property
    def bounded_slowdown(self) -> float | None:
        return None if self.end is None else (self.end - self.job.submit) / max(SHORTEST_S, self.job.runs)


@dataclass(frozen=True, slots=True)
class Run:
    """fates: one a job. bars: what a calendar draws, when asked to be kept. cpu_s: what the planning took."""

    fates: tuple[Fate, ...]
    bars: tuple[Bar, ...]
    cpu_s: float


def with_refused(run: Run, jobs: Iterable[Job]) -> Run:
    """`run` with the fates of jobs that were never tried, because no site of this size could run them."""
    return replace(run, fates=run.fates + tuple(Fate(job, granted=False, start=None, end=None) for job in jobs))


def numbers(run: Run, site: SimulatedSite) -> dict[str, Any]:
    """The run in numbers; a mean over nothing is None.

    granted, refused: of all leases; reservations, reservations_granted: of those
    with a start of their own. unfinished: granted, but never completed.
    """
    soft = [fate for fate in run.fates if fate.job.at is None]
    hard = [fate for fate in run.fates if fate.job.at is not None]
    waits = sorted(fate.wait_s for fate in soft if fate.wait_s is not None)
    slowdowns = [fate.bounded_slowdown for fate in soft if fate.bounded_slowdown is not None]
    granted = sum(fate.granted for fate in run.fates)
    makespan_s = max((fate.end for fate in soft or hard if fate.end is not None), default=None)
    return {
        "leases": len(run.fates),
        "granted": granted,
        "refused": len(run.fates) - granted,
        "reservations": len(hard),
        "reservations_granted": sum(fate.granted for fate in hard),
        "unfinished": sum(fate.granted and fate.end is None for fate in run.fates),
        "makespan_s": makespan_s,
        "wait_mean_s": _mean(waits),
        "wait_p95_s": _p95(waits),
        "wait_max_s": max(waits, default=None),
        "bounded_slowdown_mean": _mean(slowdowns),
        "utilization": _utilization(run.fates, site, makespan_s),
        "suspensions": sum(fate.suspensions for fate in run.fates),
        "migrations": sum(fate.migrations for fate in run.fates),
        "cpu_s": run.cpu_s,
        "leases_per_cpu_s": len(run.fates) / run.cpu_s if run.cpu_s > 0 else None,
        "rss_mib_max": rss_mib_max(),
    }


def rows(run: Run) -> list[dict[str, Any]]:
    """One row a lease, by id."""
    return [_row(fate) for fate in sorted(run.fates, key=lambda fate: fate.job.id)]


def _row(fate: Fate) -> dict[str, Any]:
    job = fate.job
    return {
        "id": job.id,
        "kind": "best-effort" if job.at is None else "reservation",
        "submit": job.submit,
        "nodes": job.nodes,
        "cpus": job.cpus,
        "memory_mib": job.memory_mib,
        "requested_s": job.requested,
        "runs_s": job.runs,
        "at": job.at,
        "owner": job.owner or None,
        "granted": fate.granted,
        "start": fate.start,
        "end": fate.end,
        "wait_s": fate.wait_s,
        "bounded_slowdown": fate.bounded_slowdown,
        "suspensions": fate.suspensions,
        "migrations": fate.migrations,
    }


def rss_mib_max() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _utilization(fates: Iterable[Fate], site: SimulatedSite, makespan_s: int | None) -> float | None:
    if not makespan_s:
        return None
    return sum(_cpu_seconds(fate, makespan_s) for fate in fates) / (site.nodes * site.cpus * makespan_s)


def _cpu_seconds(fate: Fate, makespan_s: int) -> int:
    """The work done until `makespan_s`, at which a reservation may still run; it runs through."""
    if fate.start is None or fate.end is None:
        return 0
    late_s = max(0, fate.end - makespan_s)
    return fate.job.nodes * fate.job.cpus * max(0, fate.job.runs - late_s)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _p95(ascending: Sequence[int]) -> int | None:
    """The greatest value that is not above 95 % of the way from the least to the greatest."""
    return ascending[int(0.95 * (len(ascending) - 1))] if ascending else None
