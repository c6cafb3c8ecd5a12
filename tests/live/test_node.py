"""A real node under real troubles: dead daemons, a full disk, a panic, neighbours on the same machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from tests.hypervisors import LibvirtSite, boot, in_loop, seen, until, until_up
from vws.core.lifecycle import Observation as O
from vws.node import daemons
from vws.node.config import NodeConfig
from vws.node.cpushare import CGROUPS
from vws.node.libvirt import LibvirtHypervisor
from vws.ports import Hypervisor, HypervisorError

pytestmark = pytest.mark.live


def ignore(text: str) -> None: ...


async def uptime_s(site: LibvirtSite, order) -> float:
    return float((await site.run(order, "cat /proc/uptime")).split()[0])


@pytest.mark.soak
@in_loop
async def test_daemons_that_died_are_started_again_and_guests_do_not_notice(site: LibvirtSite) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, order)
        qemu, before_s = site.pid(order.id), await uptime_s(site, order)
        os.kill(site.daemon_pid("libvirtd"), signal.SIGKILL)
        await hypervisor.pause(order.id)
        await hypervisor.resume(order.id)
        for daemon in ("libvirtd", "dnsmasq", "virtlogd"):
            os.kill(site.daemon_pid(daemon), signal.SIGKILL)
    async with site.opened() as hypervisor:
        assert (await until(hypervisor, order.id, O.RUNNING)).boots == 1
        assert site.pid(order.id) == qemu
        assert await uptime_s(site, order) > before_s
        await hypervisor.suspend(order.id)
        os.kill(site.daemon_pid("libvirtd"), signal.SIGKILL)
        await until(hypervisor, order.id, O.SUSPENDED)
        await hypervisor.restore(order)
        await until_up(hypervisor, order)
        assert await uptime_s(site, order) > before_s
        await hypervisor.remove(order.id)


@pytest.mark.soak
@in_loop
async def test_a_libvirtd_that_dies_in_a_suspend_loses_no_guest(site: LibvirtSite) -> None:
    """Before the memory is on disk, while it is written, and when all of it is there but QEMU has yet to end."""
    order = site.order("wsp-1")
    memory = site.directory / "workspaces/wsp-1/memory"
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, order)
        for begun in (lambda: memory.exists(), lambda: memory.stat().st_size > 1 << 20, lambda: is_whole(memory)):
            before_s = await uptime_s(site, order)
            suspending = asyncio.create_task(hypervisor.suspend(order.id))
            while not (memory.exists() and begun()):
                await asyncio.sleep(0.001)
            os.kill(site.daemon_pid("libvirtd"), signal.SIGKILL)
            await suspending
            assert (await until(hypervisor, order.id, O.SUSPENDED)).boots == 1
            await hypervisor.restore(order)
            await until_up(hypervisor, order)
            assert await uptime_s(site, order) > before_s
        await hypervisor.remove(order.id)


def is_whole(memory: Path) -> bool:
    return memory.read_bytes()[:16] == b"LibvirtQemudSave"


@pytest.mark.soak
@in_loop
async def test_a_suspend_that_fails_leaves_the_file_to_whoever_is_saving(site: LibvirtSite) -> None:
    """As an agent that was killed in a suspend leaves libvirtd at work, and its successor suspends too."""
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, order)
        before_s = await uptime_s(site, order)
        first = asyncio.create_task(hypervisor.suspend(order.id))
        while not (site.directory / "workspaces/wsp-1/memory").exists():
            await asyncio.sleep(0.001)
        with contextlib.suppress(HypervisorError):  # it may come just as the first ends; an agent would look and go on
            await hypervisor.suspend(order.id)
        await first
        await until(hypervisor, order.id, O.SUSPENDED)
        await hypervisor.restore(order)
        await until_up(hypervisor, order)
        assert await uptime_s(site, order) > before_s
        await hypervisor.remove(order.id)


@in_loop
async def test_the_loss_of_libvirtd_is_told(site: LibvirtSite) -> None:
    async with site.opened() as hypervisor:
        listening = asyncio.ensure_future(anext(hypervisor.changes()))
        await asyncio.sleep(0.1)
        os.kill(site.daemon_pid("libvirtd"), signal.SIGKILL)
        with pytest.raises(HypervisorError, match="lost"):
            await asyncio.wait_for(listening, 5)
        assert await hypervisor.instances() == []


@in_loop
async def test_after_the_machines_own_reboot_a_guest_is_dead_and_may_boot_again(site: LibvirtSite) -> None:
    """What ran had pids that others may have by now; none of those may be harmed."""
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore)
        await hypervisor.start(order)
    status = site.directory / "libvirt/run/libvirt/qemu/vws-wsp-1.xml"
    bystander = subprocess.Popen(["sleep", "60"])
    status_text = status.read_text().replace(f"pid='{site.pid(order.id)}'", f"pid='{bystander.pid}'")
    site.lose_power()
    status.write_text(status_text)
    (site.directory / "libvirt/boot-id").write_text("another boot\n")
    try:
        async with site.opened() as hypervisor:
            dead = await until(hypervisor, order.id, O.BROKEN)
            assert (dead.boots, dead.reason) == (1, "the virtual machine's process ended unexpectedly")
            await hypervisor.start(replace(order, boots=2))
            assert (await until(hypervisor, order.id, O.RUNNING)).boots == 2
            await hypervisor.remove(order.id)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@in_loop
async def test_a_guests_network_that_is_taken_away_is_put_back(site: LibvirtSite) -> None:
    one, two = site.order("wsp-1"), site.order("wsp-2")
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, one)
        mending = asyncio.create_task(mend_for_ever(hypervisor))
        subprocess.run([*site.enter, "ip", "link", "delete", "vws0"], check=True)
        await until_up(hypervisor, one)
        os.kill(site.daemon_pid("dnsmasq"), signal.SIGKILL)
        await boot(hypervisor, site, two)
        assert two.address in await site.run(one, f"ping -c 1 -W 5 {two.name}.vws.internal")
        mending.cancel()
        await hypervisor.remove(one.id)
        await hypervisor.remove(two.id)


async def mend_for_ever(hypervisor: Hypervisor) -> None:
    """As an agent does, but more often."""
    while True:
        await hypervisor.mend()
        await asyncio.sleep(0.5)


@in_loop
async def test_stray_files_are_nobodys_workspaces(site: LibvirtSite) -> None:
    async with site.opened() as hypervisor:
        strays = [site.directory / "workspaces/lost+found", site.directory / "network/names/.swp"]
        strays[0].mkdir()
        strays[1].touch()
        assert await hypervisor.instances() == []
        await hypervisor.describe()
        strays[0].rmdir()
        strays[1].unlink()


@in_loop
async def test_an_agent_adopts_what_runs(site: LibvirtSite) -> None:
    names = ("libvirtd", "virtlogd", "dnsmasq")
    async with site.opened():
        before = [site.daemon_pid(name) for name in names]
    async with site.opened():
        assert [site.daemon_pid(name) for name in names] == before


@in_loop
async def test_guests_know_each_other_and_an_address_finds_its_next_owner(site: LibvirtSite) -> None:
    one, two = site.order("wsp-1"), site.order("wsp-2")
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, one)
        await boot(hypervisor, site, two)
        there = await seen(hypervisor, one.id)
        assert there is not None
        assert (await site.run(one, "hostname", there.host_key)).strip() == one.name
        assert "1 packets received" in await site.run(one, f"ping -c 1 -W 5 {two.name}")
        assert two.address in await site.run(one, f"ping -c 1 -W 5 {two.name}.vws.internal")
        await hypervisor.remove(two.id)

        next_owner = site.order("wsp-3", address=two.address, mac="02:77:00:00:00:99")
        await boot(hypervisor, site, next_owner)
        assert "1 packets received" in await site.run(one, f"ping -c 1 -W 5 {next_owner.name}")
        await hypervisor.remove(one.id)
        await hypervisor.remove(next_owner.id)


@in_loop
async def test_privileges_and_shares_of_a_guest(site: LibvirtSite) -> None:
    order = site.order("wsp-1", cpus=2)
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore)
        await hypervisor.start(order)
        process = Path(f"/proc/{site.pid(order.id)}")
        uid, _ = daemons.qemu_ids()
        assert process.stat().st_uid == uid != 0
        assert Path(f"/proc/{site.daemon_pid('dnsmasq')}").stat().st_uid != 0
        assert (site.directory / "libvirt/run/libvirt/libvirt-sock").stat().st_mode & 0o077 == 0
        for name in ("seed.iso", "disk.qcow2"):
            assert (site.directory / "workspaces/wsp-1" / name).stat().st_mode & 0o077 == 0
        assert not subprocess.check_output(["nsenter", f"--net={site.namespace}", "ss", "-Hltn", "src", "127.0.0.0/8"])

        share = next(CGROUPS.glob(f"*/vws-{site.tag}/wsp-1/cpu.shares"))
        assert share.read_text().strip() == "2048"
        assert str(site.pid(order.id)) in (share.parent / "cgroup.procs").read_text().split()
        await hypervisor.resize(replace(order, cpus=1))
        assert share.read_text().strip() == "1024"
        await hypervisor.remove(order.id)
        assert not share.parent.exists()


@in_loop
async def test_a_panic_is_told_with_its_reason(site: LibvirtSite) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, order)
        await site.run(order, "modprobe pvpanic-mmio 2>/dev/null; sleep 2")
        await site.run(order, "(sleep 0.2; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &")
        panicked = await until(hypervisor, order.id, O.BROKEN)
        assert panicked.reason.startswith("the guest's kernel panicked: ")
        assert "sysrq triggered crash" in panicked.reason
        await hypervisor.remove(order.id)


@in_loop
async def test_no_room_to_suspend_leaves_it_running(site: LibvirtSite, monkeypatch) -> None:
    order = site.order("wsp-1")
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore)
        await hypervisor.start(order)
        usage = shutil.disk_usage(site.directory)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100 << 20))
            with pytest.raises(HypervisorError, match="192 MiB needed, 100 MiB free"):
                await hypervisor.suspend(order.id)
        assert (await until(hypervisor, order.id, O.RUNNING)).boots == 1
        assert not (site.directory / "workspaces/wsp-1/memory").exists()
        await hypervisor.remove(order.id)


@in_loop
async def test_what_is_not_ours_is_not_touched(site: LibvirtSite) -> None:
    """A domain with a name like ours but without our mark, by somebody on the same libvirtd."""
    foreign = "<domain type='qemu'><name>vws-wsp-9</name><memory>1024</memory><os><type>hvm</type></os></domain>"
    async with site.opened() as hypervisor:
        uri = f"qemu+unix:///system?socket={site.directory}/libvirt/run/libvirt/libvirt-sock"
        connection = await asyncio.to_thread(libvirt.open, uri)
        domain = await asyncio.to_thread(connection.defineXML, foreign)
        assert await hypervisor.instances() == []
        await hypervisor.remove("wsp-9")
        assert domain.name() == "vws-wsp-9"
        domain.undefine()
        connection.close()


@pytest.fixture
def crowded(tmp_path, bundle) -> Iterator[LibvirtSite]:
    """A node whose disk is small and soon full."""
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", tmp_path / "small"], check=True)
    try:
        site = LibvirtSite(tmp_path / "small", bundle, NodeConfig(cache="80MiB"))
        shutil.move(tmp_path / "small/image", tmp_path / "image")
        site.appliance.folder = tmp_path / "image"
        yield site
        site.tear_down()
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "small"], check=True)


@in_loop
async def test_a_full_disk_is_told_as_such(crowded: LibvirtSite) -> None:
    order = crowded.order("wsp-1", disk_mib=512)
    async with crowded.opened() as hypervisor:
        await boot(hypervisor, crowded, order)
        await crowded.run(order, "until grep -q ' /data ' /proc/mounts; do sleep 0.2; done")
        await crowded.run(order, "dd if=/dev/urandom of=/data/fill bs=1M count=100 >/dev/null 2>&1 &")
        broken = await until(hypervisor, order.id, O.BROKEN, within_s=40)
        assert "the node's disk is full" in broken.reason
        await hypervisor.remove(order.id)


@pytest.fixture
def patient(tmp_path, bundle, monkeypatch) -> Iterator[LibvirtSite]:
    """A node that keeps little of what guests say."""
    monkeypatch.setattr(daemons, "CONSOLE_BYTES_MAX", 64 << 10)
    site = LibvirtSite(tmp_path / "patient", bundle)
    yield site
    site.tear_down()


@pytest.mark.soak
@in_loop
async def test_a_guest_that_talks_for_ever_fills_no_disk(patient: LibvirtSite) -> None:
    site, order = patient, patient.order("wsp-1")
    async with site.opened() as hypervisor:
        await boot(hypervisor, site, order)
        await site.run(order, '(i=0; while true; do i=$((i+1)); echo "line $i of many"; done) >/dev/console 2>&1 &')
        logs = site.directory / "consoles"
        for _ in range(300):
            await asyncio.sleep(0.1)
            if b"line 20000 " in await hypervisor.console(order.id, tail_bytes=1 << 20):
                break
        sizes = [path.stat().st_size for path in logs.iterdir()]
        assert len(sizes) == 2
        assert max(sizes) <= 65 << 10
        tail = await hypervisor.console(order.id, tail_bytes=100 << 10)
        assert b"line 20000 " in tail
        await hypervisor.remove(order.id)
        assert await hypervisor.console(order.id, tail_bytes=1000)


@pytest.fixture
def neighbour(tmp_path, bundle) -> Iterator[LibvirtSite]:
    """A second node on this machine; its directory is longer than a unix socket's path may be."""
    site = LibvirtSite(tmp_path / ("long" * 30), bundle)
    yield site
    site.tear_down()


@pytest.mark.soak  # tests/live/test_two_nodes.py has two as well
@in_loop
async def test_two_nodes_on_one_machine_do_not_meet(site: LibvirtSite, neighbour: LibvirtSite) -> None:
    """Same subnet, same ids."""
    mine, theirs = site.order("wsp-1"), neighbour.order("wsp-1")
    async with site.opened() as here, neighbour.opened() as there:
        await boot(here, site, mine)
        await boot(there, neighbour, theirs)
        keys = [(await seen(node, "wsp-1")).host_key for node in (here, there)]
        assert keys[0] != keys[1]
        await neighbour.run(theirs, "true", keys[1])
        await there.remove("wsp-1")
        await there.close(tear_down=True)
        assert not neighbour.namespace.exists()
        await site.run(mine, "true", keys[0])
        assert (await until(here, "wsp-1", O.RUNNING)).boots == 1
        await here.remove("wsp-1")


@in_loop
async def test_a_node_stays_idle_cheaply(site: LibvirtSite) -> None:
    """Nothing in this process polls."""
    async with site.opened() as hypervisor:
        assert isinstance(hypervisor, LibvirtHypervisor)
        await asyncio.sleep(0.5)
        before = os.times()
        await asyncio.sleep(2)
        after = os.times()
        assert after.user + after.system - before.user - before.system < 0.02
