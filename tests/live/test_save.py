"""A workspace that becomes an image, with real guests: what it kept is in it, what must differ is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.sites import RealSite

pytestmark = pytest.mark.live


@pytest.fixture
def site(tmp_path: Path) -> Iterator[RealSite]:
    made = RealSite(tmp_path / "site")
    try:
        made.start()
        yield made
    finally:
        made.stop()


def vws(site: RealSite, *arguments: str) -> Any:
    command = [sys.executable, "-m", "vws.cli.main", "--dir", str(site.directory.path), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + site.ask(site.story)
    return json.loads(done.stdout)


def test_a_saved_workspace_is_leased_twice(site: RealSite) -> None:
    site.lease(1, "first")
    site.ssh("first-1", "echo mine > /data/file; mkdir -p /data/var; echo x > /run/disk/vws-secret; sync")
    before = site.ask(lambda c: c.workspace("first-1"))
    save = vws(site, "workspace", "save", "first-1", "--as", "mine:1")
    assert save["state"] == "done"
    assert float(site.ssh("first-1", "cut -d' ' -f1 /proc/uptime")) > 0  # it goes on
    assert site.ask(lambda c: c.workspace("first-1"))["boots"] == before["boots"]
    image = site.ask(lambda c: c.image("mine:1"))
    disk = next(file for file in image["files"] if file["role"] == "disk")
    assert image["base"] == save["base"]
    assert disk["size_bytes"] < 8 << 20
    said = site.ask(lambda c: c.image_documents("mine:1"))
    assert [document["kind"] for document in said] == ["provenance"]
    site.lease(2, "second", group={"image": "mine:1", "disk_mib": 160})
    assert [site.ssh(f"second-{n}", "cat /data/file") for n in (1, 2)] == ["mine", "mine"]
    keys = {site.ask(lambda c, n=name: c.workspace(n))["host_key"] for name in ("first-1", "second-1", "second-2")}
    assert len(keys) == 3
    assert site.ssh("second-1", "df -m /data | tail -1 | awk '{print $2}'") > "120"
    again = vws(site, "workspace", "save", "second-1", "--as", "mine:2")
    assert again["base"] == image["id"]
    assert not list((site.directory.node / "captures").iterdir())
