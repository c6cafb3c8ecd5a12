"""Streams between users and guests, where their two halves meet.

The service cannot reach a node, so a stream begins with a request that waits here: the node hears of it by its long
poll and opens a WebSocket of its own; from then on this process carries messages from one to the other. Each
direction takes its next message only when the last one was accepted at the far end, so a slow reader slows its
writer and nothing piles up here.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from vws.core.errors import Conflict, NotFound, Unavailable
from vws.core.site import Workspace
from vws.core.wire import TUNNEL_BEATS
from vws.frontends.rest.wakeups import Wakeups

TUNNELS_MAX = 1000
# So that nobody can lock the others out.
OWNER_TUNNELS_MAX = 200
# An answer that told a node of a tunnel may have been lost: it is told again after this time.
TELL_AGAIN_S = 3.0
NORMAL, UNSUPPORTED, TOO_BIG, FAILED = 1000, 1003, 1009, 1011
NO_ANSWER = 4504
# Of a node that says now and then that it lives, nothing for so long means that it does not.
SILENT_S = 60.0
_REASON_BYTES_MAX = 123
# Codes that only an API shows and that never travel: closed without a code, or without a farewell.
_UNSENDABLE = {1005: NORMAL, 1006: FAILED, 1015: FAILED}


@dataclass(eq=False)
class Tunnel:
    """target: `tcp:PORT` or `console:tail=BYTES`. taken: its node comes; agent: the node's end, once it can be used;
    beats: it says now and then that it lives (core/wire.py)."""

    id: str
    node: str
    workspace: str
    target: str
    owner: str
    told_at: float | None = None
    taken: bool = False
    agent: WebSocket | None = None
    beats: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Tunnels:
    """Belongs to the loop: none of its methods may be called from a thread."""

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups = wakeups
        self._open: dict[str, Tunnel] = {}

    def count(self) -> int:
        return len(self._open)

    # ------------------------------------------------------------ the user's end

    @contextmanager
    def open(self, workspace: Workspace, target: str) -> Iterator[Tunnel]:
        """A tunnel that waits for its node; it is over when the context ends. Raises Unavailable if there are many."""
        if len(self._open) >= TUNNELS_MAX:
            raise Unavailable(
                f"{TUNNELS_MAX} tunnels are open", possible="the same again when others have closed theirs"
            )
        if sum(t.owner == workspace.owner for t in self._open.values()) >= OWNER_TUNNELS_MAX:
            raise Unavailable(
                f"{OWNER_TUNNELS_MAX} tunnels to workspaces of {workspace.owner} are open",
                possible="the same again when some of them are closed",
            )
        tunnel = Tunnel("tun-" + secrets.token_hex(12), workspace.node, workspace.id, target, workspace.owner)
        self._open[tunnel.id] = tunnel
        self._wakeups.wake(workspace.node)
        try:
            yield tunnel
        finally:
            del self._open[tunnel.id]
            tunnel.over.set()

    async def agent(self, tunnel: Tunnel, timeout_s: float) -> WebSocket | None:
        """The node's end; None if it does not come in time or the service stops."""
        with self._wakeups.waiting(tunnel.id) as woken:
            if tunnel.agent is None and not self._wakeups.stopping:
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), timeout_s)
        return tunnel.agent

    # ------------------------------------------------------------ the node's end

    def has_news(self, node: str) -> bool:
        return any(self._is_news(tunnel, node) for tunnel in self._open.values())

    def tell(self, node: str) -> list[dict[str, str]]:
        """What waits for this node and was not told yet, or long enough ago."""
        news = [tunnel for tunnel in self._open.values() if self._is_news(tunnel, node)]
        for tunnel in news:
            tunnel.told_at = time.monotonic()
        return [{"id": t.id, "workspace": t.workspace, "target": t.target} for t in news]

    def _is_news(self, tunnel: Tunnel, node: str) -> bool:
        if tunnel.node != node or tunnel.taken:
            return False
        return tunnel.told_at is None or time.monotonic() - tunnel.told_at > TELL_AGAIN_S

    def take(self, id: str, node: str) -> Tunnel:
        """The tunnel, for its node alone; NotFound if it is not this node's or is over, Conflict if it was taken."""
        tunnel = self._open.get(id)
        if tunnel is None or tunnel.node != node:
            raise NotFound("nobody waits at this tunnel any more", field="tunnel", asked=id)
        if tunnel.taken:
            raise Conflict("this tunnel was taken before", field="tunnel", asked=id)
        tunnel.taken = True
        return tunnel

    async def join(self, tunnel: Tunnel, websocket: WebSocket) -> None:
        """Accept its node's end: not before may anything be sent there."""
        tunnel.beats = TUNNEL_BEATS in websocket.scope.get("subprotocols", ())
        await websocket.accept(subprotocol=TUNNEL_BEATS if tunnel.beats else None)
        tunnel.agent = websocket
        self._wakeups.wake(tunnel.id)


# ---------------------------------------------------------------- carrying


async def pump(user: WebSocket, agent: WebSocket, *, beats: bool = False) -> None:
    """Carry messages both ways until either end closes; then close the other with the same code and reason.

    beats: the agent's end is heard of every now and then, else it is gone.
    """
    from_node = partial(_heard, agent) if beats else agent.receive
    ways = [asyncio.ensure_future(way) for way in (_carry(user.receive, agent), _carry(from_node, user))]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        code, reason = next(iter(done)).result()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    await close(user, code, reason)
    await close(agent, code, reason)


async def _carry(receive: Callable[[], Awaitable[Message]], target: WebSocket) -> tuple[int, str]:
    """Returns the code and reason to close with."""
    try:
        while (data := await receive())["type"] == "websocket.receive":
            if data.get("bytes") is None:
                return UNSUPPORTED, "only binary messages are carried"
            await target.send_bytes(data["bytes"])
    except _Silent:
        return NO_ANSWER, f"its node has not been heard from for {SILENT_S:g} s"
    except (WebSocketDisconnect, RuntimeError, OSError):
        return FAILED, "the far end is gone"  # found while sending; whoever receives there knows the code
    code = data.get("code") or NORMAL
    return _UNSENDABLE.get(code, code), data.get("reason") or ""


class _Silent(Exception):
    pass


async def _heard(agent: WebSocket) -> Message:
    """The next of a node's messages that is no beat. Raises _Silent if not even one of these comes."""
    while True:
        try:
            async with asyncio.timeout(SILENT_S):
                message = await agent.receive()
        except TimeoutError:
            raise _Silent from None
        if message["type"] != "websocket.receive" or message.get("bytes") != b"":
            return message


async def collect(agent: WebSocket, bytes_max: int) -> bytes | None:
    """All that the node sends until it closes, at most `bytes_max`; None if it closes with an error."""
    data = bytearray()
    while (message := await agent.receive())["type"] == "websocket.receive":
        data += message.get("bytes") or b""
        if len(data) >= bytes_max:
            await close(agent)
            break
    else:
        if message.get("code") not in (NORMAL, 1005):
            return None
    return bytes(data[-bytes_max:])


async def close(websocket: WebSocket, code: int = NORMAL, reason: str = "") -> None:
    if WebSocketState.DISCONNECTED in (websocket.client_state, websocket.application_state):
        return
    short = reason.encode()[:_REASON_BYTES_MAX].decode("utf-8", "ignore")
    with suppress(WebSocketDisconnect, RuntimeError, OSError):
        await websocket.close(code, short)
