"""Clusters, the networks of their members, and which leases are of which.

An address is one of its network's from now on: two clusters may use the same range.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

WHILE_LIVE: dict[str, Any] = {"sqlite_where": sa.text("live = 1"), "postgresql_where": sa.text("live")}
by_bytes = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "clusters",
        sa.Column("id", by_bytes, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("networks", sa.JSON(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_clusters"),
    )
    op.create_index("uq_clusters_name_live", "clusters", ["name"], unique=True, **WHILE_LIVE)
    op.create_index("ix_clusters_live", "clusters", ["id"], **WHILE_LIVE)
    op.create_index("ix_clusters_owner_id", "clusters", ["owner", "id"])
    op.create_index("ix_clusters_revision", "clusters", ["revision"])
    op.add_column("leases", sa.Column("cluster", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.add_column("leases", sa.Column("one_node", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("ix_leases_cluster_id", "leases", ["cluster", "id"])
    op.add_column("workspaces", sa.Column("network", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.add_column("workspaces", sa.Column("nics", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
    op.drop_index("uq_workspaces_address_live", "workspaces")
    op.create_index("uq_workspaces_address_live", "workspaces", ["network", "address"], unique=True, **WHILE_LIVE)
