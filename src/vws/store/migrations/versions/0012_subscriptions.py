"""The image lists that the site follows."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

WHILE_LIVE: dict[str, Any] = {"sqlite_where": sa.text("live = 1"), "postgresql_where": sa.text("live")}
by_bytes = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=False)


def _time(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Double(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("id", by_bytes, nullable=False),
        *map(_text, ("name", "title", "version", "url", "dn", "ca", "ca_pem")),
        sa.Column("shared", sa.JSON(), nullable=False),
        sa.Column("images", sa.JSON(), nullable=False),
        *map(_time, ("created_at", "expires_at", "added_at")),
        _text("by"),
        _time("refreshed_at"),
        _text("problem"),
        sa.Column("removed_at", sa.Double(), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subscriptions"),
    )
    op.create_index("uq_subscriptions_name_live", "subscriptions", ["name"], unique=True, **WHILE_LIVE)
    op.create_index("ix_subscriptions_live", "subscriptions", ["id"], **WHILE_LIVE)
    op.create_index("ix_subscriptions_revision", "subscriptions", ["revision"])
