"""Reading traces: good lines, jobs that are left out, and everything that a log may hold instead."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.haizea import schedules
from vws.core.errors import InvalidRequest
from vws.sim.workload import Job, SimulatedSite, lwf_job, read_workload, swf_job

SITE = SimulatedSite(nodes=144, cpus=1, memory_mib=1024)
# job submit wait run allocated cpu memory processors requested memory status user group exe queue partition job think
GOOD = "13 0 22 43 32 0.03 -1 4 64800 -1 1 96 -1 -1 3 -1 -1 -1"


FIELDS = (
    "id", "submit", "wait", "run", "allocated", "cpu", "memory", "asked", "requested", "rmem", "status", "user",
)  # fmt: skip


def swf(**fields):
    """A line of SWF that is good but for `fields`."""
    words = dict(zip(FIELDS, GOOD.split()[: len(FIELDS)], strict=True))
    return " ".join(str(word) for word in {**words, **fields}.values())


@pytest.fixture
def trace(tmp_path):
    def write(*lines, name="trace.swf", end="\n"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + end)
        return path

    return write


@pytest.mark.skipif(not schedules.SHARED.exists(), reason="the reference traces are not on this machine")
@pytest.mark.parametrize("name", [*schedules.SHORT, *schedules.LONG])
def test_the_reference_traces_give_the_reference_leases(name):
    swf_name, lwf_name, _ = {**schedules.SHORT, **schedules.LONG}[name]
    traces = schedules.SHARED / "traces"
    found = read_workload(SITE, swf=traces / f"{swf_name}.swf", lwf=traces / f"{lwf_name}.lwf" if lwf_name else None)
    ours = sorted((j.id, j.submit, j.nodes, j.requested, j.runs, j.at) for j in found.jobs)
    assert ours == [
        (j.id, j.submit, j.nodes, j.requested, j.runs, j.at) for j in schedules.workload(swf_name, lwf_name)
    ]
    assert not found.malformed
    assert not found.oversized


def test_a_job_of_swf():
    assert swf_job(GOOD.split()) == Job(0, 0, 4, 64800, 43, owner="96")


@pytest.mark.parametrize(
    ("fields", "nodes", "requested", "runs"),
    [
        ({"asked": -1}, 32, 64800, 43),
        ({"run": 0}, 4, 64800, 1),
        ({"run": -1}, 4, 64800, 1),
        ({"run": 99999}, 4, 64800, 64800),
        ({"run": 0, "status": 5}, 4, 64800, 1),
        ({"submit": "7.9", "requested": "600.0"}, 4, 600, 43),
    ],
)
def test_what_a_log_leaves_open_is_settled(fields, nodes, requested, runs):
    job = swf_job(swf(**fields).split())
    assert job is not None
    assert (job.nodes, job.requested, job.runs) == (nodes, requested, runs)


@pytest.mark.parametrize("fields", [{"requested": -1}, {"requested": 0}, {"run": -1, "status": 5}])
def test_jobs_that_cannot_be_replayed_are_dropped_and_not_malformed(trace, fields):
    found = read_workload(SITE, swf=trace(GOOD, swf(**fields)))
    assert (len(found.jobs), found.dropped, found.malformed) == (1, 1, ())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 2 3", "3 fields; a line of SWF has 18"),
        (swf(submit=-5), "submit time is -5"),
        (swf(submit="1e400"), "the submit time is '1e400', which is too large"),
        (swf(submit="noon"), "the submit time is 'noon'; a number was expected"),
        (swf(run="nan"), "the run time is 'nan'"),
        (swf(requested="inf"), "the requested time is 'inf'"),
        (swf(submit="1e300"), "the submit time is '1e300'"),
        (swf(asked=0), "0 processors"),
        (swf(asked=-1, allocated=-1), "-1 processors"),
        ("\x00\x01\x02", "1 fields"),
    ],
)
def test_a_malformed_line_is_named_and_skipped(trace, line, said):
    path = trace(GOOD, line, GOOD)
    found = read_workload(SITE, swf=path)
    assert [job.id for job in found.jobs] == [1, 2]
    (bad,) = found.malformed
    assert (bad.file, bad.line) == (str(path), 2)
    assert said in bad.problem
    assert str(bad).startswith(f"{path}, line 2: ")


def test_comments_blank_lines_and_a_last_line_without_an_end(trace):
    path = trace("; UnixStartTime: 956990976", "", "   ", GOOD + " ; first", GOOD, end="")
    found = read_workload(SITE, swf=path)
    assert (len(found.jobs), found.malformed) == (2, ())


def test_line_ends_of_other_systems(tmp_path):
    (tmp_path / "t.swf").write_bytes(f"; made elsewhere\r\n{GOOD}\r\n".encode())
    assert len(read_workload(SITE, swf=tmp_path / "t.swf").jobs) == 1


def test_jobs_come_by_submit_time_and_are_numbered_as_they_stand(trace):
    first = trace(swf(submit=50), swf(submit=10))
    second = trace("10 86400 600 600 2 1 512", name="more.lwf")
    found = read_workload(SITE, swf=first, lwf=second)
    assert [(job.submit, job.id) for job in found.jobs] == [(10, 2), (10, 3), (50, 1)]


def test_leases_of_lwf(trace):
    path = trace(
        "# submit start requested real nodes", "0 30571 9470 9000 48 2 1024 0 'NONE.img' 600", "5 -1 60 99 1 1 512"
    )
    found = read_workload(SimulatedSite(48, 2, 2048), lwf=path)
    assert found.jobs == (
        Job(1, 0, 48, 9470, 9000, at=30571, cpus=2),
        Job(2, 5, 1, 60, 60, memory_mib=512),
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 -1 60 60 1 1", "6 fields; a line of LWF has 10"),
        ("-1 -1 60 60 1 1 512", "submit time is -1"),
        ("100 50 60 60 1 1 512", "starts at 50, before it is submitted at 100"),
        ("0 -1 60 60 0 1 512", "0 nodes"),
        ("0 -1 60 60 1 x 512", "the CPUs is 'x'"),
    ],
)
def test_malformed_leases(line, said):
    with pytest.raises(ValueError, match=said):
        lwf_job(line.split())


def test_a_lease_without_a_duration_is_dropped():
    assert lwf_job(["0", "-1", "0", "0", "1", "1", "512"]) is None


def test_what_no_site_of_this_size_could_run_is_set_apart(trace):
    found = read_workload(SimulatedSite(3, 1, 1024), swf=trace(GOOD, swf(asked=3)))
    assert [job.nodes for job in found.jobs] == [3]
    assert [(job.id, job.nodes) for job in found.oversized] == [(1, 4)]


def test_several_machines_share_a_node(trace):
    site = SimulatedSite(nodes=1, cpus=4, memory_mib=8192)
    found = read_workload(site, swf=trace(GOOD))
    assert [(job.nodes, job.cpus, job.memory_mib) for job in found.jobs] == [(4, 1, 2048)]
    assert read_workload(site, swf=trace(GOOD), vm_memory_mib=4096).oversized


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "it is empty"),
        (["; only a comment"], "it is empty"),
        (["0 0", "0 0"], "line 1: 2 fields"),
        ([swf(requested=-1)] * 3, "all its 3 jobs were cancelled before they ran, or say no requested time"),
    ],
)
def test_a_file_without_jobs_is_refused(trace, lines, said):
    path = trace(*lines)
    with pytest.raises(InvalidRequest, match=said) as refusal:
        read_workload(SITE, swf=path)
    assert (refusal.value.field, refusal.value.asked) == ("--swf", str(path))


@pytest.mark.parametrize("content", [bytes(range(256)) * 1000, b"\x89PNG\r\n\x1a\n" * 50_000, b"\xff" * 200_000])
def test_rubbish_is_refused_and_not_read_to_its_end(tmp_path, content):
    (tmp_path / "t.lwf").write_bytes(content)
    with pytest.raises(InvalidRequest) as refusal:
        read_workload(SITE, lwf=tmp_path / "t.lwf")
    assert refusal.value.field == "--lwf"
    assert "\x00" not in str(refusal.value)


def test_compressed_traces_are_read_and_broken_ones_refused(tmp_path):
    whole = gzip.compress(f"{GOOD}\n".encode() * 100)
    (tmp_path / "t.swf.gz").write_bytes(whole)
    assert len(read_workload(SITE, swf=tmp_path / "t.swf.gz").jobs) == 100
    for broken in (whole[:-12], whole[:10] + b"\xff" * 40):
        (tmp_path / "t.swf.gz").write_bytes(broken)
        with pytest.raises(InvalidRequest, match="cannot be decompressed"):
            read_workload(SITE, swf=tmp_path / "t.swf.gz")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.swf"):
        read_workload(SITE, swf=tmp_path / "none.swf")


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=8))
def test_no_line_breaks_the_reader(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("t") / "t.swf"
    path.write_text("\n".join([GOOD, *lines]))
    found = read_workload(SITE, swf=path)
    assert found.jobs[0].id == 1
    assert all(bad.line >= 2 for bad in found.malformed)


@given(st.lists(st.floats() | st.integers(), min_size=11, max_size=18))
def test_numbers_of_any_size_give_a_job_that_a_site_can_judge_or_a_reason(numbers):
    try:
        job = swf_job([str(number) for number in numbers])
    except ValueError:
        return
    assert job is None or (job.submit >= 0 and job.nodes > 0 and 1 <= job.runs <= job.requested)
