"""What the DHCP client calls in the demo appliance, run here: its paths moved to a folder, its `ip` and `mv` ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "src/vws/guest/files/etc/udhcpc/default.script"
LEASES = {
    "eth0": {"ip": "10.77.0.9", "mask": "24", "router": "10.77.0.1", "dns": "10.20.0.1", "domain": "blue.example"},
    "eth1": {"ip": "10.77.1.9", "mask": "24", "router": "10.77.1.1", "dns": "10.77.1.1", "domain": "vws.internal"},
}
BOTH = ["search blue.example vws.internal", "nameserver 10.20.0.1", "nameserver 10.77.1.1"]


class Guest:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("run", "etc", "bin"):
            (folder / name).mkdir()
        moved = SCRIPT.read_text().replace("/run/", f"{folder}/run/").replace("/etc/", f"{folder}/etc/")
        (folder / "script").write_text(moved)
        self.program("ip", f'echo "$*" >>{folder}/ip.log')

    def program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def happens(self, event: str, interface: str) -> None:
        known = {"interface": interface, "PATH": f"{self.folder}/bin:{os.environ['PATH']}", **LEASES[interface]}
        subprocess.run(["sh", str(self.folder / "script"), event], env=known, check=True, timeout=30)

    def names(self) -> list[str]:
        return (self.folder / "etc/resolv.conf").read_text().splitlines()


@pytest.fixture
def guest(tmp_path) -> Guest:
    return Guest(tmp_path)


def test_the_first_interface_is_preferred(guest) -> None:
    guest.happens("bound", "eth1")
    guest.happens("bound", "eth0")
    assert guest.names() == BOTH
    told = (guest.folder / "ip.log").read_text()
    assert "route replace default via 10.77.0.1 dev eth0 metric 0" in told
    assert "route replace default via 10.77.1.1 dev eth1 metric 1" in told
    assert (guest.folder / "run/address").read_text() == "10.77.0.9\n"


def test_what_another_interface_told_meanwhile_is_not_lost(guest) -> None:
    """eth1 gets its lease when eth0 has gathered the names and is about to write them down."""
    other = " ".join(f"{name}={value}" for name, value in {"interface": "eth1", **LEASES["eth1"]}.items())
    guest.program(
        "mv",
        f'if mkdir {guest.folder}/once 2>/dev/null; then {other} sh {guest.folder}/script bound; fi\nexec /bin/mv "$@"',
    )
    guest.happens("bound", "eth0")
    assert (guest.folder / "once").is_dir()
    assert guest.names() == BOTH
