"""The tables: one for each kind of value in core/site.py, and what keeps them honest.

A table's first columns are its value's fields, in their order and under their names, so that a row is read as
`Workspace(*row)`. What the store adds comes after them: `live` (the one meaning of "not ended" that listings, unique
rules and the load at start share) and `revision` (which commit wrote the row last, so that what changed is found
without looking at what did not).

Ended things stay: no row is ever deleted but kept answers. Unique rules therefore hold among live rows only, as partial
indices. Scalars have columns of their own; what is nested is JSON and never searched.

The database is made by the migrations, not from here; tests/store/test_migrations.py holds the two together.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    text,
)

from vws.core.caches import CachedFile, CacheTask, NodeCache
from vws.core.context import ContextSpec, ContextState, DataSpec, Expected, Identity, Ran, RoleState, Value
from vws.core.disks import Disk
from vws.core.lifecycle import Desired, State
from vws.core.site import (
    Address,
    Capacity,
    Cluster,
    DocumentKind,
    Group,
    GroupRoles,
    Image,
    ImageFile,
    ImageTag,
    Lease,
    LeaseKind,
    LeaseState,
    Maintenance,
    Network,
    Nic,
    Node,
    Origin,
    Plan,
    Revocation,
    Role,
    Save,
    SaveState,
    Signer,
    Subscribed,
    Subscription,
    Token,
    Workspace,
)
from vws.core.traits import Attribute, Traits
from vws.core.wire import from_json, to_json

# The migration that makes exactly these tables.
REVISION = "0018"


class Choice(TypeDecorator[Any]):
    """A member of a StrEnum, kept as its value."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__()
        self.kind = kind
        self._members = {str(member.value): member for member in kind}

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value if value is None else self._members[value]


class Nested(TypeDecorator[Any]):
    """A dataclass, or a tuple of them, kept as JSON."""

    impl = JSON
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value if value is None else to_json(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value if value is None else from_json(self.kind, value, self.kind.__name__)


def _text(name: str, **more: Any) -> Column[Any]:
    return Column(name, Text, nullable=False, **more)


def _whole(name: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=False)


def _whole_if(name: str) -> Column[Any]:
    return Column(name, BigInteger)


def _truth(name: str) -> Column[Any]:
    return Column(name, Boolean, nullable=False)


def _time(name: str) -> Column[Any]:
    """UTC seconds."""
    return Column(name, Double, nullable=False)


def _time_if(name: str) -> Column[Any]:
    """UTC seconds, NULL until it happened."""
    return Column(name, Double)


def _id() -> Column[Any]:
    # Sorted by bytes on every database: ids are made to sort by time that way, and pages follow them.
    by_bytes = Text().with_variant(Text(collation="C"), "postgresql")
    return Column("id", by_bytes, primary_key=True)


def _choice(name: str, kind: type[StrEnum]) -> Column[Any]:
    return Column(name, Choice(kind), nullable=False)


def _nested(name: str, kind: Any) -> Column[Any]:
    return Column(name, Nested(kind), nullable=False)


def _refers(name: str, to: str) -> Column[Any]:
    return Column(name, Text, ForeignKey(f"{to}.id"), nullable=False)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# One row: how often this site was changed, and the last event's number.
site = Table(
    "site",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    _whole("revision"),
    _whole("last_seq"),
)

images = Table(
    "images",
    metadata,
    _id(),
    _text("name"),
    _text("owner"),
    _text("sha256"),
    _whole("size_bytes"),
    _text("boot"),
    _nested("files", tuple[ImageFile, ...]),
    _text("cmdline"),
    _text("user"),
    _text("ready"),
    _whole("memory_mib_min"),
    _whole("disk_mib_min"),
    _truth("simulated"),
    _time("created_at"),
    _time_if("removed_at"),
    _nested("shared", tuple[str, ...]),
    _text("base"),
    _time_if("retired_at"),
    _text("damaged"),
    _nested("origins", tuple[Origin, ...]),
    _nested("beside", tuple[Disk, ...]),
    _truth("live"),
    _whole("revision"),
    _text("content"),
)

image_tags = Table(
    "image_tags",
    metadata,
    _id(),
    _text("name"),
    _text("tag"),
    _refers("image", "images"),
    _text("owner"),
    _time("set_at"),
    _time_if("removed_at"),
    _truth("live"),
    _whole("revision"),
)

# Written once and never changed; deleted with its image. Large, so that nothing is loaded but what is asked for.
image_documents = Table(
    "image_documents",
    metadata,
    _id(),
    _refers("image", "images"),
    _choice("kind", DocumentKind),
    _text("media_type"),
    Column("content", LargeBinary, nullable=False),
    _time("added_at"),
    _text("by"),
)

# Written once; deleted when nothing is to be opened with it any more. Only what is asked for is loaded.
sealed_keys = Table(
    "sealed_keys",
    metadata,
    _id(),
    _text("of"),
    _text("file"),
    _text("sealed"),
    _time("made_at"),
)

signers = Table(
    "signers",
    metadata,
    _id(),
    _text("name"),
    _text("keyid"),
    _text("kind"),
    _text("pem"),
    _time("added_at"),
    _text("by"),
    _time_if("revoked_at"),
    _text("reason"),
    _nested("crls", tuple[str, ...]),
    _truth("live"),
    _whole("revision"),
)

revocations = Table(
    "revocations",
    metadata,
    _id(),
    _text("digest"),
    _text("name"),
    _text("reason"),
    _text("by"),
    _time("made_at"),
    _time_if("lifted_at"),
    _text("content"),
    _truth("live"),
    _whole("revision"),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    _id(),
    _text("name"),
    _text("title"),
    _text("version"),
    _text("url"),
    _text("dn"),
    _text("ca"),
    _text("ca_pem"),
    _nested("shared", tuple[str, ...]),
    _nested("images", tuple[Subscribed, ...]),
    _time("created_at"),
    _time("expires_at"),
    _time("added_at"),
    _text("by"),
    _time("refreshed_at"),
    _text("problem"),
    _time_if("removed_at"),
    _truth("live"),
    _whole("revision"),
)

nodes = Table(
    "nodes",
    metadata,
    _id(),
    _text("name"),
    _text("subnet"),
    _time("joined_at"),
    _nested("capacity", Capacity),
    _text("hypervisor"),
    _text("hypervisor_reason"),
    _whole("generation"),
    _whole("applied_generation"),
    _text("instance"),
    _whole("sequence"),
    _text("version"),
    _truth("drained"),
    _truth("silent"),
    _truth("lost"),
    _text("problem"),
    _time_if("removed_at"),
    _nested("traits", Traits),
    _nested("labels", tuple[str, ...]),
    _nested("attributes", tuple[Attribute, ...]),
    # Derived from the fields before; kept so that listings can be limited by it.
    _text("state"),
    _truth("live"),
    _whole("revision"),
)

maintenances = Table(
    "maintenances",
    metadata,
    _id(),
    _refers("node", "nodes"),
    _whole("start"),
    _whole("end"),
    _text("reason"),
    _time("created_at"),
    _time_if("begun_at"),
    _time_if("removed_at"),
    _truth("live"),
    _whole("revision"),
)

clusters = Table(
    "clusters",
    metadata,
    _id(),
    _text("name"),
    _text("owner"),
    _nested("networks", tuple[Network, ...]),
    _nested("roles", tuple[GroupRoles, ...]),
    _text("context"),
    _text("file"),
    _time("created_at"),
    _time_if("ended_at"),
    _truth("live"),
    _whole("revision"),
)

# Addresses of the site's pools, while they are reserved or held and after.
addresses = Table(
    "addresses",
    metadata,
    _id(),
    _text("pool"),
    _text("address"),
    _text("owner"),
    _time("created_at"),
    _text("name"),
    _text("cluster"),
    _text("member"),
    _time_if("released_at"),
    _truth("live"),
    _whole("revision"),
)

saves = Table(
    "saves",
    metadata,
    _id(),
    _text("workspace"),
    _text("lease"),
    _text("owner"),
    _text("node"),
    _text("base"),
    _text("name"),
    _text("tag"),
    _truth("at_end"),
    _truth("clean"),
    _time("asked_at"),
    _choice("state", SaveState),
    _text("image"),
    _text("reason"),
    _time_if("ended_at"),
    _truth("live"),
    _whole("revision"),
)

leases = Table(
    "leases",
    metadata,
    _id(),
    _text("name"),
    _text("owner"),
    _choice("kind", LeaseKind),
    _choice("state", LeaseState),
    _nested("groups", tuple[Group, ...]),
    _whole_if("start"),
    _whole_if("end"),
    _whole("duration_s"),
    _nested("ssh_keys", tuple[str, ...]),
    _time("created_at"),
    _time("submitted_at"),
    _time_if("active_at"),
    _time_if("ended_at"),
    Column("outcome", Choice(LeaseState)),
    _text("reason"),
    _whole_if("deadline"),
    _truth("urgent"),
    _truth("preemptible"),
    _truth("restartable"),
    _text("command"),
    _text("series"),
    _whole("worked_s"),
    _time_if("begun_at"),
    _whole("suspensions"),
    _whole("migrations"),
    _whole("restarts"),
    Column("plan", Nested(Plan)),
    _text("cluster"),
    _truth("one_node"),
    _truth("live"),
    _whole("revision"),
)

workspaces = Table(
    "workspaces",
    metadata,
    _id(),
    _text("name"),
    _refers("lease", "leases"),
    _text("owner"),
    _text("group"),
    _whole("number"),
    _refers("node", "nodes"),
    _refers("image", "images"),
    _choice("state", State),
    _choice("desired", Desired),
    _text("address"),
    _text("mac"),
    _whole("cpus"),
    _whole("memory_mib"),
    _whole("disk_mib"),
    _whole("cpus_defined"),
    _whole("memory_defined_mib"),
    _whole("end"),
    _time("created_at"),
    _time("changed_at"),
    _whole("boots"),
    _whole("generation"),
    _truth("came_up"),
    _time_if("running_at"),
    _time_if("released_at"),
    _text("reason"),
    _text("step"),
    _text("host_key"),
    _whole_if("exit_status"),
    _text("network"),
    _nested("nics", tuple[Nic, ...]),
    _truth("live"),
    _whole("revision"),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    _text("subject"),
    _choice("role", Role),
    _text("secret_sha256"),
    _time("created_at"),
    _time_if("expires_at"),
    _time_if("revoked_at"),
    _truth("live"),
    _whole("revision"),
)

# Append-only: triggers refuse UPDATE and DELETE. `seq` has no gaps, so a missing row shows.
events = Table(
    "events",
    metadata,
    _time("at"),
    _text("actor"),
    _text("kind"),
    _text("owner"),
    _text("lease"),
    _text("workspace"),
    _text("node"),
    _text("image"),
    Column("data", JSON, nullable=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _whole("revision"),
)

answers = Table(
    "answers",
    metadata,
    _text("subject"),
    _text("client_token"),
    _text("fingerprint"),
    _whole("status"),
    _text("body"),
    _time("at"),
    PrimaryKeyConstraint("subject", "client_token"),
)

# Apart from `nodes`: being heard every few seconds is no change of the site.
heard = Table("heard", metadata, _text("node", primary_key=True), _time("at"))

# The contexts of clusters have a batch of their own (store/contexts.py). What is large and never changes (spec,
# information) is written once; `revision` is the context's own.
contexts = Table(
    "contexts",
    metadata,
    _id(),
    _text("name"),
    _text("owner"),
    _nested("spec", ContextSpec),
    _nested("information", tuple[DataSpec, ...]),
    _time("created_at"),
    _whole("version"),
    _whole("revision"),
    _choice("state", ContextState),
    _text("reason"),
    _nested("roles", tuple[RoleState, ...]),
    _time_if("ready_at"),
    _time_if("closed_at"),
    _text("cluster"),
    _time_if("ends_at"),
    _truth("live"),
)

context_members = Table(
    "context_members",
    metadata,
    _refers("context", "contexts"),
    _text("name"),
    _nested("expected", Expected),
    _time("due_at"),
    _truth("due"),
    _whole("due_version"),
    _text("token_sha256"),
    _time_if("joined_at"),
    Column("identity", Nested(Identity)),
    _whole("version"),
    _time("reported_at"),
    _whole("heard"),
    _time("heard_at"),
    _nested("ran", tuple[Ran, ...]),
    _nested("values", tuple[Value, ...]),
    _text("late"),
    _time("refused_at"),
    _whole_if("left_version"),
    _time_if("left_at"),
    PrimaryKeyConstraint("context", "name"),
)

# The end of each hook's output; large, and asked for by people only.
context_logs = Table(
    "context_logs",
    metadata,
    _text("context"),
    _text("member"),
    _text("role"),
    _text("side"),
    _text("hook"),
    Column("log", LargeBinary, nullable=False),
    PrimaryKeyConstraint("context", "member", "role", "side", "hook"),
)

# What nodes hold of images, by the node's id.
caches = Table(
    "caches",
    metadata,
    _id(),
    _whole("limit_bytes"),
    Column("fetch_limit_mbit", Double, nullable=False),
    _nested("files", tuple[CachedFile, ...]),
    _nested("tasks", tuple[CacheTask, ...]),
    _time("reported_at"),
    _time_if("removed_at"),
    _truth("live"),
    _whole("revision"),
)

TABLES: dict[type[Any], Table] = {
    Image: images,
    Node: nodes,
    Lease: leases,
    Workspace: workspaces,
    Token: tokens,
    Maintenance: maintenances,
    Cluster: clusters,
    ImageTag: image_tags,
    Signer: signers,
    Revocation: revocations,
    Subscription: subscriptions,
    Address: addresses,
    Save: saves,
    NodeCache: caches,
}


def live(value: Any) -> bool:
    """Not ended, released, removed or revoked."""
    match value:
        case Lease():
            return not value.ended
        case Workspace() | Address():
            return value.released_at is None
        case Token() | Signer():
            return value.revoked_at is None
        case Revocation():
            return value.lifted_at is None
        case Cluster() | Save():
            return value.ended_at is None
    return value.removed_at is None


# As queries spell it on each database: SQLite uses a partial index only for the very same words.
_WHILE_LIVE: dict[str, Any] = {"sqlite_where": text("live = 1"), "postgresql_where": text("live")}

# (table, columns, what the last of them is called to a user): no two live rows share the values.
UNIQUE: tuple[tuple[Table, tuple[str, ...], str], ...] = (
    (leases, ("name",), "name"),
    (workspaces, ("name",), "name"),
    (workspaces, ("network", "address"), "address"),
    (image_tags, ("name", "tag"), "tag"),
    (nodes, ("name",), "name"),
    (tokens, ("secret_sha256",), "secret"),
    (clusters, ("name",), "name"),
    (signers, ("name",), "name"),
    (revocations, ("digest",), "digest"),
    (subscriptions, ("name",), "name"),
    (addresses, ("pool", "address"), "address"),
)

for _table, _columns, _ in UNIQUE:
    _named = f"uq_{_table.name}_{_columns[-1]}_live"
    Index(_named, *(_table.c[column] for column in _columns), unique=True, **_WHILE_LIVE)
for _table in TABLES.values():
    Index(None, _table.c.revision)
# Listings go by id within what they are limited to. Few live rows lie among ever more ended ones: the common listings
# look at live rows alone. Among those, an index on the state would save nothing.
for _table in TABLES.values():
    Index(f"ix_{_table.name}_live", _table.c.id, **_WHILE_LIVE)
for _table in (leases, workspaces):
    Index(None, _table.c.owner, _table.c.id)
    Index(None, _table.c.name, _table.c.id)
    Index(f"ix_{_table.name}_owner_live", _table.c.owner, _table.c.id, **_WHILE_LIVE)
Index(None, workspaces.c.lease, workspaces.c.id)
Index(None, workspaces.c.node, workspaces.c.id)
Index(None, maintenances.c.node, maintenances.c.id)
Index(None, clusters.c.owner, clusters.c.id)
Index(None, addresses.c.owner, addresses.c.id)
Index(None, leases.c.cluster, leases.c.id)
Index(None, saves.c.workspace, saves.c.id)
Index(None, images.c.name, images.c.id)
Index(None, images.c.content, images.c.id)
Index(None, image_documents.c.image, image_documents.c.id)
Index(None, sealed_keys.c.of)
for _name in ("owner", "lease", "workspace", "node", "image"):
    Index(None, events.c[_name], events.c.seq)
Index(None, answers.c.at)
Index("uq_contexts_name_live", contexts.c.name, unique=True, **_WHILE_LIVE)
Index("ix_contexts_live", contexts.c.id, **_WHILE_LIVE)
Index(None, contexts.c.owner, contexts.c.id)
