"""Leases through the services: once for each client token, own ones only, the same after a restart."""

import pytest

from tests.service.conftest import ADMIN, ANN, BOB
from vws.core.errors import CannotFit, ClientTokenReused, CommandRefused, Forbidden, NotFound
from vws.core.lifecycle import Command
from vws.core.site import Answer, LeaseState
from vws.core.terms import GroupRequest, LeaseRequest
from vws.ports import Filter
from vws.service.once import Once


def once(token="t1", fingerprint="f1"):
    return Once(token, fingerprint, 201, lambda lease: lease.id)


def test_a_lease_from_request_to_end(rig):
    rig.enroll("n1", "n2")
    lease = rig.request(3)
    assert rig.states(lease) == ["planned"] * 3
    rig.obey()
    assert rig.leases.lease(ANN, lease.id).state is LeaseState.ACTIVE
    rig.leases.cancel(ANN, lease.id)
    assert rig.states(lease) == ["terminating"] * 3
    rig.obey()
    ended = rig.leases.lease(ANN, lease.id)
    assert (ended.state, ended.reason) == (LeaseState.ENDED, "cancelled by ann")
    assert rig.states(lease) == ["terminated"] * 3
    assert not rig.site.present.workspaces


def test_the_same_client_token_is_answered_once(rig):
    rig.enroll("n1")
    lease = rig.request(once=once())
    again = rig.request(once=once())
    assert isinstance(again, Answer)
    assert (again.status, again.body) == (201, lease.id)
    assert len(rig.leases.leases(ANN, Filter(), after=None, limit=10).items) == 1
    with pytest.raises(ClientTokenReused):
        rig.request(once=once(fingerprint="another"))
    assert not isinstance(rig.request(caller=BOB, once=once()), Answer), "another user's tokens are his own"


def test_the_answer_outlives_a_restart(rig):
    rig.enroll("n1")
    lease = rig.request(once=once())
    rig.restart()
    assert rig.request(once=once()).body == lease.id


def test_a_refusal_is_not_kept_and_may_be_asked_again(rig):
    (node,) = rig.enroll("n1")
    rig.nodes.drain(ADMIN, node.id)
    with pytest.raises(CannotFit):
        rig.request(once=once())
    rig.nodes.undrain(ADMIN, node.id)
    assert not isinstance(rig.request(once=once()), Answer)


def test_another_users_lease_is_his(rig):
    rig.enroll("n1")
    lease = rig.request()
    (workspace,) = rig.leases.members(lease.id)
    for attempt in (
        lambda: rig.leases.lease(BOB, lease.id),
        lambda: rig.leases.cancel(BOB, lease.id),
        lambda: rig.leases.extend(BOB, lease.id, 60),
        lambda: rig.leases.resize(BOB, lease.id, memory_mib=64),
        lambda: rig.leases.command(BOB, workspace.id, Command.PAUSE),
        lambda: rig.leases.workspace(BOB, workspace.name),
        lambda: rig.leases.explain(BOB, lease.id),
    ):
        with pytest.raises(Forbidden, match="another user"):
            attempt()
    assert rig.leases.leases(BOB, Filter(), after=None, limit=10).items == ()
    assert rig.leases.workspaces(BOB, Filter(owner="ann"), after=None, limit=10).items == ()
    assert len(rig.leases.leases(ADMIN, Filter(), after=None, limit=10).items) == 1
    assert rig.leases.cancel(ADMIN, lease.id).state is LeaseState.ENDING


def test_names_find_what_is_alive_first(rig):
    rig.enroll("n1")
    request = LeaseRequest((GroupRequest("demo", memory_mib=64, disk_mib=1),), 600, "exp")
    first = rig.leases.request(ANN, request)
    rig.leases.cancel(ANN, "exp")
    rig.obey()
    assert rig.leases.lease(ANN, "exp").id == first.id, "an ended one is found while no other has the name"
    second = rig.leases.request(ANN, request)
    assert rig.leases.lease(ANN, "exp").id == second.id
    assert rig.leases.workspace(ANN, "exp-1").lease == second.id
    with pytest.raises(NotFound):
        rig.leases.lease(ANN, "nosuch")
    with pytest.raises(NotFound):
        rig.leases.workspace(ANN, "nosuch")


def test_commands_after_the_end(rig):
    rig.enroll("n1")
    lease = rig.request()
    (workspace,) = rig.leases.members(lease.id)
    rig.leases.cancel(ANN, lease.id)
    rig.obey()
    assert rig.leases.command(ANN, workspace.id, Command.TERMINATE).id == workspace.id
    with pytest.raises(CommandRefused, match="has ended"):
        rig.leases.command(ANN, workspace.id, Command.PAUSE)
    with pytest.raises(CommandRefused):
        rig.leases.extend(ANN, lease.id, 60)
    assert rig.leases.cancel(ANN, lease.id).state is LeaseState.ENDED


def test_asking_before_asking(rig):
    rig.enroll("n1")
    request = LeaseRequest((GroupRequest("demo", 2, memory_mib=64, disk_mib=1),), 60)
    fits = rig.leases.would_fit(ANN, request)
    assert fits["fits"]
    assert [n["reason"] for n in fits["nodes"]] == ["it would take 2"]
    refused = rig.leases.would_fit(ANN, LeaseRequest((GroupRequest("demo", 20),), 60))
    assert not refused["fits"]
    assert refused["offers"]
    assert not rig.site.present.leases, "asking changes nothing"


def test_the_memory_after_a_restart_is_the_memory_before(rig):
    rig.enroll("n1", "n2")
    for count in (1, 2, 3):
        rig.request(count)
    rig.obey()
    first = rig.leases.leases(ANN, Filter(), after=None, limit=1).items[0]
    rig.leases.command(ANN, rig.leases.members(first.id)[0].id, Command.SUSPEND)
    before = rig.site.present
    rig.restart()
    after = rig.site.present
    assert after is not before
    assert after.outlook.sketch() == before.outlook.sketch()
    assert after.workspaces == before.workspaces
    assert after.leases == before.leases
    assert after.nodes == before.nodes
    assert {id: after.addresses_held(id) for id in after.nodes} == {id: before.addresses_held(id) for id in after.nodes}


def test_a_member_that_is_released_still_counts_after_a_restart(rig):
    rig.enroll("n1")
    lease = rig.request(2)
    rig.obey()
    rig.leases.command(ANN, rig.leases.members(lease.id)[0].id, Command.TERMINATE)
    rig.obey()
    rig.restart()
    assert rig.states(lease) == ["terminated", "running"]
    rig.leases.cancel(ANN, lease.id)
    rig.obey()
    assert rig.leases.lease(ANN, lease.id).state is LeaseState.ENDED


def test_state_can_be_audited_from_the_events(rig):
    nodes = rig.enroll("n1", "n2")
    lease = rig.request(3)
    rig.obey()
    rig.leases.command(ANN, rig.leases.members(lease.id)[0].id, Command.PAUSE)
    rig.leases.extend(ANN, lease.id, 100)
    rig.leases.cancel(ADMIN, lease.id)
    rig.obey()
    workspaces, leases, who = {}, {}, {}
    events = rig.site.events(Filter(), after=0, limit=10_000)
    assert [e.seq for e in events] == sorted({e.seq for e in events})
    for event in events:
        if event.kind.startswith("workspace.") and event.kind != "workspace.released":
            workspaces[event.workspace] = event.kind.removeprefix("workspace.")
        elif event.kind.startswith("lease."):
            leases[event.lease] = event.kind.removeprefix("lease.")
            who[event.kind] = event.actor
    assert workspaces == {w.id: str(w.state) for w in rig.leases.members(lease.id)}
    assert leases == {lease.id: "ended"}
    assert who["lease.granted"] == who["lease.extended"] == "ann"
    assert who["lease.ending"] == "admin"
    assert who["lease.ended"] in {n.id for n in nodes}


def test_two_services_on_one_store_see_each_other(rig):
    rig.enroll("n1")
    first = rig.services
    lease = rig.request(2)
    rig.restart()
    second = rig.services
    # Each decides on what it knows; the commit finds out, and the decision is made again.
    one = first.leases.request(ANN, LeaseRequest((GroupRequest("demo", memory_mib=64, disk_mib=1),), 60))
    two = second.leases.request(ANN, LeaseRequest((GroupRequest("demo", memory_mib=64, disk_mib=1),), 60))
    first.site.catch_up()
    assert set(first.site.present.leases) == {lease.id, one.id, two.id} == set(second.site.present.leases)
    addresses = [w.address for w in first.site.present.workspaces.values()]
    assert len(set(addresses)) == len(addresses) == 4
    assert first.site.present.outlook.sketch() == second.site.present.outlook.sketch()


def test_a_refusal_made_on_an_old_state_is_not_believed(rig):
    rig.enroll("n1")
    first = rig.services
    rig.request(16, cpus=1)
    rig.restart()
    (lease,) = rig.site.present.leases.values()
    with pytest.raises(CannotFit):
        first.leases.request(ANN, LeaseRequest((GroupRequest("demo", memory_mib=64, disk_mib=1),), 60))
    rig.leases.cancel(ANN, lease.id)
    rig.obey()
    assert first.leases.request(ANN, LeaseRequest((GroupRequest("demo", memory_mib=64, disk_mib=1),), 60))


def test_an_empty_present_equals_a_rebuilt_one(rig):
    assert not rig.site.present.outlook.sketch()["plans"]
