"""What all operations have in common: strict reading, and which refusals they document.

A query parameter that is silently ignored is a wrong answer (`?stat=running` would list everything), so unknown ones
are refused. FastAPI takes a body of another content type for no JSON; here it is a 415 that says what to send.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_args, get_origin

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from vws.core.errors import InvalidRequest, NotFound, VwsError
from vws.frontends.faults import Fault, shorten
from vws.frontends.rest import models
from vws.frontends.rest.problems import problem

F = TypeVar("F", bound=Callable[..., Any])

JSON_BYTES_MAX = 1 << 20
REFERENCE_LENGTH_MAX = 200

_REFUSALS = {
    400: "The body is not JSON.",
    401: "No token, or one that is unknown, expired or revoked.",
    403: "The token may not do this.",
    404: "There is no such thing.",
    409: "The present state does not allow it, or the site has no room.",
    413: "The body is too large.",
    415: "The body has the wrong content type.",
    422: "A value is wrong; the problem names the field and what would be possible.",
    500: "An unforeseen error, with a reference into the service's log.",
    503: "A part that is needed does not answer now; try again.",
}
_ALWAYS = (401, 403, 422, 500, 503)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an operation may answer with, beside those that any may."""
    return {
        status: {"model": models.Problem, "description": _REFUSALS[status]} for status in sorted({*statuses, *_ALWAYS})
    }


READING = refusals(404)
CHANGING = refusals(400, 404, 409, 413, 415)


class Operation(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = _query_names(self.dependant) | _described_names(self.openapi_extra)
        takes_json = self.body_field is not None
        bytes_max = getattr(self.endpoint, "body_bytes_max", JSON_BYTES_MAX)

        async def checked(request: Request) -> Response:
            _check_path(request)
            _check_query(request, known)
            if takes_json and not _is_json(request.headers.get("content-type", "")):
                return _wrong_content_type(request)
            return await handle(Request(request.scope, _counting(request, bytes_max)))

        return checked


def router(tag: str) -> APIRouter:
    return APIRouter(route_class=Operation, tags=[tag], redirect_slashes=False)


# ---------------------------------------------------------------- bodies


def body_limit(bytes_max: int) -> Callable[[F], F]:
    """For operations that read another size than JSON_BYTES_MAX."""

    def mark(operation: F) -> F:
        operation.body_bytes_max = bytes_max  # type: ignore[attr-defined]
        return operation

    return mark


def _counting(request: Request, bytes_max: int) -> Receive:
    """The request's `receive`, which ends with a 413 at the first byte too many, announced or not."""
    announced = request.headers.get("content-length", "")
    left = -1 if announced.isdecimal() and int(announced[:30]) > bytes_max else bytes_max

    async def receive() -> Message:
        nonlocal left
        if left < 0:
            raise too_large(bytes_max)
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise too_large(bytes_max)
        return message

    return receive


def too_large(bytes_max: int) -> HTTPException:
    """An HTTPException, because FastAPI takes any other error while it reads a body for bad JSON."""
    return HTTPException(413, f"{bytes_max} bytes")


# ---------------------------------------------------------------- paths and queries


def _check_path(request: Request) -> None:
    """Ids and names are short and printable; nothing else is worth a look into the store."""
    for name, value in request.path_params.items():
        if len(value) > REFERENCE_LENGTH_MAX or not value.isprintable():
            raise NotFound("there is no such thing", field=name, asked=value)


def _check_query(request: Request, known: dict[str, bool]) -> None:
    seen = set()
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise _unknown_parameter(name, known)
        if name in seen and not known[name]:
            raise InvalidRequest(f"{name} is given twice", field=name, asked=value, possible=f"{name} once")
        seen.add(name)


def _query_names(dependant: Dependant) -> dict[str, bool]:
    """The query parameters of an operation and of what it depends on, and whether each may be repeated."""
    names: dict[str, bool] = {}
    for inner in dependant.dependencies:
        names |= _query_names(inner)
    for field in dependant.query_params:
        kind = field.field_info.annotation
        names[field.alias] = any(get_origin(each) is list for each in (kind, *get_args(kind)))
    return names


def _described_names(openapi_extra: dict[str, Any] | None) -> dict[str, bool]:
    """Those that an operation reads by itself."""
    described = (openapi_extra or {}).get("parameters", ())
    return {parameter["name"]: False for parameter in described if parameter["in"] == "query"}


def _unknown_parameter(name: str, known: dict[str, bool]) -> VwsError:
    shown = shorten(name, 40)
    return InvalidRequest(
        f"{shown} is not a parameter of this operation",
        field=shown,
        possible="one of " + ", ".join(sorted(known)) if known else "no parameters",
    )


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _wrong_content_type(request: Request) -> Response:
    asked = shorten(request.headers.get("content-type", ""))
    sentence = f"a body of the type {asked} is not read here" if asked else "the request has no content type"
    title = "This is not read here"
    return problem(
        Fault(415, "unsupported-media-type", title, sentence, "Content-Type", asked or None, "application/json")
    )
