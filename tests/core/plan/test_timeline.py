"""The timeline's answers against looking at every second of every node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.core.plan.naive import HORIZON, Seconds, first_moment, open_count
from vws.core.plan.demand import Block, Part
from vws.core.plan.profile import FOREVER, Amount
from vws.core.plan.timeline import Timeline, first_open_until, node_of, until_of

CAPACITIES = [Amount(4, 8, 0, 0, 4), Amount(2, 8, 0, 0, 2), Amount(4, 4, 0, 0, 4)]
sizes = st.builds(Amount, st.integers(0, 2), st.integers(0, 4))
masks = st.none() | st.lists(st.booleans(), min_size=3, max_size=3)
kinds = st.sampled_from([{}, {"apart": True}, {"together": True}])
parts = st.builds(
    lambda count, size, kind, eligible: Part(count, size, eligible=eligible, **kind),
    st.integers(1, 4), sizes, kinds, masks,
)  # fmt: skip
holds = st.lists(
    st.tuples(st.integers(0, 2), sizes, st.integers(0, HORIZON - 1), st.integers(0, HORIZON - 1)), max_size=10
)
opens = st.lists(st.booleans(), min_size=3, max_size=3)


def loaded(holding, is_open) -> tuple[Timeline, list[Seconds]]:
    timeline, nodes = Timeline(CAPACITIES), [Seconds(capacity) for capacity in CAPACITIES]
    for node, size, start, end in holding:
        timeline.profiles[node].take(size, start, end)
        nodes[node].take(size, start, end)
    timeline.open = is_open
    timeline.changed()
    return timeline, nodes


@given(holds, opens, parts, st.integers(0, HORIZON))
def test_openings_are_counted_right_for_every_end(holding, is_open, part, at):
    timeline, nodes = loaded(holding, is_open)
    found = timeline.openings(part, at)
    assert found == sorted(found)
    for end in [*range(at + 1, HORIZON + 2), FOREVER]:
        count = open_count(nodes, is_open, part, at, end - at)
        assert len(found) - first_open_until(found, end) == count
        assert sum(until_of(opening) >= end for opening in found) == count
    for opening in found:
        node = node_of(opening)
        assert is_open[node]
        assert part.eligible is None or part.eligible[node]


@given(holds, opens, parts, st.integers(0, HORIZON), st.integers(1, HORIZON))
def test_the_earliest_moment_is_the_first_second_that_will_do(holding, is_open, part, after, duration):
    timeline, nodes = loaded(holding, is_open)
    assert timeline.earliest(part, after, duration) == first_moment(nodes, is_open, part, after, duration)


@given(holds, opens, parts, st.integers(0, HORIZON), st.integers(1, HORIZON))
def test_moments_all_will_do_and_none_before_which_more_opens_is_left_out(holding, is_open, part, after, duration):
    timeline, nodes = loaded(holding, is_open)
    moments = timeline.moments(part, after, duration, 1000)
    counts = [open_count(nodes, is_open, part, second, duration) for second in range(after, HORIZON + 2)]
    needed = part.openings_needed
    for moment in moments:
        assert moment >= after
        assert open_count(nodes, is_open, part, moment, duration) >= needed
    for second, (before, count) in enumerate(zip([-1, *counts], counts, strict=False), start=after):
        if count > before and count >= needed:
            assert second in moments
    assert moments == sorted(set(moments))
    assert timeline.moments(part, after, duration, 2) == moments[:2]


questions = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 2), st.integers(0, 6)),
        st.tuples(st.just("lay"), st.integers(0, 2), st.integers(0, 6)),
        st.tuples(st.just("lift"), st.integers(0, 2), st.integers(0, 6)),
        st.tuples(st.just("close"), st.integers(0, 2), st.integers(0, 6)),
    ),
    max_size=20,
)


@given(questions, st.lists(parts, min_size=3, max_size=3))
def test_a_kept_answer_is_a_fresh_one(asked, chosen):
    """Many ask the same in a row; whatever is laid, lifted or closed between them, the answer is the present's."""
    timeline = Timeline(CAPACITIES)
    one = [Part(1, Amount(1, 2))]
    laid: list[Block] = []
    for what, index, at in asked:
        if what == "lay":
            laid.append(Block([index], at, at, at, at + 9, at + 9))
            timeline.lay(one, laid[-1], 0)
        elif what == "lift" and laid:
            timeline.lift(one, laid.pop(), 0)
        elif what == "close":
            timeline.open[index] = not timeline.open[index]
            timeline.changed()
        fresh = Timeline(CAPACITIES)
        fresh.profiles, fresh.open = timeline.profiles, timeline.open
        part = chosen[index]
        assert timeline.openings(part, at) == fresh.openings(part, at)


blocks = st.builds(
    lambda hosts, times, restores, saves: (hosts, sorted(times), restores, saves),
    st.lists(st.integers(0, 2), min_size=3, max_size=3),
    st.lists(st.integers(0, HORIZON - 1), min_size=5, max_size=5),
    st.booleans(), st.booleans(),
)  # fmt: skip


@given(blocks, st.integers(0, HORIZON - 1), st.integers(0, HORIZON - 1))
def test_a_block_takes_what_its_steps_occupy_and_gives_it_back(given_block, one, other):
    """CPUs while it runs, prepares or shuts down; but memory, disk and a place while that is moved, read or written."""
    hosts, (begin, moved, run, stop, end), restores, saves = given_block
    laid_at, lifted_at = sorted((one, other))
    held = [Part(2, Amount(1, 2, 0, 0)), Part(1, Amount(2, 3, 0, 0))]
    block = Block(hosts, begin, moved, run, stop, end)
    block.restores, block.saves = restores, saves
    timeline, nodes = Timeline(CAPACITIES), [Seconds(capacity) for capacity in CAPACITIES]
    timeline.lay(held, block, laid_at)
    for second in range(begin, end):
        idle = second < (run if restores else moved) or (saves and second >= stop)
        for size, host in zip([held[0].size, held[0].size, held[1].size], hosts, strict=True):
            nodes[host].take(Amount(0, size.memory_mib) if idle else size, second, second + 1)
    for node, profile in enumerate(timeline.profiles):
        assert [profile.free_at(s) for s in range(laid_at, HORIZON)] == nodes[node].free[laid_at:HORIZON]
    timeline.lift(held, block, lifted_at)
    for profile in timeline.profiles:
        assert {repr(profile.free_at(s)) for s in range(lifted_at, HORIZON)} == {repr(profile.capacity)}
