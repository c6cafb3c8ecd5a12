"""How leases stand: active when all run, failed as a whole before that, degraded after, ended when nothing is left."""

import pytest

from tests.core.builders import World, node
from vws.core.agreement import cancel, command
from vws.core.deployment import DiskTrouble, WorkspaceFact
from vws.core.lifecycle import Command, Observation, State
from vws.core.site import LeaseState, NodeState
from vws.core.standing import Patience, expire, forsake, listen
from vws.core.terms import GroupRequest

O = Observation  # noqa: E741


def pair() -> tuple[World, object]:
    world = World(node(1, cpus=8))
    return world, world.grant(GroupRequest("demo", count=2), name="exp")


def facts(world, lease, *states, **fields):
    return [WorkspaceFact(w.id, s, boots=1, **fields) for w, s in zip(world.members(lease), states, strict=True)]


def test_a_lease_is_active_only_once_all_its_workspaces_ran():
    world, lease = pair()
    world.report("nod-001", *facts(world, lease, O.RUNNING, O.STARTING))
    assert world.lease(lease.id).state is LeaseState.PENDING
    world.report("nod-001", *facts(world, lease, O.RUNNING, O.RUNNING))
    assert world.lease(lease.id).state is LeaseState.ACTIVE
    assert world.lease(lease.id).active_at == world.now


def test_a_step_is_told_with_the_state_that_it_belongs_to():
    world, lease = pair()
    world.report("nod-001", *facts(world, lease, O.STAGING, O.STAGING, step="copying the image"))
    assert {(w.state, w.step) for w in world.members(lease)} == {(State.STAGING, "copying the image")}
    world.report("nod-001", *facts(world, lease, O.RUNNING, O.RUNNING))
    assert {(w.state, w.step) for w in world.members(lease)} == {(State.RUNNING, "")}


def test_a_guest_that_cannot_have_a_disk_runs_and_says_so_until_it_can():
    world, lease = pair()
    troubles = (DiskTrouble("data", "no mkfs.xfs"), DiskTrouble("page", "no\x1b[2J"))
    for _ in range(2):
        world.report("nod-001", *facts(world, lease, O.RUNNING, O.RUNNING, disks=troubles))
    told = "the disk data could not be prepared: no mkfs.xfs; the disk page could not be prepared: no"
    assert world.lease(lease.id).state is LeaseState.ACTIVE
    for workspace in world.members(lease):
        assert (workspace.state, workspace.reason.startswith(told)) == (State.RUNNING, True)
        assert "\x1b" not in workspace.reason, "a guest's words are made plain"
    said = [e for e in world.history.events if e.kind == "workspace.disk-failed"]
    assert [(e.workspace, e.data["disk"]) for e in said] == [
        (w.id, disk) for w in world.members(lease) for disk in ("data", "page")
    ], "once"
    world.report("nod-001", *facts(world, lease, O.RUNNING, O.RUNNING))
    assert {w.reason for w in world.members(lease)} == {""}


def test_before_it_was_active_one_broken_member_ends_the_whole_with_the_reason():
    world, lease = pair()
    world.report("nod-001", *facts(world, lease, O.RUNNING, O.BROKEN, reason="the image is corrupt"))
    ending = world.lease(lease.id)
    assert (ending.state, ending.outcome) == (LeaseState.ENDING, LeaseState.FAILED)
    assert ending.reason == "exp-2 is failed: the image is corrupt"
    assert [w.state for w in world.members(lease)] == [State.TERMINATING, State.FAILED]
    world.report("nod-001")
    assert world.lease(lease.id).state is LeaseState.FAILED
    assert all(w.released_at for w in world.members(lease))
    assert not world.present.workspaces
    assert not world.present.outlook.sketch()["plans"]


def test_afterwards_the_others_stay_and_the_lease_is_degraded():
    world, lease = pair()
    world.obey()
    world.report("nod-001", *facts(world, lease, O.RUNNING, O.BROKEN, reason="it crashed"))
    assert world.lease(lease.id).state is LeaseState.DEGRADED
    assert "it crashed" in world.lease(lease.id).reason
    assert [w.state for w in world.members(lease)] == [State.RUNNING, State.FAILED]


def test_a_failed_member_is_removed_from_its_node_before_its_address_returns():
    world, lease = pair()
    world.obey()
    generation = world.present.nodes["nod-001"].generation
    world.report("nod-001", *facts(world, lease, O.RUNNING, O.BROKEN))
    failed = world.members(lease)[1]
    assert world.present.nodes["nod-001"].generation == generation + 1
    assert failed.generation == generation + 1
    assert failed.address in world.present.addresses_held("nod-001")
    world.report("nod-001", facts(world, lease, O.RUNNING, O.REMOVING)[0])
    assert failed.address not in world.present.addresses_held("nod-001")
    assert world.members(lease)[1].reason == "it broke and its node did not say why"


def test_terminating_one_member_leaves_the_rest_active_and_the_last_ends_the_lease():
    world, lease = pair()
    world.obey()
    first, _second = world.members(lease)
    world.decide(command, first, Command.TERMINATE)
    world.obey()
    assert world.lease(lease.id).state is LeaseState.ACTIVE
    world.decide(command, world.members(lease)[1], Command.TERMINATE)
    assert world.lease(lease.id).state is LeaseState.ENDING
    world.obey()
    assert world.lease(lease.id).state is LeaseState.ENDED
    assert world.lease(lease.id).reason == "all its workspaces were terminated"


def test_a_lease_that_its_nodes_ended_while_the_service_was_away_was_over_in_time():
    world, lease = pair()
    world.obey()
    world.now = lease.end + 30
    world.report("nod-001", *facts(world, lease, O.ENDED, O.ENDED))
    ended = world.lease(lease.id)
    assert (ended.state, ended.reason) == (LeaseState.ENDED, "its time was over")


def test_a_lease_ends_when_its_time_is_over_and_not_before():
    world, lease = pair()
    world.obey()
    world.now = lease.end - 0.001
    world.decide(expire)
    assert world.lease(lease.id).state is LeaseState.ACTIVE
    world.now = lease.end
    world.decide(expire)
    assert world.lease(lease.id).state is LeaseState.ENDING
    world.obey()
    assert (world.lease(lease.id).state, world.lease(lease.id).reason) == (LeaseState.ENDED, "its time was over")


def test_what_the_node_ended_by_itself_is_terminated_and_released():
    world, lease = pair()
    world.obey()
    world.now = lease.end
    world.report("nod-001", *facts(world, lease, O.ENDED, O.ENDED))
    assert world.lease(lease.id).state is LeaseState.ENDED
    assert {w.state for w in world.members(lease)} == {State.TERMINATED}


def test_a_silent_node_takes_nothing_new_and_after_the_grace_time_its_workspaces_are_lost():
    world = World(node(1, cpus=8), node(2, cpus=8))
    lease = world.grant(GroupRequest("demo", count=2))
    world.obey()
    patience = Patience(silent_after_s=20, lost_after_s=60)
    world.decide(listen, {"nod-001": 21.0}, patience)
    assert world.present.nodes["nod-001"].state is NodeState.SILENT
    assert world.lease(lease.id).state is LeaseState.ACTIVE
    world.decide(listen, {"nod-001": 61.0}, patience)
    assert world.present.nodes["nod-001"].state is NodeState.LOST
    states = {w.node: w.state for w in world.members(lease)}
    assert states == {"nod-001": State.LOST, "nod-002": State.RUNNING}
    assert world.lease(lease.id).state is LeaseState.DEGRADED
    assert len(world.members(world.grant(GroupRequest("demo", count=2)))) == 2
    assert {w.node for w in world.present.workspaces.values() if w.lease != lease.id} == {"nod-002"}


def test_a_node_that_returns_with_its_workspaces_heals_the_lease():
    world, lease = pair()
    world.obey()
    world.decide(listen, {"nod-001": 100.0}, Patience())
    assert world.lease(lease.id).state is LeaseState.DEGRADED
    world.obey()
    assert world.present.nodes["nod-001"].state is NodeState.READY
    assert world.lease(lease.id).state is LeaseState.ACTIVE


def test_a_lost_workspace_that_was_ended_meanwhile_waits_for_its_node():
    world, lease = pair()
    world.obey()
    world.decide(listen, {"nod-001": 100.0}, Patience())
    world.decide(cancel, world.lease(lease.id))
    assert world.lease(lease.id).state is LeaseState.ENDING
    held = {w.address for w in world.members(lease)}
    assert held <= world.present.addresses_held("nod-001")
    world.report("nod-001", *facts(world, lease, O.REMOVING, O.REMOVING))
    assert world.lease(lease.id).state is LeaseState.ENDING
    world.report("nod-001")
    assert world.lease(lease.id).state is LeaseState.ENDED


def test_removing_a_dead_node_by_force_releases_what_was_there():
    world, lease = pair()
    world.obey()
    world.decide(listen, {"nod-001": 100.0}, Patience())
    world.decide(forsake, world.present.nodes["nod-001"])
    assert world.lease(lease.id).state is LeaseState.FAILED
    assert not world.present.workspaces


def test_a_node_whose_orders_are_newer_than_the_record_gets_newer_ones_still():
    world, _lease = pair()
    world.report("nod-001", generation=40)
    assert world.present.nodes["nod-001"].generation == 41


def test_a_guest_that_powers_itself_off_degrades_and_a_reboot_heals():
    world, lease = pair()
    world.obey()
    world.report("nod-001", *facts(world, lease, O.RUNNING, O.STOPPED))
    assert world.lease(lease.id).state is LeaseState.DEGRADED
    assert "powered itself off" in world.members(lease)[1].reason
    world.decide(command, world.members(lease)[1], Command.REBOOT)
    world.obey()
    assert world.lease(lease.id).state is LeaseState.ACTIVE


@pytest.mark.parametrize("order", [Command.PAUSE, Command.SUSPEND])
def test_resting_workspaces_do_not_degrade_a_lease(order):
    world, lease = pair()
    world.obey()
    world.decide(command, world.members(lease)[0], order)
    goal = {Command.PAUSE: O.PAUSED, Command.SUSPEND: O.SUSPENDED}[order]
    world.report("nod-001", *facts(world, lease, goal, O.RUNNING))
    assert world.lease(lease.id).state is LeaseState.ACTIVE


def test_what_a_node_repeats_of_guests_is_made_plain():
    world, lease = pair()
    reason = "kernel panic\x1b[31m\x00 not\nsyncing \ud800" + "x" * 5000
    world.report("nod-001", *facts(world, lease, O.RUNNING, O.BROKEN, reason=reason, host_key="ssh\x00key"))
    said = world.members(lease)[1].reason
    assert said.startswith("kernel panic [31m not syncing x")
    assert said.isprintable()
    assert len(said) <= 1000
