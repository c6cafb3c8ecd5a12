"""Workspaces on their way to become images."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

WHILE_LIVE: dict[str, Any] = {"sqlite_where": sa.text("live = 1"), "postgresql_where": sa.text("live")}
by_bytes = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TEXTS = ("workspace", "lease", "owner", "node", "base", "name", "tag", "state", "image", "reason")


def upgrade() -> None:
    op.create_table(
        "saves",
        sa.Column("id", by_bytes, nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in TEXTS),
        *(sa.Column(name, sa.Boolean(), nullable=False) for name in ("at_end", "clean", "live")),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_saves"),
    )
    op.create_index("ix_saves_live", "saves", ["id"], **WHILE_LIVE)
    op.create_index("ix_saves_revision", "saves", ["revision"])
    op.create_index("ix_saves_workspace_id", "saves", ["workspace", "id"])
