"""When the context of machines that VWS did not boot is closed by itself."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("contexts", sa.Column("ends_at", sa.Double()))
