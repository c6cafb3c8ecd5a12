"""The last gate, as an agent reports it; and what it costs."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace

import pytest

from tests.core.attesting import key, public
from tests.node.builders import FakeLink, Node, in_loop, order, orders
from vws import signing
from vws.core.lifecycle import Observation as O
from vws.core.manifest import digest
from vws.core.site import ImageFile
from vws.core.trust import Vouched, write_envelope
from vws.node.images import ImageCache
from vws.node.vouching import must_be_whole
from vws.ports import ImageRefused

DATA = b"a disk of sorts" * 1000
FILE = ImageFile("disk", hashlib.sha256(DATA).hexdigest(), len(DATA), "raw", 1)


def signed(**settings):
    asked = order(files=(FILE,), **settings)
    envelope = write_envelope(signing.sign(asked, "demo", {}, key("desy"), signed_at=1)).decode()
    return replace(asked, vouched=Vouched(digest(asked), (envelope,), (public("desy"),)))


@in_loop
async def test_a_refused_image_is_reported_as_such_and_not_tried_again(tmp_path) -> None:
    asked = signed()
    refused = replace(asked, vouched=replace(asked.vouched, keys=(public("cern"),)))
    link = FakeLink(orders(refused))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.BROKEN)
        fact = link.fact()
        assert fact.refused
        assert fact.reason.startswith("this node refuses to boot it: the signature of its attestation does not fit")
        assert not link.blobs, "nothing was fetched for it"


@in_loop
async def test_what_is_vouched_for_runs(tmp_path) -> None:
    link = FakeLink(orders(signed()))
    link.blobs[FILE.sha256] = DATA
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        assert not link.fact().refused


@pytest.fixture
def cache(tmp_path):
    made = ImageCache(tmp_path)
    made.directory.mkdir()
    made.path(FILE.sha256).write_bytes(DATA)
    return made


def test_a_boot_of_what_nobody_touched_costs_nothing_to_speak_of(cache, monkeypatch) -> None:
    asked = signed()
    must_be_whole(asked, cache)
    monkeypatch.setattr("vws.node.images._sha256", None)
    took = []
    for number in range(20):
        again = replace(asked, boots=2 + number)
        begun = time.perf_counter()
        must_be_whole(again, cache)
        took.append(time.perf_counter() - begun)
    assert sorted(took)[10] < 0.005


def test_a_file_whose_time_alone_was_set_back_is_hashed_again(cache) -> None:
    asked = signed()
    must_be_whole(asked, cache)
    path = cache.path(FILE.sha256)
    before = path.stat()
    path.write_bytes(DATA.replace(b"sorts", b"forts"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ImageRefused, match="was altered"):
        must_be_whole(asked, cache)


def test_an_order_that_says_nothing_is_checked_for_its_files_alone(cache) -> None:
    must_be_whole(order(files=(FILE,)), cache)
