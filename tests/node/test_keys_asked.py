"""An agent asks for the keys of what is encrypted each time that it needs them, and keeps none."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from tests.node.builders import FakeLink, Node, in_loop, order, orders, until
from vws.core.deployment import FileKey, WorkspaceKeys, WorkspaceOrder
from vws.core.lifecycle import Desired as D
from vws.core.lifecycle import Observation as O
from vws.core.site import ImageFile

OWN, KEY = "own-passphrase-4815", "image-passphrase-1623"
DISK = b"an encrypted disk of sorts"


def encrypted(link: FakeLink, **settings: object) -> WorkspaceOrder:
    sha256 = hashlib.sha256(DISK).hexdigest()
    link.blobs[sha256] = DISK
    link.given["wsp-1"] = WorkspaceKeys(OWN, (FileKey(sha256, KEY),))
    made = order(**settings)
    return replace(made, files=(ImageFile("disk", sha256, len(DISK), "qcow2", encryption="luks"),))


def asked(link: FakeLink) -> int:
    return link.log.count("keys wsp-1")


def in_any_file(directory: Path) -> list[Path]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    return [path for path in files for data in [path.read_bytes()] if OWN.encode() in data or KEY.encode() in data]


@in_loop
async def test_it_asks_before_each_step_that_needs_them_and_writes_none_down(tmp_path):
    link = FakeLink()
    link.order(orders(encrypted(link)))
    node = await Node(tmp_path, link).__aenter__()
    await node.until_reported(O.RUNNING)
    assert asked(link) == 2, "to make it, and to start it"
    link.order(orders(encrypted(link, desired=D.SUSPEND), generation=2))
    await node.until_reported(O.SUSPENDED)
    assert asked(link) == 3
    await node.kill()
    assert in_any_file(tmp_path) == []
    link.order(orders(encrypted(link, may_create=False), generation=3))
    async with Node(tmp_path, link) as node:  # which knows the orders, and no key
        await node.until_reported(O.RUNNING)
        assert asked(link) == 4
    assert in_any_file(tmp_path) == []


@in_loop
async def test_while_the_service_is_away_it_waits_and_ends_are_enforced(tmp_path):
    link = FakeLink()
    link.order(orders(encrypted(link)))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        end = link.end_in(2)
        link.order(orders(encrypted(link, boots=2, may_create=False, end=end), generation=2))
        await until(lambda: link.reports[-1].generation == 2)
        await until(lambda: asked(link) >= 3 or link.fact().boots == 2)
        link.leave()
        await until(lambda: node.fake.remains() == {}, 20)
        link.come_back()


@in_loop
async def test_what_the_service_says_against_it_is_the_reason(tmp_path):
    link = FakeLink()
    link.order(orders(encrypted(link)))
    del link.given["wsp-1"]
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.BROKEN, within_s=30)
        assert "does not give its key: the site's key is missing" in link.fact().reason


@in_loop
async def test_nobody_is_asked_for_what_is_in_the_clear(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
    assert asked(link) == 0
