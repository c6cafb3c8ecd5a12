"""What a domain error is to the outside: a code, a status, a title, and its facts, cut to a size fit for an answer.

Every front end starts from `fault_of` and writes the result in its protocol's own form. The status numbers are
HTTP's, because every protocol that VWS speaks runs over it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from vws.core import errors

SHOWN_MAX = 120
SENTENCE_MAX = 600

_FAULTS: dict[type[errors.VwsError], tuple[int, str]] = {
    errors.InvalidRequest: (422, "The request cannot be understood"),
    errors.Unauthenticated: (401, "Who is asking is not known"),
    errors.Forbidden: (403, "This is not yours to do"),
    errors.NotFound: (404, "There is no such thing"),
    errors.Conflict: (409, "The present state does not allow it"),
    errors.CannotFit: (409, "The site has no room for this"),
    errors.TooLarge: (413, "This is more than is read"),
    errors.Unavailable: (503, "Not now; try again"),
    errors.VwsError: (500, "It failed"),
}


@dataclass(frozen=True)
class Fault:
    """One error, ready to be written. `details`: further members, such as `nodes` and `offers` of a CannotFit."""

    status: int
    code: str
    title: str
    detail: str
    field: str | None = None
    asked: Any = None
    possible: str | None = None
    details: dict[str, Any] | None = None


def fault_of(error: errors.VwsError) -> Fault:
    status, title = next(_FAULTS[kind] for kind in type(error).__mro__ if kind in _FAULTS)
    return Fault(
        status,
        error.code,
        title,
        shorten(error.problem, SENTENCE_MAX),
        error.field,
        show(error.asked),
        error.possible,
        error.details or None,
    )


def shorten(text: str, length: int = SHOWN_MAX) -> str:
    """`text` as UTF-8 can carry it (JSON lets lone surrogates in), at most `length` characters."""
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return cut.encode("utf-8", "replace").decode()


def show(asked: Any) -> Any:
    """What was asked, as a value that any protocol can carry: short and finite."""
    if asked is None or isinstance(asked, bool):
        return asked
    if isinstance(asked, int) and abs(asked) < 2**53:
        return asked
    if isinstance(asked, float) and math.isfinite(asked):
        return asked
    text = asked if isinstance(asked, str) else _as_text(asked)
    return shorten(text)


def _as_text(value: Any) -> str:
    """A value of whatever size in few characters; a huge one is not written out first."""
    if isinstance(value, int):
        return str(value) if value.bit_length() < 400 else f"a number of {value.bit_length()} bits"
    if isinstance(value, (dict, list, tuple)):
        value = list(value)[:10] if not isinstance(value, dict) else dict(list(value.items())[:10])
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return f"{type(value).__name__} {value!r}" if isinstance(value, float) else type(value).__name__
