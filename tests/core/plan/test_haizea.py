"""The planner under Haizea's rules against Haizea's own schedules: every lease starts and ends when it did there."""

from __future__ import annotations

import pytest

from tests.haizea.schedules import LONG, SHARED, SHORT, UNLIMITED, reference
from vws.sim.workload import SimulatedPolicy, SimulatedSite, read_workload
from vws.sim.world import simulate

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the reference schedules are not here")
BACKFILL = {0: "off", 1: "easy", UNLIMITED: "conservative"}
SITE = SimulatedSite(nodes=144, cpus=1, memory_mib=1024)


@pytest.mark.parametrize("name", [*SHORT, *LONG])
def test_a_schedule_is_haizeas(name):
    trace, injected, rules = {**SHORT, **LONG}[name]
    lwf = SHARED / f"traces/{injected}.lwf" if injected else None
    workload = read_workload(SITE, swf=SHARED / f"traces/{trace}.swf", lwf=lwf)
    backfill = BACKFILL.get(rules.bookings, rules.bookings)
    policy = SimulatedPolicy(backfill=backfill, suspend=rules.suspension, migrate=rules.migration, rules="haizea")
    run = simulate(workload.jobs, SITE, policy)
    assert sorted((fate.job.id, fate.start, fate.end) for fate in run.fates) == reference(name)
