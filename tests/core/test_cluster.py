"""Clusters: leases that share networks, as they are launched, grow, shrink, sleep and end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.builders import World, node
from tests.core.test_kinds import follow, pass_time, run_until
from vws.core.cluster import (
    ClusterRequest,
    ClusterState,
    NetworkRequest,
    grow,
    launch,
    members_of,
    restore,
    shrink,
    stands,
    suspend,
    terminate,
)
from vws.core.deployment import WorkspaceFact, orders_for
from vws.core.disks import Disk
from vws.core.draft import Draft
from vws.core.errors import CannotFit, CommandRefused, InvalidRequest, NameTaken
from vws.core.lifecycle import UNORDERED, Observation, State
from vws.core.present import Present
from vws.core.site import Cluster, GroupRoles, LeaseState, OnFailure
from vws.core.terms import GroupRequest, LeaseRequest, When

PRIVATE = NetworkRequest("private", "10.20.0.0/24")
OUTSIDE = NetworkRequest("outside", public=True)
HEAD = GroupRequest("demo", networks=("private", "outside"), name="head")
WORKER = GroupRequest("demo", 2, name="worker", networks=("private",), disk_mib=3072, disks=(Disk("scratch", 2048),))


def asked(name: str = "slurm", **changes: object) -> ClusterRequest:
    return replace(
        ClusterRequest(name, LeaseRequest((HEAD, WORKER), 600), (PRIVATE, OUTSIDE), file="vws: cluster/1"), **changes
    )


def launched(world: World, request: ClusterRequest | None = None) -> Cluster:
    cluster = world.decide(launch, request or asked(), owner="ann", ids=world.ids)
    follow(world)
    return cluster


def there(world: World, cluster: Cluster) -> dict[str, str]:
    """Address by name."""
    return {w.name: w.address for w in members_of(Draft(world.present, actor="ann", now=world.now), cluster)}


def how(world: World, cluster: Cluster) -> tuple[ClusterState, str]:
    """How it stands, without a context."""
    leases = world.present.leases_of_cluster(cluster.id)
    return stands(cluster, leases, [w for lease in leases for w in world.present.members(lease.id)], None)


def two_nodes() -> World:
    return World(node(1, cpus=4), node(2, cpus=8))


def test_a_cluster_runs_on_one_node_in_its_own_network():
    world = two_nodes()
    first, second = launched(world), launched(world, asked("other"))
    assert there(world, first) == {
        "slurm-head-1": "10.20.0.2",
        "slurm-worker-1": "10.20.0.3",
        "slurm-worker-2": "10.20.0.4",
    }
    assert list(there(world, second).values()) == list(there(world, first).values()), "in a network of its own"
    for lease in world.present.leases.values():
        assert len({w.node for w in world.members(lease)}) == 1
    macs = [nic.mac for w in world.history.workspaces for nic in w.nics]
    assert len(set(macs)) == len(macs) == 8
    head = next(w for w in world.history.workspaces if w.name == "slurm-head-1")
    assert [nic.address.rsplit(".", 1)[0] for nic in head.nics] == ["10.20.0", f"10.64.{head.node[-1]}"]


def test_a_node_is_told_the_networks_that_its_members_are_on():
    world = two_nodes()
    cluster = launched(world)
    present = world.present
    told = []
    for each in present.nodes.values():
        orders = orders_for(
            each, present.on_node(each.id), present.leases, present.images, now=0, clusters=present.clusters
        )
        told += orders.networks
        for order in orders.workspaces:
            assert [nic.name for nic in order.nics] == ["private", "outside"][: 2 - ("worker" in order.name)]
            assert order.name == f"slurm-{order.member}"
            assert order.disk_mib == 1024
            assert [disk.name for disk in order.disks] == ["scratch"] * ("worker" in order.name)
    (network,) = told
    assert (network.id, network.cidr, network.gateway) == (cluster.networks[0].id, "10.20.0.0/24", "10.20.0.1")
    assert network.domain == "slurm.vws.internal"


def test_what_no_single_node_could_hold_is_refused_with_what_could_be_had():
    world = two_nodes()
    wide = asked(lease=LeaseRequest((HEAD, replace(WORKER, count=8)), 600))
    with pytest.raises(CannotFit) as refused:
        launched(world, wide)
    assert not world.present.clusters
    fewer = next(offer for offer in refused.value.details["offers"] if offer["kind"] == "fewer")
    assert (fewer["group"], fewer["count"]) == ("worker", 7)
    assert fewer["text"] == "7 of worker and all others would fit now"
    assert not world.present.leases
    launched(world, replace(wide, networks=(NetworkRequest("private", public=True), OUTSIDE)))


def test_a_cluster_grows_beside_its_members_until_the_same_end():
    world = two_nodes()
    cluster = launched(world)
    pass_time(world, 100)
    lease = world.decide(grow, cluster, "worker", 2, ids=world.ids)
    assert lease.end == next(iter(world.present.leases_of_cluster(cluster.id))).end
    follow(world)
    again = world.decide(grow, cluster, "worker", 1, ids=world.ids)
    follow(world)
    assert list(there(world, cluster).items())[3:] == [
        ("slurm-worker-3", "10.20.0.5"),
        ("slurm-worker-4", "10.20.0.6"),
        ("slurm-worker-5", "10.20.0.7"),
    ]
    assert len({w.node for w in world.history.workspaces}) == 1
    assert [lease.name, again.name] == ["slurm-more1", "slurm-more2"]
    with pytest.raises(CannotFit) as refused:
        world.decide(grow, cluster, "worker", 20, ids=world.ids)
    offers = refused.value.details["offers"]
    assert [offer["kind"] for offer in offers] == ["fewer"], "neither its end nor its size is to choose"
    world.decide(grow, cluster, "worker", offers[0]["count"], ids=world.ids)
    here = next(iter({w.node for w in world.history.workspaces}))
    reasons = {told["node"]: told["reason"] for told in refused.value.details["nodes"]}
    name = world.present.nodes[here].name
    assert reasons.pop(here) == "it has room for some of them, not for all"
    assert list(reasons.values()) == [f"the cluster's network is on node {name}"]
    with pytest.raises(InvalidRequest, match="no group 'wroker'"):
        world.decide(grow, cluster, "wroker", 1, ids=world.ids)
    run_until(world, lease.end + 60)
    assert not world.present.clusters
    ended = [c for c in world.history.clusters if c.id == cluster.id]
    assert ended[-1].ended_at is not None


def test_a_cluster_shrinks_by_its_last_members_and_takes_their_addresses_back():
    world = two_nodes()
    cluster = launched(world)
    world.decide(grow, cluster, "worker", 1, ids=world.ids)
    follow(world)
    gone = world.decide(shrink, cluster, "worker", 2)
    assert [w.name for w in gone] == ["slurm-worker-2", "slurm-worker-3"]
    follow(world)
    assert list(there(world, cluster)) == ["slurm-head-1", "slurm-worker-1"]
    world.decide(grow, cluster, "worker", 1, ids=world.ids)
    assert there(world, cluster)["slurm-worker-4"] == "10.20.0.4", "numbers are not used again, addresses are"
    with pytest.raises(InvalidRequest, match="2 members, and one stays"):
        world.decide(shrink, cluster, "worker", 2)


def test_a_cluster_sleeps_and_wakes_as_a_whole():
    world = two_nodes()
    cluster = launched(world)
    assert how(world, cluster) == (ClusterState.READY, "")
    world.decide(suspend, cluster)
    assert how(world, cluster) == (ClusterState.CONFIGURING, "slurm-head-1 is suspending")
    follow(world)
    assert {w.state for w in world.history.workspaces} == {State.SUSPENDED}
    assert how(world, cluster) == (ClusterState.SUSPENDED, "")
    world.decide(restore, cluster)
    assert how(world, cluster) == (ClusterState.CONFIGURING, "slurm-head-1 is restoring")
    follow(world)
    assert {w.state for w in world.history.workspaces} == {State.RUNNING}
    assert how(world, cluster) == (ClusterState.READY, "")


def test_a_cluster_ends_with_all_of_its_leases():
    world = two_nodes()
    cluster = launched(world)
    world.decide(grow, cluster, "worker", 1, ids=world.ids)
    follow(world)
    world.decide(terminate, cluster)
    world.decide(terminate, cluster)
    follow(world)
    assert not world.present.leases
    assert not world.present.clusters
    with pytest.raises(CommandRefused, match="has ended or is ending"):
        world.decide(grow, cluster, "worker", 1, ids=world.ids)
    launched(world)  # its name is free again


def test_a_restart_finds_clusters_as_they_were():
    world = two_nodes()
    cluster = launched(world)
    kept = Present.of(world.history)
    assert list(kept.clusters) == [cluster.id]
    assert kept.leases_of_cluster(cluster.id) == world.present.leases_of_cluster(cluster.id)
    assert kept.outlook.sketch() == world.present.outlook.sketch()
    world.present = kept
    world.decide(grow, cluster, "worker", 1, ids=world.ids)
    assert there(world, cluster)["slurm-worker-3"] == "10.20.0.5"


def test_a_cluster_may_wait_for_room():
    world = two_nodes()
    first = launched(world, asked(lease=LeaseRequest((HEAD, replace(WORKER, count=4)), 300)))
    assert first
    later = launched(
        world, asked("later", lease=LeaseRequest((HEAD, replace(WORKER, count=6)), 60, when=When.BEST_EFFORT))
    )
    (lease,) = world.present.leases_of_cluster(later.id)
    assert lease.state is LeaseState.WAITING
    run_until(world, int(world.now) + 320)
    (lease,) = world.present.leases_of_cluster(later.id)
    assert lease.state is LeaseState.ACTIVE


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"networks": (replace(PRIVATE, cidr="10.20.0.0"), OUTSIDE)}, "networks.private.range"),
        ({"networks": (replace(PRIVATE, cidr="8.8.8.0/24"), OUTSIDE)}, "networks.private.range"),
        ({"networks": (replace(PRIVATE, cidr="10.0.0.0/8"), OUTSIDE)}, "networks.private.range"),
        ({"networks": (PRIVATE, PRIVATE, OUTSIDE)}, "networks"),
        ({"networks": (OUTSIDE,)}, "groups.head.networks"),
        ({"name": "x" * 31}, "name"),
        ({"name": "../x"}, "name"),
        ({"lease": LeaseRequest((replace(WORKER, apart=True),), 60)}, "groups.worker.apart"),
        ({"lease": LeaseRequest((replace(WORKER, name=""),), 60)}, "groups"),
        ({"lease": LeaseRequest((WORKER,), 60, when=When.PERIODIC, rule="FREQ=DAILY;COUNT=2")}, "lease.when"),
    ],
)
def test_what_is_no_cluster_is_refused(change, field):
    world = two_nodes()
    with pytest.raises(InvalidRequest) as refused:
        launched(world, asked(**change))
    assert refused.value.field == field
    assert not world.present.clusters


def test_two_clusters_cannot_have_one_name():
    world = two_nodes()
    launched(world)
    with pytest.raises(NameTaken):
        launched(world)


def break_down(world: World, name: str) -> None:
    """The member breaks, and its node removes what is left; the others do as they are told."""
    broken = next(w for w in reversed(world.history.workspaces) if w.name == name and w.released_at is None)
    ordered = [w for w in world.present.on_node(broken.node) if w.state not in UNORDERED]
    said = [
        WorkspaceFact(w.id, Observation.BROKEN if w.id == broken.id else Observation.RUNNING, reason="no boot", boots=1)
        for w in ordered
    ]
    world.report(broken.node, *said)
    follow(world)


def replacing(on_failure: OnFailure = OnFailure.REPLACE) -> ClusterRequest:
    return asked(roles=(GroupRoles("worker", on_failure=on_failure),))


def test_a_member_that_does_not_boot_is_made_anew_within_the_lease():
    world = World(node(1, cpus=3))
    cluster = world.decide(launch, replacing(), owner="ann", ids=world.ids)
    break_down(world, "slurm-worker-1")
    follow(world)
    (lease,) = world.present.leases_of_cluster(cluster.id)
    assert lease.state is LeaseState.ACTIVE
    assert len(there(world, cluster)) == 3
    made = [w for w in world.history.workspaces if w.name == "slurm-worker-1"]
    assert [w.state for w in made] == [State.FAILED, State.RUNNING]
    assert Present.of(world.history).outlook.sketch() == world.present.outlook.sketch()
    with pytest.raises(CannotFit):
        world.grant(GroupRequest("demo"))  # its room was not given to anybody


def test_a_member_that_breaks_later_is_made_anew_too():
    world = two_nodes()
    cluster = launched(world, replacing())
    break_down(world, "slurm-worker-2")
    (lease,) = world.present.leases_of_cluster(cluster.id)
    assert lease.state is LeaseState.DEGRADED
    assert lease.reason == "slurm-worker-2 is failed: no boot; made anew"
    assert how(world, cluster) == (ClusterState.CONFIGURING, lease.reason), "it goes on: who waits for it waits on"
    follow(world)
    assert how(world, cluster)[0] is ClusterState.READY
    (lease,) = world.present.leases_of_cluster(cluster.id)
    assert (lease.state, lease.reason) == (LeaseState.ACTIVE, "")


def test_where_member_after_member_fails_the_cluster_does():
    world = two_nodes()
    cluster = world.decide(launch, replacing(), owner="ann", ids=world.ids)
    for _ in range(4):
        assert world.present.leases_of_cluster(cluster.id)
        break_down(world, "slurm-worker-1")
    follow(world)
    lease = next(lease for lease in world.history.leases if lease.cluster == cluster.id)
    assert (lease.state, lease.reason) == (LeaseState.FAILED, "slurm-worker-1 is failed: no boot")
    assert len([w for w in world.history.workspaces if w.name == "slurm-worker-1"]) == 4


def test_without_replacement_a_cluster_that_does_not_boot_as_a_whole_has_failed():
    world = two_nodes()
    cluster = world.decide(launch, replacing(OnFailure.FAIL), owner="ann", ids=world.ids)
    break_down(world, "slurm-worker-1")
    follow(world)
    assert next(x for x in world.history.leases if x.cluster == cluster.id).state is LeaseState.FAILED
    assert not world.present.clusters
