"""What a node does about the captures in its orders: each taken, made fit, handed in; what is not ordered is dropped.

A capture goes on where it stopped: what was taken stays until the service says, by orders without it, that it has it or
does not want it. The workspace is needed for the taking only, which is a step like others of its life: nothing else is
done to it meanwhile. One that is to be taken at the end is taken when the workspace is removed, whoever removes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from vws.core.deployment import CaptureOrder, NodeOrders
from vws.node.link import Link, Refused, Unreachable
from vws.node.workspaces import Workspaces
from vws.ports import Hypervisor, HypervisorError

log = logging.getLogger(__name__)

TRIES = 3
AGAIN_S = 2.0
LOOK_S = 1.0


class Saving:
    def __init__(self, hypervisor: Hypervisor, link: Link, workspaces: Workspaces) -> None:
        self._hypervisor = hypervisor
        self._link = link
        self._workspaces = workspaces
        self._ordered: dict[str, CaptureOrder] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._missed: dict[str, str] = {}
        workspaces.before_removal = self._before_removal

    def obey(self, orders: NodeOrders | None) -> None:
        """Begin what is new, drop what is not ordered any more."""
        self._ordered = {order.id: order for order in orders.captures} if orders else {}
        for id in self._tasks.keys() - self._ordered.keys():
            self._tasks[id].cancel()
        for id, order in self._ordered.items():
            if id not in self._tasks:
                self._tasks[id] = asyncio.create_task(self._save(order), name=f"capture {id}")

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def sweep(self) -> None:
        """Drop what an earlier agent left of captures that nobody orders."""
        for id in await self._hypervisor.captures() - self._ordered.keys():
            await self._hypervisor.drop_capture(id)

    # -------------------------------------------------------- one capture

    async def _save(self, order: CaptureOrder) -> None:
        try:
            await self._carry_out(order)
            await asyncio.Event().wait()  # until orders without it come
        finally:
            del self._tasks[order.id]
            if order.id not in self._ordered:
                await self._hypervisor.drop_capture(order.id)

    async def _carry_out(self, order: CaptureOrder) -> None:
        try:
            await self._take(order)
            delta = await self._tried(lambda: self._hypervisor.delta(order))
            quiesced = await self._hypervisor.quiesced(order.id)
            await self._until_heard(lambda: self._link.hand_in(order.id, delta, quiesced))
        except HypervisorError as error:
            log.warning("%s: cannot save %s: %s", order.id, order.workspace, error.reason)
            await self._give_up(order, error.reason)
        except Exception as error:
            log.exception("%s: cannot save %s", order.id, order.workspace)
            await self._give_up(order, f"the node could not save it ({error})")

    async def _give_up(self, order: CaptureOrder, reason: str) -> None:
        with contextlib.suppress(HypervisorError):
            await self._until_heard(lambda: self._link.give_up(order.id, reason))

    async def _take(self, order: CaptureOrder) -> None:
        while order.id not in await self._hypervisor.captures(taken=True):
            if not order.at_end:
                await self._tried(lambda: self._workspaces.alone(order.workspace, lambda: self._hypervisor.take(order)))
            elif self._workspaces.sighted and not self._workspaces.knows(order.workspace):
                reason = self._missed.pop(order.id, "the workspace was gone before it could be taken")
                raise HypervisorError(reason, final=True)
            else:
                await asyncio.sleep(LOOK_S)

    async def _before_removal(self, workspace: str) -> None:
        """Take what is to be taken at the end. Whatever comes of it, the end comes."""
        for order in list(self._ordered.values()):
            if order.workspace == workspace and order.at_end:
                try:
                    await self._hypervisor.take(order)
                except HypervisorError as error:
                    log.error("%s: %s could not be taken at its end: %s", order.id, workspace, error.reason)
                    self._missed[order.id] = error.reason

    async def _until_heard(self, tell: Callable[[], Awaitable[None]]) -> None:
        """However long the service may be away."""
        pause_s = 0.2
        while True:
            try:
                return await tell()
            except Unreachable:
                await self._link.reachable()
            except Refused as error:
                if error.status == 404:  # the save is over: what was done was done, though its answer was lost
                    return None
                if error.status != 409:
                    raise HypervisorError(f"the service does not take it: {error.reason}", final=True) from None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)

    async def _tried(self, work: Callable[[], Awaitable[Path | None]]) -> Path:
        for left in reversed(range(TRIES)):
            try:
                return await work() or Path()
            except HypervisorError as error:
                if error.final or not left:
                    raise
            await asyncio.sleep(AGAIN_S)
        raise AssertionError
