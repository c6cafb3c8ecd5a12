"""What nodes are like, by their own word and by the administrator's; and when they are in maintenance.

Nodes from before say what they are like with their next report.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

WHILE_LIVE: dict[str, Any] = {"sqlite_where": sa.text("live = 1"), "postgresql_where": sa.text("live")}
by_bytes = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

UNSAID = """'{"arch": "", "accelerators": [], "labels": [], "attributes": []}'"""


def upgrade() -> None:
    for name, given in (("traits", UNSAID), ("labels", "'[]'"), ("attributes", "'[]'")):
        op.add_column("nodes", sa.Column(name, sa.JSON(), nullable=False, server_default=sa.literal_column(given)))
    op.create_table(
        "maintenances",
        sa.Column("id", by_bytes, nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("begun_at", sa.Double(), nullable=True),
        sa.Column("removed_at", sa.Double(), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["node"], ["nodes.id"], name="fk_maintenances_node"),
        sa.PrimaryKeyConstraint("id", name="pk_maintenances"),
    )
    op.create_index("ix_maintenances_live", "maintenances", ["id"], **WHILE_LIVE)
    op.create_index("ix_maintenances_node_id", "maintenances", ["node", "id"])
    op.create_index("ix_maintenances_revision", "maintenances", ["revision"])
