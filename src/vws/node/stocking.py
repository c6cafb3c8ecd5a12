"""What a node does about its image cache beside what workspaces need: prefetches, clears, and tells what is there.

Files are prefetched one after the other, in the order in which the node was told, and only while no workspace fetches
(images.py). What cannot come is told with its reason and tried again later, at once when the orders change. A clear is
done once while it is ordered; an agent that died meanwhile does it again, which drops what has become unused since.

The service is told when something changed, and now and then all the same, for it may have been restored from a backup.
Of a file that is arriving every twentieth is news.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from vws.core.caches import CacheContents, CachedFile, Cleared, FileState
from vws.core.deployment import ClearOrder, NodeOrders
from vws.core.site import ImageFile
from vws.faultpoints import reach
from vws.node.watch import wait
from vws.ports import Fetch, HypervisorError, ImageStore

log = logging.getLogger(__name__)

AGAIN_S = 30.0
TOLD_EVERY_S = 300.0


@dataclass(frozen=True)
class _Refusal:
    reason: str
    again_at: float


class Stocking:
    """changed: called when there is something to tell. steady: seconds by a clock that only goes forward."""

    def __init__(
        self,
        images: ImageStore,
        fetch: Fetch,
        changed: Callable[[], None],
        *,
        fetch_limit_mbit: float = 0.0,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._images = images
        self._fetch = fetch
        self._changed = changed
        self._fetch_limit_mbit = fetch_limit_mbit
        self._steady = steady
        self._wanted: dict[str, ImageFile] = {}
        self._clears: dict[str, ClearOrder] = {}
        self._cleared: dict[str, Cleared] = {}
        self._refused: dict[str, _Refusal] = {}
        self._getting: tuple[str, asyncio.Task[None]] | None = None
        self._orders_changed = asyncio.Event()
        self._contents: CacheContents | None = None
        self._told: CacheContents | None = None
        self._told_at = 0.0

    def obey(self, orders: NodeOrders | None) -> None:
        """From now on these are the orders."""
        if orders is None:
            return
        ordered = {file.sha256 for order in orders.workspaces for file in order.all_files}
        ordered |= {file.sha256 for capture in orders.captures for file in capture.beneath}
        self._images.expect(ordered, orders.prefetch)
        self._wanted = {file.sha256: file for file in orders.prefetch}
        self._clears = {order.id: order for order in orders.clears}
        self._cleared = {id: cleared for id, cleared in self._cleared.items() if id in self._clears}
        # What failed for good is not fetched again just because something else changed.
        self._refused = {
            id: refusal
            for id, refusal in self._refused.items()
            if id in self._wanted and math.isinf(refusal.again_at)
        }  # fmt: skip
        if self._getting and (self._getting[0] not in self._wanted or self._clears.keys() - self._cleared.keys()):
            self._getting[1].cancel()
        self._orders_changed.set()

    # -------------------------------------------------------- doing

    async def run(self) -> None:
        """Until it is cancelled."""
        await self._images.trim()
        while True:
            self._orders_changed.clear()
            for order in list(self._clears.values()):
                await self._clear(order)
            for file in list(self._wanted.values()):
                if not self._orders_changed.is_set() and self._is_due(file.sha256):
                    await self._prefetch(file)
            await wait(self._orders_changed, AGAIN_S)

    def _is_due(self, sha256: str) -> bool:
        refusal = self._refused.get(sha256)
        return refusal is None or self._steady() >= refusal.again_at

    async def _clear(self, order: ClearOrder) -> None:
        if order.id not in self._cleared:
            self._cleared[order.id] = await self._images.clear(order.id, order.files or None)
            reach("agent.cache.cleared")
            self._changed()

    async def _prefetch(self, file: ImageFile) -> None:
        """Until it is here, cannot come, or other orders do not want it any more."""
        getting = asyncio.create_task(self._images.prefetch(file, self._fetch), name=f"prefetch {file.sha256[:12]}")
        self._getting = file.sha256, getting
        try:
            await asyncio.wait({getting})
            if not getting.cancelled():
                getting.result()
                self._refused.pop(file.sha256, None)
        except HypervisorError as error:
            self._refuse(file, error)
        finally:
            self._getting = None
            getting.cancel()
            await asyncio.gather(getting, return_exceptions=True)
            self._changed()

    def _refuse(self, file: ImageFile, error: HypervisorError) -> None:
        log.warning("cannot prefetch the %s %s: %s", file.role, file.sha256[:12], error.reason)
        again_at = math.inf if error.final else self._steady() + AGAIN_S
        self._refused[file.sha256] = _Refusal(error.reason, again_at)

    # -------------------------------------------------------- telling

    @property
    def is_busy(self) -> bool:
        """Whether something is arriving, so that there is progress to be told."""
        files = self._contents.files if self._contents else ()
        return self._getting is not None or any(file.state is FileState.ARRIVING for file in files)

    async def look(self) -> CacheContents | None:
        """What the service should be told of the cache as it is now; None if it knows."""
        with contextlib.suppress(OSError):
            files = {file.sha256: _coarse(file) for file in await self._images.contents()}
            files.update((id, self._refused_file(id, files.get(id))) for id in self._refused)
            found = tuple(files[id] for id in sorted(files))
            cleared = tuple(self._cleared.values())
            self._contents = CacheContents(self._images.limit_bytes, self._fetch_limit_mbit, found, cleared)
        if self._contents == self._told and self._steady() < self._told_at + TOLD_EVERY_S:
            return None
        return self._contents

    def _refused_file(self, sha256: str, file: CachedFile | None) -> CachedFile:
        if file is not None and file.state is FileState.COMPLETE:
            return file
        wanted = self._wanted[sha256]
        known = file or CachedFile(sha256, FileState.REFUSED, wanted.role, wanted.size_bytes)
        return replace(known, state=FileState.REFUSED, reason=self._refused[sha256].reason)

    def told(self, contents: CacheContents | None) -> None:
        """The service has it on record."""
        if contents is not None:
            self._told, self._told_at = contents, self._steady()


def _coarse(file: CachedFile) -> CachedFile:
    """What is arriving, to a twentieth; when something was used, to the minute: each boot would be news."""
    if file.state is not FileState.ARRIVING or not file.size_bytes:
        return replace(file, used_at=file.used_at // 60 * 60)
    step = max(1, file.size_bytes // 20)
    return replace(file, have_bytes=file.have_bytes // step * step, disk_bytes=0, used_at=0)
