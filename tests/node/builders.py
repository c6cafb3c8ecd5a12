"""Values and stand-ins that the node's tests share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from vws.core.deployment import (
    NodeOrders,
    NodeReport,
    Quiesced,
    WorkspaceFact,
    WorkspaceKeys,
    WorkspaceOrder,
)
from vws.core.lifecycle import Desired, Observation
from vws.core.wire import to_json
from vws.node.agent import AgentConfig, NodeAgent
from vws.node.clock import NodeClock
from vws.node.config import FakeConfig
from vws.node.fake import FakeHypervisor
from vws.node.link import Acknowledged, Pulled, Refused, Tunnel, TunnelRequest, Unreachable
from vws.node.state import AgentState
from vws.ports import Hypervisor, Instance

NODE = "nod-1"


def order(id: str = "wsp-1", **settings: Any) -> WorkspaceOrder:
    base = WorkspaceOrder(
        id=id,
        name=id.replace("wsp", "ws"),
        lease="lse-1",
        desired=Desired.RUN,
        boots=1,
        may_create=True,
        end=int(time.time()) + 3600,
        image="img-1",
        files=(),
        boot="direct",
        cmdline="",
        user="root",
        ready="ssh",
        boot_limit_s=300,
        cpus=1,
        cpus_defined=1,
        memory_mib=128,
        memory_defined_mib=256,
        disk_mib=1024,
        mac="52:54:00:00:00:01",
        address="10.64.0.10",
        ssh_keys=("ssh-ed25519 AAAA user",),
    )
    return replace(base, **settings)


def orders(*workspaces: WorkspaceOrder, generation: int = 1, node: str = NODE) -> NodeOrders:
    return NodeOrders(node, generation, "10.64.0.0/24", "10.64.0.1", workspaces, time.time())


def instance(id: str = "wsp-1", state: Observation = Observation.RUNNING, **settings: Any) -> Instance:
    base = Instance(id=id, state=state, boots=1, created=True, end=1000, memory_mib=128, memory_defined_mib=256)
    return replace(base, **settings)


class OwnClock(NodeClock):
    """A node whose wall clock is `ahead_s` ahead of true time."""

    def __init__(self, ahead_s: float = 0.0) -> None:
        self.ahead_s = ahead_s

    def wall(self) -> float:
        return time.time() + self.ahead_s


class FakeTunnel:
    """The service's end is `sent`, `to_send`, `closed`."""

    def __init__(self) -> None:
        self.sent = b""
        self.to_send: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.closed: tuple[int, str] | None = None

    async def send(self, data: bytes) -> None:
        self.sent += data

    async def receive(self) -> bytes | None:
        return await self.to_send.get()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = (code, reason)


class FakeLink:
    """A service in this process: what it orders, what it heard, and the troubles it can have."""

    def __init__(self, first: NodeOrders | None = None) -> None:
        self.ordered = first
        self.reports: list[NodeReport] = []
        self.consoles: dict[str, bytes] = {}
        self.log: list[str] = []
        self.away = False
        self.refusal: Refused | None = None
        self.blobs: dict[str, bytes] = {}
        self.tunnels: dict[str, FakeTunnel] = {}
        self.waiting: tuple[TunnelRequest, ...] = ()
        self.handed_in: dict[str, bytes] = {}
        self.given_up: dict[str, str] = {}
        self.given: dict[str, WorkspaceKeys] = {}
        self.quiesced: dict[str, Quiesced] = {}
        self.repeat = False
        self.calls = 0
        self.ahead_s = 0.0
        self._changed = asyncio.Event()

    def now(self) -> float:
        return time.time() + self.ahead_s

    def end_in(self, seconds: float) -> int:
        """Set this service's clock so that a whole second, by which leases end, is that far ahead."""
        end = int(time.time() + seconds) + 1
        self.ahead_s = end - seconds - time.time()
        return end

    def order(self, new: NodeOrders) -> None:
        self.ordered = new
        self._changed.set()

    def request_tunnel(self, request: TunnelRequest) -> FakeTunnel:
        tunnel = self.tunnels[request.id] = FakeTunnel()
        self.waiting += (request,)
        self._changed.set()
        return tunnel

    def leave(self) -> None:
        self.away = True
        self._changed.set()

    def come_back(self) -> None:
        self.away = False

    async def orders(self, after: int, wait_s: float) -> Pulled:
        deadline = time.monotonic() + wait_s
        while True:
            self._check()
            new = self.ordered if self.ordered and (self.repeat or self.ordered.generation != after) else None
            if new or self.waiting or time.monotonic() >= deadline:
                return Pulled(to_json(new), self.waiting, self.now())
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await self._changed.wait()

    async def keys(self, workspace: str) -> WorkspaceKeys:
        self._check()
        self.log.append(f"keys {workspace}")
        if workspace not in self.given:
            raise Refused(409, "conflict", "the site's key is missing")
        return self.given[workspace]

    async def report(self, report: NodeReport) -> Acknowledged:
        self._check()
        self.reports.append(report)
        self.log.append("report")
        return Acknowledged(self.ordered.generation if self.ordered else 0, self.now())

    async def keep_console(self, workspace: str, data: bytes) -> None:
        self._check()
        self.consoles[workspace] = data
        self.log.append(f"console {workspace}")

    async def fetch(self, sha256: str, size_bytes: int, target: Path, progress: Callable[[int], None]) -> str:
        self._check()
        if sha256 not in self.blobs:
            raise Refused(404, "not-found", "there is no such file")
        target.write_bytes(self.blobs[sha256])
        progress(size_bytes)
        return hashlib.sha256(self.blobs[sha256]).hexdigest()

    async def hand_in(self, capture: str, delta: Path, quiesced: Quiesced) -> None:
        self._check()
        self.quiesced[capture] = quiesced
        self.handed_in[capture] = delta.read_bytes()

    async def give_up(self, capture: str, reason: str) -> None:
        self._check()
        self.given_up[capture] = reason

    async def tunnel(self, id: str) -> Tunnel:
        self._check()
        self.waiting = tuple(request for request in self.waiting if request.id != id)
        return self.tunnels[id]

    async def reachable(self) -> None:
        while self.away:
            await asyncio.sleep(0.02)

    def _check(self) -> None:
        self.calls += 1
        if self.away:
            raise Unreachable("the service cannot be reached (away)")
        if self.refusal:
            raise self.refusal

    # -------------------------------------------------------- what was heard

    def fact(self, id: str = "wsp-1") -> WorkspaceFact | None:
        """What the last report says of a workspace."""
        return next((f for f in self.reports[-1].workspaces if f.id == id), None) if self.reports else None

    def states(self, id: str = "wsp-1") -> list[str]:
        """All states that were reported of a workspace, in order, without repeats; "-" where a report left it out."""
        said: list[str] = []
        for report in self.reports:
            state = next((str(f.state) for f in report.workspaces if f.id == id), "-")
            if not said or said[-1] != state:
                said.append(state)
        return said


class Node:
    """An agent over a fake hypervisor and a fake service, as a context manager. `hypervisor` may be another."""

    def __init__(
        self,
        directory: Path,
        link: FakeLink,
        *,
        fake: FakeConfig | None = None,
        clock: NodeClock | None = None,
        hypervisor: Hypervisor | None = None,
        **settings: Any,
    ) -> None:
        self.link = link
        self.fake = FakeHypervisor(directory / "fake", fake or FakeConfig.instant())
        self.state = AgentState(directory / "agent", durable=False)
        config = AgentConfig(**({"look_every_s": 0.5, "report_every_s": 0.5, "finish_within_s": 0.5} | settings))
        self.agent = NodeAgent(NODE, hypervisor or self.fake, link, self.state, clock=clock, config=config)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Node:
        self._task = asyncio.create_task(self.agent.run())
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.agent.stop()
        await self.gone()

    async def gone(self, within_s: float = 5.0) -> None:
        assert self._task
        await asyncio.wait_for(self._task, within_s)

    async def kill(self) -> None:
        """As abruptly as one process allows: nothing is closed, nothing more is written."""
        assert self._task
        loop_tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        self.agent.workspaces._closed = True
        self.state.keep_memories = lambda *_, **__: None  # type: ignore[method-assign]
        for task in loop_tasks:
            task.cancel()
        await asyncio.gather(*loop_tasks, return_exceptions=True)

    async def until_reported(self, state: Observation | None, id: str = "wsp-1", within_s: float = 5.0) -> None:
        def so() -> bool:
            fact = self.link.fact(id)
            return fact is None if state is None else fact is not None and fact.state is state

        await until(lambda: bool(self.link.reports) and so(), within_s, lambda: str(self.link.reports[-1:]))


async def until(so: Callable[[], bool], within_s: float = 5.0, said: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + within_s
    while not so():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s; {said()}")
        await asyncio.sleep(0.005)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run
