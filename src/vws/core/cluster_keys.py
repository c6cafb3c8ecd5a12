"""The keys of a cluster file: what each may be, and what it is for.

One table, by which core/clusterfile.py reads and from which the JSON Schema is written. What is read are the entries
below, still as the file has them: contents of files not yet read, names not yet looked up.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vws.core.cluster import NAME_LENGTH_MAX as CLUSTER_NAME_LENGTH_MAX
from vws.core.cluster import NETWORKS_MAX
from vws.core.cluster_parameters import PARAMETERS, Parameter
from vws.core.cluster_spec import LeaseWishes
from vws.core.context import INFORMATION, Hook, Introduce, Ssh
from vws.core.disks import DISKS_MAX, FILESYSTEMS
from vws.core.disks import NAME_LENGTH_MAX as DISK_NAME_LENGTH_MAX
from vws.core.requirements import LENGTH_MAX as REQUIREMENT_LENGTH_MAX
from vws.core.requirements import parse as parse_requirement
from vws.core.shapes import (
    DEFINITIONS,
    Choice,
    Flag,
    Json,
    Key,
    ListOf,
    Record,
    TableOf,
    Text,
    Whole,
    bandwidth,
    duration,
    size,
)
from vws.core.site import OnFailure
from vws.core.terms import (
    BANDWIDTH_MBIT_MAX,
    COUNT_MAX,
    CPUS_MAX,
    DISK_MIB_MAX,
    DURATION_S_MAX,
    GROUP_NAME_LENGTH_MAX,
    GROUPS_MAX,
    MEMORY_MIB_MAX,
    MEMORY_MIB_MIN,
    NAME_LENGTH_MAX,
    NAME_PATTERN,
)

VERSION: Final = "cluster/1"
ROLES_MAX: Final = 100
WITHIN_S_MAX: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    range: str = ""
    outgoing: bool = False
    public: bool = False
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes: a file beside the cluster file, or a text in it."""

    source: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class FileEntry:
    path: str
    source: str = ""
    text: str = ""
    mode: str = "0644"


@dataclass(frozen=True, slots=True)
class Publishes:
    secret: bool = False


@dataclass(frozen=True, slots=True)
class SideEntry:
    files: tuple[FileEntry, ...] = ()
    hooks: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    publishes: Mapping[str, Publishes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoleEntry:
    provider: SideEntry = SideEntry()
    client: SideEntry = SideEntry()


@dataclass(frozen=True, slots=True)
class DiskEntry:
    name: str
    size_mib: int = 0
    filesystem: str = ""
    label: str = ""
    mount: str = ""
    image: str = ""
    read_only: bool | None = None


@dataclass(frozen=True, slots=True)
class GroupEntry:
    image: str
    count: int = 1
    cpus: int = 1
    memory_mib: int = 512
    disk_mib: int = 1024
    bandwidth_mbit: int = 0
    networks: tuple[str, ...] | None = None
    provides: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    disks: tuple[DiskEntry, ...] = ()
    address: str = ""
    on_failure: str = OnFailure.FAIL
    requirement: str = ""
    apart: bool = False
    together: bool = False


@dataclass(frozen=True, slots=True)
class ContextEntry:
    introduce: str = Introduce.ALL
    ssh: str = Ssh.MUTUAL
    within_s: int = 600


@dataclass(frozen=True, slots=True)
class Entries:
    """A whole cluster file."""

    vws: str
    name: str
    groups: Mapping[str, GroupEntry]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    networks: Mapping[str, NetworkEntry] = field(default_factory=dict)
    roles: Mapping[str, RoleEntry] = field(default_factory=dict)
    data: Mapping[str, Content] = field(default_factory=dict)
    context: ContextEntry = ContextEntry()
    lease: LeaseWishes = field(default_factory=LeaseWishes)


# ---------------------------------------------------------------- texts


def _name(what: str, length_max: int = NAME_LENGTH_MAX) -> Text:
    said = f"{what}: lower-case letters, digits and inner hyphens, at most {length_max} characters"
    return Text(said, NAME_PATTERN, length_max=length_max)


def _check_range(text: str) -> None:
    """Private, of a size that a network may have, and no address within it."""
    network = ipaddress.IPv4Network(text)
    if not any(network.subnet_of(block) for block in _PRIVATE):
        raise ValueError("it is not within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")
    if not 16 <= network.prefixlen <= 30:
        raise ValueError(f"a network of a cluster has /16 to /30, not /{network.prefixlen}")


_PRIVATE: Final = [ipaddress.IPv4Network(x) for x in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
_NO_WAY_OUT: Final = r"(?:^|/)\.\.?(?:/|$)"
_NETWORK: Final = _name("a network's name", GROUP_NAME_LENGTH_MAX)
_ROLE: Final = _name("a role's name")
_VALUE: Final = _name("a value's name")
_DATA: Final = _name("a name")
_SOURCE: Final = Text(
    "the path of a file beside this one or in a folder below, such as files/slurm.conf",
    r"[A-Za-z0-9._@+=-][A-Za-z0-9 ._@+=-]*(?:/[A-Za-z0-9 ._@+=-]+)*",
    _NO_WAY_OUT,
    length_max=255,
)
_PATH: Final = Text(
    "an absolute path, such as /etc/motd",
    r"(?:/[A-Za-z0-9._@+:=-]+)+",
    _NO_WAY_OUT,
    length_max=255,
)
_IMAGE: Final = Text("an image's name or id", "[!-~]+", length_max=100)
_INLINE: Final = Text("a text", length_max=65_536)
_REQUIRED: Final = Text(
    f"a role's name, or one of {', '.join(INFORMATION)}",
    f"{NAME_PATTERN}|{'|'.join(INFORMATION)}",
    length_max=NAME_LENGTH_MAX,
)
_REQUIREMENT: Final = Text(
    'a condition on nodes such as cpus >= 8 and "ssd" in labels',
    length_max=REQUIREMENT_LENGTH_MAX,
    check=parse_requirement,
)

# ---------------------------------------------------------------- records

NETWORK: Final = Record(
    "a network",
    NetworkEntry,
    {
        "range": Key(
            Text("a private range such as 10.20.0.0/24", r"[0-9.]+/[0-9]+", check=_check_range),
            "Its addresses; the first is the gateway's. Two clusters may have the same.",
        ),
        "outgoing": Key(Flag(), "Whether its members reach the world outside, as the node does."),
        "public": Key(Flag(), "Addresses that the site sets aside, instead of a network of its own."),
        "pool": Key(_name("a pool's name"), "The same, from that one of the site's pools."),
    },
)
CONTENT: Final = {
    "from": Key(_SOURCE, "The file, beside this one.", field="source"),
    "text": Key(_INLINE, "The text itself."),
}
FILE: Final = Record(
    "a file",
    FileEntry,
    {
        "path": Key(_PATH, "Where members have it.", required=True),
        **CONTENT,
        "mode": Key(Text('octal digits in quotes, such as "0600"', "[0-7]{3,4}"), 'Its permissions. Default: "0644".'),
    },
    one_of=("from", "text"),
)
_CLIENT_KEYS: Final = {
    "files": Key(ListOf(FILE), "Files that such a member writes before its hooks run."),
    "hooks": Key(
        TableOf(_SOURCE, Text("a hook", "|".join(Hook)), names=tuple(Hook)),
        "Programs that such a member runs: once it has joined, when others came or went, when somebody has left.",
    ),
    "after": Key(ListOf(_ROLE), "Roles all of whose providers must be done before on-joined runs."),
    "uses": Key(ListOf(_VALUE), "Published values that must be there before on-joined runs."),
}
_PROVIDER_KEYS: Final = {
    **_CLIENT_KEYS,
    "publishes": Key(
        TableOf(
            Record(
                "a value",
                Publishes,
                {"secret": Key(Flag(), "Only those who use it get it; it is in no listing and no log.")},
            ),
            _VALUE,
        ),
        "Values that its hooks publish, by vws-publish NAME.",
    ),
}
ROLE: Final = Record(
    "a role",
    RoleEntry,
    {
        "provider": Key(Record("the side of those who provide it", SideEntry, _PROVIDER_KEYS), "What providers do."),
        "client": Key(
            Record("the side of those who require it", SideEntry, _CLIENT_KEYS),
            "What those do who require it; they wait until all providers are done.",
        ),
    },
)
DISK: Final = Record(
    "a disk",
    DiskEntry,
    {
        "name": Key(_name("a disk's name", DISK_NAME_LENGTH_MAX), "Unique within the group.", required=True),
        "size": Key(
            size(1, DISK_MIB_MAX), "How large it is; of a private copy the image's size if not said.", field="size_mib"
        ),
        "image": Key(_IMAGE, "The image whose disk it is; without it the disk is blank."),
        "read-only": Key(Flag(), "Of an image's disk: shared by all members (the default); false: each has a copy."),
        "filesystem": Key(Choice(tuple(FILESYSTEMS)), "What is made on it, if there is nothing yet; swap is used."),
        "label": Key(Text("a label: letters, digits, _ and -", "[A-Za-z0-9_-]+", length_max=16), "Its label."),
        "mount": Key(_PATH, "Where it is mounted."),
    },
    some_of=("size", "image"),
)
GROUP: Final = Record(
    "a group",
    GroupEntry,
    {
        "image": Key(_IMAGE, "What they boot.", required=True),
        "count": Key(Whole(1, COUNT_MAX), "How many members. Default: 1."),
        "cpus": Key(Whole(1, CPUS_MAX), "CPUs of each. Default: 1."),
        "memory": Key(size(MEMORY_MIB_MIN, MEMORY_MIB_MAX), "Of each. Default: 512MiB.", field="memory_mib"),
        "disk": Key(size(1, DISK_MIB_MAX), "The root disk of each. Default: 1GiB.", field="disk_mib"),
        "bandwidth": Key(
            bandwidth(1, BANDWIDTH_MBIT_MAX), "Of the node's network, kept free for each.", field="bandwidth_mbit"
        ),
        "networks": Key(ListOf(_NETWORK, NETWORKS_MAX), "The main one first. Default: the only one there is."),
        "address": Key(
            Text("the name of a reserved address, or itself", r"[a-z0-9][a-z0-9.-]*", length_max=NAME_LENGTH_MAX),
            "Of its one member in its public network: an address that you have reserved. Default: any.",
        ),
        "provides": Key(ListOf(_ROLE), "Its roles."),
        "requires": Key(ListOf(_REQUIRED), "Roles whose providers it has to know, and information of the site."),
        "disks": Key(ListOf(DISK, DISKS_MAX), "Disks of each member beside its root's."),
        "on-failure": Key(Choice(tuple(OnFailure)), "When a member fails. Default: fail."),
        "require": Key(_REQUIREMENT, "What each member's node must be.", field="requirement"),
        "apart": Key(Flag(), "Each member on a node of its own, which members of a private network cannot be."),
        "together": Key(Flag(), "All members on one node."),
    },
)
CONTEXT: Final = Record(
    "the context",
    ContextEntry,
    {
        "introduce": Key(Choice(tuple(Introduce)), "Who hears of whom: all, or only of those it requires."),
        "ssh": Key(Choice(tuple(Ssh)), "Whether members may log in to each other. Default: mutual."),
        "within": Key(
            duration(10, WITHIN_S_MAX), "How long members may take to report, and a hook to end. Default: 10m.",
            field="within_s",
        ),
    },
)  # fmt: skip
LEASE: Final = Record(
    "the lease",
    LeaseWishes,
    {
        "for": Key(duration(1, DURATION_S_MAX), "For how long; --for goes before it.", field="duration_s"),
        "best-effort": Key(Flag(), "Whether it may wait until it fits."),
        "preemptible": Key(Flag(), "Whether it may be suspended for others."),
        "urgent": Key(Flag(), "Whether it may suspend others, as far as the site allows."),
    },
)
CLUSTER: Final = Record(
    "a cluster file",
    Entries,
    {
        "vws": Key(Choice((VERSION,)), "The form of this file.", required=True),
        "name": Key(
            _name("a name", CLUSTER_NAME_LENGTH_MAX), "Of the cluster, unless --name says otherwise.", required=True
        ),
        "parameters": Key(PARAMETERS, 'Values to choose at each launch (--set), written "${name}" below.'),
        "networks": Key(TableOf(NETWORK, _NETWORK, NETWORKS_MAX), "Networks. Without any: the nodes' own."),
        "roles": Key(TableOf(ROLE, _ROLE, ROLES_MAX), "What members do for each other, in the order of their hooks."),
        "groups": Key(
            TableOf(GROUP, _name("a group's name", GROUP_NAME_LENGTH_MAX), GROUPS_MAX), "The members.", required=True
        ),
        "data": Key(TableOf(Record("data", Content, CONTENT, one_of=("from", "text")), _DATA), "For all members."),
        "context": Key(CONTEXT, "How members get to know each other."),
        "lease": Key(LEASE, "How long, and how patiently."),
    },
    literal=("vws", "parameters"),
)


def schema() -> dict[str, Any]:
    """The JSON Schema of cluster files."""
    head: Json = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "VWS cluster file",
        "description": f"A virtual cluster, {VERSION}. A parameter is written ${{name}} and may stand for any scalar.",
    }
    return head | CLUSTER.schema() | {"$defs": DEFINITIONS}
