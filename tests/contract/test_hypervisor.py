"""What every hypervisor must do: the simulated one and libvirt, in the same words.

Each test removes what it made; the fixture looks whether anything is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.core.attesting import key, public
from tests.hypervisors import Cut, Site, boot, cut_at, image_file, in_loop, seen, until, until_up
from vws import signing
from vws.core.caches import FileState
from vws.core.deployment import CaptureOrder, DiskOrder, NetworkOrder, NicOrder, Quiesced, WorkspaceOrder
from vws.core.lifecycle import Observation as O
from vws.core.manifest import digest
from vws.core.site import ImageFile, chain_of
from vws.core.trust import Vouched, write_envelope
from vws.ports import Hypervisor, HypervisorError, ImageRefused

CREATION = (
    "agent.image.fetched",
    "agent.overlay.made",
    "agent.disks.made",
    "agent.seed.made",
    "agent.address.entered",
    "agent.created",
)
REMOVAL = (
    "agent.domain.destroyed",
    "agent.overlay.removed",
    "agent.address.released",
    "agent.address.removed",
    "agent.seed.removed",
    "agent.removed",
)


def ignore(text: str) -> None: ...


@contextlib.asynccontextmanager
async def news_of(hypervisor: Hypervisor, id: str) -> AsyncIterator[asyncio.Event]:
    """An event that is set when `changes` tells of the workspace."""
    heard = asyncio.Event()

    async def listen() -> None:
        async for told in hypervisor.changes():
            if told == id:
                heard.set()

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    try:
        yield heard
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


# ---------------------------------------------------------------- creation


@in_loop
async def test_creation_starts_nothing_and_may_be_repeated(site: Site) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        steps: list[str] = []
        await hypervisor.create(order, site.appliance.fetch, steps.append)
        first = await seen(hypervisor, order.id)
        assert first is not None
        assert (first.state, first.boots, first.created, first.end) == (O.STOPPED, 0, True, order.end)
        assert first.host_key.startswith("ssh-ed25519 ")
        assert steps
        await hypervisor.create(order, site.appliance.fetch, ignore)
        assert await seen(hypervisor, order.id) == first
        assert not await hypervisor.guest_up(order)
        await hypervisor.remove(order.id)
        assert await hypervisor.instances() == []


@pytest.mark.parametrize("point", CREATION)
@in_loop
async def test_a_creation_cut_off_anywhere_is_seen_and_can_be_repeated(site: Site, point: str, monkeypatch) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        with monkeypatch.context() as patch:
            cut_at(patch, point)
            with pytest.raises(Cut):
                await hypervisor.create(order, site.appliance.fetch, ignore)
    async with site.opened() as hypervisor:
        half = await seen(hypervisor, order.id)
        assert half is not None
        assert (half.state, half.created, half.end) == (O.STOPPED, point == "agent.created", order.end)
        await hypervisor.create(order, site.appliance.fetch, ignore)
        whole = await seen(hypervisor, order.id)
        assert whole is not None
        assert (whole.created, whole.boots) == (True, 0)
        await hypervisor.remove(order.id)


@pytest.mark.parametrize("point", CREATION)
@in_loop
async def test_a_creation_cut_off_anywhere_can_be_removed(site: Site, point: str, monkeypatch) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        with monkeypatch.context() as patch:
            cut_at(patch, point)
            with pytest.raises(Cut):
                await hypervisor.create(order, site.appliance.fetch, ignore)
    async with site.opened() as hypervisor:
        await hypervisor.remove(order.id)
        assert await hypervisor.instances() == []


@in_loop
async def test_an_image_that_stays_corrupt_is_a_final_error(site: Site) -> None:
    order = site.order("wsp-1", files=tuple(replace(f, sha256="0" * 64) for f in site.appliance.files[:1]))
    tries = []

    async def fetch(sha256: str, size_bytes: int, target) -> str:
        tries.append(sha256)
        target.write_bytes(b"\0" * size_bytes)
        return hashlib.sha256(b"\0" * size_bytes).hexdigest()

    async with site.opened() as hypervisor:
        with pytest.raises(HypervisorError, match="corrupt") as raised:
            await hypervisor.create(order, fetch, ignore)
        assert raised.value.final
        assert tries == ["0" * 64] * 2
        await hypervisor.remove(order.id)


@in_loop
async def test_one_image_is_fetched_once_for_all_who_want_it(site: Site) -> None:
    """Under another name, so that no earlier test has fetched it."""
    extra = site.appliance.folder / "more"
    extra.write_bytes(b"an initrd that nothing boots")
    files = (*site.appliance.files[:1], image_file(site.appliance.folder, "initrd", "more", "initrd"))
    orders = [site.order(f"wsp-{n}", files=files) for n in (1, 2, 3)]
    async with site.opened() as hypervisor:
        await asyncio.gather(*(hypervisor.create(order, site.appliance.fetch, ignore) for order in orders))
        assert site.appliance.fetched.count(files[1].sha256) == 1
        for order in orders:
            await hypervisor.remove(order.id)


def data_image(site: Site, size_mib: int = 4) -> ImageFile:
    """An image's raw disk, to be fetched like those of the appliance: an ext4 with the file `word` in it."""
    path = site.appliance.folder / "data"
    if not path.exists():
        tree = site.appliance.folder.with_name("tree")
        tree.mkdir()
        (tree / "word").write_text("theirs\n")
        with path.open("wb") as file:
            file.truncate(size_mib << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, path], check=True)
    return replace(image_file(site.appliance.folder, "disk", "data", "raw"), virtual_size_mib=size_mib)


@in_loop
async def test_each_disk_is_as_large_as_was_ordered_and_what_is_shared_is_nobodys_own(site: Site) -> None:
    data = data_image(site)
    disks = (
        DiskOrder("scratch", 16, "ext4"),
        DiskOrder("page", 8, "swap"),
        DiskOrder("shared", 0, image="img-2", file=data),
        DiskOrder("own", 32, image="img-2", file=data, private=True),
    )
    orders = [site.order(f"wsp-{n}", disks=disks) for n in (1, 2)]
    async with site.opened() as hypervisor:
        for order in orders:
            await hypervisor.create(order, site.appliance.fetch, ignore)
            assert site.disks(order.id) == {"": order.disk_mib, "scratch": 16, "page": 8, "own": 32}
        assert site.appliance.fetched.count(data.sha256) == 1, "for all copies"
        for order in orders:
            await hypervisor.remove(order.id)
        assert site.cached(data.sha256).exists(), "it is the cache's"


@in_loop
async def test_the_hidden_growth_of_a_disk_is_refused_at_the_next_boot(site: Site) -> None:
    """Whoever changed it: a node that has promised so much has no more."""
    order = site.order("wsp-1", disks=(DiskOrder("scratch", 16),))
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore)
        for larger, said in (
            (replace(order, disk_mib=order.disk_mib + 1), "its root disk has"),
            (replace(order, disks=(DiskOrder("scratch", 17),)), "its disk scratch has 16 MiB and not the 17"),
        ):
            with pytest.raises(HypervisorError, match=said) as refused:
                await hypervisor.start(larger)
            assert refused.value.final
        await hypervisor.remove(order.id)


@in_loop
async def test_what_came_ahead_is_told_and_goes_when_it_is_cleared_but_not_what_is_used(site: Site) -> None:
    (site.appliance.folder / "ahead").write_bytes(b"an initrd for later")
    ahead = image_file(site.appliance.folder, "initrd", "ahead", "initrd")
    order = site.order("wsp-1")
    used = {file.sha256 for file in order.files}
    async with site.opened() as hypervisor:
        for _ in range(2):
            await hypervisor.images.prefetch(ahead, site.appliance.fetch)
        assert site.appliance.fetched.count(ahead.sha256) == 1
        await hypervisor.create(order, site.appliance.fetch, ignore)
    async with site.opened() as hypervisor:
        told = {file.sha256: file for file in await hypervisor.images.contents()}
        assert told.keys() >= used | {ahead.sha256}
        assert {file.state for file in told.values()} == {FileState.COMPLETE}
        assert (told[ahead.sha256].role, told[ahead.sha256].size_bytes) == ("initrd", ahead.size_bytes)
        assert sum(file.disk_bytes for file in told.values()) <= hypervisor.images.limit_bytes
        cleared = await hypervisor.images.clear("cac-1", None)
        assert ahead.sha256 in cleared.dropped
        assert {kept.sha256: kept.reason for kept in cleared.kept} == dict.fromkeys(used, "a workspace uses it")
        assert {file.sha256 for file in await hypervisor.images.contents()} == used
        await hypervisor.remove(order.id)
        assert set((await hypervisor.images.clear("cac-2", used)).dropped) == used


@in_loop
async def test_what_can_never_fit_is_refused_before_anything_is_fetched(site: Site) -> None:
    async with site.opened() as hypervisor:
        size_bytes = hypervisor.images.limit_bytes + 1
        order = site.order("wsp-1", files=(ImageFile("kernel", "ab" * 32, size_bytes, "kernel"),))
        with pytest.raises(HypervisorError, match="can never be on this node") as raised:
            await hypervisor.create(order, site.appliance.fetch, ignore)
        assert raised.value.final
        assert "ab" * 32 not in site.appliance.fetched
        await hypervisor.remove(order.id)


NETWORK = NetworkOrder("net-1", "10.20.0.0/24", "10.20.0.1")
NIC = NicOrder(NETWORK.id, "02:77:14:00:00:02", "10.20.0.2", "private")


@in_loop
async def test_a_member_of_a_network_needs_it_to_be_there(site: Site) -> None:
    """Cut off before its address is entered, it is created once the network is there."""
    order = site.order("wsp-1", nics=(NIC,), disks=(DiskOrder("scratch", 16),))
    async with site.opened() as hypervisor:
        with pytest.raises(HypervisorError, match="the network net-1: this node's orders do not have it"):
            await hypervisor.create(order, site.appliance.fetch, ignore)
        await hypervisor.open(replace(site.orders, networks=(NETWORK,)))
        await hypervisor.create(order, site.appliance.fetch, ignore)
        there = await seen(hypervisor, order.id)
        assert there is not None
        assert there.created
        await hypervisor.open(site.orders)
        await hypervisor.mend()
        await hypervisor.remove(order.id)
        assert await hypervisor.instances() == []


@in_loop
async def test_removing_what_is_not_there_is_harmless(site: Site) -> None:
    async with site.opened() as hypervisor:
        await hypervisor.remove("wsp-99")
        assert await hypervisor.instances() == []
        assert await hypervisor.console("wsp-99", tail_bytes=100) == b""


@in_loop
async def test_a_new_end_outlives_the_agent(site: Site) -> None:
    order = site.order("wsp-1")
    later = replace(order, end=order.end + 3600)
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore)
        await hypervisor.update(later)
        await hypervisor.update(later)
    async with site.opened() as hypervisor:
        there = await seen(hypervisor, order.id)
        assert there is not None
        assert there.end == later.end
        await hypervisor.remove(order.id)


@in_loop
async def test_what_does_not_run_cannot_be_paused(site: Site) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore)
        for refused in (hypervisor.pause(order.id), hypervisor.suspend(order.id), hypervisor.restore(order)):
            with pytest.raises(HypervisorError):
                await refused
        await hypervisor.stop(order.id, grace_s=1)
        await hypervisor.remove(order.id)


@in_loop
async def test_a_node_describes_itself(site: Site) -> None:
    async with site.opened() as hypervisor:
        described = await hypervisor.describe()
        assert described.capacity.cpus > 0
        assert described.capacity.memory_mib > 0
        assert described.capacity.disk_mib > 0
        assert described.capacity.bandwidth_mbit > 0
        assert described.hypervisor in ("kvm", "tcg", "fake")
        assert described.reason
        assert described.traits.arch == "x86_64"


@in_loop
async def test_a_node_without_orders_and_one_that_is_whole_have_nothing_to_mend(site: Site) -> None:
    hypervisor = site.agent()
    await hypervisor.open(None)
    await hypervisor.mend()
    await hypervisor.open(site.orders)
    await hypervisor.mend()
    await hypervisor.close(tear_down=False)


# ---------------------------------------------------------------- life


@in_loop
async def test_a_guest_runs_pauses_and_is_resized(site: Site, monkeypatch) -> None:
    """Its start was cut off twice: after the note of the boot, and after the domain began."""
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore)
        with monkeypatch.context() as patch:
            cut_at(patch, "agent.boot.noted")
            with pytest.raises(Cut):
                await hypervisor.start(order)
    async with site.opened() as hypervisor:
        noted = await seen(hypervisor, order.id)
        assert noted is not None
        assert (noted.state, noted.boots) == (O.STOPPED, 1)
        with monkeypatch.context() as patch:
            cut_at(patch, "agent.domain.started")
            with pytest.raises(Cut):
                await hypervisor.start(order)
    async with site.opened() as hypervisor:
        assert (await until(hypervisor, order.id, O.RUNNING)).boots == 1
        await hypervisor.start(order)
        await until_up(hypervisor, order)
        running = await until(hypervisor, order.id, O.RUNNING)
        assert (running.boots, running.memory_defined_mib) == (1, order.memory_defined_mib)
        assert await hypervisor.console(order.id, tail_bytes=4096)
        assert len(await hypervisor.console(order.id, tail_bytes=7)) == 7
        stream = await hypervisor.connect(order, 22)
        assert (await stream.read()).startswith(b"SSH-2.0-")
        await stream.close()
        with pytest.raises(HypervisorError):
            await hypervisor.connect(order, 4711)

        for _ in range(2):
            await hypervisor.pause(order.id)
            await until(hypervisor, order.id, O.PAUSED)
        for _ in range(2):
            await hypervisor.resume(order.id)
            await until(hypervisor, order.id, O.RUNNING)
        await until_up(hypervisor, order)

        larger = replace(order, memory_mib=order.memory_defined_mib, cpus=2)
        for _ in range(2):
            await hypervisor.resize(larger)
        await _until_memory(hypervisor, order.id, larger.memory_mib)

        await hypervisor.remove(order.id)
        await hypervisor.remove(order.id)
        assert await hypervisor.instances() == []
        assert not await hypervisor.guest_up(order)
        assert await hypervisor.console(order.id, tail_bytes=4096)


async def _until_memory(hypervisor: Hypervisor, id: str, memory_mib: int) -> None:
    """A balloon takes its time."""
    for _ in range(100):
        there = await seen(hypervisor, id)
        assert there is not None
        if there.memory_mib == memory_mib:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(there)


@in_loop
async def test_a_suspended_guest_is_restored_by_another_agent(site: Site, monkeypatch) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, order)
        with monkeypatch.context() as patch:
            cut_at(patch, "agent.suspend.begun")
            with pytest.raises(Cut):
                await hypervisor.suspend(order.id)
        await until(hypervisor, order.id, O.RUNNING)
        with monkeypatch.context() as patch:
            cut_at(patch, "agent.suspended")
            with pytest.raises(Cut):
                await hypervisor.suspend(order.id)
        await until(hypervisor, order.id, O.SUSPENDED)
        await hypervisor.suspend(order.id)
        assert not await hypervisor.guest_up(order)
    async with site.opened() as hypervisor:
        assert (await until(hypervisor, order.id, O.SUSPENDED)).boots == 1
        with monkeypatch.context() as patch:
            cut_at(patch, "agent.restored")
            with contextlib.suppress(Cut):
                await hypervisor.restore(order)
    async with site.opened() as hypervisor:
        assert (await until(hypervisor, order.id, O.RUNNING)).boots == 1
        await hypervisor.restore(order)
        await until_up(hypervisor, order)
        await hypervisor.pause(order.id)
        await hypervisor.suspend(order.id)
        await until(hypervisor, order.id, O.SUSPENDED)
        await hypervisor.remove(order.id)


@pytest.mark.parametrize("point", REMOVAL)
@in_loop
async def test_a_removal_cut_off_anywhere_can_be_repeated(site: Site, point: str, monkeypatch) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore)
        await hypervisor.start(order)
        with monkeypatch.context() as patch:
            cut_at(patch, point)
            with pytest.raises(Cut):
                await hypervisor.remove(order.id)
    async with site.opened() as hypervisor:
        left = await seen(hypervisor, order.id)
        assert (left is None) == (point == "agent.removed")
        assert left is None or (left.state, left.created) == (O.STOPPED, point == "agent.domain.destroyed")
        await hypervisor.remove(order.id)
        assert await hypervisor.instances() == []


@pytest.mark.soak_live
@in_loop
async def test_a_stopped_guest_is_off_and_boots_again(site: Site) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, order)
        await hypervisor.stop(order.id, grace_s=10)
        for _ in range(2):
            off = await until(hypervisor, order.id, O.STOPPED)
            assert (off.boots, off.created, off.reason) == (1, True, "")
            await hypervisor.stop(order.id, grace_s=0)
        again = replace(order, boots=2)
        await hypervisor.start(again)
        assert (await until(hypervisor, order.id, O.RUNNING)).boots == 2
        await hypervisor.stop(order.id, grace_s=0)
        await until(hypervisor, order.id, O.STOPPED)
        await hypervisor.remove(order.id)


@in_loop
async def test_only_what_is_vouched_for_boots_and_one_changed_byte_of_it_is_seen(site: Site) -> None:
    order = site.order("wsp-1", boot_limit_s=300)
    envelope = write_envelope(signing.sign(order, "demo", {}, key("desy"), signed_at=1))
    vouched = Vouched(digest(order), (envelope.decode(),), (public("desy"),))
    order = replace(order, vouched=vouched)
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, order)
        await hypervisor.stop(order.id, grace_s=0)
        revoked = replace(order, boots=2, vouched=replace(vouched, refused="its signer was revoked"))
        altered = replace(order, boots=2, cmdline=order.cmdline + " init=/bin/sh")
        for bad, reason in ((revoked, "its signer was revoked"), (altered, "is not what was granted")):
            with pytest.raises(ImageRefused, match=reason):
                await hypervisor.start(bad)
        flip_a_byte(site.cached(order.files[0].sha256))
        with pytest.raises(ImageRefused, match="was altered in the node's cache") as caught:
            await hypervisor.start(replace(order, boots=2))
        assert caught.value.final
        assert (await until(hypervisor, order.id, O.STOPPED)).boots == 1
        await hypervisor.remove(order.id)
        fresh = replace(site.order("wsp-2"), vouched=vouched)
        await hypervisor.create(fresh, site.appliance.fetch, ignore)
        await hypervisor.remove(fresh.id)


def flip_a_byte(path: Path) -> None:
    """In place, with the times that it had: nothing but its content tells."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        (byte,) = file.read(1)
        file.seek(before.st_size // 2)
        file.write(bytes([byte ^ 1]))
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@in_loop
async def test_a_guests_own_end_is_told_from_its_death(site: Site) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, order)
        async with news_of(hypervisor, order.id) as heard:
            await site.power_off(order)
            off = await until(hypervisor, order.id, O.STOPPED, within_s=15)
            assert (off.boots, off.reason) == (1, "")
            await asyncio.wait_for(heard.wait(), 5)
        again = replace(order, boots=2)
        await hypervisor.start(again)
        await until(hypervisor, order.id, O.RUNNING)
        async with news_of(hypervisor, order.id) as heard:
            site.kill(order.id)
            dead = await until(hypervisor, order.id, O.BROKEN)
            assert (dead.boots, dead.reason) == (2, "the virtual machine's process ended unexpectedly")
            await asyncio.wait_for(heard.wait(), 5)
        await hypervisor.remove(order.id)


@pytest.mark.soak_live
@in_loop
async def test_an_end_that_no_agent_saw_is_told_all_the_same(site: Site) -> None:
    off, dead = site.order("wsp-1"), site.order("wsp-2")
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, off)
        await hypervisor.create(dead, site.appliance.fetch, ignore)
        await hypervisor.start(dead)
    site.kill(dead.id)
    await site.power_off(off)
    await asyncio.sleep(2 if site.real else 0)
    async with site.opened() as hypervisor:
        assert (await until(hypervisor, off.id, O.STOPPED)).reason == ""
        assert "ended unexpectedly" in (await until(hypervisor, dead.id, O.BROKEN)).reason
        await hypervisor.remove(off.id)
        await hypervisor.remove(dead.id)


@in_loop
async def test_no_node_is_torn_down_with_a_workspace_on_it(site: Site) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore)
        if site.real:
            with pytest.raises(HypervisorError, match="still on the node"):
                await hypervisor.close(tear_down=True)
        assert await seen(hypervisor, order.id)
        await hypervisor.remove(order.id)


# ---------------------------------------------------------------- saving


def capture_of(order: WorkspaceOrder, id: str = "sav-1", *, at_end: bool = False) -> CaptureOrder:
    return CaptureOrder(id, order.id, at_end, clean=False, beneath=chain_of(order.files))


@in_loop
async def test_a_running_guest_is_taken_and_goes_on(site: Site) -> None:
    order = site.order("wsp-1")
    ordered = capture_of(order)
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, order)
        assert await hypervisor.captures() == set()
        for _ in range(2):
            await hypervisor.take(ordered)
            assert await hypervisor.captures() == await hypervisor.captures(taken=True) == {"sav-1"}
        assert (await until(hypervisor, order.id, O.RUNNING)).boots == 1
        assert await hypervisor.quiesced("sav-1") is Quiesced.PAUSE
        await hypervisor.remove(order.id)
    async with site.opened() as hypervisor:  # it outlives its workspace, and the agent
        for _ in range(2):
            delta = await hypervisor.delta(ordered)
            said = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", delta]))
            assert (said["format"], said["virtual-size"]) == ("qcow2", order.disk_mib << 20)
            assert "backing-filename" not in said
        assert await hypervisor.captures(taken=True) == {"sav-1"}
        for _ in range(2):
            await hypervisor.drop_capture("sav-1")
        assert await hypervisor.captures() == set()


@pytest.mark.soak_live
@in_loop
async def test_a_guest_is_taken_at_its_end_once_it_is_off(site: Site) -> None:
    order = site.order("wsp-1")
    ordered = capture_of(order, at_end=True)
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, order)
        await hypervisor.take(ordered)
        assert await hypervisor.quiesced("sav-1") is Quiesced.OFF
        await hypervisor.remove(order.id)
        assert (await hypervisor.delta(ordered)).stat().st_size > 0
        await hypervisor.drop_capture("sav-1")


@pytest.mark.parametrize("point", ["agent.capture.copied", "agent.capture.kept"])
@in_loop
async def test_a_taking_cut_off_is_repeated(site: Site, point: str, monkeypatch) -> None:
    order = site.order("wsp-1")
    ordered = capture_of(order)
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore)
        with monkeypatch.context() as patch:
            cut_at(patch, point)
            with pytest.raises(Cut):
                await hypervisor.take(ordered)
        taken = await hypervisor.captures(taken=True)
        assert taken == ({"sav-1"} if point == "agent.capture.kept" else set())
    async with site.opened() as hypervisor:
        await hypervisor.take(ordered)
        assert await hypervisor.captures(taken=True) == {"sav-1"}
        assert await hypervisor.quiesced("sav-1") is Quiesced.OFF
        await hypervisor.delta(ordered)
        await hypervisor.drop_capture("sav-1")
        await hypervisor.remove(order.id)


@in_loop
async def test_what_is_gone_cannot_be_taken(site: Site) -> None:
    async with site.opened() as hypervisor:
        with pytest.raises(HypervisorError, match="not on the node any more") as refused:
            await hypervisor.take(capture_of(site.order("wsp-1")))
        assert refused.value.final
        assert await hypervisor.captures(taken=True) == set()
        await hypervisor.drop_capture("sav-1")
