"""Every refusal as an RFC 9457 problem: our own errors, the validator's, the router's.

A caller who made a mistake in a field learns which field, what was read there and what would be taken; one who asked
for an unknown field learns the known ones. What nobody foresaw becomes a 500 with a reference into the log
(gate.py), never a trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from vws.core.errors import VwsError
from vws.frontends.faults import Fault, fault_of, shorten, show
from vws.frontends.rest.models import PERSON

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
_SHOWN_ERRORS_MAX = 10
_SHOWN_FIELDS_MAX = 30


def problem(fault: Fault, headers: Mapping[str, str] | None = None) -> Response:
    members = {
        "type": f"urn:vws:problem:{fault.code}",
        "title": fault.title,
        "status": fault.status,
        "detail": fault.detail,
        "code": fault.code,
        "field": fault.field,
        "asked": fault.asked,
        "possible": fault.possible,
    }
    body = {name: value for name, value in members.items() if value is not None} | (fault.details or {})
    return Response(
        json.dumps(body, default=str),
        fault.status,
        headers=dict(headers or {}) | _headers(fault.status),
        media_type=MEDIA_TYPE,
    )


def _headers(status: int) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": 'Bearer realm="vws"'}
    if status == 503:
        return {"Retry-After": str(RETRY_AFTER_S)}
    return {}


# ---------------------------------------------------------------- handlers


async def on_vws_error(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, VwsError)
    return await _answer(connection, problem(fault_of(error)))


async def on_http_exception(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, HTTPException)
    return await _answer(connection, problem(_fault_of_http(connection, error), error.headers))


async def on_validation_error(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, RequestValidationError)
    body_field = getattr(connection.scope.get("route"), "body_field", None)
    model = body_field.field_info.annotation if body_field else None
    return await _answer(connection, problem(fault_of_validation(error.errors(), model)))


async def _answer(connection: HTTPConnection, response: Response) -> Response | None:
    """A WebSocket that was not accepted yet can be answered like any request."""
    if isinstance(connection, WebSocket):
        await connection.send_denial_response(response)
        return None
    return response


def _fault_of_http(connection: HTTPConnection, error: HTTPException) -> Fault:
    path = shorten(connection.scope["path"])
    if error.status_code == 404:
        return Fault(
            404, "not-found", "There is no such thing", f"there is nothing at {path}",
            field="path", asked=path, possible="/v1/openapi.json says what there is",
        )  # fmt: skip
    if error.status_code == 405:
        assert isinstance(connection, Request)
        allowed = _allowed(connection, connection.scope["path"])
        error.headers = {"Allow": allowed}
        return Fault(
            405, "method-not-allowed", "This is not done here", f"{path} knows no {connection.method}",
            field="method", asked=shorten(connection.method), possible=allowed,
        )  # fmt: skip
    if error.status_code == 413:
        return Fault(
            413, "too-large", "This is more than is read", f"the body is larger than {error.detail}",
            field="body", possible=f"at most {error.detail}",
        )  # fmt: skip
    if error.status_code == 400:
        return not_json(f"{error.__cause__ or error.detail}")
    return Fault(error.status_code, "error", "It failed", shorten(str(error.detail)))


def _allowed(request: Request, path: str) -> str:
    """What may be done at `path`; at /v1/nodes/join that is joining, though a node might be called so."""
    fitting = [route for route in request.app.state.operations if route.path_regex.match(path)]
    exact = [route for route in fitting if route.path == path]
    return ", ".join(sorted({method for route in exact or fitting for method in route.methods}))


def not_json(why: str) -> Fault:
    return Fault(
        400, "invalid-request", "The request cannot be understood", f"the body is not JSON: {shorten(why)}",
        field="body", possible="one JSON object in UTF-8",
    )  # fmt: skip


# ---------------------------------------------------------------- validation

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "string_unicode": "text that UTF-8 can carry",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "string_pattern_mismatch": "{form}",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "enum": "one of {expected}",
    "literal_error": "one of {expected}",
}


def _form(pattern: str) -> str:
    """In words, what matches a pattern of the models: most of them refuse control characters and nothing else."""
    if pattern == PERSON:
        return "a name of letters, digits, . _ @ and -, a letter or digit first"
    return "printable text" if r"\x00" in pattern else f"text of the form {pattern}"


def fault_of_validation(errors: Sequence[Any], model: Any) -> Fault:
    """The first error told in full, the others by field and sentence. `model`: what the body should have been."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return not_json(f"{first['ctx']['error']} at character {first['loc'][-1]}")
    fault = _fault_of_one(first, model)
    if len(errors) == 1:
        return fault
    others = [_fault_of_one(error, model) for error in errors[:_SHOWN_ERRORS_MAX]]
    return replace(fault, details={"errors": [{"field": f.field, "detail": f.detail} for f in others]})


def _fault_of_one(error: Mapping[str, Any], model: Any) -> Fault:
    field = shorten(_path(error["loc"]))
    detail, possible = _sentence(error, field, model)
    asked = None if error["type"] == "missing" else show(error.get("input"))
    return Fault(422, "invalid-request", "The request cannot be understood", detail, field, asked, possible)


def _sentence(error: Mapping[str, Any], field: str, model: Any) -> tuple[str, str]:
    if error["type"] == "missing":
        return f"{field} is missing", f"a request with {field}"
    if error["type"] == "extra_forbidden":
        return f"{field} is not known here", "one of " + ", ".join(_known(model, error["loc"]))
    template = _EXPECTED.get(error["type"])
    told = error.get("ctx") or {}
    expected = template.format(**told, form=_form(str(told.get("pattern", "")))) if template else str(error["msg"])
    return f"{field} is not {expected}" if template else f"{field}: {expected}", expected


def _path(loc: Sequence[str | int]) -> str:
    """("body", "groups", 0, "cpus") as groups[0].cpus"""
    path = ""
    for step in loc[1:]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path or str(loc[0])


def _known(model: Any, loc: Sequence[str | int]) -> Iterable[str]:
    """The fields of the part of `model` that `loc` leads into; its last step is the unknown field."""
    for step in loc[1:-1]:
        inner = model.model_fields[step].annotation if isinstance(step, str) else model
        model = next((a for a in (inner, *getattr(inner, "__args__", ())) if _is_model(a)), model)
    return list(model.model_fields)[:_SHOWN_FIELDS_MAX]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
