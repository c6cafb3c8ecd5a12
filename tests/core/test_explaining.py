"""Why a lease is as it is: its place, what it lacks, who holds it, when it comes, who gives way."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.builders import World, node
from tests.core.test_kinds import follow, limited, pass_time, reserve, run_until, soft
from tests.core.test_offers import some_world
from vws.core.explaining import Explanation, explain
from vws.core.maintenance import plan_maintenance
from vws.core.site import Lease, LeaseState
from vws.core.terms import GroupRequest

WHOLE = GroupRequest("demo", cpus=4)


def told(world: World, lease: Lease, reader: str = "ann") -> Explanation:
    return explain(
        world.present, world.present.leases[lease.id], now=int(world.now), knows=lambda owner: owner == reader
    )


def text(explanation: Explanation) -> str:
    return "; ".join(explanation.says)


def test_one_that_is_booked_is_told_its_place_and_its_start():
    world = World(node(1))
    first = soft(world, name="first")
    second = soft(world, name="second")
    third = soft(world, name="third")
    found = told(world, second)
    plan = world.present.leases[second.id].plan
    assert (found.place, found.start) == (0, plan.run)
    assert "nobody is before it" in text(found)
    assert f"it runs {(plan.run - int(world.now)) // 60}m" in text(found)
    assert "on n1" in text(found)
    assert [(other.role, other.name, other.until) for other in found.others] == [
        ("holds", "first", world.present.leases[first.id].plan.end)
    ]
    last = told(world, third)
    assert last.place == 1
    assert "1 lease is before it in turn (second of yours)" in text(last)
    assert last.start > plan.run
    assert "promised no start yet" in text(last)


def test_what_is_missing_is_told_by_members_and_by_node():
    world = World(node(1), node(2), node(3, drained=True))
    soft(world, GroupRequest("demo", cpus=3), name="small")
    soft(world, GroupRequest("demo", cpus=4), name="wide")
    soft(world, GroupRequest("demo", count=2, cpus=4), name="booked")
    wants = soft(world, GroupRequest("demo", count=3, cpus=1), duration_s=60, name="wants")
    assert wants.state is LeaseState.WAITING
    found = told(world, wants)
    assert "It needs room for 3 workspaces; 1 of them have room now and for so long" in text(found)
    reasons = {each["name"]: each["reason"] for each in found.nodes}
    assert reasons["n2"] == "0 CPUs free, 1 needed" or reasons["n1"] == "0 CPUs free, 1 needed"
    assert reasons["n3"] == "it is drained"


def test_of_others_leases_only_their_number_is_told():
    world = World(node(1))
    world.grant(WHOLE, name="hidden", owner="bob")
    follow(world)
    waits = soft(world, name="mine")
    found = told(world, waits)
    assert "1 lease of others" in text(found)
    assert "hidden" not in repr(found)
    assert [(other.lease, other.name) for other in found.others] == [("", "")]
    assert "hidden" in text(told(world, waits, "bob"))


def test_a_reservation_is_told_when_it_is_prepared_and_who_gives_way():
    world = World(node(1))
    victim = soft(world, duration_s=1000, preemptible=True, name="sweep")
    hard = reserve(world, 300, name="lecture")
    found = told(world, hard)
    assert "It is granted, and runs 5m from now on n1" in text(found)
    assert "begins to be prepared" in text(found)
    assert "sweep will give way for it" in text(found)
    assert found.start == hard.start
    assert [(other.role, other.name) for other in found.others] == [("gives-way", "sweep")]

    before = told(world, victim)
    assert "It will be suspended" in text(before)
    assert "for lecture, and goes on when there is room" in text(before)
    assert [(other.role, other.name, other.until) for other in before.others] == [("comes", "lecture", hard.end)]

    run_until(world, hard.start + 60)
    amid = told(world, victim)
    assert "to make room for others" in text(amid)
    assert "of 16m40s are done" in text(amid)
    assert "it goes on" in text(amid)
    assert amid.start == world.present.leases[victim.id].plan.run


def test_one_that_a_limit_can_never_admit_is_told_so():
    """It was admitted, and then the limit was lowered."""
    world = World(node(1), node(2))
    first = soft(world, GroupRequest("demo", count=2, cpus=3))
    waits = soft(world, GroupRequest("demo", count=2, cpus=3))
    limited(world, concurrent=1)
    found = told(world, waits)
    assert "A limit keeps it from ever running, whatever ends before: the user ann may have 1 workspace" in text(found)
    assert "ask for as much as the limit allows; or ask your administrator" in text(found)
    assert (found.start, found.others) == (None, ()), "it is told no start, and nobody holds what it waits for"
    run_until(world, first.end + 100)
    assert world.present.leases[waits.id].state is LeaseState.WAITING

    limited(world, concurrent=2)
    assert "ever" not in text(told(world, waits))
    pass_time(world, 60)
    assert world.present.leases[waits.id].state is LeaseState.ACTIVE


def test_one_that_gives_way_to_a_maintenance_is_told_so():
    world = World(node(1))
    window = {"start": int(world.now) + 500, "duration_s": 600, "reason": "disks"}
    world.decide(plan_maintenance, world.present.nodes["nod-001"], id="mnt-1", **window)
    lease = soft(world, duration_s=5000, preemptible=True)
    assert world.present.leases[lease.id].plan.saves
    assert "for a maintenance (disks) begins in" in text(told(world, lease))


def test_what_runs_to_its_end_has_nothing_more_to_tell():
    world = World(node(1))
    lease = world.grant(duration_s=600)
    follow(world)
    assert told(world, lease).says == ("It runs until 10m from now",)


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_nothing_waits_without_a_reason(random):
    world = some_world(random)
    for lease in world.present.leases.values():
        found = told(world, lease, "nobody")
        if lease.state is LeaseState.ENDING:
            continue
        assert found.says, lease
        assert lease.name not in "".join(found.says)
        if lease.state in (LeaseState.WAITING, LeaseState.SUSPENDED) and lease.plan is None:
            assert found.place is not None
            why = text(found)
            causes = ("room", "limit", "before it in turn")
            assert any(cause in why for cause in causes), why
