"""Images: take in, look, remove.

An upload goes to disk as it comes, counted against the site's limit and the disk's room, and is hashed on the way:
nothing is held in memory and nothing is believed before service/images.py has looked at it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import Depends, Query, Request, Response

from vws.core.errors import TooLarge, Unavailable
from vws.frontends.rest import models
from vws.frontends.rest.call import (
    LIMIT_DEFAULT,
    After,
    ApiHere,
    CallerHere,
    CallHere,
    Change,
    ChangeHere,
    ClientToken,
    Limit,
    check_client_token,
    fingerprint,
    text,
)
from vws.frontends.rest.operation import CHANGING, READING, body_limit, router
from vws.ports import Filter

# Counted here, against the site's own limit.
_UNLIMITED = 1 << 62
PIECE_BYTES = 1 << 20
# What an upload must leave of the service's disk, for its record.
DISK_RESERVE_BYTES = 256 << 20

routes = router("images")


async def _upload(request: Request, api: ApiHere, caller: CallerHere, client_token: ClientToken = None) -> Change:
    return Change(api, caller, check_client_token(client_token), fingerprint(request, b""))


@routes.post(
    "/v1/images",
    operation_id="import_image",
    status_code=201,
    response_model=models.Image,
    responses=CHANGING,
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The file: a qcow2 or raw disk image, or an appliance bundle.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
@body_limit(_UNLIMITED)
async def import_image(
    request: Request,
    call: Annotated[Change, Depends(_upload)],
    name: Annotated[str, Query(description="Under which name.", examples=["debian-12"])],
) -> Response:
    """Take a disk image or an appliance in, after a look at what it really is."""
    await run_sync(_check_before, request, call, name)
    temporary = await run_sync(call.services.images.begin)
    try:
        sha256 = await _receive(request, temporary, call.services.site.settings.image_bytes_max)
        return await run_sync(_add, call, temporary, name, sha256)
    finally:
        await run_sync(lambda: temporary.unlink(missing_ok=True))


def _check_before(request: Request, call: Change, name: str) -> None:
    """Refuse what the body would not change, before it is sent. A repeat is judged by its first answer alone."""
    announced = request.headers.get("content-length", "")
    length = int(announced[:30]) if announced.isdecimal() else None
    if not call.is_repeat:
        call.services.images.check_upload(call.caller, name, length)


def _add(call: Change, temporary: Path, name: str, sha256: str) -> Response:
    return call.mutate(
        lambda once: call.services.images.add(call.caller, temporary, name, once),
        call.views.image,
        status=201,
        content=sha256,
    )


async def _receive(request: Request, target: Path, bytes_max: int) -> str:
    """The body into `target`; returns its sha256. Raises TooLarge, or Unavailable when the disk has no room."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal():
        _check_room(target, int(announced), 0, bytes_max)
    digest, count, piece = hashlib.sha256(), 0, bytearray()

    def write(data: bytes) -> None:
        _check_room(target, len(data), count, bytes_max)
        file.write(data)
        digest.update(data)

    with target.open("xb", buffering=0) as file:
        async for chunk in request.stream():
            piece += chunk
            if len(piece) >= PIECE_BYTES:
                await _in_thread(write, bytes(piece))
                count += len(piece)
                piece.clear()
        await _in_thread(write, bytes(piece))
    return digest.hexdigest()


async def _in_thread(write: Callable[[bytes], Any], data: bytes) -> None:
    try:
        await run_sync(write, data)
    except OSError as error:
        raise Unavailable(
            f"the service cannot keep the file: {error.strerror}", possible="the same when its disk has room"
        ) from None


def _check_room(target: Path, more: int, so_far: int, bytes_max: int) -> None:
    if so_far + more > bytes_max:
        raise TooLarge(
            f"the image is larger than {bytes_max} bytes", field="body", possible=f"at most {bytes_max} bytes"
        )
    if more + DISK_RESERVE_BYTES > shutil.disk_usage(target.parent).free:
        raise Unavailable(
            "the service's disk has no room for this image", possible="a smaller one; or ask the administrator for room"
        )


@routes.get("/v1/images", operation_id="list_images", response_model=models.ImagePage, responses=READING)
def list_images(
    call: CallHere,
    after: After = None,
    limit: Limit = LIMIT_DEFAULT,
    everything: Annotated[bool, Query(alias="all", description="Removed ones too.")] = False,
    name: Annotated[str | None, text("Only of this name.")] = None,
) -> Response:
    """The images that leases can name."""
    where = Filter(live=not everything, name=name)
    return call.page(call.services.images.images(call.caller, where, after=after, limit=limit), call.views.image)


@routes.get("/v1/images/{id}", operation_id="show_image", response_model=models.Image, responses=READING)
def show_image(id: str, call: CallHere) -> Response:
    """An image by its id, or by its name."""
    return call.answer(call.views.image(call.services.images.image(call.caller, id)))


@routes.delete("/v1/images/{id}", operation_id="remove_image", response_model=models.Image, responses=CHANGING)
def remove_image(id: str, call: ChangeHere) -> Response:
    """Take an image out; refused while a workspace uses it."""
    return call.mutate(lambda once: call.services.images.remove(call.caller, id, once), call.views.image)
