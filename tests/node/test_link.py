"""The link over real TLS, to a service that can be broken on purpose."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import ssl
import threading
import time
from pathlib import Path

import pytest

from tests.node.builders import NODE, in_loop, order, orders, until
from tests.node.tiny_service import TOKEN, TinyService
from vws.core.deployment import NodeReport
from vws.core.errors import Conflict, InvalidRequest, Unavailable
from vws.core.site import Capacity
from vws.core.wire import from_json
from vws.node.link import HttpLink, Refused, Service, Unreachable
from vws.node.run import credentials, join
from vws.node.transfer import Pace


@pytest.fixture
def tiny(tmp_path):
    service = TinyService(tmp_path / "tiny").start()
    yield service
    service.stop()


class Linked:
    def __init__(self, tiny: TinyService, token: str = TOKEN, ca: Path | None = None) -> None:
        self._tiny, self._token, self._ca = tiny, token, ca

    async def __aenter__(self) -> HttpLink:
        self._service = Service(self._tiny.url, self._ca or self._tiny.ca)
        return HttpLink(self._service, NODE, self._token, "instance-1")

    async def __aexit__(self, *_) -> None:
        await self._service.close()


def report() -> NodeReport:
    return NodeReport(NODE, "instance-1", 1, 1, 1, 0.0, Capacity(1, 1, 1))


@in_loop
async def test_orders_and_reports_cross(tiny):
    tiny.order(orders(order(), generation=3))
    async with Linked(tiny) as link:
        pulled = await link.orders(0, 5)
        assert from_json(type(tiny.ordered[NODE]), pulled.orders) == tiny.ordered[NODE]
        assert abs(pulled.time - time.time()) < 2
        held = time.monotonic()
        assert (await link.orders(3, 0.2)).orders is None
        assert time.monotonic() - held >= 0.2
        assert (await link.report(report())).generation == 3
        assert tiny.reports == [report()]
        await link.keep_console("wsp-1", b"the end")
        assert tiny.consoles == {"wsp-1": b"the end"}


@in_loop
async def test_refusals_carry_the_problem_and_absences_pass(tiny):
    tiny.order(orders())
    async with Linked(tiny, token="stolen") as link:
        with pytest.raises(Refused, match="this token is unknown") as refused:
            await link.orders(0, 1)
        assert (refused.value.status, refused.value.code) == (401, "unauthenticated")
    async with Linked(tiny) as link:
        tiny.problem = (409, "duplicate-node", "another agent serves")
        with pytest.raises(Refused, match="another agent serves"):
            await link.report(report())
        tiny.problem = (503, "unavailable", "the store is away")
        with pytest.raises(Unreachable, match="the store is away"):
            await link.report(report())
        tiny.problem = None
        tiny.stop()
        with pytest.raises(Unreachable):
            await link.report(report())


@in_loop
async def test_only_the_sites_own_ca_is_trusted(tiny, tmp_path):
    other = TinyService(tmp_path / "other")
    async with Linked(tiny, ca=other.ca) as link:
        with pytest.raises(Unreachable, match="not one of this site's CA"):
            await link.orders(0, 1)


@in_loop
async def test_a_service_that_is_back_is_reached_within_half_a_second_by_all_who_wait(tiny, caplog):
    tiny.order(orders())
    async with Linked(tiny) as link:
        await link.report(report())
        tiny.stop()
        for _ in range(3):
            with pytest.raises(Unreachable):
                await link.report(report())
        assert sum("cannot be reached" in r.getMessage() for r in caplog.records) == 1, "said once"
        waiting = [asyncio.create_task(link.reachable()) for _ in range(50)]
        await asyncio.sleep(0.6)
        assert not any(task.done() for task in waiting)
        await asyncio.to_thread(tiny.start)
        back = time.monotonic()
        await asyncio.wait_for(asyncio.gather(*waiting), 2)
        assert time.monotonic() - back < 0.8
        await link.report(report())


@in_loop
async def test_a_blob_resumes_where_it_broke_off(tiny, tmp_path):
    data = os.urandom(1_000_000)
    sha256 = hashlib.sha256(data).hexdigest()
    tiny.blobs[sha256] = data
    tiny.cut_after = 400_000
    target, progress = tmp_path / "blob", []
    async with Linked(tiny) as link:
        with pytest.raises(Unreachable):
            await link.fetch(sha256, len(data), target, progress.append)
        had = target.stat().st_size
        assert 0 < had < len(data)
        assert await link.fetch(sha256, len(data), target, progress.append) == sha256
        assert target.read_bytes() == data
        assert tiny.offsets == [0, had]
        assert progress == sorted(progress)
        assert progress[-1] == len(data)
        await link.fetch(sha256, len(data), target, progress.append)
        assert len(tiny.offsets) == 2, "what is whole is not asked for again"


@in_loop
async def test_what_came_before_a_break_is_not_read_again_unless_it_was_touched(tiny, tmp_path, monkeypatch):
    data = os.urandom(1_000_000)
    sha256 = hashlib.sha256(data).hexdigest()
    tiny.blobs[sha256] = data
    read, again = os.read, []
    monkeypatch.setattr("vws.node.transfer.os.read", lambda file, size: again.append(read(file, size)) or again[-1])
    for touched in (False, True):
        again.clear()
        target = tmp_path / f"blob-{touched}"
        tiny.cut_after = 400_000
        async with Linked(tiny) as link:
            with pytest.raises(Unreachable):
                await link.fetch(sha256, len(data), target, lambda _: None)
            had = target.read_bytes()
            if touched:
                target.write_bytes(had)
            assert await link.fetch(sha256, len(data), target, lambda _: None) == sha256
        assert target.read_bytes() == data
        assert b"".join(again) == (had if touched else b"")


@in_loop
async def test_zeros_are_neither_sent_nor_stored_but_counted(tiny, tmp_path):
    data = bytes(3 << 20) + os.urandom(5000) + bytes(2 << 20) + b"end" + bytes(1 << 20)
    sha256 = hashlib.sha256(data).hexdigest()
    tiny.blobs[sha256] = data
    target = tmp_path / "blob"
    async with Linked(tiny) as link:
        assert await link.fetch(sha256, len(data), target, lambda _: None) == sha256
        assert target.read_bytes() == data
        assert target.stat().st_blocks * 512 < 100_000
        tiny.blobs[sha256] = bytes(len(data))
        target.unlink()
        assert (
            await link.fetch(sha256, len(data), target, lambda _: None) == hashlib.sha256(bytes(len(data))).hexdigest()
        )


@in_loop
async def test_a_slow_disk_holds_up_no_other_work(tiny, tmp_path, monkeypatch):
    data, writers = os.urandom(300_000), set()
    sha256 = hashlib.sha256(data).hexdigest()
    tiny.blobs[sha256] = data
    pwrite = os.pwrite

    def slow(*arguments):
        writers.add(threading.current_thread())
        return pwrite(*arguments)

    monkeypatch.setattr(os, "pwrite", slow)
    async with Linked(tiny) as link:
        await link.fetch(sha256, len(data), tmp_path / "blob", lambda _: None)
    assert (tmp_path / "blob").read_bytes() == data
    assert writers
    assert threading.main_thread() not in writers


@in_loop
async def test_a_stream_that_is_none_of_the_file_is_fetched_anew(tiny, tmp_path):
    target = tmp_path / "blob"
    tiny.blobs["aa"] = b"x" * 5000
    async with Linked(tiny) as link:
        for size_bytes in (4999, 5001):
            with pytest.raises(Unreachable, match="not the file"):
                await link.fetch("aa", size_bytes, target, lambda _: None)
            assert not target.exists()


@in_loop
async def test_a_limit_holds_for_all_transfers_together(tiny, tmp_path):
    data = os.urandom(300_000)
    tiny.blobs["aa"] = tiny.blobs["bb"] = data
    async with Linked(tiny) as link:
        link._pace = Pace(300_000)
        begin = time.monotonic()
        await asyncio.gather(*(link.fetch(n, len(data), tmp_path / n, lambda _: None) for n in ("aa", "bb")))
        # A second's worth may go at once, the other takes a second.
        assert 0.9 < time.monotonic() - begin < 3


@in_loop
async def test_a_blob_that_is_not_there_or_of_another_length_is_told(tiny, tmp_path):
    tiny.blobs["aa"] = b"12345"
    target = tmp_path / "blob"
    async with Linked(tiny) as link:
        with pytest.raises(Refused, match="no such file"):
            await link.fetch("bb", 5, target, lambda _: None)
        target.write_bytes(b"123456789")
        with pytest.raises(Unreachable, match="another length"):
            await link.fetch("aa", 20, target, lambda _: None)
        assert not target.exists()
        target.write_bytes(b"x" * 30)
        await link.fetch("aa", 5, target, lambda _: None)
        assert target.read_bytes() == b"12345"


@in_loop
async def test_a_tunnel_carries_bytes_both_ways_and_closes_with_a_reason(tiny):
    tiny.waiting = [{"id": "tun-1", "workspace": "wsp-1", "target": "tcp:22"}]
    tiny.to_guest = [b"hello", b""]
    async with Linked(tiny) as link:
        (request,) = (await link.orders(0, 5)).tunnels
        assert request.target == "tcp:22"
        tunnel = await link.tunnel(request.id)
        assert await tunnel.receive() == b"hello"
        assert await tunnel.receive() == b""
        await tunnel.send(bytes(200_000))
        await tunnel.close(4502, "ö" * 100)
        await until(lambda: tiny.close_code is not None)
        assert sum(map(len, tiny.frames)) == 200_000
        assert tiny.close_code == (4502, "ö" * 61), "cut at a whole character"
        with pytest.raises(Refused):
            await link.tunnel("tun-9")


@in_loop
async def test_the_end_of_a_tunnel_is_seen(tiny):
    tiny.waiting = [{"id": "tun-1", "workspace": "wsp-1", "target": "tcp:22"}]
    async with Linked(tiny) as link:
        tunnel = await link.tunnel("tun-1")
        await tunnel.send(b"bye")
        assert await tunnel.receive() is None


@in_loop
async def test_a_service_that_knows_of_it_hears_that_the_node_lives(tiny, monkeypatch):
    monkeypatch.setattr("vws.node.link.BEAT_S", 0.05)
    for tiny.beats in (False, True):
        tiny.waiting = [{"id": "tun-1", "workspace": "wsp-1", "target": "tcp:22"}]
        tiny.frames, tiny.to_guest, tiny.close_code = [], [b"hello"], None
        async with Linked(tiny) as link:
            tunnel = await link.tunnel("tun-1")
            assert await tunnel.receive() == b"hello"
            if tiny.beats:
                await until(lambda: tiny.frames.count(b"") > 2)
            await tunnel.send(b"bytes")
            await until(lambda: b"bytes" in tiny.frames)
            await tunnel.close()
            await until(lambda: tiny.close_code is not None)
            assert (b"" in tiny.frames) == tiny.beats


# ---------------------------------------------------------------- joining


def token(tiny: TinyService, **changes: str) -> str:
    der = ssl.PEM_cert_to_DER_cert(tiny.ca.read_text())
    said = {"u": tiny.url, "f": hashlib.sha256(der).hexdigest(), "t": "join-token"} | changes
    return "vwsj." + base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")


def test_a_host_joins_with_a_token_and_pins_the_sites_ca(tiny, tmp_path):
    said = join(tmp_path / "node", token(tiny), "second")
    assert said == {"id": "nod-9", "name": "second", "url": tiny.url, "subnet": "10.64.9.0/24"}
    who = credentials(tmp_path / "node")
    assert [(n.id, n.name, n.token) for n in who.nodes] == [("nod-9", "second", TOKEN)]
    assert who.ca.read_text() == tiny.ca.read_text()
    assert tiny.joined[0]["name"] == "second"
    assert (tmp_path / "node" / "credentials.json").stat().st_mode & 0o077 == 0
    with pytest.raises(Conflict, match="has a node's credentials already"):
        join(tmp_path / "node", token(tiny), "third")


@pytest.mark.parametrize("text", ["", "vwsj.", "vwsj.%%%", "vwsj.e30", "vws_abc", "vwsj." + "a" * 301])
def test_what_is_no_join_token_is_told(tmp_path, text):
    with pytest.raises(InvalidRequest, match="no join token"):
        join(tmp_path / "node", text, "second")
    assert not (tmp_path / "node").exists()


def test_a_stranger_at_the_address_gets_nothing(tiny, tmp_path):
    with pytest.raises(Unavailable, match="not the site that gave out this token"):
        join(tmp_path / "node", token(tiny, f="ab" * 32), "second")
    assert tiny.joined == []


def test_a_spent_token_and_a_silent_address_are_told(tiny, tmp_path):
    with pytest.raises(Conflict, match="used already"):
        join(tmp_path / "node", token(tiny, t="spent"), "second")
    with pytest.raises(Unavailable, match="cannot be reached"):
        join(tmp_path / "node", token(tiny, u="https://127.0.0.1:1"), "second")
    assert not (tmp_path / "node" / "credentials.json").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"url": "u", "ca": "c", "nodes": []}', '{"nodes": 1}'])
def test_credentials_that_make_no_sense_are_told(tmp_path, text):
    (tmp_path / "credentials.json").write_text(text)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        credentials(tmp_path)
