"""What orders may hold before any of it reaches a path, a domain or another program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.node.builders import order
from vws.core.site import ImageFile
from vws.node import naming
from vws.ports import HypervisorError

KERNEL = ImageFile("kernel", "0" * 64, 10, "kernel")
GOOD = order(files=(KERNEL,))


def test_a_sound_order_passes() -> None:
    assert naming.check_order(GOOD) is GOOD


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "../wsp-1"},
        {"id": "wsp-1/.."},
        {"id": "wsp-"},
        {"id": "wsp-1\n"},
        {"name": "a b"},
        {"name": "-a"},
        {"name": "a" * 64},
        {"name": "a,b"},
        {"name": "A"},
        {"mac": "02:77:0a:00:00"},
        {"mac": "01:00:5e:00:00:01"},
        {"mac": "02:77:0a:00:00:01,extra"},
        {"address": "10.64.0.10/24"},
        {"address": "10.64.0.010"},
        {"address": "fe80::1"},
        {"user": "root:x"},
        {"boot": "network"},
        {"ready": "soon"},
        {"cmdline": "quiet\nroot=/dev/vda"},
        {"cmdline": "x" * 3000},
        {"ssh_keys": ("ssh-ed25519 AAAA\nssh-ed25519 BBBB",)},
        {"files": ()},
        {"files": (KERNEL, KERNEL)},
        {"files": (replace(KERNEL, sha256="../../etc/passwd"),)},
        {"files": (replace(KERNEL, sha256="F" * 64),)},
        {"files": (replace(KERNEL, role="disk"),)},
        {"files": (KERNEL, ImageFile("disk", "1" * 64, 10, "vmdk"))},
        {"files": (replace(KERNEL, size_bytes=0),)},
        {"cpus": 0},
        {"cpus_defined": 1_000_000},
        {"memory_mib": 0},
        {"memory_defined_mib": 1 << 40},
        {"disk_mib": -1},
        {"boots": -1},
        {"command": "exit\0"},
        {"command": "é" * 16_385},
    ],
    ids=lambda wrong: str(wrong)[:60],
)
def test_anything_else_is_refused_for_good(wrong: dict[str, object]) -> None:
    with pytest.raises(HypervisorError) as refused:
        naming.check_order(replace(GOOD, **wrong))
    assert refused.value.final


@pytest.mark.parametrize(
    ("subnet", "gateway"),
    [
        ("10.0.0.0/24", "10.0.1.1"),
        ("10.0.0.1/24", "10.0.0.1"),
        ("0.0.0.0/0", "10.0.0.1"),
        ("10.0.0.0/31", "10.0.0.0"),
        ("127.0.0.0/24", "127.0.0.1"),
        ("10.0.0.0/24; drop", "10.0.0.1"),
        ("fd00::/64", "fd00::1"),
    ],
)
def test_networks_that_are_none(subnet: str, gateway: str) -> None:
    with pytest.raises(HypervisorError):
        naming.check_network(subnet, gateway)


def test_a_gateway_brings_its_prefix() -> None:
    assert str(naming.check_network("10.7.0.0/22", "10.7.0.1")) == "10.7.0.1/22"


def test_domains_carry_their_workspaces_id() -> None:
    assert naming.id_of(naming.domain_name("wsp-01abc")) == "wsp-01abc"
    for foreign in ("wsp-1", "vws-", "vws-../x", "other", "vws-wsp-1-more"):
        assert naming.id_of(foreign) is None


def test_two_directories_never_share_a_mark(tmp_path: Path) -> None:
    assert naming.tag_of(tmp_path / "a") != naming.tag_of(tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert naming.tag_of(tmp_path / "link") == naming.tag_of(tmp_path / "a")
