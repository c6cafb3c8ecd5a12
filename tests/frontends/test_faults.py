"""Domain errors as the outside sees them."""

from __future__ import annotations

import itertools
import json
import math

import pytest

from vws.core import errors
from vws.frontends.faults import SHOWN_MAX, fault_of, show

KINDS = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.VwsError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_status_of_its_own_family(kind):
    fault = fault_of(kind("it is so", field="here", asked="this", possible="that", details={"nodes": []}))
    expected = 409 if issubclass(kind, errors.Conflict) else None
    assert fault.status == (expected or fault.status)
    assert (fault.status == 500) == (kind is errors.VwsError)
    assert (fault.code, fault.detail, fault.field) == (kind.code, "it is so", "here")
    assert (fault.asked, fault.possible, fault.details) == ("this", "that", {"nodes": []})


@pytest.mark.parametrize(
    "asked",
    [
        "x" * 10_000, "\ud800", 10**5000, -(10**30), math.nan, math.inf, {"a": [1] * 10_000}, [[[[]]]] * 500, object(),
        {"key": object()}, b"bytes", None, True, 0, 1.5, ["\ud800" * 500], [10**5000],
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_what_was_asked_is_shown_short_and_sendable(asked):
    shown = show(asked)
    text = json.dumps(shown, allow_nan=False, ensure_ascii=False)
    assert len(text.encode()) < 4 * SHOWN_MAX
