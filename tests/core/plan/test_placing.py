"""Where saved members go: rounds of transfers against real edge colourings, and members that stay where they were."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.core.plan.audit import fewest_rounds
from vws.core.plan.demand import Part
from vws.core.plan.placing import matched, transfers
from vws.core.plan.profile import Amount

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8)


@given(pairs)
def test_so_many_rounds_are_enough_and_no_more_than_the_theorems_say(moves):
    count, rounds = transfers([old for old, _ in moves], [new for _, new in moves])
    real = [(old, new) for old, new in moves if old != new]
    busiest = max(Counter(node for move in real for node in move).values(), default=0)
    assert count == len(real)
    assert fewest_rounds(real) <= rounds <= max(busiest * 3 // 2, busiest)
    if {old for old, _ in real}.isdisjoint(new for _, new in real):
        assert rounds == fewest_rounds(real)


def test_three_nodes_that_swap_two_members_each_need_six_rounds():
    """The triangle with doubled edges: one more round than the busiest node has transfers would be too few."""
    moves = [(0, 1), (0, 1), (1, 2), (1, 2), (2, 0), (2, 0)]
    assert fewest_rounds(moves) == 6
    assert transfers([old for old, _ in moves], [new for _, new in moves]) == (6, 6)


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=3).flatmap(
        lambda counts: st.tuples(
            st.just(counts),
            st.lists(st.integers(0, 4), min_size=sum(counts), max_size=sum(counts)),
            st.lists(st.integers(0, 4), min_size=sum(counts), max_size=sum(counts)),
        )
    )
)
def test_within_a_part_as_many_stay_as_can(drawn):
    counts, saved_on, hosts = drawn
    found = matched([Part(count, Amount(1, 1)) for count in counts], saved_on, hosts)
    first = 0
    for count in counts:
        old, new, got = (each[first : first + count] for each in (saved_on, hosts, found))
        assert Counter(got) == Counter(new)
        assert sum(a == b for a, b in zip(old, got, strict=True)) == (Counter(old) & Counter(new)).total()
        first += count
