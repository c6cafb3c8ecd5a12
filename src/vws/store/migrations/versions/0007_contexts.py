"""Contexts: what the members of a cluster tell each other."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

WHILE_LIVE: dict[str, Any] = {"sqlite_where": sa.text("live = 1"), "postgresql_where": sa.text("live")}
by_bytes = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "contexts",
        sa.Column("id", by_bytes, nullable=False),
        _text("name"),
        _text("owner"),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("information", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        _text("state"),
        _text("reason"),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("ready_at", sa.Double(), nullable=True),
        sa.Column("closed_at", sa.Double(), nullable=True),
        _text("cluster"),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_contexts"),
    )
    op.create_index("uq_contexts_name_live", "contexts", ["name"], unique=True, **WHILE_LIVE)
    op.create_index("ix_contexts_live", "contexts", ["id"], **WHILE_LIVE)
    op.create_index("ix_contexts_owner_id", "contexts", ["owner", "id"])
    op.create_table(
        "context_members",
        _text("context"),
        _text("name"),
        sa.Column("expected", sa.JSON(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("due", sa.Boolean(), nullable=False),
        sa.Column("due_version", sa.BigInteger(), nullable=False),
        _text("token_sha256"),
        sa.Column("joined_at", sa.Double(), nullable=True),
        sa.Column("identity", sa.JSON(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("reported_at", sa.Double(), nullable=False),
        sa.Column("heard", sa.BigInteger(), nullable=False),
        sa.Column("heard_at", sa.Double(), nullable=False),
        sa.Column("ran", sa.JSON(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        _text("late"),
        sa.Column("refused_at", sa.Double(), nullable=False),
        sa.Column("left_version", sa.BigInteger(), nullable=True),
        sa.Column("left_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["context"], ["contexts.id"], name="fk_context_members_context"),
        sa.PrimaryKeyConstraint("context", "name", name="pk_context_members"),
    )
    op.create_table(
        "context_logs",
        _text("context"),
        _text("member"),
        _text("role"),
        _text("side"),
        _text("hook"),
        sa.Column("log", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("context", "member", "role", "side", "hook", name="pk_context_logs"),
    )
