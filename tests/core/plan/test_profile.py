"""A node's free room over time against the same kept second by second."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.plan.naive import HORIZON, Seconds
from vws.core.plan.profile import FOREVER, NODE_BITS, NODE_MASK, Amount, Profile

CAPACITY = Amount(4, 8, 6, 3, 4)
amounts = st.builds(Amount, *(st.integers(0, most) for most in (4, 8, 6, 3, 2)))
intervals = st.tuples(st.integers(0, HORIZON - 1), st.integers(0, HORIZON - 1))
holds = st.lists(st.tuples(amounts, intervals, st.booleans()), max_size=12)


def loaded(holding: list[tuple[Amount, tuple[int, int], bool]]) -> tuple[Profile, Seconds]:
    """Both kinds with the same taken; those marked are given back."""
    profile, seconds = Profile(CAPACITY), Seconds(CAPACITY)
    for amount, (start, end), _ in holding:
        profile.take(amount, start, end)
        seconds.take(amount, start, end)
    for amount, (start, end), returned in holding:
        if returned:
            profile.give(amount, start, end)
            seconds.give(amount, start, end)
    return profile, seconds


@given(holds)
def test_every_second_has_what_is_left_of_it(holding):
    profile, seconds = loaded(holding)
    assert [profile.free_at(second) for second in range(HORIZON + 1)] == seconds.free


@given(holds)
def test_steps_are_in_order_and_no_two_neighbours_are_equal(holding):
    profile, _ = loaded(holding)
    assert profile.times[0] == 0
    assert profile.times == sorted(set(profile.times))
    assert len(profile.free) == len(profile.times)
    assert all(left != right for left, right in zip(profile.free, profile.free[1:], strict=False))


@given(holds)
def test_all_given_back_is_whole_again(holding):
    profile, _ = loaded(holding)
    for amount, (start, end), returned in reversed(holding):
        if not returned:
            profile.give(amount, start, end)
    assert (profile.times, profile.free) == ([0], [CAPACITY])


@given(holds, st.integers(0, HORIZON))
def test_forgetting_the_past_changes_nothing_from_then_on(holding, now):
    profile, seconds = loaded(holding)
    profile.forget(now)
    assert [profile.free_at(second) for second in range(now, HORIZON + 1)] == seconds.free[now:]
    assert len([time for time in profile.times if time <= now]) == 1


@given(holds, amounts, amounts)
def test_another_capacity_changes_every_second_by_the_difference(holding, before, after):
    profile, seconds = loaded(holding)
    profile.resize(before)
    profile.resize(after)
    change = after.minus(CAPACITY)
    assert [profile.free_at(second) for second in range(HORIZON + 1)] == [free.plus(change) for free in seconds.free]


@given(holds, amounts, st.integers(0, HORIZON), st.integers(0, HORIZON + 5))
def test_how_long_one_has_room(holding, size, at, end):
    profile, seconds = loaded(holding)
    expected = seconds.until(size, at)
    assert profile.until(size, at, FOREVER) == expected
    if end >= at:
        assert profile.until(size, at, end) == min(expected, end)
        assert profile.fits(size, at, end) == (expected >= end)


@given(holds, amounts, st.integers(0, HORIZON), st.integers(1, 5))
def test_openings_are_so_many_as_fit_until_each_moment(holding, size, at, most):
    profile, seconds = loaded(holding)
    found: list[int] = []
    profile.openings(size, at, 7, most, found)
    assert {opening & NODE_MASK for opening in found} <= {7}
    untils = [opening >> NODE_BITS for opening in found]
    for end in [*range(at + 1, HORIZON + 2), FOREVER]:
        assert sum(until >= end for until in untils) == seconds.count(size, at, end, most), end


@given(holds, amounts, st.integers(0, HORIZON), st.integers(1, HORIZON), st.integers(1, 5))
def test_windows_open_where_a_block_of_that_length_could_begin(holding, size, after, duration, most):
    profile, seconds = loaded(holding)
    opens: list[int] = []
    closes: list[int] = []
    profile.windows(size, after, duration, most, opens, closes)
    for start in range(after, HORIZON + 1):
        fitting = sum(opened <= start for opened in opens) - sum(closed <= start for closed in closes)
        assert fitting == seconds.count(size, start, start + duration, most), start


@given(amounts, amounts, st.integers(1, 6))
def test_how_many_of_a_size_fit(size, free, most):
    fitting = [n for n in range(most + 1) if size.times(n).fits_in(free)]
    assert size.count_in(free, most) == max(fitting, default=0)


@given(amounts, amounts)
def test_amounts_are_equal_when_all_of_them_is(one, other):
    assert (one == other) == (hash(one) == hash(other) and repr(one) == repr(other))
    assert one.plus(other).minus(other) == one


@pytest.mark.parametrize("short", ["cpus", "memory_mib", "disk_mib", "bandwidth_mbit", "places"])
def test_each_resource_can_be_the_one_that_is_short(short):
    profile = Profile(Amount(4, 4, 4, 4, 4))
    taken = {"cpus": 0, "memory_mib": 0, "disk_mib": 0, "bandwidth_mbit": 0, "places": 0} | {short: 3}
    profile.take(Amount(**taken), 10, 20)
    size = Amount(2, 2, 2, 2, 2)
    assert profile.until(size, 0, FOREVER) == 10
    assert not profile.fits(size, 19, 20)
    assert profile.fits(size, 20, FOREVER)
