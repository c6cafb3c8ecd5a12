"""The planner against others that were written apart from it, start by start and end by end.

Under Haizea's rules: Haizea's own algorithm read literally (tests/haizea/oracle.py). Under VWS's rules, where nothing
is suspended: EASY and conservative backfilling as the books have them, trying every second on every node.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.plan.classic import Classic
from tests.haizea.oracle import NODE_MIB, Lease, Oracle, Policy
from vws.sim.workload import Job, SimulatedPolicy, SimulatedSite
from vws.sim.world import simulate

UNLIMITED = 1 << 30
BACKFILL = {0: "off", 1: "easy", UNLIMITED: "conservative"}
BOOKINGS = [0, 1, 2, 4, UNLIMITED]
MANY = settings(max_examples=60, deadline=None)
SOAK = settings(max_examples=3000, deadline=None)
seeds = st.integers(0, 1 << 40)

Outcome = list[tuple[int, int | None, int | None]]


def draw_jobs(random: Random, nodes: int, reservations: bool) -> list[Job]:
    """Crowded enough that leases wait, are passed, preempted and suspended; durations of the order of a suspension.
    Numbered as in the traces: by when they are asked for, reservations after the others."""
    drawn = []
    for _ in range(random.randint(1, 30)):
        submit = random.choice([0, 50, 100, 100, 200]) if random.random() < 0.2 else random.randint(0, 1500)
        requested = random.choice([30, 100, random.randint(1, 800)])
        runs = random.randint(1, requested) if random.random() < 0.6 else requested
        at = None
        if reservations and random.random() < 0.25:
            # Never so soon that a suspension would have had to begin before: Haizea has no answer then.
            at = submit + random.choice([30, 60, random.randint(25, 900)])
        drawn.append((at is not None, submit, random.randint(1, nodes), requested, runs, at))
    drawn.sort(key=lambda each: each[:2])
    return [Job(id, *fields) for id, (_, *fields) in enumerate(drawn, start=1)]


def planned(jobs: list[Job], nodes: int, policy: SimulatedPolicy) -> Outcome:
    run = simulate(jobs, SimulatedSite(nodes=nodes, cpus=1, memory_mib=NODE_MIB), policy)
    return [(fate.job.id, fate.start, fate.end) for fate in run.fates]


def as_haizea(jobs: list[Job], nodes: int, policy: Policy) -> Outcome | None:
    """None where work was done in the very second of a suspension (the oracle then lets it run as long as asked), and
    where the oracle finds no place for a booking that it has taken away."""
    asked = [Lease(job.id, job.submit, job.nodes, job.requested, job.runs, job.at) for job in jobs]
    try:
        leases = Oracle(asked, nodes, policy).simulate()
    except AssertionError:
        return None
    if any(lease.runs < lease.worked for lease in leases if lease.runs < lease.requested):
        return None
    return [(lease.id, lease.start, lease.end) for lease in leases]


def compare_with_haizea(seed: int, bookings: int, suspension: str, migration: bool) -> None:
    random = Random(seed)
    nodes = random.randint(1, 6)
    jobs = draw_jobs(random, nodes, reservations=random.random() < 0.8)
    backfill = BACKFILL.get(bookings, bookings)
    policy = SimulatedPolicy(backfill=backfill, suspend=suspension, migrate=migration, rules="haizea")
    expected = as_haizea(jobs, nodes, Policy(bookings, suspension, migration))
    assert expected is None or planned(jobs, nodes, policy) == expected, (nodes, jobs)


WAYS = [("none", False), ("serial", False), ("serial", True), ("all", False), ("all", True)]


@pytest.mark.parametrize("bookings", BOOKINGS)
@pytest.mark.parametrize(("suspension", "migration"), WAYS)
def test_haizeas_rules_give_what_haizea_gives(bookings, suspension, migration):
    for seed in range(25):
        compare_with_haizea(seed, bookings, suspension, migration)


@pytest.mark.soak
@SOAK
@given(seeds, st.sampled_from(BOOKINGS), st.sampled_from(WAYS))
def test_haizeas_rules_give_what_haizea_gives_at_length(seed, bookings, way):
    compare_with_haizea(seed, bookings, *way)


def draw_short_jobs(random: Random, nodes: int) -> list[Job]:
    drawn = []
    for _ in range(random.randint(1, 14)):
        requested = random.randint(1, 25)
        runs = random.randint(1, requested) if random.random() < 0.6 else requested
        drawn.append((random.randint(0, 40), random.randint(1, nodes), requested, runs))
    drawn.sort(key=lambda each: each[0])
    return [Job(id, *fields) for id, fields in enumerate(drawn, start=1)]


def compare_with_classic(seed: int, backfill: str) -> None:
    random = Random(seed)
    nodes = random.randint(1, 5)
    jobs = draw_short_jobs(random, nodes)
    expected = Classic(jobs, nodes, backfill).outcome()
    assert planned(jobs, nodes, SimulatedPolicy(backfill=backfill)) == expected, (nodes, jobs)


@pytest.mark.parametrize("backfill", ["off", "easy", "conservative"])
@MANY
@given(seeds)
def test_without_suspension_it_is_the_classic_algorithm(backfill, seed):
    compare_with_classic(seed, backfill)


@pytest.mark.soak
@pytest.mark.parametrize("backfill", ["off", "easy", "conservative"])
@SOAK
@given(seeds)
def test_without_suspension_it_is_the_classic_algorithm_at_length(backfill, seed):
    compare_with_classic(seed, backfill)
