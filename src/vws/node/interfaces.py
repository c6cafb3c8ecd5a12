"""Interfaces, addresses and kernel settings of a place (namespace.py), changed only where they differ.

What is as it should be is left alone, so that a network can be opened again while guests use it. All that names an
interface or an address here has been checked by naming.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import socket
import struct
from pathlib import Path
from typing import Any

from vws.node.commands import CommandFailed
from vws.node.namespace import Machine

Links = dict[str, dict[str, Any]]

_SIOCGIFFLAGS, _SIOCGIFADDR, _IFF_UP = 0x8913, 0x8915, 1
# A guest that has just begun to listen should not wait a second for the next try at its MAC address.
_ARP_AGAIN_MS = 100


def links(place: Machine) -> Links:
    """All interfaces of `place` by name, as iproute2 describes them."""
    listed = json.loads(place.commands.run("ip", "-json", "address", "show"))
    return {link["ifname"]: link for link in listed if "ifname" in link}


def make_bridge(place: Machine, there: Links, name: str, mac: str) -> None:
    """Have a bridge, as yet down. Always of the same `mac`: guests need not learn a new one's."""
    if name not in there:
        settings = ("type", "bridge", "forward_delay", "0", "stp_state", "0")
        place.commands.run("ip", "link", "add", name, "address", mac, *settings)


def remove_link(place: Machine, name: str) -> None:
    """One that was there a moment ago: half of a pair goes by itself when the other half's namespace does."""
    try:
        place.commands.run("ip", "link", "delete", name)
    except CommandFailed:
        if name in links(place):
            raise


def give_address(place: Machine, there: Links, name: str, address: ipaddress.IPv4Interface) -> None:
    """Have the interface up, with this address and no other."""
    run = place.commands.run
    known = there.get(name, {}).get("addr_info", [])
    before = {f"{a['local']}/{a['prefixlen']}" for a in known if a.get("family") == "inet"}
    if before != {str(address)}:
        run("ip", "-4", "address", "flush", "dev", name)
        run("ip", "address", "add", str(address), "dev", name)
    run("ip", "link", "set", name, "up")


def route_hosts(place: Machine, name: str, addresses: set[str], *via: str) -> None:
    """Have routes by the interface for just these addresses, beside those that it has by itself. via: words of
    iproute2 that say to whom."""
    run = place.commands.run
    listed = json.loads(run("ip", "-json", "-4", "route", "show", "dev", name, "proto", "static") or "[]")
    there = {route["dst"] for route in listed if "/" not in route["dst"] and route["dst"] != "default"}
    for address in sorted(addresses - there):
        run("ip", "route", "replace", f"{address}/32", *via, "dev", name, "proto", "static")
    for address in sorted(there - addresses):
        run("ip", "route", "delete", f"{address}/32", "dev", name)


def route_settings(name: str, *, forward: bool) -> dict[str, str]:
    return {
        "net/ipv4/ip_forward": "1" if forward else "0",
        f"net/ipv4/neigh/{name}/retrans_time_ms": str(_ARP_AGAIN_MS),
    }


def set_kernel(place: Machine, settings: dict[str, str]) -> None:
    """Values by path below /proc/sys. What of IPv6 a kernel without it does not have is as good as off."""

    def write() -> None:
        for name, value in settings.items():
            path = Path("/proc/sys") / name
            if name.startswith("net/ipv6/") and not path.exists():
                continue
            if path.read_text().strip() != value:
                path.write_text(value)

    place.inside(write).result()


def address_of(place: Machine, name: str) -> str | None:
    """The interface's IPv4 address, if it is up and has one; costs next to nothing."""
    return place.inside(lambda: _asked(name)[1]).result()


def is_up(place: Machine, name: str) -> bool:
    """Costs next to nothing."""
    return place.inside(lambda: _asked(name)[0]).result()


def _asked(name: str) -> tuple[bool, str | None]:
    """(up, its address then)"""
    request = struct.pack("16s24x", name.encode())  # netdevice(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        (flags,) = struct.unpack_from("H", fcntl.ioctl(sock, _SIOCGIFFLAGS, request), 16)
        if not flags & _IFF_UP:
            return False, None
        with contextlib.suppress(OSError):
            return True, socket.inet_ntoa(fcntl.ioctl(sock, _SIOCGIFADDR, request)[20:24])
        return True, None
    return False, None
