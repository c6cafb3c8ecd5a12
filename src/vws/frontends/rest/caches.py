"""Nodes' image caches, for administrators: what is in them, what is to come, what is to go."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from vws.core.caches import CachedFile, FileState, NodeCache, TaskKind, TaskState
from vws.core.wire import to_json
from vws.frontends.rest import models
from vws.frontends.rest.call import LIMIT_DEFAULT, After, Call, CallHere, ChangeHere, Id, Limit
from vws.frontends.rest.operation import CHANGING, READING, router
from vws.service.caches import Uses

routes = router("nodes")


class File(BaseModel):
    sha256: str
    state: FileState = Field(
        description="complete; arriving; partial: its transfer was broken off; changed: touched since it was verified, "
        "and verified again before its next use; refused: it is wanted here and cannot come."
    )
    role: str = Field(description="In the image that it came for: disk, base, kernel or initrd.")
    size_bytes: int = Field(description="Of the whole file; 0: not known.")
    disk_bytes: int = Field(description="What it takes on the node's disk.")
    have_bytes: int = Field(description="Up to where it has come.")
    used_at: int = Field(description="UTC seconds, by the node's clock.")
    reason: str = Field(description="Why it cannot come.")
    altered_at: int = Field(
        description="When the one before it was found altered since it was verified, UTC seconds; 0: never."
    )
    images: list[str] = Field(description="What it is part of.")
    used_by: list[str] = Field(description="Workspaces of the node, and saves, that use it.")
    wanted: bool = Field(description="A lease that is planned there, or an administrator, wants it there.")


class Kept(BaseModel):
    sha256: str
    reason: str


class Task(BaseModel):
    id: str
    kind: TaskKind
    image: str = Field(description="Its id, or empty: all that is unused.")
    image_name: str
    files: list[str]
    by: str
    asked_at: float
    state: TaskState
    ended_at: float | None
    reason: str = Field(description="Why it failed.")
    freed_bytes: int
    dropped: list[str] = Field(description="The files that were cleared, by sha256.")
    kept: list[Kept] = Field(description="Files that were not cleared, and why.")


class Cache(BaseModel):
    node: str
    node_name: str
    limit_bytes: int = Field(description="What all files may take together; 0: the node has said nothing yet.")
    used_bytes: int
    fetch_limit_mbit: float = Field(description="How fast the node fetches at most; 0: no limit.")
    reported_at: float
    files: list[File]
    tasks: list[Task] = Field(description="What administrators asked for: all that is due, and the last that are over.")


class CachePage(BaseModel):
    items: list[Cache]
    next: str | None


class PrefetchRequest(models.Asked):
    image: models.Text = Field(description="NAME, NAME:TAG or id.")


class ClearRequest(models.Asked):
    image: models.Text | None = Field(None, description="NAME, NAME:TAG or id; none: all that is unused.")


@routes.get("/v1/caches", operation_id="list_caches", response_model=CachePage, responses=READING)
def list_caches(call: CallHere, after: After = None, limit: Limit = LIMIT_DEFAULT) -> Response:
    """What the nodes have in their image caches, as they said last."""
    page = call.services.caches.all(call.caller, after=after, limit=limit)
    return call.page(page, lambda cache: _shown(call, cache))


@routes.get("/v1/nodes/{id}/cache", operation_id="show_cache", response_model=Cache, responses=READING)
def show_cache(id: Id, call: CallHere) -> Response:
    """What a node has in its image cache, and who uses it."""
    return call.answer(_shown(call, call.services.caches.cache(call.caller, id)))


@routes.post(
    "/v1/nodes/{id}/cache/prefetch",
    operation_id="prefetch_image",
    status_code=202,
    response_model=Task,
    responses=CHANGING,
)
def prefetch_image(id: Id, body: PrefetchRequest, call: ChangeHere) -> Response:
    """Have an image in a node's cache before it is needed. Accepted: the node's cache shows how far it is."""
    return call.mutate(
        lambda once: call.services.caches.prefetch(call.caller, id, body.image, once), to_json, status=202
    )


@routes.post(
    "/v1/nodes/{id}/cache/clear", operation_id="clear_cache", status_code=202, response_model=Task, responses=CHANGING
)
def clear_cache(id: Id, body: ClearRequest, call: ChangeHere) -> Response:
    """Drop what is unused from a node's cache, or one image of it. What is used stays, and the task says why."""
    return call.mutate(lambda once: call.services.caches.clear(call.caller, id, body.image, once), to_json, status=202)


def _shown(call: Call, cache: NodeCache) -> dict[str, Any]:
    caches = call.services.caches
    uses = caches.uses(cache)
    return {
        "node": cache.id,
        "node_name": caches.node_name(cache),
        "limit_bytes": cache.limit_bytes,
        "used_bytes": sum(file.disk_bytes for file in cache.files),
        "fetch_limit_mbit": cache.fetch_limit_mbit,
        "reported_at": cache.reported_at,
        "files": [_file(file, uses) for file in cache.files],
        "tasks": to_json(cache.tasks),
    }


def _file(file: CachedFile, uses: Uses) -> dict[str, Any]:
    said: dict[str, Any] = to_json(file)
    return said | {
        "images": sorted(uses.images.get(file.sha256, [])),
        "used_by": sorted(uses.users.get(file.sha256, [])),
        "wanted": file.sha256 in uses.wanted,
    }
