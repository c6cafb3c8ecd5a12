"""The first tables: images, nodes, leases, workspaces and tokens, with the record of events and answers."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

WHILE_LIVE: dict[str, Any] = {"sqlite_where": sa.text("live = 1"), "postgresql_where": sa.text("live")}
by_bytes = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

SQLITE_TRIGGERS = (
    """
    CREATE TRIGGER events_keep BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never changed'); END
    """,
    """
    CREATE TRIGGER events_stay BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END
    """,
    # REPLACE deletes without asking the trigger above.
    """
    CREATE TRIGGER events_grow BEFORE INSERT ON events WHEN EXISTS (SELECT 1 FROM events WHERE seq >= NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'events are only appended'); END
    """,
)

POSTGRESQL_TRIGGERS = (
    """
    CREATE FUNCTION events_refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'events are never changed or deleted' USING ERRCODE = 'integrity_constraint_violation';
    END $$
    """,
    """
    CREATE TRIGGER events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_refuse()
    """,
)


def upgrade() -> None:
    _site()
    _record()
    _images()
    _nodes()
    _leases()
    _tokens()
    _workspaces()
    triggers = {"sqlite": SQLITE_TRIGGERS, "postgresql": POSTGRESQL_TRIGGERS}[op.get_bind().dialect.name]
    for trigger in triggers:
        op.execute(trigger)


def _site() -> None:
    op.create_table(
        "site",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_site"),
    )
    op.execute("INSERT INTO site (id, revision, last_seq) VALUES (1, 0, 0)")
    op.create_table(
        "heard",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("node", name="pk_heard"),
    )


def _record() -> None:
    op.create_table(
        "events",
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("lease", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_events"),
    )
    op.create_index("ix_events_lease_seq", "events", ["lease", "seq"])
    op.create_index("ix_events_node_seq", "events", ["node", "seq"])
    op.create_index("ix_events_owner_seq", "events", ["owner", "seq"])
    op.create_index("ix_events_workspace_seq", "events", ["workspace", "seq"])
    op.create_table(
        "answers",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("client_token", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "client_token", name="pk_answers"),
    )
    op.create_index("ix_answers_at", "answers", ["at"])


def _images() -> None:
    op.create_table(
        "images",
        sa.Column("id", by_bytes, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("boot", sa.Text(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("cmdline", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("ready", sa.Text(), nullable=False),
        sa.Column("memory_mib_min", sa.BigInteger(), nullable=False),
        sa.Column("disk_mib_min", sa.BigInteger(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("removed_at", sa.Double(), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
    )
    op.create_index("ix_images_live", "images", ["id"], **WHILE_LIVE)
    op.create_index("ix_images_revision", "images", ["revision"])
    op.create_index("uq_images_name_live", "images", ["name"], unique=True, **WHILE_LIVE)


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("id", by_bytes, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("subnet", sa.Text(), nullable=False),
        sa.Column("joined_at", sa.Double(), nullable=False),
        sa.Column("capacity", sa.JSON(), nullable=False),
        sa.Column("hypervisor", sa.Text(), nullable=False),
        sa.Column("hypervisor_reason", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("applied_generation", sa.BigInteger(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("drained", sa.Boolean(), nullable=False),
        sa.Column("silent", sa.Boolean(), nullable=False),
        sa.Column("lost", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("removed_at", sa.Double(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nodes"),
    )
    op.create_index("ix_nodes_live", "nodes", ["id"], **WHILE_LIVE)
    op.create_index("ix_nodes_revision", "nodes", ["revision"])
    op.create_index("uq_nodes_name_live", "nodes", ["name"], unique=True, **WHILE_LIVE)


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("id", by_bytes, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("ssh_keys", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("active_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_leases"),
    )
    op.create_index("ix_leases_live", "leases", ["id"], **WHILE_LIVE)
    op.create_index("ix_leases_name_id", "leases", ["name", "id"])
    op.create_index("ix_leases_owner_id", "leases", ["owner", "id"])
    op.create_index("ix_leases_owner_live", "leases", ["owner", "id"], **WHILE_LIVE)
    op.create_index("ix_leases_revision", "leases", ["revision"])
    op.create_index("uq_leases_name_live", "leases", ["name"], unique=True, **WHILE_LIVE)


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", by_bytes, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
    )
    op.create_index("ix_tokens_live", "tokens", ["id"], **WHILE_LIVE)
    op.create_index("ix_tokens_revision", "tokens", ["revision"])
    op.create_index("uq_tokens_secret_sha256_live", "tokens", ["secret_sha256"], unique=True, **WHILE_LIVE)


def _workspaces() -> None:
    op.create_table(
        "workspaces",
        sa.Column("id", by_bytes, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("lease", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("group", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("desired", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("mac", sa.Text(), nullable=False),
        sa.Column("cpus", sa.BigInteger(), nullable=False),
        sa.Column("memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("disk_mib", sa.BigInteger(), nullable=False),
        sa.Column("cpus_defined", sa.BigInteger(), nullable=False),
        sa.Column("memory_defined_mib", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.Column("boots", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("came_up", sa.Boolean(), nullable=False),
        sa.Column("running_at", sa.Double(), nullable=True),
        sa.Column("released_at", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("host_key", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["image"], ["images.id"], name="fk_workspaces_image"),
        sa.ForeignKeyConstraint(["lease"], ["leases.id"], name="fk_workspaces_lease"),
        sa.ForeignKeyConstraint(["node"], ["nodes.id"], name="fk_workspaces_node"),
        sa.PrimaryKeyConstraint("id", name="pk_workspaces"),
    )
    op.create_index("ix_workspaces_lease_id", "workspaces", ["lease", "id"])
    op.create_index("ix_workspaces_live", "workspaces", ["id"], **WHILE_LIVE)
    op.create_index("ix_workspaces_name_id", "workspaces", ["name", "id"])
    op.create_index("ix_workspaces_node_id", "workspaces", ["node", "id"])
    op.create_index("ix_workspaces_owner_id", "workspaces", ["owner", "id"])
    op.create_index("ix_workspaces_owner_live", "workspaces", ["owner", "id"], **WHILE_LIVE)
    op.create_index("ix_workspaces_revision", "workspaces", ["revision"])
    op.create_index("uq_workspaces_address_live", "workspaces", ["address"], unique=True, **WHILE_LIVE)
    op.create_index("uq_workspaces_name_live", "workspaces", ["name"], unique=True, **WHILE_LIVE)
