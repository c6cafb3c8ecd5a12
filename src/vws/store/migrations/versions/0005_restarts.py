"""How often a lease that may lose its work has begun anew."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("leases", sa.Column("restarts", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
