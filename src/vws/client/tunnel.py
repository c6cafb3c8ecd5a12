"""A byte stream to a guest, over a WebSocket that the service joins to one of the guest's node."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from vws.client.connection import Connection
from vws.client.errors import ApiError, ConnectionFailed, members_of

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

TIMEOUT_S = 20.0
# Without an answer to a ping for so long the site is gone; what waits in between for a slow guest takes its time.
PONG_WITHIN_S = 120.0
# So much a socket takes at once that says it takes anything.
MESSAGE_BYTES_MAX = 16 * 1024
LOOK_AGAIN_MS = 5000


class Tunnel:
    """A byte stream to a guest. One thread may read while another writes."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._closing = ExitStack()
        self._socket = self._closing.enter_context(_connected(connection, path))

    def read(self) -> bytes:
        """The next bytes; b"" at the end. ConnectionFailed if the site or the node broke it off, saying why."""
        from websockets.exceptions import ConnectionClosed

        try:
            data = self._socket.recv()
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code >= 4000:
                raise ConnectionFailed(closed.rcvd.reason or "the tunnel broke off", code="tunnel-closed") from None
            return b""
        return data.encode() if isinstance(data, str) else data

    def write(self, data: bytes) -> None:
        """Returns when there is room for more; does nothing after the end."""
        from websockets.exceptions import ConnectionClosed

        try:
            for start in range(0, len(data), MESSAGE_BYTES_MAX):
                self._await_room()
                self._socket.send(data[start : start + MESSAGE_BYTES_MAX])
        except ConnectionClosed:
            return

    def _await_room(self) -> None:
        """While a message is being sent nothing is received, and two ends that both wait to be received from would wait
        for ever: so none is begun that would have to wait."""
        poll = select.poll()
        if self._socket.socket.fileno() >= 0:  # else it was closed, and sending says so
            poll.register(self._socket.socket, select.POLLOUT)
            while not poll.poll(LOOK_AGAIN_MS) and self._socket.socket.fileno() >= 0:
                pass

    recv, send = read, write

    def close(self) -> None:
        self._socket.close()
        self._closing.close()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def _connected(connection: Connection, path: str) -> Iterator[ClientConnection]:
    from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
    from websockets.sync.client import connect

    with ExitStack() as closing:
        try:
            made = connect(
                "ws" + connection.url.removeprefix("http") + path,
                ssl=connection.trust(),
                additional_headers=connection.headers,
                compression=None,
                proxy=None,
                open_timeout=TIMEOUT_S,
                ping_timeout=PONG_WITHIN_S,
                max_size=None,
            )
            socket = closing.enter_context(made)
        except InvalidStatus as refused:
            raise ApiError(refused.response.status_code, members_of(bytes(refused.response.body or b""))) from None
        except (OSError, ValueError, InvalidHandshake, InvalidURI) as error:
            raise connection.failed(error) from None
        yield socket
