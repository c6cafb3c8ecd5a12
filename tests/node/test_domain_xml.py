"""The domain's XML against golden files; read the difference before accepting it (UPDATE_GOLDEN=1 writes them)."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from tests.node.builders import order
from vws.core.deployment import DiskOrder, NicOrder
from vws.node.domain_xml import MARK, Beside, Files, Host, domain_uuid, domain_xml, kernel_line
from vws.node.naming import bound_tap, bound_taps, bridge_name

GOLDEN = Path(__file__).parents[1] / "golden"
TCG = Host("tcg", "vws0", "0123abcd")
KVM = Host("kvm", "br-vws", "0123abcd")
PLACES = {"disk": "/run/vws/d.qcow2", "seed": "/run/vws/s.iso", "console": "/run/vws/c.log"}
DIRECT = Files(**PLACES, chain=(("/run/vws/b", "qcow2"),), kernel="/run/vws/k", initrd="/run/vws/i")
FIRMWARE = Files(**PLACES, chain=(("/run/vws/b", "raw"),))
BLANK = Files(**PLACES, kernel="/run/vws/k")

WORKSPACE = order(cmdline="console=ttyS0 panic=-1 quiet", end=0, boots=3, cpus=2, cpus_defined=4, memory_mib=96)
NICS = (NicOrder("net-1", "02:77:00:00:00:01", "10.20.0.2"), NicOrder("", "02:77:00:00:00:02", "10.64.0.10"))
MEMBER = replace(WORKSPACE, nics=NICS, disks=(DiskOrder("scratch", 1024), DiskOrder("reference", 0)))
SHARED = Beside("vws-reference", "/run/vws/images/9f", "raw", shared=True)
MORE = replace(DIRECT, beside=(Beside("vws-scratch", "/run/vws/scratch.qcow2"), SHARED))
CASES = {
    "domain-tcg-direct": (WORKSPACE, TCG, DIRECT),
    "domain-kvm-disk": (replace(WORKSPACE, boot="disk", cmdline=""), KVM, FIRMWARE),
    "domain-tcg-blank": (replace(WORKSPACE, memory_mib=4096), TCG, BLANK),
    "domain-tcg-networks-disks": (MEMBER, TCG, MORE),
}


@pytest.mark.parametrize("name", CASES)
def test_domain_is_as_in_the_golden_file(name: str) -> None:
    path = GOLDEN / f"{name}.xml"
    text = domain_xml(*CASES[name])
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def taps(workspace) -> list[str]:
    """Those that it names."""
    interfaces = ET.fromstring(domain_xml(workspace, TCG, DIRECT)).iter("interface")
    return [each.find("target").get("dev") for each in interfaces if each.find("target") is not None]


def test_an_isolated_guest_has_a_tap_of_that_name_on_the_nodes_own_network_alone() -> None:
    assert taps(WORKSPACE) == []
    (tap,) = taps(replace(WORKSPACE, isolated=True))
    assert tap.startswith("vi0123a")
    assert len(tap) <= 15
    assert len(taps(replace(MEMBER, isolated=True))) == 1


def test_what_a_name_holds_stays_text() -> None:
    nasty = replace(WORKSPACE, name="</title><os/>", lease='"><memory>9</memory>', cmdline="a=<b> & 'c'")
    tree = ET.fromstring(domain_xml(nasty, TCG, DIRECT))
    assert tree.findtext("title") == "</title><os/>"
    assert len(tree.findall("memory")) == 1
    assert tree.findtext("os/cmdline", "").startswith("a=<b> & 'c' ")
    assert tree.find(f"metadata/{{{MARK}}}workspace").get("lease") == '"><memory>9</memory>'


def test_every_disk_says_its_format_and_where_its_chain_ends() -> None:
    """Else libvirt or QEMU would look into the image to learn what else to open."""
    for case in CASES.values():
        for disk in ET.fromstring(domain_xml(*case)).iter("disk"):
            assert disk.find("driver").get("type") in ("qcow2", "raw")
            chain = list(disk.iter("backingStore"))
            assert chain
            assert len(chain[-1]) == 0
            assert all(below.find("format") is not None for below in chain[:-1])


def test_a_balloon_never_exceeds_what_is_defined() -> None:
    tree = ET.fromstring(domain_xml(replace(WORKSPACE, memory_mib=4096), TCG, DIRECT))
    assert tree.findtext("currentMemory") == tree.findtext("memory") == "256"


def test_the_images_kernel_line_wins_over_the_emulators_words() -> None:
    line = kernel_line("console=ttyS1  mitigations=auto lpj=1", "tcg").split()
    assert line[:3] == ["console=ttyS1", "mitigations=auto", "lpj=1"]
    assert "mitigations=off" not in line
    assert "no_timer_check" in line
    assert kernel_line("quiet splash", "kvm") == "quiet splash"


def test_a_guest_on_a_pools_network_has_a_tap_that_rules_know_it_by() -> None:
    pool = NicOrder("pol-campus", "02:76:00:00:00:09", "198.51.100.16")
    (tap,) = taps(replace(MEMBER, nics=(*MEMBER.nics, pool)))
    assert tap == bound_tap(TCG.tag, "pol-campus", pool.mac)
    assert tap.startswith(bound_taps(TCG.tag, "pol-campus"))
    assert len(tap) <= 15
    assert tap != bound_tap(TCG.tag, "pol-other", pool.mac)


def test_each_interface_is_on_its_networks_bridge() -> None:
    tree = ET.fromstring(domain_xml(*CASES["domain-tcg-networks-disks"]))
    found = [(i.find("mac").get("address"), i.find("source").get("bridge")) for i in tree.iter("interface")]
    assert found == [("02:77:00:00:00:01", bridge_name(TCG.tag, "net-1")), ("02:77:00:00:00:02", "vws0")]


def test_a_disk_is_known_by_its_serial() -> None:
    tree = ET.fromstring(domain_xml(*CASES["domain-tcg-networks-disks"]))
    found = {disk.find("target").get("dev"): disk.findtext("serial") for disk in tree.iter("disk")}
    assert found == {"vda": None, "vdb": None, "vdc": "vws-scratch", "vdd": "vws-reference"}


def test_a_domains_uuid_is_its_nodes_own() -> None:
    assert domain_uuid("a", "wsp-1") == domain_uuid("a", "wsp-1")
    assert domain_uuid("a", "wsp-1") != domain_uuid("b", "wsp-1")
