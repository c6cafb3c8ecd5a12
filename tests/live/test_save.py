"""A workspace that becomes an image, with real guests: what it kept is in it, what must differ is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.sites import RealSite
from vws import processes
from vws.client.errors import ConnectionFailed
from vws.faultpoints import POINTS

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

# Longer than all of these tests together.
LASTS_S = 7200
# Of larger disks, and of guests with an agent: tests/live/test_taking.py.
ELSEWHERE = ("agent.capture.mirrored", "agent.capture.frozen")
STEPS = sorted(
    point for point in POINTS if point.startswith(("agent.capture.", "service.save.")) and point not in ELSEWHERE
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSite]:
    """With a guest, first-1, that has something to keep and something to hide. Tests only read there."""
    made = RealSite(tmp_path_factory.mktemp("live") / "site")
    try:
        made.start()
        made.lease(1, "first", duration_s=LASTS_S)
        made.ssh("first-1", "echo mine > /data/file; mkdir /run/disk/vws; echo secret > /run/disk/vws/token; sync")
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def saved(site: RealSite) -> Any:
    """The save of first-1 as mine:1."""
    return vws(site, "workspace", "save", "first-1", "--as", "mine:1")


def vws(site: RealSite, *arguments: str) -> Any:
    command = [sys.executable, "-m", "vws.cli.main", "--dir", str(site.directory.path), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + site.ask(site.story)
    return json.loads(done.stdout)


def captured(site: RealSite, save: str) -> bool:
    """Whether the node has anything of a save."""
    return (site.directory.node / "captures" / save).exists()


def test_a_saved_workspace_is_leased_twice(site: RealSite, saved: Any) -> None:
    assert saved["state"] == "done"
    assert site.ssh("first-1", "cat /run/disk/vws/token") == "secret", "only the copy is cleaned"
    assert site.ask(lambda c: c.workspace("first-1"))["boots"] == 1, "it goes on"
    image = site.ask(lambda c: c.image("mine:1"))
    disk = next(file for file in image["files"] if file["role"] == "disk")
    assert image["base"] == saved["base"]
    assert disk["size_bytes"] < 8 << 20
    content = site.directory.path / "blobs" / disk["sha256"]
    assert b"secret" not in next(site.directory.path.rglob(content.name)).read_bytes()
    with leased(site, 2, "twice", "mine:1"):
        assert [site.ssh(f"twice-{n}", "cat /data/file") for n in (1, 2)] == ["mine", "mine"]
        assert site.ssh("twice-1", "ls /run/disk/vws") == ""
        keys = {site.ask(lambda c, n=name: c.workspace(n))["host_key"] for name in ("first-1", "twice-1", "twice-2")}
        assert len(keys) == 3
        size_mib = "df -m /data | awk 'END { print $2 }'"
        site.until(lambda _: int(site.ssh("twice-1", size_mib)) > 120, "the disk as large as was asked")


def test_a_delta_on_a_delta_at_the_end_of_a_lease(site: RealSite, saved: Any) -> None:
    with leased(site, 1, "upper", "mine:1"):
        site.ssh("upper-1", "echo more > /data/more")  # not synced: it is asked to power off
        asked = vws(site, "workspace", "save", "upper-1", "--as", "upper:2", "--when", "end")
        assert asked["state"] == "due"
    site.until(lambda c: c.save(asked["id"])["state"] == "done", "saved at its end")
    with leased(site, 1, "third", "upper:2"):
        assert site.ssh("third-1", "cat /data/file /data/more").split() == ["mine", "more"]
    site.until(lambda c: not captured(site, asked["id"]), "nothing of it left on the node")


@contextmanager
def leased(site: RealSite, count: int, name: str, image: str) -> Iterator[None]:
    site.lease(count, name, duration_s=LASTS_S, group={"image": image, "disk_mib": 160})
    try:
        yield
    finally:
        site.ask(lambda c: c.cancel_lease(name))


@pytest.mark.parametrize(
    "point", [STEPS[0], *(pytest.param(step, marks=pytest.mark.soak) for step in STEPS[1:-1]), STEPS[-1]]
)
def test_killed_at_a_step_it_is_saved_all_the_same(site: RealSite, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once, process = site.directory.service / f"{point}.died", point.split(".")[0]
    pid = processes.running(site.directory, process)
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert processes.wait_gone(site.directory, process, 5)
    monkeypatch.setenv("VWS_FAULT", point)
    monkeypatch.setenv("VWS_FAULT_ONCE", str(once))
    site.start()
    name = point.replace(".", "-")
    asked = vws(site, "workspace", "save", "first-1", "--as", name, "--no-wait")

    def over(client: Any) -> bool:
        if not processes.running(site.directory, process):
            site.start()
        try:
            return bool(site.ask(lambda c: c.save(asked["id"]))["state"] != "due")
        except ConnectionFailed:  # it died just now
            return False

    site.until(over, "over")
    assert once.exists(), f"{point} was never reached"
    assert site.ask(lambda c: c.save(asked["id"]))["state"] == "done"
    assert site.ssh("first-1", "cat /data/file") == "mine", "it goes on"
    site.until(lambda c: c.workspace("first-1")["state"] == "running" and not captured(site, asked["id"]), "as before")
    made = site.ask(lambda c: [image for image in c.images() if image["name"] == name])
    assert len(made) == 1
    assert "export" not in Path("/proc/mounts").read_text()
