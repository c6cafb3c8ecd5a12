"""Uploads in parts, as tus has them: begin one, send bytes from where it ends, complete it.

A part is written and hashed as it comes; nothing is held in memory. It is the plain bytes, or frames (core/frames.py)
that leave zeros out. A passphrase comes in a header, never in a body or an address: of bodies of requests that may be
repeated fingerprints are kept, and addresses end up in logs.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from anyio import fail_after
from anyio.to_thread import run_sync
from fastapi import Depends, Header, Query, Request, Response
from starlette.requests import ClientDisconnect

from vws.core.errors import InvalidRequest, Unavailable
from vws.core.frames import MEDIA_TYPE, FrameReader
from vws.frontends.rest import image_models
from vws.frontends.rest.call import Call, CallHere, ChangeHere, Id
from vws.frontends.rest.operation import CHANGING, READING, body_limit, router
from vws.service.uploads import SparseFile, Upload

PIECE_BYTES = 1 << 20
SILENCE_S = 60.0
PASSPHRASE_BYTES_MAX = 512
_UNLIMITED = 1 << 62

routes = router("uploads")


PassphraseHeader = Annotated[
    str | None,
    Header(
        alias="Image-Passphrase",
        description="What opens an image that is encrypted already (LUKS in qcow2): UTF-8 in base64.",
    ),
]


def passphrase_in(header: str | None) -> str | None:
    """Raises InvalidRequest, which does not repeat it."""
    if header is None:
        return None
    try:
        text = base64.b64decode(header, validate=True).decode()
    except ValueError:
        text = ""
    if not 0 < len(text.encode()) <= PASSPHRASE_BYTES_MAX or "\0" in text:
        raise InvalidRequest(
            "this cannot be an image's passphrase", field="passphrase",
            possible=f"1 to {PASSPHRASE_BYTES_MAX} bytes of UTF-8 text",
        )  # fmt: skip
    return text


def _show(upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "name": upload.name,
        "size_bytes": upload.size_bytes,
        "offset": upload.offset,
        "created_at": upload.created_at,
        "expires_at": upload.expires_at,
    }


@routes.post(
    "/v1/uploads",
    operation_id="begin_upload",
    status_code=201,
    response_model=image_models.Upload,
    responses=CHANGING,
)
def begin_upload(body: image_models.UploadRequest, call: ChangeHere) -> Response:
    """Begin an upload, or find the one that was begun under the same key. It is kept for a day."""
    begun = call.services.uploads.begin(
        call.caller, body.name, body.size_bytes, key=body.key, shared=body.shared, format=body.format,
        encrypt=body.encrypt,
    )  # fmt: skip
    return call.answer(_show(begun), 201)


@routes.get("/v1/uploads/{id}", operation_id="show_upload", response_model=image_models.Upload, responses=READING)
def show_upload(id: Id, call: CallHere) -> Response:
    """How far an upload came: `offset` is where it goes on."""
    return call.answer(_show(call.services.uploads.upload(call.caller, id)))


@routes.delete(
    "/v1/uploads/{id}", operation_id="drop_upload", status_code=204, response_class=Response, responses=CHANGING
)
def drop_upload(id: Id, call: ChangeHere) -> Response:
    """Give an upload up."""
    call.services.uploads.drop(call.caller, id)
    return Response(status_code=204)


@routes.patch(
    "/v1/uploads/{id}",
    operation_id="continue_upload",
    response_model=image_models.Upload,
    responses=CHANGING,
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The file's bytes from offset on; or frames of them, without its zeros.",
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("application/octet-stream", MEDIA_TYPE)
            },
        }
    },
)
@body_limit(_UNLIMITED)
async def continue_upload(
    id: Id,
    request: Request,
    call: Annotated[Call, Depends(Call)],
    offset: Annotated[int, Query(ge=0, description="Where the upload ends so far.")],
) -> Response:
    """Send more of an upload. What has come stays, if the connection breaks; 409 says where it goes on."""
    uploads = call.services.uploads
    receiving = uploads.receiving(call.caller, id, offset)
    file = await run_sync(receiving.__enter__)
    try:
        size_bytes = (await run_sync(uploads.upload, call.caller, id)).size_bytes
        framed = request.headers.get("content-type", "").split(";")[0].strip() == MEDIA_TYPE
        await take_body(request, _framed(file, size_bytes) if framed else _plain(file, size_bytes))
    finally:
        await run_sync(receiving.__exit__, None, None, None)
    return call.answer(_show(await run_sync(uploads.upload, call.caller, id)))


def _plain(file: SparseFile, size_bytes: int) -> Callable[[bytes], None]:
    def take(data: bytes) -> None:
        file.write_within(data, size_bytes)

    return take


def _framed(file: SparseFile, size_bytes: int) -> Callable[[bytes], None]:
    frames = FrameReader(file.position, size_bytes)

    def take(data: bytes) -> None:
        for offset, piece in frames.feed(data):
            file.skip(offset)
            file.write(piece)
        if frames.ended:
            file.skip(size_bytes)

    return take


async def take_body(request: Request, take: Callable[[bytes], None]) -> None:
    """Hand a body on in large pieces, each in a thread, one at a time; of one that breaks off, all that came.

    A sender who is gone without a word (his power failed, his network) must not keep the next one from going on: after
    SILENCE_S the body has broken off, and Unavailable says so to whoever may still listen.
    """
    pieces, held = list[bytes](), 0
    try:
        async for chunk in _while_it_comes(request):
            pieces.append(chunk)
            held += len(chunk)
            if held >= PIECE_BYTES:
                piece, pieces, held = b"".join(pieces), [], 0
                await run_sync(take, piece)
    except (ClientDisconnect, Unavailable):
        await run_sync(take, b"".join(pieces))
        raise
    await run_sync(take, b"".join(pieces))


async def _while_it_comes(request: Request) -> AsyncIterator[bytes]:
    chunks = request.stream()
    while True:
        try:
            with fail_after(SILENCE_S):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Unavailable(
                f"nothing came for {SILENCE_S:.0f} s; what had come is kept", possible="the rest, from where it ends"
            ) from None
        yield chunk


@routes.post(
    "/v1/uploads/{id}/complete",
    operation_id="complete_upload",
    status_code=201,
    response_model=image_models.Image,
    responses=CHANGING,
)
def complete_upload(
    id: Id, body: image_models.UploadDone, call: ChangeHere, image_passphrase: PassphraseHeader = None
) -> Response:
    """Make the image of an upload of which all has come, after a look at what it really is."""
    passphrase = passphrase_in(image_passphrase)
    return call.mutate(
        lambda once: call.services.uploads.complete(call.caller, id, body.sha256, once, passphrase),
        call.views.image,
        in_draft=call.views.image_in,
        status=201,
    )
