"""Two real guests in two networks of the same range: what each sees, by the agent and by the door."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hypervisors import LibvirtSite, boot, in_loop, machine_network, until, until_up
from vws.core.deployment import ContextOrder, DiskOrder, NetworkOrder, NicOrder, NodeOrders, WorkspaceOrder
from vws.core.lifecycle import Observation as O
from vws.node.libvirt import LibvirtHypervisor
from vws.ports import Hypervisor
from vws.service.certificates import make_ca, make_server

pytestmark = pytest.mark.live

RED = NetworkOrder("net-red", "10.20.0.0/24", "10.20.0.1", domain="red.example")
BLUE = NetworkOrder("net-blue", "10.20.0.0/24", "10.20.0.1", domain="blue.example")
ONE, TWO, OWN = "10.20.0.2", "10.20.0.3", "10.77.1.9"
NAME = "vws.example"
ASK = (
    "exec 2>&1; cd /run/seed/vws/context; read -r url <url; "
    "curl --silent --show-error --max-time 10 --cacert ca.pem --connect-to ::169.254.169.254:443 $url/hello"
)


class ClusterSite(LibvirtSite):
    """A real node with two networks beside its own. service: (host, port)."""

    service: tuple[str, int] | None = None
    networks: tuple[NetworkOrder, ...] = (RED, BLUE)

    def agent(self) -> LibvirtHypervisor:
        return LibvirtHypervisor(self.directory, "nod-1", self.config, self.service)

    @property
    def orders(self) -> NodeOrders:
        return replace(super().orders, networks=self.networks)

    async def said(self, hypervisor: Hypervisor, order: WorkspaceOrder, command: str) -> str:
        """What a command in the guest prints, by ssh through the agent."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await joined(hypervisor, order, reader, writer)

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            options = (
                "StrictHostKeyChecking=no",
                "UserKnownHostsFile=/dev/null",
                "LogLevel=ERROR",
                "ConnectTimeout=10",
            )
            arguments = ["ssh", "-p", str(port), "-i", str(self._key), *(w for o in options for w in ("-o", o))]
            done = await asyncio.to_thread(
                subprocess.run, [*arguments, "root@127.0.0.1", command], timeout=30, capture_output=True, text=True
            )
        return done.stdout


async def joined(
    hypervisor: Hypervisor, order: WorkspaceOrder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    stream = await hypervisor.connect(order, 22)

    async def into() -> None:
        while data := await reader.read(65536):
            await stream.write(data)

    going_in = asyncio.create_task(into())
    with contextlib.suppress(OSError):
        while data := await stream.read():
            writer.write(data)
            await writer.drain()
    going_in.cancel()
    await asyncio.gather(going_in, return_exceptions=True)
    await stream.close()
    writer.close()


@contextlib.asynccontextmanager
async def tls_service(directory: Path) -> AsyncIterator[tuple[str, int]]:
    """Says hello to whoever trusts it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.crt", directory / "server.key")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()


@pytest.fixture
def site(tmp_path, bundle) -> Iterator[ClusterSite]:
    before = machine_network()
    site = ClusterSite(tmp_path / "site", bundle)
    make_ca(tmp_path, "tiny", time.time())
    make_server(tmp_path, [NAME], time.time())
    yield site
    site.tear_down()
    assert machine_network() == before


def members(site: ClusterSite, ca: Path, port: int) -> tuple[WorkspaceOrder, WorkspaceOrder]:
    """The one in the red network with a disk, the other in the blue one and in the node's own."""
    told = ContextOrder(f"https://{NAME}:{port}", "c2VjcmV0", ca.read_text(), RED.domain)
    disk = DiskOrder("scratch", 96, "ext4", "scratch", "/scratch")
    red = NicOrder(RED.id, "02:77:14:00:00:02", ONE, "private")
    blue = NicOrder(BLUE.id, "02:77:14:00:00:03", TWO, "private")
    own = NicOrder("", "02:77:0a:4d:01:09", OWN, "site")
    return (
        site.order("wsp-1", nics=(red,), disks=(disk,), context=told),
        site.order("wsp-2", nics=(blue, own), context=replace(told, domain=BLUE.domain)),
    )


@in_loop
async def live_in_two_networks(site: ClusterSite, directory: Path) -> None:
    async with tls_service(directory) as site.service:
        one, two = members(site, directory / "ca.crt", site.service[1])
        async with site.opened() as hypervisor:
            await asyncio.gather(boot(hypervisor, site, one), boot(hypervisor, site, two))
            await each_sees_its_own(site, hypervisor, one, two)
            assert await site.said(hypervisor, one, ASK) == "hello\n"
            assert await site.said(hypervisor, two, ASK) == "hello\n"
            await has_its_disk(site, hypervisor, one)
        async with site.opened() as hypervisor:
            assert await site.said(hypervisor, one, ASK) == "hello\n", "another agent opens the door again"
            await hypervisor.suspend(one.id)
            await until(hypervisor, one.id, O.SUSPENDED)
            await hypervisor.restore(one)
            await until_up(hypervisor, one)
            assert await site.said(hypervisor, one, ASK) == "hello\n"
            await red_goes_with_its_guest(site, hypervisor, one, two)
            await hypervisor.remove(two.id)


async def each_sees_its_own(site: ClusterSite, hypervisor: Hypervisor, one, two) -> None:
    assert (await site.said(hypervisor, one, "hostname; cat /run/address")).split() == ["ws-1", ONE]
    assert (await site.said(hypervisor, two, "hostname; cat /run/address")).split() == ["ws-2", TWO]
    assert "1 packets received" in await site.said(hypervisor, one, "ping -c 1 -W 5 ws-1.red.example")
    assert "1 packets received" in await site.said(hypervisor, two, "ping -c 1 -W 5 ws-2.blue.example")
    for member, stranger in ((one, TWO), (one, OWN), (one, "10.77.1.1"), (two, ONE), (one, "ws-2.blue.example")):
        assert "1 packets received" not in await site.said(hypervisor, member, f"ping -c 1 -W 1 {stranger} 2>&1")
    routes = await site.said(hypervisor, one, "ip route")
    assert "default" not in routes, "there is no way out"
    await its_second_interface_works(site, hypervisor, two)


async def its_second_interface_works(site: ClusterSite, hypervisor: Hypervisor, two: WorkspaceOrder) -> None:
    async with asyncio.timeout(60):
        while OWN not in await site.said(hypervisor, two, "cat /run/address.eth1"):
            await asyncio.sleep(0.2)
    shown = await site.said(hypervisor, two, "ip -4 address show dev eth1; ip route")
    assert f"inet {OWN}/24" in shown
    assert "default via 10.77.1.1 dev eth1" in shown
    assert "1 packets received" in await site.said(hypervisor, two, "ping -c 1 -W 5 10.77.1.1")
    names = (await site.said(hypervisor, two, "cat /etc/resolv.conf")).splitlines()
    assert names == ["search blue.example vws.internal", "nameserver 10.20.0.1", "nameserver 10.77.1.1"]
    assert OWN in await site.said(hypervisor, two, "ping -c 1 -W 5 ws-2.vws.internal"), "both are asked"


async def has_its_disk(site: ClusterSite, hypervisor: Hypervisor, one: WorkspaceOrder) -> None:
    shown = await site.said(hypervisor, one, "cat /sys/block/vdc/serial; echo; cat /sys/block/vdc/size")
    assert shown.split() == ["vws-scratch", str(96 << 11)]
    write = "dd if=/dev/zero of=/dev/vdc bs=1M seek=95 count=2 2>&1"
    assert "No space left" in await site.said(hypervisor, one, write)


async def red_goes_with_its_guest(site: ClusterSite, hypervisor: Hypervisor, one, two) -> None:
    site.networks = (BLUE,)
    await hypervisor.open(site.orders)
    rooms = f"/run/netns/vws-{site.tag}-"
    assert Path(f"{rooms}{RED.id}").exists()
    await hypervisor.remove(one.id)
    assert not Path(f"{rooms}{RED.id}").exists()
    assert Path(f"{rooms}{BLUE.id}").exists()
    assert await site.said(hypervisor, two, ASK) == "hello\n"


def test_two_guests_in_two_networks_of_the_same_range(site, tmp_path) -> None:
    live_in_two_networks(site, tmp_path)
