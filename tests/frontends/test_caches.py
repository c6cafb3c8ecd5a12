"""Nodes' image caches over REST: what is in them, what is ordered of them, and what that comes to on a real node."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from tests.frontends.conftest import PlayedNode, Running, until
from vws.core.site import ImageFile
from vws.node.images import ImageCache
from vws.node.transfer import Landing

MIB = 1 << 20
SLACK = 256 << 10  # holes are found in pieces as they come


@pytest.fixture(scope="module")
def disk() -> bytes:
    """Raw, a half of it zeros."""
    return os.urandom(MIB) + bytes(2 * MIB) + os.urandom(MIB)


def pushed(running: Running, disk: bytes, name: str = "small") -> dict:
    made = running.root.post("/v1/images", params={"name": name, "format": "raw"}, content=disk)
    assert made.status_code == 201, made.text
    return made.json()


def contents(*files: dict, **more: object) -> dict:
    said = [{"sha256": f["sha256"], "role": f["role"], "size_bytes": f["size_bytes"], **more} for f in files]
    held = [
        {"state": "complete", "disk_bytes": 5000, "have_bytes": 1, "used_at": 7, "reason": "", "altered_at": 0} | f
        for f in said
    ]
    return {"limit_bytes": 1 << 30, "fetch_limit_mbit": 0.0, "files": held, "cleared": []}


def cache_of(running: Running, node: str = "n1") -> dict:
    answer = running.root.get(f"/v1/nodes/{node}/cache")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_cache_is_shown_with_who_uses_what(running, disk):
    node, other = running.enroll("n1", "n2")
    image = pushed(running, disk)
    assert cache_of(running)["files"] == []
    node.report(cache=contents(*image["files"]))
    lease = running.lease(1, groups=[{"image": "small", "memory_mib": 128, "disk_mib": 100}])
    node.obey()
    shown = cache_of(running)
    (file,) = shown["files"]
    assert (file["images"], file["used_by"], file["wanted"]) == (["small"], [f"{lease['name']}-1"], False)
    assert (shown["node_name"], shown["limit_bytes"], shown["used_bytes"]) == ("n1", 1 << 30, 5000)
    listed = running.root.get("/v1/caches").json()
    assert [each["node_name"] for each in listed["items"]] == ["n1"], "the other has said nothing"
    assert listed["items"][0] == shown
    for answer in (running.ann.get("/v1/caches"), running.ann.get("/v1/nodes/n1/cache")):
        assert answer.status_code == 403
    assert running.root.get("/v1/nodes/nowhere/cache").status_code == 404
    assert running.root.delete(f"/v1/nodes/{other.id}").status_code == 200


def test_a_prefetch_is_ordered_and_over_when_the_node_has_it(running, disk):
    (node,) = running.enroll("n1")
    image = pushed(running, disk)
    asked = running.root.post("/v1/nodes/n1/cache/prefetch", json={"image": "small"})
    assert (asked.status_code, asked.json()["state"]) == (202, "due")
    (ordered,) = node.pull().json()["orders"]["prefetch"]
    assert ordered == image["files"][0]
    assert 2 * MIB <= ordered["data_bytes"] < 2 * MIB + SLACK
    assert cache_of(running)["tasks"][0]["by"] == "root"
    node.report(cache=contents(*image["files"]))
    assert cache_of(running)["tasks"][0]["state"] == "done"
    assert node.pull().json()["orders"]["prefetch"] == []
    for body, status in (({"image": "none"}, 404), ({"image": "demo"}, 409), ({}, 422), ({"image": ""}, 422)):
        assert running.root.post("/v1/nodes/n1/cache/prefetch", json=body).status_code == status
    assert running.ann.post("/v1/nodes/n1/cache/prefetch", json={"image": "small"}).status_code == 403


def test_a_clear_is_over_when_the_node_says_what_came_of_it(running, disk):
    (node,) = running.enroll("n1")
    image = pushed(running, disk)
    sha256 = image["files"][0]["sha256"]
    for body, files in (({"image": "small"}, [sha256]), ({}, [])):
        task = running.root.post("/v1/nodes/n1/cache/clear", json=body).json()
        assert node.pull().json()["orders"]["clears"] == [{"id": task["id"], "files": files}]
        said = {"id": task["id"], "dropped": [sha256], "freed_bytes": 7, "kept": []}
        node.report(cache=contents() | {"cleared": [said]})
        over = cache_of(running)["tasks"][-1]
        assert (over["state"], over["freed_bytes"], over["dropped"]) == ("done", 7, [sha256])
    assert running.ann.post("/v1/nodes/n1/cache/clear", json={}).status_code == 403


def test_a_planned_lease_has_its_image_ordered_ahead(running, disk):
    (node,) = running.enroll("n1")
    image = pushed(running, disk)
    start = int(time.time()) + 3600
    group = {"image": "small", "memory_mib": 128, "disk_mib": 100}
    running.lease(1, groups=[group], when="reservation", start=start)
    until(lambda: [f["sha256"] for f in _ordered(node)] == [f["sha256"] for f in image["files"]])


def _ordered(node: PlayedNode) -> list[dict]:
    return node.pull().json()["orders"]["prefetch"]


def test_what_is_sent_is_about_the_data_and_lies_with_holes(here, disk, tmp_path):
    """The service's own bytes, through a node's own code, into its cache."""
    (node,) = here.enroll("n1")
    image = pushed(here, disk)
    (said,) = image["files"]
    file = ImageFile(**said)
    sent = node.http.get(f"/v1/blobs/{file.sha256}", params={"holes": "skip"}).content
    assert 2 * MIB < said["data_bytes"] < len(sent) < said["data_bytes"] + 1000 < 2 * MIB + SLACK

    async def fetch(sha256: str, size_bytes: int, target: Path) -> str:
        landing = Landing(target, size_bytes)
        for at in range(0, len(sent), 100_000):
            landing.take(sent[at : at + 100_000])
        landing.close()
        return landing.sha256()

    cache = ImageCache(tmp_path / "node", limit_bytes=3 * MIB)
    cache.open()
    asyncio.run(cache.ensure([file], fetch, lambda text: None))
    seen = cache.path(file.sha256).stat()
    assert seen.st_size == 4 * MIB
    assert 2 * MIB <= seen.st_blocks * 512 < 2 * MIB + SLACK
    assert cache.path(file.sha256).read_bytes() == disk
