"""Leases of every kind: what they were asked for, what they have done, what is planned for them.

Leases from before are immediate ones: asked for when they were made, for as long as from their start to their end (an
extension counted in), and begun when they first became active.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# (name, type, what leases from before get)
ADDED: tuple[tuple[str, Any, str], ...] = (
    ("duration_s", sa.BigInteger(), "0"),
    ("submitted_at", sa.Double(), "0"),
    ("urgent", sa.Boolean(), "false"),
    ("preemptible", sa.Boolean(), "false"),
    ("restartable", sa.Boolean(), "false"),
    ("command", sa.Text(), "''"),
    ("series", sa.Text(), "''"),
    ("worked_s", sa.BigInteger(), "0"),
    ("suspensions", sa.BigInteger(), "0"),
    ("migrations", sa.BigInteger(), "0"),
)
ADDED_IF: tuple[tuple[str, Any], ...] = (
    ("deadline", sa.BigInteger()),
    ("begun_at", sa.Double()),
    ("plan", sa.JSON()),
)


def upgrade() -> None:
    for name, kind, given in ADDED:
        op.add_column("leases", sa.Column(name, kind, nullable=False, server_default=sa.text(given)))
    for name, kind in ADDED_IF:
        op.add_column("leases", sa.Column(name, kind))
    op.execute('UPDATE leases SET duration_s = "end" - start, submitted_at = created_at, begun_at = active_at')
    for name in ("start", "end"):
        _make_optional(name)


def _make_optional(name: str) -> None:
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("leases", name, nullable=True)
        return
    # SQLite cannot take NOT NULL off a column, and a table that others refer to cannot be made anew in a transaction.
    op.add_column("leases", sa.Column(f"{name}_if", sa.BigInteger()))
    op.execute(f'UPDATE leases SET "{name}_if" = "{name}"')
    op.execute(f'ALTER TABLE leases DROP COLUMN "{name}"')
    op.execute(f'ALTER TABLE leases RENAME COLUMN "{name}_if" TO "{name}"')
