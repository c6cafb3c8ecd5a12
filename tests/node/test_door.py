"""The door between guests and the service, on loopback: what goes through, and what is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.node.builders import in_loop, until
from vws.node import door
from vws.node.door import Door, Doorway
from vws.node.namespace import Machine

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.write(b"bye")
    writer.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Opened:
    """A door to `serve`, open at `doorway`."""

    def __init__(self, door: Door, doorway: Doorway) -> None:
        self.door = door
        self.doorway = doorway

    async def connect(self, source: str = "127.0.0.1") -> Ends:
        return await asyncio.open_connection(self.doorway.address, self.doorway.port, local_addr=(source, 0))


@contextlib.asynccontextmanager
async def opened(serve: Callable[..., Awaitable[None]] = echo) -> AsyncIterator[Opened]:
    service = await asyncio.start_server(serve, "127.0.0.1", 0)
    place = Machine()
    doorway = Doorway(place, "127.0.0.1", free_port())
    it = Door(service.sockets[0].getsockname())
    try:
        await it.open({"": doorway})
        yield Opened(it, doorway)
    finally:
        await it.close()
        service.close()
        place.let_go()


async def asked(ends: Ends, data: bytes) -> bytes:
    ends[1].write(data)
    return await asyncio.wait_for(ends[0].readexactly(len(data)), 5)


async def is_shut(ends: Ends) -> bool:
    try:
        return await asyncio.wait_for(ends[0].read(100), 5) == b""
    except ConnectionError:
        return True
    finally:
        ends[1].close()


@in_loop
async def test_what_is_said_arrives_and_an_end_is_passed_on() -> None:
    async with opened() as it:
        ends = await it.connect()
        data = bytes(range(256)) * 4000
        assert await asked(ends, data) == data
        ends[1].write_eof()
        assert await asyncio.wait_for(ends[0].read(), 5) == b"bye", "its own end does not cut the answer off"
        await until(lambda: it.door.crowd == 0)
        ends[1].close()


@in_loop
async def test_one_guest_may_have_so_many_and_another_still_gets_in(monkeypatch) -> None:
    monkeypatch.setattr(door, "OF_GUEST_MAX", 2)
    async with opened() as it:
        first = [await it.connect() for _ in range(2)]
        for ends in first:
            assert await asked(ends, b"hello") == b"hello"
        assert await is_shut(await it.connect())
        other = await it.connect("127.0.0.2")
        assert await asked(other, b"hello") == b"hello"
        first[0][1].close()
        await until(lambda: it.door.crowd == 2)
        again = await it.connect()
        assert await asked(again, b"hello") == b"hello"
        for ends in (first[1], other, again):
            ends[1].close()


@in_loop
async def test_who_slept_is_reset_at_once_and_others_are_not() -> None:
    async with opened() as it:
        sleeper, other = await it.connect("127.0.0.2"), await it.connect("127.0.0.3")
        for ends in (sleeper, other):
            assert await asked(ends, b"hello") == b"hello"
        it.door.rouse("", "127.0.0.2")
        it.door.rouse("net-gone", "127.0.0.2")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(sleeper[0].read(100), 5)
        assert await asked(other, b"hello") == b"hello"
        await until(lambda: it.door.crowd == 1)
        other[1].close()


@pytest.mark.parametrize("bound", ["CONNECTIONS_MAX", "OF_NETWORK_MAX"])
def test_all_guests_together_are_bounded(monkeypatch, bound) -> None:
    monkeypatch.setattr(door, bound, 3)

    @in_loop
    async def run() -> None:
        async with opened() as it:
            first = [await it.connect(f"127.0.0.{n}") for n in (2, 3, 4)]
            for ends in first:
                assert await asked(ends, b"hello") == b"hello"
            assert await is_shut(await it.connect("127.0.0.5"))
            for ends in first:
                ends[1].close()

    run()


@in_loop
async def test_who_stands_still_is_sent_away_and_who_does_not_may_stay(monkeypatch) -> None:
    monkeypatch.setattr(door, "IDLE_LIMIT_S", 0.3)
    async with opened() as it:
        idle, busy = await it.connect(), await it.connect()
        for _ in range(10):
            assert await asked(busy, b"hello") == b"hello"
            await asyncio.sleep(0.06)
        assert await is_shut(idle)
        assert await asked(busy, b"hello") == b"hello"
        busy[1].close()


@in_loop
async def test_a_slow_reader_slows_its_writer_only() -> None:
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        with contextlib.suppress(OSError):
            if await reader.read(1) == b"f":
                while True:
                    writer.write(b"x" * 65536)
                    await writer.drain()
                    written += 65536
            writer.write(b"quick")
        writer.close()

    async with opened(flood) as it:
        slow = await it.connect()
        slow[1].transport.pause_reading()
        slow[1].write(b"f")
        await until(lambda: written > 0)
        at = -1
        while at != written:
            at = written
            await asyncio.sleep(0.2)
        assert written < 64 << 20, "what nobody reads is not gathered"
        quick = await it.connect()
        quick[1].write(b"q")
        assert await asyncio.wait_for(quick[0].readexactly(5), 5) == b"quick"
        slow[1].transport.abort()
        quick[1].close()


@in_loop
async def test_while_the_service_is_away_a_guest_is_not_kept_waiting() -> None:
    place = Machine()
    it = Door(("127.0.0.1", free_port()))
    doorway = Doorway(place, "127.0.0.1", free_port())
    await it.open({"": doorway})
    assert await is_shut(await asyncio.open_connection(doorway.address, doorway.port))
    await it.close()
    place.let_go()


@in_loop
async def test_what_is_open_stays_so_and_what_is_not_wanted_is_closed() -> None:
    async with opened() as it:
        ends = await it.connect()
        assert await asked(ends, b"hello") == b"hello"
        await it.door.open({"": it.doorway})
        assert await asked(ends, b"hello") == b"hello"
        await it.door.open({})
        assert await is_shut(ends)
        with pytest.raises(OSError, match="Connect call failed"):
            await it.connect()
        await it.door.open({"": it.doorway})
        again = await it.connect()
        assert await asked(again, b"hello") == b"hello"
        again[1].close()


@in_loop
async def test_a_doorway_that_cannot_be_opened_is_tried_again() -> None:
    async with opened() as it:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            other = Doorway(it.doorway.place, "127.0.0.1", taken.getsockname()[1])
            await it.door.open({"": it.doorway, "net-1": other})
            ends = await it.connect()
            assert await asked(ends, b"hello") == b"hello"
        await it.door.open({"": it.doorway, "net-1": other})
        through = await asyncio.open_connection(other.address, other.port)
        assert await asked(through, b"hello") == b"hello"
        for each in (ends, through):
            each[1].close()
