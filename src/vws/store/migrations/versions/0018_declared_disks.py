"""Disks that images declare beside the root's."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("images", sa.Column("beside", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
