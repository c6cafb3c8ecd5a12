"""What programs of a recipe can reach, and how they end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.factory.conftest import needs_root
from vws.factory.sandbox import SandboxError

pytestmark = needs_root


def said(box, script: str, **options) -> str:
    before = box.log.path.stat().st_size
    box.run(["sh", "-e", "-c", script], **options)
    return box.log.path.read_bytes()[before:].decode()


def test_it_has_no_network_but_itself(box):
    assert said(box, "cut -d: -f1 /proc/net/dev | tail -n +3").split() == ["lo"]
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), 2)"
    with pytest.raises(SandboxError):
        box.run([sys.executable if sys.executable.startswith("/usr/") else "python3", "-c", connect])
    assert "unreachable" in box.log.last()


def test_it_sees_few_devices_and_none_can_be_made(box):
    devices = set(said(box, "cd /dev; ls").split())
    assert {"null", "zero", "full", "random", "urandom", "tty"} <= devices
    devices -= {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
    assert devices <= {"pts", "shm", "fd", "core", "stdin", "stdout", "stderr"}  # folders and links
    with pytest.raises(SandboxError):
        box.run(["mknod", "/disk", "b", "254", "0"])
    with pytest.raises(SandboxError):
        box.run(["mount", "-t", "tmpfs", "none", "/home"])


def test_it_inherits_neither_words_nor_files(box, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "s3cret")
    with (tmp_path / "open").open("w") as stream:
        os.set_inheritable(stream.fileno(), True)
        told = said(box, "env; ls -l /proc/self/fd")
    assert "s3cret" not in told
    assert str(tmp_path / "open") not in told
    words = {line.split("=")[0] for line in told.splitlines() if "=" in line}
    assert words <= {"PATH", "HOME", "LC_ALL", "TZ", "DEBIAN_FRONTEND", "PYTHONHASHSEED", "SOURCE_DATE_EPOCH", "PWD",
                     "OLDPWD", "SHLVL", "_"}  # fmt: skip


def test_it_sees_its_own_processes_and_tree_only(box):
    assert len([name for name in said(box, "ls /proc").split() if name.isdigit()]) <= 3
    assert "tree" not in said(box, "ls /")
    said(box, "echo kept >/etc/kept; echo lost >/tmp/lost; echo lost >/run/lost")
    assert (box.tree / "etc/kept").read_text() == "kept\n"
    assert not list((box.tree / "tmp").iterdir())


def test_it_may_do_what_installing_takes(box):
    said(box, "touch /etc/x; chown 1234:70000 /etc/x; chmod 4755 /etc/x")
    found = (box.tree / "etc/x").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1234, 70000, 0o4755)


def test_its_time_is_limited_and_nothing_stays(box):
    marker = f"86399.{os.getpid()}"
    started = time.monotonic()
    with pytest.raises(SandboxError) as error:
        box.run(["sh", "-c", f"setsid sleep {marker} & sleep {marker}"], limit_s=0.7)
    assert error.value.status is None
    assert time.monotonic() - started < 20
    ends(marker)


def test_what_it_leaves_running_ends_with_it(box):
    marker = f"86398.{os.getpid()}"
    box.run(["sh", "-c", f"setsid sleep {marker} >/dev/null 2>&1 & true"])
    ends(marker)


def ends(marker: str) -> None:
    """Soon, as the kernel takes a moment to end them."""
    deadline = time.monotonic() + 10
    while running(marker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(marker: str) -> list[str]:
    told = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in told.splitlines() if marker in line and not line.startswith(("ps", "sh -c"))]


def test_its_status_is_told(box):
    with pytest.raises(SandboxError, match="it ended with status 7"):
        box.run(["sh", "-c", "exit 7"])
    box.run(["cat"], given=b"into the log")
    assert box.log.last().endswith("into the log")


def test_a_tree_has_to_be_there(box, tmp_path):
    gone = type(box)(Path(tmp_path / "gone"), box.log, 1)
    with pytest.raises(SandboxError):
        gone.run(["true"])
