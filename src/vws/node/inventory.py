"""What this host is: its architecture, its accelerators, how fast its network is. Read from /sys, which asks nobody.

Accelerators are told by their PCI class, the display controllers among them by their vendor too: most are the board's
own and good for a text console. Each gives two words, its vendor's name and its PCI id, so that both `"nvidia" in
accelerators` and `"10de:2204" in accelerators` can be asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vws.core.traits import ACCELERATORS_MAX, Traits
from vws.node.config import NodeConfig

SYS = Path("/sys")
BANDWIDTH_MBIT_DEFAULT = 1000

# PCI class codes (pci.ids): 3D controllers and processing accelerators; display controllers of any kind.
_ACCELERATORS = ("0x0302", "0x12")
_DISPLAYS = "0x03"
_VENDORS = {
    "10de": "nvidia",
    "1002": "amd",
    "8086": "intel",
    "1da3": "habana",
    "10ee": "xilinx",
    "1ae0": "google",
    "1e52": "tenstorrent",
}
_GPU_VENDORS = ("10de", "1002")


def traits(config: NodeConfig, sys: Path = SYS) -> Traits:
    """What requirements can ask of this host; its labels and attributes are its configuration's."""
    found = tuple(sorted(set(_accelerators(sys))))[:ACCELERATORS_MAX]
    return replace(config.traits(), arch=os.uname().machine, accelerators=found)


def _accelerators(sys: Path) -> Iterator[str]:
    for device in sorted(sys.glob("bus/pci/devices/*")):
        kind, vendor = _read(device / "class"), _read(device / "vendor").removeprefix("0x")
        display = kind.startswith(_DISPLAYS) and vendor in _GPU_VENDORS
        if not (display or kind.startswith(_ACCELERATORS)):
            continue
        yield _VENDORS.get(vendor, "pci")
        yield f"{vendor}:{_read(device / 'device').removeprefix('0x')}"


def bandwidth_mbit(config: NodeConfig, sys: Path = SYS) -> int:
    """Mbit/s: as configured; else of the fastest network card that says how fast it is, else 1000."""
    if config.bandwidth_mbit:
        return config.bandwidth_mbit
    # Only what is a device: bridges and taps say the speed of nothing.
    speeds = [_read(card.parent / "speed") for card in sys.glob("class/net/*/device")]
    return max((int(speed) for speed in speeds if speed.isdecimal()), default=0) or BANDWIDTH_MBIT_DEFAULT


def _read(path: Path) -> str:
    """What a file of /sys says; "" if it does not (a network card that is down says EINVAL)."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
