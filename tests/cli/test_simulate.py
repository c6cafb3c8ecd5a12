"""`vws simulate`: options, numbers, files, sweeps, and what it says when something is wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]

# Two nodes: the first job takes both for 100 s of the 600 s it asked for, the second waits for it, the third is short
# and small but finds no room either.
SWF = """; a comment
1 0 0 100 2 -1 -1 2 600 -1 1 7
2 10 0 50 2 -1 -1 2 600 -1 1 7
3 20 0 10 1 -1 -1 1 20 -1 1 8
"""
KEYS = {
    "leases", "granted", "refused", "makespan_s", "wait_mean_s", "wait_p95_s", "bounded_slowdown_mean", "utilization",
    "suspensions", "migrations", "cpu_s", "leases_per_cpu_s", "rss_mib_max",
}  # fmt: skip
GRID = """
[site]
nodes = 2
[workloads.small]
swf = "small.swf"
[policies.fifo]
backfill = "off"
[policies.easy]
"""


@pytest.fixture
def swf(tmp_path: Path) -> Path:
    path = tmp_path / "small.swf"
    path.write_text(SWF)
    return path


@pytest.fixture
def grid(tmp_path: Path, swf: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


@pytest.mark.parametrize("rules", ["vws", "haizea"])
def test_numbers_of_a_replay(vws: Run, swf: Path, rules: str) -> None:
    result = vws("simulate", "--swf", swf, "--nodes", "2", "--rules", rules, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert set(found) >= KEYS
    assert (found["leases"], found["granted"], found["refused"]) == (3, 3, 0)
    assert found["makespan_s"] == 160
    assert found["wait_mean_s"] in ((0 + 90 + 130) / 3, (0 + 100 + 80) / 3)  # the third last, or before the second
    assert found["utilization"] == pytest.approx((2 * 100 + 2 * 50 + 10) / (2 * 160))


def test_numbers_for_a_person(vws: Run, swf: Path) -> None:
    result = vws("simulate", "--swf", swf, "--nodes", "2", "--backfill", "off")
    assert result.exit_code == 0, result.output
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert lines["leases"].strip() == "3"
    assert lines["makespan"].strip() == "160 s (2m40s)"
    assert lines["wait, mean"].strip() == "73 s (1m13s)"
    assert result.stderr == ""


def test_a_reservation_is_granted_or_refused(vws: Run, swf: Path, tmp_path: Path) -> None:
    lwf = tmp_path / "more.lwf"
    lwf.write_text("0 1000 60 60 2 1 1024\n0 1030 60 60 1 1 1024\n")
    out = tmp_path / "leases.json"
    result = vws("simulate", "--swf", swf, "--lwf", lwf, "--nodes", "2", "--leases", out)
    assert "1 of 2 granted" in result.stdout
    assert str(out) in result.stderr
    rows = json.loads(out.read_text())
    assert [(row["id"], row["kind"], row["granted"], row["start"]) for row in rows[3:]] == [
        (4, "reservation", True, 1000),
        (5, "reservation", False, None),
    ]
    assert [row["owner"] for row in rows] == ["7", "7", "8", None, None]


def test_suspension_changes_what_becomes_of_a_lease(vws: Run, tmp_path: Path) -> None:
    (tmp_path / "long.swf").write_text("1 0 0 5000 1 -1 -1 1 6000 -1 1 7\n")
    (tmp_path / "at.lwf").write_text("1 2000 600 600 1 1 1024\n")
    common = ("simulate", "--swf", tmp_path / "long.swf", "--lwf", tmp_path / "at.lwf", "--nodes", "1", "--json")
    without, slow, fast = (
        json.loads(vws(*common, *options).stdout)
        for options in ((), ("--suspend", "all"), ("--suspend", "all", "--suspend-rate", "1024"))
    )
    assert [found["reservations_granted"] for found in (without, slow, fast)] == [1, 1, 1]
    assert [found["suspensions"] for found in (without, slow, fast)] == [0, 1, 1]
    assert fast["makespan_s"] == 5000 + 600 + 2 < slow["makespan_s"] == 5000 + 600 + 2 * 21
    assert without["makespan_s"] > slow["makespan_s"]


def test_what_may_not_be_restarted_is_not_ended_for_a_reservation(vws: Run, tmp_path: Path) -> None:
    (tmp_path / "long.swf").write_text("1 0 0 5000 1 -1 -1 1 6000 -1 1 7\n")
    (tmp_path / "at.lwf").write_text("1 2000 600 600 1 1 1024\n")
    common = ("simulate", "--swf", tmp_path / "long.swf", "--lwf", tmp_path / "at.lwf", "--nodes", "1", "--json")
    may, may_not = (json.loads(vws(*common, "--restartable", each).stdout) for each in ("yes", "no"))
    assert (may["reservations_granted"], may["makespan_s"]) == (1, 2600 + 5000)
    assert (may_not["reservations_granted"], may_not["makespan_s"]) == (0, 5000)


def test_a_sites_own_configuration_is_simulated_and_options_win_over_it(vws: Run, tmp_path: Path) -> None:
    (tmp_path / "long.swf").write_text("1 0 0 5000 1 -1 -1 1 6000 -1 1 7\n")
    (tmp_path / "at.lwf").write_text("1 2000 600 600 1 1 1024\n")
    site = tmp_path / "site.toml"
    common = ("simulate", "--swf", tmp_path / "long.swf", "--lwf", tmp_path / "at.lwf", "--nodes", "1", "--json")

    def numbers(text: str, *options: str) -> tuple[int, int]:
        site.write_text(text)
        result = vws(*common, "--config", site, *options)
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        return found["reservations_granted"], found["suspensions"]

    assert numbers("") == (1, 1)  # a site suspends if it does not say otherwise
    assert numbers("", "--suspend", "none") == (1, 0)
    assert numbers("[planning]\nsetbacks_max = 0\n") == (0, 0)
    assert numbers('[policy]\npreemption = "nobody"\n') == (0, 0)


def test_a_sites_configuration_that_is_wrong_is_told(vws: Run, swf: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text("[planning]\nuseful = -1.0\n")
    result = vws("simulate", "--swf", swf, "--nodes", "2", "--config", site)
    assert result.exit_code == 1
    assert "planning.useful is -1.0" in result.stderr


def test_haizea_has_no_rules_of_a_site(vws: Run, swf: Path) -> None:
    result = vws("simulate", "--swf", swf, "--nodes", "2", "--rules", "haizea", "--restartable", "no")
    assert result.exit_code == 1
    assert "Haizea has no such rule" in result.stderr


def test_what_is_left_out_and_skipped_is_told(vws: Run, swf: Path) -> None:
    swf.write_text(SWF + "4 30 0 -1 -1 -1 -1 1 60 -1 5\n5 x 0 1 1 -1 -1 1 60 -1 1\n6 40 0 9 3 -1 -1 3 60 -1 1\n")
    result = vws("simulate", "--swf", swf, "--nodes", "2")
    assert result.exit_code == 0, result.output
    assert "left out: 1 job, " in result.stderr
    assert "skipped: 1 malformed line\n" in result.stderr
    assert f"{swf}, line 6: the submit time is 'x'" in result.stderr
    assert "lease 4: 3 × 1 CPU and 1024 MiB" in result.stderr
    found = json.loads(vws("simulate", "--swf", swf, "--nodes", "2", "--json").stdout)
    assert (found["dropped"], found["malformed"], found["oversized"]) == (1, 1, [4])
    assert (found["leases"], found["refused"]) == (4, 1)
    assert found["malformed_lines"] == [f"{swf}, line 6: the submit time is 'x'; a number was expected"]


def test_many_malformed_lines_are_told_in_few(vws: Run, swf: Path) -> None:
    swf.write_text(SWF + "rubbish\n" * 200)
    result = vws("simulate", "--swf", swf, "--nodes", "2")
    assert "skipped: 200 malformed lines" in result.stderr
    assert "and 195 more" in result.stderr
    assert result.stderr.count("rubbish") + result.stderr.count("1 fields") < 10


def test_pictures(vws: Run, swf: Path, tmp_path: Path) -> None:
    there = tmp_path / "a" / "b"
    result = vws("simulate", "--swf", swf, "--nodes", "2", "--plot", there)
    assert result.exit_code == 0, result.output
    assert {path.name for path in there.iterdir()} == {"utilization.png", "queue.png", "waits.png", "calendar.html"}
    assert result.stderr.count("written: ") == 4
    page = (there / "calendar.html").read_text()
    assert "node-001" in page
    assert "small.swf on 2 nodes: backfill easy" in page


# ---------------------------------------------------------------- sweeps


def test_a_sweep_is_one_table(vws: Run, grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    result = vws("simulate", "--sweep", grid, "--csv", out, "--plot", tmp_path / "pictures", "--processes", "1")
    assert result.exit_code == 0, result.output
    header, fifo, easy = result.stdout.splitlines()
    assert header.split()[:4] == ["WORKLOAD", "POLICY", "GRANTED", "REFUSED"]
    assert fifo.split()[:5] == ["small", "fifo", "3", "0", "2m40s"]
    assert easy.split()[:2] == ["small", "easy"]
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["policy"], row["makespan_s"], row["error"]) for row in rows] == [
        ("fifo", "160", ""),
        ("easy", "160", ""),
    ]
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["sweep.png"]


def test_a_sweep_for_programs(vws: Run, grid: Path) -> None:
    table = json.loads(vws("simulate", "--sweep", grid, "--json").stdout)
    assert [(row["workload"], row["policy"], row["error"]) for row in table] == [
        ("small", "fifo", None),
        ("small", "easy", None),
    ]
    assert all(set(row) >= KEYS for row in table)


def test_a_cell_that_fails_is_named_and_the_others_are_told(
    vws: Run, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.sim.replays import failing_with_easy
    from vws.sim import sweep

    monkeypatch.setattr(
        sweep.run_grid, "__kwdefaults__", {**sweep.run_grid.__kwdefaults__, "replay": failing_with_easy}
    )
    result = vws("simulate", "--sweep", grid)
    assert result.exit_code == 1
    assert "small     fifo" in result.stdout
    assert "1 of 2 replays failed: small, easy: ValueError: no such luck" in result.stderr


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nodes", "2"], "--swf FILE"),
        (["--swf", "{swf}"], "--nodes"),
        (["--swf", "{swf}", "--nodes", "0"], "--nodes"),
        (["--swf", "{swf}", "--nodes", "2", "--memory", "1GB"], "--memory"),
        (["--swf", "{swf}", "--nodes", "2", "--memory", "0"], "--memory"),
        (["--swf", "{swf}", "--nodes", "2", "--backfill", "none"], "--backfill"),
        (["--swf", "{swf}", "--nodes", "2", "--backfill", "1000001"], "--backfill"),
        (["--swf", "{swf}", "--nodes", "2", "--backfill", "٣"], "--backfill"),
        (["--swf", "{swf}", "--nodes", "2", "--restartable", "perhaps"], "--restartable"),
        (["--swf", "{swf}", "--nodes", "2", "--config", "{none}"], "--config"),
        (["--sweep", "{grid}", "--config", "{grid}"], "--config: with --sweep"),
        (["--swf", "{swf}", "--nodes", "2", "--backfill", "9" * 5000], "--backfill"),
        (["--swf", "{swf}", "--nodes", "2", "--suspend", "some"], "--suspend"),
        (["--swf", "{swf}", "--nodes", "2", "--suspend-rate", "0"], "--suspend-rate"),
        (["--swf", "{swf}", "--nodes", "2", "--suspend-rate", "nan"], "--suspend-rate"),
        (["--swf", "{swf}", "--nodes", "2", "--transfer-rate", "fast"], "--transfer-rate"),
        (["--swf", "{none}", "--nodes", "2"], "--swf"),
        (["--swf", "{swf}", "--nodes", "2", "--csv", "t.csv"], "--csv: only with --sweep"),
        (["--swf", "{swf}", "--nodes", "2", "--dask", "tcp://x:1"], "--dask: only with --sweep"),
        (["--sweep", "{grid}", "--nodes", "2", "--swf", "{swf}"], "--swf, --nodes: with --sweep"),
        (["--sweep", "{grid}", "--rules", "vws"], "--rules: with --sweep"),
        (["--sweep", "{grid}", "--dask", "tcp://x:1", "--processes", "3"], "--processes: with --dask"),
    ],
)
def test_a_wrong_option_is_named(
    vws: Run, grid: Path, swf: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    words = [word.format(swf=swf, grid=grid, none=tmp_path / "none") for word in options]
    result = vws("simulate", *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stdout == ""


def test_a_place_that_cannot_be_written_is_told_before_the_replay(vws: Run, swf: Path, tmp_path: Path) -> None:
    result = vws("simulate", "--swf", swf, "--nodes", "2", "--leases", tmp_path / "no" / "such" / "out.json")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert result.stdout == ""


def test_a_file_that_is_no_trace_is_refused(vws: Run, tmp_path: Path) -> None:
    (tmp_path / "t.swf").write_bytes(bytes(range(256)) * 100)
    result = vws("simulate", "--swf", tmp_path / "t.swf", "--nodes", "2", "--json")
    assert result.exit_code == 1
    problem = json.loads(result.stderr)
    assert (problem["code"], problem["field"]) == ("invalid-request", "--swf")


def test_a_site_on_which_nothing_fits_is_refused(vws: Run, swf: Path) -> None:
    swf.write_text("1 0 0 100 4 -1 -1 4 600 -1 1 7\n2 0 0 100 3 -1 -1 3 600 -1 1 7\n")
    result = vws("simulate", "--swf", swf, "--nodes", "2")
    assert result.exit_code == 1
    assert "none of the 2 leases would ever fit on 2 nodes" in result.stderr
    assert "the smallest wants 3 machines" in result.stderr


def test_a_key_of_a_grid_that_is_wrong_is_named(vws: Run, grid: Path) -> None:
    grid.write_text(GRID.replace('"off"', '"of"'))
    result = vws("simulate", "--sweep", grid)
    assert result.exit_code == 1
    assert "policies.fifo.backfill" in result.stderr
    assert "'off', 'easy' or 'conservative'" in result.stderr
