"""The node agent: pulls orders, keeps them, obeys them, reports facts.

Four loops run side by side, each of which outlives whatever the others meet:

- *watch* keeps the hypervisor open, looks at what is there, and looks at once
  when the hypervisor has news (watch.py);
- *pull* long-polls for orders, puts them on disk, then hands them to
  `Workspaces`, which does the work (workspaces.py);
- *report* sends the facts when they changed, and every few seconds: one report
  at a time, always the latest, until it is acknowledged;
- *stock* has in the image cache what will be needed (stocking.py).

Only *pull* and *report* need the service. Without it the agent goes on with the
orders it has and enforces their ends by the service's clock (clock.py).

To *retire* is to go on like that until the last workspace has ended, then to
tear down and leave: how a site is stopped while workspaces are still leased. A
service that answers again (the site was started anew) calls it off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vws import __version__
from vws.core.caches import CacheContents
from vws.core.deployment import NodeOrders, NodeReport, WorkspaceKeys
from vws.core.errors import InvalidRequest
from vws.core.site import Capacity
from vws.core.wire import from_json
from vws.faultpoints import reach
from vws.node.clock import NodeClock, ServiceClock
from vws.node.conditions import Conditions, Trouble
from vws.node.link import Link, LinkError, Pulled, Refused, Unreachable
from vws.node.saving import Saving
from vws.node.state import AgentState
from vws.node.stocking import Stocking
from vws.node.tunnels import Tunnels
from vws.node.watch import Watch, wait
from vws.node.workspaces import Workspaces
from vws.ports import Description, Hypervisor, HypervisorError

log = logging.getLogger(__name__)

CLOCK_TOLERANCE_S = 5.0
REFUSED_PAUSE_S = 2.0


@dataclass(frozen=True)
class AgentConfig:
    """builds_at_once: workspaces created or started at the same time; min_free_mib: of disk, for the agent itself.
    fetch_limit_mbit: how fast the link fetches at most, for the service to know; 0: no limit."""

    poll_wait_s: float = 25.0
    report_every_s: float = 10.0
    look_every_s: float = 10.0
    coalesce_s: float = 0.005
    builds_at_once: int = 4
    min_free_mib: int = 256
    finish_within_s: float = 3.0
    fetch_limit_mbit: float = 0.0
    report_busy_every_s: float = 1.0


class NodeAgent:
    """One node's agent; `run` returns when it was stopped. `node`: its id.

    when_retired: called, perhaps more than once, when it could leave, instead of stopping by itself: for agents that
    share a process.
    """

    def __init__(
        self,
        node: str,
        hypervisor: Hypervisor,
        link: Link,
        state: AgentState,
        *,
        clock: NodeClock | None = None,
        config: AgentConfig | None = None,
        when_retired: Callable[[], None] | None = None,
    ) -> None:
        self.node = node
        self._when_retired = when_retired or self.stop
        self.config = config or AgentConfig()
        self._hypervisor = hypervisor
        self._link = link
        self._state = state
        self.clock = ServiceClock(clock or NodeClock(), state.clock_ahead_s())
        self.workspaces = Workspaces(
            hypervisor, self.clock, state, self._fetch, self._facts_changed,
            builds_at_once=self.config.builds_at_once, ask_keys=self._ask_keys,
        )  # fmt: skip
        self._conditions = Conditions(node, self._facts_changed)
        self._watch = Watch(
            hypervisor,
            self.workspaces,
            self._conditions,
            state.directory,
            every_s=self.config.look_every_s,
            min_free_mib=self.config.min_free_mib,
            looked=self._looked,
            changed=self._facts_changed,
        )
        self._tunnels = Tunnels(hypervisor, link, self.workspaces.order)
        self._saving = Saving(hypervisor, link, self.workspaces)
        self._stocking = Stocking(
            hypervisor.images, self._fetch_quietly, self._facts_changed,
            fetch_limit_mbit=self.config.fetch_limit_mbit, steady=self.clock.own.steady,
        )  # fmt: skip
        self._to_report = asyncio.Event()
        self._stopped = asyncio.Event()
        self._retiring_since: float | None = None
        self._instance = state.instance()
        self._incarnation = state.next_incarnation()
        self._sequence = 0

    # -------------------------------------------------------- life

    def stop(self) -> None:
        """Let go soon; workspaces go on running."""
        self._stopped.set()

    def retire(self) -> None:
        """Leave when the last workspace is gone, unless the service answers a call made after this one."""
        self._retiring_since = self.clock.own.steady()
        self._watch.look_now()

    @property
    def retired(self) -> bool:
        return self._retiring_since is not None and self.workspaces.empty

    async def run(self) -> None:
        self._saving.obey(self.workspaces.orders)
        self._stocking.obey(self.workspaces.orders)
        loops = [
            asyncio.create_task(self._for_ever(loop), name=f"{self.node} {loop.__qualname__}")
            for loop in (self._watch.run, self._pull, self._report, self._stock)
        ]
        try:
            await self._stopped.wait()
        finally:
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self._close()

    async def _for_ever(self, loop: Callable[[], Awaitable[None]]) -> None:
        """A loop that met a mistake of ours begins again: the others must not suffer, nor may ends be missed."""
        while True:
            try:
                await loop()
            except Exception:
                log.exception("%s: %s begins again", self.node, loop.__name__)
            await asyncio.sleep(1)

    async def _close(self) -> None:
        await self._tunnels.close()
        await self._saving.close()
        await self.workspaces.close(within_s=self.config.finish_within_s)
        is_empty = await self._watch.close()
        try:
            await self._hypervisor.close(tear_down=is_empty)
        except HypervisorError as error:
            log.error("%s: %s", self.node, error.reason)

    def _looked(self) -> None:
        if self.retired:
            self._when_retired()

    # -------------------------------------------------------- orders

    async def _pull(self) -> None:
        trouble = Trouble(self._link, self._conditions, "pull")
        while True:
            asked_at = self.clock.own.steady()
            try:
                kept = self.workspaces.orders
                pulled = await self._link.orders(kept.generation if kept else 0, self.config.poll_wait_s)
            except LinkError as error:
                await trouble.endure(error)
                continue
            trouble.over()
            self._learn(pulled.time, asked_at)
            if self._retiring_since is not None and asked_at > self._retiring_since:
                self._retiring_since = None
                log.info("%s: the service answers, so this node stays: it does not retire", self.node)
            reach("agent.orders.received")
            await asyncio.sleep(await self._receive(pulled))

    async def _receive(self, pulled: Pulled) -> float:
        """Obey what came; return how long to pause before asking for more."""
        # An answer with nothing new in it comes early only from a service in a hurry.
        pause_s = 0.0 if self._tunnels.serve(pulled.tunnels) else 0.05
        if pulled.orders is None:
            return pause_s
        orders, refusal = self._read(pulled.orders)
        self._conditions.tell("orders", refusal)
        if orders is None or refusal:
            return REFUSED_PAUSE_S
        if self.workspaces.orders and orders.generation == self.workspaces.orders.generation:
            return pause_s
        await self._keep(pulled.orders)
        await self._watch.prepare(orders)
        self._stocking.obey(orders)
        self.workspaces.take(orders)
        self._saving.obey(orders)
        await self._saving.sweep()
        self._facts_changed()
        return 0.0

    def _read(self, said: Any) -> tuple[NodeOrders | None, str]:
        """The orders, and why they are not obeyed; "" if they are."""
        try:
            orders = from_json(NodeOrders, said)
        except InvalidRequest as error:
            return None, f"the service's orders cannot be read ({error.problem}); is this agent of another version?"
        if orders.node != self.node:
            return None, f"refused orders for another node ({orders.node}); check this node's credentials"
        return orders, self._older(orders.generation)

    def _older(self, generation: int) -> str:
        kept = self.workspaces.orders
        if kept is None or generation >= kept.generation:
            return ""
        return (
            f"the service's orders are of generation {generation}, but {kept.generation} was seen before; they are "
            "refused. If its store was restored from a backup, remove this node and join it anew"
        )

    async def _keep(self, orders: Any) -> None:
        """On disk before they are obeyed. On a full disk they are obeyed all the same: what they remove makes room."""
        try:
            await asyncio.to_thread(self._state.keep_orders, orders)
        except OSError as error:
            self._conditions.tell(
                "keeping", f"the orders cannot be kept on disk ({error.strerror}); a restart would miss them"
            )
        else:
            self._conditions.tell("keeping", "")
        reach("agent.orders.kept")

    async def _fetch(self, sha256: str, size_bytes: int, target: Path, progress: Callable[[int], None]) -> str:
        pause_s = 0.2
        while True:
            try:
                return await self._link.fetch(sha256, size_bytes, target, progress)
            except Refused as error:
                raise HypervisorError(
                    f"the image cannot be fetched: {error.reason}", final=error.status == 404
                ) from None
            except Unreachable:
                await self._link.reachable()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)

    async def _ask_keys(self, workspace: str) -> WorkspaceKeys:
        pause_s = 0.2
        while True:
            try:
                return await self._link.keys(workspace)
            except Refused as error:
                raise HypervisorError(f"the service does not give its key: {error.reason}") from None
            except Unreachable:
                await self._link.reachable()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)

    async def _fetch_quietly(self, sha256: str, size_bytes: int, target: Path) -> str:
        return await self._fetch(sha256, size_bytes, target, lambda have: None)

    async def _stock(self) -> None:
        """Not before the hypervisor was open: what is in use, it alone knows."""
        while not self.workspaces.sighted:
            await asyncio.sleep(self.config.coalesce_s + 0.1)
        await self._stocking.run()

    # -------------------------------------------------------- clock

    def _learn(self, service_time: float, asked_at: float) -> None:
        if self.clock.learn(service_time, asked_at, self.clock.own.steady()):
            with contextlib.suppress(OSError):
                self._state.keep_clock(self.clock.ahead_s())
            self.workspaces.wake_all()
        self._conditions.tell("clock", self._clock_problem())

    def _clock_problem(self) -> str:
        ahead_s = self.clock.ahead_s()
        if abs(ahead_s) <= CLOCK_TOLERANCE_S:
            return ""
        way = "behind" if ahead_s > 0 else "ahead of"
        return (
            f"this node's clock is {abs(ahead_s):.0f} s {way} the service's; set it (by chrony or another NTP client)"
        )

    # -------------------------------------------------------- reports

    def _facts_changed(self) -> None:
        self._to_report.set()
        if self._retiring_since is not None:
            self._watch.look_now()

    async def _report(self) -> None:
        trouble = Trouble(self._link, self._conditions, "report")
        while True:
            busy, config = self._stocking.is_busy, self.config
            await wait(self._to_report, config.report_busy_every_s if busy else config.report_every_s)
            if not self._watch.described and not self._conditions.get("hypervisor"):
                self._to_report.clear()  # nothing was looked at yet, so there is nothing to say
                continue
            await asyncio.sleep(self.config.coalesce_s)
            await self._send_consoles()
            self._to_report.clear()
            cache = await self._stocking.look()
            asked_at = self.clock.own.steady()
            try:
                said = await self._link.report(self._facts(cache))
            except LinkError as error:
                self._to_report.set()
                await trouble.endure(error)
                continue
            reach("agent.report.sent")
            self._stocking.told(cache)
            trouble.over()
            self._learn(said.time, asked_at)
            self._conditions.tell("generation", self._older(said.generation))

    def _facts(self, cache: CacheContents | None) -> NodeReport:
        self._sequence += 1
        described = self._watch.described or Description(Capacity(0, 0, 0), "", "")
        return NodeReport(
            node=self.node,
            instance=self._instance,
            incarnation=self._incarnation,
            sequence=self._sequence,
            generation=self.workspaces.generation,
            at=self.clock.now(),
            capacity=described.capacity,
            hypervisor=described.hypervisor,
            hypervisor_reason=described.reason,
            version=__version__,
            problem=self._conditions.reported,
            workspaces=tuple(self.workspaces.facts.values()),
            traits=described.traits,
            cache=cache,
        )

    async def _send_consoles(self) -> None:
        """Ends of consoles go before the report that their workspaces are gone, but never hold it up for long."""
        with contextlib.suppress(TimeoutError, Unreachable, OSError):
            async with asyncio.timeout(2):
                for id in self._state.spooled_consoles():
                    if not await self._send_console(id):
                        return

    async def _send_console(self, id: str) -> bool:
        """False if the service does not listen to this node at all, so that it is kept for later."""
        try:
            await self._link.keep_console(id, self._state.spooled_console(id))
        except Refused as error:
            if error.status in (401, 403, 409):
                return False
            log.info("%s: the service does not take the end of its console's log (%s)", id, error.reason)
        self._state.drop_console(id)
        return True
