"""What a node's agent does about its cache: prefetches, clears, tells; one transfer for all, and a reason for none."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

from tests.node.builders import FakeLink, Node, in_loop, order, orders, until
from vws.core.caches import CacheContents, FileState
from vws.core.deployment import ClearOrder
from vws.core.lifecycle import Observation as O
from vws.core.site import ImageFile
from vws.node.config import FakeConfig

MIB = 1 << 20


def made(link: FakeLink, size: int = 5000) -> ImageFile:
    """A file that the service has."""
    data = os.urandom(size)
    sha256 = hashlib.sha256(data).hexdigest()
    link.blobs[sha256] = data
    return ImageFile("disk", sha256, size, "raw")


class Counting(FakeLink):
    """Counts transfers; those of `stalled` wait for `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.stalled: set[str] = set()
        self.go = asyncio.Event()

    async def fetch(self, sha256, size_bytes, target, progress):
        self.fetched.append(sha256)
        if sha256 in self.stalled:
            await self.go.wait()
        return await super().fetch(sha256, size_bytes, target, progress)


def told(link: FakeLink) -> CacheContents:
    """The last word on the cache."""
    return next((report.cache for report in reversed(link.reports) if report.cache), CacheContents())


def states(link: FakeLink) -> dict[str, FileState]:
    return {file.sha256: file.state for file in told(link).files}


@in_loop
async def test_what_is_ordered_ahead_comes_and_is_told_once(tmp_path):
    link = Counting()
    first, second = made(link), made(link)
    link.order(replace(orders(), prefetch=(first, second)))
    async with Node(tmp_path, link) as node:
        await until(lambda: list(states(link).values()) == [FileState.COMPLETE] * 2)
        assert link.fetched == [first.sha256, second.sha256], "in the order of need"
        count = len(link.reports)
        await until(lambda: len(link.reports) > count + 1)
        assert all(report.cache is None for report in link.reports[count + 1 :]), "no news is not told"
        assert told(link).limit_bytes == node.fake.images.limit_bytes
    async with Node(tmp_path, link):
        link.reports.clear()
        await until(lambda: len(states(link)) == 2)
        assert len(link.fetched) == 2


@in_loop
async def test_many_workspaces_of_one_image_are_one_transfer(tmp_path):
    link = Counting()
    file = made(link)
    link.order(orders(*(order(f"wsp-{n}", files=(file,)) for n in range(1, 17))))
    async with Node(tmp_path, link, builds_at_once=16) as node:
        for n in range(1, 17):
            await node.until_reported(O.RUNNING, f"wsp-{n}", within_s=20)
    assert link.fetched == [file.sha256]


@in_loop
async def test_a_workspace_does_not_wait_for_a_prefetch(tmp_path):
    link = Counting()
    soon, now = made(link), made(link)
    link.stalled = {soon.sha256}
    link.order(replace(orders(), prefetch=(soon,)))
    async with Node(tmp_path, link) as node:
        await until(lambda: link.fetched == [soon.sha256])
        link.order(replace(orders(order(files=(now,)), generation=2), prefetch=(soon,)))
        await node.until_reported(O.RUNNING)
        link.go.set()
        await until(lambda: states(link).get(soon.sha256) is FileState.COMPLETE)


@in_loop
async def test_a_prefetch_that_is_not_wanted_any_more_stops(tmp_path):
    link = Counting()
    soon, later = made(link), made(link)
    link.stalled = {soon.sha256}
    link.order(replace(orders(), prefetch=(soon, later)))
    async with Node(tmp_path, link):
        await until(lambda: link.fetched == [soon.sha256])
        link.order(replace(orders(generation=2), prefetch=(later,)))
        await until(lambda: states(link) == {later.sha256: FileState.COMPLETE})


@in_loop
async def test_what_cannot_come_is_told_with_its_reason_and_does_not_keep_the_others(tmp_path):
    link = Counting()
    gone, large, fine = made(link), made(link, 2 * MIB), made(link)
    del link.blobs[gone.sha256]
    link.order(replace(orders(), prefetch=(gone, large, fine)))
    async with Node(tmp_path, link, fake=FakeConfig.instant(disk_mib=4)):
        await until(lambda: states(link).get(fine.sha256) is FileState.COMPLETE)
        await until(lambda: list(states(link).values()).count(FileState.REFUSED) == 2)
        reasons = {file.sha256: file.reason for file in told(link).files}
        assert "there is no such file" in reasons[gone.sha256]
        assert "can never be on this node" in reasons[large.sha256]
        link.order(orders(generation=2))
        await until(lambda: set(states(link)) == {fine.sha256}, said=lambda: str(told(link)))


@in_loop
async def test_a_clear_is_done_once_and_what_is_used_stays(tmp_path):
    link = Counting()
    used, base, idle = made(link), replace(made(link), role="base"), made(link)
    chain = (replace(used, base=base.sha256), base)
    link.order(replace(orders(order(files=chain)), prefetch=(idle,)))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        await until(lambda: len(states(link)) == 3)
        clear = ClearOrder("cac-1")
        link.order(replace(orders(order(files=chain), generation=2), clears=(clear,)))
        await until(lambda: bool(told(link).cleared))
        (cleared,) = told(link).cleared
        assert (cleared.id, cleared.dropped) == ("cac-1", (idle.sha256,))
        assert {kept.sha256: kept.reason for kept in cleared.kept} == {
            used.sha256: "a workspace uses it",
            base.sha256: "a workspace uses it",
        }
        link.order(replace(orders(order(files=chain), generation=3), clears=(clear,), prefetch=(idle,)))
        await until(lambda: states(link).get(idle.sha256) is FileState.COMPLETE)
        link.order(orders(generation=4))
        await until(lambda: told(link).cleared == ())
        await node.until_reported(None)
        link.order(replace(orders(generation=5), clears=(ClearOrder("cac-2", (used.sha256, base.sha256)),)))
        await until(lambda: set(states(link)) == {idle.sha256})


@in_loop
async def test_an_image_that_never_fits_ends_its_workspace_with_the_reason(tmp_path):
    link = Counting()
    file = made(link, 2 * MIB)
    link.order(orders(order(files=(file,))))
    async with Node(tmp_path, link, fake=FakeConfig.instant(disk_mib=4)) as node:
        await node.until_reported(O.BROKEN)
        assert "the image can never be on this node: it takes 2 MiB" in link.fact().reason
        assert link.fetched == []


@in_loop
async def test_a_full_disk_while_an_image_comes_is_told_and_passes(tmp_path):
    class Full(Counting):
        full = True

        async def fetch(self, sha256, size_bytes, target: Path, progress):
            if self.full:
                target.write_bytes(b"x" * 1000)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return await super().fetch(sha256, size_bytes, target, progress)

    link = Full()
    file = made(link)
    link.order(orders(order(files=(file,))))
    async with Node(tmp_path, link) as node:
        await until(lambda: "the node's disk is full" in (link.fact().reason if link.reports and link.fact() else ""))
        assert "were removed" in link.fact().reason
        link.full = False
        await node.until_reported(O.RUNNING, within_s=10)
