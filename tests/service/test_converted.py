"""Downloads that broke go on with the same bytes: converted disks are kept for a while, tars begin anywhere."""

from __future__ import annotations

import shutil
import threading
import time
from collections import namedtuple
from functools import partial

import pytest

from tests.service.conftest import ADMIN, Rig
from tests.service.test_exports import appliance, debian  # noqa: F401 - fixtures
from vws.service import conversion, converted
from vws.service.site import Settings
from vws.store.sql import SqlStore

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


@pytest.fixture
def rig(sqlite_url, tmp_path):
    """On one database: none is asked."""
    store = SqlStore.open(sqlite_url)
    yield Rig(store, tmp_path, Settings())
    store.close()


def kept_files(rig):
    return sorted((rig.directory / "exports").iterdir())


@pytest.mark.parametrize("kind", ["raw", "vmdk", "bundle", "oci"])
def test_from_any_place_on_the_same_bytes_come(rig, appliance, kind):  # noqa: F811
    ask = partial(rig.services.exports.export, ADMIN, appliance.id, kind)
    made = ask()
    whole = b"".join(made.read(0))
    for offset in (1, 511, 512, 513, len(whole) // 2, len(whole) - 1025, len(whole) - 1, len(whole)):
        again = ask()
        assert (again.tag, again.length_bytes) == (made.tag, len(whole))
        assert b"".join(again.read(offset)) == whole[offset:], offset


def test_a_disk_is_converted_once_for_all_who_come_within_the_hour_and_over_a_restart(rig, debian, monkeypatch):  # noqa: F811
    first = b"".join(rig.services.exports.export(ADMIN, debian.id, "vdi").read(0))
    monkeypatch.setattr("vws.service.conversion.convert", None)
    rig.clock.time += converted.KEPT_S
    rig.services.exports.converted.expire()
    made = rig.services.exports.export(ADMIN, debian.id, "vdi")
    rig.restart()
    rig.services.exports.converted.sweep()
    again = rig.services.exports.export(ADMIN, debian.id, "vdi")
    assert (again.tag, b"".join(again.read(0))) == (made.tag, first)


def test_what_nobody_came_back_for_goes_and_who_reads_it_has_it_still(rig, debian):  # noqa: F811
    made = rig.services.exports.export(ADMIN, debian.id, "vdi")
    reading = made.read(0)
    rig.clock.time += converted.KEPT_S + 1
    rig.services.exports.converted.expire()
    assert kept_files(rig) == []
    assert len(b"".join(reading)) == made.length_bytes
    other = rig.services.exports.export(ADMIN, debian.id, "vdi")
    assert other.tag != made.tag, "it need not be the same bytes"


def test_what_is_read_is_kept(rig, debian):  # noqa: F811
    made = rig.services.exports.export(ADMIN, debian.id, "raw")
    reading = iter(made.read(0))
    rig.clock.time += converted.KEPT_S - 1
    next(reading)
    rig.clock.time += converted.KEPT_S - 1
    rig.services.exports.converted.expire()
    assert len(kept_files(rig)) == 1


def test_what_is_kept_goes_where_the_disk_gets_short(rig, debian, monkeypatch):  # noqa: F811
    rig.services.exports.export(ADMIN, debian.id, "vdi")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(converted.shutil, "disk_usage", lambda _: usage(10**12, 10**12, converted.SHORT_BYTES - 1))
    rig.services.exports.converted.expire()
    assert kept_files(rig) == []


def test_what_is_kept_makes_room_for_what_is_to_be_converted(rig, debian, monkeypatch):  # noqa: F811
    rig.services.exports.export(ADMIN, debian.id, "vdi")
    convert, rooms = conversion.convert, []

    def full_at_first(*arguments, **more):
        rooms.append(len([path for path in kept_files(rig) if not path.is_dir()]))
        if rooms[-1]:
            raise conversion.no_room()
        convert(*arguments, **more)

    monkeypatch.setattr(conversion, "convert", full_at_first)
    assert rig.services.exports.export(ADMIN, debian.id, "vmdk").length_bytes
    assert rooms == [1, 0]


def test_two_who_want_the_same_wait_for_one_conversion(rig, debian, monkeypatch):  # noqa: F811
    convert, begun, asked = conversion.convert, threading.Event(), []

    def slow(*arguments, **more):
        asked.append(arguments)
        begun.set()
        time.sleep(0.3)
        convert(*arguments, **more)

    monkeypatch.setattr(conversion, "convert", slow)
    tags = []

    def ask():
        tags.append(rig.services.exports.export(ADMIN, debian.id, "vdi").tag)

    first = threading.Thread(target=ask)
    first.start()
    assert begun.wait(30)
    ask()
    first.join()
    assert (len(asked), len(set(tags))) == (1, 1)
