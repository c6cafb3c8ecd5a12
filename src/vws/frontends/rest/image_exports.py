"""Images on their way out in other formats; see service/exports.py."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Path as PathParameter
from fastapi import Query, Response
from starlette.responses import StreamingResponse

from vws.core.image_formats import EXPORTED, listed
from vws.frontends.rest.call import CallHere
from vws.frontends.rest.operation import READING, REFERENCE_LENGTH_MAX, refusals, router

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
        }
    },
)
def export_image(
    id: Annotated[
        str, PathParameter(description="NAME, NAME:TAG, id or sha256:DIGEST.", max_length=REFERENCE_LENGTH_MAX)
    ],
    call: CallHere,
    format: Annotated[str, Query(description=f"{listed(EXPORTED)}.", max_length=20)],
) -> Response:
    """An image as a file for other hypervisors and registries. A disk that must be converted is, before the answer
    begins."""
    made = call.services.exports.export(call.caller, id, format)
    headers = {"Content-Length": str(made.length_bytes)}
    if made.left_out:
        headers[LEFT_OUT] = quote(made.left_out)
    return StreamingResponse(made.pieces, headers=headers, media_type="application/octet-stream")
