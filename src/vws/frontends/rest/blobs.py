"""Files on their way out: whole, a range of them, or without their zeros.

Pieces are large and read by threads, one in memory at a time: a node's download is the service's heaviest work, and
must keep neither the event loop nor the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Path, Query, Request, Response
from starlette.responses import StreamingResponse

from vws.core.errors import InvalidRequest
from vws.core.frames import HEADER_BYTES, MEDIA_TYPE, header
from vws.frontends.rest.call import CallHere
from vws.frontends.rest.image_names import Named
from vws.frontends.rest.operation import READING, router
from vws.ports import Blobs, Extent

PIECE_BYTES = 1 << 20
SHA256 = r"^[0-9a-f]{64}$"

routes = router("files")


class Holes(StrEnum):
    KEEP = "keep"
    SKIP = "skip"


HolesAsked = Annotated[
    Holes, Query(description="skip: frames (offset, length, bytes) of what is not zero; keep: all bytes.")
]
OffsetAsked = Annotated[int, Query(ge=0, description="With holes=skip: where to begin, in bytes of the file.")]
ANSWERS: dict[int | str, dict[str, Any]] = READING | {
    200: {
        "content": {"application/octet-stream": {}, MEDIA_TYPE: {}},
        "description": "The file; with holes=skip, frames of it.",
    },
    206: {"content": {"application/octet-stream": {}}, "description": "The part that Range asked for."},
    416: {"description": "There is no such part."},
}


@routes.get("/v1/blobs/{sha256}", operation_id="fetch_blob", response_class=Response, responses=ANSWERS)
def fetch_blob(
    request: Request,
    sha256: Annotated[str, Path(pattern=SHA256)],
    call: CallHere,
    holes: HolesAsked = Holes.KEEP,
    offset: OffsetAsked = 0,
) -> Response:
    """A file of an image, by its content, for nodes and administrators; a part of it with Range."""
    return answer(request, call.services.nodes.blob(call.caller, sha256), sha256, holes, offset)


@routes.get(
    "/v1/images/{id}/files/{sha256}", operation_id="fetch_image_file", response_class=Response, responses=ANSWERS
)
def fetch_image_file(
    request: Request,
    id: Named,
    sha256: Annotated[str, Path(pattern=SHA256)],
    call: CallHere,
    holes: HolesAsked = Holes.KEEP,
    offset: OffsetAsked = 0,
) -> Response:
    """A file of an image that one may use; a part of it with Range."""
    return answer(request, call.services.images.blobs_of(call.caller, id, sha256), sha256, holes, offset)


def answer(request: Request, blobs: Blobs, sha256: str, holes: Holes, offset: int) -> Response:
    size = blobs.size(sha256) or 0
    if holes is Holes.SKIP:
        return _framed(blobs, sha256, size, offset)
    if offset:
        raise InvalidRequest("offset goes with holes=skip", field="offset", asked=offset, possible="the header Range")
    start, end = _range(request.headers.get("range", ""), size)
    if start >= end and request.headers.get("range"):
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    headers = {"Content-Length": str(end - start), "Accept-Ranges": "bytes", "ETag": f'"{sha256}"'}
    partial = (start, end) != (0, size)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    pieces = _pieces(blobs, sha256, Extent(start, end - start))
    return StreamingResponse(pieces, 206 if partial else 200, headers, "application/octet-stream")


def _range(asked: str, size: int) -> tuple[int, int]:
    """[start, end) of one range; what is not understood is ignored, as RFC 9110 has it."""
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked.strip())
    if found is None or found.groups() == ("", ""):
        return 0, size
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def _pieces(blobs: Blobs, sha256: str, part: Extent) -> Iterator[bytes]:
    left = part.length
    with blobs.open(sha256, part.offset) as stream:
        while left and (piece := stream.read(min(left, PIECE_BYTES))):
            left -= len(piece)
            yield piece


def _framed(blobs: Blobs, sha256: str, size: int, offset: int) -> Response:
    if offset > size:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    extents = [_from(extent, offset) for extent in blobs.extents(sha256) if extent.offset + extent.length > offset]
    length = sum(HEADER_BYTES + extent.length for extent in extents) + HEADER_BYTES
    headers = {"Content-Length": str(length), "ETag": f'"{sha256}"'}
    return StreamingResponse(_frames(blobs, sha256, extents, size), 200, headers, MEDIA_TYPE)


def _from(extent: Extent, offset: int) -> Extent:
    start = max(extent.offset, offset)
    return Extent(start, extent.offset + extent.length - start)


def _frames(blobs: Blobs, sha256: str, extents: list[Extent], size: int) -> Iterator[bytes]:
    for extent in extents:
        yield header(extent.offset, extent.length)
        yield from _pieces(blobs, sha256, extent)
    yield header(size, 0)
