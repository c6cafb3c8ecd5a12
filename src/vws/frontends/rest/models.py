"""The shapes of the REST API: what OpenAPI shows, and the first sieve for what comes in.

Requests are read strictly (no unknown fields, no "3" for 3). Bounds stand in the schema as documentation and are
enforced by core/terms.py alone, whose sentences say more than a validator's. Answers are written by views.py; the
tests hold what it writes against the models here.
"""

from __future__ import annotations

from datetime import UTC, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vws.core import disks as core_disks
from vws.core import recurrence, requirements, terms, traits
from vws.core.deployment import NodeOrders
from vws.core.errors import InvalidRequest
from vws.core.lifecycle import State
from vws.core.site import LeaseKind, LeaseState, MaintenanceState, NodeState, Role
from vws.core.traits import ATTRIBUTE_PATTERN, ATTRIBUTES_MAX, LABEL_PATTERN, LABELS_MAX

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anna@desk"


class Asked(BaseModel):
    """A request's body: strict, and every field known."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _as_whole(value: Any) -> Any:
    """JSON knows one kind of number: 3.0 is a whole one."""
    return int(value) if type(value) is float and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_as_whole)]


def _whole(low: int, high: int, description: str, example: int) -> Any:
    return Field(description=description, examples=[example], json_schema_extra={"minimum": low, "maximum": high})


def _name(description: str, example: str, length: int = terms.NAME_LENGTH_MAX) -> Any:
    return Field(
        min_length=1,
        description=description,
        examples=[example],
        json_schema_extra={"pattern": f"^{terms.NAME_PATTERN}$", "maxLength": length},
    )


# ---------------------------------------------------------------- requests

# Of users' names.
PERSON = r"^[A-Za-z0-9][A-Za-z0-9._@-]*$"
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Duration = Annotated[Whole, _whole(1, terms.DURATION_S_MAX, "Seconds.", 7200)]
Moment = Annotated[Whole, Field(description="UTC seconds.", examples=[1795420800])]
Lifetime = Annotated[Whole, _whole(1, 10 * 366 * 24 * 3600, "Seconds.", 3600)]
Cpus = Annotated[Whole, _whole(1, terms.CPUS_MAX, "Virtual CPUs of each.", 1)]
MemoryMib = Annotated[Whole, _whole(terms.MEMORY_MIB_MIN, terms.MEMORY_MIB_MAX, "Memory of each, MiB.", 512)]
BandwidthMbit = Annotated[
    Whole, _whole(0, terms.BANDWIDTH_MBIT_MAX, "Of its node's network, kept free for each, Mbit/s.", 100)
]
DiskMib = Annotated[Whole, _whole(1, terms.DISK_MIB_MAX, "Root disk of each, MiB.", 1024)]


class DiskRequest(Asked):
    """A disk beside the root's: a blank one of a size, one to swap on (the file system `swap`), or the disk of an
    image: shared by all and read-only, or a private copy for each."""

    name: Annotated[str, _name("The guest knows it by the serial `vws-NAME`.", "data", core_disks.NAME_LENGTH_MAX)]
    size_mib: Annotated[
        Whole,
        _whole(0, core_disks.DISK_MIB_MAX, "MiB. Of a private copy 0 is its image's size; of a shared one 0.", 10240),
    ] = 0
    filesystem: Annotated[
        Literal["", "ext4", "xfs", "vfat", "swap"],
        Field(description="Made on it if there is none. Default: ext4 if it is to be mounted or has a label."),
    ] = ""
    label: Annotated[str, Field(description="Of a blank disk's file system.", json_schema_extra={"maxLength": 16})] = ""
    mount: Annotated[str, Field(description="Where the guest mounts it.", examples=["/data"])] = ""
    image: Annotated[
        str, Field(max_length=200, description="The image whose disk it is, by name or id.", examples=["genomes"])
    ] = ""
    private: Annotated[bool, Field(description="Of an image's disk: each has its own copy and may write to it.")] = (
        False
    )


class GroupRequest(Asked):
    """Equal workspaces of one image."""

    image: Annotated[Text, Field(description="An image's name or id.", examples=["demo"])]
    count: Annotated[Whole, _whole(1, terms.COUNT_MAX, "How many.", 3)] = 1
    cpus: Cpus = 1
    memory_mib: MemoryMib = 512
    disk_mib: DiskMib = 1024
    name: Annotated[
        str | None, _name("Needed when there are several groups.", "worker", terms.GROUP_NAME_LENGTH_MAX)
    ] = None
    requirement: Annotated[
        str,
        Field(
            description="What each member's node must be.",
            examples=['cpus >= 2 and "gpu" in labels'],
            json_schema_extra={"maxLength": requirements.LENGTH_MAX},
        ),
    ] = ""
    apart: Annotated[bool, Field(description="Each member on a node of its own.")] = False
    together: Annotated[bool, Field(description="All members on one node.")] = False
    bandwidth_mbit: BandwidthMbit = 0
    disks: Annotated[
        list[DiskRequest],
        Field(
            description="Beside the root's; what they take comes in addition to disk_mib.",
            json_schema_extra={"maxItems": core_disks.DISKS_MAX},
        ),
    ] = []

    def value(self) -> terms.GroupRequest:
        beside = tuple(core_disks.Disk(**disk.model_dump()) for disk in self.disks)
        more = self.model_dump(exclude={"name", "disks", "disk_mib"})
        disk_mib = self.disk_mib + core_disks.granted_mib(beside)
        return terms.GroupRequest(name=self.name or "", disk_mib=disk_mib, disks=beside, **more)


class LeaseRequest(Asked):
    """All of the groups or none, for a duration. `when`: `immediate` (now), `reservation` (at `start`), `best-effort`
    (queued, starts when it fits), `deadline` (over by `deadline`) or `periodic` (by `rule`)."""

    groups: Annotated[
        list[GroupRequest],
        Field(description="What is wanted.", json_schema_extra={"minItems": 1, "maxItems": terms.GROUPS_MAX}),
    ]
    duration_s: Duration
    name: Annotated[str | None, _name("Made up by the site if not given.", "cluster")] = None
    ssh_keys: Annotated[
        list[str],
        Field(
            description="Public keys that may log in, each one line of OpenSSH's form.",
            examples=[[KEY]],
            json_schema_extra={"maxItems": terms.SSH_KEYS_MAX},
        ),
    ] = []
    when: Annotated[terms.When, Field(strict=False, description="Which kind of lease.")] = terms.When.IMMEDIATE
    start: Annotated[
        Moment | None, Field(description="Of a reservation; of a periodic lease, from when on its rule counts.")
    ] = None
    deadline: Annotated[Moment | None, Field(description="When the run must be over.")] = None
    rule: Annotated[
        str,
        Field(
            description="A recurrence rule of RFC 5545, which makes reservations.",
            examples=["FREQ=WEEKLY;BYDAY=MO;BYHOUR=8"],
            json_schema_extra={"maxLength": recurrence.RULE_LENGTH_MAX},
        ),
    ] = ""
    until: Annotated[Moment | None, Field(description="The last possible start of a periodic lease.")] = None
    zone: Annotated[Text, Field(description="On whose clock the rule goes.", examples=["Europe/Berlin"])] = "UTC"
    exceptions: Annotated[
        terms.Exceptions,
        Field(strict=False, description="Of a rule, those that cannot be had: refuse all, or skip and list them."),
    ] = terms.Exceptions.REFUSE
    urgent: Annotated[bool, Field(description="It may preempt others, by the site's policy.")] = False
    preemptible: Annotated[bool, Field(description="It may be preempted, by the site's policy.")] = False
    restartable: Annotated[bool, Field(description="Its work may be lost when it is preempted.")] = False
    command: Annotated[
        str,
        Field(
            description="A script that each guest of a soft lease runs, at whose end the lease ends.",
            examples=["#!/bin/sh\nmake -C /data\n"],
            json_schema_extra={"maxLength": terms.COMMAND_LENGTH_MAX},
        ),
    ] = ""

    def value(self) -> terms.LeaseRequest:
        """Raises InvalidRequest for a zone that is none."""
        groups = tuple(group.value() for group in self.groups)
        more = self.model_dump(exclude={"groups", "ssh_keys", "zone"})
        return terms.LeaseRequest(groups, ssh_keys=tuple(self.ssh_keys), zone=_zone(self.zone), **more)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InvalidRequest(
            f"there is no time zone {name[:60]!r}",
            field="zone",
            asked=name[:60],
            possible="a name of the IANA's, such as UTC or Europe/Berlin",
        ) from None


class Extension(Asked):
    """How much longer: the new end is the present one and these seconds."""

    duration_s: Duration


class Resizing(Asked):
    """A new size for every workspace of a group. Memory changes live within what the present boot was defined with,
    beyond that at the next boot; the share of CPU time live, the number of virtual CPUs at the next boot."""

    group: Annotated[Text | None, Field(description="Which; all of them if not given.", examples=["worker"])] = None
    memory_mib: MemoryMib | None = None
    cpus: Cpus | None = None


class Relabelling(Asked):
    """What a node's administrator says of it, beside what its own configuration says."""

    labels: Annotated[
        list[str],
        Field(
            description="Labels to have.",
            examples=[["gpu"]],
            json_schema_extra={"maxItems": LABELS_MAX, "items": {"type": "string", "pattern": f"^{LABEL_PATTERN}$"}},
        ),
    ] = []
    attributes: Annotated[
        dict[str, Whole | str],
        Field(
            description="Attributes to have: whole numbers or texts by name.",
            examples=[{"rack": "r12"}],
            json_schema_extra={
                "maxProperties": ATTRIBUTES_MAX,
                "propertyNames": {"pattern": f"^{ATTRIBUTE_PATTERN}$"},
            },
        ),
    ] = {}
    remove: Annotated[
        list[Text], Field(description="Labels and attributes not to have any more.", examples=[["old"]])
    ] = []

    def value(self) -> traits.Relabelling:
        return traits.Relabelling(
            traits.checked_labels(self.labels), traits.checked_attributes(self.attributes), tuple(self.remove)
        )


class MaintenanceRequest(Asked):
    """A time over which the node is to run nothing."""

    start: Annotated[
        Whole | None,
        Field(description="UTC seconds; now if not given.", examples=[1900000000]),
    ] = None
    duration_s: Duration
    reason: Annotated[Text, Field(description="For those who wonder.", examples=["new disks"])]


class TokenRequest(Asked):
    """Whom the token stands for, in which role, for how long."""

    subject: Annotated[
        Text,
        Field(
            description="The user's name.",
            examples=["anna"],
            json_schema_extra={"pattern": PERSON, "maxLength": 64},
        ),
    ]
    role: Annotated[Literal["admin", "user"], Field(description="What it may do.", examples=["user"])]
    lifetime_s: Annotated[Lifetime | None, Field(description="Without it the token does not expire.")] = None


class InvitationRequest(Asked):
    lifetime_s: Annotated[Lifetime, Field(description="How long it is good for, seconds.")] = 3600


class JoinRequest(Asked):
    """Sent by a node's agent, with a join token."""

    name: Annotated[str, _name("The node's name.", "node-2")]
    instance: Annotated[Text, Field(description="Names this installation of the agent.", examples=["5d0c0f3a"])]
    version: Annotated[Text, Field(description="The agent's version.", examples=["0.1.0"])]


# ---------------------------------------------------------------- answers


class Disk(BaseModel):
    name: str
    size_mib: int = Field(description="What is granted; 0 of a shared one.")
    filesystem: str = Field(description="Made on it if there is none.")
    label: str
    mount: str = Field(description="Where the guest mounts it.")
    image: str = Field(description="The id of the image whose disk it is; empty: it is blank at first.")
    private: bool = Field(description="It is a copy of the image's disk; else that itself, shared and read-only.")
    brought: bool = Field(description="What is on it came with the image, beside the root's disk.")


class Group(BaseModel):
    name: str
    image: str = Field(description="The image's id.")
    image_name: str
    count: int
    cpus: int
    memory_mib: int
    disk_mib: int
    requirement: str = Field(description="What each member's node must be; empty: anything.")
    apart: bool = Field(description="No two members on one node.")
    together: bool = Field(description="All members on one node.")
    bandwidth_mbit: int = Field(description="Of its node's network, kept free for each.")
    first: int = Field(description="The number of its first member.")
    networks: list[str] = Field(description="Of its cluster, that each member is on; none: the node's own.")
    disks: list[Disk] = Field(description="Beside the root's; their sizes are counted in disk_mib.")
    signers: list[str] = Field(description="Who vouched for its image, one of whom must still do when it boots.")
    isolated: bool = Field(description="By the image policy: it reaches its gateway and its cluster only.")


class Workspace(BaseModel):
    """One execution environment."""

    id: str = Field(examples=["wsp-01jd3k9q4t7c2vx"])
    name: str = Field(examples=["cluster-1"])
    lease: str
    owner: str
    group: str
    state: State
    reason: str = Field(description="Why it is in this state, if there is more to say.")
    step: str = Field(description="What its node is doing for it.")
    node: str
    node_name: str
    addresses: list[str]
    hostname: str
    image: str
    user: str = Field(description="Whom to log in as.")
    cpus: int = Field(description="What was last asked for: its share of CPU time now, its virtual CPUs at a boot.")
    cpus_defined: int = Field(description="Virtual CPUs of the present boot.")
    memory_mib: int
    memory_defined_mib: int = Field(description="What the present boot may grow to.")
    disk_mib: int
    end: int
    host_key: str = Field(description="The guest's ssh host key, once known.")
    created_at: float
    changed_at: float
    running_at: float | None = Field(description="When it first ran.")
    released_at: float | None = Field(description="When its node said that nothing of it is left.")
    boots: int
    boot_refused: str = Field(
        description="Why it would not start again, once stopped: its image was revoked, or who signed it; mostly empty."
    )
    exit_status: int | None = Field(description="Of the lease's command here, once that has ended.")


class Lease(BaseModel):
    """An agreement and its life. `active` once all its workspaces ran. Times are UTC seconds."""

    id: str = Field(examples=["lse-01jd3k9q4t7c2vw"])
    name: str = Field(examples=["cluster"])
    owner: str
    kind: LeaseKind = Field(description="best-effort and deadline are soft: the site chooses when they run.")
    state: LeaseState
    reason: str
    start: int | None = Field(description="Of its run; of a soft lease that waits the planned one's, null for none.")
    end: int | None
    duration_s: int = Field(description="The length of the run that was asked for.")
    deadline: int | None
    urgent: bool = Field(description="It may preempt others, by the site's policy.")
    preemptible: bool = Field(description="It may be preempted, by the site's policy.")
    restartable: bool = Field(description="Its work may be lost when it is preempted.")
    command: str = Field(description="The script whose end in the guest ends the lease.")
    series: str = Field(description="Common to the reservations of one periodic request.")
    created_at: float
    submitted_at: float
    begun_at: float | None = Field(description="When its first run began.")
    active_at: float | None
    ended_at: float | None
    worked_s: int = Field(description="How much of its run is done and saved.")
    suspensions: int = Field(description="How often so far.")
    migrations: int = Field(description="How often so far.")
    restarts: int = Field(description="How often it has begun anew from nothing, its nodes having gone to others.")
    planned_start: int | None = Field(description="Of its next run, promised but not begun.")
    planned_end: int | None
    gives_way_at: int | None = Field(description="When its run, present or next, is to be cut by a suspension.")
    planned_nodes: list[str] = Field(description="The names of the nodes it will have, member by member.")
    groups: list[Group]
    workspaces: list[Workspace]


class Skipped(BaseModel):
    """An exception of a series: a start of its rule that could not be had."""

    start: int
    end: int
    reason: str


class Series(BaseModel):
    """What a periodic request became: a reservation for each start of its rule but the exceptions."""

    series: str = Field(examples=["srs-01jd3k9q4t7c2vz"])
    leases: list[Lease]
    skipped: list[Skipped]


class LeasePage(BaseModel):
    items: list[Lease]
    next: str | None = Field(description="`after` for the following page; null at the end.")


class WorkspacePage(BaseModel):
    items: list[Workspace]
    next: str | None


class NodeReason(BaseModel):
    node: str
    name: str
    reason: str


class Fit(BaseModel):
    """What the request would be answered now. Nothing was changed."""

    fits: bool
    reason: str
    start: int | None = Field(description="When it would run by the present plan, UTC seconds; null: not known.")
    nodes: list[NodeReason]
    offers: list[dict[str, Any]] = Field(description="What would be accepted instead; `text` says it in words.")


class MemberExplanation(BaseModel):
    workspace: str
    name: str
    state: State
    node: str
    reason: str
    step: str


class OtherLease(BaseModel):
    role: Literal["holds", "comes", "gives-way"] = Field(
        description="holds the room that is waited for; comes next on its nodes; gives way for it."
    )
    lease: str = Field(description="Its id; empty if it is not yours to know.")
    name: str
    until: int = Field(description="By the plan, UTC seconds.")


class Explanation(BaseModel):
    lease: str
    name: str
    state: LeaseState
    reason: str
    says: list[str] = Field(description="Sentences: why it waits and behind whom, when it is to run, who gives way.")
    place: int | None = Field(description="How many are before it in the queue; null: it is not in it.")
    start: int | None = Field(description="When it runs by the plan, or could at the soonest, UTC seconds.")
    nodes: list[NodeReason] = Field(description="Why each has no room for all of it now; while it waits.")
    others: list[OtherLease]
    members: list[MemberExplanation]


class Capacity(BaseModel):
    cpus: int
    cpu_ratio: float = Field(description="So many times the real CPUs are leased.")
    memory_mib: int
    disk_mib: int
    overhead_mib: int = Field(description="Memory that each workspace takes beside its own.")
    bandwidth_mbit: int = Field(description="Of its network, Mbit/s; 0 while nothing is known of it.")


class Used(BaseModel):
    cpus: int
    memory_mib: int
    disk_mib: int


class Traits(BaseModel):
    """What a node's own agent reports."""

    arch: str = Field(examples=["x86_64"])
    accelerators: list[str] = Field(examples=[["nvidia", "10de:2204"]])
    labels: list[str]
    attributes: dict[str, int | str]


class Maintenance(BaseModel):
    """A time over which a node runs nothing: [start, end), UTC seconds."""

    id: str = Field(examples=["mnt-01jd3k9q4t7c2vz"])
    node: str
    node_name: str
    state: MaintenanceState
    start: int
    end: int
    reason: str
    created_at: float
    begun_at: float | None
    removed_at: float | None
    leases: list[str] = Field(
        description="Names of leases that are there meanwhile; of others' for administrators only."
    )


class Window(BaseModel):
    """A maintenance, shown with its node."""

    id: str
    state: MaintenanceState
    start: int
    end: int
    reason: str


class MaintenancePage(BaseModel):
    items: list[Maintenance]
    next: str | None


class Node(BaseModel):
    """A physical host."""

    id: str
    name: str
    state: NodeState
    hypervisor: str
    hypervisor_reason: str
    capacity: Capacity
    used: Used
    workspaces: int
    subnet: str
    drained: bool
    heard_at: float | None
    joined_at: float
    removed_at: float | None
    generation: int
    applied_generation: int
    problem: str
    version: str
    traits: Traits
    labels: list[str] = Field(description="What requirements see: its own and the administrator's.")
    attributes: dict[str, int | str] = Field(description="The same.")
    maintenances: list[Window] = Field(description="Those that are on or ahead, by their start.")


class NodePage(BaseModel):
    items: list[Node]
    next: str | None


class Token(BaseModel):
    id: str
    subject: str
    role: Role
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class NewToken(Token):
    token: str | None = Field(
        description="The bearer token's text. It is kept nowhere: in the replay of an answer it is null."
    )


class TokenPage(BaseModel):
    items: list[Token]
    next: str | None


class Invitation(NewToken):
    url: str = Field(description="Where the new node finds the service.")


class Joined(BaseModel):
    node: str
    name: str
    token: str | None
    subnet: str


class Event(BaseModel):
    """One row of the record. What it is not about is empty."""

    seq: int
    at: float
    actor: str
    kind: str = Field(examples=["workspace.running"])
    owner: str
    lease: str
    workspace: str
    node: str
    image: str
    data: dict[str, Any]


class EventPage(BaseModel):
    items: list[Event]
    next: int | None = Field(description="`after` for the following page; null when there is nothing after it yet.")


class Health(BaseModel):
    status: str
    time: float
    warnings: list[str] = Field(description="What works, but not as its administrator meant it to.")


class SiteView(BaseModel):
    name: str
    url: str
    version: str
    time: float


class Rate(BaseModel):
    """How long one step takes: `configured`, and what this site's own history says instead."""

    step: str = Field(examples=["suspend"])
    hypervisor: str = Field(description="On whose nodes; empty: any.", examples=["kvm"])
    image: str = Field(description="Of which image; empty: any.")
    unit: str = Field(examples=["MiB/s", "s"])
    configured: float
    expected: float = Field(description="The median, which leases that start when they fit are planned by.")
    promised: float = Field(description="The 95th percentile with its margin, which hard leases are planned by.")
    count: int = Field(description="How often it was observed; 0: the configuration holds.")


class Rates(BaseModel):
    items: list[Rate]


class WaitingTunnel(BaseModel):
    id: str
    workspace: str
    target: str = Field(examples=["tcp:22"])


class Orders(BaseModel):
    orders: NodeOrders | None
    tunnels: list[WaitingTunnel] = Field(description="Streams that somebody waits for.")
    time: float


class Acknowledgement(BaseModel):
    generation: int
    time: float


class FieldError(BaseModel):
    field: str
    detail: str


class Problem(BaseModel):
    """RFC 9457. `code` is for programs, `detail` for people; `field`, `asked` and `possible` say what to change."""

    type: str = Field(examples=["urn:vws:problem:invalid-request"])
    title: str
    status: int = Field(examples=[422])
    detail: str = Field(examples=["groups[0].cpus is 0"])
    code: str = Field(examples=["invalid-request"])
    field: str | None = Field(None, examples=["groups[0].cpus"])
    asked: str | int | float | bool | None = Field(None, examples=[0])
    possible: str | None = Field(None, examples=["a whole number from 1 to 1024"])
    nodes: list[NodeReason] | None = Field(None, description="Why a lease does not fit, node by node.")
    offers: list[dict[str, Any]] | None = Field(None, description="What would fit.")
    errors: list[FieldError] | None = Field(None, description="All wrong fields, if there are several.")
    reference: str | None = Field(None, description="Of an unforeseen error: where to find it in the service's log.")
