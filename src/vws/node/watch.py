"""Keeps the hypervisor open and an eye on what is there.

A look shows everything; it is taken every few seconds, and at once when the
hypervisor says that something happened. Before each, the guests' network is put
right if something befell it. When the hypervisor is lost (its daemon
died), nothing is done to any workspace until it was opened again and looked at:
steps taken blindly would be steps taken twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from vws.core.deployment import NetworkOrder, NodeOrders
from vws.node.conditions import Conditions
from vws.node.workspaces import Workspaces
from vws.ports import Description, Hypervisor, HypervisorError

log = logging.getLogger(__name__)

OPENING_LIMIT_S = 20.0
Networks = tuple[str, str, tuple[NetworkOrder, ...]]


class Watch:
    """`described`: what the node is, None until the first look. `looked` is called after each look,
    `changed` when the description changed. min_free_mib: of disk in `directory`, for the agent itself."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        workspaces: Workspaces,
        conditions: Conditions,
        directory: Path,
        *,
        every_s: float,
        min_free_mib: int,
        looked: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self._hypervisor = hypervisor
        self._workspaces = workspaces
        self._conditions = conditions
        self._directory = directory
        self._every_s = every_s
        self._min_free_mib = min_free_mib
        self._looked = looked
        self._changed = changed
        self._now = asyncio.Event()
        self._lock = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._prepared: NodeOrders | None = None
        self._networks: Networks | None = None
        self._is_open = False
        self.described: Description | None = None

    def look_now(self) -> None:
        self._now.set()

    async def run(self) -> None:
        trouble_s = 0.5
        while True:
            self._now.clear()
            try:
                await self.open()
                await self._mend()
                await self._look()
                pause_s, trouble_s = self._every_s, 0.5
            except HypervisorError as error:
                self._lose_sight(error.reason)
                pause_s = trouble_s = min(2 * trouble_s, 10.0)
            self._looked()
            await wait(self._now, pause_s)

    async def open(self) -> None:
        """Have the hypervisor open for the networks of the latest orders. Raises HypervisorError."""
        async with self._lock:
            # Which these are is asked once it is our turn: by those of before, what was just made would be removed.
            orders = self._prepared or self._workspaces.orders
            networks = (orders.subnet, orders.gateway, orders.networks) if orders else None
            if self._is_open and networks == self._networks:
                return
            if not self._is_open:
                self._stop_listening()
            await self._finish(self._hypervisor.open(orders))
            if not self._is_open:
                self._listening = asyncio.create_task(self._listen())
            self._is_open, self._networks = True, networks

    async def _mend(self) -> None:
        problem = ""
        async with self._lock:
            try:
                await self._finish(self._hypervisor.mend())
            except HypervisorError as error:
                problem = f"the guests' network is down: {error.reason}"
        self._conditions.tell("network", problem)

    async def _finish(self, making: Coroutine[Any, Any, None]) -> None:
        """Even if this agent is told to stop: what is half made would be left behind."""
        self._opening = asyncio.create_task(making)
        await asyncio.shield(self._opening)

    async def prepare(self, orders: NodeOrders) -> None:
        """Before `orders` are obeyed: steps for them need their network."""
        self._prepared = orders
        try:
            await self.open()
        except HypervisorError as error:
            self._lose_sight(error.reason)
            self.look_now()

    async def close(self) -> bool:
        """Let go of the hypervisor's news; True if nothing is left on the node, by a last look."""
        self._stop_listening()
        if self._opening and not self._opening.done():
            await asyncio.wait([self._opening], timeout=OPENING_LIMIT_S)
        try:
            return not await self._hypervisor.instances()
        except HypervisorError:
            return False

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening.cancel()
            self._listening = None

    async def _look(self) -> None:
        await self._workspaces.look()
        described = await self._hypervisor.describe()
        if described != self.described:
            self.described = described
            self._changed()
        self._conditions.tell("hypervisor", "")
        self._conditions.tell("disk", self._disk_problem())
        self._workspaces.wake_all()

    def _disk_problem(self) -> str:
        free_mib = shutil.disk_usage(self._directory).free >> 20
        if free_mib >= self._min_free_mib:
            return ""
        # The limit and not the rest is named, or each report would tell another number.
        return f"less than {self._min_free_mib} MiB are free on the disk of {self._directory}; make room"

    async def _listen(self) -> None:
        """News of what happened unasked; a look tells what it was. Ends with the connection."""
        try:
            async for _ in self._hypervisor.changes():
                await self._workspaces.look()
                self._looked()
            reason = "it closed the connection"
        except HypervisorError as error:
            reason = error.reason
        except Exception as error:
            log.exception("the hypervisor's news cannot be heard")
            reason = str(error)
        self._lose_sight(reason)
        await asyncio.sleep(0.5)  # an open that succeeds only to fail again must not spin
        self._now.set()

    def _lose_sight(self, reason: str) -> None:
        self._is_open = False
        self._workspaces.lose_sight()
        self._conditions.tell("hypervisor", f"the hypervisor cannot be used: {reason}")


async def wait(event: asyncio.Event, at_most_s: float) -> None:
    # Not asyncio.wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await event.wait()
