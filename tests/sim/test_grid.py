"""Reading a grid of workloads and policies: what it makes, and every way in which it can be wrong."""

from __future__ import annotations

import dataclasses

import pytest

from vws.core.errors import InvalidRequest
from vws.planning import PlanningConfig
from vws.sim.grid import _PolicyTable, read_grid
from vws.sim.workload import SimulatedPolicy, SimulatedSite

GRID = """
[site]
nodes = 4
memory = "2GiB"

[workloads.small]
swf = "small.swf"

[workloads.other]
swf = "small.swf"
nodes = 2
cpus = 2
suspend_rate = 100

[policies.fifo]
backfill = "off"

[policies.easy]
"""


@pytest.fixture
def grid(tmp_path):
    (tmp_path / "small.swf").write_text("1 0 0 60 2 -1 -1 2 600 -1 1\n2 10 0 60 2 -1 -1 3 600 -1 1\n")

    def write(text):
        path = tmp_path / "grid.toml"
        path.write_text(text)
        return path

    return write


def test_every_workload_meets_every_policy(grid):
    cells = read_grid(grid(GRID))
    assert [(cell.workload, cell.policy) for cell in cells] == [
        ("small", "fifo"), ("small", "easy"), ("other", "fifo"), ("other", "easy"),
    ]  # fmt: skip
    assert cells[0].site == SimulatedSite(4, 1, 2048)
    assert cells[2].site == SimulatedSite(2, 2, 2048, suspend_mib_per_s=100, resume_mib_per_s=100)
    assert cells[0].rules == SimulatedPolicy(backfill="off")
    assert cells[1].rules == SimulatedPolicy()
    assert [job.nodes for job in cells[0].jobs.jobs] == [2, 3]
    assert [job.memory_mib for job in cells[0].jobs.jobs + cells[2].jobs.jobs] == [2048, 2048, 1024, 1024]


def test_a_list_makes_a_policy_of_each_of_its_values(grid):
    text = GRID + 'backfill = ["easy", 4]\nmigrate = [true, false]\nsuspend = "all"\nrules = ["haizea"]\n'
    found = {cell.policy: cell.rules for cell in read_grid(grid(text)) if cell.workload == "small"}
    assert found == {
        "fifo": SimulatedPolicy("off"),
        "easy backfill=easy migrate=true": SimulatedPolicy("easy", "all", True, "haizea"),
        "easy backfill=easy migrate=false": SimulatedPolicy("easy", "all", False, "haizea"),
        "easy backfill=4 migrate=true": SimulatedPolicy(4, "all", True, "haizea"),
        "easy backfill=4 migrate=false": SimulatedPolicy(4, "all", False, "haizea"),
    }


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        (("backfill =", "backfil ="), "policies.fifo.backfil", "no such key"),
        (('"off"', '"of"'), "policies.fifo.backfill", "'off', 'easy' or 'conservative'"),
        (('"off"', "-1"), "policies.fifo.backfill", "greater than or equal to 0"),
        (('"off"', "1000001"), "policies.fifo.backfill", "less than or equal to 1000000"),
        (('"off"', "[]"), "policies.fifo.backfill", "at least 1 item"),
        (('backfill = "off"', "patience_h = -1"), "policies.fifo.patience_h", "patience_h is -1"),
        (('backfill = "off"', "useful = nan"), "policies.fifo.useful", "useful is nan"),
        (('backfill = "off"', 'order = "mine"'), "policies.fifo.order", "no order function"),
        (('backfill = "off"', 'preemption = "mine"'), "policies.fifo.preemption", "no preemption function"),
        (('backfill = "off"', 'rules = "haizea"\nuseful = 3'), "policies.fifo.useful", "Haizea has no such rule"),
        (('"off"', "true"), "policies.fifo.backfill", "'off', 'easy' or 'conservative'"),
        (('backfill = "off"', 'migrate = "yes"'), "policies.fifo.migrate", "boolean"),
        (('backfill = "off"', 'suspend = "some"'), "policies.fifo.suspend", "'none', 'serial' or 'all'"),
        (("[site]\nnodes = 4", "[site]"), "workloads.small.nodes", "required"),
        (("nodes = 4", "nodes = 0"), "workloads.small.nodes", "greater than 0"),
        (("nodes = 4", "nodes = 4.5"), "workloads.small.nodes", "integer"),
        (('"2GiB"', '"2GB"'), "workloads.small.memory", "write 2GiB"),
        (('"2GiB"', "true"), "workloads.small.memory", "integer"),
        (("suspend_rate = 100", "suspend_rate = 0"), "workloads.other.suspend_rate", "greater than 0"),
        (("suspend_rate = 100", "suspend_rate = inf"), "workloads.other.suspend_rate", "finite"),
        (("suspend_rate = 100", "speed = 9"), "workloads.other.speed", "no such key"),
        (('[workloads.small]\nswf = "small.swf"', "[workloads.small]"), "workloads.small", "no trace"),
        (("[policies.fifo]", "[policies.fifo"), "--sweep", "not TOML"),
        (("[site]", "[sight]"), "sight", "no such key"),
        (("small.swf", "grid.toml"), "--swf", "no job to replay"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(grid, change, field, said):
    path = grid(GRID.replace(*change))
    with pytest.raises(InvalidRequest) as refusal:
        read_grid(path)
    assert refusal.value.field == field
    assert said in str(refusal.value)
    assert "grid.toml" in str(refusal.value)


def test_every_key_of_a_sites_planning_is_one_of_a_policy(grid):
    keys = (
        "smallest_first = false\npatience_h = 12\nuseful = 3\nsetbacks_max = 4\nspared_after_h = 1.5\n"
        'restartable = false\norder = "fair-share"\npreemption = "nobody"\nbackfill = 0\n'
    )
    assert {field.name for field in dataclasses.fields(PlanningConfig)} <= set(_PolicyTable.model_fields)
    cell = next(cell for cell in read_grid(grid(GRID + keys)) if cell.policy == "easy")
    assert cell.rules == SimulatedPolicy(
        0, "none", False, "vws", False, False, 12, 3, 4, 1.5, order="fair-share", preemption="nobody"
    )


def test_a_policy_is_as_a_sites_file_has_it_but_for_what_it_says_itself(grid, tmp_path):
    (tmp_path / "ours.toml").write_text('[planning]\nbackfill = "3"\nuseful = 5.0\n[vos.a]\nusers = ["7"]\n')
    (tmp_path / "theirs.toml").write_text('[planning]\nsuspend = "serial"\n')
    found = {
        cell.policy: cell.rules
        for cell in read_grid(grid(GRID + 'config = ["ours.toml", "theirs.toml"]\nuseful = 1\n'))
        if cell.workload == "small"
    }
    ours, theirs = found["easy config=ours.toml"], found["easy config=theirs.toml"]
    assert (ours.backfill, ours.suspend, ours.useful) == (3, "all", 1)
    assert (theirs.backfill, theirs.suspend, theirs.useful) == ("easy", "serial", 1)
    assert [*ours.members.vos] == ["a"]


def test_a_sites_file_that_is_wrong_is_refused_by_its_key(grid, tmp_path):
    (tmp_path / "site.toml").write_text('[planning]\nsuspend = "some"\n')
    with pytest.raises(InvalidRequest) as refusal:
        read_grid(grid(GRID + 'config = "site.toml"\n'))
    assert refusal.value.field == "planning.suspend"


@pytest.mark.parametrize("text", ["", "[workloads]\n[policies.a]", '[workloads.a]\nswf = "small.swf"\nnodes = 1'])
def test_a_grid_of_nothing_is_refused(grid, text):
    with pytest.raises(InvalidRequest, match=r"workloads|policies"):
        read_grid(grid(text))


def test_files_that_are_not_there_are_named(grid, tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_grid(tmp_path / "none.toml")
    with pytest.raises(FileNotFoundError, match=r"gone\.swf"):
        read_grid(grid(GRID.replace("small.swf", "gone.swf")))
