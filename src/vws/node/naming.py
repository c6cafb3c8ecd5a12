"""What may become part of a path, a domain's name, a DNS entry or a line of another program's configuration.

Orders come from the service over an authenticated link, and are checked all the
same: the agent is root, and a `..` in a name must do no harm even if the service
has been taken over. Everything below node/libvirt.py may rely on it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from pathlib import Path

from vws.core.deployment import CaptureOrder, ContextOrder, DiskOrder, NetworkOrder, NicOrder, WorkspaceOrder
from vws.core.site import ImageFile
from vws.core.terms import COMMAND_LENGTH_MAX, CPUS_MAX, DISK_MIB_MAX, MEMORY_MIB_MAX, SSH_KEY_LENGTH_MAX
from vws.ports import HypervisorError

_ID = re.compile(r"[a-z]{3}-[0-9a-z]{1,48}")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DATA_ROLE = re.compile(r"data-[a-z0-9](?:[a-z0-9-]{0,14}[a-z0-9])?")
_MAC = re.compile(r"[0-9a-f][02468ace](?::[0-9a-f]{2}){5}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_INTERFACE = re.compile(r"[a-z][a-z0-9._-]{0,14}")
_FILESYSTEM = re.compile(r"ext[234]|xfs|btrfs|vfat|swap|")
_FILE_SYSTEM_LABEL = re.compile(r"[A-Za-z0-9._-]{0,16}")  # as long as any file system takes
_MOUNT = re.compile(r"(?:/[A-Za-z0-9._-]+)*")
_URL = re.compile(r"https://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?")
_SECRET = re.compile(r"[A-Za-z0-9._~+/=-]{1,512}")
_DOMAIN_PREFIX = "vws-"
CMDLINE_LENGTH_MAX = 2048
DOMAIN_LENGTH_MAX = 253
NICS_MAX = DISKS_MAX = 8  # with what else a machine has, all fit into one PCI bus
# A virtio disk's serial has 20 bytes.
DISK_NAME_LENGTH_MAX = 20 - len("vws-")
CA_LENGTH_MAX = 64 << 10
FORMATS = {"disk": ("qcow2", "raw"), "base": ("qcow2", "raw"), "kernel": ("kernel",), "initrd": ("initrd",)}
# Of a disk that an image brings beside the root's.
DATA_FORMATS = ("qcow2",)


def _check(good: bool, what: str, value: object) -> None:
    if not good:
        raise HypervisorError(f"{what} {str(value)[:60]!r} cannot be used on this node; nothing was done", final=True)


def is_id(name: str) -> bool:
    return bool(_ID.fullmatch(name))


def check_id(id: str) -> str:
    """`id` if it can be a file's name and part of a domain's; else HypervisorError."""
    _check(isinstance(id, str) and is_id(id), "the workspace's id", id)
    return id


def domain_name(id: str) -> str:
    return _DOMAIN_PREFIX + check_id(id)


def id_of(domain: str) -> str | None:
    """The id in a domain's name, None if it is none of ours."""
    id = domain.removeprefix(_DOMAIN_PREFIX)
    return id if domain.startswith(_DOMAIN_PREFIX) and is_id(id) else None


def tag_of(directory: Path) -> str:
    """Eight hex digits that tell this directory's node from any other on the machine."""
    return hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:8]


def interface_name(prefix: str, tag: str, network: str) -> str:
    """That of a network's interface on the machine, where a name may have 15 characters."""
    return prefix + hashlib.sha256(f"{tag}/{check_id(network)}".encode()).hexdigest()[:12]


def bridge_name(tag: str, network: str) -> str:
    """The bridge of one of the node's networks beside its own."""
    return interface_name("vb", tag, network)


def mac_for(text: str) -> str:
    """A MAC address of the node's own making, the same for the same text."""
    return f"02:76:{hashlib.sha256(text.encode()).digest()[:4].hex(':')}"


def check_interface(name: str) -> str:
    _check(bool(_INTERFACE.fullmatch(name)), "the interface name", name)
    return name


def check_network(subnet: str, gateway: str) -> ipaddress.IPv4Interface:
    """The gateway's address with its prefix length, if both make a private network of some size."""
    try:
        network = ipaddress.IPv4Network(subnet)
        address = ipaddress.IPv4Address(gateway)
    except ValueError:
        raise HypervisorError(f"{subnet} with the gateway {gateway} is not a network", final=True) from None
    _check(8 <= network.prefixlen <= 30 and not network.is_loopback and not network.is_multicast, "the subnet", subnet)
    _check(address in network, "the gateway", gateway)
    return ipaddress.IPv4Interface(f"{address}/{network.prefixlen}")


def check_network_order(order: NetworkOrder) -> NetworkOrder:
    check_id(order.id)
    check_network(order.cidr, order.gateway)
    check_domain(order.domain)
    return order


def check_domain(domain: str) -> str:
    """ "" is one too: none of its own."""
    good = len(domain) <= DOMAIN_LENGTH_MAX and all(map(_LABEL.fullmatch, domain.split(".")))
    _check(good or not domain, "the domain", domain)
    return domain


def check_address(address: str) -> str:
    try:
        plain = str(ipaddress.IPv4Address(address))
    except ValueError:
        plain = ""
    _check(plain == address, "the address", address)
    return address


def check_mac(mac: str) -> str:
    _check(bool(_MAC.fullmatch(mac)), "the MAC address", mac)
    return mac


def check_file(file: ImageFile) -> ImageFile:
    _check(bool(_SHA256.fullmatch(file.sha256)), "the image file's sha256", file.sha256)
    formats = DATA_FORMATS if _DATA_ROLE.fullmatch(file.role) else FORMATS.get(file.role, ())
    _check(file.format in formats, "the image file's role and format", f"{file.role} {file.format}")
    _check(file.size_bytes > 0, "the image file's size", file.size_bytes)
    return file


def isolated_taps(tag: str) -> str:
    """How the names of all taps begin that the node `tag` lets reach its gateway alone."""
    return f"vi{tag[:5]}"


def isolated_tap(tag: str, mac: str) -> str:
    """The name of such a guest's tap; interfaces have names of 15 characters at most."""
    return isolated_taps(tag) + hashlib.sha256(mac.encode()).hexdigest()[:8]


def is_pool(network: str) -> bool:
    """Whether it is the id of a pool's network, where members of several clusters are neighbours."""
    return network.startswith("pol-")


def bound_taps(tag: str, network: str) -> str:
    """How the names of all taps begin of a pool's network, where each is bound to what its guest was given."""
    return f"vg{hashlib.sha256(f'{tag}/{network}'.encode()).hexdigest()[:6]}"


def bound_tap(tag: str, network: str, mac: str) -> str:
    return bound_taps(tag, network) + hashlib.sha256(mac.encode()).hexdigest()[:7]


def check_order(order: WorkspaceOrder) -> WorkspaceOrder:
    """`order` if every value in it may be used as it is; else a final HypervisorError naming the first that may not."""
    check_id(order.id)
    _check(bool(_LABEL.fullmatch(order.name)), "the workspace's name", order.name)
    _check(bool(_LABEL.fullmatch(order.hostname)), "the member's name", order.member)
    check_mac(order.mac)
    check_address(order.address)
    _check(bool(_USER.fullmatch(order.user)), "the image's user", order.user)
    _check(order.boot in ("direct", "disk"), "the image's way to boot", order.boot)
    _check(order.ready in ("ssh", "boot"), "the image's sign of being ready", order.ready)
    _check(order.cmdline.isprintable() and len(order.cmdline) <= CMDLINE_LENGTH_MAX, "the kernel line", order.cmdline)
    for key in order.ssh_keys:
        _check(key.isprintable() and len(key) <= SSH_KEY_LENGTH_MAX, "the ssh key", key)
    _check("\0" not in order.command and len(order.command) <= COMMAND_LENGTH_MAX, "the command", order.command)
    roles = [check_file(file).role for file in order.files if file.role != "base"]
    for file in order.files:
        check_file(file)
    _check(len(set(roles)) == len(roles), "the image with several files of one role", roles)
    _check(order.boot == "disk" or "kernel" in roles, "the image without a kernel to boot", order.image)
    _check_sizes(order)
    _check_nics(order.nics)
    _check_disks(order.disks)
    if order.context:
        _check_context(order.context)
    return order


def check_capture(order: CaptureOrder) -> CaptureOrder:
    check_id(order.id)
    check_id(order.workspace)
    for file in order.beneath:
        _check(check_file(file).role in ("disk", "base"), "the disk under a capture", file.role)
    return order


def _check_nics(nics: tuple[NicOrder, ...]) -> None:
    _check(len(nics) <= NICS_MAX, "the number of interfaces", len(nics))
    for nic in nics:
        if nic.network:
            check_id(nic.network)
        check_mac(nic.mac)
        check_address(nic.address)
        _check(bool(_LABEL.fullmatch(nic.name)) or not nic.name, "the network's name", nic.name)
    macs = [nic.mac for nic in nics]
    _check(len(set(macs)) == len(nics), "interfaces of the same MAC address", macs)


def _check_disks(disks: tuple[DiskOrder, ...]) -> None:
    _check(len(disks) <= DISKS_MAX, "the number of disks", len(disks))
    for disk in disks:
        named = bool(_LABEL.fullmatch(disk.name)) and len(disk.name) <= DISK_NAME_LENGTH_MAX
        _check(named, "the disk's name", disk.name)
        if disk.file is not None:
            _check(check_file(disk.file).role in ("disk", f"data-{disk.name}"), "the disk of the image", disk.file.role)
        _check(not disk.image or disk.file is not None, "the disk without a file of its image", disk.image)
        _check(0 < disk.size_mib <= DISK_MIB_MAX or disk.shared, "the disk's size", disk.size_mib)
        _check(bool(disk.image) or not disk.private, "the copy of no image", disk.name)
        _check(bool(_FILESYSTEM.fullmatch(disk.filesystem)), "the file system", disk.filesystem)
        _check(bool(_FILE_SYSTEM_LABEL.fullmatch(disk.label)), "the file system's label", disk.label)
        good = bool(_MOUNT.fullmatch(disk.mount)) and ".." not in disk.mount.split("/")
        _check(good, "the disk's mount point", disk.mount)
    _check(len({disk.name for disk in disks}) == len(disks), "disks of the same name", [disk.name for disk in disks])


def _check_context(context: ContextOrder) -> None:
    _check(bool(_URL.fullmatch(context.url)), "the broker's address", context.url)
    _check(bool(_SECRET.fullmatch(context.secret)), "the secret of the context", "(not shown)")
    good = context.ca_pem.isascii() and "\0" not in context.ca_pem and len(context.ca_pem) <= CA_LENGTH_MAX
    _check(good, "the broker's CA", "(not shown)")
    check_domain(context.domain)


def _check_sizes(order: WorkspaceOrder) -> None:
    _check(0 < order.cpus <= CPUS_MAX and 0 < order.cpus_defined <= CPUS_MAX, "the number of CPUs", order.cpus)
    memory = (order.memory_mib, order.memory_defined_mib)
    _check(all(0 < mib <= MEMORY_MIB_MAX for mib in memory), "the memory size", order.memory_mib)
    _check(0 < order.disk_mib <= DISK_MIB_MAX, "the disk size", order.disk_mib)
    _check(order.boots >= 0, "the boot number", order.boots)
