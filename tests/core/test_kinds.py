"""Leases of every kind in the life of a small site: queued, reserved, suspended, resumed, restarted, moved, ended."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.core.builders import World, cached, file, image, node
from vws.core.agreement import Series, cancel, command
from vws.core.amendment import extend
from vws.core.caches import FileState
from vws.core.chosen import Chosen
from vws.core.deployment import WorkspaceFact
from vws.core.errors import CannotFit, CommandRefused, LimitReached
from vws.core.lifecycle import UNORDERED, Command, Desired, Observation
from vws.core.membership import Limits, Membership
from vws.core.outlook import Outlook
from vws.core.present import Present
from vws.core.site import Lease, LeaseState, PlanPhase
from vws.core.standing import Patience, listen
from vws.core.terms import Exceptions, GroupRequest, When

SEEN = {
    Desired.RUN: Observation.RUNNING,
    Desired.SUSPEND: Observation.SUSPENDED,
    Desired.PAUSE: Observation.PAUSED,
}
ONE = GroupRequest("demo", cpus=4)


def follow(world: World, *, only: tuple[str, ...] = ()) -> None:
    """Every node has done what it was told."""
    for each in list(world.present.nodes.values()):
        if only and each.id not in only:
            continue
        ordered = [w for w in world.present.on_node(each.id) if w.state not in UNORDERED]
        world.report(each.id, *(WorkspaceFact(w.id, SEEN[w.desired], boots=w.boots) for w in ordered))


def pass_time(world: World, seconds: int) -> None:
    """Second by second, the nodes doing at once what they are told."""
    for _ in range(seconds):
        world.tick(1)
        follow(world)


def run_until(world: World, at: int) -> None:
    pass_time(world, at - int(world.now))


def in_plan(world: World, lease: Lease) -> Lease:
    return world.lease(lease.id)


def soft(world: World, *groups: GroupRequest, duration_s: int = 600, **terms: object) -> Lease:
    lease = world.grant(*(groups or (ONE,)), duration_s=duration_s, when=When.BEST_EFFORT, **terms)
    follow(world)
    return in_plan(world, lease)


def reserve(world: World, in_s: int, *groups: GroupRequest, duration_s: int = 300, **terms: object) -> Lease:
    start = int(world.now) + in_s
    return world.grant(*(groups or (ONE,)), duration_s=duration_s, when=When.RESERVATION, start=start, **terms)


def test_a_best_effort_lease_starts_at_once_where_there_is_room():
    world = World(node(1))
    lease = soft(world)
    assert lease.state is LeaseState.ACTIVE
    assert lease.plan.phase is PlanPhase.RUNNING
    assert lease.end == int(world.now) + 600, "its time counts from when it is up"


def test_a_best_effort_lease_waits_with_a_promised_start_and_begins_when_it_comes():
    world = World(node(1))
    first = soft(world)
    second = soft(world, duration_s=100)
    assert second.state is LeaseState.WAITING
    assert second.planned_start > first.end - 1
    run_until(world, first.end + 60)
    assert in_plan(world, first).state is LeaseState.ENDED
    assert in_plan(world, second).state is LeaseState.ACTIVE


@pytest.mark.parametrize("ends", ["by its node", "by its user"])
def test_what_was_worked_until_the_end_counts_whoever_sees_it_first(ends):
    world = World(node(1))
    lease = soft(world, duration_s=60)
    pass_time(world, 20)
    if ends == "by its node":
        world.now += 60
        world.report("nod-001", *(WorkspaceFact(w.id, Observation.ENDED) for w in world.members(lease)))
    else:
        world.decide(cancel, in_plan(world, lease))
        follow(world)
    after = in_plan(world, lease)
    assert (after.state, after.worked_s) == (LeaseState.ENDED, 60 if ends == "by its node" else 20)


def test_what_this_site_could_never_run_is_refused_rather_than_queued():
    world = World(node(1), node(2))
    for group in (GroupRequest("demo", cpus=5), GroupRequest("demo", count=3, cpus=4)):
        with pytest.raises(CannotFit):
            soft(world, group)


def test_an_early_end_is_used_at_once():
    world = World(node(1))
    first, second = soft(world), soft(world)
    world.decide(cancel, first)
    pass_time(world, 2)
    assert in_plan(world, second).state is LeaseState.ACTIVE


def test_a_short_one_goes_ahead_where_it_delays_nobody():
    world = World(node(1), node(2))
    soft(world, duration_s=1000)
    wide = soft(world, GroupRequest("demo", count=2, cpus=4), duration_s=600)
    short, long = soft(world, duration_s=300), soft(world, duration_s=5000)
    assert [in_plan(world, each).state for each in (wide, short, long)] == [
        LeaseState.WAITING,
        LeaseState.ACTIVE,
        LeaseState.WAITING,
    ]


def test_a_reservation_runs_at_its_start_and_not_before_it_is_prepared():
    world = World(node(1))
    lease = reserve(world, 200)
    assert lease.state is LeaseState.PLANNED
    assert not world.members(lease)
    run_until(world, lease.plan.begin - 1)
    assert in_plan(world, lease).state is LeaseState.PLANNED
    run_until(world, lease.start)
    assert in_plan(world, lease).state is LeaseState.ACTIVE
    run_until(world, lease.end + 5)
    assert in_plan(world, lease).state is LeaseState.ENDED


def test_a_reservation_too_soon_to_be_prepared_is_refused_with_the_earliest_start():
    world = World(node(1))
    with pytest.raises(CannotFit, match="could not be running at its start") as refused:
        reserve(world, 5)
    offer = refused.value.details["offers"][0]
    granted = reserve(world, offer["start"] - int(world.now))
    run_until(world, granted.start)
    assert in_plan(world, granted).state is LeaseState.ACTIVE


def test_a_preemptible_lease_is_suspended_for_a_reservation_and_goes_on_after_it():
    world = World(node(1))
    lease = soft(world, duration_s=1000, preemptible=True)
    hard = reserve(world, 200)
    begun = world.now
    cut = in_plan(world, lease).plan
    assert cut.saves
    assert cut.end == hard.plan.begin
    assert in_plan(world, lease).gives_way_at == cut.stop
    run_until(world, hard.plan.begin)
    suspended = in_plan(world, lease)
    assert suspended.state is LeaseState.SUSPENDED
    assert (suspended.suspensions, suspended.gives_way_at) == (1, None)
    assert 0 < suspended.worked_s <= hard.plan.begin - begun
    run_until(world, hard.start)
    assert in_plan(world, hard).state is LeaseState.ACTIVE, "running at its start, not starting"
    run_until(world, hard.end + 60)
    resumed = in_plan(world, lease)
    assert resumed.state is LeaseState.ACTIVE
    assert resumed.end - int(world.now) <= 1000 - suspended.worked_s
    run_until(world, resumed.end + 60)
    over = in_plan(world, lease)
    assert over.state is LeaseState.ENDED
    assert over.worked_s == 1000, "nothing of its work was lost"


def test_who_is_not_preemptible_is_left_alone():
    world = World(node(1))
    soft(world, duration_s=1000)
    with pytest.raises(CannotFit):
        reserve(world, 200)


def test_what_the_plan_has_suspended_is_not_resumed_by_hand_but_may_be_cancelled():
    world = World(node(1))
    lease = soft(world, duration_s=1000, preemptible=True)
    hard = reserve(world, 200)
    run_until(world, hard.start)
    (member,) = world.members(lease)
    with pytest.raises(CommandRefused, match="suspended by the plan"):
        world.decide(command, member, Command.RESTORE)
    world.decide(cancel, in_plan(world, lease))
    pass_time(world, 2)
    assert in_plan(world, lease).state is LeaseState.ENDED
    assert in_plan(world, hard).state is LeaseState.ACTIVE


def test_the_record_says_by_how_much_a_start_was_kept():
    world = World(node(1))
    hard = reserve(world, 200)
    run_until(world, hard.start)
    (said,) = [e.data for e in world.history.events if e.kind == "lease.active" and e.lease == hard.id]
    assert 0 <= said["early_s"] <= hard.start - hard.plan.begin


def test_a_preemptible_reservation_that_runs_gives_way_to_an_urgent_lease_and_goes_on():
    world = World(node(1))
    lease = world.grant(ONE, duration_s=600, preemptible=True)
    pass_time(world, 5)
    urgent = world.grant(ONE, duration_s=100, urgent=True)
    run_until(world, urgent.start + 10)
    assert in_plan(world, urgent).state is LeaseState.ACTIVE
    assert in_plan(world, lease).state is LeaseState.SUSPENDED
    run_until(world, urgent.end + 30)
    assert in_plan(world, lease).state is LeaseState.ACTIVE
    run_until(world, in_plan(world, lease).end + 30)
    assert in_plan(world, lease).state is LeaseState.ENDED
    assert in_plan(world, lease).worked_s == 600


def test_a_preemptible_reservation_that_has_not_begun_is_not_put_off():
    world = World(node(1))
    reserve(world, 200, duration_s=600, preemptible=True)
    with pytest.raises(CannotFit):
        reserve(world, 300, urgent=True)


def test_the_least_is_suspended():
    world = World(node(1), node(2))
    one, two = (soft(world, duration_s=1000, preemptible=True) for _ in range(2))
    reserve(world, 200)
    saves = [in_plan(world, each).plan.saves for each in (one, two)]
    assert sorted(saves) == [False, True]


def test_a_reservation_waits_for_memory_that_is_still_being_written():
    world = World(node(1), node(2))
    two = GroupRequest("demo", count=2, cpus=4, memory_mib=3000)
    lease = soft(world, two, duration_s=1000, preemptible=True)
    hard = reserve(world, 300, two)
    while world.now < hard.start + 20:
        world.tick(1)
        follow(world, only=("nod-001",))
    assert in_plan(world, hard).state is LeaseState.PLANNED, "one node has not said that it is saved"
    assert in_plan(world, lease).state is not LeaseState.SUSPENDED
    pass_time(world, 5)
    assert in_plan(world, hard).state is LeaseState.ACTIVE


def test_a_restartable_lease_that_cannot_be_saved_begins_anew():
    world = World(node(1))
    world.present.outlook.rules.suspend = 0
    lease = soft(world, duration_s=1000, restartable=True)
    before = world.members(lease)
    hard = reserve(world, 200)
    run_until(world, hard.start)
    assert in_plan(world, hard).state is LeaseState.ACTIVE
    assert in_plan(world, lease).state is LeaseState.WAITING
    assert all(w.released_at for w in before) or all(w.released_at for w in world.members(lease))
    run_until(world, hard.end + 30)
    again = in_plan(world, lease)
    assert again.state is LeaseState.ACTIVE
    assert again.end >= int(world.now) + 900, "from the beginning"


def test_a_deadline_is_kept_or_refused():
    world = World(node(1))
    now = int(world.now)
    soft(world, duration_s=600)
    lease = world.grant(ONE, duration_s=300, when=When.DEADLINE, deadline=now + 1100)
    follow(world)
    assert lease.state is LeaseState.WAITING
    assert lease.planned_end <= now + 1100
    with pytest.raises(CannotFit) as refused:
        world.grant(ONE, duration_s=300, when=When.DEADLINE, deadline=now + 700)
    offer = refused.value.details["offers"][0]
    assert offer["kind"] == "deadline"
    other = world.grant(ONE, duration_s=300, when=When.DEADLINE, deadline=offer["deadline"])
    run_until(world, offer["deadline"])
    assert {in_plan(world, each).state for each in (lease, other)} <= {LeaseState.ENDED, LeaseState.ENDING}


def test_an_urgent_lease_suspends_others_and_runs_as_soon_as_they_are_saved():
    world = World(node(1))
    victim = soft(world, duration_s=1000, preemptible=True)
    urgent = world.grant(ONE, duration_s=100, urgent=True)
    assert urgent.state is LeaseState.PLANNED
    pass_time(world, urgent.start - int(world.now) + 2)
    assert in_plan(world, urgent).state is LeaseState.ACTIVE
    assert in_plan(world, victim).state is LeaseState.SUSPENDED


DAILY = {"when": When.PERIODIC, "rule": "FREQ=DAILY;COUNT=3"}


def test_a_rule_becomes_reservations_of_one_series():
    world = World(node(1))
    series = world.decide_grant(ONE, duration_s=3600, start=int(world.now) + 3600, **DAILY)
    assert isinstance(series, Series)
    starts = [lease.start for lease in series.leases]
    assert [b - a for a, b in pairwise(starts)] == [86_400, 86_400]
    assert {lease.series for lease in series.leases} == {series.id}
    assert not series.skipped


def test_a_series_with_an_exception_is_refused_as_a_whole_or_without_it():
    world = World(node(1))
    start = int(world.now) + 3600
    world.grant(ONE, duration_s=3600, when=When.RESERVATION, start=start + 86_400)
    plans = world.present.outlook.sketch()
    with pytest.raises(CannotFit, match=r"1 of the 3 starts"):
        world.decide_grant(ONE, duration_s=3600, start=start, **DAILY)
    assert world.present.outlook.sketch() == plans, "a refusal leaves nothing behind"
    series = world.decide_grant(ONE, duration_s=3600, start=start, exceptions=Exceptions.SKIP, **DAILY)
    assert [each.start for each in series.skipped] == [start + 86_400]
    assert len(series.leases) == 2


def test_what_was_planned_on_a_node_that_is_lost_goes_elsewhere():
    world = World(node(1), node(2))
    hard = reserve(world, 500)
    (host,) = hard.plan.hosts
    world.decide(listen, {host: 30.0}, Patience())
    world.tick(1)
    moved = in_plan(world, hard)
    assert moved.plan.hosts != (host,)
    assert moved.start == hard.start


def test_a_restart_gives_the_same_plan():
    world = World(node(1), node(2, cpus=8))
    soft(world, duration_s=1000, preemptible=True)
    soft(world, GroupRequest("demo", count=2, cpus=4), duration_s=400, preemptible=True)
    soft(world, GroupRequest("demo", count=3, cpus=4), duration_s=400, preemptible=True)
    soft(world, duration_s=300)
    reserve(world, 300, GroupRequest("demo", count=2, cpus=4))
    for _ in range(60):
        pass_time(world, 20)
        rebuilt = Present()
        rebuilt.apply(world.history, world.now)
        assert rebuilt.outlook.sketch() == world.present.outlook.sketch()


def test_a_soft_lease_is_made_longer():
    world = World(node(1))
    lease = soft(world, duration_s=300)
    world.decide(extend, lease, 200)
    assert in_plan(world, lease).end == lease.end + 200
    run_until(world, lease.end + 100)
    assert in_plan(world, lease).state is LeaseState.ACTIVE


def test_a_requirement_chooses_the_node():
    world = World(node(1), node(2, cpus=8))
    lease = world.grant(GroupRequest("demo", requirement="cpus >= 8"))
    assert lease.plan.hosts == ("nod-002",)
    with pytest.raises(CannotFit):
        world.grant(GroupRequest("demo", requirement="cpus >= 9"))


def test_apart_and_together():
    world = World(node(1), node(2))
    lease = world.grant(GroupRequest("demo", count=2, apart=True))
    assert len(set(lease.plan.hosts)) == 2
    with pytest.raises(CannotFit):
        world.grant(GroupRequest("demo", count=3, apart=True))
    lease = world.grant(GroupRequest("demo", count=3, together=True))
    assert len(set(lease.plan.hosts)) == 1


def limited(world: World, **limits: int) -> None:
    """The site's users may have so much each."""
    chosen = Chosen(membership=Membership(each_user=Limits(**limits)))
    world.present.outlook = Outlook(world.present.outlook.rules, chosen)
    world.present.plan_anew(world.now)


def test_a_limit_on_what_runs_at_once_holds_for_those_that_wait_too():
    world = World(node(1), node(2), node(3))
    limited(world, concurrent=2)
    leases = [soft(world, duration_s=300) for _ in range(5)]
    for _ in range(100):
        pass_time(world, 20)
        running = [each for each in leases if in_plan(world, each).state in (LeaseState.PENDING, LeaseState.ACTIVE)]
        assert len(running) <= 2
    assert {in_plan(world, each).state for each in leases} == {LeaseState.ENDED}


def busy_until_500() -> World:
    """Two nodes that others have, of a site whose users may have one workspace at a time."""
    world = World(node(1), node(2), chosen=Chosen(membership=Membership(each_user=Limits(concurrent=1))))
    for other in ("bob", "cid"):
        world.grant(ONE, duration_s=500, owner=other)
    follow(world)
    return world


def test_a_deadline_is_promised_only_when_no_limit_is_reached_at_its_time():
    world = busy_until_500()
    now = int(world.now)
    own = reserve(world, 600, GroupRequest("demo"), duration_s=1000)
    asked = {"when": When.DEADLINE, "deadline": now + 1300}
    with pytest.raises(LimitReached, match="1 workspace at a time, has 1 then") as refused:
        world.grant(GroupRequest("demo"), duration_s=300, **asked)
    (offer,) = refused.value.details["offers"]
    assert offer["kind"] == "shorter"
    lease = world.grant(GroupRequest("demo"), duration_s=offer["duration_s"], **asked)
    run_until(world, own.end + 30)
    assert in_plan(world, lease).state is in_plan(world, own).state is LeaseState.ENDED
    assert in_plan(world, lease).ended_at <= own.start, "before the reservation, which counts against the same limit"


def test_what_is_asked_for_later_keeps_clear_of_a_promised_deadline():
    world = busy_until_500()
    now = int(world.now)
    lease = world.grant(GroupRequest("demo"), duration_s=300, when=When.DEADLINE, deadline=now + 1300)
    with pytest.raises(LimitReached, match="1 workspace at a time, has 1 then"):
        reserve(world, 600, GroupRequest("demo"), duration_s=1000)
    run_until(world, now + 1300)
    assert in_plan(world, lease).state is LeaseState.ENDED


def test_who_frees_a_limit_lets_the_next_begin():
    world = World(node(1))
    limited(world, concurrent=1)
    first, second = (soft(world, GroupRequest("demo"), duration_s=900) for _ in range(2))
    assert in_plan(world, second).state is LeaseState.WAITING
    world.decide(cancel, first)
    pass_time(world, 3)
    assert in_plan(world, second).state is LeaseState.ACTIVE


def test_a_series_is_held_against_limits_with_all_of_its_instances_together():
    world = World(node(1))
    limited(world, total=2)
    start, moves = int(world.now) + 3600, world.present.outlook.planner.moves
    asked = {"duration_s": 3600, "start": start, **DAILY}
    with pytest.raises(CannotFit, match=r"1 of the 3 starts .* the user ann may have 2 workspaces") as refused:
        world.decide_grant(ONE, **asked)
    assert refused.value.possible == "the other 2 starts could be had, if exceptions may be skipped"
    assert world.present.outlook.planner.moves == moves, "nothing has to be planned anew for it"
    series = world.decide_grant(ONE, exceptions=Exceptions.SKIP, **asked)
    assert [lease.start for lease in series.leases] == [start, start + 86_400]
    assert [each.start for each in series.skipped] == [start + 2 * 86_400]


def test_how_often_a_lease_began_anew_outlasts_the_service():
    world = World(node(1))
    world.present.outlook.rules.suspend = 0
    lease = soft(world, duration_s=1000, restartable=True)
    for times in (1, 2):
        hard = reserve(world, 200, duration_s=20)
        run_until(world, hard.end + 30)
        assert in_plan(world, lease).restarts == times
        again = Present.of(world.history)
        assert again.outlook.planner.demands[lease.id].restarts == times


def test_a_choice_of_hosts_sees_what_is_free_while_the_lease_would_run():
    seen = []
    world = World(node(1, cpus=8), node(2))
    world.present.outlook = Outlook(chosen=Chosen(host_rank=lambda host: seen.append(host) or 0.0))
    world.present.plan_anew(world.now)
    now = soft(world, GroupRequest("demo", cpus=2, requirement='name == "n1"'), duration_s=100)
    later = reserve(world, 1000, GroupRequest("demo", cpus=5, requirement='name == "n1"'))
    assert now.plan.hosts == later.plan.hosts == ("nod-001",)
    seen.clear()
    reserve(world, 700, GroupRequest("demo", cpus=4), duration_s=100)
    told = {host.node: (host.cpus_free, host.workspaces, host.free_until) for host in seen}
    assert told == {"n1": (8, 0, later.plan.begin), "n2": (4, 0, math.inf)}


def test_a_reservation_has_time_to_fetch_what_one_of_its_nodes_does_not_hold():
    """Counted is what is sent: no zeros, no file that is there, and what two images are deltas on but once."""
    base = file("base", 5000, "base", data_bytes=3000 << 20)
    big = image("big", files=(file("big", 1000), base))
    other = image("other", files=(file("other", 500), base))
    world = World(node(1, cpus=12), node(2), images=(image(), big, other))
    on_n1 = {"requirement": 'name == "n1"'}

    def ahead(at: float, *groups: GroupRequest) -> int:
        lease = reserve(world, at, *groups)
        return lease.plan.run - lease.plan.begin

    plain = ahead(1000)
    per_mib = 1.2 / 50  # as configured, with the margin of promises
    assert ahead(1000, GroupRequest("big", **on_n1)) == pytest.approx(plain + 4000 * per_mib, abs=1)
    both = (GroupRequest("big", **on_n1), GroupRequest("other", name="o", **on_n1))
    assert ahead(3000, *both) == pytest.approx(plain + 4500 * per_mib, abs=2), "the base comes once"
    world.report("nod-001", cache=cached(*big.files))
    assert ahead(5000, GroupRequest("big", **on_n1)) == plain
    assert ahead(5000, GroupRequest("big")) > plain + 90, "it may come to be on n2"
    assert ahead(7000, GroupRequest("other", **on_n1)) == pytest.approx(plain + 500 * per_mib, abs=1)
    world.report("nod-001", cache=cached(big.files[0], fetch_limit_mbit=80.0))
    assert ahead(9000, GroupRequest("big", **on_n1)) == pytest.approx(plain + 3000 * 2**20 / 10e6, abs=2), "no faster"


def test_of_equal_nodes_the_one_that_holds_the_image_is_taken_until_it_has_dropped_it():
    demo = image(files=(file("demo"), file("kernel", role="kernel")))
    world = World(node(1), node(2), node(3), images=(demo,))
    world.report("nod-002", cache=cached(*demo.files))
    world.report("nod-003", cache=cached(demo.files[0]))

    def chosen() -> str:
        lease = world.grant(GroupRequest("demo"))
        world.decide(cancel, lease)
        follow(world)
        return lease.plan.hosts[0]

    assert chosen() == "nod-002"
    world.present.plan_anew(world.now)
    assert chosen() == "nod-002", "it is on record"
    world.report("nod-003", cache=cached(*demo.files))
    world.report("nod-002", cache=cached(*demo.files, state=FileState.CHANGED))
    assert chosen() == "nod-003"


def test_what_a_node_promises_of_its_network_is_no_more_than_it_has():
    fast = node(1, cpus=8)
    world = World(replace(fast, capacity=replace(fast.capacity, bandwidth_mbit=1000)), node(2))
    wide = GroupRequest("demo", bandwidth_mbit=400)
    first = [soft(world, wide, preemptible=True, duration_s=900) for _ in range(3)]
    assert [lease.plan.hosts for lease in first[:2]] == [("nod-001",)] * 2
    assert first[2].state is LeaseState.WAITING, "the other node says nothing of its network"
    with pytest.raises(CannotFit) as refused:
        world.grant(wide, duration_s=60)
    reasons = {each["name"]: each["reason"] for each in refused.value.details["nodes"]}
    assert reasons["n1"] == "200 Mbit/s of its network free, 400 needed"
    hard = reserve(world, 300, GroupRequest("demo", bandwidth_mbit=1000), duration_s=60)
    run_until(world, hard.start)
    assert [in_plan(world, each).state for each in (hard, *first[:2])] == [
        LeaseState.ACTIVE,
        LeaseState.SUSPENDED,
        LeaseState.SUSPENDED,
    ], "what is suspended sends nothing"


def test_groups_that_could_never_be_together_are_refused_rather_than_queued():
    world = World(node(1), node(2))
    with pytest.raises(CannotFit):
        soft(world, GroupRequest("demo", count=2, cpus=4), GroupRequest("demo", name="b", count=2, cpus=4))
