"""A workspace as libvirt sees it: pure, values in, XML out.

Built as a tree, never as text, so that no name can break out. Every file of the
disk's chain is named with its format and the chain's end is said, so that neither
libvirt nor QEMU ever looks into an image to learn what else to open.

Under emulation a boot is all CPU time, hence the CPU model, the small cache of
translated code and the kernel's extra words: each takes a wait or a measurement
out of a boot. An image's own kernel line wins over them.
"""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from vws.core.deployment import NicOrder, WorkspaceOrder
from vws.node.naming import bound_tap, bridge_name, domain_name, is_pool, isolated_tap

MARK = "urn:vws:workspace"
EMULATOR = "/usr/bin/qemu-system-x86_64"
TB_CACHE_MIB = 64
# The channel on which QEMU's guest agent listens, where a guest has it.
GUEST_AGENT = "org.qemu.guest_agent.0"
NO_SECRETS: Mapping[str, str] = MappingProxyType({})
TCG_WORDS = (
    "tsc_early_khz=2000000",
    "lpj=4000000",
    "mitigations=off",
    "no_timer_check",
    "cryptomgr.notests",
    "random.trust_cpu=on",
)

ET.register_namespace("vws", MARK)


@dataclass(frozen=True, slots=True)
class Host:
    """The node's side of a domain. kind: kvm or tcg. bridge: that of the node's own network. tag: the node's mark."""

    kind: str
    bridge: str
    tag: str


@dataclass(frozen=True, slots=True)
class Beside:
    """A disk beside the first. shared: an image's, which others have too and nobody may write to; chain: as of
    Files."""

    serial: str
    path: str
    format: str = "qcow2"
    shared: bool = False
    chain: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Files:
    """Paths as QEMU sees them. chain: the image under the disk and what that is a delta of, the nearest first, each
    (path, format); () for a blank disk. kernel, initrd: for a direct boot, else "". secrets: by the path of a file that
    is encrypted, the uuid of libvirt's secret."""

    disk: str
    seed: str
    console: str
    kernel: str = ""
    initrd: str = ""
    beside: tuple[Beside, ...] = ()
    chain: tuple[tuple[str, str], ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)


def domain_uuid(tag: str, id: str) -> str:
    """The same for every boot of a workspace, another on every other node."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{MARK}:{tag}:{id}"))


def domain_xml(order: WorkspaceOrder, host: Host, files: Files) -> str:
    """The definition of `order`'s domain with its present size."""
    domain = ET.Element("domain", type="kvm" if host.kind == "kvm" else "qemu")
    _text(domain, "name", domain_name(order.id))
    _text(domain, "uuid", domain_uuid(host.tag, order.id))
    _text(domain, "title", order.name)
    _metadata(domain, order, host)
    balloon_mib = min(order.memory_mib, order.memory_defined_mib)
    _text(domain, "memory", order.memory_defined_mib, unit="MiB")
    _text(domain, "currentMemory", balloon_mib, unit="MiB")
    _text(domain, "vcpu", order.cpus_defined, placement="static")
    _os(domain, order, host, files)
    _features(domain, host)
    _cpu(domain, host)
    ET.SubElement(domain, "clock", offset="utc")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "preserve")  # a panic must be told from a killed process
    _devices(domain, order, host, files)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def _text(parent: ET.Element, tag: str, text: object, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = str(text)
    return element


def _metadata(domain: ET.Element, order: WorkspaceOrder, host: Host) -> None:
    metadata = ET.SubElement(domain, "metadata")
    mark = {"node": host.tag, "id": order.id, "lease": order.lease, "boot": str(order.boots)}
    ET.SubElement(metadata, f"{{{MARK}}}workspace", mark)


def _os(domain: ET.Element, order: WorkspaceOrder, host: Host, files: Files) -> None:
    os = ET.SubElement(domain, "os")
    _text(os, "type", "hvm", arch="x86_64", machine="pc")
    if order.boot == "disk":
        ET.SubElement(os, "boot", dev="hd")
        return
    _text(os, "kernel", files.kernel)
    if files.initrd:
        _text(os, "initrd", files.initrd)
    _text(os, "cmdline", kernel_line(order.cmdline, host.kind))


def kernel_line(cmdline: str, kind: str) -> str:
    """The image's own words, and under emulation those that it does not set itself."""
    words = cmdline.split()
    if kind == "kvm":
        return " ".join(words)
    set_names = {word.split("=")[0] for word in words}
    return " ".join([*words, *(word for word in TCG_WORDS if word.split("=")[0] not in set_names)])


def _features(domain: ET.Element, host: Host) -> None:
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if host.kind != "kvm":
        _text(ET.SubElement(features, "tcg"), "tb-cache", TB_CACHE_MIB, unit="MiB")


def _cpu(domain: ET.Element, host: Host) -> None:
    if host.kind == "kvm":
        ET.SubElement(domain, "cpu", mode="host-passthrough", check="none")
        return
    cpu = ET.SubElement(domain, "cpu", mode="custom", match="exact", check="none")
    _text(cpu, "model", "Nehalem", fallback="forbid")
    ET.SubElement(cpu, "feature", policy="require", name="rdrand")


def _devices(domain: ET.Element, order: WorkspaceOrder, host: Host, files: Files) -> None:
    devices = ET.SubElement(domain, "devices")
    _text(devices, "emulator", EMULATOR)
    _overlay(devices, files)
    _seed(devices, files)
    for letter, disk in zip("cdefghijklmnopqrstuvwxyz", files.beside, strict=False):
        _beside(devices, f"vd{letter}", disk, files)
    ET.SubElement(devices, "controller", type="usb", model="none")
    for nic in order.interfaces:
        bridge = bridge_name(host.tag, nic.network) if nic.network else host.bridge
        _interface(devices, nic.mac, bridge, order.boot, _tap(order, nic, host.tag))
    _console(devices, files)
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name=GUEST_AGENT)
    balloon = {"model": "virtio", "freePageReporting": "on"} if host.kind == "kvm" else {"model": "virtio"}
    ET.SubElement(devices, "memballoon", balloon)
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    ET.SubElement(devices, "panic", model="isa")


def _tap(order: WorkspaceOrder, nic: NicOrder, tag: str) -> str:
    """Where rules go by the tap's name; "" leaves it to libvirt."""
    if is_pool(nic.network):
        return bound_tap(tag, nic.network, nic.mac)
    return isolated_tap(tag, nic.mac) if order.isolated and not nic.network else ""


def _overlay(devices: ET.Element, files: Files) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="qcow2", discard="unmap")
    _source(disk, files.disk, files.secrets)
    backing_chain(disk, files.chain, files.secrets)
    ET.SubElement(disk, "target", dev="vda", bus="virtio")


def backing_chain(disk: ET.Element, chain: Sequence[tuple[str, str]], secrets: Mapping[str, str] = NO_SECRETS) -> None:
    """What is under it, each (path, format), and that there is no more. secrets: as of Files."""
    above = disk
    for path, format in chain:
        above = ET.SubElement(above, "backingStore", type="file")
        ET.SubElement(above, "format", type=format)
        _source(above, path, secrets)
    ET.SubElement(above, "backingStore")


def _source(parent: ET.Element, path: str, secrets: Mapping[str, str]) -> None:
    source = ET.SubElement(parent, "source", file=path)
    if path in secrets:
        encryption = ET.SubElement(source, "encryption", format="luks")
        ET.SubElement(encryption, "secret", type="passphrase", uuid=secrets[path])


def _seed(devices: ET.Element, files: Files) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=files.seed)
    ET.SubElement(disk, "backingStore")
    ET.SubElement(disk, "target", dev="vdb", bus="virtio")
    ET.SubElement(disk, "readonly")


def _beside(devices: ET.Element, name: str, disk: Beside, files: Files) -> None:
    element = ET.SubElement(devices, "disk", type="file", device="disk")
    driver = ET.SubElement(element, "driver", name="qemu", type=disk.format)
    if not disk.shared:
        driver.set("discard", "unmap")
    _source(element, disk.path, files.secrets)
    backing_chain(element, disk.chain, files.secrets)
    ET.SubElement(element, "target", dev=name, bus="virtio")
    if disk.shared:
        ET.SubElement(element, "readonly")
        ET.SubElement(element, "shareable")
    _text(element, "serial", disk.serial)


def _interface(devices: ET.Element, mac: str, bridge: str, boot: str, tap: str = "") -> None:
    interface = ET.SubElement(devices, "interface", type="bridge")
    ET.SubElement(interface, "mac", address=mac)
    ET.SubElement(interface, "source", bridge=bridge)
    if tap:
        ET.SubElement(interface, "target", dev=tap)
    ET.SubElement(interface, "model", type="virtio")
    if boot == "direct":
        ET.SubElement(interface, "rom", enabled="no")


def _console(devices: ET.Element, files: Files) -> None:
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=files.console, append="on")
    ET.SubElement(serial, "target", type="isa-serial", port="0")
