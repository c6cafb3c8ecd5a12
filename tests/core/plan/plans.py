"""The plans of many small sites as one page of text, to be compared between two ways of running the planner."""

from __future__ import annotations

import hashlib
from random import Random

from tests.core.plan.model import Life
from tests.core.plan.test_against_oracle import WAYS, draw_jobs
from tests.core.plan.worlds import anything, plain
from vws.core.plan import planner
from vws.sim.workload import SimulatedPolicy, SimulatedSite
from vws.sim.world import simulate

SEEDS = range(120)


def page() -> str:
    """A line for each site: what was done when and where, as a digest."""
    lines = []
    for seed in SEEDS:
        for build in (plain, anything):
            log = Life(build(Random(seed)), audited=False).live().log
            lines.append(f"{build.__name__} {seed} {_digest(log)}")
        random = Random(seed)
        jobs = draw_jobs(random, 6, reservations=True)
        suspend, migrate = random.choice(WAYS)
        backfill = random.choice(["off", "easy", "conservative", 2])
        for rules in ("vws", "haizea"):
            policy = SimulatedPolicy(backfill=backfill, suspend=suspend, migrate=migrate, rules=rules)
            fates = simulate(jobs, SimulatedSite(nodes=6, cpus=1, memory_mib=1024), policy).fates
            lines.append(f"{rules} {seed} {_digest([(fate.job.id, fate.start, fate.end) for fate in fates])}")
    return "\n".join(lines)


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


if __name__ == "__main__":
    print(planner.__file__)
    print(page())
