"""Addresses of pools: given with the grant, reserved, held by one at a time, and taken back when nothing is left."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from tests.core.builders import World, node
from tests.core.test_cluster import break_down
from tests.core.test_kinds import follow, pass_time
from vws.core.addresses import free_in, pool_named, release, reserve
from vws.core.cluster import ClusterRequest, NetworkRequest, grow, lacking, launch, shrink, terminate
from vws.core.deployment import orders_for
from vws.core.draft import Draft
from vws.core.errors import CannotFit, Conflict, InUse, InvalidRequest, LimitReached, NameTaken, VwsError
from vws.core.lifecycle import UNORDERED, Observation
from vws.core.pools import PoolConfig, pools_of
from vws.core.present import Present
from vws.core.site import Address, Cluster, GroupRoles, OnFailure
from vws.core.terms import GroupRequest, LeaseRequest, When

POOLS = {
    "campus": PoolConfig("192.0.2.0/24", addresses=("192.0.2.16-192.0.2.20",), default=True),
    "far": PoolConfig("198.51.100.0/29", require='"far" in labels'),
}
PRIVATE, OUTSIDE = NetworkRequest("private", "10.20.0.0/24"), NetworkRequest("outside", public=True)
HEAD = GroupRequest("demo", name="head", networks=("private", "outside"))
WORKER = GroupRequest("demo", 2, name="worker", networks=("private",))


def pooled(*nodes, **configured: PoolConfig) -> World:
    world = World(*(nodes or (node(1, cpus=32), node(2, cpus=32, labels=("far",)))))
    world.present.pools = pools_of(configured or POOLS, guest_network="10.64.0.0/10")
    return world


def asked(name: str, *groups: GroupRequest, networks=(PRIVATE, OUTSIDE), **more) -> ClusterRequest:
    lease = LeaseRequest(groups or (HEAD, WORKER), 600, **more)
    roles = tuple(GroupRoles(group.name, on_failure=OnFailure.REPLACE) for group in lease.groups)
    return ClusterRequest(name, lease, networks, roles)


def launched(world: World, request: ClusterRequest, owner: str = "ann") -> Cluster:
    cluster = world.decide(launch, request, owner=owner, ids=world.ids)
    follow(world)
    return cluster


def reserved(world: World, name: str = "front", *, pool: str = "campus", owner: str = "ann", **more) -> Address:
    return world.decide(
        lambda draft: reserve(draft, pool_named(draft, pool), name, owner=owner, id=world.ids("adr"), **more)
    )


def public_of(world: World) -> dict[str, str]:
    """The pool's address of every workspace that its node has not released, by its name."""
    return {
        w.name: nic.address for w in world.present.workspaces.values() for nic in w.nics if nic.network[:3] == "pol"
    }


def held(world: World) -> dict[str, str]:
    return {a.member: a.address for a in world.present.addresses.values() if a.cluster}


def test_edge_members_have_an_address_of_the_pool_until_nothing_is_left_of_them():
    world = pooled()
    cluster = launched(world, asked("one"))
    assert public_of(world) == {"one-head-1": "192.0.2.16"}
    launched(world, asked("two"))
    assert public_of(world)["two-head-1"] == "192.0.2.17"
    world.decide(terminate, cluster)
    assert sorted(a.address for a in world.present.addresses.values()) == ["192.0.2.16", "192.0.2.17"], "not yet"
    follow(world)
    assert [a.address for a in world.present.addresses.values()] == ["192.0.2.17"]
    launched(world, asked("three"))
    assert public_of(world)["three-head-1"] == "192.0.2.16"


def test_a_node_is_told_the_pools_network_once_for_all_who_are_on_it():
    world = pooled(node(1, cpus=32))
    one, two = launched(world, asked("one")), launched(world, asked("two"))
    here = world.present.nodes["nod-001"]
    orders = orders_for(
        here, world.present.on_node(here.id), world.present.leases, world.present.images, now=0,
        clusters=world.present.clusters,
    )  # fmt: skip
    networks = {n.id: n for n in orders.networks}
    (public,) = [n for n in orders.networks if n.public]
    assert (public.cidr, public.gateway, public.outgoing, public.domain) == ("192.0.2.0/24", "192.0.2.1", True, "")
    assert len(networks) == 3, "each has its private one beside it"
    heads = [order for order in orders.workspaces if order.member == "head-1"]
    assert [nic.name for order in heads for nic in order.nics] == ["private", "outside"] * 2
    assert {order.nics[1].network for order in heads} == {public.id}
    assert len({nic.mac for order in orders.workspaces for nic in order.nics}) == 8
    assert one.networks[1].id == two.networks[1].id


def test_what_a_pool_has_not_got_is_refused_with_what_would_fit_and_changes_nothing():
    world = pooled()
    launched(world, asked("one"))
    many = asked("many", replace(HEAD, count=5))
    with pytest.raises(CannotFit) as refused:
        launched(world, many)
    assert refused.value.problem == "the pool campus has 4 free of its 5 addresses, head would take 5"
    assert refused.value.details["offers"][0]["count"] == 4
    assert list(world.present.clusters) == list(held_by(world))
    draft = Draft(world.present, actor="ann", now=world.now)
    assert lacking(draft, many, owner="ann", ids=world.ids).problem == refused.value.problem
    assert lacking(draft, asked("few", replace(HEAD, count=4)), owner="ann", ids=world.ids) is None
    launched(world, asked("few", replace(HEAD, count=4)))
    with pytest.raises(CannotFit, match="0 free of its 5"):
        world.decide(grow, next(iter(world.present.clusters.values())), "head", 1, ids=world.ids)


def held_by(world: World) -> dict[str, int]:
    return Counter(a.cluster for a in world.present.addresses.values() if a.cluster)


def test_an_address_is_held_from_the_grant_though_the_start_is_ahead():
    world = pooled()
    later = asked("later", replace(HEAD, count=5), when=When.RESERVATION, start=int(world.now) + 300)
    cluster = world.decide(launch, later, owner="ann", ids=world.ids)
    assert not world.present.workspaces
    with pytest.raises(CannotFit):
        launched(world, asked("now"))
    world.decide(terminate, cluster)
    assert not world.present.addresses
    launched(world, asked("now"))


def test_a_member_that_is_made_anew_keeps_its_address():
    world = pooled()
    launched(world, asked("one"))
    before = public_of(world)
    break_down(world, "one-head-1")
    follow(world)
    assert len([w for w in world.history.workspaces if w.name == "one-head-1"]) == 2
    assert public_of(world) == before
    assert len(world.present.addresses) == 1


def test_growing_takes_addresses_and_shrinking_gives_them_back():
    world = pooled()
    cluster = launched(world, asked("one", HEAD, replace(WORKER, networks=("outside",))))
    world.decide(grow, cluster, "worker", 2, ids=world.ids)
    follow(world)
    assert held(world) == {
        "head-1": "192.0.2.16", "worker-1": "192.0.2.17", "worker-2": "192.0.2.18", "worker-3": "192.0.2.19",
        "worker-4": "192.0.2.20",
    }  # fmt: skip
    world.decide(shrink, cluster, "worker", 3)
    follow(world)
    assert held(world) == {"head-1": "192.0.2.16", "worker-1": "192.0.2.17"}
    world.decide(grow, cluster, "worker", 1, ids=world.ids)
    assert held(world)["worker-5"] == "192.0.2.18"


def test_members_are_where_their_pool_is():
    world = pooled()
    far = NetworkRequest("outside", pool="far")
    launched(world, asked("one", HEAD, networks=(PRIVATE, far)))
    assert {w.node for w in world.present.workspaces.values()} == {"nod-002"}
    picky = replace(HEAD, requirement="cpus > 1")
    launched(world, asked("two", picky, networks=(PRIVATE, far)))
    (group,) = world.present.lease_named("two").groups
    assert group.requirement == '(cpus > 1) and ("far" in labels)'
    with pytest.raises(CannotFit):
        launched(world, asked("no", replace(HEAD, requirement='name == "n1"'), networks=(PRIVATE, far)))


def test_a_site_without_pools_gives_the_nodes_own_network():
    world = World(node(1))
    launched(world, asked("one"))
    assert not world.present.addresses
    (head,) = [w for w in world.present.workspaces.values() if w.group == "head"]
    assert head.nics[1].network == ""
    with pytest.raises(InvalidRequest) as refused:
        launched(world, asked("two", networks=(PRIVATE, NetworkRequest("outside", pool="campus"))))
    assert refused.value.field == "networks.outside.pool"


def test_which_pool_is_meant_must_be_clear():
    world = pooled(a=PoolConfig("192.0.2.0/25"), b=PoolConfig("192.0.2.128/25"))
    with pytest.raises(InvalidRequest, match="several pools"):
        launched(world, asked("one"))
    twice = (NetworkRequest("private", pool="a"), NetworkRequest("outside", pool="a"))
    with pytest.raises(InvalidRequest, match="of the same pool, a"):
        launched(world, asked("one", networks=twice))
    both = (NetworkRequest("private", pool="a"), NetworkRequest("outside", pool="b"))
    launched(world, asked("one", HEAD, networks=both))
    (head,) = world.present.workspaces.values()
    assert [nic.address for nic in head.nics] == ["192.0.2.2", "192.0.2.130"]


def test_a_cluster_does_not_grow_into_a_pool_that_is_another_by_now():
    world = pooled()
    cluster = launched(world, asked("one"))
    world.present.pools = pools_of({"campus": PoolConfig("203.0.113.0/24")}, guest_network="10.64.0.0/10")
    with pytest.raises(Conflict, match=r"is 203\.0\.113\.0/24 by now"):
        world.decide(grow, cluster, "head", 1, ids=world.ids)
    world.present.pools = {}
    with pytest.raises(InvalidRequest, match="there is no pool 'campus'"):
        world.decide(grow, cluster, "head", 1, ids=world.ids)
    break_down(world, "one-head-1")
    follow(world)
    assert public_of(world) == {"one-head-1": "192.0.2.16"}, "what it has it keeps, and its network"


# ---------------------------------------------------------------- reserved


def test_a_reserved_address_is_the_same_at_every_launch():
    world = pooled()
    reserved(world, address="192.0.2.19")
    by_name = asked("one", replace(HEAD, address="front"))
    cluster = launched(world, by_name)
    assert public_of(world) == {"one-head-1": "192.0.2.19"}
    with pytest.raises(InUse, match="held by head-1 of the cluster one"):
        launched(world, asked("two", replace(HEAD, address="front")))
    with pytest.raises(InUse, match="held by head-1 of the cluster one"):
        world.decide(release, next(iter(world.present.addresses.values())))
    world.decide(terminate, cluster)
    follow(world)
    assert [(a.name, a.cluster) for a in world.present.addresses.values()] == [("front", "")]
    launched(world, asked("two", replace(HEAD, address="192.0.2.19")))
    assert public_of(world) == {"two-head-1": "192.0.2.19"}


def test_a_reserved_address_is_nobody_elses():
    world = pooled()
    reserved(world)
    for owner, address in (("bob", "front"), ("bob", "192.0.2.16"), ("ann", "back")):
        with pytest.raises(InvalidRequest, match="you have not reserved") as refused:
            launched(world, asked("one", replace(HEAD, address=address)), owner=owner)
        assert refused.value.field == "groups.head.address"
    assert refused.value.possible == "one of: front (192.0.2.16)"
    launched(world, asked("one"), owner="bob")
    assert public_of(world) == {"one-head-1": "192.0.2.17"}


def test_what_cannot_be_reserved_is_refused():
    world = pooled()
    reserved(world, address="192.0.2.17")
    with pytest.raises(NameTaken):
        reserved(world, owner="bob")
    with pytest.raises(InUse) as refused:
        reserved(world, "more", address="192.0.2.17")
    assert refused.value.possible == "another one, such as 192.0.2.16"
    for address in ("192.0.2.99", "front", "198.51.100.2"):
        with pytest.raises(InvalidRequest, match="is not an address of the pool campus"):
            reserved(world, "more", address=address)
    with pytest.raises(InvalidRequest):
        reserved(world, "../x")
    reserved(world, "more")
    with pytest.raises(LimitReached, match="ann has 2 addresses of the pool campus reserved, and may have 2"):
        reserved(world, "third")
    for name in ("third", "fourth", "fifth"):
        reserved(world, name, unlimited=True)
    with pytest.raises(CannotFit, match="all 5 are held or reserved"):
        reserved(world, "bobs", owner="bob")


def test_a_released_address_is_the_pools_again():
    world = pooled()
    address = reserved(world)
    assert "192.0.2.16" not in free(world)
    world.decide(release, address)
    assert "192.0.2.16" in free(world)
    assert not world.present.addresses
    with pytest.raises(InvalidRequest):
        launched(world, asked("one", replace(HEAD, address="front")))


def free(world: World) -> list[str]:
    draft = Draft(world.present, actor="ann", now=world.now)
    return free_in(draft, pool_named(draft, "campus"))


@pytest.mark.parametrize(
    "group",
    [replace(HEAD, count=2, address="front"), replace(WORKER, count=1, address="front")],
    ids=["two", "private"],
)
def test_an_address_is_for_one_member_on_one_public_network(group):
    world = pooled()
    reserved(world)
    with pytest.raises(InvalidRequest) as refused:
        launched(world, asked("one", group))
    assert refused.value.field == f"groups.{group.name}.address"


# ---------------------------------------------------------------- whatever happens


class AddressLife(RuleBasedStateMachine):
    """Clusters come, grow, break, shrink and go in any order, on nodes that obey when they please."""

    clusters = Bundle("clusters")

    def __init__(self) -> None:
        super().__init__()
        self.world = pooled(node(1, cpus=64), campus=POOLS["campus"])
        self.count = 0

    def _try(self, decision, *arguments, **options):
        try:
            return self.world.decide(decision, *arguments, **options)
        except VwsError:
            return None

    @rule(
        target=clusters,
        heads=st.integers(1, 3),
        ahead_s=st.sampled_from([0, 200]),
        soft=st.booleans(),
        address=st.sampled_from(["", "", "front"]),
        owner=st.sampled_from(["ann", "bob"]),
    )
    def launch(self, heads, ahead_s, soft, address, owner):
        self.count += 1
        when = When.BEST_EFFORT if soft else When.RESERVATION if ahead_s else When.IMMEDIATE
        start = int(self.world.now) + ahead_s if when is When.RESERVATION else None
        head = replace(HEAD, count=1 if address else heads, address=address)
        request = asked(f"c{self.count}", head, when=when, start=start)
        cluster = self._try(launch, request, owner=owner, ids=self.world.ids)
        return multiple() if cluster is None else cluster

    @rule(cluster=clusters, count=st.integers(1, 2))
    def grow(self, cluster, count):
        self._try(grow, cluster, "head", count, ids=self.world.ids)

    @rule(cluster=clusters)
    def shrink(self, cluster):
        self._try(shrink, cluster, "head", 1)

    @rule(cluster=clusters)
    def terminate(self, cluster):
        self._try(terminate, cluster)

    @rule(name=st.sampled_from(["front", "back"]), owner=st.sampled_from(["ann", "bob"]))
    def reserve(self, name, owner):
        self._try(
            lambda draft: reserve(draft, pool_named(draft, "campus"), name, owner=owner, id=self.world.ids("adr"))
        )

    @rule(name=st.sampled_from(["front", "back"]))
    def release(self, name):
        for address in [a for a in self.world.present.addresses.values() if a.name == name]:
            self._try(release, address)

    @rule()
    def obey(self):
        follow(self.world)

    @rule(seconds=st.integers(1, 400))
    def wait(self, seconds):
        pass_time(self.world, seconds)

    @rule(index=st.integers(0, 9))
    def break_one(self, index):
        here = [w for w in self.world.present.workspaces.values() if w.state not in UNORDERED]
        if here:
            break_down(self.world, here[index % len(here)].name)

    @rule()
    def all_break(self):
        self.world.obey(Observation.BROKEN)

    @rule()
    def restart(self):
        kept = Present.of(self.world.history)
        kept.pools = self.world.present.pools
        assert kept.addresses == self.world.present.addresses
        for pool in kept.pools:
            assert by_id(kept.addresses_of_pool(pool)) == by_id(self.world.present.addresses_of_pool(pool))
        for id in self.world.present.clusters:
            assert by_id(kept.addresses_of_cluster(id)) == by_id(self.world.present.addresses_of_cluster(id))
        self.world.present = kept

    @invariant()
    def no_address_is_anybodys_twice(self):
        present = self.world.present
        live = list(present.addresses.values())
        assert len({a.address for a in live}) == len(live)
        used = [nic.address for w in present.workspaces.values() for nic in w.nics if nic.network[:3] == "pol"]
        assert len(set(used)) == len(used)

    @invariant()
    def who_has_an_address_holds_it(self):
        present = self.world.present
        holds = {(a.cluster, a.member): a.address for a in present.addresses.values() if a.cluster}
        for w in present.workspaces.values():
            cluster = present.leases[w.lease].cluster
            assert holds[cluster, f"{w.group}-{w.number}"] == w.nics[1].address

    @invariant()
    def nothing_is_held_by_who_is_gone(self):
        held = [a for a in self.world.present.addresses.values() if a.cluster]
        assert {a.cluster for a in held} <= self.world.present.clusters.keys()
        assert all(a.name or a.cluster for a in self.world.present.addresses.values())

    def teardown(self):
        for cluster in list(self.world.present.clusters.values()):
            self._try(terminate, cluster)
        for _ in range(3):
            follow(self.world)
        assert not [a for a in self.world.present.addresses.values() if a.cluster]


def by_id(addresses: list[Address]) -> dict[str, Address]:
    return {address.id: address for address in addresses}


TestAddressLife = AddressLife.TestCase
TestAddressLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
