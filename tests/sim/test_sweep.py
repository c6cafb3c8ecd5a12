"""Running a grid: every cell once, in processes or in a real Dask cluster; one that fails loses itself alone."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest

from tests.sim import replays
from vws.core.errors import InvalidRequest
from vws.sim.grid import Cell
from vws.sim.sweep import run_grid
from vws.sim.workload import Job, SimulatedPolicy, SimulatedSite, Workload

SITE = SimulatedSite(4, 1, 1024)
JOBS = Workload((Job(1, 0, 2, 600, 60), Job(2, 10, 3, 600, 60)), oversized=(Job(3, 20, 9, 60, 60),))


def cell(workload, policy, **rules):
    return Cell(workload, policy, JOBS, SITE, SimulatedPolicy(**rules))


CELLS = [cell("a", "fifo", backfill="off"), cell("a", "easy"), cell("b", "fifo", backfill="off")]


def test_rows_are_in_the_order_of_the_cells_and_each_has_a_process_of_its_own():
    done = []
    rows = run_grid(CELLS, processes=2, replay=replays.told, progress=done.append)
    assert [(row["workload"], row["policy"], row["leases"], row["error"]) for row in rows] == [
        ("a", "fifo", 2, None), ("a", "easy", 2, None), ("b", "fifo", 2, None),
    ]  # fmt: skip
    assert done == [1, 2, 3]
    assert len({row["process"] for row in rows} | {os.getpid()}) == 4


@pytest.mark.parametrize(
    ("replay", "said"),
    [
        (replays.failing_with_easy, "ValueError: no such luck"),
        (replays.killed_with_easy, "its process was killed by signal 9; did memory run out?"),
    ],
)
def test_a_cell_that_fails_is_named_and_loses_no_other(replay, said):
    rows = run_grid(CELLS, processes=1, replay=replay)
    assert [row["error"] for row in rows] == [None, said, None]
    assert [row.get("leases") for row in rows] == [2, None, 2]


def test_a_process_that_ends_without_a_word_is_told():
    (row,) = run_grid(CELLS[:1], processes=1, replay=replays.exiting)
    assert row["error"] == "its process ended with status 3"


def test_an_interrupt_ends_the_processes():
    def interrupted(_):
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_grid(
            [cell("a", "fifo"), cell("a", "endless")], processes=2, replay=replays.first_done, progress=interrupted
        )
    assert time.monotonic() - begin < 30
    assert not multiprocessing.active_children()


# ---------------------------------------------------------------- Dask


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    distributed = pytest.importorskip("distributed")
    import dask

    ours = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with (
        dask.config.set({"temporary-directory": str(tmp_path_factory.mktemp("dask"))}),
        distributed.LocalCluster(host="tcp://127.0.0.1", **ours) as cluster,
    ):
        yield cluster.scheduler_address


def test_a_dask_cluster_runs_the_grid(cluster):
    done = []
    rows = run_grid(CELLS, processes=1, dask=cluster, replay=replays.failing_with_easy, progress=done.append)
    assert [(row["workload"], row["policy"]) for row in rows] == [("a", "fifo"), ("a", "easy"), ("b", "fifo")]
    assert [row["error"] for row in rows] == [None, "ValueError: no such luck", None]
    assert [row.get("leases") for row in rows] == [2, None, 2]
    assert done == [1, 2, 3]


def test_a_cluster_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("vws.sim.sweep.CONNECT_S", 0.5)
    with pytest.raises(InvalidRequest, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_grid(CELLS, processes=1, dask="tcp://127.0.0.1:9")


def test_an_address_that_is_none_is_named():
    with pytest.raises(InvalidRequest, match="nowhere"):
        run_grid(CELLS, processes=1, dask="nowhere://at-all")


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(InvalidRequest) as refusal:
        run_grid(CELLS, processes=1, dask="tcp://127.0.0.1:8786")
    assert refusal.value.possible == "pip install 'vws[dask]'"
