"""The experiments of "Combining Batch Execution and Leasing Using Virtual Machines" (HPDC 2008), table 1, done again.

The trace is the paper's, and so are the reservations of 10 %. Those of 20 and 30 % are made here by the paper's
recipe (a share of the site's time, three hours give or take half an hour, 25 to 48 nodes, asked for a day ahead), since
the paper's own were not published: these rows compare trends, not leases. As in the paper, the first 5 % of the
leases to complete do not count for wait and slowdown, and makespans are relative to the trace without reservations.

VM-PREDEPLOY is the paper's name for what virtual machines cost when their images are on the nodes already: work takes
5 % longer, and a boot and a shutdown take 20 s together. The rows about moving images are left out.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.measure import Number
from vws.sim.report import Fate
from vws.sim.workload import Job, SimulatedPolicy, SimulatedSite
from vws.sim.world import simulate

HOUR_S, DAY_S = 3600, 86400
SHARES = (10, 20, 30)
DURATION_S, JITTER_S = 3 * HOUR_S, HOUR_S // 2
NODES = (25, 48)
SLOWER, BOOT_S = 1.05, 20
DISCARDED = 0.05
SUSPENDING = SimulatedPolicy("easy", "all", migrate=True)
CONFIGURATIONS = {
    "NOVM-NOSR": (False, SimulatedPolicy("easy")),
    "NOVM-SR": (False, SUSPENDING),
    "VM-PREDEPLOY": (True, SUSPENDING),
}


@dataclass(frozen=True)
class Figures:
    """One row and column of the table: makespan, mean wait, mean bounded slowdown."""

    makespan_s: int
    wait_s: float
    slowdown: float


def numbers(trace: Sequence[Job], published: Sequence[Job], site: SimulatedSite, papers: Path) -> Iterator[Number]:
    """published: the reservations of 10 %."""
    table = json.loads(papers.read_text())["HPDC2008"]["table1_3H_medium"]
    alone = figures(trace, site, SimulatedPolicy("easy"))
    for column, share in enumerate(SHARES):
        reservations = published if share == 10 else invented(trace, site.nodes, share)
        for name, (in_machines, policy) in CONFIGURATIONS.items():
            leases = [*(_in_machine(job) for job in trace)] if in_machines else [*trace]
            found = figures([*leases, *reservations], site, policy)
            paper = {key: table[key][name][column] for key in ("makespan_rel_pct", "wait_ks", "bounded_slowdown")}
            longer = 100 * (found.makespan_s / alone.makespan_s - 1)
            where = f"{name}, {share} %"
            yield Number(f"{where}: makespan", longer, "%", beside=f"paper {paper['makespan_rel_pct']}")
            yield Number(f"{where}: mean wait", found.wait_s / 1000, "ks", beside=f"paper {paper['wait_ks']}")
            yield Number(f"{where}: slowdown", found.slowdown, "", beside=f"paper {paper['bounded_slowdown']}")


def figures(jobs: Sequence[Job], site: SimulatedSite, policy: SimulatedPolicy) -> Figures:
    soft = [fate for fate in simulate(jobs, site, policy).fates if fate.job.at is None]
    ends = sorted(soft, key=lambda fate: fate.end or math.inf)
    counted = ends[int(DISCARDED * len(ends)) :]
    return Figures(
        max(fate.end or 0 for fate in soft),
        _mean(fate.wait_s for fate in counted),
        _mean(fate.bounded_slowdown for fate in counted),
    )


def _mean(values: Iterable[Fate | float | int | None]) -> float:
    known = [float(value) for value in values if isinstance(value, int | float)]
    return sum(known) / len(known)


def _in_machine(job: Job) -> Job:
    requested, runs = (math.ceil(SLOWER * duration_s) + BOOT_S for duration_s in (job.requested, job.runs))
    return replace(job, requested=requested, runs=runs)


def invented(trace: Sequence[Job], nodes: int, share: int) -> list[Job]:
    """Reservations for `share` % of the time that `nodes` nodes have until the trace's last submission."""
    chance = random.Random(share)
    last = max(job.submit for job in trace)
    count = round(share / 100 * nodes * last / (DURATION_S * sum(NODES) / 2))
    between, at, found = last / count, 0.0, list[Job]()
    for id in range(len(trace) + 1, len(trace) + 1 + count):
        duration_s = round(chance.uniform(DURATION_S - JITTER_S, DURATION_S + JITTER_S))
        start = round(at)
        asked = max(0, start - DAY_S)
        found.append(Job(id, asked, chance.randint(*NODES), duration_s, duration_s, at=start))
        at += chance.uniform(between - HOUR_S, between + HOUR_S)
    return found
