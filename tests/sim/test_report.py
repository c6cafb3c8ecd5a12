"""The numbers of a run, held against those that others computed from the same schedules."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.haizea.schedules import LONG, SHARED, SHORT
from vws.sim.report import Fate, Run, numbers, rows, rss_mib_max, with_refused
from vws.sim.workload import Job, SimulatedSite

SITE = SimulatedSite(nodes=4, cpus=1, memory_mib=1024)


def soft(id, submit, nodes, runs, start, end, **counts):
    return Fate(Job(id, submit, nodes, 2 * runs, runs), True, start, end, **counts)


def run(*fates, cpu_s=0.5):
    return Run(fates, (), cpu_s)


def reference(name):
    """A schedule of Haizea's as a run, and what Haizea's own report said of it."""
    with gzip.open(SHARED / f"runs/{name}.leases.json.gz") as file:
        data = json.load(file)
    fates = []
    for id, kind, nodes, submit, requested, known, start, end, state, events in data["rows"]:
        job = Job(id, submit, nodes, requested, known or requested, at=None if kind == "BE" else start)
        if kind != "BE" and start is None:
            job = Job(id, submit, nodes, requested, requested, at=submit + 86400)
        counts = [sum(event[0] == kind for event in events) for kind in ("suspend", "migrate")]
        fates.append(Fate(job, state == "Done", start, end, *counts))
    told = json.loads((SHARED / f"runs/{name}.json").read_text())
    return Run(tuple(fates), (), told["cpu_s"]), told


@pytest.mark.skipif(not SHARED.exists(), reason="the reference schedules are not on this machine")
@pytest.mark.parametrize("name", [*SHORT, *LONG])
def test_the_reference_schedules_give_the_reference_numbers(name):
    schedule, told = reference(name)
    ours = numbers(schedule, SimulatedSite(144, 1, 1024))
    assert ours["leases"] == told["leases"] == told["be"] + told["ar"]
    assert ours["refused"] == told["ar_rejected"]
    assert ours["reservations"] == told["ar"]
    assert ours["reservations_granted"] == told["ar_done"]
    assert ours["unfinished"] == told["not_finished"] == 0
    assert ours["makespan_s"] == told["all_best_effort_s"]
    assert ours["wait_mean_s"] == pytest.approx(told["wait_s"]["mean"])
    assert ours["wait_p95_s"] == told["wait_s"]["p95"]
    assert ours["wait_max_s"] == told["wait_s"]["max"]
    assert ours["bounded_slowdown_mean"] == pytest.approx(told["bounded_slowdown_vs_actual"]["mean"])
    assert ours["utilization"] == pytest.approx(told["utilisation_until_makespan"])
    assert (ours["suspensions"], ours["migrations"]) == (told["suspend_events"], told["migrate_events"])


def test_numbers_of_a_small_run():
    found = numbers(run(soft(1, 0, 2, 100, 0, 100), soft(2, 10, 4, 5, 100, 105)), SITE)
    assert found["makespan_s"] == 105
    assert found["wait_mean_s"] == (0 + 90) / 2
    assert found["wait_max_s"] == 90
    assert found["bounded_slowdown_mean"] == pytest.approx((100 / 100 + 95 / 10) / 2)
    assert found["utilization"] == pytest.approx((2 * 100 + 4 * 5) / (4 * 105))
    assert (found["leases"], found["granted"], found["refused"], found["leases_per_cpu_s"]) == (2, 2, 0, 4)


def test_what_was_saved_and_moved_is_counted():
    fate = soft(1, 0, 2, 100, 0, 300, suspensions=2, migrations=1)
    found = numbers(run(fate), SITE)
    assert (found["suspensions"], found["migrations"]) == (2, 1)
    assert found["utilization"] == pytest.approx(200 / (4 * 300))


def test_a_reservation_counts_neither_as_waiting_nor_towards_the_makespan():
    reservation = Fate(Job(2, 0, 4, 100, 100, at=50), True, 50, 150)
    found = numbers(run(soft(1, 0, 1, 100, 0, 100), reservation), SITE)
    assert (found["makespan_s"], found["wait_max_s"]) == (100, 0)
    assert found["utilization"] == pytest.approx((100 + 4 * 50) / 400)


def test_reservations_alone_have_a_makespan_and_no_waits():
    found = numbers(run(Fate(Job(1, 0, 4, 100, 100, at=50), True, 50, 150)), SITE)
    assert (found["makespan_s"], found["wait_mean_s"], found["bounded_slowdown_mean"]) == (150, None, None)


def test_the_refused_and_the_unfinished_are_counted():
    found = numbers(with_refused(run(Fate(Job(2, 0, 1, 10, 10), True, None, None)), [Job(1, 0, 9, 10, 10)]), SITE)
    assert (found["granted"], found["refused"], found["unfinished"]) == (1, 1, 1)
    assert (found["makespan_s"], found["utilization"]) == (None, None)


def test_a_run_of_nothing_has_numbers():
    found = numbers(Run((), (), 0.0), SITE)
    assert (found["leases"], found["wait_p95_s"], found["leases_per_cpu_s"]) == (0, None, None)
    json.dumps(found)


def test_several_cpus_count_each():
    site = SimulatedSite(2, 8, 8192)
    fate = Fate(Job(1, 0, 4, 10, 10, cpus=2), True, 0, 10)
    assert numbers(run(fate), site)["utilization"] == pytest.approx(4 * 2 / 16)


def test_rows_are_one_a_lease_by_id():
    found = rows(with_refused(run(soft(1, 5, 2, 100, 10, 110)), [Job(3, 0, 9, 10, 10, at=40)]))
    assert [row["id"] for row in found] == [1, 3]
    assert (found[0]["kind"], found[0]["wait_s"], found[0]["end"]) == ("best-effort", 5, 110)
    assert (found[1]["kind"], found[1]["granted"], found[1]["wait_s"]) == ("reservation", False, None)
    json.dumps(found)


def test_memory_is_in_mib():
    assert 5 < rss_mib_max() < 100_000
