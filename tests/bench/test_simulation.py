"""What the bench of the planner makes of traces before it measures anything."""

from __future__ import annotations

import dataclasses

import pytest

from bench import hpdc2008, rivals, simulation
from vws.sim.workload import Job, SimulatedPolicy, SimulatedSite, read_workload

SITE = SimulatedSite(144, 1, 1024)
TRACE = [Job(1, 0, 4, 600, 60, owner="7"), Job(2, 30 * 86400, 144, 7200, 7200)]


@pytest.mark.parametrize("share", hpdc2008.SHARES)
def test_invented_reservations_are_of_the_papers_kind(share):
    found = hpdc2008.invented(TRACE, 144, share)
    assert [job.id for job in found] == list(range(3, 3 + len(found)))
    assert all(25 <= job.nodes <= 48 and 9000 <= job.requested <= 12600 for job in found)
    assert all(job.submit == max(0, (job.at or 0) - 86400) for job in found)
    work = sum(job.nodes * job.requested for job in found)
    assert work / (144 * 30 * 86400) == pytest.approx(share / 100, rel=0.05)
    assert found == hpdc2008.invented(TRACE, 144, share)


def test_the_first_leases_to_complete_do_not_count():
    jobs = [Job(id, 0, 1, 100, 100) for id in range(1, 41)]
    found = hpdc2008.figures(jobs, SimulatedSite(1, 1, 1024), SimulatedPolicy("easy"))
    assert found.makespan_s == 4000
    assert found.wait_s == sum(100 * n for n in range(2, 40)) / 38
    assert found.slowdown == pytest.approx(sum(n + 1 for n in range(2, 40)) / 38)


def test_machines_cost_what_the_paper_says():
    trace, alone = TRACE[:1], hpdc2008.figures(TRACE[:1], SITE, SimulatedPolicy("easy"))
    slower = dataclasses.replace(trace[0], requested=650, runs=83)
    assert hpdc2008._in_machine(trace[0]) == slower
    assert alone.makespan_s == 60


def test_a_trace_twice_has_every_job_again_a_month_later(tmp_path):
    path = rivals.write_plain(TRACE, tmp_path / "plain.swf")
    (tmp_path / "more.lwf").write_text("# comment\n0 86400 60 60 2 1 1024\n5 -1 60 60 2 1 1024\n")
    month = simulation.MONTH_S
    twice = read_workload(
        SITE,
        swf=simulation._twice(path, tmp_path, (1,)),
        lwf=simulation._twice(tmp_path / "more.lwf", tmp_path, (0, 1)),
    )
    assert sorted((job.submit, job.at, job.nodes) for job in twice.jobs if job.nodes != 2) == [
        (0, None, 4), (month, None, 4), (month, None, 144), (2 * month, None, 144),
    ]  # fmt: skip
    assert sorted((job.submit, job.at or -1) for job in twice.jobs if job.nodes == 2) == [
        (0, 86400), (5, -1), (month, month + 86400), (month + 5, -1),
    ]  # fmt: skip


def test_a_plain_trace_says_the_same(tmp_path):
    found = read_workload(SITE, swf=rivals.write_plain(TRACE, tmp_path / "plain.swf"))
    assert [dataclasses.replace(job, owner="7" if job.id == 1 else "") for job in found.jobs] == TRACE


def test_vws_is_measured_as_it_is_typed(tmp_path):
    found = rivals.vws("--swf", rivals.write_plain(TRACE, tmp_path / "plain.swf"), "--nodes", "144")
    assert (found["leases"], found["wait_mean_s"]) == (2, 0)
    assert found["cpu_s"] > 0


@pytest.mark.skipif(not rivals.BARE.exists(), reason="the bare loop is not on this machine")
def test_the_bare_loop_is_understood(tmp_path):
    found = rivals.bare_easy(rivals.write_plain(TRACE, tmp_path / "plain.swf"), 144)
    assert found["wait_mean_s"] == 0
    assert found["cpu_s"] >= 0


def test_a_rival_that_fails_says_why(monkeypatch, tmp_path):
    (tmp_path / "empty.swf").touch()
    with pytest.raises(RuntimeError, match="no job to replay"):
        rivals.vws("--swf", tmp_path / "empty.swf", "--nodes", "1")
    monkeypatch.setattr(rivals, "ACCASIM", tmp_path)
    (tmp_path / f"has-{rivals.ACCASIM_VERSION}").touch()
    with pytest.raises(FileNotFoundError):
        rivals.accasim(tmp_path / "empty.swf", 1)


def test_without_accasim_the_reason_is_said(monkeypatch, tmp_path):
    def failing(command):
        raise RuntimeError("python -m pip ... failed: ERROR: no such package")

    monkeypatch.setattr(rivals, "ACCASIM", tmp_path)
    monkeypatch.setattr(rivals.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(rivals, "_run", failing)
    assert "no such package" in rivals.why_no_accasim()
    (tmp_path / f"has-{rivals.ACCASIM_VERSION}").touch()
    assert rivals.why_no_accasim() == ""
