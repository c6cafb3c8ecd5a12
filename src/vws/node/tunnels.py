"""Streams between users and guests, by way of the service and this node's agent.

The service cannot reach a node, and nobody outside can reach a guest; so the
service lists who waits, the agent opens a WebSocket for each and joins it to the
guest's port (`tcp:22`) or to its console's log (`console`: the end of it, then
whatever follows; `console:tail=N`: its last N bytes and no more).

Each direction moves one piece at a time, and takes the next only when the last
one has been taken: a slow reader slows its writer, not the agent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from vws.core.deployment import WorkspaceOrder
from vws.node.link import Link, LinkError, Tunnel, TunnelRequest
from vws.ports import Hypervisor, HypervisorError, Stream

log = logging.getLogger(__name__)

NOT_FOUND = 4404
NO_ANSWER = 4502
CONSOLE_TAIL_BYTES = 64 * 1024
CONSOLE_EVERY_S = 0.3
_ANCHOR_BYTES = 1024


class Tunnels:
    def __init__(self, hypervisor: Hypervisor, link: Link, order: Callable[[str], WorkspaceOrder | None]) -> None:
        self._hypervisor = hypervisor
        self._link = link
        self._order = order
        self._open: dict[str, asyncio.Task[None]] = {}

    def serve(self, requests: Iterable[TunnelRequest]) -> bool:
        """Open what is not open yet; True if there was anything new."""
        new = [request for request in requests if request.id not in self._open]
        for request in new:
            task = asyncio.create_task(self._serve(request), name=f"tunnel {request.id}")
            self._open[request.id] = task
        return bool(new)

    async def close(self) -> None:
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, request: TunnelRequest) -> None:
        try:
            tunnel = await self._link.tunnel(request.id)
            try:
                code, reason = await self._join(tunnel, request)
            except LinkError:
                code, reason = 1000, ""
            await tunnel.close(code, reason)
        except LinkError as error:
            log.info("tunnel %s to %s: %s", request.id, request.workspace, error.reason)
        except Exception:
            log.exception("tunnel %s to %s", request.id, request.workspace)
        finally:
            del self._open[request.id]

    async def _join(self, tunnel: Tunnel, request: TunnelRequest) -> tuple[int, str]:
        """Serve until either end is done; returns the code and reason to close with."""
        order = self._order(request.workspace)
        kind, _, rest = request.target.partition(":")
        try:
            if kind == "console":
                await self._console(tunnel, request.workspace, rest)
            elif order is None:
                return NOT_FOUND, f"{request.workspace} is not on this node"
            elif kind == "tcp" and rest.isdecimal() and 0 < int(rest) < 65536:
                await _pump(tunnel, await self._hypervisor.connect(order, int(rest)))
            else:
                return NOT_FOUND, f"this node knows no target {request.target!r}"
        except HypervisorError as error:
            return NO_ANSWER, error.reason
        except OSError as error:
            return NO_ANSWER, f"the guest does not answer ({error.strerror or error})"
        return 1000, ""

    async def _console(self, tunnel: Tunnel, id: str, rest: str) -> None:
        if rest:
            number = rest.removeprefix("tail=")
            tail_bytes = int(number) if number.isdecimal() else CONSOLE_TAIL_BYTES
            tail = await self._hypervisor.console(id, tail_bytes=min(tail_bytes, 16 * CONSOLE_TAIL_BYTES))
            for at in range(0, len(tail), CONSOLE_TAIL_BYTES):
                await tunnel.send(tail[at : at + CONSOLE_TAIL_BYTES])
            return
        gone = asyncio.ensure_future(_until_end(tunnel))
        try:
            await self._follow(tunnel, id, gone)
        finally:
            gone.cancel()

    async def _follow(self, tunnel: Tunnel, id: str, gone: asyncio.Future[None]) -> None:
        before = b""
        while not gone.done():
            tail = await self._hypervisor.console(id, tail_bytes=CONSOLE_TAIL_BYTES)
            if fresh := appended(before, tail):
                await tunnel.send(fresh)
            before = tail
            await asyncio.wait([gone], timeout=CONSOLE_EVERY_S)


def appended(before: bytes, after: bytes) -> bytes:
    """What came to a log between two readings of its end."""
    if after.startswith(before):
        return after[len(before) :]
    anchor = before[-_ANCHOR_BYTES:]
    at = after.rfind(anchor)
    return after if at < 0 else after[at + len(anchor) :]


async def _until_end(tunnel: Tunnel) -> None:
    while await tunnel.receive() is not None:
        pass


async def _pump(tunnel: Tunnel, stream: Stream) -> None:
    """Both ways until one end closes."""

    async def out() -> None:
        while data := await stream.read():
            await tunnel.send(data)

    async def into() -> None:
        while (data := await tunnel.receive()) is not None:
            await stream.write(data)

    ways = [asyncio.ensure_future(out()), asyncio.ensure_future(into())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        ended = await asyncio.gather(*ways, return_exceptions=True)
        await stream.close()
    for result in ended:
        if isinstance(result, (HypervisorError, OSError)):
            raise result
