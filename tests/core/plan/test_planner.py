"""Whole lives of small sites, with everything that must hold looked at after each call of the planner.

What that is stands in audit.py: no node over capacity and every profile exact; what was granted hard neither moved nor
shortened (unless it is preemptible and has begun); all members or none; a promised start kept unless a hard demand took
it; nothing waiting that could start; no work lost, none done twice; suspensions in time, worth their while, and only
for somebody who comes.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.core.plan.model import Life, Members, Scenario, Wish, equal_nodes, simple, starts
from tests.core.plan.worlds import anything, plain, seeded, shrinking
from vws.core.plan.demand import Demand, Part
from vws.core.plan.planner import DONE, GIVE_UP, GO_ON, SAVE, Planner
from vws.core.plan.profile import Amount
from vws.core.plan.rules import NOBODYS, UNLIMITED, Rules

QUICK = settings(deadline=None, suppress_health_check=list(HealthCheck))
SOAK = settings(QUICK, max_examples=40_000)


@QUICK
@given(shrinking(plain) | seeded(plain))
def test_everything_holds_where_a_member_has_its_node_alone(scenario: Scenario):
    Life(scenario).live()


@QUICK
@given(shrinking(anything) | seeded(anything))
def test_everything_holds_on_any_site(scenario: Scenario):
    Life(scenario).live()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("build", [plain, anything])
def test_everything_holds_at_length(build):
    @SOAK
    @given(seeded(build))
    def lives(scenario: Scenario) -> None:
        Life(scenario).live()

    lives()


@QUICK
@given(seeded(anything))
def test_the_same_life_is_planned_the_same(scenario: Scenario):
    assert Life(scenario, audited=False).live().log == Life(scenario, audited=False).live().log


@QUICK
@given(seeded(lambda random: plain(random, bookings=1, backfill=True)))
def test_a_booking_that_is_left_alone_would_be_placed_where_it_is(scenario: Scenario):
    assert Life(scenario, audited=False).live().log == Life(scenario, audited=False, shortcut=False).live().log


def without_hard(bookings: int):
    return lambda random: plain(random, hard=False, bookings=bookings, backfill=True, suspend=NOBODYS)


@pytest.mark.parametrize("bookings", [1, UNLIMITED])
def test_nobody_starves(bookings):
    """However much goes ahead of it: whoever is first in the queue starts once all that runs has ended."""

    @QUICK
    @given(seeded(without_hard(bookings)))
    def lives(scenario: Scenario) -> None:
        order = sorted(range(len(scenario.wishes)), key=lambda number: (scenario.wishes[number].submit, number))
        longest = max(wish.requested for wish in scenario.wishes)
        began = starts(Life(scenario).live(), [f"d{number}" for number in order])
        for ahead, (number, start) in enumerate(zip(order, began, strict=True)):
            assert start - scenario.wishes[number].submit <= (ahead + 1) * longest

    lives()


def test_a_promised_start_is_kept_whoever_comes_after():
    """Two of three nodes are taken until 100: who wants all three is promised 100, and small ones come on and on."""
    wishes = (simple(0, 2, 100), simple(1, 3, 10), *(simple(second, 1, 95) for second in range(2, 60, 5)))
    life = Life(Scenario(equal_nodes(3), wishes, {"bookings": 1, "suspend": NOBODYS})).live()
    assert starts(life, ["d0", "d1", "d2"]) == [0, 100, 2]


def test_a_suspension_has_ended_when_the_reservation_begins():
    """100 MiB at 50 MiB/s: two seconds before 30 it stops, afterwards it has the rest of its hundred seconds."""
    life = Life(Scenario(equal_nodes(1), (simple(0, 1, 100), simple(5, 1, 10, ahead=25)))).live()
    saves = [(now, end) for now, kind, id, *_, end, _, _ in life.log if kind == SAVE and id == "d0"]
    assert saves == [(28, 30)]
    assert [now for now, kind, id, *_ in life.log if kind == DONE] == [40, 40 + 2 + 72]


def test_work_is_lost_only_where_it_may_be():
    kept = Scenario(equal_nodes(1), (simple(0, 1, 50), simple(5, 1, 10, ahead=5)), {"suspend": NOBODYS})
    lost = Scenario(
        equal_nodes(1), (simple(0, 1, 50, restartable=True), simple(5, 1, 10, ahead=5)), {"suspend": NOBODYS}
    )
    assert Life(kept).live().granted == [True, False]
    life = Life(lost).live()
    assert life.granted == [True, True]
    assert [(now, id) for now, kind, id, *_ in life.log if kind in (GIVE_UP, DONE)] == [
        (10, "d0"),
        (20, "d1"),
        (70, "d0"),
    ]


def test_a_node_that_was_to_be_taken_and_is_not_lets_its_lease_run_on():
    """The reservation for which it was to be saved is withdrawn: it is not saved."""
    life = Life(Scenario(equal_nodes(1), (simple(0, 1, 100), simple(5, 1, 10, ahead=45, withdrawn_after=20)))).live()
    assert [kind for _, kind, id, *_ in life.log if kind in (SAVE, GO_ON) and id == "d0"] == [GO_ON]
    assert [now for now, kind, id, *_ in life.log if kind == DONE and id == "d0"] == [100]


def test_what_is_refused_changes_nothing_and_says_so():
    planner = Planner([Amount(1, 100)], Rules())
    first = Demand("first", 0, 0, [Part(1, Amount(1, 100))], 10, at=5)
    second = Demand("second", 1, 0, [Part(1, Amount(1, 100))], 10, at=14)
    late = Demand("late", 2, 0, [Part(1, Amount(1, 100))], 10, by=20)
    assert planner.arrive(first, 0)
    before = [*planner.timeline.profiles[0].times], [*planner.timeline.profiles[0].free]
    assert not planner.arrive(second, 0)
    assert not planner.arrive(late, 0)
    assert (planner.timeline.profiles[0].times, planner.timeline.profiles[0].free) == before
    assert list(planner.demands) == ["first"]


def test_who_can_never_be_placed_keeps_nobody_from_a_promise():
    """Its node may have been closed; whoever comes after it is promised a start all the same."""
    planner = Planner([Amount(1, 100)] * 2, Rules(bookings=1, suspend=NOBODYS))
    for number, count in enumerate((2, 3, 2)):
        planner.arrive(Demand(f"d{number}", number, 0, [Part(count, Amount(1, 100))], 50), 0)
    planner.fill(0)
    assert [demand.id for demand in planner.queue] == ["d1"]
    assert [(demand.id, demand.block.begin) for demand in planner.booked] == [("d2", 50)]


A, B = Amount(1, 100), Amount(2, 200)
FOUND = {
    "killed while it is still being prepared": Scenario(
        (Amount(1, 800, 17, 1, 2), Amount(4, 800, 18, 3, 3), Amount(3, 400, 13, 1, 3), Amount(2, 400, 7, 1, 1)),
        (
            Wish(0, (Members(4, Amount(2, 200, 0, 1)),), 1, restartable=True, prepare_s=3),
            Wish(1, (Members(2, Amount(1, 0, 5, 1, 0)),), 1, ahead=0),
        ),
    ),
    "killed after it was resumed, and still counted as running until then": Scenario(
        equal_nodes(1),
        (
            simple(0, 1, 1, ahead=52),
            simple(15, 1, 52, restartable=True),
            simple(53, 1, 1, ahead=18),
            simple(55, 1, 1),
        ),
        {"setbacks_max": 1},
    ),
    "its work is done and it only shuts down when the reservation begins": Scenario(
        equal_nodes(1), (simple(0, 1, 20, shutdown_s=10), simple(1, 1, 5, ahead=24))
    ),
    "no room for its shutdown, so saved with its work done": Scenario(
        equal_nodes(1), (simple(0, 1, 30, shutdown_s=15), simple(0, 1, 5, ahead=40))
    ),
    "saved members on one node take their turns: the block was useless": Scenario(
        (Amount(3, 800, 11, 4, 3),),
        (Wish(3, (Members(2, Amount(0, 300)),), 22), Wish(0, (Members(2, Amount(0, 100, 1)),), 1, ahead=24)),
        {"useful": 0.5},
    ),
    "CPUs are free while memory is written": Scenario(
        (Amount(2, 400, 0, 0, 4),),
        (
            Wish(0, (Members(1, Amount(2, 300)),), 100),
            Wish(1, (Members(1, Amount(2, 400)),), 10, ahead=60),
            Wish(50, (Members(1, Amount(2, 0)),), 2),
        ),
        {"bookings": 0, "useful": 0.5},
    ),
    "the head of a strict queue is withdrawn": Scenario(
        equal_nodes(2),
        (simple(0, 1, 50), simple(1, 2, 10, withdrawn_after=10), simple(2, 1, 10)),
        {"bookings": 0, "backfill": False},
    ),
    "another comes in the same second and is first in turn in a strict queue": Scenario(
        equal_nodes(3), (simple(0, 1, 50), simple(12, 1, 5, turn=12), simple(12, 1, 5, turn=0)), {"backfill": False}
    ),
    "a booking begins without anything ending, and the next has no promise": Scenario(
        equal_nodes(3),
        (
            simple(44, 1, 2),
            simple(1, 3, 1),
            simple(44, 2, 2),
            simple(0, 3, 41, runs=40, ahead=44),
            simple(44, 1, 3),
            simple(0, 1, 45),
        ),
        {"bookings": 2},
    ),
    "two parts that fit together only later than each of them does": Scenario(
        (Amount(4, 600, 10, 3, 6),),
        (
            Wish(0, (Members(1, Amount(1, 0, 3)),), 1, ahead=56),
            Wish(1, (Members(1, Amount(0, 200, 0, 1)), Members(1, Amount(1, 300, 3))), 1),
            Wish(0, (Members(2, Amount(0, 100, 1)),), 56),
        ),
    ),
    "several members leave one node, which takes several rounds": Scenario(
        (Amount(2, 200, 0, 0, 2), Amount(2, 200, 0, 0, 2)),
        (
            Wish(0, (Members(2, A, eligible=(True, True)),), 60, preemptible=True),
            Wish(0, (Members(1, B, eligible=(False, True)),), 30, preemptible=False),
            Wish(1, (Members(1, B, eligible=(True, False)),), 500, ahead=20),
        ),
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_once_went_wrong(name: str):
    Life(FOUND[name]).live()


def test_two_parts_begin_as_soon_as_both_fit():
    life = Life(FOUND["two parts that fit together only later than each of them does"]).live()
    assert starts(life, ["d1"]) == [56]


def test_members_that_share_a_node_move_away_together():
    """Their node is taken for long; the other has room: both go there, one after the other."""
    life = Life(FOUND["several members leave one node, which takes several rounds"]).live()
    assert life.demands["d0"].migrations == 2
    assert next(now for now, kind, id, *_ in life.log if kind == DONE and id == "d0") < 200
