"""Order, preemption and choice of hosts, by name."""

import math
from dataclasses import replace

import pytest

from tests.core.builders import World, node
from vws.core.chosen import ARGUMENTS, HOSTS, ORDER, PREEMPTION, REGISTRY, Chosen, named
from vws.core.errors import InvalidRequest
from vws.core.membership import VO, Membership
from vws.core.policy import HostView, Standing
from vws.core.shares import Shares
from vws.core.site import LeaseKind, LeaseState
from vws.core.terms import GroupRequest

WHO = Membership({"atlas": VO(("ann",), priority=1), "cms": VO(("bob",))})
QUEUE = [
    Standing("ann", nodes=4, requested_s=100, submit=1, lease="early", priority=1),
    Standing("bob", nodes=1, requested_s=300, submit=2, lease="small", urgent=True),
    Standing("cid", nodes=2, requested_s=200, submit=3, lease="late", priority=9),
    Standing("cid", nodes=9, requested_s=200, submit=4, lease="half-done", done_s=190),
]


def sort(order: str) -> list[str]:
    shares = Shares(WHO, {"ann": 10.0, "bob": 5.0})
    return [s.lease for s in sorted(QUEUE, key=lambda s: ORDER[order](s, shares, 10))]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("first-come", ["early", "small", "late", "half-done"]),
        ("smallest-first", ["half-done", "small", "early", "late"]),
        ("fair-share", ["late", "half-done", "small", "early"]),
        ("priority", ["late", "early", "small", "half-done"]),
        ("urgent-first", ["small", "late", "half-done", "early"]),
    ],
)
def test_each_order(order, expected):
    assert sort(order) == expected


HARD = Standing("ann", lease="hard", kind="reservation", start=50.0, vo="atlas", priority=2)
SOFT = Standing("bob", lease="soft", kind="best-effort", vo="cms", priority=1, preemptible=True, start=10.0)


@pytest.mark.parametrize(
    ("name", "hard", "victim", "allowed"),
    [
        ("nobody", HARD, SOFT, False),
        ("hard-suspends-soft", HARD, SOFT, True),
        ("hard-suspends-soft", replace(SOFT, lease="other", start=None), SOFT, False),
        ("hard-suspends-soft", HARD, replace(SOFT, kind="reservation"), False),
        ("only-urgent", HARD, SOFT, False),
        ("only-urgent", replace(HARD, urgent=True), SOFT, True),
        ("only-urgent", replace(HARD, urgent=True), replace(SOFT, urgent=True), False),
        ("higher-priority", HARD, SOFT, True),
        ("higher-priority", HARD, replace(SOFT, priority=2), False),
        ("within-vo", HARD, SOFT, False),
        ("within-vo", HARD, replace(SOFT, vo="atlas"), True),
        ("within-vo", replace(HARD, vo=""), replace(SOFT, vo=""), False),
    ],
)
def test_who_may_suspend_whom(name, hard, victim, allowed):
    assert Chosen(preempt=PREEMPTION[name]).may_suspend(hard, victim) is allowed


@pytest.mark.parametrize("name", PREEMPTION)
def test_nobody_suspends_what_did_not_allow_it(name):
    hard = replace(HARD, urgent=True, priority=99, vo="cms")
    assert not Chosen(preempt=PREEMPTION[name]).may_suspend(hard, replace(SOFT, preemptible=False))
    assert not Chosen(preempt=lambda hard, victim: True).may_suspend(hard, replace(SOFT, preemptible=False))
    assert not Chosen(preempt=lambda hard, victim: True).may_suspend(SOFT, SOFT)


HOST_VIEWS = [
    HostView("empty", 8, 8, 8000, 8000),
    HostView("half", 8, 4, 8000, 8000, workspaces=2, has_image=True, free_until=500.0),
    HostView("full", 8, 8, 8000, 1000, workspaces=5, has_image=True, free_until=900.0),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("spread", ["empty", "half", "full"]),
        ("pack", ["full", "half", "empty"]),
        ("image-first", ["half", "full", "empty"]),
        ("best-fit", ["half", "full", "empty"]),
    ],
)
def test_each_choice_of_hosts(name, expected):
    assert [host.node for host in sorted(HOST_VIEWS, key=HOSTS[name])] == expected


def test_a_node_of_nothing_has_nothing_free():
    assert HostView("none", 0, 0, 0, 0).part_free == 0


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(InvalidRequest, match="'fairshare'") as error:
        named("order", "fairshare", "policy.order")
    assert error.value.field == "policy.order"
    for name in ORDER:
        assert name in str(error.value.possible)
    assert set(REGISTRY) == set(ARGUMENTS)


def test_a_standing_is_what_a_lease_says():
    world = World(node(1), node(2))
    lease = world.grant(GroupRequest("demo", 2, cpus=2, memory_mib=256, name="a"), GroupRequest("demo", name="b"))
    standing = Chosen(membership=WHO).standing(lease)
    assert (standing.owner, standing.vo, standing.priority) == ("ann", "atlas", 1)
    assert (standing.nodes, standing.cpus, standing.memory_mib) == (3, 5, 2 * 256 + 512)
    assert (standing.start, standing.end, standing.running) == (lease.start, lease.end, True)
    assert standing.waited_s(world.now + 99) == 0


def test_a_soft_lease_that_waits_has_no_start_and_only_what_is_left():
    world = World(node(1))
    lease = replace(world.grant(duration_s=600), kind=LeaseKind.BEST_EFFORT, state=LeaseState.SUSPENDED, worked_s=200)
    standing = Chosen().standing(lease)
    assert (standing.start, standing.left_s, standing.running, standing.soft) == (None, 400, False, True)
    assert standing.starting(1000.0).end == 1400
    assert standing.waited_s(world.now + 50) == 50
    assert math.isinf(HostView("n", 1, 1, 1, 1).free_until)


def test_a_lease_that_has_changed_is_seen_anew():
    chosen, lease = Chosen(), World(node(1)).grant(duration_s=600)
    first = chosen.standing(lease)
    assert chosen.standing(lease) is first
    assert chosen.standing(replace(lease, duration_s=700)).requested_s == 700
    assert chosen.standing(lease).requested_s == 600
