"""What nodes hold of images."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

WHILE_LIVE: dict[str, Any] = {"sqlite_where": sa.text("live = 1"), "postgresql_where": sa.text("live")}
by_bytes = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "caches",
        sa.Column("id", by_bytes, nullable=False),
        sa.Column("limit_bytes", sa.BigInteger(), nullable=False),
        sa.Column("fetch_limit_mbit", sa.Double(), nullable=False),
        *(sa.Column(name, sa.JSON(), nullable=False) for name in ("files", "tasks")),
        sa.Column("reported_at", sa.Double(), nullable=False),
        sa.Column("removed_at", sa.Double(), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_caches"),
    )
    op.create_index("ix_caches_live", "caches", ["id"], **WHILE_LIVE)
    op.create_index("ix_caches_revision", "caches", ["revision"])
