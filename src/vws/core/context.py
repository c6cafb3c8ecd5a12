"""What a context is made of: its specification, what members say, and what is recorded of them.

Values only; the rules that join them are in core/broker.py, what may wait for what in core/waits.py, and what a member
hears in core/context_document.py. Bytes (scripts, files, data, values) are carried in base64, as they are sent, so that
a specification is plain JSON in the record and in a request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, auto

# The role that every member provides; under `introduce: all` everybody requires it.
MEMBER = "member"
# What the site knows and members may require like roles.
INFORMATION = ("site:dns", "site:time", "site:certificate", "vo:keys", "vo:gridmap", "user:keys")


class Introduce(StrEnum):
    """Whom a member hears of: everybody, or only the providers of what it requires."""

    ALL = auto()
    REQUIRED = auto()


class Ssh(StrEnum):
    """MUTUAL: whom a member hears of may log in to it as root with the key in its identity."""

    MUTUAL = auto()
    NONE = auto()


class Side(StrEnum):
    PROVIDER = auto()
    CLIENT = auto()


class Hook(StrEnum):
    ON_JOINED = "on-joined"
    ON_CHANGED = "on-changed"
    ON_LEFT = "on-left"


# ---------------------------------------------------------------- the specification


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A file that a member writes: an absolute path, octal mode digits."""

    path: str
    content_base64: str
    mode: str = "0644"


@dataclass(frozen=True, slots=True)
class HookSpec:
    """A program (with its `#!` line) that a member runs."""

    hook: Hook
    content_base64: str


@dataclass(frozen=True, slots=True)
class ValueSpec:
    """Bytes that a provider publishes while it runs. secret: in no listing and no log, only with those who use it."""

    name: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class SideSpec:
    """What providers or clients of a role do. after: roles whose barriers must have passed before `on-joined`; uses:
    values that must be there. A client waits for its own role's barrier without being told."""

    files: tuple[FileSpec, ...] = ()
    hooks: tuple[HookSpec, ...] = ()
    after: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()

    @property
    def asks_anything(self) -> bool:
        return bool(self.files or self.hooks or self.uses)


@dataclass(frozen=True, slots=True)
class RoleSpec:
    name: str
    provider: SideSpec = SideSpec()
    client: SideSpec = SideSpec()
    publishes: tuple[ValueSpec, ...] = ()

    def side(self, side: Side) -> SideSpec:
        return self.provider if side is Side.PROVIDER else self.client


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Bytes that the user gave; every member gets them."""

    name: str
    content_base64: str


@dataclass(frozen=True, slots=True)
class ContextSpec:
    """roles: those with anything to do, in the order in which a member runs them; a role that is only provided and
    required need not be here. within_s: how long a member may take to report, and a hook to end. domain: members are
    called NAME.DOMAIN; "": the site chooses NAME.CONTEXT.SITE'S-DOMAIN."""

    name: str
    roles: tuple[RoleSpec, ...] = ()
    data: tuple[DataSpec, ...] = ()
    introduce: Introduce = Introduce.ALL
    ssh: Ssh = Ssh.MUTUAL
    within_s: int = 600
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """A member that is to be. provides, requires: role names; among the required also site, VO and user information.

    networks: their names, the main one first; (): those that it reports. addresses: what the site gave it, for which
    it may get a certificate. workspace: its id, "" for a machine that VWS did not boot. start: before which nothing of
    it is late, UTC seconds; None while nobody knows, or while it sleeps.
    """

    name: str
    provides: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    workspace: str = ""
    start: float | None = 0.0


# ---------------------------------------------------------------- what members say


@dataclass(frozen=True, slots=True)
class Nic:
    network: str
    address: str
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """nics: the main one first. name: the member's own host name, "" for NAME.DOMAIN. Keys are lines as OpenSSH has
    them in its .pub files."""

    nics: tuple[Nic, ...]
    name: str = ""
    host_keys: tuple[str, ...] = ()
    user_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ran:
    """A hook's end. version: of the document that it ran with. status: 0 if it ended well, else the exit status.

    at: UTC seconds. message: one line for people.
    """

    role: str
    side: Side
    hook: Hook
    version: int
    status: int
    message: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Value:
    """What a member published, and the context's version by which it did."""

    name: str
    content_base64: str
    version: int
    at: float


# ---------------------------------------------------------------- the record


class ContextState(StrEnum):
    """READY: everybody has heard of all it requires and every hook has ended well. FAILED: a hook ended badly or a
    member is late; the context goes on, and is READY once that is mended or the member has left."""

    OPEN = auto()
    READY = auto()
    FAILED = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Member:
    """One member's record. Times are UTC seconds, versions the context's.

    token_sha256: of its own token, "" until it joined. version: of its present identity. due: it is to report, for the
    first time or again, since due_at. heard: the version of the last document that it is known to have. ran: the last
    end of each hook. late: what it has not done in time, "" if nothing. refused_at: when its spent secret was last
    tried by somebody else. left_version: None while it is a member.
    """

    context: str
    name: str
    expected: Expected
    due_at: float
    due: bool = True
    due_version: int = 0
    token_sha256: str = ""
    joined_at: float | None = None
    identity: Identity | None = None
    version: int = 0
    reported_at: float = 0.0
    heard: int = 0
    heard_at: float = 0.0
    ran: tuple[Ran, ...] = ()
    values: tuple[Value, ...] = ()
    late: str = ""
    refused_at: float = 0.0
    left_version: int | None = None
    left_at: float | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """[since, until): versions during which a role's list was not whole, so that nothing of it was told."""

    since: int
    until: int


@dataclass(frozen=True, slots=True)
class RoleState:
    """whole: every provider has reported. version, at: of the last change of the list that could be told. since: when
    it stopped to be whole; gaps: when it was not. passed: the barrier; passed_version, passed_at: its last change."""

    name: str
    whole: bool = False
    version: int = 0
    at: float = 0.0
    since: int = 0
    gaps: tuple[Gap, ...] = ()
    passed: bool = False
    passed_version: int = 0
    passed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A context without its members. information: what was known of site, VO and user when it was opened. revision: how
    often its record was written; version: how often it had news. cluster: the id of the one whose members it has, ""
    for machines that VWS did not boot. ends_at: when it is closed by itself; a cluster's ends with the cluster."""

    id: str
    name: str
    owner: str
    spec: ContextSpec
    information: tuple[DataSpec, ...]
    created_at: float
    version: int = 1
    revision: int = 0
    state: ContextState = ContextState.OPEN
    reason: str = ""
    roles: tuple[RoleState, ...] = ()
    ready_at: float | None = None
    closed_at: float | None = None
    cluster: str = ""
    ends_at: float | None = None


# ---------------------------------------------------------------- what comes of it


@dataclass(frozen=True, slots=True)
class Notice:
    """What people should know; it becomes an event. member: "" for the whole context."""

    kind: str
    member: str = ""
    data: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moved:
    """What a batch of calls changed: the new records of the context and of the members that it touched."""

    record: ContextRecord
    members: tuple[Member, ...]
    notices: tuple[Notice, ...]
