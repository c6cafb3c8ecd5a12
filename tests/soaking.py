"""Of many tests that are alike `make test` runs some, the soak all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st


def one_in(share: int, cases: Sequence[Any]) -> list[Any]:
    """Parameters, of which the first and each `share`th after it belong to `make test`."""
    return [pytest.param(case, marks=pytest.mark.soak) if number % share else case for number, case in enumerate(cases)]


def on_seeds(few: int, many: int, *known: int) -> Callable[[Callable[[int], None]], Callable[[int], None]]:
    """Runs a test of a seed on the `known` ones and on `few` random ones in `make test`, on `many` in the soak."""

    def decorate(test: Callable[[int], None]) -> Callable[[int], None]:
        @pytest.mark.parametrize("times", [few, pytest.param(many, marks=pytest.mark.soak)])
        def run(times: int) -> None:
            asked = given(st.integers(0, 1 << 40))(test)
            for seed in known:
                asked = example(seed)(asked)
            settings(max_examples=times, deadline=None)(asked)()

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate
