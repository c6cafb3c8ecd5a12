"""The OpenAPI document: what FastAPI makes of the operations, with what it cannot know.

Problems have a media type of their own; the link's reports are described by the same values that read them; the
WebSockets, of which OpenAPI knows nothing, are named in the text.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from vws import __version__
from vws.frontends.rest.link import report_schema
from vws.frontends.rest.problems import MEDIA_TYPE

DESCRIPTION = """\
Leases of virtual machines. Times are UTC seconds, memory and disk MiB. Every list is paged (`next` goes into `after`).
Every change takes an `Idempotency-Key`. Refusals are RFC 9457 problems.

Two WebSockets carry bytes in binary messages: `/v1/workspaces/{id}/tunnel?port=22` for users, and
`/v1/nodes/{id}/tunnels/{tunnel}` for a node that heard of a tunnel with its orders.
"""

_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def document(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1 of all operations; made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title="VWS, the Virtual Workspace Service",
            version=__version__,
            openapi_version="3.1.0",
            description=DESCRIPTION,
            routes=app.routes,
        )
        _add_report(made["components"]["schemas"])
        for operation in (o for path in made["paths"].values() for o in path.values()):
            _mark_problems(operation)
        app.openapi_schema = made
    return app.openapi_schema


def _add_report(schemas: dict[str, Any]) -> None:
    report = report_schema()
    parts = report.pop("$defs", {})
    for name, schema in (parts | {"NodeReport": report}).items():
        if schema.get("type") == "object":
            schema["additionalProperties"] = False
        # A part may be known already from an answer, under the same name and of the same shape.
        schemas.setdefault(name, schema)


def _mark_problems(operation: dict[str, Any]) -> None:
    for answer in operation["responses"].values():
        content = answer.get("content", {})
        if any(media.get("schema") == _PROBLEM for media in content.values()):
            answer["content"] = {MEDIA_TYPE: {"schema": _PROBLEM}}
