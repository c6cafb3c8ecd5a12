"""Whose word about images counts, and which images nobody may run any more; events are found by their image."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

WHILE_LIVE: dict[str, Any] = {"sqlite_where": sa.text("live = 1"), "postgresql_where": sa.text("live")}
by_bytes = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "signers",
        sa.Column("id", by_bytes, nullable=False),
        _text("name"),
        _text("keyid"),
        _text("kind"),
        _text("pem"),
        sa.Column("added_at", sa.Double(), nullable=False),
        _text("by"),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        _text("reason"),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_signers"),
    )
    op.create_table(
        "revocations",
        sa.Column("id", by_bytes, nullable=False),
        _text("digest"),
        _text("name"),
        _text("reason"),
        _text("by"),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.Column("lifted_at", sa.Double(), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revocations"),
    )
    op.create_index("uq_signers_name_live", "signers", ["name"], unique=True, **WHILE_LIVE)
    op.create_index("uq_revocations_digest_live", "revocations", ["digest"], unique=True, **WHILE_LIVE)
    for table in ("signers", "revocations"):
        op.create_index(f"ix_{table}_revision", table, ["revision"])
        op.create_index(f"ix_{table}_live", table, ["id"], **WHILE_LIVE)
    op.create_index("ix_events_image_seq", "events", ["image", "seq"])
