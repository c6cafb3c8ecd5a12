"""What a user asks for and what a site may agree to.

A `LeaseRequest` is checked here for being sensible by itself (`check_request`):
names, numbers and keys, times, and which of them go together, each error naming
its field. Whether the site has room is another question, answered by core/agreement.py.

The bounds below catch slips of the pen (a memory of 10**12 MiB), they are not
a site's policy.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from enum import StrEnum, auto
from itertools import pairwise
from typing import Final

from vws.core.disks import DISK_MIB_MAX as DISK_MIB_MAX
from vws.core.disks import Disk, checked_disks, granted_mib
from vws.core.errors import InvalidRequest
from vws.core.recurrence import SERIES_S_MAX, said, starts
from vws.core.spans import show_duration, show_exactly

# A name becomes a host name inside the cluster, hence RFC 1123 labels; room is left for "-group-123".
NAME_LENGTH_MAX = 40
NAME_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"
# lease name, group name and number make one label of at most 63 characters
GROUP_NAME_LENGTH_MAX = 16
COUNT_MAX = 10_000
GROUPS_MAX = 100
CPUS_MAX = 1_024
MEMORY_MIB_MAX = 16 * 1024 * 1024
MEMORY_MIB_MIN = 32
BANDWIDTH_MBIT_MAX = 1_000_000
DURATION_S_MAX = 366 * 24 * 3600
# How far ahead a lease may be asked for.
AHEAD_S_MAX = SERIES_S_MAX
SSH_KEYS_MAX = 64
SSH_KEY_LENGTH_MAX = 8192
# Each workspace's orders carry all of its lease's keys.
SSH_KEYS_LENGTH_MAX = 16_384
# A lease's command travels the same way. A longer program is fetched by a short one.
COMMAND_LENGTH_MAX = 16_384
SSH_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


@dataclass(frozen=True, slots=True)
class Size:
    """How much one workspace takes, or how much a node has left."""

    cpus: int
    memory_mib: int
    disk_mib: int

    def __add__(self, other: Size) -> Size:
        return Size(self.cpus + other.cpus, self.memory_mib + other.memory_mib, self.disk_mib + other.disk_mib)

    def __sub__(self, other: Size) -> Size:
        return Size(self.cpus - other.cpus, self.memory_mib - other.memory_mib, self.disk_mib - other.disk_mib)

    def within(self, room: Size) -> Size:
        """As much of it as fits there."""
        return Size(min(self.cpus, room.cpus), min(self.memory_mib, room.memory_mib), min(self.disk_mib, room.disk_mib))

    def fits_in(self, room: Size) -> bool:
        return self.cpus <= room.cpus and self.memory_mib <= room.memory_mib and self.disk_mib <= room.disk_mib


class When(StrEnum):
    """When a lease is to run: now; at a time; when it fits; so that it is done by a time; again and again by a rule."""

    IMMEDIATE = auto()
    RESERVATION = auto()
    BEST_EFFORT = "best-effort"
    DEADLINE = auto()
    PERIODIC = auto()

    @property
    def soft(self) -> bool:
        """The site chooses when it runs, and may suspend it in between."""
        return self in (When.BEST_EFFORT, When.DEADLINE)


class Exceptions(StrEnum):
    """What becomes of a series of which some instances cannot be had: all of it refused, or those left out."""

    REFUSE = auto()
    SKIP = auto()


@dataclass(frozen=True, slots=True)
class GroupRequest:
    """`count` equal workspaces of one image (a name or an id). disk_mib: of the root's and the other disks together.
    first, networks: of a cluster's members, as in `Group`. address: the reserved one that a single member has in its
    public network, by its name or itself; "": any.

    requirement: an expression that their nodes must meet, see core/requirements.py; "": any node.
    apart: each on a node of its own. together: all on one node. bandwidth_mbit: of its node's network, kept free for
    each.
    """

    image: str
    count: int = 1
    cpus: int = 1
    memory_mib: int = 512
    disk_mib: int = 1024
    name: str = ""
    requirement: str = ""
    apart: bool = False
    together: bool = False
    bandwidth_mbit: int = 0
    first: int = 1
    networks: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    address: str = ""

    @property
    def size(self) -> Size:
        return Size(self.cpus, self.memory_mib, self.disk_mib)

    @property
    def root_mib(self) -> int:
        """Of disk_mib the root's share."""
        return self.disk_mib - granted_mib(self.disks)


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A lease of all its groups or of none, for `duration_s` seconds. Times are UTC seconds.

    start: of a reservation; of a series the time from which on its rule counts (None: now). deadline: the run is over
    by then. rule: RFC 5545, on the clock of `zone`; until: the last possible start of a series.
    urgent: it may preempt, preemptible: it may be preempted, restartable: its work may be lost in that; by policy.
    command: a script that each guest runs; once all have ended, so does the (soft) lease.
    cluster: the id of the one that it is of; one_node: all workspaces are to be on one node.
    """

    groups: tuple[GroupRequest, ...]
    duration_s: int
    name: str | None = None
    ssh_keys: tuple[str, ...] = ()
    when: When = When.IMMEDIATE
    start: int | None = None
    deadline: int | None = None
    rule: str = ""
    until: int | None = None
    zone: tzinfo = UTC
    exceptions: Exceptions = Exceptions.REFUSE
    urgent: bool = False
    preemptible: bool = False
    restartable: bool = False
    command: str = ""
    cluster: str = ""
    one_node: bool = False

    def starts(self, now: int) -> tuple[int, ...]:
        """When the instances of a series start. Raises InvalidRequest for a rule that gives none."""
        return starts(self.rule, zone=self.zone, now=now, start=self.start, until=self.until)


def check_name(name: str, field_name: str = "name") -> str:
    """Return `name` if it can be a host name and a file name; raise InvalidRequest otherwise."""
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        shown = name if isinstance(name, str) and len(name) <= 60 else f"{str(name)[:57]}..."
        raise InvalidRequest(
            f"{shown!r} cannot be a name",
            field=field_name,
            asked=shown,
            possible=f"lower-case letters, digits and inner hyphens, at most {NAME_LENGTH_MAX} characters",
        )
    return name


def check_number(value: int, field_name: str, low: int, high: int, unit: str = "") -> int:
    """Return `value` if low <= value <= high; raise InvalidRequest naming the field otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        suffix = f" {unit}" if unit else ""
        raise InvalidRequest(
            f"{field_name} is {value}{suffix}",
            field=field_name,
            asked=value,
            possible=f"a whole number from {low} to {high}{suffix}",
        )
    return value


def check_duration(duration_s: int, field_name: str = "duration_s") -> int:
    return check_number(duration_s, field_name, 1, DURATION_S_MAX, "s")


def check_ssh_key(key: str, field_name: str) -> str:
    """Return a public key in OpenSSH's one-line form, stripped; a private key or options are refused."""
    possible = "one line of an OpenSSH public key file: a type such as ssh-ed25519, the key, a comment"
    if "PRIVATE KEY" in key:
        raise InvalidRequest(
            "this is a private key, which must never leave your machine",
            field=field_name,
            possible=f"{possible} (the file ending in .pub)",
        )
    line = key.strip()
    parts = line.split(None, 2)
    if len(line) > SSH_KEY_LENGTH_MAX or "\n" in line or "\r" in line or "\0" in line or len(parts) < 2:
        raise InvalidRequest("this is not an ssh public key", field=field_name, possible=possible)
    try:
        blob = base64.b64decode(parts[1], validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    named = parts[0].encode()
    if parts[0] not in SSH_KEY_TYPES or blob[: 4 + len(named)] != len(named).to_bytes(4, "big") + named:
        raise InvalidRequest("this is not an ssh public key", field=field_name, asked=parts[0][:40], possible=possible)
    return line


def check_request(request: LeaseRequest, *, now: int) -> LeaseRequest:
    """Return the request with its keys stripped, or raise InvalidRequest. now: UTC seconds."""
    if request.name is not None:
        check_name(request.name)
    check_duration(request.duration_s)
    if not 1 <= len(request.groups) <= GROUPS_MAX:
        raise InvalidRequest(
            "a lease needs at least one group" if not request.groups else "too many groups",
            field="groups",
            asked=len(request.groups),
            possible=f"1 to {GROUPS_MAX} groups",
        )
    if len(request.ssh_keys) > SSH_KEYS_MAX:
        raise InvalidRequest(
            "too many ssh keys",
            field="ssh_keys",
            asked=len(request.ssh_keys),
            possible=f"at most {SSH_KEYS_MAX}",
        )
    groups = tuple(_check_group(group, f"groups[{i}]") for i, group in enumerate(request.groups))
    names = [group.name for group in groups]
    if len(groups) > 1 and len(set(names)) != len(names):
        raise InvalidRequest(
            "each group of a lease needs a name of its own",
            field="groups",
            asked=names,
            possible="different names, such as head and worker",
        )
    keys = tuple(check_ssh_key(key, f"ssh_keys[{i}]") for i, key in enumerate(request.ssh_keys))
    check_number(sum(map(len, keys)), "ssh_keys", 0, SSH_KEYS_LENGTH_MAX, "characters in all")
    _check_when(request, now)
    _check_softness(request)
    return replace(request, groups=groups, ssh_keys=keys)


def _check_group(group: GroupRequest, where: str) -> GroupRequest:
    if group.name:
        check_name(group.name, f"{where}.name")
        if len(group.name) > GROUP_NAME_LENGTH_MAX:
            raise InvalidRequest(
                "the group's name is too long",
                field=f"{where}.name",
                asked=group.name,
                possible=f"at most {GROUP_NAME_LENGTH_MAX} characters",
            )
    if not group.image:
        raise InvalidRequest(
            "no image is named", field=f"{where}.image", possible="an image's name or id (vws image list)"
        )
    check_number(group.count, f"{where}.count", 1, COUNT_MAX)
    check_number(group.cpus, f"{where}.cpus", 1, CPUS_MAX)
    check_number(group.memory_mib, f"{where}.memory_mib", MEMORY_MIB_MIN, MEMORY_MIB_MAX, "MiB")
    group = replace(group, disks=checked_disks(group.disks, f"{where}.disks"))
    check_number(group.root_mib, f"{where}.disk_mib", 1, DISK_MIB_MAX, "MiB")
    check_number(group.disk_mib, f"{where}.disk_mib", 1, DISK_MIB_MAX, "MiB in all")
    check_number(group.bandwidth_mbit, f"{where}.bandwidth_mbit", 0, BANDWIDTH_MBIT_MAX, "Mbit/s")
    if group.apart and group.together:
        raise InvalidRequest(
            "the group is to be both apart and together",
            field=f"{where}.together",
            asked=True,
            possible="apart (each member on a node of its own), together (all on one node), or neither",
        )
    return group


# ---------------------------------------------------------------- when

# What says when, and for which leases it is said.
_TIMES: Final[dict[str, tuple[When, ...]]] = {
    "start": (When.RESERVATION, When.PERIODIC),
    "deadline": (When.DEADLINE,),
    "rule": (When.PERIODIC,),
    "until": (When.PERIODIC,),
    "exceptions": (When.PERIODIC,),
}
_NEEDED: Final = {When.RESERVATION: "start", When.DEADLINE: "deadline", When.PERIODIC: "rule"}
_UNSAID: Final = (None, "", Exceptions.REFUSE)


def _check_when(request: LeaseRequest, now: int) -> None:
    for name, kinds in _TIMES.items():
        if getattr(request, name) not in _UNSAID and request.when not in kinds:
            raise InvalidRequest(
                f"{name} says nothing of {request.when} leases",
                field=name,
                asked=str(getattr(request, name))[:60],
                possible=f"when: {' or '.join(kinds)}, or no {name}",
            )
    needed = _NEEDED.get(request.when)
    if needed and getattr(request, needed) in _UNSAID:
        raise InvalidRequest(
            f"{request.when} leases need a {needed}",
            field=needed,
            possible="a rule of RFC 5545" if needed == "rule" else "a time, UTC seconds",
        )
    if request.start is not None:
        _check_ahead(request.start, "start", now, now, "now")
    if request.deadline is not None:
        _check_ahead(request.deadline, "deadline", now + request.duration_s, now, "the earliest possible end")
    if request.until is not None:
        _check_ahead(request.until, "until", max(now, request.start or now), now, "the first start")
    if request.when is When.PERIODIC:
        _check_series(request, now)


def _check_ahead(at: int, field_name: str, low: int, now: int, what: str) -> None:
    high = now + AHEAD_S_MAX
    if not low <= at <= high:
        over = f"{show_duration(low - at)} before {what}" if at < low else "too far ahead"
        shown = said(at) if 0 <= at <= high * 100 else f"{at}"
        raise InvalidRequest(
            f"{field_name} is {shown}, {over}",
            field=field_name,
            asked=at,
            possible=f"{low} ({said(low)}) to {high} ({said(high)})",
        )


def _check_series(request: LeaseRequest, now: int) -> None:
    instances = request.starts(now)
    room = NAME_LENGTH_MAX - len(f"-{len(instances)}")
    if request.name is not None and len(request.name) > room:
        raise InvalidRequest(
            f"the name is too long for a series of {len(instances)}, whose instances are called NAME-1 and so on",
            field="name",
            asked=request.name,
            possible=f"at most {room} characters",
        )
    gaps = [later - earlier for earlier, later in pairwise(instances)]
    if gaps and min(gaps) < request.duration_s:
        raise InvalidRequest(
            f"the instances overlap: each lasts {show_exactly(request.duration_s)}, "
            f"and two start {show_exactly(min(gaps))} apart",
            field="duration_s",
            asked=request.duration_s,
            possible=f"at most {show_exactly(min(gaps))}, or a rule with longer pauses",
        )


def _check_softness(request: LeaseRequest) -> None:
    for name in ("command", "restartable"):
        if getattr(request, name) and not request.when.soft:
            raise InvalidRequest(
                f"{name} is for leases that the site may run when it suits, not for {request.when} ones",
                field=name,
                possible=f"when: {When.BEST_EFFORT} or {When.DEADLINE}, or no {name}",
            )
    check_number(len(request.command.encode()), "command", 0, COMMAND_LENGTH_MAX, "bytes")
    if "\0" in request.command:
        raise InvalidRequest("the command holds a NUL character", field="command", possible="the text of a script")
