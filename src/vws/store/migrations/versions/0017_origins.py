"""What images were made from. Of those that are here it is known of saved workspaces, by their base, and of what was
encrypted or flattened, by the record of that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import op

from vws.core.disks import Disk
from vws.core.manifest import digest
from vws.core.site import ImageFile
from vws.core.wire import from_json

revision = "0017"
down_revision = "0016"

EMPTY: Any = sa.literal_column("''")
images = sa.table(
    "images",
    *(sa.column(name, sa.Text()) for name in ("id", "name", "boot", "cmdline", "user", "ready", "base", "content")),
    *(sa.column(name, sa.JSON()) for name in ("files", "origins")),
)
events = sa.table("events", *(sa.column(name, sa.Text()) for name in ("kind", "image")), sa.column("data", sa.JSON()))
documents = sa.table(
    "image_documents",
    *(sa.column(name, sa.Text()) for name in ("image", "kind")),
    sa.column("content", sa.LargeBinary()),
)


class Image(NamedTuple):
    """What of an image is needed here, whatever the code's has come to be."""

    id: str
    name: str
    base: str
    boot: str
    cmdline: str
    user: str
    ready: str
    files: tuple[ImageFile, ...]
    beside: tuple[Disk, ...] = ()  # none was declared yet

    @property
    def content(self) -> str:
        found = {file.role: file.sha256 for file in self.files}
        return found.get("disk") or found.get("initrd", "")


def upgrade() -> None:
    op.add_column("images", sa.Column("origins", sa.JSON(), nullable=False, server_default=sa.literal_column("'[]'")))
    op.add_column("images", sa.Column("content", sa.Text(), nullable=False, server_default=EMPTY))
    op.add_column("revocations", sa.Column("content", sa.Text(), nullable=False, server_default=EMPTY))
    op.create_index("ix_images_content_id", "images", ["content", "id"])
    _fill()


def _fill() -> None:
    connection = op.get_bind()
    known = {row.id: _image(row) for row in connection.execute(sa.select(images))}
    made = _made(connection) | {image.id: ("saved", image.base) for image in known.values() if image.base}
    for image in known.values():
        origins = list(_origins(known, made, image.id))
        change = sa.update(images).where(images.c.id == image.id)
        connection.execute(change.values(content=image.content, origins=origins))


def _image(row: Any) -> Image:
    files = from_json(tuple[ImageFile, ...], row.files, "files")
    return Image(row.id, row.name, row.base, row.boot, row.cmdline, row.user, row.ready, files)


def _made(connection: sa.Connection) -> dict[str, tuple[str, str]]:
    """How an image was made, and of which, by its id."""
    encrypted = connection.execute(sa.select(events.c.image, events.c.data).where(events.c.kind == "image.encrypted"))
    found = {row.image: ("encrypted", row.data["source"]) for row in encrypted}
    said = connection.execute(sa.select(documents.c.image, documents.c.content).where(documents.c.kind == "provenance"))
    for row in said:
        source = _flattened(row.content)
        if source:
            found[row.image] = ("flattened", source)
    return found


def _flattened(content: bytes) -> str:
    """The id of the image of which a provenance that the site wrote says that it was flattened."""
    try:
        build = json.loads(content)["predicate"]["buildDefinition"]
        is_ours = build["buildType"] == "urn:vws:build:flatten:1"
        return str(build["externalParameters"]["image"]) if is_ours else ""
    except (ValueError, LookupError, TypeError):
        return ""


def _origins(known: dict[str, Image], made: dict[str, tuple[str, str]], id: str) -> Iterator[dict[str, str]]:
    seen = {id}
    while id in made:
        how, id = made[id]
        image = known.get(id)
        if image is None or id in seen:
            return
        seen.add(id)
        yield {"how": how, "image": id, "digest": digest(image), "content": image.content, "name": image.name}
