"""Keys of encrypted images and workspaces, sealed."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

by_bytes = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sealed_keys",
        sa.Column("id", by_bytes, nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("of", "file", "sealed")),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sealed_keys"),
    )
    op.create_index("ix_sealed_keys_of", "sealed_keys", ["of"])
