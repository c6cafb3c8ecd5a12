"""Connections to guests that are in no hurry, or gone."""

from __future__ import annotations

import asyncio
import socket
import time

from tests.node.builders import in_loop
from vws.node import guest_tcp
from vws.node.namespace import Machine


@in_loop
async def test_what_a_guest_does_not_take_keeps_nobody_from_hanging_up(monkeypatch):
    monkeypatch.setattr(guest_tcp, "CLOSE_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as guest:
        place = Machine()
        stream = await guest_tcp.connect(place, "127.0.0.1", guest.getsockname()[1])
        taken, _ = guest.accept()
        writing = asyncio.create_task(stream.write(b"x" * (32 << 20)))
        await asyncio.sleep(0.2)
        assert not writing.done(), "the guest reads nothing"
        began = time.monotonic()
        writing.cancel()
        await stream.close()
        assert time.monotonic() < began + 10
        taken.close()
        place.let_go()


@in_loop
async def test_a_guest_that_says_nothing_is_asked_whether_it_lives():
    with socket.create_server(("127.0.0.1", 0)) as guest:
        place = Machine()
        sock = await guest_tcp._connected(place, "127.0.0.1", guest.getsockname()[1], 5)
        with sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle, every, count = (sock.getsockopt(socket.IPPROTO_TCP, option) for option in guest_tcp.KEEPALIVE)
            assert idle + every * count <= 300
        place.let_go()
