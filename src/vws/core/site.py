"""The things a site holds, and the batch of changes by which they move.

Values only: frozen, comparable, storable. A decision in the core takes some of
them and returns others, gathered in `Changes`; the store writes a batch in one
transaction or not at all. Each change of a workspace's, lease's, image's or
node's state comes with an `Event`, so that the events table alone tells what
happened (who asked, when, from which state to which).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any

from vws.core.caches import NodeCache
from vws.core.disks import Disk, granted_mib
from vws.core.lifecycle import Desired, State
from vws.core.terms import Size
from vws.core.traits import UNSAID, Attribute, Traits

# Of all names that guests have; no name of it is known outside (ICANN reserved .internal in 2024).
DOMAIN = "vws.internal"


class Role(StrEnum):
    ADMIN = auto()
    USER = auto()
    NODE = auto()
    JOIN = auto()  # good once, to become a node


class LeaseKind(StrEnum):
    """Hard: IMMEDIATE and RESERVATION start at a given time, and what was granted is never moved or shortened.
    Soft: BEST_EFFORT starts when it fits, DEADLINE so that it is done in time. What is asked for periodically becomes
    reservations that share a `series`."""

    IMMEDIATE = auto()
    RESERVATION = auto()
    BEST_EFFORT = "best-effort"
    DEADLINE = auto()

    @property
    def soft(self) -> bool:
        return self in (LeaseKind.BEST_EFFORT, LeaseKind.DEADLINE)


class LeaseState(StrEnum):
    """WAITING (soft: in the queue, perhaps with a planned start) or PLANNED (hard: granted for later) while it has no
    workspaces yet. PENDING until all workspaces ran once, then ACTIVE; SUSPENDED while all of them are saved and wait
    to be resumed; DEGRADED while one is lost, stopped or failed; ENDING until every node says that nothing is left;
    then ENDED, or FAILED if it never became active or lost all its workspaces."""

    WAITING = auto()
    PLANNED = auto()
    PENDING = auto()
    ACTIVE = auto()
    SUSPENDED = auto()
    DEGRADED = auto()
    ENDING = auto()
    ENDED = auto()
    FAILED = auto()


LEASE_FINAL = frozenset({LeaseState.ENDED, LeaseState.FAILED})
# Agreed, but nothing of it is anywhere yet.
LEASE_AHEAD = frozenset({LeaseState.WAITING, LeaseState.PLANNED})


class NodeState(StrEnum):
    """Derived by `Node.state`; SILENT: not heard from, within the grace time; LOST: beyond it."""

    JOINING = auto()
    READY = auto()
    DRAINED = auto()
    UNFIT = auto()
    SILENT = auto()
    LOST = auto()


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of an image, by its sha256; role: disk, base, kernel or initrd, or data-NAME of a disk NAME which it
    brings beside the root's; format: qcow2, raw, kernel, initrd.

    base: the sha256 of the disk that this one is a delta of, which is then a file of the same image with the role base;
    "": it stands alone. encryption: `luks` if what is in it is encrypted, in LUKS within qcow2; "": it is in the clear.
    data_bytes: what of it is no hole; 0: not known.
    """

    role: str
    sha256: str
    size_bytes: int
    format: str
    virtual_size_mib: int = 0
    base: str = ""
    encryption: str = ""
    data_bytes: int = field(default=0, compare=False)

    @property
    def sent_bytes(self) -> int:
        """What goes over the network when a node fetches it, and what it takes there: zeros are neither sent nor
        stored."""
        return self.data_bytes or self.size_bytes


class OriginKind(StrEnum):
    """How an image was made from another. SAME_DISK: it was brought, with the very disk of one that was there."""

    COPIED = auto()
    FLATTENED = auto()
    ENCRYPTED = auto()
    SAVED = auto()
    SAME_DISK = "same-disk"


@dataclass(frozen=True, slots=True)
class Origin:
    """An image that another was made from, as it was then: it may have been removed since (core/image_origin.py).

    how: the next one was made from it. image: its id. name: what it was called; "": not told to who brought the other.
    """

    how: OriginKind
    image: str
    digest: str
    content: str
    name: str


def data_role(name: str) -> str:
    """Of the file that a disk of that name is brought by."""
    return f"data-{name}"


def chain_of(files: Iterable[ImageFile]) -> tuple[ImageFile, ...]:
    """Of an image's files its disk and those that it is a delta of, the nearest first; (): it has no disk."""
    left = {file.sha256: file for file in files if file.role == "base"}
    found = [file for file in files if file.role == "disk"]
    while found and found[-1].base in left:
        found.append(left.pop(found[-1].base))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Image:
    """boot: `disk` (firmware boots the disk) or `direct` (kernel and initrd are given to the hypervisor).

    ready: `ssh` (up when the guest's sshd answers) or `boot` (up when the domain runs).
    simulated: known to fake nodes only; it has no files.
    name: the one it was first pushed under; its present names are `ImageTag`s.
    sha256: of the file that was uploaded. What boots is bound by its digest (core/manifest.py).
    shared: who may use it beside its owner and administrators: names of VOs, `public` for all.
    base: the id of the image that its disk is a delta of; "": none.
    beside: the disks that its workspaces have beside the root's, unless their lease says otherwise.
    retired_at: since when it is granted to nobody any more, as it is to be removed when its leases are over.
    damaged: what is wrong with a file of it, found by `verify`; nothing new is granted while that is so.
    origins: what it was made from, the nearest first, and what that was made from.
    """

    id: str
    name: str
    owner: str
    sha256: str
    size_bytes: int
    boot: str
    files: tuple[ImageFile, ...]
    cmdline: str = ""
    user: str = "root"
    ready: str = "ssh"
    memory_mib_min: int = 0
    disk_mib_min: int = 0
    simulated: bool = False
    created_at: float = 0.0
    removed_at: float | None = None
    shared: tuple[str, ...] = ()
    base: str = ""
    retired_at: float | None = None
    damaged: str = ""
    origins: tuple[Origin, ...] = ()
    beside: tuple[Disk, ...] = ()

    @property
    def content(self) -> str:
        """The sha256 of what holds its guest's system: its disk, or the initrd of one that has none; "": simulated."""
        found = {file.role: file.sha256 for file in self.files}
        return found.get("disk") or found.get("initrd", "")

    @property
    def disk(self) -> ImageFile | None:
        return next((file for file in self.files if file.role == "disk"), None)

    def file_of(self, disk: Disk) -> ImageFile | None:
        """What a disk of this image is a copy of, or shares."""
        role = data_role(disk.name) if disk.brought else "disk"
        return next((file for file in self.files if file.role == role), None)

    @property
    def chain(self) -> tuple[ImageFile, ...]:
        """Its disk and those that it is a delta of, the nearest first."""
        return chain_of(self.files)

    @property
    def encrypted(self) -> bool:
        return any(file.encryption for file in self.files)


@dataclass(frozen=True, slots=True)
class ImageTag:
    """NAME:TAG points at an image. All live tags of one name have one owner, who pushed it first. Moved to
    another image, it is another row: those before stay, and are its history."""

    id: str
    name: str
    tag: str
    image: str
    owner: str
    set_at: float
    removed_at: float | None = None


class SaveState(StrEnum):
    """DUE: its node is to take it, or is at it."""

    DUE = auto()
    DONE = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class Save:
    """A workspace's disk on its way to become an image, called `name`:`tag`, of the workspace's owner.

    base: the image that it will be a delta of. at_end: taken when the workspace ends, not while it runs. clean: without
    what must differ between machines. image: what it became; reason: why it failed. ended_at: when it did either.
    """

    id: str
    workspace: str
    lease: str
    owner: str
    node: str
    base: str
    name: str
    tag: str
    at_end: bool
    clean: bool
    asked_at: float
    state: SaveState = SaveState.DUE
    image: str = ""
    reason: str = ""
    ended_at: float | None = None


class DocumentKind(StrEnum):
    SBOM = auto()
    PROVENANCE = auto()
    ATTESTATION = auto()


@dataclass(frozen=True, slots=True)
class Document:
    """What is said of an image and kept beside it, as it came: never changed, gone with the image. by: who added it."""

    id: str
    image: str
    kind: DocumentKind
    media_type: str
    content: bytes
    added_at: float
    by: str


@dataclass(frozen=True, slots=True)
class SealedKey:
    """What opens something encrypted, itself encrypted with the site's key (service/sealing.py).

    of: the id of the image that it belongs to, or of the workspace whose disks and memory it is for; file: the sha256
    of the image's file; "" for a workspace's.
    """

    id: str
    of: str
    file: str
    sealed: str = field(repr=False)
    made_at: float


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose word about images the site knows. pem: a public key or a certificate, after an authority's those of its
    intermediate ones; keyid, kind: what core/trust.py says of it. by: who put it on record. reason: why it was revoked.
    crls: lists of revoked certificates, PEM, one of each of its authorities."""

    id: str
    name: str
    keyid: str
    kind: str
    pem: str
    added_at: float
    by: str
    revoked_at: float | None = None
    reason: str = ""
    crls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Revocation:
    """What nobody may run any more, whatever it is called: by the digest of what boots, and by the disk in it (content,
    as `Image` has it; "": by the digest alone). name: of the image when it was revoked. lifted_at: since when it may be
    run again."""

    id: str
    digest: str
    name: str
    reason: str
    by: str
    made_at: float
    lifted_at: float | None = None
    content: str = ""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """An image as a list that the site subscribed to has it (core/image_lists.py: ListedImage). image: the id of what
    was fetched; "": nothing yet. dropped_at: since when it is on the list no more, or under another version."""

    identifier: str
    version: str
    title: str
    uri: str
    size_bytes: int
    sha512: str
    format: str = ""
    image: str = ""
    dropped_at: float | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """A HEPiX image list that the site follows. name: the list's own identifier. dn, ca: of who must sign it and of who
    issued that certificate, ca_pem the latter's; url: where it is published, "": handed in each time. shared: of images
    that are fetched. created_at, expires_at: as the list says; refreshed_at: when it was last looked at; problem: why
    that failed."""

    id: str
    name: str
    title: str
    version: str
    url: str
    dn: str
    ca: str
    ca_pem: str
    shared: tuple[str, ...]
    images: tuple[Subscribed, ...]
    created_at: float
    expires_at: float
    added_at: float
    by: str
    refreshed_at: float
    problem: str = ""
    removed_at: float | None = None


class OnFailure(StrEnum):
    """Of a member that does not come up, or whose hooks end badly: another in its place, the end of the cluster's
    being ready, or a cluster without it."""

    REPLACE = auto()
    FAIL = auto()
    CONTINUE = auto()


@dataclass(frozen=True, slots=True)
class Group:
    """disk_mib: of its root's and its other disks together. first: the number of its first member. networks: the names
    of its cluster's networks that each member is on, the main one first; (): the node's own.
    requirement: an expression that each member's node must meet ("": any), see core/requirements.py.
    signers: who vouched for its image when it was granted, of whom one must still do when it boots; (): nobody needs
    to. isolated: by the image policy, its members reach nothing but their node's gateway and their cluster.

    apart: no two members on one node. together: all members on one node. bandwidth_mbit: of its node's network, kept
    free for each.
    """

    name: str
    image: str
    image_name: str
    count: int
    cpus: int
    memory_mib: int
    disk_mib: int
    requirement: str = ""
    apart: bool = False
    together: bool = False
    bandwidth_mbit: int = 0
    first: int = 1
    networks: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    signers: tuple[str, ...] = ()
    isolated: bool = False

    @property
    def root_mib(self) -> int:
        """Of disk_mib the root's share."""
        return self.disk_mib - granted_mib(self.disks)

    @property
    def numbers(self) -> range:
        """Of its members."""
        return range(self.first, self.first + self.count)


class PlanPhase(StrEnum):
    """BOOKED: it lies ahead. PREPARING: moving, staging, booting or resuming. SAVING: its memory goes to disk.
    STOPPING: its time is over, or was taken from it, and what is left of it is being removed."""

    BOOKED = auto()
    PREPARING = auto()
    RUNNING = auto()
    SAVING = auto()
    STOPPING = auto()


@dataclass(frozen=True, slots=True)
class Plan:
    """The one block of time in which a lease is to hold nodes, or holds them: what the planner decided, kept so that a
    restart goes on with the same plan. Times are UTC seconds: begin <= moved <= run <= stop <= end.

    hosts: the node of each member, group by group. saves: it ends in a suspension. restores: it begins by resuming what
    was saved, after transfers until `moved`, of so many members (`moves`). doomed: it is ended at `stop` even if its
    work is not done.
    """

    phase: PlanPhase
    hosts: tuple[str, ...]
    begin: int
    moved: int
    run: int
    stop: int
    end: int
    saves: bool = False
    restores: bool = False
    doomed: bool = False
    moves: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """An agreement and its life. Times are UTC seconds, intervals half-open.

    start, end: of its run; agreed on for a hard lease. Of a soft one they are its present run's, or else its planned
    one's, and None while the plan has no place for it. Whatever has workspaces running has both.
    duration_s: the length of the run that was asked for. worked_s: as much of it as is done and saved.
    plan: the block of time that the plan has for it; None while the plan has none.
    deadline: the run is over by then. command: the script whose end in the guest ends a soft lease; "": none.
    urgent: it may preempt, preemptible: it may be preempted, restartable: its work may be lost in that; by policy.
    series: common to the reservations of one periodic request. cluster: the id of the one that it is of. one_node: all
    workspaces are on one. begun_at: when its first run began.
    suspensions, migrations, restarts (anew): how often so far. `outcome`: what it becomes once everything is gone.
    """

    id: str
    name: str
    owner: str
    kind: LeaseKind
    state: LeaseState
    groups: tuple[Group, ...]
    start: int | None
    end: int | None
    duration_s: int
    ssh_keys: tuple[str, ...]
    created_at: float
    submitted_at: float
    active_at: float | None = None
    ended_at: float | None = None
    outcome: LeaseState | None = None
    reason: str = ""
    deadline: int | None = None
    urgent: bool = False
    preemptible: bool = False
    restartable: bool = False
    command: str = ""
    series: str = ""
    worked_s: int = 0
    begun_at: float | None = None
    suspensions: int = 0
    migrations: int = 0
    restarts: int = 0
    plan: Plan | None = None
    cluster: str = ""
    one_node: bool = False

    @property
    def run(self) -> tuple[int, int]:
        """Start and end of its run, of a lease that has one."""
        assert self.start is not None, f"{self.id} has no run"
        assert self.end is not None, f"the run of {self.id} has no end"
        return self.start, self.end

    @property
    def soft(self) -> bool:
        """Whether the site chooses when it (goes on to) run: from the start, or since it gave way to others."""
        return self.kind.soft or (self.preemptible and self.suspensions > 0)

    @property
    def planned_start(self) -> int | None:
        """When its next run begins, which is promised but has not begun."""
        return self.plan.run if self.plan is not None and self.plan.phase is PlanPhase.BOOKED else None

    @property
    def planned_end(self) -> int | None:
        return self.plan.stop if self.plan is not None and self.plan.phase is PlanPhase.BOOKED else None

    @property
    def gives_way_at(self) -> int | None:
        """When its present run, or the next one, is cut by a suspension; None if none is planned."""
        ahead = (PlanPhase.BOOKED, PlanPhase.PREPARING, PlanPhase.RUNNING)
        return self.plan.stop if self.plan is not None and self.plan.saves and self.plan.phase in ahead else None

    @property
    def ended(self) -> bool:
        return self.state in LEASE_FINAL


@dataclass(frozen=True, slots=True)
class Network:
    """A network of a cluster. cidr: its range, of which the first address is the gateway's if `router` names no other.
    outgoing: whether its members reach what the node reaches. pool: of the site's, whose network it is; "": its own."""

    id: str
    name: str
    cidr: str
    outgoing: bool = False
    pool: str = ""
    router: str = ""

    @property
    def gateway(self) -> str:
        return self.router or str(next(ipaddress.ip_network(self.cidr).hosts()))


@dataclass(frozen=True, slots=True)
class GroupRoles:
    """What the members of a group provide and require (core/context.py), and what is done when one of them fails.

    last: the highest number that a member ever had: names are not used again."""

    group: str
    provides: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    on_failure: OnFailure = OnFailure.CONTINUE
    last: int = 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Leases that share networks and a context: the one of its launch, and one for each time that it grew.

    file: the cluster file it was launched from. context: the id of its context. `ended_at`: when nothing was left.
    """

    id: str
    name: str
    owner: str
    networks: tuple[Network, ...]
    roles: tuple[GroupRoles, ...]
    context: str
    file: str
    created_at: float
    ended_at: float | None = None

    @property
    def domain(self) -> str:
        """Of its members' names."""
        return f"{self.name}.{DOMAIN}"

    def network(self, name: str) -> Network | None:
        return next((network for network in self.networks if network.name == name), None)

    def roles_of(self, group: str) -> GroupRoles:
        return next((roles for roles in self.roles if roles.group == group), GroupRoles(group))


@dataclass(frozen=True, slots=True)
class Address:
    """One of a pool's (core/pools.py): reserved by its owner under a name, or held by a member of a cluster, or both.

    name: "" if it is not reserved. cluster, member: who holds it, by the cluster's id and the name in it; "": nobody.
    released_at: when it went back into its pool.
    """

    id: str
    pool: str
    address: str
    owner: str
    created_at: float
    name: str = ""
    cluster: str = ""
    member: str = ""
    released_at: float | None = None


@dataclass(frozen=True, slots=True)
class Nic:
    """An interface of a workspace. network: the id of a cluster's network, or a pool's; "": the node's own."""

    network: str
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Workspace:
    """One execution environment.

    network, address, mac: of its first interface; nics: all of them, (): this one alone.

    memory_mib: what was last asked for; memory_defined_mib: what its present boot may balloon up to.
    cpus_defined: virtual CPUs of its present boot; cpus: the share asked for.
    boots: how many boots were ordered. generation: its node's generation when its orders last changed.
    came_up: it ran once, so its disk holds work and must never be made anew.
    released_at: when its node said that nothing of it is left; till then it holds its slot and address.
    exit_status: of its lease's command here, once that has ended and the guest has powered off after it.
    """

    id: str
    name: str
    lease: str
    owner: str
    group: str
    number: int
    node: str
    image: str
    state: State
    desired: Desired
    address: str
    mac: str
    cpus: int
    memory_mib: int
    disk_mib: int
    cpus_defined: int
    memory_defined_mib: int
    end: int
    created_at: float
    changed_at: float
    boots: int = 1
    generation: int = 0
    came_up: bool = False
    running_at: float | None = None
    released_at: float | None = None
    reason: str = ""
    step: str = ""
    host_key: str = ""
    exit_status: int | None = None
    network: str = ""
    nics: tuple[Nic, ...] = ()

    @property
    def own_addresses(self) -> tuple[str, ...]:
        """Those that it has in its node's own network."""
        nics = self.nics or (Nic(self.network, self.address, self.mac),)
        return tuple(nic.address for nic in nics if not nic.network)

    @property
    def held(self) -> Size:
        """What it takes on its node: memory by the larger of asked and defined, for a balloon is no promise."""
        return Size(self.cpus, max(self.memory_mib, self.memory_defined_mib), self.disk_mib)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a node offers. `cpus` are real; `cpu_ratio` times as many are leased. Memory is never overcommitted:
    each workspace takes `overhead_mib` beside its own (the emulator's caches). bandwidth_mbit: of its network, 0 while
    nothing is said of it."""

    cpus: int
    memory_mib: int
    disk_mib: int
    cpu_ratio: float = 1.0
    overhead_mib: int = 0
    bandwidth_mbit: int = 0

    @property
    def size(self) -> Size:
        return Size(int(self.cpus * self.cpu_ratio), self.memory_mib, self.disk_mib)

    def taken_by(self, size: Size) -> Size:
        return size + Size(0, self.overhead_mib, 0)


@dataclass(frozen=True, slots=True)
class Node:
    """A physical host. `instance` names the one agent that may speak for it; `sequence` its last report.

    generation: of its orders; `subnet`: the private network its workspaces' addresses come from.
    traits: as its agent reports them; labels, attributes: what the site's administrator says beside (core/traits.py).
    """

    id: str
    name: str
    subnet: str
    joined_at: float
    capacity: Capacity = Capacity(0, 0, 0)
    hypervisor: str = ""
    hypervisor_reason: str = ""
    generation: int = 1
    applied_generation: int = 0
    instance: str = ""
    sequence: int = 0
    version: str = ""
    drained: bool = False
    silent: bool = False
    lost: bool = False
    problem: str = ""
    removed_at: float | None = None
    traits: Traits = UNSAID
    labels: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()

    @property
    def state(self) -> NodeState:
        if self.lost:
            return NodeState.LOST
        if self.silent:
            return NodeState.SILENT
        if not self.sequence:
            return NodeState.JOINING
        if self.problem:
            return NodeState.UNFIT
        return NodeState.DRAINED if self.drained else NodeState.READY

    @property
    def every_label(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.traits.labels, *self.labels)))

    @property
    def every_attribute(self) -> dict[str, str | int]:
        return {each.name: each.value for each in (*self.traits.attributes, *self.attributes)}

    @property
    def gateway(self) -> str:
        return str(next(ipaddress.ip_network(self.subnet).hosts()))


class MaintenanceState(StrEnum):
    """OVER: it lasted to its end; REMOVED: it was called off, or cut short."""

    PLANNED = auto()
    ON = auto()
    OVER = auto()
    REMOVED = auto()


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A time over which a node runs nothing: [start, end), UTC seconds.

    begun_at: when its beginning was recorded; removed_at: when it was called off, or seen to be over.
    """

    id: str
    node: str
    start: int
    end: int
    reason: str
    created_at: float
    begun_at: float | None = None
    removed_at: float | None = None

    @property
    def state(self) -> MaintenanceState:
        if self.removed_at is not None:
            return MaintenanceState.OVER if self.removed_at >= self.end else MaintenanceState.REMOVED
        return MaintenanceState.PLANNED if self.begun_at is None else MaintenanceState.ON

    def meets(self, start: float, end: float) -> bool:
        """Whether it has an instant in common with [start, end)."""
        return self.start < end and start < self.end


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, known by the sha256 of its secret. `subject`: the user's name, or the node's id."""

    id: str
    subject: str
    role: Role
    secret_sha256: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the append-only record; the store gives `seq`. kind: `workspace.running`, `lease.granted`, ..."""

    at: float
    actor: str
    kind: str
    owner: str = ""
    lease: str = ""
    workspace: str = ""
    node: str = ""
    image: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a mutating call answered, kept so that its repeat gets the same. Key: (subject, client_token)."""

    subject: str
    client_token: str
    fingerprint: str
    status: int
    body: str
    at: float


@dataclass(frozen=True, slots=True)
class Changes:
    """What one decision writes: whole values, replaced by id, in one transaction."""

    leases: tuple[Lease, ...] = ()
    workspaces: tuple[Workspace, ...] = ()
    nodes: tuple[Node, ...] = ()
    images: tuple[Image, ...] = ()
    tokens: tuple[Token, ...] = ()
    events: tuple[Event, ...] = ()
    answers: tuple[Answer, ...] = ()
    maintenances: tuple[Maintenance, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    image_tags: tuple[ImageTag, ...] = ()
    documents: tuple[Document, ...] = ()
    signers: tuple[Signer, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    addresses: tuple[Address, ...] = ()
    saves: tuple[Save, ...] = ()
    keys: tuple[SealedKey, ...] = ()
    caches: tuple[NodeCache, ...] = ()
    dropped_documents: tuple[str, ...] = ()

    def __add__(self, later: Changes) -> Changes:
        """Both, the later value of each id winning; events, answers, documents and keys in order."""
        return Changes(
            _latest(self.leases, later.leases),
            _latest(self.workspaces, later.workspaces),
            _latest(self.nodes, later.nodes),
            _latest(self.images, later.images),
            _latest(self.tokens, later.tokens),
            self.events + later.events,
            self.answers + later.answers,
            _latest(self.maintenances, later.maintenances),
            _latest(self.clusters, later.clusters),
            _latest(self.image_tags, later.image_tags),
            self.documents + later.documents,
            _latest(self.signers, later.signers),
            _latest(self.revocations, later.revocations),
            _latest(self.subscriptions, later.subscriptions),
            _latest(self.addresses, later.addresses),
            _latest(self.saves, later.saves),
            self.keys + later.keys,
            _latest(self.caches, later.caches),
            self.dropped_documents + later.dropped_documents,
        )

    def __bool__(self) -> bool:
        return any(
            (
                self.leases,
                self.workspaces,
                self.nodes,
                self.images,
                self.tokens,
                self.events,
                self.answers,
                self.maintenances,
                self.clusters,
                self.image_tags,
                self.documents,
                self.dropped_documents,
                self.signers,
                self.revocations,
                self.subscriptions,
                self.addresses,
                self.saves,
                self.keys,
                self.caches,
            )
        )


def _latest(first: tuple[Any, ...], later: Iterable[Any]) -> tuple[Any, ...]:
    merged = {value.id: value for value in first}
    merged.update((value.id, value) for value in later)
    return tuple(merged.values())
