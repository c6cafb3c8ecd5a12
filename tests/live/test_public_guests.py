"""Two real guests that share an image's disk, one of them with a public address beside its private one."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hypervisors import boot, in_loop, machine_network, until, until_up
from tests.live.test_cluster_networks import ClusterSite
from vws.core.deployment import ContextOrder, DiskOrder, NetworkOrder, NicOrder, WorkspaceOrder
from vws.core.lifecycle import Observation as O
from vws.core.site import ImageFile
from vws.ports import Hypervisor

pytestmark = pytest.mark.live

# Two ways out, of which one is to be taken.
PRIVATE = NetworkOrder("net-red", "10.20.0.0/24", "10.20.0.1", outgoing=True, domain="red.example")
CAMPUS = NetworkOrder("pol-campus", "198.51.100.0/24", "198.51.100.1", outgoing=True, public=True)
ONE, TWO, FRONT = "10.20.0.2", "10.20.0.3", "198.51.100.16"
WRITES = (
    "touch /reference/mine",
    "echo spoiled >/reference/told",
    "mount -o remount,rw /reference && touch /reference/mine",
    "echo spoiled | dd of=/dev/vdc bs=512 count=1 conv=notrunc",
)


@pytest.fixture
def site(tmp_path: Path, bundle: Path) -> Iterator[ClusterSite]:
    before = machine_network()
    site = ClusterSite(tmp_path / "site", bundle)
    site.networks = (PRIVATE, CAMPUS)
    yield site
    site.tear_down()
    assert machine_network() == before


def reference(site: ClusterSite) -> ImageFile:
    """An image with a file system and one file on it."""
    folder = site.appliance.folder
    content = folder.parent / "content"
    content.mkdir()
    (content / "told").write_text("what all of them read\n")
    raw, disk = folder.parent / "raw", folder / "reference"
    subprocess.run(["mkfs.ext4", "-q", "-d", content, raw, "8M"], check=True)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], check=True)
    data = disk.read_bytes()
    return ImageFile("disk", hashlib.sha256(data).hexdigest(), len(data), "qcow2", 8)


def members(site: ClusterSite) -> tuple[WorkspaceOrder, WorkspaceOrder]:
    """Their context's broker is away, which does not keep their disks from being mounted."""
    disks = (DiskOrder("reference", 0, mount="/reference", image="img-2", file=reference(site)),)
    told = ContextOrder("https://vws.example:1", "c2VjcmV0", "no certificate\n", PRIVATE.domain)
    red = [NicOrder(PRIVATE.id, f"02:77:14:00:00:{n:02}", address, "private") for n, address in ((2, ONE), (3, TWO))]
    campus = NicOrder(CAMPUS.id, "02:78:00:00:00:16", FRONT, "outside")
    return (
        site.order("wsp-1", nics=(red[0], campus), disks=disks, context=told, member="front-1"),
        site.order("wsp-2", nics=(red[1],), disks=disks, context=told, member="worker-1"),
    )


@in_loop
async def live_with_both(site: ClusterSite) -> None:
    one, two = members(site)
    image = site.directory / "images" / one.disks[0].file.sha256
    async with site.opened() as hypervisor:
        await asyncio.gather(boot(hypervisor, site, one), boot(hypervisor, site, two))
        written = image.stat()
        await the_front_is_on_both_networks(site, hypervisor, one, two)
        await the_node_reaches_it(site)
        for member in (one, two):
            await nobody_can_write(site, hypervisor, member)
        assert image.stat().st_mtime_ns == written.st_mtime_ns
        await hypervisor.suspend(one.id)
        await until(hypervisor, one.id, O.SUSPENDED)
        await hypervisor.restore(one)
        await until_up(hypervisor, one)
        await the_node_reaches_it(site)
        assert await site.said(hypervisor, one, "cat /reference/told") == "what all of them read\n"
        await hypervisor.remove(one.id)
        assert FRONT not in subprocess.check_output([*site.enter, "ip", "route"], text=True)
        assert await site.said(hypervisor, two, "cat /reference/told") == "what all of them read\n", (
            "it is another's too"
        )
        await hypervisor.remove(two.id)


async def the_front_is_on_both_networks(site: ClusterSite, hypervisor: Hypervisor, one, two) -> None:
    for _ in range(50):
        if FRONT in (shown := await site.said(hypervisor, one, "ip -4 address show dev eth1; ip route")):
            break
        await asyncio.sleep(0.2)
    assert f"inet {FRONT}/24" in shown
    assert f"default via {CAMPUS.gateway} dev eth1" in shown, "the way out is the public network"
    assert shown.count("default") == 1
    assert "default via 10.20.0.1 dev eth0" in await site.said(hypervisor, two, "ip route")
    assert "1 packets received" in await site.said(hypervisor, one, "ping -c 1 -W 5 worker-1"), "by the private one"
    assert TWO in await site.said(hypervisor, one, "ping -c 1 -W 5 worker-1.red.example")
    assert "1 packets received" in await site.said(hypervisor, two, "ping -c 1 -W 5 front-1")
    assert "1 packets received" in await site.said(hypervisor, two, f"ping -c 1 -W 5 {FRONT}"), "as anybody"


async def the_node_reaches_it(site: ClusterSite) -> None:
    """By ssh from the node's namespace, as anybody outside would."""
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=10")
    command = [*site.enter, "ssh", "-i", str(site._key), *(word for option in options for word in ("-o", option))]
    said = await asyncio.to_thread(
        subprocess.check_output, [*command, f"root@{FRONT}", "hostname"], text=True, timeout=30
    )
    assert said == "front-1\n"


async def nobody_can_write(site: ClusterSite, hypervisor: Hypervisor, member: WorkspaceOrder) -> None:
    for _ in range(50):
        if (read := await site.said(hypervisor, member, "cat /reference/told; cat /sys/block/vdc/ro")) != "1\n":
            break
        await asyncio.sleep(0.2)
    assert read == "what all of them read\n1\n"
    for write in WRITES:
        said = await site.said(hypervisor, member, f"({write}) 2>&1 && echo done")
        assert said, write
        assert "done" not in said, (write, said)
    assert await site.said(hypervisor, member, "cat /reference/told") == "what all of them read\n"


def test_a_front_with_a_public_address_and_a_worker_read_one_disk(site: ClusterSite) -> None:
    live_with_both(site)
