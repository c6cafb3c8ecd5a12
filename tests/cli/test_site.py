"""The commands as a user types them, on a site of simulated nodes: every process is real, only the guests are not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FAKE = """
[fake]
boot_s = 0.3
boot_spread_s = 0.1
create_s = 0.01
"""


@dataclass
class Shell:
    """A user's shell: `vws(...)` runs a command line of its own environment."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def line(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "vws.cli.main", *arguments]

    def variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VWS_", "COV_"))}
        return kept | {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / ".config")} | self.environment

    def vws(self, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.line(*arguments), capture_output=True, text=True, input=input, check=False, env=self.variables()
        )

    def ok(self, *arguments: str) -> str:
        done = self.vws(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """The shell of the site's administrator; VWS_DIR names the site, which runs."""
    home = tmp_path_factory.mktemp("home")
    shell = Shell(home, {"VWS_DIR": str(home / "site")})
    shell.ok("site", "init", "--name", "trial")
    config = home / "site/site.toml"
    config.write_text(config.read_text().partition("[fake]")[0] + FAKE)
    shell.ok("site", "start", "--fake-nodes", "3", "--detach")
    yield shell
    done = shell.vws("site", "stop", "--now", "--json")
    assert json.loads(done.stdout)["agent"] is None, done.stderr


@pytest.fixture
def lease(shell: Shell, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a lease of two running workspaces, ended afterwards."""
    name = "t-" + request.node.name.replace("_", "-")[-30:].strip("-")
    shell.ok(
        "lease", "request", "--image", "demo", "-n", "2", "--memory", "160MiB", "--for", "1h", "--name", name, "--wait"
    )
    yield name
    shell.vws("lease", "cancel", name, "--wait")


def test_the_status_of_a_running_site(shell: Shell) -> None:
    status = shell.ask("site", "status")
    assert status["healthy"]
    assert status["nodes"] == {"ready": 3}
    for process in ("service", "agent"):
        pid = int((Path(shell.environment["VWS_DIR"]) / f"{process}.pid").read_text())
        assert status[process] == pid
    assert [image["name"] for image in shell.ask("image", "list")] == ["demo"]


def test_a_second_init_keeps_the_first(shell: Shell) -> None:
    done = shell.vws("site", "init")
    assert done.returncode == 1
    assert "there is a site in" in done.stderr


def test_a_lease_from_request_to_nothing_left(shell: Shell) -> None:
    request = ["lease", "request", "--image", "demo", "-n", "3", "--memory", "160MiB", "--for", "2h", "--name", "all"]
    done = shell.vws(*request, "--wait")
    assert done.returncode == 0, done.stderr
    assert "all-1  running  fake-0001" in done.stdout
    found = shell.ask("lease", "show", "all")
    assert found["state"] == "active"
    assert [w["state"] for w in found["workspaces"]] == ["running"] * 3
    assert found["id"] in shell.ok("lease", "list")

    extended = shell.ask("lease", "extend", "all", "--for", "1h")
    assert extended["end"] == found["end"] + 3600
    resized = shell.ask("lease", "resize", found["id"], "--memory", "256MiB")
    assert [w["memory_mib"] for w in resized["workspaces"]] == [256] * 3

    done = shell.vws("lease", "cancel", "all", "--wait")
    assert "nothing of it is left" in done.stdout
    assert shell.ask("lease", "list") == []
    assert [lease["state"] for lease in shell.ask("lease", "list", "--all") if lease["name"] == "all"] == ["ended"]


def test_commands_end_when_the_node_has_done_them(shell: Shell, lease: str) -> None:
    for verb, state in (
        ("pause", "paused"), ("resume", "running"), ("suspend", "suspended"), ("restore", "running"),
        ("reboot", "running"),
    ):  # fmt: skip
        assert shell.ask("workspace", verb, f"{lease}-1")["state"] == state
        assert shell.ask("workspace", "show", f"{lease}-1")["state"] == state
    assert shell.ask("workspace", "show", f"{lease}-1")["boots"] == 2
    assert shell.ask("workspace", "terminate", f"{lease}-1")["state"] == "terminated"
    done = shell.vws("workspace", "resume", f"{lease}-1")
    assert done.returncode == 1
    assert "has ended" in done.stderr
    kinds = [event["kind"] for event in shell.ask("events", "--workspace", f"{lease}-1")]
    assert {"workspace.paused", "workspace.suspended", "workspace.rebooting", "workspace.terminated"} <= set(kinds)


def test_commands_that_the_state_does_not_allow(shell: Shell, lease: str) -> None:
    shell.ok("workspace", "suspend", f"{lease}-1")
    done = shell.vws("workspace", "pause", f"{lease}-1")
    assert done.returncode == 1
    assert "cannot pause a workspace that is suspended" in done.stderr
    assert "restore" in done.stderr
    done = shell.vws("ssh", f"{lease}-1", "--", "true")
    assert done.returncode == 1
    assert f"vws workspace restore {lease}-1" in done.stderr


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("--image none --for 1h", ["there is no image 'none'", "demo"]),
        ("--image demo --for 0s", ["--for is 0 s", "1 to"]),
        ("--image demo -n -3 --for 1h", ["-3"]),
        ("--image demo --for 1h --cpus 0", ["cpus", "0"]),
        ("--image demo --for 1h --memory 999999999TiB", ["--memory is", "from 32 to"]),
        ("--image demo --for 1h --memory 1TiB", ["no node has 1048576 MiB of memory", "fake-0001", "would fit"]),
        ("--image demo --for 1h --name ../etc", ["cannot be a name"]),
        ("--image demo --for 1h --name " + "x" * 300, ["cannot be a name"]),
    ],
)
def test_what_the_service_refuses_is_status_1_with_its_reason(shell: Shell, line: str, sentences: list[str]) -> None:
    done = shell.vws("lease", "request", *line.split())
    assert done.returncode == 1, done.stdout
    assert done.stdout == ""
    for sentence in sentences:
        assert sentence in done.stderr
    assert "kept: nothing was" in done.stderr
    assert shell.ask("lease", "list") == []


def test_asking_before_asking(shell: Shell) -> None:
    assert "It fits" in shell.ok("lease", "request", "--image", "demo", "-n", "3", "--for", "1h", "--dry-run")
    done = shell.vws("lease", "explain", "--image", "demo", "-n", "500", "--memory", "2GiB", "--for", "1h", "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["offers"]
    assert {node["name"] for node in answer["nodes"]} == {"fake-0001", "fake-0002", "fake-0003"}
    assert shell.ask("lease", "list") == []


def test_a_tunnel_reaches_the_guest(shell: Shell, lease: str) -> None:
    """A simulated guest echoes what it hears."""
    process = subprocess.Popen(
        shell.line("tunnel", f"{lease}-1"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=shell.variables()
    )
    assert process.stdin is not None
    assert process.stdout is not None
    heard = b""
    process.stdin.write(b"hello guest\n")
    process.stdin.flush()
    while not heard.endswith(b"hello guest\n"):
        data = os.read(process.stdout.fileno(), 1000)
        assert data, heard
        heard += data
    # Nobody reads and nobody writes any more, as when ssh is killed: the tunnel ends by itself.
    process.stdout.close()
    process.stdin.close()
    assert process.wait(60) == 0


def test_a_client_that_leaves_does_not_take_the_service_along(shell: Shell, lease: str) -> None:
    """A write to a closed connection raises SIGPIPE, which the service must ignore."""
    before = shell.ask("site", "status")["service"]
    for _ in range(3):
        process = subprocess.Popen(
            shell.line("tunnel", f"{lease}-1"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=shell.variables()
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x" * 500_000)
        process.stdin.flush()
        os.read(process.stdout.fileno(), 1000)
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    status = Path(f"/proc/{before}/status").read_text()
    ignored = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")), 16)
    assert ignored >> (signal.SIGPIPE - 1) & 1
    assert shell.ask("site", "status")["service"] == before


def test_the_console_is_kept_after_the_end(shell: Shell, lease: str) -> None:
    assert f"{lease}-2 login:" in shell.ok("workspace", "console", f"{lease}-2")
    id = shell.ask("workspace", "show", f"{lease}-2")["id"]
    shell.ok("workspace", "terminate", f"{lease}-2")
    assert f"{lease}-2 login:" in shell.ok("workspace", "console", id)


def test_a_user_sees_only_their_own(shell: Shell, lease: str, tmp_path: Path) -> None:
    directory = Path(shell.environment["VWS_DIR"])
    token = shell.ok("token", "create", "ada", "--for", "1h").strip()
    ada = Shell(tmp_path, {
        "VWS_URL": (directory / "url").read_text().strip(), "VWS_TOKEN": token, "VWS_CA": str(directory / "ca.crt"),
    })  # fmt: skip
    assert ada.ask("lease", "list") == []
    done = ada.vws("lease", "cancel", lease)
    assert done.returncode == 1
    assert json.loads(ada.vws("lease", "cancel", lease, "--json").stderr)["code"] in ("forbidden", "not-found")
    assert ada.vws("token", "list").returncode == 1
    own = ada.ask("lease", "request", "--image", "demo", "--for", "1h", "--name", "own", "--wait")
    assert own["owner"] == "ada"
    assert (tmp_path / ".config/vws/id_ed25519").stat().st_mode & 0o777 == 0o600
    assert [found["name"] for found in ada.ask("lease", "list")] == ["own"]
    assert {found["name"] for found in shell.ask("lease", "list")} == {lease, "own"}
    ada.ok("lease", "cancel", "own", "--wait")

    id = next(t["id"] for t in shell.ask("token", "list") if t["subject"] == "ada")
    shell.ok("token", "revoke", id)
    done = ada.vws("lease", "list")
    assert done.returncode == 1
    assert "revoked" in done.stderr
    ada.environment["VWS_TOKEN"] = "nonsense"
    assert ada.vws("lease", "list").returncode == 1
    del ada.environment["VWS_CA"]
    done = ada.vws("lease", "list")
    assert done.returncode == 1
    assert "VWS_CA" in done.stderr


def test_nodes_are_drained_and_take_part_again(shell: Shell) -> None:
    for name in ("fake-0001", "fake-0002", "fake-0003"):
        shell.ok("node", "drain", name)
    done = shell.vws("lease", "request", "--image", "demo", "--for", "1h")
    assert done.returncode == 1
    assert "it is drained" in done.stderr
    for name in ("fake-0001", "fake-0002", "fake-0003"):
        assert shell.ask("node", "undrain", name)["state"] == "ready"


def test_following_events_gives_a_line_as_it_happens(shell: Shell) -> None:
    process = subprocess.Popen(
        shell.line("events", "--follow", "--json"), stdout=subprocess.PIPE, text=True, env=shell.variables()
    )
    assert process.stdout is not None
    time.sleep(1)
    shell.ok("lease", "request", "--image", "demo", "--for", "1h", "--name", "seen", "--wait")
    kinds = []
    for line in process.stdout:
        kinds.append(json.loads(line)["kind"])
        if kinds[-1] == "lease.active":
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert kinds[0] == "lease.granted"
    shell.ok("lease", "cancel", "seen", "--wait")


def test_without_the_service_leases_go_on_and_the_command_line_says_so(shell: Shell, lease: str) -> None:
    said = shell.ok("site", "stop")
    assert "2 workspaces are leased until" in said
    assert shell.vws("site", "status").returncode == 1
    done = shell.vws("lease", "list")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "vws site start" in done.stderr
    assert "what is leased goes on" in done.stderr
    shell.ok("site", "start", "--detach")
    assert [w["state"] for w in shell.ask("lease", "show", lease)["workspaces"]] == ["running", "running"]


def test_a_changed_address_is_followed_by_all(shell: Shell, lease: str) -> None:
    shell.ok("site", "stop")
    config, before = Path(shell.environment["VWS_DIR"]) / "site.toml", shell.vws("site", "status", "--json")
    url = json.loads(before.stdout)["url"]
    config.write_text(
        config.read_text().replace("[service]\n", f'[service]\nurl = "{url.replace("127.0.0.1", "localhost")}"\n')
    )
    shell.ok("site", "start", "--detach")
    assert shell.ask("site", "status")["url"] == url.replace("127.0.0.1", "localhost")
    assert [w["state"] for w in shell.ask("lease", "show", lease)["workspaces"]] == ["running", "running"]
    shell.ok("lease", "cancel", lease, "--wait")  # the agent hears it at the new address


def kill_agent(shell: Shell) -> None:
    pid = int((Path(shell.environment["VWS_DIR"]) / "agent.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.01)


def test_a_stop_sees_to_what_a_dead_agent_left(shell: Shell) -> None:
    shell.ok("lease", "request", "--image", "demo", "--memory", "160MiB", "--for", "6s", "--name", "orphan", "--wait")
    kill_agent(shell)
    said = shell.ok("site", "stop")
    assert "the agent had died; it is started again" in said
    end = time.monotonic() + 60
    while json.loads(shell.vws("site", "status", "--json").stdout)["agent"]:
        assert time.monotonic() < end, "the agent does not leave after the last end"
        time.sleep(0.2)
    assert shell.ok("site", "stop") == "", "nothing is left to be seen to"
    shell.ok("site", "start", "--detach")
    end = time.monotonic() + 60
    while (lease := shell.ask("lease", "show", "orphan"))["state"] != "ended":
        assert time.monotonic() < end, lease
    assert lease["reason"] == "its time was over"


def test_all_can_be_ended_without_an_agent(shell: Shell, lease: str) -> None:
    kill_agent(shell)
    assert "ended 1 lease" in shell.ok("site", "stop", "--now")
    shell.ok("site", "start", "--detach")
    assert shell.ask("lease", "show", lease)["state"] == "ended"
