"""The node agent: pulls orders, keeps them, obeys them, reports facts.

Three loops run side by side, each of which outlives whatever the others meet:

- *watch* keeps the hypervisor open, looks at what is there every few seconds
  and whenever the hypervisor says that something happened;
- *pull* long-polls for orders, puts them on disk, then hands them to
  `Workspaces`, which does the work (workspaces.py);
- *report* sends the facts when they changed, and every few seconds: one report
  at a time, always the latest, until it is acknowledged;
- *listen* takes the hypervisor's own news.

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
import random
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vws import __version__
from vws.core.deployment import NodeOrders, NodeReport
from vws.core.errors import InvalidRequest
from vws.core.site import Capacity
from vws.core.wire import from_json
from vws.faultpoints import reach
from vws.node.clock import NodeClock, ServiceClock
from vws.node.link import Link, LinkError, Pulled, Refused, Unreachable
from vws.node.state import AgentState
from vws.node.tunnels import Tunnels
from vws.node.workspaces import Workspaces
from vws.ports import Hypervisor, HypervisorError

log = logging.getLogger(__name__)

CLOCK_TOLERANCE_S = 5.0


@dataclass(frozen=True)
class AgentConfig:
    """builds_at_once: workspaces created or started at the same time; min_free_mib: of disk, for the agent itself."""

    poll_wait_s: float = 25.0
    report_every_s: float = 10.0
    look_every_s: float = 10.0
    coalesce_s: float = 0.005
    builds_at_once: int = 4
    min_free_mib: int = 256
    finish_within_s: float = 3.0


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
            hypervisor, self.clock, state, self._fetch, self._facts_changed, builds_at_once=self.config.builds_at_once
        )
        self._tunnels = Tunnels(hypervisor, link, self.workspaces.order)
        self._conditions: dict[str, str] = {}
        self._capacity = Capacity(0, 0, 0)
        self._hypervisor_name = self._hypervisor_reason = ""
        self._opened_for: tuple[str, str] | None = None
        self._open = False
        self._listener: asyncio.Task[None] | None = None
        self._to_report = asyncio.Event()
        self._to_watch = asyncio.Event()
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
        self._to_watch.set()

    @property
    def retired(self) -> bool:
        return self._retiring_since is not None and self.workspaces.empty

    async def run(self) -> None:
        loops = [
            asyncio.create_task(self._for_ever(loop), name=f"{self.node} {loop.__name__}")
            for loop in (self._watch, self._pull, self._report)
        ]
        try:
            await self._stopped.wait()
        finally:
            if self._listener:
                loops.append(self._listener)
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
        await self.workspaces.close(within_s=self.config.finish_within_s)
        try:
            empty = not await self._hypervisor.instances()
        except HypervisorError:
            empty = False
        try:
            await self._hypervisor.close(tear_down=empty)
        except HypervisorError as error:
            log.error("%s: %s", self.node, error.reason)

    def _condition(self, of: str, problem: str) -> None:
        """Log how things stand with `of` when that changes, once; "" is well. Problems are reported too."""
        before = self._conditions.get(of, "")
        if problem == before:
            return
        self._conditions[of] = problem
        if problem:
            log.warning("%s: %s", self.node, problem)
        else:
            log.info("%s: well again: %s", self.node, before)
        if of in _REPORTED:
            self._facts_changed()

    # -------------------------------------------------------- the hypervisor

    async def _watch(self) -> None:
        trouble_s = 0.5
        while True:
            self._to_watch.clear()
            try:
                await self._open_hypervisor()
                await self._look_around()
                pause_s, trouble_s = self.config.look_every_s, 0.5
            except HypervisorError as error:
                self._lose_sight(error.reason)
                pause_s = trouble_s = min(2 * trouble_s, 10.0)
            if self.retired:
                self._when_retired()
            await _wait(self._to_watch, pause_s)

    async def _open_hypervisor(self) -> None:
        orders = self.workspaces.orders
        network = (orders.subnet, orders.gateway) if orders else None
        if self._open and network == self._opened_for:
            return
        if self._listener:
            self._listener.cancel()
        await self._hypervisor.open(orders)
        self._open, self._opened_for = True, network
        self._listener = asyncio.create_task(self._listen(), name=f"{self.node} listens")

    def _lose_sight(self, reason: str) -> None:
        self._open = False
        self._condition("hypervisor", f"the hypervisor cannot be used: {reason}")

    async def _look_around(self) -> None:
        await self.workspaces.look()
        described = await self._hypervisor.describe()
        if described != (self._capacity, self._hypervisor_name, self._hypervisor_reason):
            self._capacity, self._hypervisor_name, self._hypervisor_reason = described
            self._facts_changed()
        self._condition("hypervisor", "")
        self._condition("disk", self._disk_problem())
        self.workspaces.wake_all()

    def _disk_problem(self) -> str:
        free_mib = shutil.disk_usage(self._state.directory).free >> 20
        if free_mib >= self.config.min_free_mib:
            return ""
        # Rounded, or each report would tell another number.
        return f"less than {self.config.min_free_mib} MiB are free on the disk of {self._state.directory}; make room"

    async def _listen(self) -> None:
        """News of what happened unasked; a look tells what it was. Ends with the connection."""
        try:
            async for _ in self._hypervisor.changes():
                await self.workspaces.look()
            reason = "it closed the connection"
        except HypervisorError as error:
            reason = error.reason
        self._lose_sight(reason)
        await asyncio.sleep(0.5)  # an open that succeeds only to fail again must not spin
        self._to_watch.set()

    # -------------------------------------------------------- orders

    async def _pull(self) -> None:
        trouble = _Trouble(self, "pull")
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
            reach("agent.orders.received")
            if not await self._receive(pulled):
                # Nothing new though it answered: a tunnel still being opened, or a service in a hurry.
                await asyncio.sleep(0.05)

    async def _receive(self, pulled: Pulled) -> bool:
        """Obey what came; True if any of it was new."""
        new = self._tunnels.serve(pulled.tunnels)
        if pulled.orders is None:
            return new
        try:
            orders = from_json(NodeOrders, pulled.orders)
        except InvalidRequest as error:
            self._condition("orders", f"the service's orders cannot be read ({error.problem}); is this agent too old?")
            return new
        refusal = self._refusal(orders)
        self._condition("orders", refusal)
        kept = self.workspaces.orders
        if refusal or (kept and orders.generation == kept.generation):
            return new
        await self._keep(pulled.orders)
        self.workspaces.take(orders)
        if (orders.subnet, orders.gateway) != self._opened_for:
            self._to_watch.set()
        self._facts_changed()
        return True

    def _refusal(self, orders: NodeOrders) -> str:
        """Why these orders are not obeyed; "" if they are."""
        if orders.node != self.node:
            return f"refused orders for another node ({orders.node}); check the site's credentials for this node"
        return self._older(orders.generation)

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
            self._condition(
                "keeping", f"the orders cannot be kept on disk ({error.strerror}); a restart would miss them"
            )
        else:
            self._condition("keeping", "")
        reach("agent.orders.kept")

    async def _fetch(self, sha256: str, size_bytes: int, target: Path, progress: Callable[[int], None]) -> None:
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
            except OSError as error:
                raise HypervisorError(f"the image cannot be written to the node's disk ({error.strerror})") from None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)

    # -------------------------------------------------------- clock

    def _learn(self, service_time: float, asked_at: float) -> None:
        if self.clock.learn(service_time, asked_at, self.clock.own.steady()):
            with contextlib.suppress(OSError):
                self._state.keep_clock(self.clock.ahead_s())
            self.workspaces.wake_all()
        self._condition("clock", self._clock_problem())

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
            self._to_watch.set()

    async def _report(self) -> None:
        trouble = _Trouble(self, "report")
        while True:
            if not self._hypervisor_name and not self._conditions.get("hypervisor"):
                await asyncio.sleep(0.05)  # nothing was looked at yet, so there is nothing to say
                continue
            await _wait(self._to_report, self.config.report_every_s)
            await asyncio.sleep(self.config.coalesce_s)
            await self._send_consoles()
            self._to_report.clear()
            asked_at = self.clock.own.steady()
            try:
                said = await self._link.report(self._facts())
            except LinkError as error:
                self._to_report.set()
                await trouble.endure(error)
                continue
            reach("agent.report.sent")
            trouble.over()
            self._learn(said.time, asked_at)
            self._condition("orders", self._older(said.generation))

    def _facts(self) -> NodeReport:
        self._sequence += 1
        return NodeReport(
            node=self.node,
            instance=self._instance,
            incarnation=self._incarnation,
            sequence=self._sequence,
            generation=self.workspaces.generation,
            at=self.clock.now(),
            capacity=self._capacity,
            hypervisor=self._hypervisor_name,
            hypervisor_reason=self._hypervisor_reason,
            version=__version__,
            problem="; ".join(p for of in _REPORTED if (p := self._conditions.get(of))),
            workspaces=tuple(self.workspaces.facts.values()),
        )

    async def _send_consoles(self) -> None:
        """Ends of consoles go before the report that their workspaces are gone, but never hold it up for long."""
        with contextlib.suppress(TimeoutError, Unreachable, OSError):
            async with asyncio.timeout(2):
                for id in self._state.spooled_consoles():
                    with contextlib.suppress(Refused):  # the service knows it no more: nobody will ask for it
                        await self._link.keep_console(id, self._state.spooled_console(id))
                    self._state.drop_console(id)


_REPORTED = ("hypervisor", "disk", "clock", "orders", "keeping")


async def _wait(event: asyncio.Event, at_most_s: float) -> None:
    # Not asyncio.wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await event.wait()


class _Trouble:
    """How one loop gets through refusals and absences: slowly, and saying so once."""

    def __init__(self, agent: NodeAgent, doing: str) -> None:
        self._agent = agent
        self._doing = doing
        self._times = 0

    def over(self) -> None:
        self._times = 0
        self._agent._condition(self._doing, "")

    async def endure(self, error: LinkError) -> None:
        self._times += 1
        if isinstance(error, Refused):
            self._agent._condition(self._doing, _advice(error))
            await asyncio.sleep(min(2.0**self._times, 60.0) * random.uniform(0.8, 1.0))
            return
        await self._agent._link.reachable()  # the link says once that it is away
        # Somebody listens. The first try again is at once; what fails then is no mere restart of the service.
        if self._times > 1:
            await asyncio.sleep(min(0.1 * 2.0**self._times, 10.0) * random.uniform(0.5, 1.0))


def _advice(error: Refused) -> str:
    if error.status in (401, 403):
        return (
            f"the service does not accept this node ({error.reason}); it takes no new orders and goes on enforcing "
            "the ends it knows. If the node was removed from the site, stop its agent; else join it anew"
        )
    if error.status == 409:
        return (
            f"the service refuses this agent ({error.reason}); another agent seems to run with this node's "
            "credentials: stop one of them"
        )
    return f"the service refused ({error.status}): {error.reason}"
