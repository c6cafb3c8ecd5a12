"""What a confined program cannot do: each fence is tried from inside, by one that would get through without it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from pathlib import Path

import pytest

from vws.core.errors import InvalidRequest
from vws.service.confined import Bounds, TooMuchOutput, run

LANDLOCK = ctypes.CDLL(None).syscall(444, None, 0, 1) >= 1
NAMESPACES = subprocess.run(["unshare", "-U", "-n", "true"], capture_output=True, check=False).returncode == 0
needs_landlock = pytest.mark.skipif(not LANDLOCK, reason="this kernel has no Landlock")
needs_namespaces = pytest.mark.skipif(not NAMESPACES, reason="this host allows no namespaces")


def shell(script, *, bounds=Bounds(), **more):
    return run(["/bin/sh", "-c", script], "trying", bounds, **more)


def test_what_it_says_and_how_it_ends_is_told():
    outcome = shell("echo out; echo /a/path: reason >&2; exit 3")
    assert (outcome.status, outcome.said, outcome.reason) == (3, b"out\n", "reason")


@needs_landlock
def test_it_reads_nothing_but_what_was_named(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.write_text("mine")
    other.write_text("other")
    assert shell(f"cat {mine}", read=[mine]).said == b"mine"
    for path in (other, "/etc/passwd", "/proc/1/environ"):
        outcome = shell(f"cat {path}", read=[mine])
        assert outcome.status != 0
        assert outcome.said == b""


@needs_landlock
def test_it_writes_nothing_but_what_was_named(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.touch()
    bounds = Bounds(output_bytes=1 << 20)
    assert shell(f"echo x > {mine}", bounds=bounds, write=[mine]).status == 0
    assert shell(f"echo x > {other}", bounds=bounds, write=[mine]).status != 0
    assert shell(f"echo x > {mine}", bounds=bounds, read=[mine]).status != 0
    assert mine.read_text() == "x\n"
    assert not other.exists()


@needs_namespaces
def test_it_has_no_network():
    """Of its own network namespace, in which not even loopback is up."""
    listed = run(["/bin/sh", "-c", "cat /proc/net/route /proc/net/dev"], "trying", Bounds(), read=[Path("/proc")])
    assert listed.status == 0
    devices = {line.split(":")[0].strip() for line in listed.said.decode().splitlines() if ":" in line}
    assert devices == {"lo"}


def test_it_cannot_write_more_than_its_bound(tmp_path):
    target = tmp_path / "target"
    target.touch()
    command = ["/usr/bin/dd", "if=/dev/zero", f"of={target}", "bs=4096", "count=100"]
    with pytest.raises(TooMuchOutput) as error:
        run(command, "trying", Bounds(output_bytes=10_000), write=[target])
    assert "10000 bytes" in error.value.problem
    assert target.stat().st_size <= 10_000


def command_lines():
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            yield Path(f"/proc/{pid}/cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            pass  # it ended


def test_it_is_ended_with_all_it_started_when_its_time_is_over(tmp_path):
    began, own = time.monotonic(), f"61.{os.getpid()}"
    with pytest.raises(InvalidRequest) as error:
        shell(f"for i in $(seq 40); do sleep {own} & done; sleep {own}", bounds=Bounds(wall_s=1))
    assert time.monotonic() - began < 20
    assert "longer than 1 s" in error.value.problem
    assert not any(own in line for line in command_lines())


def test_it_leaves_nobody_behind():
    own = f"62.{os.getpid()}"
    assert shell(f"sleep {own} >/dev/null 2>&1 & echo done").said == b"done\n"
    deadline = time.monotonic() + 20
    while any(own in line for line in command_lines()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_computes_no_longer_than_its_bound():
    with pytest.raises(InvalidRequest) as error:
        shell("while :; do :; done", bounds=Bounds(cpu_s=1, wall_s=60))
    assert "more than 1 s of computing" in error.value.problem


def test_it_gets_no_more_memory_than_its_bound():
    small = shell("x=$(head -c 50000000 /dev/zero | tr '\\0' a); echo ${#x}", bounds=Bounds(memory_mib=40))
    large = shell("x=$(head -c 50000000 /dev/zero | tr '\\0' a); echo ${#x}", bounds=Bounds(memory_mib=1024))
    assert small.said == b""
    assert large.said == b"50000000\n"


def test_it_knows_nothing_of_the_services_environment(monkeypatch):
    monkeypatch.setenv("VWS_TOKEN", "secret")
    assert b"secret" not in shell("env").said
