"""What a node is told, and what it tells.

`NodeOrders` are complete and numbered: everything the node should have, nothing
else. A node refuses a generation older than the last it saw, so repeated,
delayed or lost orders are harmless. `NodeReport`s are complete too: every
workspace the node has anything of, ordered or not. What is in neither is gone.

`orders_for` derives a node's orders from the record; `facts_of` turns a report
into observations for core/lifecycle.py. Two facts need care, and get it here:

- GONE is believed only from a report made under orders that already left the
  workspace out: an older report does not list it because it had not begun.
- RUNNING is believed only of the boot that was ordered last; that it stopped or broke, of an earlier boot only from
  a node that knows of the order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum, auto
from types import MappingProxyType
from typing import Any

from vws.core.caches import CacheContents, CacheTask, Cleared, KeptFile, TaskKind
from vws.core.disks import DISKS_MAX, Disk, granted_mib
from vws.core.disks import NAME_LENGTH_MAX as DISK_NAME_LENGTH_MAX
from vws.core.errors import InvalidRequest
from vws.core.lifecycle import UNORDERED, Desired, Observation
from vws.core.members import member_name
from vws.core.site import Capacity, Cluster, Group, Image, ImageFile, Lease, Node, Save, Workspace
from vws.core.traits import UNSAID, Traits, checked_traits
from vws.core.trust import Vouched

BOOT_LIMIT_S = 300
NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NetworkOrder:
    """A network of a cluster, which a node has beside its own while it is ordered.

    cidr: its range, which other networks of the node may have too; gateway: the node's address in it. outgoing: it has
    a way out by the node's own network. domain: that of its members' names; "": the node's. public: a pool's, which
    guests of several clusters are on, and whose addresses are reached from outside as they are.
    """

    id: str
    cidr: str
    gateway: str
    outgoing: bool = False
    domain: str = ""
    public: bool = False


@dataclass(frozen=True, slots=True)
class NicOrder:
    """One interface of a workspace. network: a NetworkOrder's id, "" for the node's own. name: what the cluster calls
    that network, for the guest."""

    network: str
    mac: str
    address: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class DiskOrder:
    """A disk beside the root's, found in the guest by its serial `vws-NAME`. filesystem, label, mount: what the guest
    makes of it, "" for nothing.

    image: the id of the image whose disk it is, `file`; "": it is blank at first. A simulated image has no file. What
    is shared has no size and nobody may write to it; with `private` the workspace has a copy of its own, of size_mib.
    """

    name: str
    size_mib: int
    filesystem: str = ""
    label: str = ""
    mount: str = ""
    image: str = ""
    file: ImageFile | None = None
    private: bool = False

    @property
    def shared(self) -> bool:
        return bool(self.image) and not self.private


@dataclass(frozen=True, slots=True)
class ContextOrder:
    """What a guest needs to join its context. url: the broker's, with the name in its certificate; ca_pem: whom to
    trust for that; domain: that of the cluster's names."""

    url: str
    secret: str = field(repr=False)
    ca_pem: str
    domain: str = ""


# What a node is told of the image of a workspace that it is to boot; None: nothing, and it checks nothing.
VouchedOf = Callable[[Workspace, Lease, Image], Vouched | None]

# How a member of a cluster joins its context.
ContextOf = Callable[[Workspace, Cluster], ContextOrder | None]


@dataclass(frozen=True, slots=True)
class WorkspaceOrder:
    """Everything a node needs to know to run one workspace; it asks nobody else.

    boots: a node starts the domain once for each number it has not started yet, never twice for one.
    may_create: the disk may be made from the image; else a missing disk is a loss to be reported.
    end: UTC seconds (the service's clock) at which the node removes it by itself.
    command: a script that the guest runs once and then powers itself off; "": none.
    nics: its interfaces, the main one first; none: a single one on the node's own network, with `mac` and `address`.
    member: what its cluster calls it, which is its host name then; "": it is in none.
    beside: what the image declares of disks, whatever of them are among `disks`: its digest has it.
    vouched: what says that the image may boot. isolated: on the node's own network it reaches the gateway alone.
    """

    id: str
    name: str
    lease: str
    desired: Desired
    boots: int
    may_create: bool
    end: int
    image: str
    files: tuple[ImageFile, ...]
    boot: str
    cmdline: str
    user: str
    ready: str
    boot_limit_s: int
    cpus: int
    cpus_defined: int
    memory_mib: int
    memory_defined_mib: int
    disk_mib: int
    mac: str
    address: str
    ssh_keys: tuple[str, ...] = ()
    command: str = ""
    nics: tuple[NicOrder, ...] = ()
    disks: tuple[DiskOrder, ...] = ()
    context: ContextOrder | None = None
    member: str = ""
    vouched: Vouched | None = None
    isolated: bool = False
    beside: tuple[Disk, ...] = ()

    @property
    def hostname(self) -> str:
        return self.member or self.name

    @property
    def all_files(self) -> tuple[ImageFile, ...]:
        """Of its image, and of those whose disks it shares or copies; each once."""
        beside = (disk.file for disk in self.disks if disk.file is not None)
        return tuple({file.sha256: file for file in (*self.files, *beside)}.values())

    @property
    def encrypted(self) -> bool:
        """Whether nothing of it may lie in the clear on its node: what an encrypted image holds, its guests write."""
        return any(file.encryption for file in self.all_files)

    @property
    def interfaces(self) -> tuple[NicOrder, ...]:
        """At least one; streams to the guest go to the first."""
        return self.nics or (NicOrder("", self.mac, self.address),)


class Quiesced(StrEnum):
    """What kept a guest from writing while its disk was taken: its own agent, which froze the file systems; a pause of
    its machine, as seen by it a loss of power; or that it was off."""

    AGENT = auto()
    PAUSE = auto()
    OFF = auto()


@dataclass(frozen=True, slots=True)
class FileKey:
    """The passphrase of an image's file."""

    sha256: str
    passphrase: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WorkspaceKeys:
    """What a node needs to run an encrypted workspace. It is never part of orders, which nodes keep on disk: they ask
    for it each time that they need it, and keep none of it.

    own: the passphrase of the disks that the workspace writes to, and of its memory at rest.
    """

    own: str = field(repr=False)
    files: tuple[FileKey, ...] = ()

    def of(self, file: ImageFile) -> str | None:
        return next((key.passphrase for key in self.files if key.sha256 == file.sha256), None)


@dataclass(frozen=True, slots=True)
class CaptureOrder:
    """A workspace's disk is to be handed in as a delta on `beneath`, the disks under it, the nearest first.

    id: the save's. at_end: as it is when the workspace is removed; else now. clean: without what must differ between
    machines.
    """

    id: str
    workspace: str
    at_end: bool
    clean: bool
    beneath: tuple[ImageFile, ...] = ()


@dataclass(frozen=True, slots=True)
class ClearOrder:
    """These files (sha256s; none: all) are to go from the node's cache, but for those that are in use. Done once for
    each `id`."""

    id: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeOrders:
    """`issued_at`: the service's clock when sent, by which a node measures its own. subnet, gateway: of the node's own
    network; networks: all that there are to be beside it. captures: all that the node is to take and has not handed in;
    what it holds of others it drops. prefetch: files that it should have before they are needed, the soonest first;
    clears: what administrators want gone from its cache."""

    node: str
    generation: int
    subnet: str
    gateway: str
    workspaces: tuple[WorkspaceOrder, ...] = ()
    issued_at: float = 0.0
    networks: tuple[NetworkOrder, ...] = ()
    captures: tuple[CaptureOrder, ...] = ()
    prefetch: tuple[ImageFile, ...] = ()
    clears: tuple[ClearOrder, ...] = ()


@dataclass(frozen=True, slots=True)
class DiskTrouble:
    """A disk of a workspace that its guest could not format, swap on or mount, and why, in the guest's words."""

    disk: str
    reason: str

    def __str__(self) -> str:
        return f"the disk {self.disk} could not be prepared: {self.reason}"


@dataclass(frozen=True, slots=True)
class WorkspaceFact:
    """state: any Observation but GONE and SILENT, which nobody reports. boots: the last boot that was started.

    step: what is being done, for people ("fetching the image, 40 %"); reason: why it is broken or not getting on.
    exit_status: of its lease's command, once that has ended; so a STOPPED guest with one has done what it was for.
    fetched_mib: how much of its image was downloaded for it; what the node held already, or got for another, is 0.
    disks: those of this boot that its guest has trouble with.
    refused: it is BROKEN because the node would not boot this image (`reason` says why).
    """

    id: str
    state: Observation
    boots: int = 0
    reason: str = ""
    step: str = ""
    host_key: str = ""
    memory_mib: int = 0
    exit_status: int | None = None
    fetched_mib: int = 0
    refused: bool = False
    disks: tuple[DiskTrouble, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeReport:
    """`instance` names the agent (one per installation), `incarnation` its process (start time in ns),
    `sequence` counts within it. `generation`: the orders that the agent had when it looked. problem: why this
    node can take no new workspaces, in words for its administrator. cache: what is in its image cache; None: what it
    said last."""

    node: str
    instance: str
    incarnation: int
    sequence: int
    generation: int
    at: float
    capacity: Capacity
    hypervisor: str = ""
    hypervisor_reason: str = ""
    version: str = ""
    problem: str = ""
    workspaces: tuple[WorkspaceFact, ...] = ()
    traits: Traits = UNSAID
    cache: CacheContents | None = None


WORDS_MAX = 1000


def plain(text: str) -> str:
    """`text` as one line of printable characters, at most WORDS_MAX: a node repeats what guests and tools printed, and
    that must neither reach a terminal as control characters nor fail to be stored."""
    words = "".join(c if c.isprintable() else " " for c in text[: 4 * WORDS_MAX]).split()
    return " ".join(words)[:WORDS_MAX]


CAPACITY_MAX = Capacity(1 << 16, 1 << 40, 1 << 50, cpu_ratio=1000.0, overhead_mib=1 << 20, bandwidth_mbit=1 << 24)


def check_capacity(capacity: Capacity) -> None:
    """Raise InvalidRequest unless a machine could offer that: every request of the site is computed with it."""
    for each in fields(Capacity):
        asked, high = getattr(capacity, each.name), getattr(CAPACITY_MAX, each.name)
        if not 0 <= asked <= high:
            name = f"capacity.{each.name}"
            raise InvalidRequest(f"{name} is {asked}", field=name, asked=asked, possible=f"0 to {high}")


CACHED_FILES_MAX = 10_000
BYTES_MAX = 1 << 60
_SHA256 = re.compile(r"[0-9a-f]{64}")


def readable_contents(contents: CacheContents) -> CacheContents:
    """What a node says of its cache, with its free text made plain. InvalidRequest for what cannot be in one."""
    if len(contents.files) > CACHED_FILES_MAX or len(contents.cleared) > CACHED_FILES_MAX:
        raise InvalidRequest(
            "a cache of too many files", field="cache.files", asked=len(contents.files), possible=f"{CACHED_FILES_MAX}"
        )
    for file in contents.files:
        numbers = (file.size_bytes, file.disk_bytes, file.have_bytes, file.used_at, file.altered_at)
        if not _SHA256.fullmatch(file.sha256) or not all(0 <= number <= BYTES_MAX for number in numbers):
            raise InvalidRequest("this is no file of a cache", field="cache.files", asked=plain(str(file))[:200])
    if not (0 <= contents.limit_bytes <= BYTES_MAX and 0 <= contents.fetch_limit_mbit <= BYTES_MAX):
        raise InvalidRequest("this is no limit of a cache", field="cache.limit_bytes", asked=contents.limit_bytes)
    files = tuple(replace(f, role=plain(f.role)[:20], reason=plain(f.reason)) for f in contents.files)
    return replace(contents, files=files, cleared=tuple(map(_readable_cleared, contents.cleared)))


def _readable_cleared(cleared: Cleared) -> Cleared:
    kept = tuple(KeptFile(plain(each.sha256)[:64], plain(each.reason)) for each in cleared.kept)
    return Cleared(cleared.id, tuple(plain(id)[:64] for id in cleared.dropped), max(0, cleared.freed_bytes), kept)


def _readable_disks(troubles: Iterable[DiskTrouble]) -> tuple[DiskTrouble, ...]:
    found = [DiskTrouble(plain(each.disk)[:DISK_NAME_LENGTH_MAX], plain(each.reason)[:200]) for each in troubles]
    return tuple(found[:DISKS_MAX])


def readable(report: NodeReport) -> NodeReport:
    """The report with all its free text made plain. Raises InvalidRequest for a capacity or traits that cannot be."""
    check_capacity(report.capacity)
    facts = tuple(
        replace(
            f, reason=plain(f.reason), step=plain(f.step), host_key=plain(f.host_key), disks=_readable_disks(f.disks)
        )
        for f in report.workspaces
    )
    return replace(
        report,
        hypervisor=plain(report.hypervisor),
        hypervisor_reason=plain(report.hypervisor_reason),
        version=plain(report.version),
        problem=plain(report.problem),
        workspaces=facts,
        traits=checked_traits(report.traits),
        cache=None if report.cache is None else readable_contents(report.cache),
    )


def orders_for(
    node: Node,
    workspaces: Iterable[Workspace],
    leases: Mapping[str, Lease],
    images: Mapping[str, Image],
    *,
    now: float,
    clusters: Mapping[str, Cluster] = NONE,
    context_of: ContextOf = lambda workspace, cluster: None,
    vouched_of: VouchedOf = lambda workspace, lease, image: None,
    saves: Iterable[Save] = (),
    prefetch: Iterable[ImageFile] = (),
    tasks: Iterable[CacheTask] = (),
) -> NodeOrders:
    """The complete orders of `node`; `workspaces` may hold those of other nodes too. context_of: how a member of a
    cluster joins its context; vouched_of: what says that its image may boot. saves: those that this node is to take;
    prefetch: what it should have soon; tasks: those of its cache that are due."""
    mine = sorted((w for w in workspaces if w.node == node.id and w.state not in UNORDERED), key=lambda w: w.id)
    orders: list[WorkspaceOrder] = []
    networks: dict[str, NetworkOrder] = {}
    for workspace in mine:
        lease = leases[workspace.lease]
        image = images[workspace.image]
        order = replace(_order(workspace, lease, image, images), vouched=vouched_of(workspace, lease, image))
        cluster = clusters.get(lease.cluster)
        if cluster is not None:
            order = replace(order, context=context_of(workspace, cluster), **_of_cluster(workspace, lease))
            networks.update((each.id, each) for each in _networks_of(workspace, cluster))
        orders.append(order)
    found = tuple(networks[id] for id in sorted(networks))
    captures = tuple(_capture_order(save, images[save.base]) for save in saves)
    clears = tuple(ClearOrder(task.id, task.files) for task in tasks if task.kind is TaskKind.CLEAR)
    return NodeOrders(
        node.id, node.generation, node.subnet, node.gateway, tuple(orders), now, found, captures, tuple(prefetch),
        clears,
    )  # fmt: skip


def _capture_order(save: Save, base: Image) -> CaptureOrder:
    return CaptureOrder(save.id, save.workspace, save.at_end, save.clean, base.chain)


def _of_cluster(workspace: Workspace, lease: Lease) -> dict[str, Any]:
    """What the members of a cluster have beside other workspaces."""
    group = _group_of(workspace, lease)
    named = zip(workspace.nics, group.networks, strict=True)
    nics = tuple(NicOrder(nic.network, nic.mac, nic.address, name) for nic, name in named)
    return {"nics": nics, "member": member_name(group.name, workspace.number)}


def _group_of(workspace: Workspace, lease: Lease) -> Group:
    return next(group for group in lease.groups if group.name == workspace.group)


def _disk_order(disk: Disk, images: Mapping[str, Image]) -> DiskOrder:
    file = images[disk.image].file_of(disk) if disk.image else None
    return DiskOrder(disk.name, disk.size_mib, disk.filesystem, disk.label, disk.mount, disk.image, file, disk.private)


def _networks_of(workspace: Workspace, cluster: Cluster) -> Iterator[NetworkOrder]:
    used = {nic.network for nic in workspace.nics}
    for network in cluster.networks:
        if network.id in used:
            public = bool(network.pool)
            domain = "" if public else cluster.domain
            yield NetworkOrder(network.id, network.cidr, network.gateway, network.outgoing, domain, public)


def _order(workspace: Workspace, lease: Lease, image: Image, images: Mapping[str, Image]) -> WorkspaceOrder:
    group = _group_of(workspace, lease)
    return WorkspaceOrder(
        id=workspace.id,
        name=workspace.name,
        lease=workspace.lease,
        desired=workspace.desired,
        boots=workspace.boots,
        may_create=not workspace.came_up,
        end=workspace.end,
        image=image.id,
        files=image.files,
        boot=image.boot,
        cmdline=image.cmdline,
        user=image.user,
        ready=image.ready,
        boot_limit_s=BOOT_LIMIT_S,
        cpus=workspace.cpus,
        cpus_defined=workspace.cpus_defined,
        memory_mib=workspace.memory_mib,
        memory_defined_mib=workspace.memory_defined_mib,
        disk_mib=workspace.disk_mib - granted_mib(group.disks),
        mac=workspace.mac,
        address=workspace.address,
        ssh_keys=lease.ssh_keys,
        command=lease.command,
        disks=tuple(_disk_order(disk, images) for disk in group.disks),
        isolated=group.isolated,
        beside=image.beside,
    )


def facts_of(
    report: NodeReport, workspaces: Iterable[Workspace]
) -> Iterator[tuple[Workspace, Observation, WorkspaceFact | None]]:
    """Each unreleased workspace of the reporting node with what the report says of it.

    A workspace of which the report says nothing certain is left out.
    """
    said = {fact.id: fact for fact in report.workspaces}
    for workspace in workspaces:
        if workspace.node != report.node or workspace.released_at is not None:
            continue
        fact = said.get(workspace.id)
        if fact is None:
            if report.generation >= workspace.generation:
                yield workspace, Observation.GONE, None
        elif not _outdated(fact, workspace, report):
            yield workspace, fact.state, fact


def _outdated(fact: WorkspaceFact, workspace: Workspace, report: NodeReport) -> bool:
    """Whether the fact is about the boot before the one that is ordered.

    A boot that stopped or broke may still be told of it by the node which knows the present orders: it could not begin
    the new one.
    """
    if fact.boots >= workspace.boots:
        return False
    if fact.state in (Observation.STOPPED, Observation.BROKEN):
        return report.generation < workspace.generation
    return fact.state is Observation.RUNNING
