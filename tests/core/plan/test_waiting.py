"""Who waits, by what would have to be open for him: the groups tell what asking each by himself does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vws.core.plan.demand import Demand, Part
from vws.core.plan.planner import Planner, in_turn
from vws.core.plan.profile import Amount
from vws.core.plan.rules import Rules

SIZES = [Amount(1, 1024), Amount(2, 1024), Amount(4, 8192)]
HOLDERS = st.tuples(st.integers(0, 3), st.sampled_from(SIZES), st.integers(1, 500))
ASKS = st.tuples(
    st.sampled_from(SIZES), st.integers(1, 4), st.integers(1, 600), st.booleans(), st.booleans(), st.booleans()
)


def waiting(number: int, size: Amount, count: int, seconds: int, apart: bool, preemptible: bool, pair: bool) -> Demand:
    parts = [Part(count, size, apart=apart), Part(1, SIZES[0])] if pair else [Part(count, size, apart=apart)]
    return Demand(f"d{number}", number, 0, parts, seconds, preemptible=preemptible, turn=float(number % 3))


@given(st.lists(HOLDERS, max_size=12), st.lists(ASKS, max_size=20), st.data())
def test_those_whom_it_may_be_enough_for_are_found_without_asking_each(holders, asks, data):
    planner = Planner([Amount(4, 8192, places=8) for _ in range(4)], Rules())
    for node, size, until in holders:
        planner.timeline.profiles[node].take(size, 0, until)
        planner.timeline.touch(node)
    demands = [waiting(number, *each) for number, each in enumerate(asks)]
    for demand in demands:
        planner._enqueue(demand)
    planner.waiting.hopeful(planner._capacity, 0)
    gone = data.draw(st.sets(st.sampled_from(demands))) if demands else set()
    for demand in gone:
        assert planner._leave(demand)
        assert not planner._leave(demand)
    left = [demand for demand in demands if demand not in gone]
    assert planner.queue == sorted(left, key=in_turn)
    free = Amount(8, 1 << 20, places=32)
    one_by_one = {d.id for d in left if d.total.fits_in(free) and not planner.placing.is_hopeless(d, 0)}
    assert {demand.id for demand in planner.waiting.hopeful(free, 0)} == one_by_one


@pytest.mark.parametrize(("seconds", "may"), [(100, True), (101, False)])
def test_a_block_must_be_as_long_as_what_is_open(seconds, may):
    planner = Planner([Amount(1, 1024)], Rules())
    planner.timeline.profiles[0].take(Amount(1, 1024), 100, 200)
    planner.timeline.touch(0)
    demand = waiting(1, SIZES[0], 1, seconds, False, False, False)
    planner._enqueue(demand)
    assert planner.waiting.hopeful(planner._capacity, 0) == ([demand] if may else [])
