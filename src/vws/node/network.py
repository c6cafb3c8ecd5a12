"""The node's private network: a bridge, addresses and names by dnsmasq, the way out by masquerading.

Each workspace has one file that gives it its address and one that gives it its
name. dnsmasq reads a new file by itself, so a creation restarts nothing; a
deleted one it forgets on SIGHUP. A lease that a guest still holds is released in
its place, or the address could not be given to the next workspace.

What the machine's administrator or a signal takes away is put back: dnsmasq and
the bridge are looked at each time `due` is asked, by means that cost nothing; for
all the rest the network is opened anew once a minute, which touches only what is
not as it should be. dnsmasq hears on the bridge that was there when it began, so
another bridge means another dnsmasq.

Only the bridge and one nft table, both named after the node, are touched.
dnsmasq gives root up. For the folder that it then has to read it gets a mount
namespace with that folder at /var/lib/misc, wherever the node's directory is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import logging
import os
import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vws.core.site import DOMAIN
from vws.faultpoints import reach
from vws.node.commands import CommandFailed
from vws.node.namespace import Machine, end_processes
from vws.node.naming import check_address, check_id, check_interface, check_mac, check_network
from vws.node.state import write_whole
from vws.ports import HypervisorError

log = logging.getLogger(__name__)

_SEEN = "/var/lib/misc"
_IN_PLACE = 'set -e; mount --bind -- "$1" "$2"; shift 2; exec "$@"'
LEASE_S = 3600
_READY_WITHIN_S = 5.0
_REOPEN_AFTER_S = 60.0
# A guest that has just begun to listen should not wait a second for the next try at its MAC address.
_ARP_AGAIN_MS = 100
_SIOCGIFFLAGS, _SIOCGIFADDR, _IFF_UP = 0x8913, 0x8915, 1


class Network:
    """The network of the node `tag`, whose files are in `directory`, in `place`."""

    def __init__(self, directory: Path, place: Machine, bridge: str, tag: str) -> None:
        self._directory = directory / "network"
        self._place = place
        self.bridge = check_interface(bridge)
        self._table = f"vws_{tag}"
        # The same on a bridge that is made anew, so that guests need not learn their gateway's again.
        self._mac = f"02:76:{hashlib.sha256(tag.encode()).digest()[:4].hex(':')}"
        self._gateway: ipaddress.IPv4Interface | None = None
        self._whole_at: float | None = None  # by the monotonic clock
        self._starting = threading.Lock()  # dnsmasq, or changing its leases in its stead

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
        self._make_folders()
        write_whole(self._directory / "gateway", str(address).encode(), durable=False)
        self._whole_at = None
        self._make_bridge(address)
        self._forward()
        self._masquerade(address)
        with self._starting:
            self._serve(address, self._links()[self.bridge]["ifindex"])
        self._gateway = address

    def due(self) -> bool:
        """Is it time to open it again, for the subnet that it was opened for?"""
        if self._gateway is None:
            return False
        trouble = self._trouble(self._gateway)
        if trouble:
            log.warning("the guests' network: %s; it is put right", trouble)
        return bool(trouble) or self._whole_at is None or time.monotonic() > self._whole_at + _REOPEN_AFTER_S

    def _trouble(self, gateway: ipaddress.IPv4Interface) -> str:
        if self._pid() is None:
            return "dnsmasq has ended"
        if self._place.inside(lambda: _address_of(self.bridge)).result() != str(gateway.ip):
            return f"the bridge {self.bridge} is gone, is down or has lost its address"
        return ""

    def attach(self, taps: Iterable[str]) -> None:
        """Last of an opening: put those of the guests' `taps` on the bridge that are on none, as after its removal."""
        if self._gateway is None:
            return
        there = self._links()
        for tap in taps:
            if "master" not in there.get(tap, {"master": None}):
                self._place.commands.run("ip", "link", "set", tap, "master", self.bridge)
        self._whole_at = time.monotonic()

    def _make_folders(self) -> None:
        for folder in (self._directory, self._addresses, self._names):
            folder.mkdir(parents=True, exist_ok=True)
            os.chmod(folder, 0o755)

    @property
    def _addresses(self) -> Path:
        return self._directory / "addresses"

    @property
    def _names(self) -> Path:
        return self._directory / "names"

    # -------------------------------------------------------- bridge and nft

    def _make_bridge(self, address: ipaddress.IPv4Interface) -> None:
        run = self._place.commands.run
        there = self._links()
        if self._place.name:
            run("ip", "link", "set", "lo", "up")
        if self.bridge not in there:
            bridge = ("type", "bridge", "forward_delay", "0", "stp_state", "0")
            run("ip", "link", "add", self.bridge, "address", self._mac, *bridge)
        known = there.get(self.bridge, {}).get("addr_info", [])
        before = {f"{a['local']}/{a['prefixlen']}" for a in known if a.get("family") == "inet"}
        if before != {str(address)}:
            run("ip", "-4", "address", "flush", "dev", self.bridge)
            run("ip", "address", "add", str(address), "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")

    def _links(self) -> dict[str, dict[str, Any]]:
        listed = json.loads(self._place.commands.run("ip", "-json", "address", "show"))
        return {link["ifname"]: link for link in listed if "ifname" in link}

    def _forward(self) -> None:
        """Between guests and the world; in a namespace this concerns nobody else."""
        settings = {
            "net/ipv4/ip_forward": "1",
            f"net/ipv4/neigh/{self.bridge}/retrans_time_ms": str(_ARP_AGAIN_MS),
        }
        self._place.inside(lambda: _set_kernel(settings)).result()

    def _masquerade(self, address: ipaddress.IPv4Interface) -> None:
        # Every value in this text has been checked to be a network or an interface.
        rules = f"""
            table ip {self._table}
            delete table ip {self._table}
            table ip {self._table} {{
                chain postrouting {{
                    type nat hook postrouting priority srcnat; policy accept;
                    ip saddr {address.network} ip daddr != {address.network} oifname != "{self.bridge}" masquerade
                }}
            }}
        """
        self._place.commands.run("nft", "-f", "-", stdin=rules.encode())

    # -------------------------------------------------------- dnsmasq

    def _serve(self, address: ipaddress.IPv4Interface, bridge: int) -> None:
        """Have dnsmasq run with just these arguments, on the bridge of that index."""
        arguments = self._arguments(address)
        told = self._directory / "arguments.json"
        text = json.dumps([bridge, *arguments]).encode()
        if self._pid() and told.exists() and told.read_bytes() == text:
            return
        self._end_dnsmasq()
        deadline = time.monotonic() + _READY_WITHIN_S
        self._start(arguments, deadline)
        while not self._pid():
            if time.monotonic() > deadline:
                raise HypervisorError("dnsmasq does not start; see network/log in the node's directory")
            time.sleep(0.005)
        write_whole(told, text)

    def _start(self, arguments: list[str], deadline: float) -> None:
        """What a process that has just ended listened on is not free at once."""
        command = ("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _IN_PLACE, "sh")
        while True:
            try:
                self._place.commands.run(*command, str(self._directory), _SEEN, *arguments)
                return
            except CommandFailed as error:
                if "in use" not in error.output or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _arguments(self, address: ipaddress.IPv4Interface) -> list[str]:
        network = address.network
        arguments = [
            "dnsmasq",
            "--conf-file=/dev/null",
            f"--pid-file={_SEEN}/dnsmasq.pid",
            f"--log-facility={_SEEN}/log",
            f"--interface={self.bridge}",
            "--except-interface=lo",
            "--bind-interfaces",
            f"--listen-address={address.ip}",
            f"--dhcp-range={network.network_address},static,{network.netmask},{LEASE_S}",
            f"--dhcp-hostsdir={_SEEN}/addresses",
            f"--dhcp-leasefile={_SEEN}/leases",
            "--dhcp-lease-max=65536",
            "--dhcp-authoritative",
            "--dhcp-ignore=tag:!known",
            "--quiet-dhcp",
            f"--hostsdir={_SEEN}/names",
            "--no-hosts",
            f"--domain={DOMAIN}",
            f"--local=/{DOMAIN}/",
            "--local=//",
            "--expand-hosts",
        ]
        if self._place.name:
            arguments.append("--no-resolv")  # there is no way out to a name server
        return arguments

    def _pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            pid = int((self._directory / "dnsmasq.pid").read_text())
            return pid if self._is_dnsmasq(pid) else None
        return None

    def _is_dnsmasq(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/comm").read_text() == "dnsmasq\n" and self._place.holds(pid)
        return False

    def _end_dnsmasq(self) -> None:
        """It removes its pid file before it ends."""
        pid = self._pid()
        end_processes(lambda: [pid] if pid and self._is_dnsmasq(pid) else [])
        (self._directory / "dnsmasq.pid").unlink(missing_ok=True)

    def _reread(self) -> None:
        pid = self._pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    # -------------------------------------------------------- workspaces

    def enter(self, id: str, mac: str, address: str, name: str) -> None:
        """Give a workspace its address and name; a repeat is harmless."""
        check_id(id), check_mac(mac), check_address(address)
        self._make_folders()
        changed = self._put(self._addresses / id, f"{mac},{address},{name}\n")
        changed |= self._put(self._names / id, f"{address} {name}\n")
        if changed:
            self._reread()

    def _put(self, path: Path, line: str) -> bool:
        """Write a file that dnsmasq will read; True if it had read another one before."""
        try:
            before = path.read_text()
        except FileNotFoundError:
            before = None
        if before == line:
            return False
        new = self._directory / f".{path.name}.new"  # outside the folder: dnsmasq reads all that is in it
        new.write_text(line)
        os.chmod(new, 0o644)
        os.replace(new, path)
        return before is not None

    def ids(self) -> set[str]:
        """The workspaces that have an entry."""
        found: set[str] = set()
        for folder in (self._addresses, self._names):
            with contextlib.suppress(FileNotFoundError):
                found |= {path.name for path in folder.iterdir()}
        return found

    def leave(self, id: str) -> None:
        """Take address and name back, and first the lease of them: what is cut off in between can be repeated as long
        as the entry tells whose lease it is. HypervisorError while dnsmasq holds on to it."""
        check_id(id)
        path = self._addresses / id
        entry = path.read_text().strip().split(",") if path.exists() else []
        if len(entry) == 3:
            self._release(entry[0], entry[1])
        reach("agent.address.released")
        for file in (self._names / id, path):
            file.unlink(missing_ok=True)
        self._reread()

    def _leased(self, mac: str) -> bool:
        return any(_is_of(mac, line) for line in self._leases())

    def _leases(self) -> list[str]:
        try:
            return (self._directory / "leases").read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []

    def _release(self, mac: str, address: str) -> None:
        """Say to dnsmasq what the guest cannot say any more. It is said even if no lease is listed: while dnsmasq
        writes its list anew, a reader finds it short."""
        if self._struck(mac):
            return
        if self._gateway is None:
            raise HypervisorError("the node's network is not open")
        message, server = _dhcp_release(mac, address, str(self._gateway.ip)), str(self._gateway.ip)
        for _ in range(10):
            self._place.inside(lambda: _send(message, server)).result()
            deadline = time.monotonic() + 0.2
            while time.monotonic() < deadline:
                if not self._leased(mac):
                    return
                time.sleep(0.005)
        raise HypervisorError(f"dnsmasq does not release the address {address}; it is tried again")

    def _struck(self, mac: str) -> bool:
        """Without dnsmasq its list is all there is of a lease, and the next one that starts would go by it."""
        with self._starting:
            if self._pid() is not None:
                return False
            leases = self._leases()
            left = [line for line in leases if not _is_of(mac, line)]
            if left != leases:
                write_whole(self._directory / "leases", "".join(left).encode(), durable=False)
            return True

    # -------------------------------------------------------- end

    def close(self) -> None:
        """Remove dnsmasq, bridge and table, if they are there."""
        self._end_dnsmasq()
        run = self._place.commands.run
        if self.bridge in self._links():
            run("ip", "link", "delete", self.bridge)
        rules = f"table ip {self._table}\ndelete table ip {self._table}\n"
        run("nft", "-f", "-", stdin=rules.encode())
        for name in ("arguments.json", "gateway", "leases", "log"):
            (self._directory / name).unlink(missing_ok=True)


def _is_of(mac: str, lease: str) -> bool:
    """Lines are `expiry mac address name client-id`."""
    return lease.split()[1:2] == [mac]


def _set_kernel(settings: dict[str, str]) -> None:
    for name, value in settings.items():
        path = Path("/proc/sys") / name
        if path.read_text().strip() != value:
            path.write_text(value)


def _address_of(interface: str) -> str | None:
    """Its IPv4 address, if it is up and has one."""
    request = struct.pack("16s24x", interface.encode())  # netdevice(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        (flags,) = struct.unpack_from("H", fcntl.ioctl(sock, _SIOCGIFFLAGS, request), 16)
        address = socket.inet_ntoa(fcntl.ioctl(sock, _SIOCGIFADDR, request)[20:24])
        return address if flags & _IFF_UP else None
    return None


def _send(message: bytes, server: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(message, (server, 67))


def _dhcp_release(mac: str, address: str, server: str) -> bytes:
    """A DHCPRELEASE (RFC 2131, 4.4.6) in the name of the guest with that MAC address."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    fixed = struct.pack("!BBBBIHH", 1, 1, len(hardware), 0, random.getrandbits(32), 0, 0)
    addresses = socket.inet_aton(address) + bytes(12)
    options = bytes([53, 1, 7, 54, 4]) + socket.inet_aton(server) + b"\xff"
    return fixed + addresses + hardware.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63" + options
