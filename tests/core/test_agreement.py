"""Granting and changing leases: all or nothing, addresses once, refusals that say what would fit."""

import base64
import re
from dataclasses import replace

import pytest

from tests.core.builders import World, image, node
from vws.core import agreement
from vws.core.agreement import cancel, command
from vws.core.amendment import extend, resize
from vws.core.deployment import orders_for
from vws.core.errors import CannotFit, CommandRefused, InvalidRequest, NameTaken
from vws.core.lifecycle import Command, Observation, State
from vws.core.site import Changes, LeaseState
from vws.core.standing import expire
from vws.core.terms import GroupRequest, LeaseRequest, When


def test_a_lease_is_placed_addressed_and_named():
    world = World(node(1), node(2))
    lease = world.grant(GroupRequest("demo", count=3), name="exp")
    members = world.members(lease)
    assert [w.name for w in members] == ["exp-1", "exp-2", "exp-3"]
    assert lease.state is LeaseState.PENDING
    assert lease.end - lease.start == 600
    assert len({w.address for w in members}) == 3
    assert len({w.mac for w in members}) == 3
    assert {w.node for w in members} == {"nod-001", "nod-002"}, "equal nodes share the load"


def test_a_lease_that_waits_for_its_time_can_be_extended_resized_and_cancelled():
    world = World(node(1))
    waits = replace(world.grant(), id="lse-waits", name="waits", state=LeaseState.WAITING, start=None, end=None)
    world.apply(Changes(leases=(waits,)))
    world.decide(expire)
    assert world.lease(waits.id) == waits
    world.decide(extend, waits, 60)
    assert world.lease(waits.id).duration_s == waits.duration_s + 60
    world.decide(resize, world.lease(waits.id), group=None, memory_mib=256, cpus=None)
    assert [group.memory_mib for group in world.lease(waits.id).groups] == [256]
    world.decide(cancel, waits)
    assert world.lease(waits.id).state is LeaseState.ENDED


def test_groups_name_their_members():
    world = World(node(1))
    lease = world.grant(GroupRequest("demo", name="head"), GroupRequest("demo", name="worker", count=2), name="c")
    assert [w.name for w in world.members(lease)] == ["c-head-1", "c-worker-1", "c-worker-2"]


def test_the_nodes_orders_get_a_new_number_once_per_decision():
    world = World(node(1, cpus=8))
    lease = world.grant(GroupRequest("demo", count=3))
    assert world.present.nodes["nod-001"].generation == 2
    assert {w.generation for w in world.members(lease)} == {2}
    orders = orders_for(
        world.present.nodes["nod-001"],
        world.present.on_node("nod-001"),
        world.present.leases,
        world.present.images,
        now=world.now,
    )
    assert orders.generation == 2
    assert orders.gateway == "10.64.1.1"
    assert [w.name for w in orders.workspaces] == [w.name for w in world.members(lease)]


def test_all_or_nothing():
    world = World(node(1, cpus=2), node(2, cpus=2))
    with pytest.raises(CannotFit) as refused:
        world.grant(GroupRequest("demo", count=5))
    assert not world.present.workspaces
    assert {"kind": "fewer", "count": 4, "text": "4 of this size would fit now"} in refused.value.details["offers"]


def test_a_refusal_gives_the_reason_of_each_node_and_the_time_when_it_would_fit():
    world = World(
        node(1, cpus=2),
        node(2, drained=True),
        node(3, problem="its clock is 600 s off"),
        node(4, cpus=1),
        node(5, memory_mib=256),
    )
    world.grant(GroupRequest("demo", cpus=2), duration_s=100)
    with pytest.raises(CannotFit) as refused:
        world.grant(GroupRequest("demo", cpus=2, memory_mib=512))
    reasons = {n["name"]: n["reason"] for n in refused.value.details["nodes"]}
    assert reasons == {
        "n1": "0 CPUs free, 2 needed",
        "n2": "it is drained",
        "n3": "it is unfit: its clock is 600 s off",
        "n4": "it has 1 CPUs, one workspace asks for 2",
        "n5": "256 MiB of memory free, 512 needed",
    }
    later = next(o for o in refused.value.details["offers"] if o["kind"] == "later")
    taken = world.grant(GroupRequest("demo", cpus=2, memory_mib=512), when=When.RESERVATION, start=later["start"])
    assert taken.plan.begin == int(world.now) + 100, "it is prepared as soon as the other has ended"


def test_one_workspace_bigger_than_any_node_is_offered_a_smaller_one():
    world = World(node(1, cpus=2, memory_mib=1000), node(2, cpus=4, memory_mib=2000))
    with pytest.raises(CannotFit) as refused:
        world.grant(GroupRequest("demo", cpus=8, memory_mib=500))
    (offer,) = refused.value.details["offers"]
    assert (offer["kind"], offer["cpus"], offer["memory_mib"]) == ("smaller", 4, 500), "no more than was asked for"
    world.grant(GroupRequest("demo", cpus=offer["cpus"], memory_mib=offer["memory_mib"], disk_mib=offer["disk_mib"]))


def test_cpus_are_shared_by_the_nodes_ratio_but_one_workspace_never_has_more_than_are_there():
    world = World(node(1, cpus=2, cpu_ratio=4.0))
    world.grant(GroupRequest("demo", count=8))
    with pytest.raises(CannotFit):
        world.grant(GroupRequest("demo"))
    with pytest.raises(CannotFit):
        World(node(1, cpus=2, cpu_ratio=4.0)).grant(GroupRequest("demo", cpus=3))


def test_memory_is_never_overcommitted_and_the_emulators_own_counts():
    world = World(node(1, cpus=100, memory_mib=1000, overhead_mib=100))
    world.grant(GroupRequest("demo", count=2, memory_mib=400))
    with pytest.raises(CannotFit):
        world.grant(GroupRequest("demo", memory_mib=32))


def test_packing_is_tried_when_spreading_fails():
    # Spread puts one small workspace on each node, after which the big group fits nowhere: biggest first, then pack.
    world = World(node(1, cpus=4), node(2, cpus=4))
    world.grant(GroupRequest("demo", name="small", count=4, cpus=1), GroupRequest("demo", name="big", cpus=4))
    held = sorted(world.cpus_held(n) for n in world.present.nodes)
    assert held == [4, 4]


def test_a_full_subnet_refuses_by_its_reason():
    small = node(1, cpus=50)
    world = World(
        type(small)(**{f: getattr(small, f) for f in small.__dataclass_fields__} | {"subnet": "10.64.1.0/29"})
    )
    world.grant(GroupRequest("demo", count=5, memory_mib=32, disk_mib=1))
    with pytest.raises(CannotFit) as refused:
        world.grant(GroupRequest("demo", memory_mib=32, disk_mib=1))
    assert refused.value.details["nodes"][0]["reason"] == "no address is free on its network"


KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519" + bytes(36)).decode()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (LeaseRequest((GroupRequest("nosuch"),), 60), "groups[0].image"),
        (LeaseRequest((GroupRequest("demo", count=0),), 60), "groups[0].count"),
        (LeaseRequest((GroupRequest("demo", cpus=-1),), 60), "groups[0].cpus"),
        (LeaseRequest((GroupRequest("demo", memory_mib=10**12),), 60), "groups[0].memory_mib"),
        (LeaseRequest((GroupRequest("demo", disk_mib=0),), 60), "groups[0].disk_mib"),
        (LeaseRequest((GroupRequest("demo"),), 0), "duration_s"),
        (LeaseRequest((GroupRequest("demo"),), 10**12), "duration_s"),
        (LeaseRequest((), 60), "groups"),
        (LeaseRequest((GroupRequest("demo"),), 60, "a/b"), "name"),
        (LeaseRequest((GroupRequest("demo"),), 60, "x" * 300), "name"),
        (LeaseRequest((GroupRequest("demo"),), 60, ""), "name"),
        (LeaseRequest((GroupRequest("demo"),), 60, "a\n"), "name"),
        (LeaseRequest((GroupRequest("demo", name="a/b"),), 60), "groups[0].name"),
        (LeaseRequest((GroupRequest("demo", name="a"), GroupRequest("demo", name="a")), 60), "groups"),
        (LeaseRequest((GroupRequest("demo"),), 60, None, ("nonsense",)), "ssh_keys[0]"),
        (LeaseRequest((GroupRequest("demo"),), 60, None, (KEY,) * 65), "ssh_keys"),
        (LeaseRequest((GroupRequest("demo"),), 60, None, (f"{KEY} {'x' * 8000}",) * 3), "ssh_keys"),
        (LeaseRequest((GroupRequest("demo"),), 60, None, ("-----BEGIN OPENSSH PRIVATE KEY-----",)), "ssh_keys[0]"),
        (LeaseRequest((GroupRequest("demo", memory_mib=64),), 60), "groups[0].memory_mib"),
    ],
)
def test_bad_input_names_its_field_and_what_would_be_accepted(request_, field):
    world = World(node(1), images=(image(memory_mib_min=96),))
    with pytest.raises(InvalidRequest) as refused:
        world.decide(agreement.grant, request_, owner="ann", ids=world.ids)
    assert refused.value.field == field
    assert refused.value.possible
    assert not world.present.leases


def test_a_live_leases_name_is_taken_and_free_again_afterwards():
    world = World(node(1))
    lease = world.grant(name="exp")
    with pytest.raises(NameTaken):
        world.grant(name="exp", owner="bob")
    world.decide(cancel, lease)
    world.report("nod-001")
    assert world.lease(lease.id).state is LeaseState.ENDED
    world.grant(name="exp", owner="bob")


def test_an_address_returns_only_when_the_node_says_that_the_domain_is_gone():
    world = World(node(1))
    lease = world.grant()
    (before,) = world.members(lease)
    world.obey()
    world.decide(cancel, lease)
    assert before.address in world.present.addresses_held("nod-001")
    # A report made under the orders before the end says nothing about it.
    world.report("nod-001", generation=before.generation)
    assert before.address in world.present.addresses_held("nod-001")
    (other,) = world.members(world.grant())
    assert other.address != before.address
    world.report("nod-001")
    assert before.address not in world.present.addresses_held("nod-001") or other.address == before.address


def test_extending_moves_the_end_of_all_members():
    world = World(node(1, cpus=8))
    lease = world.grant(GroupRequest("demo", count=2))
    after = world.decide(extend, lease, 300)
    assert after.end == lease.end + 300
    assert {w.end for w in world.members(lease)} == {after.end}
    world.now = lease.end + 1.0
    world.decide(expire)
    assert world.lease(lease.id).state is not LeaseState.ENDING
    world.now = after.end
    world.decide(expire)
    assert world.lease(lease.id).state is LeaseState.ENDING


def test_an_ended_lease_cannot_be_extended():
    world = World(node(1))
    lease = world.grant()
    cancelled = world.decide(cancel, lease)
    with pytest.raises(CommandRefused):
        world.decide(extend, cancelled, 60)


def test_resizing_within_what_is_defined_and_beyond_it():
    world = World(node(1, memory_mib=1000))
    lease = world.grant(GroupRequest("demo", memory_mib=200))
    world.obey()
    after = world.decide(resize, lease, group=None, memory_mib=100, cpus=None)
    (small,) = world.members(lease)
    assert (small.memory_mib, small.memory_defined_mib, small.held.memory_mib) == (100, 200, 200)
    world.decide(resize, after, group=None, memory_mib=400, cpus=2)
    (big,) = world.members(lease)
    assert (big.memory_mib, big.memory_defined_mib, big.cpus, big.cpus_defined) == (400, 200, 2, 1)
    world.decide(command, big, Command.REBOOT)
    (rebooted,) = world.members(lease)
    assert (rebooted.memory_defined_mib, rebooted.cpus_defined, rebooted.boots) == (400, 2, 2)
    with pytest.raises(CannotFit):
        world.decide(resize, world.lease(lease.id), group=None, memory_mib=1001, cpus=None)


def test_a_refused_change_names_the_largest_that_would_fit():
    world = World(node(1, cpus=4, memory_mib=1000), node(2, cpus=4, memory_mib=2000))
    lease = world.grant(GroupRequest("demo", count=3, memory_mib=200))
    assert len({w.node for w in world.members(lease)}) == 2

    def possible(**sizes):
        with pytest.raises(CannotFit) as refused:
            world.decide(resize, world.lease(lease.id), **({"group": None, "memory_mib": None, "cpus": None} | sizes))
        return refused.value.possible

    said = re.match(r"up to (\d+) MiB and (\d+) CPUs? each, or the same", possible(memory_mib=5000, cpus=50))
    assert said is not None
    memory_mib, cpus = map(int, said.groups())
    assert possible(memory_mib=memory_mib + 1).startswith(f"up to {memory_mib} MiB each, or")
    assert re.match(rf"up to {cpus} CPUs? each, or", possible(cpus=cpus + 1))
    world.decide(resize, world.lease(lease.id), group=None, memory_mib=memory_mib, cpus=cpus)
    (first, *_) = world.members(lease)
    assert (first.memory_mib, first.cpus) == (memory_mib, cpus)


def test_a_reboot_is_over_only_when_the_new_boot_runs():
    world = World(node(1))
    lease = world.grant()
    world.obey()
    (running,) = world.members(lease)
    world.decide(command, running, Command.REBOOT)
    world.report("nod-001", _fact(running, Observation.RUNNING, boots=1))
    assert world.members(lease)[0].state is State.REBOOTING
    world.report("nod-001", _fact(running, Observation.RUNNING, boots=2))
    assert world.members(lease)[0].state is State.RUNNING


@pytest.mark.parametrize("state", [Observation.STOPPED, Observation.BROKEN])
def test_what_became_of_the_boot_before_does_not_undo_a_reboot(state):
    world = World(node(1))
    lease = world.grant()
    world.obey()
    (running,) = world.members(lease)
    before = world.present.nodes["nod-001"].generation
    world.decide(command, running, Command.REBOOT)
    world.report("nod-001", _fact(running, state, boots=1), generation=before)
    assert world.members(lease)[0].state is State.REBOOTING
    # One that knows of the order says that it cannot begin.
    world.report("nod-001", _fact(running, Observation.BROKEN, boots=1))
    assert world.members(lease)[0].state is State.FAILED


def _fact(workspace, state, boots=1):
    from vws.core.deployment import WorkspaceFact

    return WorkspaceFact(workspace.id, state, boots=boots)
