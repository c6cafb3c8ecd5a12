"""The networks of clusters on a node, without guests: who hears whom, and that nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.live.wiring import PREFIX, arrives, asked, cable, namespace, nothing_stays, udp, until
from tests.node.builders import in_loop, order
from vws.core.deployment import NetworkOrder, NicOrder, NodeOrders, WorkspaceOrder
from vws.node.commands import CommandFailed, Commands
from vws.node.door import Door
from vws.node.namespace import Namespace
from vws.node.naming import bridge_name
from vws.node.networks import Networks
from vws.ports import HypervisorError

pytestmark = pytest.mark.live

RANGE, GATEWAY, ONE, TWO = "10.20.0.0/24", "10.20.0.1", "10.20.0.2", "10.20.0.3"
OWN_RANGE, OWN_GATEWAY, OWN = "10.78.1.0/24", "10.78.1.1", "10.78.1.7"
RED, BLUE = NetworkOrder("net-red", RANGE, GATEWAY), NetworkOrder("net-blue", RANGE, GATEWAY)
OUT = NetworkOrder("net-out", RANGE, GATEWAY, outgoing=True, domain="out.example")
OUT_TOO = NetworkOrder("net-too", "10.21.0.0/24", "10.21.0.1", outgoing=True)
NODE_OUTSIDE, WORLD, PORT = "192.0.2.1", "192.0.2.2", 4711
TAG = "test"


@pytest.fixture(autouse=True)
def machine() -> Iterator[None]:
    with nothing_stays():
        yield


class Bench:
    """A node with its networks, and what is plugged into them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.place = namespace("node")
        self.machines: list[Namespace] = []
        self.taps: dict[str, list[str]] = {}
        self.networks = self.agent()

    def agent(self) -> Networks:
        return Networks(self.directory, self.place, "vws0", TAG)

    def order(self, *networks: NetworkOrder) -> None:
        self.networks.open(NodeOrders("nod-1", 1, OWN_RANGE, OWN_GATEWAY, (), 0.0, networks), self.taps)

    def guest(self, network: str, address: str, gateway: str = GATEWAY, tap: str = "") -> Namespace:
        """On the network of that id, "" for the node's own."""
        name = f"guest{len(self.machines)}"
        guest, tap = namespace(name), tap or f"tap{len(self.machines)}"
        self.machines.append(guest)
        with contextlib.suppress(CommandFailed):  # of the guest that was here before it
            self.place.commands.run("ip", "link", "delete", tap)
        cable(self.place, tap, guest, "eth0")
        bridge = bridge_name(TAG, network) if network else "vws0"
        self.taps.setdefault(bridge, []).append(tap)
        self.place.commands.run("ip", "link", "set", tap, "master", bridge)
        guest.commands.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        guest.commands.run("ip", "route", "add", "default", "via", gateway)
        return guest

    def world(self) -> Namespace:
        world = namespace("world")
        self.machines.append(world)
        cable(self.place, "uplink", world, "eth0")
        self.place.commands.run("ip", "address", "add", f"{NODE_OUTSIDE}/24", "dev", "uplink")
        world.commands.run("ip", "address", "add", f"{WORLD}/24", "dev", "eth0")
        return world

    def room(self, network: str) -> Namespace:
        room = self.networks.place_of(network)
        assert isinstance(room, Namespace)
        return room

    def remains(self) -> list[str]:
        found = [path.name for path in Path("/run/netns").glob(f"{PREFIX}node-*")]
        found += [path.name for path in self.directory.glob("networks/*")]
        if self.place.exists:
            links = self.place.commands.run("ip", "-brief", "link").decode().split()
            found += [word for word in links if word.startswith(("vb", "vr", "vo", "vp"))]
            tables = self.place.commands.run("nft", "list", "tables").decode().splitlines()
            found += [table for table in tables if "vws_vb" in table]
        return found

    def own_commands(self, monkeypatch) -> int:
        """How many programs are run for a node that has no other network."""
        run, ran = Commands.run, []
        with monkeypatch.context() as patch:
            patch.setattr(Commands, "run", lambda *a, **more: ran.append(a) or run(*a, **more))
            self.order()
        return len(ran)

    def tear_down(self) -> None:
        for machine in self.machines:
            machine.destroy()
        self.networks.close()
        assert self.remains() == []
        self.place.destroy()


@pytest.fixture
def bench(tmp_path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.tear_down()


def hears(sender: Namespace, listener: Namespace, address: str, tries: int = 50) -> str | None:
    """Whom the listener hears when the sender calls `address`; None if it hears nothing."""
    with udp(listener, "", PORT) as heard, udp(sender) as calling:
        source = arrives(calling, heard, (address, PORT), tries)
        return source[0] if source else None


def never_hears(sender: Namespace, listener: Namespace, address: str) -> bool:
    return hears(sender, listener, address, tries=4) is None


def member(id: str, network: str, address: str, mac: str = "02:77:00:00:00:07") -> WorkspaceOrder:
    return order(id, nics=(NicOrder(network, mac, address),))


# ---------------------------------------------------------------- who hears whom


def test_two_networks_of_the_same_range_do_not_meet(bench) -> None:
    bench.order(RED, BLUE)
    red, red_too = bench.guest(RED.id, ONE), bench.guest(RED.id, TWO)
    blue, blue_too = bench.guest(BLUE.id, ONE), bench.guest(BLUE.id, TWO)
    own = bench.guest("", OWN, OWN_GATEWAY)
    for here, neighbour, stranger in ((red, red_too, blue_too), (blue, blue_too, red_too)):
        with udp(stranger, "", PORT) as other:
            assert hears(here, neighbour, TWO) == ONE
            other.settimeout(0.2)
            with pytest.raises(TimeoutError):
                other.recv(100)
        assert never_hears(here, own, OWN)
        assert never_hears(own, neighbour, TWO)


def test_a_frame_to_the_bridge_itself_goes_nowhere(bench) -> None:
    """Else the node, which routes for its own guests, would route for this one too."""
    bench.order(RED)
    red, own = bench.guest(RED.id, ONE), bench.guest("", OWN, OWN_GATEWAY)
    bridge = bridge_name(TAG, RED.id)
    mac = bench.place.commands.run("ip", "-brief", "link", "show", bridge).decode().split()[2]
    red.commands.run("ip", "neighbour", "replace", OWN, "lladdr", mac, "dev", "eth0")
    red.commands.run("ip", "route", "add", OWN, "dev", "eth0")
    assert never_hears(red, own, OWN)
    bench.place.commands.run("nft", "delete", "table", "netdev", f"vws_{bridge}")
    assert hears(red, own, OWN) == ONE, "this test would not notice it"


def test_a_network_without_a_way_out_reaches_nothing_but_itself(bench) -> None:
    bench.order(RED)
    world, red = bench.world(), bench.guest(RED.id, ONE)
    assert never_hears(red, world, WORLD)
    assert never_hears(red, bench.place, OWN_GATEWAY)
    assert never_hears(red, bench.place, NODE_OUTSIDE)
    assert asked(red, GATEWAY, "example.org")[3] & 15 == 5, "names of elsewhere are refused"


def test_a_way_out_leads_into_the_world_and_nowhere_else(bench) -> None:
    bench.order(OUT, OUT_TOO)
    world, own = bench.world(), bench.guest("", OWN, OWN_GATEWAY)
    out, too = bench.guest(OUT.id, ONE), bench.guest(OUT_TOO.id, "10.21.0.2", OUT_TOO.gateway)
    assert hears(out, world, WORLD) == NODE_OUTSIDE
    assert hears(too, world, WORLD) == NODE_OUTSIDE
    with udp(world, WORLD, PORT) as far, udp(out, ONE, PORT) as near:
        source = arrives(near, far, (WORLD, PORT))
        far.sendto(b"welcome", source)
        assert near.recv(100) == b"welcome"
    assert never_hears(out, own, OWN)
    assert never_hears(out, too, "10.21.0.2")
    for address in (OWN_GATEWAY, NODE_OUTSIDE, "169.254.128.0", "169.254.128.2"):
        assert never_hears(out, bench.place, address)
    assert never_hears(own, out, ONE)
    assert hears(own, world, WORLD) == NODE_OUTSIDE, "the node's own guests go out as ever"


def test_a_way_out_can_be_closed(bench) -> None:
    bench.order(OUT)
    world, out = bench.world(), bench.guest(OUT.id, ONE)
    assert hears(out, world, WORLD)
    bench.order(NetworkOrder(OUT.id, RANGE, GATEWAY))
    assert never_hears(out, world, WORLD)
    assert not [name for name in bench.remains() if name.startswith("vo")]


def test_members_find_each_other_by_name(bench) -> None:
    bench.order(OUT, RED)
    bench.networks.enter(member("wsp-1", OUT.id, ONE))
    bench.networks.enter(member("wsp-2", RED.id, TWO))
    out, red = bench.guest(OUT.id, TWO), bench.guest(RED.id, ONE)
    assert asked(out, GATEWAY, "ws-1.out.example").endswith(socket.inet_aton(ONE))
    assert asked(red, GATEWAY, "ws-2.vws.internal").endswith(socket.inet_aton(TWO))
    assert asked(red, GATEWAY, "ws-1.vws.internal")[3] & 15 == 3, "another network's"
    bench.networks.enter(replace(member("wsp-3", OUT.id, "10.20.0.4"), member="worker-3"))
    assert bench.networks.ids() == {"wsp-1", "wsp-2", "wsp-3"}
    for name in ("worker-3", "ws-3"):
        until(lambda name=name: asked(out, GATEWAY, f"{name}.out.example").endswith(socket.inet_aton("10.20.0.4")))


def test_by_a_way_out_the_names_of_elsewhere_are_found_but_not_those_of_the_nodes_guests(bench) -> None:
    bench.order(OUT)
    bench.networks.enter(order("wsp-9", address=OWN))
    out, own = bench.guest(OUT.id, ONE), bench.guest("", OWN, OWN_GATEWAY)
    assert asked(own, OWN_GATEWAY, "ws-9.vws.internal").endswith(socket.inet_aton(OWN))
    assert asked(out, GATEWAY, "ws-9.vws.internal")[3] & 15 == 3
    # The node's own name server was asked, which has nobody to ask in this namespace.
    assert asked(out, OWN_GATEWAY, "example.org")[3] & 15 == 5


# ---------------------------------------------------------------- coming and going


def links(place: Namespace) -> list[str]:
    return sorted(place.commands.run("ip", "-oneline", "link").decode().splitlines())


def test_what_is_there_is_adopted(bench) -> None:
    bench.order(RED, OUT)
    pids = [bench.room(id).processes() for id in (RED.id, OUT.id)]
    before = [links(place) for place in (bench.place, bench.room(RED.id), bench.room(OUT.id))]
    bench.networks.let_go()
    bench.networks = bench.agent()
    bench.networks.open(None, bench.taps)
    assert not bench.networks.due()
    bench.order(RED, OUT)
    assert [bench.room(id).processes() for id in (RED.id, OUT.id)] == pids
    assert [links(place) for place in (bench.place, bench.room(RED.id), bench.room(OUT.id))] == before


def test_a_network_goes_with_its_last_guest(bench) -> None:
    bench.order(RED, BLUE)
    bench.networks.enter(member("wsp-1", RED.id, ONE))
    bench.order(BLUE)
    red, red_too = bench.guest(RED.id, ONE), bench.guest(RED.id, TWO)
    assert hears(red, red_too, TWO) == ONE
    with pytest.raises(HypervisorError, match="net-red: this node's orders do not have it"):
        bench.networks.enter(member("wsp-2", RED.id, TWO))
    bench.networks.let_go()
    bench.networks = bench.agent()
    bench.order(BLUE)
    assert bench.networks.ids() == {"wsp-1"}
    bench.networks.leave("wsp-1")
    assert not [name for name in bench.remains() if "red" in name or bridge_name(TAG, RED.id) in name]
    assert not bench.networks.due()
    bench.networks.leave("wsp-1")


def test_a_network_that_cannot_be_made_harms_no_other(bench) -> None:
    bench.order(NetworkOrder("net-bad", "10.20.0.0/24", "10.99.0.1"), RED)
    bench.networks.enter(member("wsp-1", RED.id, ONE))
    with pytest.raises(HypervisorError, match=r"net-bad: the gateway '10\.99\.0\.1'"):
        bench.networks.enter(member("wsp-2", "net-bad", ONE))
    with pytest.raises(HypervisorError, match="net-bad"):
        bench.networks.mend(bench.taps)
    bench.order(RED)
    assert not bench.networks.due()
    bench.networks.leave("wsp-1")


class CutOff(BaseException):
    """As by a kill: nobody handles it."""


@contextlib.contextmanager
def cut_after(commands: int, monkeypatch) -> Iterator[None]:
    """The agent runs so many programs of the machine's and no more."""
    run, left = Commands.run, itertools.count(commands, -1)

    def counted(self: Commands, *arguments: str, **more: object) -> bytes:
        if next(left) <= 0:
            raise CutOff
        return run(self, *arguments, **more)

    with monkeypatch.context() as patch, contextlib.suppress(CutOff):
        patch.setattr(Commands, "run", counted)
        yield


def restarted(bench: Bench) -> None:
    bench.networks.let_go()
    bench.networks = bench.agent()


def test_an_opening_that_was_cut_off_anywhere_is_finished_or_taken_back(bench, monkeypatch) -> None:
    bench.order()
    own = bench.own_commands(monkeypatch)
    for after in range(own, 60, 2):
        assert bench.remains() == []
        with cut_after(after, monkeypatch):
            bench.order(OUT)
            break
        restarted(bench)
        if (after - own) % 4:
            bench.order(OUT)
            assert not bench.networks.due()
            assert bench.room(OUT.id).processes()
        bench.order()
    assert after > own + 10, "it was never cut off"
    bench.order()


def test_a_removal_that_was_cut_off_anywhere_is_finished(bench, monkeypatch) -> None:
    bench.order()
    own = bench.own_commands(monkeypatch)
    for after in range(own, 60):
        bench.order(OUT)
        with cut_after(after, monkeypatch):
            bench.order()
            break
        restarted(bench)
        bench.order()
        assert bench.remains() == []
    assert after > own + 3, "it was never cut off"


@pytest.mark.parametrize("trouble", ["bridge", "down", "address", "dnsmasq", "room"])
def test_what_is_taken_away_is_put_back(bench, trouble) -> None:
    bench.order(RED)
    red, red_too = bench.guest(RED.id, ONE), bench.guest(RED.id, TWO)
    assert hears(red, red_too, TWO) == ONE
    assert not bench.networks.due()
    bridge, room = bridge_name(TAG, RED.id), bench.room(RED.id)
    if trouble == "bridge":
        bench.place.commands.run("ip", "link", "delete", bridge)
    elif trouble == "down":
        bench.place.commands.run("ip", "link", "set", bridge, "down")
    elif trouble == "address":
        room.commands.run("ip", "address", "flush", "dev", "net0")
    elif trouble == "dnsmasq":
        (pid,) = room.processes()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not room.processes())
    else:
        room.destroy()
    assert bench.networks.due()
    bench.networks.mend(bench.taps)
    assert not bench.networks.due()
    assert hears(red, red_too, TWO) == ONE
    assert asked(red, GATEWAY, "none.vws.internal")


def test_to_see_that_all_is_well_costs_next_to_nothing(bench) -> None:
    bench.order(RED, BLUE)
    before = time.process_time()
    for _ in range(50):
        assert not bench.networks.due()
    assert (time.process_time() - before) / 50 < 0.01


# ---------------------------------------------------------------- the door


@contextlib.asynccontextmanager
async def echo_service():
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()


def through_the_door(guest: Namespace) -> bytes:
    sock = guest.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)).result()
    with sock:
        sock.settimeout(2)
        sock.connect(("169.254.169.254", 443))
        sock.sendall(b"hello")
        return sock.recv(100)


@in_loop
async def through_doors(bench: Bench, guests: list[Namespace]) -> None:
    async with echo_service() as service:
        door = Door(service)
        await door.open(bench.networks.doorways())
        for guest in guests:
            assert await asyncio.to_thread(through_the_door, guest) == b"hello"
        await door.close()
        for guest in guests:
            with pytest.raises(OSError):  # noqa: PT011
                await asyncio.to_thread(through_the_door, guest)
        again = Door(service)
        await again.open(bench.networks.doorways())
        assert await asyncio.to_thread(through_the_door, guests[0]) == b"hello"
        bench.order()
        await again.open(bench.networks.doorways())
        with pytest.raises(OSError):  # noqa: PT011
            await asyncio.to_thread(through_the_door, guests[0])
        assert await asyncio.to_thread(through_the_door, guests[-1]) == b"hello", "the node's own network"
        await again.close()


def test_the_door_is_in_every_network(bench) -> None:
    bench.order(RED, BLUE)
    guests = [bench.guest(RED.id, ONE), bench.guest(BLUE.id, ONE), bench.guest("", OWN, OWN_GATEWAY)]
    through_doors(bench, guests)
