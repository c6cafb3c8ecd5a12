"""Addresses and names for the guests of one network, by a dnsmasq of its own.

Each workspace has one file that gives it its address and one that gives it its
name. dnsmasq reads a new file by itself, so a creation restarts nothing; a
deleted one it forgets on SIGHUP. A lease that a guest still holds is released in
its place, or the address could not be given to the next workspace.

dnsmasq hears on the interface that was there when it began, so another interface
of the same name means another dnsmasq. It gives root up. For the folder that it
then has to read it gets a mount namespace with that folder at /var/lib/misc,
wherever the node's directory is.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from vws.faultpoints import reach
from vws.node.commands import CommandFailed
from vws.node.namespace import Machine, end_processes
from vws.node.naming import check_address, check_id, check_mac
from vws.node.state import write_whole
from vws.ports import HypervisorError

_SEEN = "/var/lib/misc"
_IN_PLACE = 'set -e; mount --bind -- "$1" "$2"; shift 2; exec "$@"'
LEASE_S = 3600
_READY_WITHIN_S = 5.0


class Dnsmasq:
    """That of the network whose files are in `directory`, in `place`."""

    def __init__(self, directory: Path, place: Machine) -> None:
        self._directory = directory
        self._place = place
        self._gateway: ipaddress.IPv4Address | None = None
        self._starting = threading.Lock()  # or changing leases in its stead

    def make_folders(self) -> None:
        for folder in (self._directory, self._addresses, self._names):
            folder.mkdir(parents=True, exist_ok=True)
            os.chmod(folder, 0o755)

    @property
    def _addresses(self) -> Path:
        return self._directory / "addresses"

    @property
    def _names(self) -> Path:
        return self._directory / "names"

    # -------------------------------------------------------- the process

    def serve(
        self, address: ipaddress.IPv4Interface, interface: str, index: int, domain: str, options: Sequence[str]
    ) -> None:
        """Have it run with just these arguments, on the interface of that index, which has `address`."""
        arguments = [*_arguments(address, interface, domain), *options]
        told = self._directory / "arguments.json"
        text = json.dumps([index, *arguments]).encode()
        with self._starting:
            if not (self.pid() and told.exists() and told.read_bytes() == text):
                self.end()
                self._start(arguments)
                write_whole(told, text)
        self._gateway = address.ip

    def _start(self, arguments: list[str]) -> None:
        """What a process that has just ended listened on is not free at once."""
        deadline = time.monotonic() + _READY_WITHIN_S
        command = ("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _IN_PLACE, "sh")
        while True:
            try:
                self._place.commands.run(*command, str(self._directory), _SEEN, *arguments)
                break
            except CommandFailed as error:
                if "in use" not in error.output or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)
        while not self.pid():
            if time.monotonic() > deadline:
                raise HypervisorError(f"dnsmasq does not start; see {self._directory}/log")
            time.sleep(0.005)

    def pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            pid = int((self._directory / "dnsmasq.pid").read_text())
            return pid if self._is_dnsmasq(pid) else None
        return None

    def _is_dnsmasq(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/comm").read_text() == "dnsmasq\n" and self._place.holds(pid)
        return False

    def end(self) -> None:
        """It removes its pid file before it ends."""
        pid = self.pid()
        end_processes(lambda: [pid] if pid and self._is_dnsmasq(pid) else [])
        (self._directory / "dnsmasq.pid").unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what it leaves when it has ended; entries stay."""
        for name in ("arguments.json", "leases", "log"):
            (self._directory / name).unlink(missing_ok=True)

    def _reread(self) -> None:
        pid = self.pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    # -------------------------------------------------------- workspaces

    def enter(self, id: str, nics: Sequence[tuple[str, str]], *names: str, tag: str = "") -> None:
        """Give a workspace its addresses, for (MAC, address) of each interface in this network, and its names, of which
        the first is its host name. They are those of the first interface. tag: of the options that it gets by DHCP; "":
        those of all. A repeat is harmless."""
        check_id(id)
        for mac, address in nics:
            check_mac(mac), check_address(address)
        self.make_folders()
        (first_mac, first_address), *others = nics
        tagged = f"set:{tag}," if tag else ""
        lines = [f"{first_mac},{tagged}{first_address},{names[0]}\n"]
        lines += [f"{mac},{tagged}{address}\n" for mac, address in others]
        changed = self._put(self._addresses / id, "".join(lines))
        changed |= self._put(self._names / id, f"{first_address} {' '.join(dict.fromkeys(names))}\n")
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

    def given(self) -> set[tuple[str, str]]:
        """All that workspaces have been given: (MAC, address)."""
        found: set[tuple[str, str]] = set()
        with contextlib.suppress(FileNotFoundError):
            for path in self._addresses.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found |= {_given(line) for line in path.read_text().splitlines()}
        return found

    def leave(self, id: str) -> None:
        """Take address and name back, and first the lease of them: what is cut off in between can be repeated as long
        as the entry tells whose lease it is. HypervisorError while dnsmasq holds on to it."""
        check_id(id)
        path = self._addresses / id
        for line in path.read_text().splitlines() if path.exists() else []:
            self._release(*_given(line))
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
            raise HypervisorError("the guests' network is not open")
        server = str(self._gateway)
        message = _dhcp_release(mac, address, server)
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
            if self.pid() is not None:
                return False
            leases = self._leases()
            left = [line for line in leases if not _is_of(mac, line)]
            if left != leases:
                write_whole(self._directory / "leases", "".join(left).encode(), durable=False)
            return True


def _arguments(address: ipaddress.IPv4Interface, interface: str, domain: str) -> list[str]:
    network = address.network
    return [
        "dnsmasq",
        "--conf-file=/dev/null",
        f"--pid-file={_SEEN}/dnsmasq.pid",
        f"--log-facility={_SEEN}/log",
        f"--interface={interface}",
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
        f"--domain={domain}",
        f"--local=/{domain}/",
        "--local=//",
        "--expand-hosts",
    ]


def _given(line: str) -> tuple[str, str]:
    """(MAC, address) of a line that gives an address."""
    mac, address, *_ = (word for word in line.split(",") if not word.startswith("set:"))
    return mac, address


def _is_of(mac: str, lease: str) -> bool:
    """Lines are `expiry mac address name client-id`."""
    return lease.split()[1:2] == [mac]


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
