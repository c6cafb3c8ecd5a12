"""A lease whose command has ended in every workspace has ended, and says how."""

from dataclasses import replace

from tests.core.builders import World, node
from vws.core.agreement import command
from vws.core.deployment import WorkspaceFact, orders_for
from vws.core.lifecycle import Command, Observation, State
from vws.core.site import Changes, LeaseState
from vws.core.terms import GroupRequest

O = Observation  # noqa: E741


def pair(script="exit 3") -> tuple[World, object]:
    world = World(node(1, cpus=8))
    lease = replace(world.grant(GroupRequest("demo", count=2), name="exp"), command=script)
    world.apply(Changes(leases=(lease,)))
    return world, lease


def facts(world, lease, *said):
    """One for each member: a state, or (state, exit status)."""
    pairs = [s if isinstance(s, tuple) else (s, None) for s in said]
    members = zip(world.members(lease), pairs, strict=True)
    return [WorkspaceFact(w.id, state, boots=w.boots, exit_status=status) for w, (state, status) in members]


def report(world, lease, *said):
    world.report("nod-001", *facts(world, lease, *said))


def events(world, kind):
    return [e for e in world.history.events if e.kind == kind]


def test_the_command_reaches_the_node():
    world, _ = pair("make results")
    present = world.present
    orders = orders_for(
        present.nodes["nod-001"], present.on_node("nod-001"), present.leases, present.images, now=world.now
    )
    assert [order.command for order in orders.workspaces] == ["make results"] * 2


def test_a_lease_ends_when_the_command_of_the_last_member_has_ended():
    world, lease = pair()
    world.obey()
    report(world, lease, O.RUNNING, (O.STOPPED, 0))
    assert world.lease(lease.id).state is LeaseState.ACTIVE
    assert [(w.state, w.exit_status) for w in world.members(lease)] == [(State.RUNNING, None), (State.STOPPED, 0)]
    assert world.members(lease)[1].reason == "its command ended with status 0"
    report(world, lease, (O.STOPPED, 0), (O.STOPPED, 0))
    ending = world.lease(lease.id)
    assert (ending.state, ending.outcome, ending.reason) == (LeaseState.ENDING, LeaseState.ENDED, "its command ended")
    world.obey()
    assert world.lease(lease.id).state is LeaseState.ENDED
    assert not world.present.workspaces


def test_a_command_that_failed_ends_the_lease_all_the_same_and_the_events_say_how():
    world, lease = pair()
    world.obey()
    report(world, lease, (O.STOPPED, 0), (O.STOPPED, 3))
    world.obey()
    ended = world.lease(lease.id)
    assert (ended.state, ended.reason) == (LeaseState.ENDED, "its command ended with status 3 on exp-2")
    for kind in ("lease.ending", "lease.ended"):
        assert [e.data["exit_statuses"] for e in events(world, kind)] == [{"exp-1": 0, "exp-2": 3}]
    assert [(e.workspace, e.data["exit_status"]) for e in events(world, "workspace.done")] == [
        (w.id, w.exit_status) for w in world.members(lease)
    ]


def test_commands_that_end_before_all_guests_were_seen_to_answer_break_nothing():
    world, lease = pair()
    report(world, lease, O.STARTING, (O.STOPPED, 0))
    assert world.lease(lease.id).state is LeaseState.PENDING
    report(world, lease, (O.STOPPED, 0), (O.STOPPED, 0))
    world.obey()
    ended = world.lease(lease.id)
    assert (ended.state, ended.active_at) == (LeaseState.ENDED, world.now)


def test_the_others_may_become_active_after_one_is_done():
    world, lease = pair()
    report(world, lease, O.STARTING, (O.STOPPED, 0))
    report(world, lease, O.RUNNING, (O.STOPPED, 0))
    assert world.lease(lease.id).state is LeaseState.ACTIVE


def test_a_guest_that_powers_itself_off_without_a_status_is_not_done():
    world, lease = pair()
    world.obey()
    report(world, lease, (O.STOPPED, 0), O.STOPPED)
    degraded = world.lease(lease.id)
    assert (degraded.state, degraded.reason) == (
        LeaseState.DEGRADED,
        "exp-2 is stopped: the guest powered itself off",
    )


def test_a_status_that_is_heard_late_counts():
    world, lease = pair()
    world.obey()
    report(world, lease, (O.STOPPED, 0), O.STOPPED)
    report(world, lease, (O.STOPPED, 0), (O.STOPPED, 1))
    assert world.lease(lease.id).reason == "its command ended with status 1 on exp-2"


def test_who_is_done_stays_done_when_his_user_boots_him_again():
    world, lease = pair()
    world.obey()
    report(world, lease, (O.STOPPED, 0), O.RUNNING)
    world.decide(command, world.members(lease)[0], Command.REBOOT)
    report(world, lease, O.RUNNING, O.RUNNING)
    assert world.members(lease)[0].exit_status == 0
    assert world.lease(lease.id).state is LeaseState.ACTIVE
    report(world, lease, O.RUNNING, (O.STOPPED, 0))
    assert world.lease(lease.id).state is LeaseState.ENDING


def test_who_broke_is_blamed_when_the_others_are_done():
    world, lease = pair()
    world.obey()
    report(world, lease, (O.STOPPED, 0), O.BROKEN)
    ending = world.lease(lease.id)
    assert (ending.state, ending.outcome) == (LeaseState.ENDING, LeaseState.ENDED)
    assert ending.reason.startswith("its command ended; exp-2 is failed")


def test_a_member_that_its_user_ended_is_not_waited_for():
    world, lease = pair()
    world.obey()
    world.decide(command, world.members(lease)[0], Command.TERMINATE)
    world.report("nod-001", facts(world, lease, O.REMOVING, (O.STOPPED, 0))[1])
    assert world.lease(lease.id).reason == "its command ended"
