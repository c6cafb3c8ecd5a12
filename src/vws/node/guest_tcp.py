"""TCP to guests, from a network that the agent is not part of.

The socket is opened by the thread that lives in the node's network
(namespace.py) and used by the event loop like any other.
"""

from __future__ import annotations

import asyncio
import socket

from vws.node.namespace import Machine
from vws.ports import HypervisorError

CONNECT_WITHIN_S = 10.0
# Asking is cheap while nobody answers. A guest that has accepted is at work on the banner, and to leave and ask again
# would only make it begin anew.
LOOK_WITHIN_S = 0.3
BANNER_WITHIN_S = 2.0
CLOSE_WITHIN_S = 5.0
# A guest that was destroyed or has hung says no farewell. One that is paused for longer loses its connections.
KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 20, socket.TCP_KEEPCNT: 6}


class TcpStream:
    """A Stream on a connected socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, size: int = 65536) -> bytes:
        try:
            return await self._reader.read(size)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Raises HypervisorError once the guest has closed the connection."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise HypervisorError(f"the guest closed the connection ({error.strerror or error})") from None

    async def close(self) -> None:
        """What the guest has not taken within a moment, it does not get."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()
        except OSError:
            pass


async def connect(place: Machine, address: str, port: int, within_s: float = CONNECT_WITHIN_S) -> TcpStream:
    """Raises HypervisorError if nothing answers there in time."""
    sock = await _connected(place, address, port, within_s)
    reader, writer = await asyncio.open_connection(sock=sock)
    return TcpStream(reader, writer)


async def _connected(place: Machine, address: str, port: int, within_s: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        sock = await asyncio.wrap_future(place.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)))
    except (OSError, RuntimeError) as error:
        raise HypervisorError(f"the node's network cannot be entered: {error}") from None
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        await asyncio.wait_for(loop.sock_connect(sock, (address, port)), within_s)
    except TimeoutError:
        sock.close()
        raise HypervisorError(f"port {port} of the guest at {address} did not answer within {within_s:g} s") from None
    except OSError as error:
        sock.close()
        raise HypervisorError(f"port {port} of the guest at {address}: {error.strerror or error}") from None
    except BaseException:
        sock.close()
        raise
    return sock


async def ssh_answers(place: Machine, address: str) -> bool:
    """Does an SSH server say its name there, within a moment?"""
    try:
        sock = await _connected(place, address, 22, LOOK_WITHIN_S)
    except HypervisorError:
        return False
    try:
        banner = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 64), BANNER_WITHIN_S)
    except (TimeoutError, OSError):
        return False
    finally:
        sock.close()
    return banner.startswith(b"SSH-")
