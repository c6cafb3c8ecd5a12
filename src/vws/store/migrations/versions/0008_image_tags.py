"""Images by tags, who may use them, and what is said of them. Until now each live image had its one name, and all users
had all images."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

WHILE_LIVE: dict[str, Any] = {"sqlite_where": sa.text("live = 1"), "postgresql_where": sa.text("live")}
by_bytes = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _text(name: str, **more: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=False, **more)


def upgrade() -> None:
    shared = sa.Column("shared", sa.JSON(), nullable=False, server_default=sa.text("'[\"public\"]'"))
    op.add_column("images", shared)
    op.add_column("images", _text("base", server_default=sa.text("''")))
    op.add_column("images", sa.Column("retired_at", sa.Double(), nullable=True))
    op.add_column("images", _text("damaged", server_default=sa.text("''")))
    op.drop_index("uq_images_name_live", "images")
    op.create_index("ix_images_name_id", "images", ["name", "id"])
    op.create_table(
        "image_tags",
        sa.Column("id", by_bytes, nullable=False),
        _text("name"),
        _text("tag"),
        _text("image"),
        _text("owner"),
        sa.Column("set_at", sa.Double(), nullable=False),
        sa.Column("removed_at", sa.Double(), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["image"], ["images.id"], name="fk_image_tags_image"),
        sa.PrimaryKeyConstraint("id", name="pk_image_tags"),
    )
    op.create_index("uq_image_tags_tag_live", "image_tags", ["name", "tag"], unique=True, **WHILE_LIVE)
    op.create_index("ix_image_tags_revision", "image_tags", ["revision"])
    op.create_index("ix_image_tags_live", "image_tags", ["id"], **WHILE_LIVE)
    op.execute(
        "INSERT INTO image_tags (id, name, tag, image, owner, set_at, removed_at, live, revision) "
        "SELECT 'tag' || substr(id, 4), name, 'latest', id, owner, created_at, NULL, live, revision "
        "FROM images WHERE live"
    )
    op.create_table(
        "image_documents",
        sa.Column("id", by_bytes, nullable=False),
        _text("image"),
        _text("kind"),
        _text("media_type"),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("added_at", sa.Double(), nullable=False),
        _text("by"),
        sa.ForeignKeyConstraint(["image"], ["images.id"], name="fk_image_documents_image"),
        sa.PrimaryKeyConstraint("id", name="pk_image_documents"),
    )
    op.create_index("ix_image_documents_image_id", "image_documents", ["image", "id"])
