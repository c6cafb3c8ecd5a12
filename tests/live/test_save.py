"""A workspace that becomes an image, with real guests: what it kept is in it, what must differ is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.sites import RealSite
from vws import processes
from vws.faultpoints import POINTS

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

STEPS = sorted(point for point in POINTS if point.startswith(("agent.capture.", "service.save.")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSite]:
    made = RealSite(tmp_path_factory.mktemp("live") / "site")
    try:
        made.start()
        made.lease(1, "first")
        made.ssh("first-1", "echo mine > /data/file; mkdir /run/disk/vws; echo secret > /run/disk/vws/token; sync")
        yield made
    finally:
        made.stop()


def vws(site: RealSite, *arguments: str) -> Any:
    command = [sys.executable, "-m", "vws.cli.main", "--dir", str(site.directory.path), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + site.ask(site.story)
    return json.loads(done.stdout)


def captured(site: RealSite) -> list[Path]:
    return list((site.directory.node / "captures").iterdir())


def test_a_saved_workspace_is_leased_twice(site: RealSite) -> None:
    before = site.ask(lambda c: c.workspace("first-1"))
    save = vws(site, "workspace", "save", "first-1", "--as", "mine:1")
    assert save["state"] == "done"
    assert site.ssh("first-1", "cat /run/disk/vws/token") == "secret", "only the copy is cleaned"
    assert site.ask(lambda c: c.workspace("first-1"))["boots"] == before["boots"], "it goes on"
    image = site.ask(lambda c: c.image("mine:1"))
    disk = next(file for file in image["files"] if file["role"] == "disk")
    assert image["base"] == save["base"]
    assert disk["size_bytes"] < 8 << 20
    content = site.directory.path / "blobs" / disk["sha256"]
    assert b"secret" not in next(site.directory.path.rglob(content.name)).read_bytes()
    site.lease(2, "second", group={"image": "mine:1", "disk_mib": 160})
    assert [site.ssh(f"second-{n}", "cat /data/file") for n in (1, 2)] == ["mine", "mine"]
    assert site.ssh("second-1", "ls /run/disk/vws") == ""
    keys = {site.ask(lambda c, n=name: c.workspace(n))["host_key"] for name in ("first-1", "second-1", "second-2")}
    assert len(keys) == 3
    assert int(site.ssh("second-1", "df -m /data | awk 'END { print $2 }'")) > 120, "the disk is as large as was asked"


def test_a_delta_on_a_delta_at_the_end_of_a_lease(site: RealSite) -> None:
    site.ssh("second-1", "echo more > /data/more")  # not synced: it is asked to power off
    asked = vws(site, "workspace", "save", "second-1", "--as", "mine:2", "--when", "end")
    assert asked["state"] == "due"
    site.ask(lambda c: c.cancel_lease("second"))
    site.until(lambda c: c.save(asked["id"])["state"] == "done", "saved at its end")
    site.lease(1, "third", group={"image": "mine:2", "disk_mib": 160})
    assert site.ssh("third-1", "cat /data/file /data/more").split() == ["mine", "more"]
    site.ask(lambda c: c.cancel_lease("third"))
    site.until(lambda c: not captured(site), "nothing of it left on the node")


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
        return bool(site.ask(lambda c: c.save(asked["id"]))["state"] != "due")

    site.until(over, "over")
    assert once.exists(), f"{point} was never reached"
    assert site.ask(lambda c: c.save(asked["id"]))["state"] == "done"
    assert site.ssh("first-1", "cat /data/file") == "mine", "it goes on"
    site.until(lambda c: c.workspace("first-1")["state"] == "running" and not captured(site), "as before")
    made = site.ask(lambda c: [image for image in c.images() if image["name"] == name])
    assert len(made) == 1
    assert "export" not in Path("/proc/mounts").read_text()
