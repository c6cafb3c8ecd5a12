"""The calendar of a site: what was, by the record, and what is to be, by the plan, meeting at now."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from tests.core.builders import World, node
from tests.core.test_kinds import follow, in_plan, pass_time, reserve, run_until, soft
from vws.core.agreement import cancel, command
from vws.core.calendar import ROOMLESS, Calendar, Step
from vws.core.lifecycle import Command, State
from vws.core.maintenance import plan_maintenance
from vws.core.picture import AHEAD_S, calendar_of, veiled
from vws.core.site import Changes, LeaseState, Plan, PlanPhase
from vws.core.terms import GroupRequest, When

DAY_S = 86_400


def picture(world: World, start: int | None = None, **fields: int) -> Calendar:
    now = int(world.now)
    return calendar_of(world.history, "here", start=now - DAY_S if start is None else start, now=now, **fields)


def steps(calendar: Calendar, lease: str) -> list[tuple[str, str]]:
    return [(str(bar.step), bar.node) for bar in calendar.bars if bar.lease == lease]


def times(calendar: Calendar, lease: str) -> dict[Step, tuple[int, int]]:
    return {bar.step: (bar.start, bar.end) for bar in calendar.bars if bar.lease == lease}


def check(world: World, calendar: Calendar) -> None:
    """What a picture may never show: a gap or an overlap in a member's life, more than a node has."""
    chains: dict[tuple[str, str], list] = {}
    for bar in calendar.bars:
        assert bar.start < bar.end
        chains.setdefault((bar.lease, bar.workspace), []).append(bar)
    for chain in chains.values():
        for before, after in pairwise(chain):
            assert before.end == after.start or {before.step, after.step} == {Step.MIGRATE}
    for each in world.present.nodes.values():
        here = [bar for bar in calendar.bars if bar.node == each.name and bar.step not in ROOMLESS]
        for at in {bar.start for bar in here}:
            taken = sum(bar.cpus for bar in here if bar.start <= at < bar.end and bar.step is Step.RUN)
            assert taken <= each.capacity.cpus


def test_a_lease_is_drawn_from_its_first_step_to_its_planned_end():
    world = World(node(1), node(2))
    lease = world.grant(GroupRequest("demo", count=2, cpus=3, memory_mib=256), name="exp")
    world.now += 20
    follow(world)
    world.now += 100
    found = picture(world)
    assert found.nodes == ("n1", "n2")
    assert steps(found, lease.id) == [("stage", "n1"), ("run", "n1"), ("stage", "n2"), ("run", "n2")]
    assert times(found, lease.id) == {
        Step.STAGE: (int(world.now) - 120, int(world.now) - 100),
        Step.RUN: (int(world.now) - 100, lease.end),
    }
    assert {bar.workspace for bar in found.bars} == {"exp-1", "exp-2"}
    bar = found.bars[1]
    assert (bar.label, bar.kind, bar.owner, bar.cpus, bar.memory_mib) == ("exp", "immediate", "ann", 3, 256)
    assert (found.start, found.now, found.end) == (int(world.now) - DAY_S, int(world.now), int(world.now) + 3600)
    check(world, found)


def test_a_reservation_among_soft_leases_is_drawn_before_and_after_it_happened():
    world = World(node(1))
    first = soft(world, duration_s=1000, preemptible=True)
    hard = reserve(world, 300)
    run_until(world, int(world.now) + 10)
    before = picture(world)
    check(world, before)
    plan = in_plan(world, first).plan
    assert plan.saves
    assert steps(before, first.id) == [("run", "n1"), ("suspend", "n1"), ("saved", "n1")]
    assert times(before, first.id)[Step.SUSPEND] == (plan.stop, plan.end)
    assert times(before, first.id)[Step.SAVED][1] == before.end, "nobody knows yet when it goes on"
    assert steps(before, hard.id) == [("stage", "n1"), ("boot", "n1"), ("run", "n1")]
    assert times(before, hard.id)[Step.RUN] == (hard.start, hard.end)

    run_until(world, plan.stop - 1)
    world.tick(1)
    world.tick(3)  # so long its node takes
    run_until(world, hard.start + 10)
    amid = picture(world)
    check(world, amid)
    again = in_plan(world, first).plan
    assert again.restores
    assert steps(amid, first.id) == [
        ("run", "n1"), ("suspend", "n1"), ("saved", "n1"), ("resume", "n1"), ("run", "n1"), ("shutdown", "n1"),
    ]  # fmt: skip
    assert times(amid, first.id)[Step.SAVED][1] == again.begin

    run_until(world, in_plan(world, first).plan.run + 20)
    after = picture(world)
    check(world, after)
    suspended = next(bar for bar in after.bars if bar.step is Step.SUSPEND)
    assert (suspended.start, suspended.end) == (plan.stop, plan.stop + 4), "what was seen, not what was meant"
    assert ("run", "n1") in steps(after, hard.id)
    assert {bar.workspace for bar in after.bars if bar.lease == first.id} == {f"{first.name}-1"}


def test_what_has_ended_is_drawn_by_its_events_alone():
    world = World(node(1))
    lease = world.grant(GroupRequest("demo"), duration_s=600)
    world.now += 5
    follow(world)
    world.now += 100
    world.decide(cancel, lease)
    world.now += 3
    follow(world)
    ended = int(world.now)
    world.now += 1000
    found = picture(world)
    assert times(found, lease.id) == {
        Step.STAGE: (ended - 108, ended - 103),
        Step.RUN: (ended - 103, ended - 3),
        Step.SHUTDOWN: (ended - 3, ended),
    }
    assert not picture(world, start=ended + 1).bars
    assert steps(picture(world, start=ended - 1), lease.id) == [("shutdown", "n1")]


def test_what_began_long_ago_is_known_by_its_present_state():
    world = World(node(1))
    lease = world.grant(duration_s=2 * DAY_S)
    follow(world)
    world.now += DAY_S
    history = world.history
    record = Changes(history.leases, history.workspaces, history.nodes)
    found = calendar_of(record, "here", start=int(world.now) - 60, now=int(world.now))
    assert times(found, lease.id) == {Step.RUN: (lease.start, lease.end)}


def test_one_that_is_ending_holds_its_node_a_little_longer():
    world = World(node(1))
    lease = world.grant(duration_s=1000)
    follow(world)
    world.decide(cancel, lease)
    world.now += 50
    (_, end) = times(picture(world), lease.id)[Step.SHUTDOWN]
    assert world.now < end < world.now + 60


def test_one_that_rests_because_its_user_said_so_is_drawn_as_saved():
    world = World(node(1))
    lease = world.grant(duration_s=1000)
    follow(world)
    world.decide(command, world.members(lease)[0], Command.SUSPEND)
    world.now += 5
    follow(world)
    world.now += 50
    assert times(picture(world), lease.id)[Step.SAVED] == (int(world.now) - 50, lease.end)


def test_a_move_is_on_the_node_left_and_the_node_reached():
    world = World(node(1), node(2))
    first = soft(world, GroupRequest("demo", cpus=4))
    stored = in_plan(world, first)
    now = int(world.now)
    plan = Plan(
        PlanPhase.BOOKED, ("nod-002",), now + 100, now + 150, now + 160, now + 500, now + 503, False, True, False, 1
    )
    saved = replace(world.members(first)[0], node="nod-001", state=State.SUSPENDED)
    record = Changes(
        (replace(stored, state=LeaseState.SUSPENDED, plan=plan),), (saved,), tuple(world.present.nodes.values())
    )
    found = calendar_of(record, "x", start=now - 10, now=now)
    assert [(str(b.step), b.node, b.start - now, b.end - now) for b in found.bars if b.end > now] == [
        ("saved", "n1", int(saved.changed_at) - now, 100),
        ("migrate", "n1", 100, 150),
        ("migrate", "n2", 100, 150),
        ("resume", "n2", 150, 160),
        ("run", "n2", 160, 500),
        ("shutdown", "n2", 500, 503),
    ]


def test_a_calendar_lasts_until_the_last_planned_end_a_week_at_most():
    world = World(node(1))
    now = int(world.now)
    assert picture(world).end == now + 3600
    reserve(world, 5000, duration_s=4000)
    assert picture(world).end == now + 9000
    world.grant(when=When.RESERVATION, start=now + 20 * DAY_S)
    assert picture(world).end == now + AHEAD_S
    assert picture(world, end=now + 30 * DAY_S).end == now + 30 * DAY_S
    assert len(picture(world, end=now + 30 * DAY_S).bars) > len(picture(world).bars)


def test_maintenance_is_drawn_across_its_node():
    world = World(node(1), node(2))
    now = int(world.now)
    world.decide(
        plan_maintenance, world.present.nodes["nod-002"], id="mnt-1", start=now + 60, duration_s=600, reason="disks"
    )
    (bar,) = picture(world).bars
    assert (bar.node, bar.step, bar.label, bar.kind) == ("n2", Step.MAINTENANCE, "disks", "maintenance")
    assert (bar.start, bar.end) == (now + 60, now + 660)


def test_of_others_leases_one_sees_when_and_where_but_not_whose():
    world = World(node(1), node(2))
    mine, hers = world.grant(name="mine", owner="ann"), world.grant(name="hers", owner="bob")
    pass_time(world, 1)
    found = veiled(picture(world), "ann")
    others = [bar for bar in found.bars if bar.lease == hers.id]
    assert {(bar.label, bar.owner, bar.workspace) for bar in others} == {("another's", "", "another's 1")}
    assert {(bar.label, bar.owner) for bar in found.bars if bar.lease == mine.id} == {("mine", "ann")}
    assert "hers" not in repr(found)
    assert "bob" not in repr(found)
    assert [(b.node, b.start, b.end, b.cpus) for b in found.bars] == [
        (b.node, b.start, b.end, b.cpus) for b in picture(world).bars
    ]
