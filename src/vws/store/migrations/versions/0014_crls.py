"""What authorities that vouch for images took back."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("signers", sa.Column("crls", sa.JSON(), nullable=False, server_default=sa.literal_column("'[]'")))
