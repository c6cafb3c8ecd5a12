"""`vws lease request` of every kind: what is asked of the service, and how a lease that waits is told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from tests.cli.conftest import FakeClient, lease, workspace
from vws.cli.lease import told_of

Run = Callable[..., Result]

SIMPLE = ("lease", "request", "--image", "demo", "--for", "2h")
SCRIPT = "#!/bin/sh\nmake -C /data\n"
LATER = int(datetime(2090, 7, 3, 6, 0, tzinfo=UTC).timestamp())


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def asked_of(client: FakeClient) -> dict[str, Any]:
    [(_, asked)] = client.asked
    plain = ("groups", "duration_s", "ssh_keys")
    return {name: value for name, value in asked.items() if name not in plain}


def groups_of(client: FakeClient) -> list[dict[str, Any]]:
    [(_, asked)] = client.asked
    size = ("image", "count", "cpus", "memory_mib", "disk_mib")
    return [{name: value for name, value in group.items() if name not in size} for group in asked["groups"]]


# ---------------------------------------------------------------- asking


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ([], {}),
        (["--at", "2090-07-03T08:00"], {"when": "reservation", "start": LATER}),
        (["--best-effort", "--preemptible"], {"when": "best-effort", "preemptible": True}),
        (["--by", "2090-07-03T06:00Z", "--restartable"], {"when": "deadline", "deadline": LATER, "restartable": True}),
        (["--urgent"], {"urgent": True}),
        (
            ["--every", "monday 08:00", "--until", "2090-07-03 08:00"],
            {"when": "periodic", "rule": "FREQ=WEEKLY;BYDAY=MO;BYHOUR=8;BYMINUTE=0;BYSECOND=0", "until": LATER,
             "zone": "Europe/Berlin"},
        ),
        (
            ["--every", "FREQ=DAILY;COUNT=3", "--at", "2090-07-03T06:00:00Z", "--skip-exceptions"],
            {"when": "periodic", "rule": "FREQ=DAILY;COUNT=3", "start": LATER, "zone": "Europe/Berlin",
             "exceptions": "skip"},
        ),
    ],
)  # fmt: skip
def test_each_kind_is_asked_for_by_its_option(vws: Run, client: FakeClient, options: list[str], asked: Any) -> None:
    result = vws(*SIMPLE, *options)
    assert result.exit_code == 0, result.output
    assert asked_of(client) == asked


def test_a_time_from_now_is_counted_from_now(vws: Run, client: FakeClient) -> None:
    before = int(time.time())
    vws(*SIMPLE, "--at", "+90s")
    assert before + 90 <= asked_of(client)["start"] <= int(time.time()) + 90


@pytest.mark.parametrize("command", [("lease", "request", "--dry-run"), ("lease", "explain")])
def test_asking_before_asking_is_of_every_kind_too(vws: Run, client: FakeClient, command: tuple[str, ...]) -> None:
    result = vws(*command, "--image", "demo", "--for", "2h", "--by", "2090-07-03T06:00Z")
    assert result.exit_code == 0, result.output
    assert client.asked[0][0] == "explain_request"
    assert asked_of(client) == {"when": "deadline", "deadline": LATER}


def test_a_command_is_the_text_of_its_file(vws: Run, client: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text(SCRIPT)
    result = vws(*SIMPLE, "--best-effort", "--command", str(tmp_path / "job.sh"))
    assert result.exit_code == 0, result.output
    assert asked_of(client)["command"] == SCRIPT


def test_wishes_about_nodes_are_each_groups_own_or_all_groups(vws: Run, client: FakeClient) -> None:
    result = vws(
        *SIMPLE, "--require", "kvm", "--apart",
        "--group", 'name=head, together, require=arch in ["x86_64", "aarch64"] and cpus >= 2',
        "--group", "name=worker,n=3",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert groups_of(client) == [
        {
            "name": "head",
            "requirement": 'arch in ["x86_64", "aarch64"] and cpus >= 2',
            "apart": True,
            "together": True,
        },
        {"name": "worker", "requirement": "kvm", "apart": True},
    ], "that it is both is for the service to refuse"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--best-effort", "--by", "14:30"], "--best-effort and --by exclude each other"),
        (["--at", "14:30", "--by", "14:30"], "--by and --at exclude each other"),
        (["--every", "hourly", "--best-effort"], "--best-effort and --every exclude each other"),
        (["--until", "14:30"], "--every RULE, which is missing"),
        (["--at", "14:30", "--skip-exceptions"], "--every RULE, which is missing"),
        (["--at", "later"], "'later' is not a time; write 14:30"),
        (["--by", "+90"], "which unit: 90s"),
        (["--every", "monthly"], "'monthly' is not a rule; write daily 08:00"),
        (["--group", "apart=yes"], "is none of"),
        (["--command", "no-such-file"], "does not exist"),
    ],
)
def test_what_contradicts_itself_is_status_2(vws: Run, client: FakeClient, options: list[str], sentence: str) -> None:
    result = vws(*SIMPLE, *options)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert client.asked == []


@pytest.mark.parametrize(("content", "sentence"), [(b"\xff\xfe\x00", "is no text"), (b" \n", "is empty")])
def test_a_file_that_is_no_script_is_refused(
    vws: Run, client: FakeClient, tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "job").write_bytes(content)
    result = vws(*SIMPLE, "--best-effort", "--command", str(tmp_path / "job"))
    assert (result.exit_code, client.asked) == (2, [])
    assert sentence in result.stderr


def test_a_rule_needs_a_clock_with_a_name(vws: Run, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST")
    result = vws(*SIMPLE, "--every", "hourly", "--until", "+2d")
    assert (result.exit_code, client.asked) == (2, [])
    assert "on whose clock is --every?" in result.stderr


# ---------------------------------------------------------------- telling


def waiting(**changes: Any) -> dict[str, Any]:
    given = {"kind": "best-effort", "state": "waiting", "start": None, "end": None, "active_at": None}
    return lease(**given | changes)


@pytest.mark.parametrize(
    ("granted", "said"),
    [
        (waiting(), ["for 2h, when it fits", "It waits in the queue. Next: vws lease explain demo"]),
        (
            waiting(kind="deadline", deadline=LATER),
            ["for 2h, so that it is over by 2090-07-03 08:00:00 CEST (06:00:00 UTC)"],
        ),
        (
            waiting(start=LATER, end=LATER + 3600),  # cut: it goes on later
            ["for 2h, by the present plan from 2090-07-03 08:00:00 CEST (06:00:00 UTC), when it fits"],
        ),
        (
            waiting(kind="reservation", state="planned", start=LATER, end=LATER + 7200),
            ["from 2090-07-03 08:00:00 CEST (06:00:00 UTC) until 2090-07-03 10:00:00 CEST (08:00:00 UTC) (2h)",
             "It is granted. Next: vws lease show demo"],
        ),
    ],
)  # fmt: skip
def test_what_was_granted_is_told_with_its_times(vws: Run, client: FakeClient, granted: Any, said: list[str]) -> None:
    client.lives = [granted]
    result = vws(*SIMPLE)
    assert result.exit_code == 0, result.output
    for sentence in said:
        assert sentence in result.stdout


def test_a_series_is_told_with_its_exceptions(vws: Run, client: FakeClient) -> None:
    planned = waiting(kind="reservation", state="planned", start=LATER, end=LATER + 7200, series="srs-1")
    series = {
        "series": "srs-1",
        "leases": [planned],
        "skipped": [{"start": LATER + 86400, "end": LATER + 93600, "reason": "two nodes are short"}],
    }
    client.lives = [series]
    told = vws(*SIMPLE, "--every", "daily 08:00", "--until", "2090-07-05", "--wait").stdout
    assert "series srs-1: 1 reservation\n" in told
    assert "demo (lse-1) from 2090-07-03 08:00:00 CEST" in told
    assert "1 exception, left out:\n  2090-07-04 08:00:00 CEST (06:00:00 UTC): two nodes are short" in told
    as_json = vws(*SIMPLE, "--every", "daily 08:00", "--until", "2090-07-05", "--json").stdout
    assert json.loads(as_json) == series


def test_lists_show_what_is_to_come(vws: Run, client: FakeClient) -> None:
    client.lives = [waiting(start=time.time() + 3700, groups=lease()["groups"])]
    header, row = vws("lease", "list").stdout.splitlines()
    assert header.split() == ["NAME", "STATE", "KIND", "WORKSPACES", "IMAGE", "OWNER", "START", "ID"]
    assert row.split()[:5] == ["demo", "waiting", "best-effort", "0/1", "running"]
    assert "in 1h1m" in row


def test_who_gives_way_to_others_does_not_end_then(vws: Run, client: FakeClient) -> None:
    cut = {"kind": "best-effort", "gives_way_at": int(time.time()) + 605, "end": int(time.time()) + 605}
    client.lives = [lease(workspace(1), **cut)]
    assert "suspended in 10m" in vws("lease", "list").stdout
    client.lives = [lease(workspace(1), **cut)]
    lines = vws("lease", "show", "demo").stdout.splitlines()
    assert [line.split()[0] for line in lines if "(in 10m" in line] == ["gives"]
    client.lives = [lease(workspace(1), state="ended", ended_at=2000.0, kind="best-effort", worked_s=60, restarts=1)]
    run = next(line for line in vws("lease", "show", "demo").stdout.splitlines() if line.startswith("run "))
    assert run.split(None, 1)[1] == "1 restart", "what was saved on the way is nowhere any more"


def test_a_card_tells_the_life_of_a_soft_lease(vws: Run, client: FakeClient) -> None:
    client.lives = [
        waiting(
            state="suspended", preemptible=True, deadline=LATER, active_at=1005.0, worked_s=3600, suspensions=2,
            migrations=1, planned_start=LATER - 7200, planned_nodes=["a", "a", "b"], reason="behind reserved",
            groups=[lease()["groups"][0] | {"apart": True, "requirement": "kvm"}],
        )
    ]  # fmt: skip
    card = vws("lease", "show", "demo").stdout
    facts = dict(line.split("  ", 1) for line in card.splitlines() if "  " in line)
    facts = {name: value.strip() for name, value in facts.items()}
    assert facts["kind"] == "best-effort, preemptible"
    assert facts["run"] == "1h of 2h saved, 2 suspensions, 1 migration"
    assert facts["deadline"].startswith("2090-07-03 08:00:00 CEST (06:00:00 UTC) (in ")
    assert facts["planned on"] == "a, b"
    assert facts["resumes"].startswith("2090-07-03 06:00:00 CEST")
    assert facts["group"] == "1 × demo, 1 CPU, 160 MiB, disk 1 GiB, apart, on nodes with kvm"
    assert "end" not in facts


def test_waiting_for_a_lease_goes_through_all_that_comes_before(vws: Run, client: FakeClient) -> None:
    client.lives = [
        waiting(),
        waiting(start=LATER),
        lease(workspace(1, state="starting", running_at=None), kind="best-effort", state="pending"),
        lease(workspace(1), kind="best-effort"),
    ]
    result = vws("lease", "wait", "demo")
    assert result.exit_code == 0, result.output
    assert "demo is active, until" in result.stdout


def test_why_a_lease_waits_is_told_with_its_start_and_the_nodes(vws: Run, client: FakeClient) -> None:
    client.lives = [waiting()]
    client.told = {
        "says": ["It waits in the queue, and nobody is before it", "The room is held by a\x1bb"],
        "place": 0,
        "start": LATER,
        "nodes": [
            {"node": "nod-1", "name": "host-1", "reason": "0 CPUs free, 1 needed"},
            {"node": "nod-2", "name": "host-2", "reason": "0 CPUs free, 1 needed"},
        ],
        "others": [],
    }
    lines = vws("lease", "explain", "demo").stdout.splitlines()
    assert lines[:3] == [
        "demo is waiting",
        "  It waits in the queue, and nobody is before it.",
        "  The room is held by a\\x1bb.",
    ]
    assert lines[3].startswith("  start: 2090-07-03 08:00:00 CEST (06:00:00 UTC) (in ")
    assert lines[4] == "  nodes host-1, host-2: 0 CPUs free, 1 needed"
    assert json.loads(vws("lease", "explain", "demo", "--json").stdout)["place"] == 0


def test_a_series_is_listed_and_ended_as_a_whole(vws: Run, client: FakeClient) -> None:
    vws("lease", "list", "--series", "srs-1")
    assert client.asked.pop() == ("leases", {"live": True, "state": None, "series": "srs-1"})
    result = vws("lease", "cancel", "--series", "srs-1")
    assert (result.exit_code, result.stdout) == (0, "demo is ending.\n")
    assert client.asked == [("leases", {"live": True, "series": "srs-1"}), ("cancel_lease", "lse-1")]
    for line in ([], ["demo", "--series", "srs-1"]):
        assert vws("lease", "cancel", *line).exit_code == 2
    client.lives = []
    assert "No lease of srs-1 lives" in vws("lease", "cancel", "--series", "srs-1").stderr


def test_members_that_are_alike_are_told_in_one_line() -> None:
    many = [{"name": f"c-{n}", "state": "starting", "node": "nod-1", "step": "booting"} for n in range(1, 8)]
    members = [*many, {"name": "c-8", "state": "failed", "node": "nod-1", "reason": "no boot"}]
    assert [click.unstyle(line) for line in told_of(members, {"nod-1": "n1"})] == [
        "c-1, c-2 and 5 more are starting: booting",
        "c-8 is failed on n1: no boot",
    ]
    assert [click.unstyle(line) for line in told_of(many[:1], {"nod-1": "n1"})] == ["c-1 is starting on n1: booting"]
