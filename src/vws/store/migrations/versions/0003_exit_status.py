"""How a lease's command ended in each workspace."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("exit_status", sa.BigInteger()))
