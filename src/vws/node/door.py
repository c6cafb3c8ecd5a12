"""The way from guests to the service: 169.254.169.254:443 in each of the node's networks.

An isolated network has no way out, and needs none for this: the agent listens
inside (a socket belongs to the network of the thread that opened it, namespace.py)
and joins each connection to the service's address, which it reaches itself. TLS
and the guest's token go through unread.

Guests are strangers, so all is bounded: connections altogether, of one network and
of one guest, and how long one may stand still. Each direction moves one piece at a
time and takes the next only when the last one has been taken: a slow reader slows
its writer, not the agent. Whoever finds the door shut tries again; when the agent
is started anew it opens it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from vws.node.namespace import Machine

log = logging.getLogger(__name__)

ADDRESS, PORT = "169.254.169.254", 443
CONNECTIONS_MAX = 1024
OF_NETWORK_MAX = 512
OF_GUEST_MAX = 16
# Longer than the service holds back an answer (300 s).
IDLE_LIMIT_S = 420.0
CONNECT_WITHIN_S = 10.0
UNHEARD_LIMIT_S = 30.0
_PIECE_BYTES = 64 << 10
_BACKLOG = 128


@dataclass(frozen=True)
class Doorway:
    """Where to listen."""

    place: Machine
    address: str
    port: int


class Door:
    """All doorways of a node to `service` (host, port). It lives in one event loop."""

    def __init__(self, service: tuple[str, int]) -> None:
        self._service = service
        self._open: dict[str, _Listener] = {}
        self._changing = asyncio.Lock()

    async def open(self, doorways: Mapping[str, Doorway]) -> None:
        """Listen at just these, by network; those that are open stay so. One that cannot be opened is logged and left
        for the next time."""
        async with self._changing:
            wanted = {name: (each, each.place.inode()) for name, each in doorways.items()}
            for name in [name for name, it in self._open.items() if it.where != wanted.get(name)]:
                await self._open.pop(name).close()
            for name, (doorway, inode) in wanted.items():
                if name not in self._open:
                    with contextlib.suppress(OSError):
                        self._open[name] = await self._listen(name, doorway, inode)

    async def _listen(self, name: str, doorway: Doorway, inode: int | None) -> _Listener:
        try:
            sock = await asyncio.wrap_future(doorway.place.inside(lambda: _listening(doorway.address, doorway.port)))
        except OSError as error:
            log.error("the door to the service cannot be opened in %s: %s", name or "the node's network", error)
            raise
        listener = _Listener((doorway, inode), self)
        await listener.begin(sock)
        return listener

    def rouse(self, network: str, address: str) -> None:
        """Reset a guest's connections: it slept, and might wait for long for what was sent to it meanwhile."""
        if network in self._open:
            self._open[network].rouse(address)

    async def close(self) -> None:
        await self.open({})

    @property
    def crowd(self) -> int:
        """Connections altogether."""
        return sum(len(listener.connections) for listener in self._open.values())

    async def to_service(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """OSError, also if it takes too long."""
        async with asyncio.timeout(CONNECT_WITHIN_S):
            return await asyncio.open_connection(*self._service, limit=_PIECE_BYTES)


class _Listener:
    """One doorway that is open. where: it, and the inode of its network."""

    def __init__(self, where: tuple[Doorway, int | None], door: Door) -> None:
        self.where = where
        self.connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._door = door
        self._of: dict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._server: asyncio.Server | None = None

    async def begin(self, sock: socket.socket) -> None:
        self._server = await asyncio.start_server(self._admit, sock=sock, limit=_PIECE_BYTES)

    async def close(self) -> None:
        """Ends its connections too: an open one would keep a network that is gone in being."""
        if self._server:
            self._server.close()
        tasks = list(self.connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest = str((writer.get_extra_info("peername") or ("",))[0])
        full = self._door.crowd >= CONNECTIONS_MAX or len(self.connections) >= OF_NETWORK_MAX
        if full or len(self._of.get(guest, ())) >= OF_GUEST_MAX:
            writer.transport.abort()
            return
        # A guest that is paused takes nothing: what is still there when it goes on was said to nobody.
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNHEARD_LIMIT_S * 1000))
        task = asyncio.ensure_future(self._serve(reader, writer))
        self.connections[task] = writer
        self._of[guest].add(task)
        task.add_done_callback(lambda done: self._dismiss(guest, done))

    def _dismiss(self, guest: str, done: asyncio.Task[None]) -> None:
        del self.connections[done]
        self._of[guest].discard(done)
        if not self._of[guest]:
            del self._of[guest]

    def rouse(self, guest: str) -> None:
        for task in self._of.get(guest, ()):
            # At once, and not after what was sent while nobody listened, which is tried again ever more seldom.
            sock = self.connections[task].get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await self._door.to_service()
        except OSError as error:
            log.info("a guest cannot be joined to the service: %s", error or "it does not answer")
            writer.transport.abort()
            return
        except BaseException:
            writer.transport.abort()
            raise
        await _join((reader, writer), there)


def _listening(address: str, port: int) -> socket.socket:
    """In the thread that is in the network."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _join(one: _End, other: _End) -> None:
    """Until both directions have ended, one has broken, or nothing has moved for too long."""
    try:
        async with asyncio.timeout(IDLE_LIMIT_S) as limit:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_carry(one[0], other[1], limit))
                ways.create_task(_carry(other[0], one[1], limit))
            for _, writer in (one, other):
                writer.close()
                await writer.wait_closed()
    except* OSError:
        pass  # either end has gone, or might as well have
    finally:
        for _, writer in (one, other):
            writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: asyncio.Timeout) -> None:
    while data := await reader.read(_PIECE_BYTES):
        writer.write(data)
        await writer.drain()
        limit.reschedule(asyncio.get_running_loop().time() + IDLE_LIMIT_S)
    writer.write_eof()
