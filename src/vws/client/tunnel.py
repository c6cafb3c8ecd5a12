"""A byte stream to a guest, over a WebSocket that the service joins to one of the guest's node.

The connection has a thread of its own with an event loop, and whoever reads or writes asks that: a TLS connection of
Python's breaks, rarely, when one thread reads from it while another writes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar

from vws.client.connection import Connection
from vws.client.errors import ApiError, ConnectionFailed, members_of

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

TIMEOUT_S = 20.0
# Without an answer to a ping for so long the site is gone; what waits in between for a slow guest takes its time.
PONG_WITHIN_S = 120.0
CLOSE_WITHIN_S = 5.0
LOOK_AGAIN_S = 5.0
MESSAGE_BYTES_MAX = 16 * 1024  # receivers keep a number of messages in memory

T = TypeVar("T")


class Tunnel:
    """A byte stream to a guest. One thread may read while another writes."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._loop, self._over = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="vws-tunnel", daemon=True)
        self._thread.start()
        try:
            self._socket = self._have_done(_connected(connection, path))
        except BaseException:
            self._stop()
            raise

    def read(self) -> bytes:
        """The next bytes; b"" at the end. ConnectionFailed if the site or the node broke it off, saying why."""
        from websockets.exceptions import ConnectionClosed

        try:
            data = self._have_done(self._socket.recv())
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code >= 4000:
                raise ConnectionFailed(closed.rcvd.reason or "the tunnel broke off", code="tunnel-closed") from None
            return b""
        except _Ended:
            return b""
        return data.encode() if isinstance(data, str) else data

    def write(self, data: bytes) -> None:
        """Returns when there is room for more; does nothing after the end."""
        from websockets.exceptions import ConnectionClosed

        try:
            for start in range(0, len(data), MESSAGE_BYTES_MAX):
                self._have_done(self._socket.send(data[start : start + MESSAGE_BYTES_MAX]))
        except (ConnectionClosed, _Ended):
            return

    recv, send = read, write

    def close(self) -> None:
        """More than once does no harm, from two threads at once neither."""
        try:
            self._have_done(self._socket.close())
        except _Ended:
            return
        self._stop()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._until_over())
        finally:
            self._loop.close()

    async def _until_over(self) -> None:
        await self._over.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _stop(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._over.set)
        except RuntimeError:
            pass  # the loop is closed: another thread was first

    def _have_done(self, work: Coroutine[Any, Any, T]) -> T:
        """What the connection's thread makes of it; _Ended if that is no more."""
        try:
            asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise _Ended from None
        while True:
            try:
                return asked.result(LOOK_AGAIN_S)
            except CancelledError:
                raise _Ended from None
            except TimeoutError:
                if asked.done():
                    raise
                if not self._thread.is_alive():
                    raise _Ended from None


class _Ended(Exception):
    """The tunnel was closed here."""


async def _connected(connection: Connection, path: str) -> ClientConnection:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

    try:
        return await connect(
            "ws" + connection.url.removeprefix("http") + path,
            ssl=connection.trust(),
            additional_headers=connection.headers,
            compression=None,
            proxy=None,
            open_timeout=TIMEOUT_S,
            ping_timeout=PONG_WITHIN_S,
            close_timeout=CLOSE_WITHIN_S,
            max_size=None,
        )
    except InvalidStatus as refused:
        raise ApiError(refused.response.status_code, members_of(bytes(refused.response.body or b""))) from None
    except (OSError, ValueError, InvalidHandshake, InvalidURI, ConnectionClosed) as error:
        raise connection.failed(error) from None
