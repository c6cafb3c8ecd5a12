"""What goes together in a request for a lease, and what does not: each refusal names the field."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from vws.core.errors import InvalidRequest
from vws.core.terms import (
    AHEAD_S_MAX,
    COMMAND_LENGTH_MAX,
    Exceptions,
    GroupRequest,
    LeaseRequest,
    When,
    check_request,
)

NOW = 1_800_000_000  # Friday, 2027-01-15 08:00 UTC
HOUR_S = 3600

NOWADAYS = LeaseRequest((GroupRequest("demo"),), HOUR_S)
RESERVED = replace(NOWADAYS, when=When.RESERVATION, start=NOW + 60)
QUEUED = replace(NOWADAYS, when=When.BEST_EFFORT)
BY = replace(NOWADAYS, when=When.DEADLINE, deadline=NOW + 2 * HOUR_S)
DAILY = replace(NOWADAYS, when=When.PERIODIC, rule="FREQ=DAILY;BYHOUR=9", until=NOW + 7 * 86400)


def refused(request: LeaseRequest) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        check_request(request, now=NOW)
    assert error.value.possible, "a refusal says what would be accepted"
    return error.value


@pytest.mark.parametrize(
    "request_",
    [
        NOWADAYS,
        replace(NOWADAYS, urgent=True, preemptible=True),
        RESERVED,
        replace(RESERVED, start=NOW, preemptible=True),
        replace(RESERVED, start=NOW + AHEAD_S_MAX),
        QUEUED,
        replace(QUEUED, command="#!/bin/sh\nmake\n", restartable=True, preemptible=True),
        BY,
        replace(BY, deadline=NOW + HOUR_S, command="true"),
        DAILY,
        replace(DAILY, start=NOW + 86400, exceptions=Exceptions.SKIP, zone=ZoneInfo("Europe/Berlin")),
        replace(DAILY, until=None, rule="FREQ=DAILY;COUNT=3"),
        replace(NOWADAYS, groups=(GroupRequest("demo", 3, apart=True, requirement="cpus >= 2"),)),
    ],
)
def test_each_kind_is_taken_as_it_was_asked_for(request_):
    assert check_request(request_, now=NOW) == request_


@pytest.mark.parametrize(
    ("request_", "field", "problem"),
    [
        (replace(NOWADAYS, start=NOW + 60), "start", "start says nothing of immediate leases"),
        (replace(QUEUED, start=NOW + 60), "start", "best-effort"),
        (replace(BY, start=NOW), "start", "deadline"),
        (replace(RESERVED, deadline=NOW + 9 * HOUR_S), "deadline", "reservation"),
        (replace(RESERVED, rule="FREQ=DAILY"), "rule", "reservation"),
        (replace(RESERVED, until=NOW + 9 * HOUR_S), "until", "reservation"),
        (replace(RESERVED, exceptions=Exceptions.SKIP), "exceptions", "reservation"),
        (replace(DAILY, deadline=NOW + 9 * HOUR_S), "deadline", "periodic"),
        (replace(RESERVED, start=None), "start", "reservation leases need a start"),
        (replace(BY, deadline=None), "deadline", "deadline leases need a deadline"),
        (replace(DAILY, rule=""), "rule", "periodic leases need a rule"),
        (replace(RESERVED, start=NOW - 1), "start", "start is 2027-01-15T07:59:59Z, 1s before now"),
        (replace(RESERVED, start=-(10**18)), "start", "before now"),
        (replace(RESERVED, start=NOW + AHEAD_S_MAX + 1), "start", "too far ahead"),
        (replace(RESERVED, start=10**18), "start", "1000000000000000000, too far ahead"),
        (replace(BY, deadline=NOW + HOUR_S - 5), "deadline", "5s before the earliest possible end"),
        (replace(DAILY, until=NOW - 10), "until", "10s before the first start"),
        (replace(DAILY, start=NOW + 86400, until=NOW + 86000), "until", "6m40s before the first start"),
        (replace(DAILY, until=None), "rule", "the rule has no end"),
        (replace(DAILY, rule="FREQ=DAILY;BYHOUR=25"), "rule", "BYHOUR=25 is out of its range"),
        (replace(DAILY, duration_s=86401), "duration_s", "overlap: each lasts 1d1s, and two start 1d apart"),
        (replace(NOWADAYS, command="true"), "command", "not for immediate ones"),
        (replace(DAILY, command="true"), "command", "not for periodic ones"),
        (replace(RESERVED, restartable=True), "restartable", "not for reservation ones"),
        (replace(QUEUED, command="é" * COMMAND_LENGTH_MAX), "command", "32768 bytes"),
        (replace(QUEUED, command="a\0b"), "command", "NUL"),
        (
            replace(NOWADAYS, groups=(GroupRequest("demo"), GroupRequest("demo", name="b", apart=True, together=True))),
            "groups[1].together",
            "both apart and together",
        ),
    ],
)
def test_a_refusal_names_the_field_that_is_in_the_way(request_, field, problem):
    error = refused(request_)
    assert error.field == field
    assert problem in error.problem


def test_a_series_may_touch_but_not_overlap():
    assert check_request(replace(DAILY, duration_s=86400), now=NOW).duration_s == 86400


def test_a_series_leaves_room_in_its_name_for_the_number_of_each():
    assert check_request(replace(DAILY, name="x" * 38), now=NOW).name == "x" * 38
    error = refused(replace(DAILY, name="x" * 39))
    assert (error.field, error.possible) == ("name", "at most 38 characters")


def test_a_clock_that_is_set_forward_makes_a_day_shorter():
    over_spring = replace(DAILY, duration_s=86400, until=NOW + 90 * 86400, zone=ZoneInfo("Europe/Berlin"))
    assert "23h apart" in refused(over_spring).problem


def test_starts_are_those_of_the_rule_on_the_clock_of_its_zone():
    ten_past_eight_utc = 1_800_000_000 + 600
    rule = "FREQ=DAILY;BYHOUR=9;BYMINUTE=10;COUNT=1"
    assert replace(DAILY, rule=rule, zone=ZoneInfo("Europe/Berlin")).starts(NOW) == (ten_past_eight_utc,)
