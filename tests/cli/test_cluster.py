"""`vws cluster` and `vws context` as a user types them, on a site of simulated nodes, whose guests say nothing."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_site import Shell, shell  # noqa: F401  (a fixture)

HELLO = Path(__file__).parents[2] / "examples/hello/cluster.yaml"


@pytest.fixture
def hello(shell: Shell):  # noqa: F811
    shell.ok("cluster", "launch", str(HELLO), "--for", "1h")
    yield "hello"
    shell.ok("cluster", "terminate", "hello", "--wait")


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def running(shell: Shell) -> int:  # noqa: F811
    return sum(member["state"] == "running" for member in shell.ask("cluster", "show", "hello")["members"])


def test_a_dry_run_shows_what_it_would_be_and_launches_nothing(shell: Shell):  # noqa: F811
    told = shell.ok(
        "cluster", "launch", str(HELLO), "--dry-run", "--set", "members=3", "--name", "three", "--for", "2h"
    )
    assert "cluster three: 3 members for 2h" in told
    assert "private: 10.20.0.0/24, no way out, 3 members" in told
    assert "Price: 6.00 node-hours" in told
    done = shell.vws("cluster", "launch", str(HELLO), "--dry-run", "--set", "members=100", "--json")
    assert done.returncode == 1
    assert not json.loads(done.stdout)["fits"]
    assert shell.ask("cluster", "list") == []


def test_a_wrong_file_is_refused_by_its_line_before_anything_is_sent(shell: Shell, tmp_path: Path):  # noqa: F811
    file = tmp_path / "cluster.yaml"
    file.write_text("vws: cluster/1\nname: x\ngroops: {}\n")
    refused = shell.vws("cluster", "launch", str(file))
    assert refused.returncode != 0
    assert "line 3, column 1" in refused.stderr
    assert "groups" in refused.stderr
    for arguments in (["--set", "members"], ["--at", "+1h", "--best-effort"]):
        done = shell.vws("cluster", "launch", str(HELLO), *arguments)
        assert (done.returncode, done.stdout) == (2, "")


def test_a_cluster_from_launch_to_nothing_left(shell: Shell, hello: str):  # noqa: F811
    until(lambda: running(shell) == 2)
    (listed,) = shell.ask("cluster", "list")
    assert (listed["name"], listed["state"]) == ("hello", "configuring")
    assert [member["addresses"] for member in listed["members"]] == [{"private": "10.20.0.2"}, {"private": "10.20.0.3"}]
    status = shell.ok("cluster", "status", hello)
    assert "hello is configuring; 2 of 2 running, 0 configured" in status
    assert "greeter-1: expected" in status
    assert "waits for role greeter: greeter-1, greeter-2" in status
    assert "It has run no hooks yet" in shell.vws("cluster", "log", hello, "greeter-1").stderr
    shell.ok("cluster", "grow", hello, "greeter=+1")
    until(lambda: running(shell) == 3)
    shell.ok("cluster", "suspend", hello, "--wait")
    assert shell.ask("cluster", "show", hello)["state"] == "suspended"
    shell.ok("cluster", "restore", hello)
    until(lambda: running(shell) == 3)
    shell.ok("cluster", "shrink", hello, "greeter=-1")
    until(lambda: len(shell.ask("cluster", "show", hello)["members"]) == 2)
    assert "no member greeter-9" in shell.vws("cluster", "ssh", hello, "greeter-9").stderr
    assert "write GROUP=+COUNT" in shell.vws("cluster", "grow", hello, "greeter").stderr


def test_an_ended_cluster_is_found_by_its_name(shell: Shell):  # noqa: F811
    ended = shell.ask("cluster", "launch", str(HELLO), "--for", "1h", "--name", "gone")
    shell.ok("cluster", "terminate", "gone", "--wait")
    found = shell.ask("cluster", "show", "gone")
    assert (found["id"], found["state"]) == (ended["id"], "ended")
    status = shell.ok("cluster", "status", "gone")
    assert "gone is ended; no members" in status
    assert "greeter-1" in status, "how far each member was"
    assert "It has run no hooks yet" in shell.vws("cluster", "log", "gone", "greeter-1").stderr


def test_what_the_site_does_not_have_is_refused_by_its_line(shell: Shell, tmp_path: Path):  # noqa: F811
    file = tmp_path / "cluster.yaml"
    file.write_text("vws: cluster/1\nname: x\ngroups:\n  one: {image: nowhere}\nlease: {for: 1h}\n")
    for more in ((), ("--dry-run",)):
        refused = shell.vws("cluster", "launch", str(file), *more)
        assert refused.returncode == 1
        assert "Error: line 4, column 9: there is no image 'nowhere'" in refused.stderr
        assert "field: groups.one.image" in refused.stderr


def test_machines_elsewhere_become_members_by_a_script_of_their_own(shell: Shell, tmp_path: Path):  # noqa: F811
    out = tmp_path / "members"
    made = shell.ask("context", "create", str(HELLO), "--name", "desks", "--out", str(out))
    assert made["user_data"] == [str(out / f"greeter-{number}.user-data") for number in (1, 2)]
    scripts = [Path(path) for path in made["user_data"]]
    assert {oct(path.stat().st_mode)[-3:] for path in scripts} == {"600"}
    assert scripts[0].read_text() != scripts[1].read_text()
    assert "secret" not in json.dumps(made).replace("user_data", "")
    subprocess.run(["sh", "-n", str(scripts[0])], check=True)
    assert "greeter-2: expected" in shell.ok("context", "show", "desks")
    assert [each["name"] for each in shell.ask("context", "list")] == ["desks"]
    shell.ok("context", "close", "desks")
    assert shell.ask("context", "list") == []
