"""Random sites living random lives: what must hold whatever happens."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from tests.core.builders import World, node
from vws.core.agreement import cancel, command
from vws.core.amendment import extend, resize
from vws.core.deployment import WorkspaceFact
from vws.core.errors import VwsError
from vws.core.lifecycle import FINAL, UNORDERED, Command, Observation
from vws.core.present import Present
from vws.core.site import LEASE_FINAL, LeaseState
from vws.core.standing import BROKEN, Patience, expire, listen
from vws.core.terms import GroupRequest

FACTS = [o for o in Observation if o not in (Observation.GONE, Observation.SILENT)]


class SiteLife(RuleBasedStateMachine):
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            node(1, cpus=2, memory_mib=1500, cpu_ratio=2.0, overhead_mib=50),
            node(2, cpus=8, memory_mib=1800),
            node(3, cpus=4, memory_mib=1300, disk_mib=3000),
        )
        # What the nodes really have, which the record can only learn from reports: workspace -> address.
        self.real = {id: {} for id in self.world.present.nodes}
        self.pulled = {id: (0, set()) for id in self.world.present.nodes}

    @initialize(target=leases)
    def begin(self):
        return self.world.grant(GroupRequest("demo", 2, 1, 100, 10), GroupRequest("demo", 1, 2, 300, 10, name="b"))

    @rule(
        target=leases,
        sizes=st.lists(
            st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(32, 900), st.integers(1, 1500)),
            min_size=1,
            max_size=3,
        ),
        duration_s=st.integers(1, 500),
    )
    def grant(self, sizes, duration_s):
        groups = [
            GroupRequest("demo", count, cpus, memory, disk, name=f"g{i}")
            for i, (count, cpus, memory, disk) in enumerate(sizes)
        ]
        held = set(self.world.present.workspaces)
        try:
            lease = self.world.grant(*groups, duration_s=duration_s)
        except VwsError:
            assert set(self.world.present.workspaces) == held, "a refusal leaves nothing behind"
            return multiple()
        assert len(self.world.present.members(lease.id)) == sum(g.count for g in groups), "all of it"
        return lease

    @rule(lease=leases, order=st.sampled_from(Command), index=st.integers(0, 9))
    def command(self, lease, order, index):
        members = [w for w in self._members(lease) if w.id in self.world.present.workspaces]
        if members:
            self._try(command, members[index % len(members)], order)

    @rule(lease=leases, what=st.sampled_from(["cancel", "extend", "shrink", "grow"]))
    def change(self, lease, what):
        if self.world.lease(lease.id).ended:
            return
        now = self.world.lease(lease.id)
        if what == "cancel":
            self._try(cancel, now)
        elif what == "extend":
            self._try(extend, now, 100)
        else:
            self._try(resize, now, group=None, memory_mib=64 if what == "shrink" else 700, cpus=1)

    @rule(which=st.integers(1, 3), stuck=st.integers(0, 3))
    def pull(self, which, stuck):
        """A node takes its orders: it makes what is new and removes what is not ordered, some of it not at once."""
        id = f"nod-{which:03d}"
        ordered = {w.id: w.address for w in self.world.present.on_node(id) if w.state not in UNORDERED}
        leaving = sorted(self.real[id].keys() - ordered.keys())
        self.real[id] = {w: self.real[id][w] for w in leaving[:stuck]} | ordered
        self.pulled[id] = self.world.present.nodes[id].generation, set(ordered)

    @rule(which=st.integers(1, 3), facts=st.lists(st.sampled_from(FACTS), max_size=12))
    def report(self, which, facts):
        """A node says anything about what it has, under the orders that it pulled last."""
        id = f"nod-{which:03d}"
        generation, ordered = self.pulled[id]
        said = []
        for index, workspace in enumerate(sorted(self.real[id])):
            fact = facts[index] if index < len(facts) else Observation.RUNNING
            if workspace not in ordered:
                fact = Observation.REMOVING
            if fact is Observation.ENDED:
                del self.real[id][workspace]
            known = self.world.present.workspaces.get(workspace)
            said.append(WorkspaceFact(workspace, fact, boots=known.boots if known else 1))
        self.world.report(id, *said, generation=generation)

    @rule()
    def obey(self):
        for which in (1, 2, 3):
            self.pull(which, 0)
            self.report(which, [])

    @rule(seconds=st.integers(1, 300))
    def time_passes(self, seconds):
        self.world.now += seconds
        self.world.decide(expire, actor="site")

    @rule(which=st.integers(1, 3), age=st.sampled_from([0.0, 30.0, 90.0]))
    def silence(self, which, age):
        self.world.decide(listen, {f"nod-{which:03d}": age}, Patience(), actor="site")

    def _members(self, lease):
        return self.world.members(lease)

    def _try(self, decision, *arguments, **options):
        try:
            self.world.decide(decision, *arguments, **options)
        except VwsError:
            pass

    # ------------------------------------------------------------ what must hold

    @invariant()
    def no_address_is_held_twice_and_each_is_its_nodes(self):
        held = [w.address for w in self.world.present.workspaces.values()]
        assert len(held) == len(set(held))
        for w in self.world.present.workspaces.values():
            subnet = ipaddress.ip_network(self.world.present.nodes[w.node].subnet)
            assert ipaddress.ip_address(w.address) in subnet
            assert w.address != self.world.present.nodes[w.node].gateway

    @invariant()
    def what_really_has_an_address_holds_it(self):
        for id, domains in self.real.items():
            addresses = list(domains.values())
            assert len(addresses) == len(set(addresses)), "two domains with one address"
            assert set(addresses) <= self.world.present.addresses_held(id), "an address returned while it was in use"

    @invariant()
    def no_node_is_over_capacity(self):
        for n in self.world.present.nodes.values():
            held = [n.capacity.taken_by(w.held) for w in self.world.present.on_node(n.id)]
            for name in ("cpus", "memory_mib", "disk_mib"):
                assert sum(getattr(size, name) for size in held) <= getattr(n.capacity.size, name), n.name

    @invariant()
    def the_memory_is_what_the_record_says(self):
        alive = [x for x in self.world.history.leases if x.state not in LEASE_FINAL]
        ids = {x.id for x in alive}
        rebuilt = Present()
        rebuilt.apply(self.world.history, self.world.now)
        assert rebuilt.outlook.sketch() == self.world.present.outlook.sketch()
        assert set(rebuilt.leases) == set(self.world.present.leases) == ids
        assert rebuilt.workspaces == self.world.present.workspaces

    @invariant()
    def the_events_tell_the_states(self):
        told = {}
        for event in self.world.history.events:
            if event.workspace and event.kind not in ("workspace.released",):
                told[event.workspace] = event.kind.removeprefix("workspace.")
        assert told == {w.id: str(w.state) for w in self.world.history.workspaces}

    @invariant()
    def a_lease_is_what_its_workspaces_are(self):
        for lease in self.world.history.leases:
            members = self.world.members(lease)
            if lease.ended:
                assert all(w.released_at for w in members), "ended means that nothing is left"
            elif lease.state is LeaseState.ACTIVE:
                assert not [w for w in members if w.state in BROKEN]
            if lease.state is not LeaseState.ENDING and not lease.ended:
                assert any(w.state not in UNORDERED for w in members)

    @invariant()
    def nothing_final_holds_a_slot_after_its_release(self):
        for w in self.world.history.workspaces:
            if w.released_at is not None:
                assert w.state in FINAL
                assert w.id not in self.world.present.workspaces


class SiteLifeAtLength(SiteLife):
    pass


SiteLife.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
SiteLifeAtLength.TestCase.settings = settings(max_examples=1000, stateful_step_count=40, deadline=None)
SiteLifeAtLength.TestCase.pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]
TestSiteLife = SiteLife.TestCase
TestSiteLifeAtLength = SiteLifeAtLength.TestCase
