"""`vws workspace`: commands whose exit status tells what came of them, and the console."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from tests.cli.conftest import FakeClient, Refused, lease, workspace
from vws.cli import console, progress

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_FIRST_S", 0.001)
    monkeypatch.setattr(progress, "POLL_MAX_S", 0.001)
    monkeypatch.setattr(console, "POLL_S", 0.001)


def test_the_list_tells_where_each_is(vws: Run, client: FakeClient) -> None:
    lines = vws("workspace", "list").stdout.splitlines()
    assert lines[0].split()[:5] == ["NAME", "STATE", "NODE", "ADDRESS", "SIZE"]
    assert lines[1].split()[:4] == ["demo-1", "running", "host-1", "10.64.0.2"]
    assert [w["addresses"] for w in json.loads(vws("workspace", "list", "--json").stdout)] == [
        ["10.64.0.2"],
        ["10.64.0.3"],
    ]


def test_filters_take_names_and_ask_by_id(vws: Run, client: FakeClient) -> None:
    vws("workspace", "list", "--lease", "demo", "--node", "host-1", "--state", "running", "--all")
    where = {"live": False, "lease": "lse-1", "node": "nod-1", "state": "running"}
    assert client.asked == [("workspaces", where)]


def test_show(vws: Run, client: FakeClient) -> None:
    text = vws("workspace", "show", "demo-1").stdout
    assert "up after   4.5 s" in text
    assert json.loads(vws("workspace", "show", "demo-1", "--json").stdout)["id"] == "wsp-1"


def test_show_tells_what_waits_for_the_next_boot(vws: Run, client: FakeClient) -> None:
    client.lives = [lease(workspace(1, cpus=1, cpus_defined=2, memory_mib=256))]
    card = vws("workspace", "show", "demo-1").stdout.splitlines()
    assert "CPUs       1 (2 until the next boot)" in card
    assert "memory     256 MiB (160 MiB until the next boot)" in card
    client.lives = [lease(workspace(1, cpus=2, cpus_defined=2, memory_mib=128))]
    card = vws("workspace", "show", "demo-1").stdout.splitlines()
    assert "CPUs       2" in card
    assert "memory     128 MiB, up to 160 MiB without a boot" in card
    assert "2 CPUs, 128 MiB" in vws("workspace", "list").stdout


@pytest.mark.parametrize(
    ("verb", "states"),
    [
        ("pause", ["running", "pausing", "paused"]),
        ("resume", ["paused", "resuming", "running"]),
        ("suspend", ["running", "suspending", "suspending", "suspended"]),
        ("restore", ["suspended", "restoring", "running"]),
        ("reboot", ["running", "rebooting", "running"]),
        ("terminate", ["running", "terminating", "terminated"]),
    ],
)
def test_commands_wait_until_the_node_has_done_it(vws: Run, client: FakeClient, verb: str, states: list[str]) -> None:
    client.states["wsp-1"] = list(states)
    result = vws("workspace", verb, "demo-1")
    assert result.exit_code == 0, result.output
    assert client.asked == [("command", "wsp-1", verb)]
    assert f"demo-1 is {states[-1]} after" in result.stdout
    assert client.states["wsp-1"] == states[-1:]


def test_no_wait_returns_with_the_order(vws: Run, client: FakeClient) -> None:
    client.states["wsp-1"] = ["running", "suspending", "suspended"]
    result = vws("workspace", "suspend", "demo-1", "--no-wait", "--json")
    assert json.loads(result.stdout)["state"] == "suspending"
    assert client.states["wsp-1"] == ["suspended"]


def test_several_at_once(vws: Run, client: FakeClient) -> None:
    client.states = {"wsp-1": ["running", "pausing", "paused"], "wsp-2": ["running", "pausing", "pausing", "paused"]}
    result = vws("workspace", "pause", "demo-1", "demo-2", "--json")
    assert [w["state"] for w in json.loads(result.stdout)] == ["paused", "paused"]


@pytest.mark.parametrize("state", ["failed", "lost", "stopped", "running"])
def test_a_command_that_comes_to_nothing_is_status_1(vws: Run, client: FakeClient, state: str) -> None:
    client.states["wsp-1"] = ["running", "suspending", state]
    result = vws("workspace", "suspend", "demo-1")
    assert result.exit_code == 1
    assert f"suspend did not succeed, demo-1 is {state}" in result.stderr


def test_a_service_that_is_away_has_done_nothing_yet(
    vws: Run, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.states["wsp-1"] = ["running", "suspending", "suspended"]
    there, tries = client.workspace, iter([False, False, True, True])

    def away(id: str) -> object:
        if next(tries, False):
            raise Refused("the store does not answer", code="unavailable")
        return there(id)

    monkeypatch.setattr(client, "workspace", away)
    result = vws("workspace", "suspend", "demo-1")
    assert result.exit_code == 0
    assert "demo-1 is suspended" in result.stdout
    assert client.states["wsp-1"] == ["suspended"]


def test_terminating_what_has_failed_is_done(vws: Run, client: FakeClient) -> None:
    client.states["wsp-1"] = ["failed"]
    assert vws("workspace", "terminate", "demo-1").exit_code == 0


def test_a_wait_ends_in_time_and_the_order_stands(vws: Run, client: FakeClient) -> None:
    client.states["wsp-1"] = ["running", "suspending"]
    result = vws("workspace", "suspend", "demo-1", "--timeout", "0s")
    assert result.exit_code == 1
    assert "demo-1 is still suspending after 0s" in result.stderr
    assert "goes on without this command" in result.stderr


def test_a_refused_command_says_what_is_allowed(vws: Run, client: FakeClient) -> None:
    client.refusal = Refused(
        "cannot restore a workspace that is paused", code="command-refused", possible="while paused: resume"
    )
    result = vws("workspace", "restore", "demo-1")
    assert result.exit_code == 1
    assert "possible: while paused: resume" in result.stderr


# ---------------------------------------------------------------- console


def test_the_console_and_its_last_lines(vws: Run, client: FakeClient) -> None:
    assert vws("workspace", "console", "demo-1").stdout == "one\ntwo\nthree\n"
    assert vws("workspace", "console", "demo-1", "--tail", "1").stdout == "three\n"
    assert json.loads(vws("workspace", "console", "demo-1", "--json").stdout)["console"] == "one\ntwo\nthree\n"


HOSTILE = b"\x1b]0;root\x07\x1b[31mred\x1b[0m \x08\xc2\x9b5n\x9bz \xc3\xbc\ttab\r\n"


@pytest.mark.parametrize("follow", [(), ("--follow",)])
def test_a_terminal_gets_what_can_be_read_and_a_pipe_every_byte(
    vws: Run, client: FakeClient, monkeypatch: pytest.MonkeyPatch, follow: tuple[str, ...]
) -> None:
    client.states["wsp-1"] = ["running", "running", "terminated"]
    client.consoles = [HOSTILE]
    line = ("workspace", "console", "demo-1", *follow)
    assert vws(*line).stdout_bytes == HOSTILE
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
    assert vws(*line).stdout_bytes.decode() == "]0;rootred 5n\ufffdz ü\ttab\r\n"
    assert vws(*line, "--raw").stdout_bytes == HOSTILE


def test_following_prints_each_part_once_and_ends_with_the_workspace(vws: Run, client: FakeClient) -> None:
    client.states["wsp-1"] = ["running", "running", "running", "running", "terminated"]
    client.consoles = [b"one\n", b"one\ntwo\n", b"one\ntwo\n", b"one\ntwo\nthree\n"]
    result = vws("workspace", "console", "demo-1", "--follow")
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\nthree\n")


def test_the_new_part_is_found_when_the_window_has_moved() -> None:
    log = b"".join(b"line %d\n" % i for i in range(2000))
    assert console.new_part(log[1000:9000], log[1500:9500]) == log[9000:9500]
    assert console.new_part(log, log) == b""
    assert console.new_part(b"before a reboot", b"something else") == b"something else"


# ---------------------------------------------------------------- the terminal's view


def test_the_terminal_shows_a_table_of_members_or_a_summary(client: FakeClient) -> None:
    from io import StringIO

    from vws.cli.live import Live

    stream = StringIO()
    with Live(stream) as live:
        live.update([workspace(1), workspace(2, state="staging", step="fetching the image", running_at=None)])
    text = stream.getvalue()
    assert "demo-1" in text
    assert "4.5" in text
    assert "fetching the image" in text

    stream = StringIO()
    with Live(stream) as live:
        live.update([workspace(i) for i in range(100)])
    assert "100" in stream.getvalue()
    assert "demo-7" not in stream.getvalue()


def test_a_lease_without_members_yet_is_waited_for(vws: Run, client: FakeClient) -> None:
    client.lives = [lease(state="pending"), lease(workspace(1))]
    assert vws("lease", "wait", "demo").exit_code == 0
