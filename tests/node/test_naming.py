"""What orders may hold before any of it reaches a path, a domain or another program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.node.builders import order
from vws.core.deployment import ContextOrder, DiskOrder, NetworkOrder, NicOrder
from vws.core.disks import DISKS_MAX, FILESYSTEMS
from vws.core.disks import NAME_LENGTH_MAX as DISK_NAME_LENGTH_MAX
from vws.core.site import ImageFile
from vws.core.terms import DISK_MIB_MAX
from vws.node import naming
from vws.ports import HypervisorError

KERNEL = ImageFile("kernel", "0" * 64, 10, "kernel")
DATA = ImageFile("disk", "1" * 64, 10, "raw", 1)
NIC = NicOrder("net-1", "02:77:00:00:00:01", "10.20.0.2", "private")
DISK = DiskOrder("scratch", 1024, "ext4", "scratch", "/scratch")
CONTEXT = ContextOrder("https://vws.example:8443", "c2VjcmV0", "-----BEGIN CERTIFICATE-----\n", "slurm.example")
GOOD = order(
    files=(KERNEL,),
    nics=(NIC, NicOrder("", "02:77:00:00:00:02", "10.64.0.2")),
    disks=(DISK, DiskOrder("spare", 1)),
    context=CONTEXT,
)


def test_every_disk_of_a_cluster_file_can_be_made() -> None:
    """What was granted must not be refused by the node."""
    for filesystem, length in FILESYSTEMS.items():
        disks = tuple(DiskOrder(f"d{n}", DISK_MIB_MAX, filesystem, "x" * length) for n in range(DISKS_MAX))
        naming.check_order(replace(GOOD, disks=disks))
    shared = DiskOrder("d" * DISK_NAME_LENGTH_MAX, 0, mount="/data", image="img-1", file=DATA)
    assert naming.check_order(replace(GOOD, disks=(shared,))).all_files == (KERNEL, DATA)


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
        {"member": "a b"},
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
        {"disks": (replace(DISK, image="img-1"),)},
        {"disks": (replace(DISK, image="img-1", file=KERNEL),)},
        {"disks": (replace(DISK, image="img-1", file=replace(DATA, sha256="../x")),)},
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
        {"nics": (replace(NIC, network="../net-1"),)},
        {"nics": (replace(NIC, mac="01:00:5e:00:00:01"),)},
        {"nics": (replace(NIC, address="10.20.0.2/24"),)},
        {"nics": (replace(NIC, name="a\tb"),)},
        {"nics": (NIC, replace(NIC, network="net-2"))},
        {"nics": tuple(replace(NIC, network=f"net-{n}", mac=f"02:77:00:00:00:0{n}") for n in range(9))},
        {"disks": (replace(DISK, name="../x"),)},
        {"disks": (replace(DISK, name="a" * 17),)},
        {"disks": (replace(DISK, size_mib=0),)},
        {"disks": (replace(DISK, private=True),)},
        {"disks": (replace(DISK, size_mib=0, image="img-1", file=DATA, private=True),)},
        {"disks": (replace(DISK, filesystem="ext4 -F"),)},
        {"disks": (replace(DISK, label="-L x"),)},
        {"disks": (replace(DISK, mount="/a/../etc"),)},
        {"disks": (replace(DISK, mount="relative"),)},
        {"disks": (replace(DISK, mount="/with space"),)},
        {"disks": (DISK, DISK)},
        {"disks": tuple(replace(DISK, name=f"d{n}") for n in range(9))},
        {"context": replace(CONTEXT, url="http://vws.example")},
        {"context": replace(CONTEXT, url="https://vws.example/\nx")},
        {"context": replace(CONTEXT, secret="a b")},
        {"context": replace(CONTEXT, ca_pem="\0")},
        {"context": replace(CONTEXT, domain="a..b")},
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


NETWORK = NetworkOrder("net-1", "10.20.0.0/24", "10.20.0.1", domain="slurm.example")


def test_a_sound_network_passes() -> None:
    assert naming.check_network_order(NETWORK) is NETWORK


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "net/1"},
        {"cidr": "10.20.0.0/31"},
        {"cidr": "224.0.0.0/8", "gateway": "224.0.0.1"},
        {"gateway": "10.21.0.1"},
        {"gateway": "10.20.0.1; drop"},
        {"domain": "a b"},
        {"domain": "a." * 200 + "b"},
    ],
)
def test_a_network_is_refused_before_anything_is_made(wrong) -> None:
    with pytest.raises(HypervisorError):
        naming.check_network_order(replace(NETWORK, **wrong))


def test_interfaces_of_a_network_have_names_of_its_own() -> None:
    names = [naming.interface_name(p, t, i) for p in ("vb", "vr") for t in ("aa", "bb") for i in ("net-1", "net-2")]
    assert len(set(names)) == len(names)
    assert all(naming.check_interface(name) for name in names)
