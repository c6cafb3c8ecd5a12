"""The node's own network: a bridge, addresses and names by dnsmasq, the way out by masquerading, the door.

What the machine's administrator or a signal takes away is put back: dnsmasq and
the bridge are looked at each time `due` is asked, by means that cost nothing; for
all the rest the network is opened anew once a minute, which touches only what is
not as it should be.

Guests that may reach nobody are on the bridge too, by taps of a name of their own.
What comes from such a tap and is not for the gateway, or the door, is dropped where
it enters the bridge: neither another address nor another MAC makes a difference.

Only the bridge and nft tables, all named after the node, are touched. The
door's address (door.py) is given to no interface here: on a machine that is
somebody's cloud server it is in use already. What guests send there is turned to
a port of the gateway's.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import time
from collections.abc import Iterable
from pathlib import Path

from vws.core.site import DOMAIN
from vws.node.dnsmasq import Dnsmasq
from vws.node.door import ADDRESS, PORT, Doorway
from vws.node.interfaces import (
    address_of,
    give_address,
    links,
    make_bridge,
    route_settings,
    set_kernel,
)
from vws.node.namespace import Machine
from vws.node.naming import check_interface, check_network, isolated_taps, mac_for
from vws.node.state import write_whole
from vws.ports import HypervisorError

log = logging.getLogger(__name__)

REOPEN_AFTER_S = 60.0
_DOOR_PORT = 16925


class Network:
    """The network of the node `tag`, whose files are in `directory`, in `place`."""

    def __init__(self, directory: Path, place: Machine, bridge: str, tag: str) -> None:
        self._directory = directory / "network"
        self._place = place
        self.bridge = check_interface(bridge)
        self._table = f"vws_{tag}"
        self._isolated = isolated_taps(tag)
        self.cannot_isolate = "it was not opened yet"
        self._mac = mac_for(tag)
        self._gateway: ipaddress.IPv4Interface | None = None
        self._whole_at: float | None = None  # by the monotonic clock
        self.dnsmasq = Dnsmasq(self._directory, place)

    @property
    def gateway(self) -> ipaddress.IPv4Address | None:
        """None before it was opened."""
        return self._gateway.ip if self._gateway else None

    @property
    def doorway(self) -> Doorway | None:
        return Doorway(self._place, str(self._gateway.ip), _DOOR_PORT) if self._gateway else None

    def reopen(self) -> None:
        """As `open`, for the subnet that was opened last, if there was one."""
        last = self._gateway
        with contextlib.suppress(FileNotFoundError):
            last = ipaddress.IPv4Interface((self._directory / "gateway").read_text())
        if last:
            self.open(str(last.network), str(last.ip))

    def open(self, subnet: str, gateway: str) -> None:
        """Have everything as it should be for this subnet; what already is stays untouched."""
        address = check_network(subnet, gateway)
        self.dnsmasq.make_folders()
        write_whole(self._directory / "gateway", str(address).encode(), durable=False)
        self._whole_at = None
        self._make_bridge(address)
        # Between guests and the world; in a namespace this concerns nobody else.
        set_kernel(self._place, route_settings(self.bridge, forward=True))
        self._translate(address)
        self._isolate(address)
        self._serve(address)
        self._gateway = address

    def due(self) -> bool:
        """Is it time to open it again, for the subnet that it was opened for?"""
        if self._gateway is None:
            return False
        trouble = self._trouble(self._gateway)
        if trouble:
            log.warning("the guests' network: %s; it is put right", trouble)
        return bool(trouble) or self._whole_at is None or time.monotonic() > self._whole_at + REOPEN_AFTER_S

    def _trouble(self, gateway: ipaddress.IPv4Interface) -> str:
        if self.dnsmasq.pid() is None:
            return "dnsmasq has ended"
        if address_of(self._place, self.bridge) != str(gateway.ip):
            return f"the bridge {self.bridge} is gone, is down or has lost its address"
        return ""

    def attach(self, taps: Iterable[str]) -> None:
        """Last of an opening: put those of the guests' `taps` on the bridge that are on none, as after its removal."""
        if self._gateway is None:
            return
        put_on(self._place, self.bridge, taps)
        self._whole_at = time.monotonic()

    # -------------------------------------------------------- bridge, nft, dnsmasq

    def _make_bridge(self, address: ipaddress.IPv4Interface) -> None:
        there = links(self._place)
        if self._place.name:
            self._place.commands.run("ip", "link", "set", "lo", "up")
        make_bridge(self._place, there, self.bridge, self._mac)
        give_address(self._place, there, self.bridge, address)

    def _translate(self, address: ipaddress.IPv4Interface) -> None:
        # Every value in this text has been checked to be a network or an interface.
        rules = f"""
            table ip {self._table}
            delete table ip {self._table}
            table ip {self._table} {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat; policy accept;
                    iifname "{self.bridge}" ip daddr {ADDRESS} tcp dport {PORT} redirect to :{_DOOR_PORT}
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat; policy accept;
                    ip saddr {address.network} ip daddr != {address.network} oifname != "{self.bridge}" masquerade
                }}
            }}
        """
        self._place.commands.run("nft", "-f", "-", stdin=rules.encode())

    def _isolate(self, address: ipaddress.IPv4Interface) -> None:
        """A node that cannot runs what need not be isolated."""
        taps = f'iifname "{self._isolated}*"'
        rules = f"""
            table bridge {self._table}
            delete table bridge {self._table}
            table bridge {self._table} {{
                chain prerouting {{
                    type filter hook prerouting priority -300; policy accept;
                    {taps} ether type ip ip daddr != {{ {address.ip}, {ADDRESS}, 255.255.255.255 }} drop
                    {taps} ether type != {{ ip, arp }} drop
                }}
            }}
        """
        try:
            self._place.commands.run("nft", "-f", "-", stdin=rules.encode())
            self.cannot_isolate = ""
        except HypervisorError as error:
            self.cannot_isolate = error.reason
            log.warning("guests cannot be isolated here: %s", error.reason)

    def _serve(self, address: ipaddress.IPv4Interface) -> None:
        # In a namespace there is no way out to a name server.
        options = ["--no-resolv"] if self._place.name else []
        self.dnsmasq.serve(address, self.bridge, links(self._place)[self.bridge]["ifindex"], DOMAIN, options)

    # -------------------------------------------------------- end

    def close(self) -> None:
        """Remove dnsmasq, bridge and table, if they are there."""
        self.dnsmasq.end()
        run = self._place.commands.run
        if self.bridge in links(self._place):
            run("ip", "link", "delete", self.bridge)
        self._forget_table("ip")
        with contextlib.suppress(HypervisorError):  # this kernel may know none of this family
            self._forget_table("bridge")
        self.dnsmasq.clear()
        (self._directory / "gateway").unlink(missing_ok=True)
        self._gateway = None

    def _forget_table(self, family: str) -> None:
        rules = f"table {family} {self._table}\ndelete table {family} {self._table}\n"
        self._place.commands.run("nft", "-f", "-", stdin=rules.encode())


def put_on(place: Machine, bridge: str, taps: Iterable[str]) -> None:
    """Those of the `taps` that are there and on no bridge."""
    wanted = set(taps)
    there = links(place) if wanted else {}
    for tap in sorted(wanted & there.keys()):
        if "master" not in there[tap]:
            place.commands.run("ip", "link", "set", tap, "master", bridge)
