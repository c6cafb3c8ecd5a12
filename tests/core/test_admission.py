"""Limits of users, groups and VOs: what they count, and what a refusal says would be accepted."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.builders import NOW, World, node
from vws.core.admission import Holdings, within_limits
from vws.core.agreement import cancel
from vws.core.chosen import ADMISSION, Chosen
from vws.core.errors import LimitReached
from vws.core.membership import VO, Limits, Membership, UserGroup
from vws.core.policy import Standing
from vws.core.site import LeaseKind, LeaseState
from vws.core.terms import GroupRequest


def hold(start, length=100, nodes=1, **more) -> Standing:
    return Standing("ann", nodes=nodes, requested_s=length, start=start, **more)


def refused(asked: Standing, held: list[Standing], limits: Limits, now=0.0, before=0.0) -> LimitReached:
    with pytest.raises(LimitReached) as error:
        within_limits(asked, Holdings("the VO atlas", tuple(held), lambda since: before), limits, now)
    return error.value


def admitted(asked: Standing, held: list[Standing], limits: Limits, now=0.0, before=0.0) -> bool:
    try:
        within_limits(asked, Holdings("the user ann", tuple(held), lambda since: before), limits, now)
    except LimitReached:
        return False
    return True


def test_total_counts_all_that_has_not_ended():
    held = [hold(0, nodes=3), hold(None, nodes=4)]
    assert admitted(hold(900, nodes=3), held, Limits(total=10))
    error = refused(hold(900, nodes=4), held, Limits(total=10))
    assert error.problem == ("the VO atlas may have 10 workspaces in leases that have not ended, has 7 and asks for 4")
    assert (error.field, error.asked, error.possible) == ("total", 4, "3 workspaces")
    assert error.details["offers"] == [{"kind": "fewer", "count": 3, "text": "3 workspaces"}]
    assert refused(hold(0), held, Limits(total=7)).possible == "the same after a lease has ended"


def test_ahead_is_about_starts():
    assert admitted(hold(600), [], Limits(ahead_s=600))
    assert admitted(hold(None), [], Limits(ahead_s=0))
    error = refused(hold(601.0), [], Limits(ahead_s=600))
    assert (error.field, error.details["offers"][0]["start"]) == ("ahead_s", 600)
    assert "a start 10m ahead at most; this one is 10m1s ahead" in error.problem


def test_concurrent_is_about_one_instant():
    held = [hold(0, 100, nodes=3), hold(100, 100, nodes=3), hold(None, nodes=9)]
    assert admitted(hold(50, 100, nodes=1), held, Limits(concurrent=4)), "one ends as the other begins"
    error = refused(hold(50, 100, nodes=2), held, Limits(concurrent=4))
    assert error.problem == "the VO atlas may have 4 workspaces at a time, has 3 then and asks for 2"
    assert error.possible == "1 workspace at that time or the same 3m20s from now"
    assert [offer["kind"] for offer in error.details["offers"]] == ["fewer", "later"]
    assert error.details["offers"][1]["start"] == 200


def test_what_could_never_run_at_once_is_refused_though_it_waits():
    assert admitted(hold(None, nodes=4), [hold(0, nodes=4)], Limits(concurrent=4))
    assert refused(hold(None, nodes=5), [], Limits(concurrent=4)).possible == "4 workspaces"
    assert refused(hold(0, nodes=5), [], Limits(concurrent=4)).possible == "4 workspaces"
    assert refused(hold(0, nodes=5), [hold(0, nodes=4)], Limits(concurrent=4)).possible == "4 workspaces at most"
    assert refused(hold(0), [], Limits(concurrent=0)).possible == "0 workspaces at most"


def test_node_hours_are_those_before_and_those_agreed():
    limits = Limits(node_hours=10, days=7)
    held = [hold(-3600, 7200, nodes=2), hold(None, 3600, nodes=1)]  # from now on: 2 and 1
    assert admitted(hold(0, 3600, nodes=3), held, limits, before=4)
    error = refused(hold(0, 7200, nodes=2), held, limits, before=4)
    assert error.problem == "the VO atlas may have 10 node-hours in 7 days, has or had 7 and asks for 4"
    assert (error.field, error.asked, error.details["held"]) == ("node_hours", 4, 7)
    assert error.details["offers"] == [{"kind": "shorter", "duration_s": 5400, "text": "1h30m for 2 of them"}]
    assert refused(hold(0, 7200), held, limits, before=7).possible == "the same when what was used is longer ago"


def test_before_is_asked_about_the_days_of_the_limit():
    asked_about = []
    holdings = Holdings("the user ann", (), lambda since: asked_about.append(since) or 0.0)
    within_limits(hold(0), holdings, Limits(node_hours=1, days=2), 1_000_000.0)
    assert asked_about == [1_000_000.0 - 2 * 86400]


def test_no_limit_refuses_nothing():
    huge = [hold(0, nodes=10**6)] * 3
    assert admitted(hold(10**9, 10**9, nodes=10**6), huge, Limits())
    ADMISSION["everyone"](hold(10**9), Holdings("", tuple(huge)), Limits(0, 0, 0, 0), 0)


standings = st.lists(
    st.builds(hold, st.one_of(st.none(), st.integers(0, 50)), st.integers(1, 40), st.integers(1, 5)), max_size=6
)


@given(standings, st.integers(0, 50), st.integers(1, 40))
def test_the_peak_is_what_counting_second_by_second_finds(held, start, length):
    counted = max(
        sum(h.nodes for h in held if h.start is not None and h.start <= t < h.end) for t in range(start, start + length)
    )
    assert Holdings("", tuple(held)).peak(start, start + length) == counted


@given(standings, st.integers(0, 50), st.integers(1, 40), st.integers(1, 5), st.integers(0, 12), st.integers(0, 25))
def test_what_is_offered_is_accepted(held, start, length, nodes, concurrent, total):
    asked, limits = hold(start, length, nodes), Limits(concurrent=concurrent, total=total, ahead_s=30)
    for limit in ("concurrent", "total", "ahead_s"):
        one = Limits(**{limit: getattr(limits, limit)})
        if admitted(asked, held, one):
            continue
        for offer in refused(asked, held, one).details["offers"]:
            if "count" in offer:
                assert 0 < offer["count"] < nodes
                assert admitted(replace(asked, nodes=offer["count"]), held, one), offer
            elif "duration_s" in offer:
                assert 0 < offer["duration_s"] < length
                assert admitted(replace(asked, requested_s=offer["duration_s"]), held, one), offer
                assert not admitted(replace(asked, requested_s=offer["duration_s"] + 1), held, one), offer
            else:
                assert admitted(replace(asked, start=offer["start"]), held, one), offer


# ---------------------------------------------------------------- for leases


def chosen(**limits) -> Chosen:
    who = Membership(
        {"atlas": VO(("ann", "bob"), limits=limits.get("vo"))},
        {"students": UserGroup(("bob", "cid"), limits.get("group"))},
        each_user=limits.get("user", Limits()),
    )
    return Chosen(membership=who)


def test_a_lease_is_held_against_the_limits_of_user_group_and_vo():
    world = World(node(1, cpus=50))
    ann = world.grant(GroupRequest("demo", 2, memory_mib=32), owner="ann")
    world.grant(GroupRequest("demo", 2, memory_mib=32), owner="cid")
    bob = replace(ann, id="lse-new", owner="bob")
    leases = list(world.present.leases.values())
    for limits, party in (
        ({"user": Limits(total=1)}, "the user bob"),
        ({"group": Limits(total=3)}, "the group students"),
        ({"vo": Limits(concurrent=3)}, "the VO atlas"),
    ):
        with pytest.raises(LimitReached) as error:
            chosen(**limits).check(bob, leases, world.now)
        assert error.value.details["party"] == party
    chosen(user=Limits(total=2), group=Limits(total=4), vo=Limits(concurrent=4)).check(bob, leases, world.now)


def test_a_change_is_held_against_the_limits_without_its_former_self():
    world = World(node(1))
    lease = world.grant(duration_s=3600)
    policy = chosen(user=Limits(concurrent=1, node_hours=2))
    policy.check(replace(lease, end=lease.end + 3600, duration_s=7200), [lease], world.now)
    with pytest.raises(LimitReached, match="node-hours"):
        policy.check(replace(lease, end=lease.end + 7200, duration_s=10800), [lease], world.now)


def test_what_was_given_back_counts_no_more():
    world = World(node(1))
    lease = world.grant()
    world.decide(cancel, lease)
    assert world.present.leases[lease.id].state is LeaseState.ENDING
    chosen(user=Limits(total=1)).check(replace(lease, id="lse-new"), world.present.leases.values(), world.now)


def test_what_was_held_before_is_added_up_over_a_partys_users():
    policy = chosen(vo=Limits(node_hours=10))
    lease = World(node(1)).grant(duration_s=3600)
    used = {"ann": 4.0, "bob": 5.0, "cid": 100.0}
    policy.check(lease, [], NOW, before=lambda user, since: used[user])
    used["bob"] = 5.5
    with pytest.raises(LimitReached, match=r"has or had 9\.5 and asks for 1"):
        policy.check(lease, [], NOW, before=lambda user, since: used[user])


def test_a_lease_that_waits_is_held_back_until_there_is_room_below_the_limit():
    running = World(node(1)).grant(duration_s=600)
    waiting = replace(running, id="lse-new", kind=LeaseKind.BEST_EFFORT, state=LeaseState.WAITING, start=None, end=None)
    policy = chosen(user=Limits(concurrent=1, total=1))
    asked, held = policy.standing(waiting), [policy.standing(running)]
    assert policy.kept_from(asked, held, running.start) == (
        "the user ann may have 1 workspace at a time, has 1 then and asks for 1"
    )
    assert policy.kept_from(asked, held, running.end) == ""
    assert chosen().kept_from(asked, held, running.start) == ""


def test_a_sites_own_function_is_asked_although_nothing_is_limited():
    asked = []
    policy = Chosen(admit=lambda standing, holdings, limits, now: asked.append((holdings.title, now)))
    policy.check(World(node(1)).grant(), [], 5.0)
    assert asked == [("the user ann", 5.0)]
