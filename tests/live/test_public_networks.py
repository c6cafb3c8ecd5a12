"""The network of a pool on a node, without guests: its addresses are reached from outside as they are."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.live.test_networks import (
    NODE_OUTSIDE,
    ONE,
    OUT,
    OWN,
    OWN_GATEWAY,
    PORT,
    RED,
    TAG,
    WORLD,
    Bench,
    cut_after,
    hears,
    machine,
    never_hears,
    restarted,
)
from tests.live.wiring import arrives, asked, udp
from tests.node.builders import order
from vws.core.deployment import NetworkOrder, NicOrder
from vws.node.interfaces import set_kernel
from vws.node.namespace import Namespace
from vws.node.naming import bound_tap

pytestmark = pytest.mark.live
__all__ = ["machine"]

CAMPUS = NetworkOrder("pol-campus", "198.51.100.0/24", "198.51.100.1", outgoing=True, public=True)
FRONT, BACK, ELSEWHERE = "198.51.100.16", "198.51.100.17", "198.51.100.77"


@pytest.fixture
def bench(tmp_path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.tear_down()


def enter(bench: Bench, number: int, address: str) -> Namespace:
    """A guest with that address of the pool."""
    nic = NicOrder(CAMPUS.id, f"02:77:00:00:00:{number:02}", address)
    bench.networks.enter(order(f"wsp-{number}", nics=(nic,), member="worker-1"))
    guest = bench.guest(CAMPUS.id, address, CAMPUS.gateway, bound_tap(TAG, CAMPUS.id, nic.mac))
    guest.commands.run("ip", "link", "set", "eth0", "address", nic.mac)
    return guest


def routes(bench: Bench) -> list[str]:
    """The pool's addresses that the node knows the way to."""
    shown = bench.place.commands.run("ip", "route").decode().splitlines()
    return [line.split()[0] for line in shown if line.startswith("198.51.100.")]


def leave_all(bench: Bench) -> None:
    for id in bench.networks.ids():
        bench.networks.leave(id)


def test_the_node_and_a_guest_with_a_public_address_call_each_other(bench) -> None:
    bench.order(CAMPUS)
    front = enter(bench, 1, FRONT)
    with udp(bench.place) as calling, udp(front, FRONT, PORT) as heard:
        source = arrives(calling, heard, (FRONT, PORT))
        heard.sendto(b"welcome", source)
        calling.settimeout(2)
        assert calling.recv(100) == b"welcome"
    assert never_hears(front, bench.place, NODE_OUTSIDE), "it calls nothing of the machine's"
    leave_all(bench)


def test_the_world_reaches_it_by_its_address_and_is_reached(bench) -> None:
    """The administrator's part is that the node answers for it on the outside: proxy ARP, or a route there."""
    bench.order(CAMPUS)
    world, front = bench.world(), enter(bench, 1, FRONT)
    world.commands.run("ip", "route", "add", CAMPUS.cidr, "dev", "eth0")
    assert never_hears(world, front, FRONT)
    set_kernel(bench.place, {"net/ipv4/conf/uplink/proxy_arp": "1", "net/ipv4/neigh/uplink/proxy_delay": "0"})
    assert hears(world, front, FRONT) == WORLD
    assert hears(front, world, WORLD) == FRONT, "it is not translated"
    assert never_hears(world, bench.room(CAMPUS.id), CAMPUS.gateway), "the room is nobody's but its guests'"
    leave_all(bench)


def test_everybody_may_call_a_public_address_and_from_there_no_private_one(bench) -> None:
    bench.order(CAMPUS, OUT, RED)
    front, back = enter(bench, 1, FRONT), enter(bench, 2, BACK)
    own, out, red = bench.guest("", OWN, OWN_GATEWAY), bench.guest(OUT.id, ONE), bench.guest(RED.id, ONE)
    assert hears(back, front, FRONT) == BACK
    assert hears(own, front, FRONT)
    assert hears(out, front, FRONT)
    assert never_hears(red, front, FRONT), "there is no way out of that one"
    for private, address in ((own, OWN), (out, ONE), (red, ONE)):
        front.commands.run("ip", "route", "replace", address, "via", CAMPUS.gateway)
        assert never_hears(front, private, address)
    assert never_hears(own, out, ONE)
    leave_all(bench)


def claim(guest: Namespace, hardware: str, sender: str, asked_for: str, *, source: str = "") -> None:
    """An ARP request in the name of those: who hears it believes it. source: the frame's own, if it is another."""

    def say() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as raw:
            raw.bind(("eth0", 0))
            mac = bytes.fromhex(hardware.replace(":", ""))
            frame = b"\xff" * 6 + bytes.fromhex((source or hardware).replace(":", "")) + struct.pack("!H", 0x0806)
            body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + socket.inet_aton(sender) + bytes(6)
            raw.send(frame + body + socket.inet_aton(asked_for))

    guest.inside(say).result(5)


def believed(guest: Namespace, address: str) -> str:
    """The MAC that it knows for `address`, "" if it knows none."""
    words = guest.commands.run("ip", "neigh", "show", address).decode().split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def test_nobody_is_heard_under_a_neighbours_address(bench) -> None:
    bench.order(CAMPUS)
    front, back = enter(bench, 1, FRONT), enter(bench, 2, BACK)
    assert hears(back, front, FRONT) == BACK
    back.commands.run("ip", "address", "add", f"{ELSEWHERE}/32", "dev", "eth0")
    with udp(front, "", PORT) as heard:
        with udp(back, ELSEWHERE) as calling:
            assert arrives(calling, heard, (FRONT, PORT), tries=4) is None, "it was not given that one"
        with udp(back, BACK) as calling:
            assert arrives(calling, heard, (FRONT, PORT)) is not None
    front_mac, back_mac, nobodys = "02:77:00:00:00:01", "02:77:00:00:00:02", "02:77:00:00:00:99"
    known = believed(front, BACK)
    assert known == back_mac
    claim(back, back_mac, CAMPUS.gateway, FRONT)
    claim(back, nobodys, BACK, FRONT)
    claim(back, nobodys, BACK, FRONT, source=back_mac)
    claim(back, front_mac, FRONT, CAMPUS.gateway)
    claim(back, back_mac, FRONT, CAMPUS.gateway)
    assert hears(front, back, BACK) == FRONT, "all of it has come by"
    assert believed(front, BACK) == known
    assert believed(front, CAMPUS.gateway) != back_mac
    assert believed(bench.room(CAMPUS.id), FRONT) in ("", front_mac)
    back.commands.run("ip", "link", "set", "eth0", "address", nobodys)
    assert never_hears(back, front, FRONT), "nor under another card's"
    leave_all(bench)


def test_who_has_gone_leaves_no_right_to_its_address(bench) -> None:
    bench.order(CAMPUS)
    front, back = enter(bench, 1, FRONT), enter(bench, 2, BACK)
    assert hears(back, front, FRONT) == BACK
    bench.networks.leave("wsp-2")
    assert never_hears(back, front, FRONT)
    restarted(bench)
    bench.order(CAMPUS)
    assert never_hears(back, front, FRONT)
    leave_all(bench)


def test_an_address_of_the_pool_that_is_on_another_node_is_reached_there(bench) -> None:
    bench.order(CAMPUS)
    world, front = bench.world(), enter(bench, 1, FRONT)
    world.commands.run("ip", "address", "add", f"{ELSEWHERE}/32", "dev", "eth0")
    world.commands.run("ip", "route", "add", CAMPUS.cidr, "via", NODE_OUTSIDE)
    bench.place.commands.run("ip", "route", "add", f"{ELSEWHERE}/32", "via", WORLD)
    assert hears(front, world, ELSEWHERE) == FRONT, "its neighbour by its own table of routes, not by the wire"
    leave_all(bench)


def test_names_on_a_public_network_are_those_of_the_site(bench) -> None:
    bench.order(CAMPUS)
    front = enter(bench, 1, FRONT)
    enter(bench, 2, BACK)
    assert asked(front, CAMPUS.gateway, "ws-2.vws.internal")[-4:] == bytes(map(int, BACK.split(".")))
    assert asked(front, CAMPUS.gateway, "worker-1.vws.internal")[3] & 15 == 3, "two clusters may have one"
    leave_all(bench)


def test_an_address_is_routed_while_it_is_somebodys(bench) -> None:
    bench.order(CAMPUS)
    assert routes(bench) == []
    enter(bench, 1, FRONT)
    enter(bench, 2, BACK)
    assert routes(bench) == [FRONT, BACK]
    bench.networks.leave("wsp-1")
    assert routes(bench) == [BACK]
    bench.place.commands.run("ip", "route", "delete", BACK)
    restarted(bench)
    bench.order(CAMPUS)
    assert routes(bench) == [BACK], "it is put back"
    restarted(bench)
    bench.order()
    assert routes(bench) == [BACK], "the network goes with its last guest"
    bench.networks.leave("wsp-2")
    assert routes(bench) == []


def test_what_is_there_is_left_as_it_is(bench) -> None:
    bench.order(CAMPUS)
    enter(bench, 1, FRONT)
    pids = bench.room(CAMPUS.id).processes()
    shown = bench.place.commands.run("ip", "-oneline", "address", "show")
    restarted(bench)
    bench.order(CAMPUS)
    assert bench.room(CAMPUS.id).processes() == pids
    assert bench.place.commands.run("ip", "-oneline", "address", "show") == shown
    assert not bench.networks.due()
    leave_all(bench)


def test_an_opening_that_was_cut_off_anywhere_is_finished_or_taken_back(bench, monkeypatch) -> None:
    bench.order()
    own = bench.own_commands(monkeypatch)
    for after in range(own, 60, 3):
        with cut_after(after, monkeypatch):
            bench.order(CAMPUS)
            break
        restarted(bench)
        if (after - own) % 2:
            bench.order(CAMPUS)
            front = enter(bench, 1, FRONT)
            assert hears(bench.place, front, FRONT)
            leave_all(bench)
        bench.order()
        assert bench.remains() == []
    assert after > own + 10, "it was never cut off"
    bench.order()
