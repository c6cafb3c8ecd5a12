"""Of many tests that are alike `make test` runs some, the soak all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def one_in(share: int, cases: Sequence[Any]) -> list[Any]:
    """Parameters, of which the first and each `share`th after it belong to `make test`."""
    return [pytest.param(case, marks=pytest.mark.soak) if number % share else case for number, case in enumerate(cases)]
