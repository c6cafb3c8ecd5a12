"""One network of a cluster, or of a pool: a bridge for its guests, and a room of its own for all that has an address in
it.

Two networks may have the same range, so their addresses must never meet in one
table of routes. The bridge, which is where the guests' taps are (`place`), has no
address and hands nothing up to the machine: even a frame sent to the bridge itself
ends there. The room is a network namespace, joined to the bridge by a pair of
interfaces:

    place                                          the room vws-...-net-...
      tap, tap ... - vb... - vr...  =============  net0   the gateway's address, dnsmasq
                                                   lo     169.254.169.254, the door
      vo... 169.254.128.2n         =============  out0   169.254.128.2n+1, if `outgoing`

What goes out is masqueraded twice, in the room and in the place, so that the place
needs to know of one address only. From there it may go into the world: not to the
node's own guests, not to other rooms, and of the machine itself it reaches the
name server of the node's own network alone.

A public network (a pool's, core/pools.py) has no masquerading: its guests' addresses are routed, each by itself, since
others of the same range may be on other nodes or be no guests at all. Hence the gateway's address stands alone in the
room, which answers for all others of the range (proxy ARP), and its way out is called vp..., for others' ways may lead
to it. Its guests are of several clusters and owners, neighbours who need not trust each other: each tap has a name of
its own (vg...), and is heard only under the MAC and the address that its guest was given.

Everything follows from networks/ID/order.json; it is written first and removed
last, so what was cut off is found again.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from vws.core.deployment import NetworkOrder
from vws.core.errors import InvalidRequest
from vws.core.site import DOMAIN
from vws.core.wire import from_json, to_json
from vws.node.dnsmasq import Dnsmasq
from vws.node.door import ADDRESS, PORT, Doorway
from vws.node.interfaces import (
    Links,
    address_of,
    give_address,
    is_up,
    links,
    make_bridge,
    remove_link,
    route_hosts,
    route_settings,
    set_kernel,
)
from vws.node.namespace import Machine, Namespace
from vws.node.naming import bound_tap, bound_taps, bridge_name, check_network_order, interface_name, is_pool, mac_for
from vws.node.network import REOPEN_AFTER_S, put_on
from vws.node.state import write_whole
from vws.ports import HypervisorError

_INSIDE, _OUT = "net0", "out0"
# Of guests that have another way out, as dnsmasq knows them.
ELSEWHERE = "elsewhere"
_FIRST_WAY = ipaddress.IPv4Address("169.254.128.0")
# At once, and not after as much as 0.8 s by chance.
_ANSWER_FOR_OTHERS = {f"net/ipv4/conf/{_INSIDE}/proxy_arp": "1", f"net/ipv4/neigh/{_INSIDE}/proxy_delay": "0"}
_NO_IPV6 = {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"}


class Room:
    """The network `id` of the node `tag`, with its files in `directory`; its guests' taps are in `place`, where
    `own` is the bridge of the node's own network."""

    def __init__(self, directory: Path, place: Machine, own: str, tag: str, id: str) -> None:
        self.id = id
        self._directory = directory / id
        self._outside = place
        self._own_bridge = own
        self._tag = tag
        self.bridge = bridge_name(tag, id)
        self._port = interface_name("vr", tag, id)
        self._closed_way, self._public_way = interface_name("vo", tag, id), interface_name("vp", tag, id)
        self._table = f"vws_{self.bridge}"
        self._mac = mac_for(f"{tag}/{id}")
        self.place = Namespace(f"{place.name or f'vws-{tag}'}-{id}")
        self.dnsmasq = Dnsmasq(self._directory, self.place)
        self._order: NetworkOrder | None = None
        self._whole_at: float | None = None

    @property
    def doorway(self) -> Doorway:
        return Doorway(self.place, ADDRESS, PORT)

    @property
    def _way(self) -> str:
        return self._public_way if self._public else self._closed_way

    @property
    def _public(self) -> bool:
        return self._order is not None and self._order.public

    def kept(self) -> NetworkOrder | None:
        """What it was opened for last, as it is on disk."""
        with contextlib.suppress(OSError, ValueError, InvalidRequest):
            return from_json(NetworkOrder, json.loads((self._directory / "order.json").read_bytes()))
        return None

    def way(self) -> int | None:
        """The number of its way out, if it has got one."""
        with contextlib.suppress(OSError, ValueError):
            return int((self._directory / "way").read_text())
        return None

    # -------------------------------------------------------- open

    def open(self, order: NetworkOrder, way: int, upstream: ipaddress.IPv4Address | None) -> None:
        """Have everything as it should be; what already is stays untouched. way: the number for a way out, that no
        other network of the node has; upstream: the name server of the node's own network."""
        check_network_order(order)
        self._whole_at, self._order = None, order
        self._keep(order, way)
        address = ipaddress.IPv4Interface(f"{order.gateway}/{order.cidr.partition('/')[2]}")
        self.place.make()
        set_kernel(self.place, _NO_IPV6)
        outside = links(self._outside)
        self._make_bridge(outside)
        self._join(outside, ipaddress.IPv4Interface(f"{order.gateway}/32") if order.public else address)
        ways = _ways(way)
        self._make_way(outside, ways if order.outgoing else None)
        self._write_rules(ways[0] if order.outgoing else None, address, upstream)
        inside = links(self.place)
        # After the way out, so that nothing is forwarded that the rules do not know.
        set_kernel(self.place, route_settings(_INSIDE, forward=order.outgoing))
        if order.public:
            set_kernel(self.place, _ANSWER_FOR_OTHERS)
            self._route(way)
        options = _options(order, upstream if order.outgoing else None)
        self.dnsmasq.serve(address, _INSIDE, inside[_INSIDE]["ifindex"], order.domain or DOMAIN, options)

    def _keep(self, order: NetworkOrder, way: int) -> None:
        self.dnsmasq.make_folders()
        if self.kept() != order:
            write_whole(self._directory / "order.json", json.dumps(to_json(order)).encode(), durable=False)
        if order.outgoing and self.way() != way:
            write_whole(self._directory / "way", str(way).encode(), durable=False)

    def is_open(self, order: NetworkOrder) -> bool:
        """For that order, and nothing has befallen it as far as can be seen at a glance."""
        return self._order == order and not self.due()

    def due(self) -> bool:
        """Is it time to open it again? So it is after an opening that failed."""
        if self._order is None or self._whole_at is None or time.monotonic() > self._whole_at + REOPEN_AFTER_S:
            return True
        here = self.place.exists and address_of(self.place, _INSIDE) == self._order.gateway
        return not (here and is_up(self._outside, self.bridge) and self.dnsmasq.pid())

    def attach(self, taps: Iterable[str]) -> None:
        """Last of an opening, as for the node's own network."""
        put_on(self._outside, self.bridge, taps)
        self._whole_at = time.monotonic()

    # -------------------------------------------------------- interfaces

    def _make_bridge(self, outside: Links) -> None:
        """Nothing is heard by the machine on it, whoever it is sent to, before the bridge is up."""
        make_bridge(self._outside, outside, self.bridge, self._mac)
        self._outside.commands.run("nft", "-f", "-", stdin=self._silence().encode())
        set_kernel(self._outside, {f"net/ipv6/conf/{self.bridge}/disable_ipv6": "1"})
        self._outside.commands.run("ip", "link", "set", self.bridge, "up")

    def _silence(self) -> str:
        return f"""
            table netdev {self._table}
            delete table netdev {self._table}
            table netdev {self._table} {{
                chain up {{
                    type filter hook ingress device "{self.bridge}" priority 0; policy drop;
                }}
            }}
        """

    def _join(self, outside: Links, address: ipaddress.IPv4Interface) -> None:
        inside = links(self.place)
        self._pair(outside, inside, self._port, _INSIDE, mac_for(f"{self.place.name}/{_INSIDE}"))
        set_kernel(self._outside, {f"net/ipv6/conf/{self._port}/disable_ipv6": "1"})
        self._outside.commands.run("ip", "link", "set", self._port, "master", self.bridge, "up")
        give_address(self.place, inside, _INSIDE, address)
        run = self.place.commands.run
        run("ip", "link", "set", "lo", "up")
        known = inside.get("lo", {}).get("addr_info", [])
        if ADDRESS not in {each["local"] for each in known}:
            run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")

    def _pair(self, outside: Links, inside: Links, one: str, other: str, mac: str) -> None:
        """Half a pair is none: the other half went with a room that is gone."""
        run = self._outside.commands.run
        if one in outside and other in inside:
            return
        if one in outside:
            remove_link(self._outside, one)
        there = ("peer", "name", other, "address", mac, "netns", self.place.name or "")
        run("ip", "link", "add", one, "type", "veth", *there)

    def _make_way(self, outside: Links, ways: tuple[ipaddress.IPv4Interface, ipaddress.IPv4Interface] | None) -> None:
        if ways is None:
            if self._way in outside:
                remove_link(self._outside, self._way)
            return
        inside = links(self.place)
        self._pair(outside, inside, self._way, _OUT, mac_for(f"{self.place.name}/{_OUT}"))
        set_kernel(self._outside, {f"net/ipv6/conf/{self._way}/disable_ipv6": "1"})
        give_address(self._outside, outside, self._way, ways[0])
        give_address(self.place, inside, _OUT, ways[1])
        self.place.commands.run("ip", "route", "replace", "default", "via", str(ways[0].ip), "dev", _OUT)

    # -------------------------------------------------------- workspaces

    def enter(self, id: str, nics: Sequence[tuple[str, str]], *names: str, elsewhere: bool = False) -> None:
        """As of dnsmasq; on a public network what is sent to its addresses arrives from now on. elsewhere: its way out
        is that of another network."""
        self.dnsmasq.enter(id, nics, *names, tag=ELSEWHERE if elsewhere else "")
        self._route(self.way())

    def leave(self, id: str) -> None:
        self.dnsmasq.leave(id)
        self._route(self.way())

    def _route(self, way: int | None) -> None:
        if self._public and way is not None and self.place.exists:
            given = self.dnsmasq.given()
            self._bind(given)
            addresses = {address for _, address in given}
            route_hosts(self.place, _INSIDE, addresses)
            route_hosts(self._outside, self._way, addresses, "via", str(_ways(way)[1].ip))

    # -------------------------------------------------------- rules

    def _bind(self, given: Iterable[tuple[str, str]]) -> None:
        """A guest is heard under the MAC and the address that it was given, and no others: also in ARP, by which a
        neighbour's address is claimed. Who has no address yet may ask for it, and whether it is free."""
        bound = [(bound_tap(self._tag, self.id, mac), mac, address) for mac, address in sorted(given)]
        three = _elements(f'"{tap}" . {mac} . {address}' for tap, mac, address in bound)
        two = _elements(f'"{tap}" . {mac}' for tap, mac, _ in bound)
        rules = f"""
            table bridge {self._table}
            delete table bridge {self._table}
            table bridge {self._table} {{
                set given {{ type ifname . ether_addr . ipv4_addr; {three} }}
                set cards {{ type ifname . ether_addr; {two} }}
                chain prerouting {{
                    type filter hook prerouting priority -300; policy accept;
                    iifname != "{bound_taps(self._tag, self.id)}*" accept
                    iifname . ether saddr != @cards drop
                    ether type ip iifname . ether saddr . ip saddr @given accept
                    ether type ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
                    ether type arp iifname . arp saddr ether != @cards drop
                    ether type arp iifname . ether saddr . arp saddr ip @given accept
                    ether type arp arp saddr ip 0.0.0.0 accept
                    drop
                }}
            }}
        """
        self._outside.commands.run("nft", "-f", "-", stdin=rules.encode())

    def _write_rules(
        self,
        way: ipaddress.IPv4Interface | None,
        address: ipaddress.IPv4Interface,
        upstream: ipaddress.IPv4Address | None,
    ) -> None:
        """Every value in these texts has been checked to be a network, an address or an interface."""
        outside, inside = self._quiet(), ""
        if way and self._public:
            outside, inside = outside + self._ways_both(upstream), _routed(address.network)
        elif way:
            outside, inside = outside + self._ways_out(way, upstream), _masquerade(address.network)
        self._outside.commands.run("nft", "-f", "-", stdin=self._tabled(outside).encode())
        self.place.commands.run("nft", "-f", "-", stdin=self._tabled(inside).encode())

    def _tabled(self, chains: str) -> str:
        name = self._table
        return f"table ip {name}\ndelete table ip {name}\ntable ip {name} {{\n{chains}}}\n"

    def _quiet(self) -> str:
        """Where bridges pass what they carry to the machine's firewall (br_netfilter), two networks of the same range
        must not be taken for one."""
        return f"""
            chain apart {{
                type filter hook prerouting priority raw; policy accept;
                iifname "{self.bridge}" notrack
            }}
        """

    def _names_of(self, upstream: ipaddress.IPv4Address | None) -> str:
        """Of the machine itself guests reach the name server of the node's own network."""
        asked = f'iifname "{self._way}" ip daddr {upstream} meta l4proto {{ tcp, udp }} th dport 53 accept'
        return asked if upstream else ""

    def _ways_both(self, upstream: ipaddress.IPv4Address | None) -> str:
        """Of a public network: anybody may call, and its guests may call all but those that are private."""
        return f"""
            chain input {{
                type filter hook input priority filter; policy accept;
                iifname "{self._way}" ct state established,related accept
                {self._names_of(upstream)}
                iifname "{self._way}" drop
            }}
            chain forward {{
                type filter hook forward priority filter; policy accept;
                iifname "{self._way}" ct state established,related accept
                iifname "{self._way}" oifname {{ "{self._own_bridge}", "vo*" }} drop
            }}
        """

    def _ways_out(self, way: ipaddress.IPv4Interface, upstream: ipaddress.IPv4Address | None) -> str:
        return f"""
            chain input {{
                type filter hook input priority filter; policy accept;
                {self._names_of(upstream)}
                iifname "{self._way}" drop
            }}
            chain forward {{
                type filter hook forward priority filter; policy accept;
                iifname "{self._way}" oifname {{ "{self._own_bridge}", "vo*" }} drop
                oifname "{self._way}" ct state established,related accept
                oifname "{self._way}" drop
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr {way.network} oifname != "{self._way}" masquerade
            }}
        """

    # -------------------------------------------------------- end

    def close(self) -> None:
        """Remove all of it; a repeat is harmless. Where the place is gone, what was in it is too."""
        self.dnsmasq.end()
        if self._outside.inode() is not None:
            there = links(self._outside)
            for name in (self._closed_way, self._public_way, self._port, self.bridge):
                if name in there:
                    remove_link(self._outside, name)
            self._forget_tables("netdev", "ip")
            if is_pool(self.id):
                with contextlib.suppress(HypervisorError):  # this kernel may know none of this family
                    self._forget_tables("bridge")
        self.place.destroy()
        self._order = None
        if self._directory.exists():
            for entry in os.scandir(self._directory):
                if entry.name != "order.json":
                    shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
            shutil.rmtree(self._directory)

    def _forget_tables(self, *families: str) -> None:
        rules = "".join(f"table {of} {self._table}\ndelete table {of} {self._table}\n" for of in families)
        self._outside.commands.run("nft", "-f", "-", stdin=rules.encode())


def _elements(listed: Iterable[str]) -> str:
    """Of an nft set, where an empty list is none."""
    text = ", ".join(listed)
    return f"elements = {{ {text} }};" if text else ""


def _ways(number: int) -> tuple[ipaddress.IPv4Interface, ipaddress.IPv4Interface]:
    """The two ends of a way out, which nothing else has: (in the place, in the room)."""
    first = _FIRST_WAY + 2 * number
    return ipaddress.IPv4Interface(f"{first}/31"), ipaddress.IPv4Interface(f"{first + 1}/31")


def _options(order: NetworkOrder, upstream: ipaddress.IPv4Address | None) -> list[str]:
    """To dnsmasq. Who hears of routes (RFC 3442) passes over the router, so that both say the same."""
    door = f"option:classless-static-route,{ADDRESS}/32,{order.gateway}"
    routes, router = [door], ["option:router"]
    if order.outgoing:
        routes = [f"tag:!{ELSEWHERE},{door},0.0.0.0/0,{order.gateway}", f"tag:{ELSEWHERE},{door}"]
        router = [f"tag:!{ELSEWHERE},option:router,{order.gateway}", f"tag:{ELSEWHERE},option:router"]
    # Who the node's own guests are is not their neighbours' business.
    names = [f"--server={upstream}", f"--local=/{DOMAIN}/"] if upstream else []
    return [*(f"--dhcp-option={each}" for each in (*routes, *router)), "--no-resolv", *names]


def _routed(network: ipaddress.IPv4Network) -> str:
    """In the room of a public network: between its guests and the world, as it is."""
    return f"""
        chain forward {{
            type filter hook forward priority filter; policy drop;
            iifname "{_INSIDE}" oifname "{_OUT}" ip saddr {network} accept
            iifname "{_OUT}" oifname "{_INSIDE}" accept
        }}
    """


def _masquerade(network: ipaddress.IPv4Network) -> str:
    """In the room: out for its own guests, back in for what they asked for."""
    return f"""
        chain forward {{
            type filter hook forward priority filter; policy drop;
            iifname "{_INSIDE}" oifname "{_OUT}" ip saddr {network} accept
            iifname "{_OUT}" oifname "{_INSIDE}" ct state established,related accept
        }}
        chain postrouting {{
            type nat hook postrouting priority srcnat; policy accept;
            oifname "{_OUT}" masquerade
        }}
    """
