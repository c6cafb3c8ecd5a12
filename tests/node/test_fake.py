"""The simulated hypervisor: what outlives what, and that chance can be had again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from tests.node.builders import in_loop, order, orders
from vws.core.deployment import DiskOrder, NetworkOrder, NicOrder
from vws.core.lifecycle import Observation
from vws.node.config import FakeConfig
from vws.node.fake import FakeHypervisor, host_key
from vws.ports import HypervisorError

O = Observation  # noqa: E741


async def fetch(sha256, size_bytes, target):
    raise AssertionError("a simulated image has no files")


def no_step(text):
    pass


async def running(fake: FakeHypervisor, id: str = "wsp-1", **fields) -> None:
    await fake.open(orders())
    await fake.create(order(id, **fields), fetch, no_step)
    await fake.start(order(id, **fields))


async def state(fake: FakeHypervisor, id: str = "wsp-1"):
    return next((i.state for i in await fake.instances() if i.id == id), None)


@pytest.mark.parametrize("durable", [True, False])
def test_a_life_from_nothing_to_nothing(tmp_path, durable):
    @in_loop
    async def run():
        fake = FakeHypervisor(tmp_path, FakeConfig.instant(durable=durable))
        await running(fake)
        (seen,) = await fake.instances()
        assert (seen.state, seen.boots, seen.created, seen.end) == (O.RUNNING, 1, True, order().end)
        assert (seen.memory_mib, seen.memory_defined_mib) == (128, 256)
        assert seen.host_key == host_key("wsp-1")
        assert await fake.guest_up(order())
        await fake.pause("wsp-1")
        assert await state(fake) is O.PAUSED
        assert not await fake.guest_up(order())
        await fake.suspend("wsp-1")
        assert await state(fake) is O.SUSPENDED
        assert "domain" not in fake.remains()["wsp-1"]
        await fake.restore(order())
        assert await fake.guest_up(order())
        await fake.resize(order(memory_mib=999))
        assert (await fake.instances())[0].memory_mib == 256, "no more than was defined"
        await fake.update(order(end=77))
        assert (await fake.instances())[0].end == 77
        await fake.stop("wsp-1", grace_s=1)
        assert await state(fake) is O.STOPPED
        await fake.start(order(boots=2))
        assert (await fake.instances())[0].boots == 2
        await fake.remove("wsp-1")
        await fake.remove("wsp-1")
        assert fake.remains() == {}
        assert b"boot 2" in await fake.console("wsp-1", tail_bytes=4096), "the log stays"

    run()


@in_loop
async def test_networks_and_disks_are_kept_as_ordered(tmp_path):
    fake = FakeHypervisor(tmp_path)
    network = NetworkOrder("net-1", "10.20.0.0/24", "10.20.0.1")
    nics = (NicOrder("net-1", "02:77:00:00:00:01", "10.20.0.2"), NicOrder("", "02:77:00:00:00:02", "10.64.0.2"))
    member = order(nics=nics, disks=(DiskOrder("scratch", 64), DiskOrder("data", 0, image="img-2")))
    await fake.open(replace(orders(member), networks=(network,)))
    await fake.create(member, fetch, no_step)
    await fake.start(member)
    again = FakeHypervisor(tmp_path)
    assert again._shelf.ids("network") == {"bridge", "net-1"}
    assert again._shelf.get("overlay", "wsp-1")["beside"] == {"scratch": 64}, "what is shared is nobody's own"
    assert set(again._shelf.get("tap", "wsp-1")["macs"]) == {nic.mac for nic in nics}
    assert b"eth1: 02:77:00:00:00:02" in await again.console("wsp-1", tail_bytes=4096)
    await again.open(orders())
    assert again._shelf.ids("network") == {"bridge"}
    await again.remove("wsp-1")
    await again.close(tear_down=True)
    assert (again.remains(), again._shelf.ids("network")) == ({}, set())


@in_loop
async def test_guests_go_on_booting_while_nobody_watches(tmp_path):
    config = FakeConfig.instant(boot_s=0.3)
    await running(FakeHypervisor(tmp_path, config))
    again = FakeHypervisor(tmp_path, config)
    await again.open(orders())
    assert not await again.guest_up(order())
    await asyncio.sleep(0.35)
    assert await again.guest_up(order())


@in_loop
async def test_time_stands_still_for_a_suspended_guest(tmp_path):
    fake = FakeHypervisor(tmp_path, FakeConfig.instant(boot_s=0.2))
    await running(fake)
    await fake.suspend("wsp-1")
    await asyncio.sleep(0.3)
    await fake.restore(order())
    assert not await fake.guest_up(order())
    await asyncio.sleep(0.25)
    assert await fake.guest_up(order())


@in_loop
async def test_failures_come_by_chance_that_can_be_had_again(tmp_path):
    async def outcomes(seed: int, at: str) -> list[bool]:
        fake = FakeHypervisor(tmp_path / at, FakeConfig.instant(failures={"create": 0.5}, seed=seed, durable=False))
        said = []
        for number in range(40):
            try:
                await fake.create(order(f"wsp-{number}"), fetch, no_step)
                said.append(True)
            except HypervisorError:
                said.append(False)
        return said

    first = await outcomes(1, "a")
    assert 5 < sum(first) < 35
    assert await outcomes(1, "b") == first
    assert await outcomes(2, "c") != first


@in_loop
async def test_a_guest_that_is_to_crash_does_so_and_it_is_news(tmp_path):
    fake = FakeHypervisor(tmp_path, FakeConfig.instant(failures={"crash": 1}, crash_after_s=0.05))
    await running(fake)
    async with asyncio.timeout(3):
        async for id in fake.changes():
            assert id == "wsp-1"
            break
    (seen,) = await fake.instances()
    assert (seen.state, seen.reason) == (O.BROKEN, "the guest crashed (simulated)")
    unwatched = FakeHypervisor(tmp_path, fake.config)
    assert await state(unwatched) is O.BROKEN


@in_loop
async def test_what_does_not_run_cannot_be_paused_nor_saved(tmp_path):
    fake = FakeHypervisor(tmp_path, FakeConfig.instant())
    await running(fake)
    fake.power_off("wsp-1")
    for call in (fake.pause, fake.suspend):
        with pytest.raises(HypervisorError, match="does not run"):
            await call("wsp-1")
    with pytest.raises(HypervisorError, match="no saved memory"):
        await fake.restore(order())
    with pytest.raises(HypervisorError, match="disk has vanished"):
        await fake.start(order("wsp-2"))


@in_loop
async def test_a_full_disk_takes_no_memory_and_keeps_the_guest(tmp_path):
    fake = FakeHypervisor(tmp_path, FakeConfig.instant())
    await running(fake)
    fake.fill_disk()
    with pytest.raises(HypervisorError, match="no space is left"):
        await fake.suspend("wsp-1")
    assert await state(fake) is O.RUNNING


@in_loop
async def test_the_guest_answers_as_ssh_does(tmp_path):
    fake = FakeHypervisor(tmp_path, FakeConfig.instant())
    await running(fake)
    stream = await fake.connect(order(), 22)
    assert await stream.read(4) == b"SSH-"
    assert await stream.read() == b"2.0-fake\r\n"
    await stream.write(b"hello")
    assert await stream.read() == b"hello"
    await stream.close()
    assert await stream.read() == b""


@in_loop
async def test_many_in_memory_cost_little(tmp_path):
    fake = FakeHypervisor(tmp_path, FakeConfig.instant(durable=False))
    start = time.process_time()
    for number in range(200):
        await running(fake, f"wsp-{number}")
    await fake.instances()
    assert time.process_time() - start < 1
    assert list((tmp_path / "consoles").iterdir()) == []


# ---------------------------------------------------------------- commands


async def ended(fake: FakeHypervisor, id: str = "wsp-1"):
    """(state, exit status)"""
    (seen,) = [i for i in await fake.instances() if i.id == id]
    return seen.state, seen.exit_status


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("command", "takes_s", "status"),
    [("", None, None), ("make", 2, 0), ("#!/bin/sh\nsleep 5\nmake\nsleep 0.5\nexit 3\nsleep 9", 7.5, 3)],
)
@in_loop
async def test_a_command_takes_what_it_sleeps_and_ends_as_it_says(tmp_path, command, takes_s, status):
    time = Time()
    fake = FakeHypervisor(tmp_path, FakeConfig.instant(command_s=2.0), now=time)
    await running(fake, command=command)
    time.now += (takes_s or 1e6) - 0.1
    assert await ended(fake) == (O.RUNNING, None)
    time.now += 0.2
    assert await ended(fake) == ((O.RUNNING, None) if takes_s is None else (O.STOPPED, status))


@in_loop
async def test_a_suspended_command_goes_on_where_it_was(tmp_path):
    time = Time()
    fake = FakeHypervisor(tmp_path, FakeConfig.instant(), now=time)
    ordered = order(command="sleep 10\nexit 1")
    await running(fake, command=ordered.command)
    time.now += 4
    await fake.suspend("wsp-1")
    time.now += 1000
    assert await ended(fake) == (O.SUSPENDED, None)
    await fake.restore(ordered)
    time.now += 5
    assert await ended(fake) == (O.RUNNING, None)
    time.now += 2
    assert await ended(fake) == (O.STOPPED, 1)


@in_loop
async def test_a_command_runs_once_and_its_status_outlives_agents_and_boots(tmp_path):
    time = Time()
    await running(FakeHypervisor(tmp_path, FakeConfig.instant(), now=time), command="sleep 10\nexit 7")
    time.now += 20
    again = FakeHypervisor(tmp_path, FakeConfig.instant(), now=time)
    await again.open(orders())
    assert await ended(again) == (O.STOPPED, 7)
    await again.start(order(command="sleep 10\nexit 7", boots=2))
    time.now += 1000
    assert await ended(again) == (O.RUNNING, 7)
    later = FakeHypervisor(tmp_path, FakeConfig.instant(), now=time)
    assert await ended(later) == (O.RUNNING, 7)


@in_loop
async def test_a_command_that_a_reboot_cut_off_is_not_begun_anew(tmp_path):
    time = Time()
    fake = FakeHypervisor(tmp_path, FakeConfig.instant(), now=time)
    await running(fake, command="sleep 10")
    fake.power_off("wsp-1")
    assert await ended(fake) == (O.STOPPED, None)
    await fake.start(order(command="sleep 10", boots=2))
    time.now += 1000
    assert await ended(fake) == (O.RUNNING, None)


@in_loop
async def test_the_end_of_a_command_is_news(tmp_path):
    fake = FakeHypervisor(tmp_path, FakeConfig.instant())
    await running(fake, command="sleep 0.05")
    assert await asyncio.wait_for(anext(fake.changes()), 5) == "wsp-1"
    assert await ended(fake) == (O.STOPPED, 0)
