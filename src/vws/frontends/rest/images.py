"""Images: take in, look, name, share, remove.

An upload goes to disk as it comes, counted against the site's limit and the disk's room, and is hashed on the way:
nothing is held in memory and nothing is believed before service/images.py has looked at it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import Depends, Query, Request, Response

from vws.core.errors import NotFound
from vws.core.image_formats import ACCEPTED, IMPORTED, listed
from vws.core.site import DocumentKind
from vws.frontends.rest import image_models as models
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
from vws.frontends.rest.image_names import Named
from vws.frontends.rest.operation import CHANGING, READING, body_limit, router
from vws.frontends.rest.uploads import take_body
from vws.ports import Filter
from vws.service.images import DOCUMENT_BYTES_MAX
from vws.service.once import Once
from vws.service.uploads import SparseFile, check_room

# Counted here, against the site's own limit.
_UNLIMITED = 1 << 62

SharedAsked = Annotated[
    list[str] | None,
    Query(
        max_length=100,
        description="Who may use it beside its owner: names of VOs, or `public`. Not said: all, if an administrator "
        "brings it, and nobody else if others do; an empty name: nobody else.",
    ),
]
FORMAT = f"That the file has: {listed(IMPORTED)}. Not said: told by its bytes. A wrong one is refused."

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
            "description": f"The file: {ACCEPTED}.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
@body_limit(_UNLIMITED)
async def import_image(
    request: Request,
    call: Annotated[Change, Depends(_upload)],
    name: Annotated[str, Query(description="Under which NAME or NAME:TAG.", examples=["debian:12"])],
    shared: SharedAsked = None,
    format: Annotated[str | None, Query(max_length=20, description=FORMAT)] = None,
) -> Response:
    """Take a disk image or an appliance in, after a look at what it really is, in one request. One that breaks begins
    anew; an upload in parts (/v1/uploads) goes on."""
    await run_sync(_check_before, request, call, name, shared)
    temporary = await run_sync(call.services.images.begin)
    try:
        sha256 = await _receive(request, temporary, call.services.site.settings.image_bytes_max)
        return await run_sync(_add, call, temporary, name, shared, format, sha256)
    finally:
        await run_sync(lambda: temporary.unlink(missing_ok=True))


def _check_before(request: Request, call: Change, name: str, shared: list[str] | None) -> None:
    """Refuse what the body would not change, before it is sent. A repeat is judged by its first answer alone."""
    announced = request.headers.get("content-length", "")
    length = int(announced[:30]) if announced.isdecimal() else None
    if not call.is_repeat:
        call.services.images.check_upload(call.caller, name, length, shared)


def _add(
    call: Change, temporary: Path, name: str, shared: list[str] | None, format: str | None, sha256: str
) -> Response:
    return call.mutate(
        lambda once: call.services.images.add(
            call.caller, temporary, name, once, shared=shared, sha256=sha256, declared=format
        ),
        call.views.image,
        in_draft=call.views.image_in,
        status=201,
        content=sha256,
    )


async def _receive(request: Request, target: Path, bytes_max: int) -> str:
    """The body into `target`; returns its sha256. Raises TooLarge, or Unavailable when the disk has no room."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal():
        check_room(target.parent, int(announced[:30]), 0, bytes_max)
    file = SparseFile(target, bytes_max)
    try:
        await take_body(request, file.write)
        return file.sha256
    finally:
        file.close()


@routes.get("/v1/images", operation_id="list_images", response_model=models.ImagePage, responses=READING)
def list_images(
    call: CallHere,
    after: After = None,
    limit: Limit = LIMIT_DEFAULT,
    everything: Annotated[bool, Query(alias="all", description="Removed ones too.")] = False,
    name: Annotated[str | None, text("Only what has this NAME, or NAME:TAG.")] = None,
) -> Response:
    """The images that the caller may use."""
    where = Filter(live=not everything, name=name)
    return call.page(call.services.images.images(call.caller, where, after=after, limit=limit), call.views.image)


@routes.post("/v1/images/collect", operation_id="collect_images", response_model=models.Collected, responses=CHANGING)
def collect_images(
    call: ChangeHere, dry_run: Annotated[bool, Query(description="Only say what would go.")] = False
) -> Response:
    """Drop images without a name and files of no image; never what a lease needs, nor the base of a delta."""
    images, files = call.services.images.collect(call.caller, dry_run=dry_run)
    return call.answer({"images": [call.views.image(image) for image in images], "files": files})


@routes.get(
    "/v1/image-names/{name}", operation_id="image_history", response_model=models.ImageHistory, responses=READING
)
def image_history(name: Named, call: CallHere, after: After = None, limit: Limit = LIMIT_DEFAULT) -> Response:
    """What a NAME's tags, or NAME:TAG, point and pointed at, the last first."""
    return call.page(call.services.images.history(call.caller, name, after=after, limit=limit), call.views.image_tag)


@routes.delete("/v1/image-names/{name}", operation_id="untag_image", response_model=models.Image, responses=CHANGING)
def untag_image(name: Named, call: ChangeHere) -> Response:
    """Take a tag away; its image stays."""
    return _changed(call, lambda once: call.services.images.untag(call.caller, name, once))


@routes.get("/v1/images/{id}", operation_id="show_image", response_model=models.Image, responses=READING)
def show_image(id: Named, call: CallHere) -> Response:
    """An image by its name, id or digest."""
    return call.answer(call.views.image(call.services.images.image(call.caller, id)))


@routes.post("/v1/images/{id}/tags", operation_id="tag_image", response_model=models.Image, responses=CHANGING)
def tag_image(id: Named, body: models.ImageName, call: ChangeHere) -> Response:
    """Let a name point at an image from now on."""
    return _changed(call, lambda once: call.services.images.tag(call.caller, id, body.name, once))


@routes.post(
    "/v1/images/{id}/copies",
    operation_id="copy_image",
    status_code=201,
    response_model=models.Image,
    responses=CHANGING,
)
def copy_image(id: Named, body: models.ImageCopy, call: ChangeHere) -> Response:
    """Have an image of one's own of another's files. One that is a delta is flattened if that is said; the answer comes
    when that is done."""
    copied = call.services.flattening.copy if body.flat else call.services.images.copy
    return _changed(call, lambda once: copied(call.caller, id, body.name, once), status=201)


@routes.get(
    "/v1/images/{id}/flattening", operation_id="show_flattening", response_model=models.Flattening, responses=READING
)
def show_flattening(id: Named, call: CallHere) -> Response:
    """How far one's own flattening of an image is, while it goes on."""
    return call.answer(asdict(call.services.flattening.progress(call.caller, id)))


@routes.put("/v1/images/{id}/sharing", operation_id="share_image", response_model=models.Image, responses=CHANGING)
def share_image(id: Named, body: models.Sharing, call: ChangeHere) -> Response:
    """Say who may use an image from now on."""
    return _changed(call, lambda once: call.services.images.share(call.caller, id, body.shared, once))


@routes.post("/v1/images/{id}/verify", operation_id="verify_image", response_model=models.Image, responses=CHANGING)
def verify_image(id: Named, call: ChangeHere) -> Response:
    """Read all files of an image and compare them with their sha256s; `damaged` says what was found."""
    return call.answer(call.views.image(call.services.images.verify(call.caller, id)))


@routes.delete("/v1/images/{id}", operation_id="remove_image", response_model=models.Image, responses=CHANGING)
def remove_image(
    id: Named,
    call: ChangeHere,
    now: Annotated[bool, Query(description="Refuse it while a lease uses the image, rather than wait.")] = False,
) -> Response:
    """Take an image out with all its names: at once, or, while leases use it, as soon as the last is over."""
    return _changed(call, lambda once: call.services.images.remove(call.caller, id, once, now=now))


def _changed(call: Change, act: Callable[[Once | None], Any], status: int = 200) -> Response:
    return call.mutate(act, call.views.image, in_draft=call.views.image_in, status=status)


# ---------------------------------------------------------------- documents


@routes.get(
    "/v1/images/{id}/documents",
    operation_id="list_image_documents",
    response_model=models.Documents,
    responses=READING,
)
def list_image_documents(id: Named, call: CallHere) -> Response:
    """What is kept beside an image: bills of materials, provenance, attestations."""
    documents = call.services.images.documents(call.caller, id)
    return call.answer({"items": [call.views.document(each) for each in documents]})


@routes.get(
    "/v1/images/{id}/documents/{document}",
    operation_id="fetch_image_document",
    response_class=Response,
    responses=READING | {200: {"content": {"application/octet-stream": {}}, "description": "As it was added."}},
)
def fetch_image_document(id: Named, document: str, call: CallHere) -> Response:
    """A document's content."""
    for each in call.services.images.documents(call.caller, id):
        if each.id == document:
            headers = {"X-Content-Type-Options": "nosniff", "X-Media-Type": each.media_type}
            return Response(each.content, media_type="application/octet-stream", headers=headers)
    raise NotFound(f"the image has no document {document[:60]!r}", field="document", asked=document[:60])


@routes.delete(
    "/v1/images/{id}/documents/{document}",
    operation_id="remove_image_document",
    response_model=models.Document,
    responses=CHANGING,
)
def remove_image_document(id: Named, document: str, call: ChangeHere) -> Response:
    """Keep a document no longer: for the image's owner, administrators and who added it."""
    images = call.services.images
    return call.mutate(lambda once: images.remove_document(call.caller, id, document, once), call.views.document)


@routes.post(
    "/v1/images/{id}/documents",
    operation_id="add_image_document",
    status_code=201,
    response_model=models.Document,
    responses=CHANGING,
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The document, as it is to be kept.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
@body_limit(DOCUMENT_BYTES_MAX)
async def add_image_document(
    id: Named,
    request: Request,
    call: Annotated[Change, Depends(_upload)],
    kind: Annotated[DocumentKind, Query(description="What it is.")],
    media_type: Annotated[str, Query(max_length=200, examples=["application/vnd.cyclonedx+json"])],
) -> Response:
    """Keep what is said of an image beside it. The same content again is the same document."""
    content = await request.body()
    images = call.services.images
    return await run_sync(
        lambda: call.mutate(
            lambda once: images.add_document(call.caller, id, kind, media_type, content, once),
            call.views.document,
            status=201,
            content=hashlib.sha256(content).hexdigest(),
        )
    )
