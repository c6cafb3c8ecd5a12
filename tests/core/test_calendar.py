"""The picture of a plan: lanes, windows, groups, colours, JSON."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vws.core.calendar import (
    ROOMLESS,
    Bar,
    Calendar,
    Step,
    calendar_from_json,
    calendar_to_json,
    colours,
    grouped,
    is_planned,
    rows,
    share_in_use,
    spanning,
    window,
)
from vws.core.errors import InvalidRequest


def bar(start: int, end: int, lease: str = "a", step: Step = Step.RUN, node: str = "n1", workspace: str = "") -> Bar:
    return Bar(node, start, end, step, lease, lease, "best-effort", workspace=workspace)


def lanes_of(*bars: Bar) -> dict[tuple[int, str], int]:
    (row,) = rows(spanning("", ["n1"], bars))
    return {(b.start, b.lease): lane for b, lane in zip(row.bars, row.lane_of, strict=True)}


def test_what_overlaps_lies_in_lanes_and_what_does_not_shares_one():
    assert lanes_of(bar(0, 10, "a"), bar(5, 20, "b"), bar(10, 30, "c")) == {(0, "a"): 0, (5, "b"): 1, (10, "c"): 0}


def test_a_workspace_stays_in_its_lane_from_step_to_step():
    steps = (bar(5, 10, "z", Step.BOOT), bar(10, 30, "z"), bar(30, 35, "z", Step.SUSPEND))
    found = lanes_of(bar(0, 10, "a"), *steps, bar(10, 12, "b"))
    assert {found[5, "z"], found[10, "z"], found[30, "z"]} == {1}
    assert found[10, "b"] == 0


def test_a_resumed_lease_returns_to_its_lane_and_saved_memory_takes_no_room():
    found = lanes_of(
        bar(0, 10, "soft"),
        bar(10, 12, "soft", Step.SUSPEND),
        bar(12, 30, "soft", Step.SAVED),
        bar(12, 30, "hard"),
        bar(30, 32, "soft", Step.RESUME),
    )
    assert set(found.values()) == {0}


def test_data_lies_along_the_lane_of_its_workspace():
    found = lanes_of(
        bar(0, 40, "a"), bar(5, 10, "b", Step.STAGE), bar(10, 30, "b"), bar(12, 20, "c", Step.MIGRATE), bar(50, 60, "c")
    )
    assert found == {(0, "a"): 0, (5, "b"): 1, (10, "b"): 1, (12, "c"): 0, (50, "c"): 0}


def test_maintenance_takes_no_lane():
    assert lanes_of(bar(0, 10, "m", Step.MAINTENANCE), bar(0, 10, "a")) == {(0, "m"): 0, (0, "a"): 0}


times = st.tuples(st.integers(0, 60), st.integers(1, 20), st.sampled_from("abcdef"), st.sampled_from(list(Step)))


@given(st.lists(times, max_size=25))
def test_no_two_bars_of_a_lane_overlap_and_no_lane_is_more_than_is_needed(drawn):
    bars = [bar(start, start + length, lease, step) for start, length, lease, step in drawn]
    (row,) = rows(spanning("", ["n1"], bars))
    assert sorted(map(repr, row.bars)) == sorted(map(repr, bars))
    taking = [(b, lane) for b, lane in zip(row.bars, row.lane_of, strict=True) if b.step not in ROOMLESS]
    for i, (one, its) in enumerate(taking):
        assert not any(its == lane and one.start < b.end and b.start < one.end for b, lane in taking[:i])
    peak = max((sum(b.start <= t < b.end for b, _ in taking) for t in range(81)), default=0)
    assert row.lanes == max(peak, 1)


def test_the_lanes_do_not_depend_on_the_order_of_the_bars():
    bars = [bar(0, 10, "a"), bar(5, 20, "b"), bar(10, 30, "c"), bar(0, 5, "d")]
    assert rows(spanning("", ["n1"], bars)) == rows(spanning("", ["n1"], reversed(bars)))


def test_a_window_keeps_what_touches_it_and_whole_times():
    whole = spanning("", ["n1", "n2"], [bar(0, 10), bar(10, 20), bar(20, 30), bar(12, 15, node="n2")])
    part = window(whole, 10, 20, ["n1"])
    assert (part.nodes, part.start, part.end) == (("n1",), 10, 20)
    assert [(b.start, b.end) for b in part.bars] == [(10, 20)]
    assert [b.start for b in window(whole, 5, 12).bars] == [0, 10]


@pytest.mark.parametrize(("start", "end", "nodes", "field"), [(5, 5, [], "end"), (0, 5, ["n9"], "node")])
def test_a_window_that_makes_no_sense_is_refused(start, end, nodes, field):
    with pytest.raises(InvalidRequest) as refused:
        window(spanning("", ["n1"], []), start, end, nodes)
    assert refused.value.field == field


def test_a_calendar_is_as_long_as_its_bars_and_its_present():
    assert (spanning("", [], [bar(5, 9)], now=20).start, spanning("", [], [bar(5, 9)], now=20).end) == (5, 20)
    empty = spanning("", ["n1"], [])
    assert empty.end > empty.start


def test_what_has_not_begun_is_planned():
    assert [is_planned(bar(start, 50), 10) for start in (9, 10, 11)] == [False, False, True]
    assert not is_planned(bar(11, 50), None)


def test_a_colour_is_the_leases_own_and_not_its_neighbours():
    ids = [f"lse-{i:04}" for i in range(600)]
    of = colours(ids, 12)
    assert min(list(of.values()).count(c) for c in range(12)) > 25
    for earlier, later in pairwise(ids):
        assert (of[later] - of[earlier]) % 12 not in (11, 0, 1)
    assert all(len({of[id] for id in ids[i : i + 5]}) == 5 for i in range(590))
    assert colours(reversed(ids), 12) == of
    without = colours(ids[40:], 12)
    assert [id for id in ids[200:] if without[id] != of[id]] == []


def test_nodes_are_grouped_when_there_are_too_many():
    nodes = [f"n{i}" for i in range(10_000)]
    groups = grouped(nodes, 40)
    assert [len(groups), len(groups[0]), groups[-1][-1]] == [40, 250, "n9999"]
    assert grouped(nodes[:3], 40) == (("n0",), ("n1",), ("n2",))
    assert grouped([], 40) == ()


def test_the_share_in_use_counts_a_node_once():
    bars = [bar(0, 10), bar(5, 10, "b"), bar(0, 5, node="n2"), bar(0, 20, "s", Step.SAVED), bar(-50, 2, node="n3")]
    assert share_in_use(bars, 4, 0, 20, 4) == pytest.approx([(5 + 5 + 2) / 20, 5 / 20, 0, 0])


@given(st.lists(times, max_size=25), st.integers(1, 30))
def test_the_shares_add_up_to_the_time_in_use(drawn, cells):
    bars = [bar(start, start + length, lease, step) for start, length, lease, step in drawn]
    taken = sum(any(b.start <= t < b.end for b in bars if b.step not in ROOMLESS) for t in range(7, 61))
    assert sum(share_in_use(bars, 1, 7, 61, cells)) * 54 / cells == pytest.approx(taken)


def test_json_and_back():
    whole = Calendar("site", ("n1",), (bar(0, 10), bar(10, 20, step=Step.SUSPEND)), 0, 20, 5, virtual=True)
    assert calendar_from_json(json.loads(json.dumps(calendar_to_json(whole)))) == whole


def test_json_that_is_no_calendar_is_refused_by_field():
    broken = calendar_to_json(spanning("", ["n1"], [bar(0, 10)]))
    broken["bars"][0]["step"] = "fly"
    with pytest.raises(InvalidRequest, match=r"Calendar\.bars\[0\]\.step"):
        calendar_from_json(broken)
