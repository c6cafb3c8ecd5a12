"""What a host and a simulated node are, from /sys as a test lays it out and from their configuration."""

import asyncio
import os

import pytest

from vws.config import SiteDirectory, load
from vws.core.errors import InvalidRequest
from vws.core.traits import Attribute, Traits
from vws.node.config import FakeConfig, FakeKind, NodeConfig
from vws.node.fake import FakeHypervisor
from vws.node.inventory import bandwidth_mbit, traits


def pci(sys, address, kind, vendor, device):
    place = sys / "bus/pci/devices" / address
    place.mkdir(parents=True)
    for name, text in (("class", kind), ("vendor", f"0x{vendor}"), ("device", f"0x{device}")):
        (place / name).write_text(f"{text}\n")


def card(sys, name, speed=None, *, device=True):
    place = sys / "class/net" / name
    place.mkdir(parents=True)
    if device:
        (place / "device").mkdir()
    if speed is not None:
        (place / "speed").write_text(f"{speed}\n")


def test_accelerators_are_told_from_plain_displays(tmp_path):
    pci(tmp_path, "0000:00:02.0", "0x030000", "1a03", "2000")  # the board's own
    pci(tmp_path, "0000:00:03.0", "0x030000", "8086", "9bc5")  # the processor's own
    pci(tmp_path, "0000:01:00.0", "0x030000", "10de", "2204")
    pci(tmp_path, "0000:02:00.0", "0x030200", "10de", "20b0")
    pci(tmp_path, "0000:03:00.0", "0x120000", "1da3", "1020")
    pci(tmp_path, "0000:04:00.0", "0x120000", "abcd", "0001")
    pci(tmp_path, "0000:05:00.0", "0x020000", "10de", "0001")  # a network card
    found = traits(NodeConfig(labels=("ssd", "gpu", "ssd"), attributes={"rack": "r1", "disks": 4}), tmp_path)
    assert found == Traits(
        os.uname().machine,
        ("10de:20b0", "10de:2204", "1da3:1020", "abcd:0001", "habana", "nvidia", "pci"),
        ("gpu", "ssd"),
        (Attribute("disks", 4), Attribute("rack", "r1")),
    )
    assert traits(NodeConfig(), tmp_path / "nothing").accelerators == ()


def test_bandwidth_is_the_fastest_cards_or_the_configured_one(tmp_path):
    assert bandwidth_mbit(NodeConfig(), tmp_path) == 1000
    card(tmp_path, "eth0", -1)
    card(tmp_path, "eth1")
    card(tmp_path, "vws0", 40000, device=False)
    assert bandwidth_mbit(NodeConfig(), tmp_path) == 1000
    card(tmp_path, "eth2", 10000)
    card(tmp_path, "eth3", 100)
    assert bandwidth_mbit(NodeConfig(), tmp_path) == 10000
    assert bandwidth_mbit(NodeConfig(bandwidth_mbit=2500), tmp_path) == 2500


def write(tmp_path, text):
    (tmp_path / "site.toml").write_text(text)
    return load(SiteDirectory(tmp_path))


SITE = """
[node]
labels = ["ssd"]
bandwidth_mbit = 2500
attributes = { rack = "r12", disks = 4 }

[fake]
nodes = 100
cpus = 32
labels = ["plain"]

[[fake.kinds]]
nodes = 2
memory_mib = 524288
labels = ["gpu"]
accelerators = ["nvidia"]
attributes = { rack = "r1", gpus = 4 }

[[fake.kinds]]
nodes = 1
arch = "aarch64"
cpus = 80
bandwidth_mbit = 25000
"""


def test_simulated_nodes_of_several_kinds(tmp_path):
    def described(number):
        return asyncio.run(FakeHypervisor(tmp_path / str(number), fake.of(number)).describe())

    fake = write(tmp_path, SITE).fake
    seen = [described(number) for number in (0, 1, 2, 3, 99)]
    assert [d.traits.labels for d in seen] == [("gpu",), ("gpu",), ("plain",), ("plain",), ("plain",)]
    assert [d.traits.arch for d in seen] == ["x86_64", "x86_64", "aarch64", "x86_64", "x86_64"]
    assert [d.capacity.cpus for d in seen] == [32, 32, 80, 32, 32]
    assert [d.capacity.memory_mib for d in seen] == [524288, 524288, 65536, 65536, 65536]
    assert [d.capacity.bandwidth_mbit for d in seen] == [10000, 10000, 25000, 10000, 10000]
    assert seen[0].traits.attributes == (Attribute("gpus", 4), Attribute("rack", "r1"))
    assert seen[0].traits.accelerators == ("nvidia",)
    assert FakeConfig().of(7) == FakeConfig()
    assert FakeConfig(kinds=(FakeKind(1, labels=()),), labels=("a",)).of(0).labels == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[node]\nlabels = ["a b"]', "node.labels"),
        ("[node.attributes]\ncpus = 3", "node.attributes"),
        ("[node.attributes]\nrack = 1.5", "node.attributes.rack"),
        ('[fake]\narch = ""', "fake.arch"),
        ('[[fake.kinds]]\nnodes = 1\nlabels = [""]', "fake.labels"),
        ('[[fake.kinds]]\nlabels = ["a"]', "site.toml.fake.kinds[0].nodes"),
        ("[[fake.kinds]]\nnodes = 1\ncpu = 3", "site.toml.fake.kinds[0].cpu"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_read(tmp_path, text, named):
    with pytest.raises(InvalidRequest) as refused:
        write(tmp_path, text)
    assert refused.value.field == named
