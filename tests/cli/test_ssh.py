"""`vws ssh`: how ssh is called, what is known of the guest, and the tunnel's two ways."""

from __future__ import annotations

import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.conftest import HOST_KEY, FakeClient, lease, node, workspace
from vws.cli.session import Session
from vws.cli.ssh import proxy_command
from vws.cli.tunnel import carry

Run = Callable[..., Result]

SSH = shutil.which("ssh")

# Stands in for ssh: prints its arguments and the file that it was told to find host keys in.
FAKE_SSH = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done
for word in "$@"; do
    case $word in UserKnownHostsFile=*) eval cat "${word#UserKnownHostsFile=}" ;; esac
done
exit ${FAKE_SSH_STATUS:-0}
"""


@pytest.fixture
def ssh(
    vws: Run, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[str]]]:
    """Run `vws ssh ...` with a stand-in for ssh; its exit status and what it was called with."""
    (home / "bin").mkdir()
    (home / "bin/ssh").write_text(FAKE_SSH)
    (home / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")

    def run(*arguments: str) -> tuple[int, list[str]]:
        result = vws("ssh", *arguments)
        assert not result.stderr, result.stderr
        return result.exit_code, capfd.readouterr().out.splitlines()

    return run


Ssh = Callable[..., tuple[int, list[str]]]


def test_the_host_key_is_known_before_the_first_connection(ssh: Ssh) -> None:
    _, words = ssh("demo-1")
    assert words[-1] == f"vws-wsp-1 {HOST_KEY}"
    assert "StrictHostKeyChecking=yes" in words
    assert "HostKeyAlias=vws-wsp-1" in words
    assert "GlobalKnownHostsFile=/dev/null" in words


def test_it_logs_in_as_the_images_user_with_vws_own_key(ssh: Ssh, client: FakeClient, home: Path) -> None:
    client.lives = [lease(workspace(1, user="debian"))]
    _, words = ssh("demo-1")
    assert words[words.index("-l") + 1] == "debian"
    assert f'IdentityFile="{home}/site/keys/id_ed25519"' in words
    _, words = ssh("-l", "root", "demo-1")
    assert words[words.index("-l") + 1] == "root"


def test_the_users_own_keys_are_tried_too(ssh: Ssh, home: Path) -> None:
    (home / "home/.ssh").mkdir()
    (home / "home/.ssh/id_rsa").write_text("x")
    _, words = ssh("demo-1")
    assert f'IdentityFile="{home}/home/.ssh/id_rsa"' in words


@pytest.mark.parametrize(
    "line",
    [
        ("demo-1", "--", "ls", "-l", "--", "a b"),
        ("demo-1", "ls", "-l", "--", "a b"),
        ("-L", "8080:localhost:80", "demo-1", "--", "ls", "-l", "--", "a b"),
        ("demo-1", "-o", "BatchMode=yes", "--", "ls", "-l", "--", "a b"),
        ("demo-1", "-t", "ls", "-l", "--", "a b"),
    ],
)
def test_the_command_is_passed_word_by_word(ssh: Ssh, line: tuple[str, ...]) -> None:
    _, words = ssh(*line)
    there = words[words.index("demo-1") + 1 : -1]
    assert there == ["ls", "-l", "--", "a b"]


def test_options_come_first_so_that_they_win(ssh: Ssh) -> None:
    _, words = ssh("-o", "IdentitiesOnly=no", "-L", "8080:localhost:80", "-v", "demo-1", "-N")
    assert words.index("IdentitiesOnly=no") < words.index("IdentitiesOnly=yes")
    assert words[words.index("-L") + 1] == "8080:localhost:80"
    assert {"-N", "-v"} <= set(words)


def test_a_session_to_a_guest_that_died_ends_unless_the_user_says_otherwise(ssh: Ssh) -> None:
    _, words = ssh("demo-1")
    assert {"ServerAliveInterval=15", "ServerAliveCountMax=4", "ConnectTimeout=90"} <= set(words)
    _, words = ssh("-o", "ServerAliveInterval=0", "demo-1")
    assert words.index("ServerAliveInterval=0") < words.index("ServerAliveInterval=15")


def test_a_simulated_workspace_is_called_so(vws: Run, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "node", lambda id: node(id=id, hypervisor="fake"))
    result = vws("ssh", "demo-1")
    assert result.exit_code == 1
    assert "demo-1 is simulated" in result.stderr
    assert "nothing runs inside" in result.stderr


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_exit_status_is_the_commands_own(ssh: Ssh, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("FAKE_SSH_STATUS", str(status))
    assert ssh("demo-1", "--", "false")[0] == status


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("starting", "vws lease show lse-1"),
        ("paused", "vws workspace resume demo-1"),
        ("suspended", "vws workspace restore demo-1"),
        ("stopped", "vws workspace reboot demo-1"),
        ("lost", "vws node show host-1"),
        ("rebooting", "vws workspace show demo-1"),
    ],
)
def test_what_does_not_run_is_refused_with_what_to_do(vws: Run, client: FakeClient, state: str, advice: str) -> None:
    client.lives = [lease(workspace(1, state=state))]
    result = vws("ssh", "demo-1")
    assert result.exit_code == 1
    assert f"demo-1 is {state}, not running" in result.stderr
    assert advice in result.stderr


def test_without_a_host_key_there_is_no_guessing(vws: Run, client: FakeClient) -> None:
    client.lives = [lease(workspace(1, host_key=""))]
    result = vws("ssh", "demo-1")
    assert result.exit_code == 1
    assert "host key is not known" in result.stderr


def test_the_proxy_command_survives_the_shell_and_sshs_tokens(home: Path) -> None:
    session = Session()
    session.explicit_directory = Path("/srv/100% ours; rm -rf/it's")
    line = proxy_command(session, workspace(1))
    assert "%" not in line.replace("%%", "")
    words = shlex.split(line.replace("%%", "%"))
    assert words == [
        sys.executable,
        "-P",
        "-m",
        "vws.cli.main",
        "--dir",
        "/srv/100% ours; rm -rf/it's",
        "tunnel",
        "wsp-1",
    ]


@pytest.mark.skipif(SSH is None, reason="no ssh here")
def test_ssh_itself_reads_the_file_names_as_they_are_meant(home: Path) -> None:
    """ssh -G prints its configuration: names with blanks and per cents arrive whole."""
    from vws.cli.ssh import _quoted

    odd = home / "100% a b"
    options = ["-o", f"UserKnownHostsFile={_quoted(odd)}", "-o", f"IdentityFile={_quoted(odd)}"]
    line = [SSH or "", "-G", "-F", "none", *options, "x"]
    printed = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    read = dict(line.split(" ", 1) for line in printed)
    assert read["userknownhostsfile"] == str(odd)
    assert read["identityfile"] == str(odd).replace("%", "%%"), "ssh expands this one later"


# ---------------------------------------------------------------- the tunnel


class Echo:
    """A guest that answers what it hears, and closes when it hears `bye`."""

    def __init__(self) -> None:
        self._heard: queue.Queue[bytes] = queue.Queue()
        self.closed = threading.Semaphore(0)

    def read(self) -> bytes:
        data = self._heard.get(timeout=5)
        return b"" if data == b"bye" else data

    def write(self, data: bytes) -> None:
        self._heard.put(data)

    def close(self) -> None:
        self.closed.release()
        self._heard.put(b"bye")


def test_the_tunnel_carries_both_ways_until_the_guest_closes() -> None:
    source, feed = os.pipe()
    sink, target = os.pipe()
    echo = Echo()
    thread = threading.Thread(target=carry, args=(echo, source, target))
    thread.start()
    os.write(feed, b"hello")
    assert os.read(sink, 100) == b"hello"
    os.write(feed, b"bye")
    thread.join(5)
    assert not thread.is_alive()
    assert echo.closed.acquire(timeout=5)
    os.close(feed)
    os.close(sink)
    assert echo.closed.acquire(timeout=5), "the end of stdin, with nobody reading, ends the sending side too"


def test_an_answer_is_read_after_the_end_of_stdin() -> None:
    source, feed = os.pipe()
    sink, target = os.pipe()
    echo = Echo()
    os.write(feed, b"request")
    os.close(feed)
    thread = threading.Thread(target=carry, args=(echo, source, target))
    thread.start()
    assert os.read(sink, 100) == b"request"
    echo.write(b"late answer")
    assert os.read(sink, 100) == b"late answer"
    assert not echo.closed.acquire(blocking=False)
    os.close(sink)
    thread.join(5)
    assert not thread.is_alive(), "nobody reads any more, so the tunnel must close"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_ssh(number: signal.Signals) -> None:
    """Else a killed `vws ssh -N -L ...` would leave its tunnel open."""
    program = "from vws.cli.ssh import _run; print(_run(['sh', '-c', 'echo $$; exec sleep 60']), flush=True)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(number)
    assert process.stdout.readline() == f"{-number}\n"
    assert process.wait(10) == 0
    process.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
