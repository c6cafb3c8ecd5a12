"""[planning] of site.toml becomes the planner's rules."""

from __future__ import annotations

import pytest

from vws.core.errors import InvalidRequest
from vws.core.plan.rules import ANYBODYS, UNLIMITED
from vws.planning import PlanningConfig, rules_of


def test_what_is_not_said_is_easy_backfilling_with_suspension():
    rules = rules_of(PlanningConfig())
    assert (rules.bookings, rules.backfill, rules.suspend) == (1, True, ANYBODYS)


@pytest.mark.parametrize(
    ("backfill", "bookings", "goes_ahead"),
    [
        ("off", 0, False),
        ("easy", 1, True),
        ("conservative", UNLIMITED, True),
        ("4", 4, True),
        ("0", 0, False),
        ("00", 0, False),
    ],
)
def test_backfilling_is_named_or_counted(backfill, bookings, goes_ahead):
    rules = rules_of(PlanningConfig(backfill=backfill))
    assert (rules.bookings, rules.backfill) == (bookings, goes_ahead)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backfill", "eager"),
        ("backfill", "-1"),
        ("backfill", "9" * 30),
        ("backfill", "9" * 5000),
        ("backfill", "٣"),
        ("backfill", ""),
        ("suspend", "some"),
        ("patience_h", -1.0),
        ("useful", float("nan")),
        ("setbacks_max", -1),
        ("spared_after_h", 1e9),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(key, value):
    with pytest.raises(InvalidRequest) as refused:
        rules_of(PlanningConfig(**{key: value}))
    assert refused.value.field == f"planning.{key}"
    assert refused.value.possible
