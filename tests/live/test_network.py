"""A node's network without a guest: what leaves it, and how an address is taken back. In namespaces of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hypervisors import Cut, cut_at
from tests.live.wiring import arrives, asked, cable, namespace, nothing_stays, udp, until
from vws.node import dnsmasq, network
from vws.node.namespace import Namespace
from vws.node.naming import isolated_tap
from vws.node.network import Network
from vws.ports import HypervisorError

pytestmark = pytest.mark.live

SUBNET, GATEWAY, GUEST, MAC = "10.78.1.0/24", "10.78.1.1", "10.78.1.7", "02:77:00:00:00:07"
NODE_OUTSIDE, WORLD = "192.0.2.1", "192.0.2.2"


@pytest.fixture(autouse=True)
def machine() -> Iterator[None]:
    with nothing_stays():
        yield


@pytest.fixture
def place() -> Iterator[Namespace]:
    place = namespace("node")
    yield place
    place.destroy()


@pytest.fixture
def net(place, tmp_path) -> Iterator[Network]:
    net = Network(tmp_path, place, "vws0", "test")
    yield net
    if place.exists:
        net.close()


# ---------------------------------------------------------------- the way out


@pytest.fixture
def neighbours(place) -> Iterator[tuple[Namespace, Namespace]]:
    """A guest and the world, each with a cable to the node."""
    guest, world = namespace("guest"), namespace("world")
    yield guest, world
    guest.destroy()
    world.destroy()


def test_what_a_guest_sends_into_the_world_leaves_under_the_nodes_address(place, net, neighbours) -> None:
    guest, world = neighbours
    net.open(SUBNET, GATEWAY)
    cable(place, "tap0", guest, "eth0")
    place.commands.run("ip", "link", "set", "tap0", "master", "vws0")
    guest.commands.run("ip", "address", "add", f"{GUEST}/24", "dev", "eth0")
    guest.commands.run("ip", "route", "add", "default", "via", GATEWAY)
    cable(place, "uplink", world, "eth0")
    place.commands.run("ip", "address", "add", f"{NODE_OUTSIDE}/24", "dev", "uplink")
    world.commands.run("ip", "address", "add", f"{WORLD}/24", "dev", "eth0")

    heard, sender = udp(world, WORLD, 4711), udp(guest, GUEST, 4711)
    with heard, sender:
        source = arrives(sender, heard, (WORLD, 4711))
        assert source
        assert source[0] == NODE_OUTSIDE, "the world knows no way back to a guest's own address"
        heard.sendto(b"welcome", source)
        assert sender.recv(100) == b"welcome"
    assert _rules(place) == [f'ip saddr {SUBNET} ip daddr != {SUBNET} oifname != "vws0" masquerade']
    net.open("10.78.2.0/24", "10.78.2.1")
    assert [rule.split()[2] for rule in _rules(place)] == ["10.78.2.0/24"], "one rule, that of the network now"


def test_an_isolated_guest_reaches_its_gateway_and_nobody_else(place, net, neighbours) -> None:
    guest, world = neighbours
    net.open(SUBNET, GATEWAY)
    tap = isolated_tap("test", MAC)
    cable(place, tap, guest, "eth0")
    cable(place, "tap1", world, "eth0")
    for name in (tap, "tap1"):
        place.commands.run("ip", "link", "set", name, "master", "vws0")
    guest.commands.run("ip", "address", "add", f"{GUEST}/24", "dev", "eth0")
    guest.commands.run("ip", "route", "add", "default", "via", GATEWAY)
    world.commands.run("ip", "address", "add", "10.78.1.8/24", "dev", "eth0")
    place.commands.run("ip", "address", "add", f"{NODE_OUTSIDE}/32", "dev", "lo")
    with udp(place, GATEWAY, 4711) as gateway, udp(place, NODE_OUTSIDE, 4712) as beyond, udp(world, "", 4713) as other:
        with udp(guest, GUEST, 4711) as sender:
            assert arrives(sender, gateway, (GATEWAY, 4711))
            assert not arrives(sender, beyond, (NODE_OUTSIDE, 4712), tries=5)
            assert not arrives(sender, other, ("10.78.1.8", 4713), tries=5)
        # Whatever the guest's root calls itself.
        guest.commands.run("ip", "link", "set", "eth0", "address", "02:77:00:00:00:99")
        guest.commands.run("ip", "address", "add", "10.78.1.9/24", "dev", "eth0")
        with udp(guest, "10.78.1.9", 4714) as sender:
            assert not arrives(sender, other, ("10.78.1.8", 4713), tries=5)
        with udp(world, "", 4715) as sender:
            assert arrives(sender, gateway, (GATEWAY, 4711)), "the others are as they were"


def _rules(place: Namespace) -> list[str]:
    ruleset = place.commands.run("nft", "list", "ruleset").decode()
    return [line.strip() for line in ruleset.splitlines() if "masquerade" in line]


# ---------------------------------------------------------------- addresses


@pytest.fixture
def leased(net, tmp_path) -> Network:
    """Its only workspace holds a lease for the hour to come."""
    net.dnsmasq.enter("wsp-1", [(MAC, GUEST)], "ws-1")
    (tmp_path / "network/leases").write_text(f"{int(time.time()) + 3600} {MAC} {GUEST} ws-1 *\n")
    net.open(SUBNET, GATEWAY)
    return net


def listed(tmp_path: Path) -> str:
    return (tmp_path / "network/leases").read_text()


def test_a_lease_that_is_not_released_at_once_is_released_by_the_repeat(leased, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(dnsmasq, "_send", lambda message, server: None)
        with pytest.raises(HypervisorError, match="does not release the address"):
            leased.dnsmasq.leave("wsp-1")
    assert leased.dnsmasq.ids() == {"wsp-1"}, "it is still known whose lease it is"
    leased.dnsmasq.leave("wsp-1")
    assert (listed(tmp_path), leased.dnsmasq.ids()) == ("", set())
    leased.dnsmasq.leave("wsp-1")


def test_a_lease_is_released_before_it_is_forgotten_whose_it_was(leased, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        cut_at(patch, "agent.address.released")
        with pytest.raises(Cut):
            leased.dnsmasq.leave("wsp-1")
    assert (listed(tmp_path), leased.dnsmasq.ids()) == ("", {"wsp-1"})
    leased.dnsmasq.leave("wsp-1")
    assert leased.dnsmasq.ids() == set()


def test_without_dnsmasq_a_lease_is_struck_off_what_the_next_one_reads(leased, tmp_path) -> None:
    other = f"{int(time.time()) + 3600} 02:77:00:00:00:08 10.78.1.8 ws-2 *\n"
    os.kill(leased.dnsmasq.pid(), signal.SIGKILL)
    until(lambda: leased.dnsmasq.pid() is None)
    with (tmp_path / "network/leases").open("a") as file:
        file.write(other)
    leased.dnsmasq.leave("wsp-1")
    assert (listed(tmp_path), leased.dnsmasq.ids()) == (other, set())
    leased.open(SUBNET, GATEWAY)
    assert leased.dnsmasq.pid() is not None
    assert listed(tmp_path) == other


# ---------------------------------------------------------------- what is taken away


def opened(net: Network, taps: tuple[str, ...] = ()) -> None:
    net.open(SUBNET, GATEWAY)
    net.attach(taps)
    assert not net.due()


def healed(net: Network, taps: tuple[str, ...] = ()) -> None:
    assert net.due()
    net.reopen()
    net.attach(taps)
    assert not net.due()


def test_a_dnsmasq_that_died_is_noticed_and_started_again(net) -> None:
    opened(net)
    os.kill(net.dnsmasq.pid(), signal.SIGKILL)
    until(lambda: net.dnsmasq.pid() is None)
    healed(net)
    assert net.dnsmasq.pid() is not None


@pytest.mark.parametrize(
    "trouble", [("link", "delete", "vws0"), ("link", "set", "vws0", "down"), ("address", "flush", "dev", "vws0")]
)
def test_guests_reach_a_bridge_that_was_taken_away_once_it_is_back(place, net, neighbours, trouble) -> None:
    guest, _ = neighbours
    cable(place, "tap0", guest, "eth0")
    guest.commands.run("ip", "address", "add", f"{GUEST}/24", "dev", "eth0")
    opened(net, ("tap0", "tap-of-one-that-ended"))
    hears_dnsmasq(guest)
    place.commands.run("ip", *trouble)
    healed(net, ("tap0",))
    hears_dnsmasq(guest)


def hears_dnsmasq(guest: Namespace) -> None:
    """A name that is not there is answered too."""
    assert asked(guest, GATEWAY, "none.vws"), "nothing is heard"


def test_another_bridge_means_another_dnsmasq(place, net) -> None:
    opened(net)
    first = net.dnsmasq.pid()
    net.open(SUBNET, GATEWAY)
    assert net.dnsmasq.pid() == first
    place.commands.run("ip", "link", "delete", "vws0")
    healed(net)
    assert net.dnsmasq.pid() not in (None, first), "the first listens on an interface that is gone"


def test_the_rest_is_put_right_once_a_minute(place, net, monkeypatch) -> None:
    opened(net)
    place.commands.run("nft", "flush", "ruleset")
    with monkeypatch.context() as patch:
        patch.setattr(network, "REOPEN_AFTER_S", 0.0)
        assert net.due()
    net.reopen()
    assert len(_rules(place)) == 1


def test_an_opening_that_did_not_come_to_its_end_is_due_again(net) -> None:
    opened(net)
    net.open(SUBNET, GATEWAY)
    assert net.due(), "the guests' taps have yet to be looked at"


def test_to_see_that_all_is_well_costs_next_to_nothing(net) -> None:
    opened(net)
    before = time.process_time()
    for _ in range(100):
        assert not net.due()
    assert (time.process_time() - before) / 100 < 0.005


# ---------------------------------------------------------------- several interfaces


def test_each_interface_has_its_address_and_all_are_taken_back(net, tmp_path) -> None:
    nics = [(MAC, GUEST), ("02:77:00:00:00:08", "10.78.1.8")]
    net.dnsmasq.enter("wsp-1", nics, "ws-1")
    leases = "".join(f"{int(time.time()) + 3600} {mac} {address} * *\n" for mac, address in nics)
    (tmp_path / "network/leases").write_text(leases)
    opened(net)
    assert (tmp_path / "network/addresses/wsp-1").read_text().count("\n") == 2
    net.dnsmasq.leave("wsp-1")
    assert (listed(tmp_path), net.dnsmasq.ids()) == ("", set())
