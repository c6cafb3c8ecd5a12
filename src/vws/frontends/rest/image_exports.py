"""Images on their way out in other formats; see service/exports.py."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import quote

from fastapi import Query, Request, Response
from starlette.responses import StreamingResponse

from vws.core.image_formats import ALIASES, EXPORTED, listed
from vws.frontends.rest.call import CallHere
from vws.frontends.rest.image_names import Named
from vws.frontends.rest.operation import READING, refusals, router
from vws.service.exports import Export

routes = router("images")

# What an export cannot hold, in words.
LEFT_OUT = "X-Left-Out"


@routes.get(
    "/v1/images/{id}/export",
    operation_id="export_image",
    response_class=Response,
    responses=READING
    | refusals(404, 409)
    | {
        200: {
            "content": {"application/octet-stream": {}},
            "description": f"The file. {LEFT_OUT} says, percent-encoded, what of the image is not in it.",
        },
        206: {"content": {"application/octet-stream": {}}, "description": "Its end, from where Range asked for."},
    },
)
def export_image(
    id: Named,
    request: Request,
    call: CallHere,
    format: Annotated[
        str, Query(description=f"{listed(EXPORTED)}.", max_length=20, json_schema_extra={"enum": [*EXPORTED, *ALIASES]})
    ],
) -> Response:
    """An image as a file for other hypervisors and registries; its end from `Range: bytes=N-` on, if `If-Range` says
    the ETag that the beginning had. A disk that must be converted is, before the answer begins, and kept for an hour
    for those who come back."""
    made = call.services.exports.export(call.caller, id, format)
    begin = _begin(request, made)
    headers = {"Content-Length": str(made.length_bytes - begin), "Accept-Ranges": "bytes", "ETag": f'"{made.tag}"'}
    if begin:
        headers["Content-Range"] = f"bytes {begin}-{made.length_bytes - 1}/{made.length_bytes}"
    if made.left_out:
        headers[LEFT_OUT] = quote(made.left_out)
    return StreamingResponse(made.read(begin), 206 if begin else 200, headers, "application/octet-stream")


def _begin(request: Request, made: Export) -> int:
    """Where to begin: what is asked for is there, and of the same file; else all of it."""
    asked = re.fullmatch(r"bytes=(\d{1,18})-", request.headers.get("range", "").strip())
    if asked is None or request.headers.get("if-range", "") != f'"{made.tag}"':
        return 0
    return int(asked[1]) if int(asked[1]) < made.length_bytes else 0
