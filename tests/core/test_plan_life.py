"""Random sites whose plan lives through everything that goes wrong: what was promised holds, and nothing is forgotten.

`PlanKept` is a site where all goes well: there promises are kept to the second. `PlanLife` is one where nodes, guests,
messages and the service itself fail at any moment: there the plan is what the record says, nothing is over capacity,
what is granted stands, saved work is not lost, and once the trouble is over everybody is served and nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from tests.core.builders import World, node
from tests.core.hosts import Host, Letter
from vws.core.agreement import Series, cancel, command
from vws.core.amendment import extend, resize
from vws.core.deployment import NodeReport
from vws.core.draft import Draft
from vws.core.enactment import advance, settle_plan
from vws.core.errors import VwsError
from vws.core.lifecycle import Command, Desired, Observation, State
from vws.core.maintenance import forget_maintenances, pass_time, plan_maintenance, remove_maintenance
from vws.core.outlook import latest_members
from vws.core.plan.profile import FOREVER, NOTHING
from vws.core.plan.timeline import Timeline
from vws.core.present import Present
from vws.core.site import LEASE_AHEAD, Changes, Lease, LeaseKind, LeaseState, PlanPhase
from vws.core.standing import TIME_OVER, Patience, absorb, expire, forsake, listen
from vws.core.terms import Exceptions, GroupRequest, When

PATIENCE = Patience()
SIZES = st.tuples(st.sampled_from([2, 1, 3]), st.sampled_from([4, 2, 1]), st.sampled_from([900, 200, 1900]))
GROUPS = st.lists(SIZES, min_size=1, max_size=2)
AWAKE = (Observation.STAGING, Observation.RUNNING, Observation.PAUSED)
LEASES = Bundle("leases")
NODES = st.integers(0, 2)
TROUBLES = ["cut", "back", "back", "power", "drain", "undrain", "overhead", "disks", "removed", "new"]


class Broken(Exception):
    """What is thrown into a decision."""


class Site(World):
    """A world with machines, whose plan is made anew exactly when the service would."""

    def __init__(self) -> None:
        super().__init__(
            node(1, cpus=4, memory_mib=4096),
            node(2, cpus=8, memory_mib=6000, overhead_mib=50),
            node(3, cpus=4, memory_mib=2100, disk_mib=3000),
        )
        self.hosts = {id: Host(id, self.now) for id in self.present.nodes}
        self.hosts["nod-002"].overhead_mib = 50
        self.former: list[Host] = []
        self.cut: set[str] = set()  # hosts that nobody hears

    def decide(self, decision: Callable[..., object], *arguments: object, actor: str = "ann", **options: object):
        draft, moves = Draft(self.present, actor=actor, now=self.now), self.present.outlook.planner.moves
        try:
            result = decision(draft, *arguments, **options)
            settle_plan(draft, self.ids)
        except BaseException:
            if self.present.outlook.planner.moves != moves:
                self.present.plan_anew(self.now)
            raise
        self.apply(draft.changes)
        return result

    def rebuilt(self) -> Present:
        """The site as a restarted service finds it: what is over is not read."""
        present, kept = Present(), self.history
        alive = {lease.id for lease in kept.leases if not lease.ended}
        record = Changes(
            leases=tuple(lease for lease in kept.leases if lease.id in alive),
            workspaces=tuple(w for w in kept.workspaces if w.lease in alive),
            nodes=tuple(n for n in kept.nodes if n.removed_at is None),
            images=kept.images,
            maintenances=tuple(m for m in kept.maintenances if m.removed_at is None),
        )
        present.apply(record, self.now)
        return present

    # ------------------------------------------------------------ time and messages

    def tick(self, seconds: float = 0) -> None:
        """As the reconciler does it, two times a second or whenever it comes to it."""
        for id, host in self.hosts.items():
            host.live(self.now, self.now + seconds)
            if id not in self.cut:
                host.heard_at = self.now + seconds
        self.now += seconds
        ages = {id: self.now - host.heard_at for id, host in self.hosts.items()}

        def pass_by(draft: Draft) -> None:
            expire(draft)
            listen(draft, ages, PATIENCE)
            pass_time(draft)
            advance(draft, self.ids)

        self.decide(pass_by, actor="site")

    def deliver(self, letter: Letter) -> None:
        host, known = self.hosts.get(letter.host), self.present.nodes.get(letter.host)
        if host is None or known is None:
            return
        host.heard_at = self.now
        if letter.number <= host.told:
            return
        host.told = letter.number
        capacity = replace(known.capacity, overhead_mib=letter.overhead_mib)
        report = NodeReport(
            letter.host, "inst", 1, letter.number, letter.generation, self.now, capacity, "", workspaces=letter.facts
        )
        self.decide(absorb, report, actor=letter.host)

    def exchange(self, id: str, *, slow: int = 0, pulls: bool = True) -> Letter:
        """A host takes its orders, works at them, and writes what there is."""
        host = self.hosts[id]
        if pulls:
            host.pull(self.present, self.now)
        busy = sorted({*host.guests, *(o.id for o in host.orders.workspaces if host.orders)} if host.orders else ())
        host.work(self.now, busy[:slow])
        return host.write(self.now)

    def follow(self) -> None:
        for id in list(self.hosts):
            if id not in self.cut:
                self.deliver(self.exchange(id))

    def take_out(self, id: str) -> None:
        def decide(draft: Draft) -> None:
            known = draft.present.nodes[id]
            forsake(draft, known)
            forget_maintenances(draft, known)
            draft.put_node(replace(draft.node(id), removed_at=draft.now))

        self.decide(decide, actor="admin")
        self.former.append(self.hosts.pop(id))
        self.cut.discard(id)

    def put_in(self, number: int) -> None:
        new = node(number, cpus=16, memory_mib=16_000)
        self.apply(Changes(nodes=(new,)))
        self.hosts[new.id] = Host(new.id, self.now)

    def window(self, id: str, start: int, duration_s: int) -> None:
        terms = {"id": self.ids("mnt"), "start": start, "duration_s": duration_s, "reason": "disks"}
        self.decide(plan_maintenance, self.present.nodes[id], **terms, actor="admin")


class PlanMachine(RuleBasedStateMachine):
    """What is asked for, and what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.site = Site()
        self.promised: dict[str, tuple[int, int]] = {}
        self.worked: dict[str, int] = {}
        self.troubled: set[str] = set()  # leases whose guests did not just run

    # ------------------------------------------------------------ asking

    @rule(
        target=LEASES,
        sizes=GROUPS,
        duration_s=st.sampled_from([60, 200, 20, 900]),
        kind=st.sampled_from(["reservation", "urgent", "immediate", "urgent reservation", "series", "deadline"]),
        ahead_s=st.sampled_from([100, 200, 40, 600]),
        preemptible=st.booleans(),
    )
    def ask_hard(self, sizes, duration_s, kind, ahead_s, preemptible):
        now = int(self.site.now)
        terms = {
            "immediate": {},
            "urgent": {"urgent": True},
            "reservation": {"when": When.RESERVATION, "start": now + ahead_s},
            "urgent reservation": {"when": When.RESERVATION, "start": now + ahead_s, "urgent": True},
            "series": {
                "when": When.PERIODIC,
                "rule": "FREQ=HOURLY;COUNT=2",
                "start": now + ahead_s,
                "exceptions": Exceptions.SKIP,
            },
            "deadline": {"when": When.DEADLINE, "deadline": now + ahead_s + duration_s},
        }[kind]
        return self._ask(sizes, duration_s, terms | {"preemptible": preemptible})

    @rule(
        target=LEASES,
        sizes=GROUPS,
        duration_s=st.sampled_from([900, 300, 100, 20]),
        preemptible=st.sampled_from([True, True, True, False]),
        restartable=st.sampled_from([False, False, True]),
        script=st.sampled_from([False, False, True]),
    )
    def ask_soft(self, sizes, duration_s, preemptible, restartable, script):
        terms = {"when": When.BEST_EFFORT, "preemptible": preemptible, "restartable": restartable}
        return self._ask(sizes, duration_s, terms | ({"command": "#!/bin/sh\ntrue\n"} if script else {}))

    @rule(
        target=LEASES,
        soft_s=st.sampled_from([300, 900]),
        wide=st.integers(1, 4),
        ahead_s=st.sampled_from([100, 40, 200]),
        hard_s=st.sampled_from([60, 20, 200]),
        restartable=st.sampled_from([False, False, True]),
        seconds=st.sampled_from([30, 1, 10]),
    )
    def crowd(self, soft_s, wide, ahead_s, hard_s, restartable, seconds):
        """What can be saved runs, and somebody with a time wants its nodes."""
        terms = {"when": When.BEST_EFFORT, "preemptible": True, "restartable": restartable}
        soft = self._ask([(wide, 4, 900)], soft_s, terms)
        self.run(seconds, 1)
        start = int(self.site.now) + ahead_s
        hard = self._ask([(min(wide + 1, 4), 4, 900)], hard_s, {"when": When.RESERVATION, "start": start})
        return multiple(*soft.values, *hard.values)

    def _ask(self, sizes, duration_s, terms):
        groups = [GroupRequest("demo", *size, 300, name=f"g{i}") for i, size in enumerate(sizes)]
        held = set(self.site.present.workspaces)
        try:
            granted = self.site.decide_grant(*groups, duration_s=duration_s, **terms)
        except VwsError:
            assert set(self.site.present.workspaces) == held, "a refusal leaves nothing behind"
            return multiple()
        leases = granted.leases if isinstance(granted, Series) else (granted,)
        for lease in leases:
            if not lease.kind.soft and not lease.preemptible:
                self.promised[lease.id] = lease.run
        return multiple(*leases)

    @rule(lease=LEASES, what=st.sampled_from(["extend", "extend", "cancel"]), seconds=st.integers(1, 400))
    def change(self, lease, what, seconds):
        present = self.site.lease(lease.id)
        if present.ended or not self._try(*((extend, present, seconds) if what == "extend" else (cancel, present))):
            return
        self.troubled.add(lease.id)  # its nodes may hear of it too late
        if what == "extend" and lease.id in self.promised:
            start, end = self.promised[lease.id]
            self.promised[lease.id] = start, end + seconds

    def _try(self, decision, *arguments, **options) -> bool:
        try:
            self.site.decide(decision, *arguments, **options)
        except VwsError:
            return False
        return True

    def members(self, lease: Lease):
        return [w for w in self.site.history.workspaces if w.lease == lease.id]

    # ------------------------------------------------------------ what must hold

    @invariant()
    def the_plan_is_what_the_record_says(self):
        mine, theirs = self.site.present.outlook, self.site.rebuilt().outlook
        assert mine.sketch() == theirs.sketch()
        one, other = mine.planner, theirs.planner
        assert {d.id for d in one.booked} == {d.id for d in other.booked}
        assert {d.id for d in one.promised} == {d.id for d in other.promised}
        assert one._hard_ahead == other._hard_ahead
        assert one._restoring == other._restoring
        assert one._used == other._used
        assert one._capacity == other._capacity
        assert not one.actions

    @invariant()
    def every_profile_is_what_its_blocks_take(self):
        check_profiles(self.site)

    @invariant()
    def no_machine_is_over_capacity(self):
        """Counted on the machines: what is saved takes disk only. What is being saved, and what is resumed until the
        planned end of that, has no CPUs of its own: it may take those that others leave."""
        records = {w.id: w for w in self.site.history.workspaces}
        without = {x.id for x in self.site.history.leases if x.plan and x.plan.phase is PlanPhase.SAVING}
        without |= {
            e.lease for e in self.site.history.events if e.kind == "lease.resuming" and e.data["run"] > self.site.now
        }
        for id, host in self.site.hosts.items():
            offered = self.site.present.nodes[id].capacity.size
            here = [(records[w], guest) for w, guest in host.guests.items() if not self._returns(host, w)]
            awake = [w for w, guest in here if guest.state in AWAKE]
            assert sum(w.held.disk_mib for w, _ in here) <= offered.disk_mib, id
            assert sum(w.cpus for w in awake if w.lease not in without) <= offered.cpus, (id, here)
            assert sum(w.held.memory_mib for w in awake) <= offered.memory_mib, (id, here)

    def _returns(self, host, workspace):
        """Whether the host was given up for lost while it ran this, and is to save it as soon as it is back."""
        return False

    @invariant()
    def what_was_granted_stands(self):
        for lease in self.site.history.leases:
            if lease.id in self.promised:
                start, end = self.promised[lease.id]
                if lease.urgent and lease.start < start:  # it waits for nothing but room
                    start, end = self.promised[lease.id] = lease.start, end - start + lease.start
                assert lease.run == (start, end)

    @invariant()
    def all_or_nothing(self):
        for lease in self.site.history.leases:
            made = {(w.group, w.number) for w in self.members(lease)}
            assert len(made) in (0, sum(group.count for group in lease.groups))

    @invariant()
    def work_is_not_lost(self):
        for lease in self.site.history.leases:
            before = self.worked.get(lease.id, 0)
            assert lease.worked_s >= before or lease.restartable, lease
            assert lease.worked_s <= lease.duration_s
            self.worked[lease.id] = lease.worked_s

    @invariant()
    def the_events_tell_the_states(self):
        states = {str(state) for state in LeaseState}
        told: dict[str, str] = {}
        for event in self.site.history.events:
            kind = event.kind.removeprefix("lease.")
            if kind == "granted":
                told[event.lease] = ""
            elif event.lease and not event.workspace and kind in states:
                told[event.lease] = kind
        for lease in self.site.history.leases:
            last = told[lease.id]
            assert last == str(lease.state) or (last == "" and lease.state in LEASE_AHEAD), lease

    @invariant()
    def what_ended_before_it_began_says_why(self):
        for lease in self.site.history.leases:
            if lease.state is LeaseState.FAILED:
                assert lease.reason, lease


def check_profiles(site: Site) -> None:
    """The room of every node, added up from what there is."""
    outlook, now = site.present.outlook, int(site.now)
    mine = outlook.planner.timeline
    truth = Timeline([profile.capacity for profile in mine.profiles])
    for index, amount, window in outlook._windows.values():
        truth.profiles[index].take(amount, max(window.start, 0), window.end)
    for demand in outlook.planner.demands.values():
        if demand.kept:
            hosts = demand.block.hosts if demand.block is not None else demand.saved_on
            sizes = [part.kept_size for part in demand.parts for _ in range(part.count)]
            for host, size in zip(hosts, sizes, strict=True):
                if host >= 0:
                    truth.profiles[host].take(size, now, FOREVER)
        if demand.block is not None:
            truth.lay(demand.parts, demand.block, now)
    for index, (one, other) in enumerate(zip(mine.profiles, truth.profiles, strict=True)):
        times = {now, *(t for t in (*one.times, *other.times) if t > now)}
        for at in sorted(times):
            assert one.free_at(at) == other.free_at(at), f"node {index} at {at - now} s from now"


class PlanKept(PlanMachine):
    """All goes well: every host does at once what it is told."""

    @initialize()
    def begin(self):
        self.site.follow()

    @rule(seconds=st.sampled_from([100, 30, 7, 1]), times=st.integers(1, 3))
    def run(self, seconds, times):
        for _ in range(seconds * times):
            self.site.tick(1)
            self.site.follow()

    @invariant()
    def promises_are_kept_to_the_second(self):
        now = self.site.now
        for lease in self.site.history.leases:
            if lease.state is LeaseState.PLANNED:
                # Who takes nodes at once first waits for those to be gone who were there.
                assert now <= lease.start + 2 * (lease.kind is LeaseKind.IMMEDIATE), lease
            if lease.deadline is not None and now > lease.deadline + 5:
                assert lease.ended or lease.id in self.troubled, lease


class PlanLife(PlanMachine):
    """Anything may fail at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.letters: list[Letter] = []

    def _host(self, which: int) -> str | None:
        ids = sorted(self.site.hosts)
        return ids[which] if which < len(ids) else None

    def _returns(self, host, workspace):
        order = next((o for o in host.orders.workspaces if o.id == workspace), None) if host.orders else None
        was_lost = any(e.kind == "node.lost" and e.node == host.id for e in self.site.history.events)
        return was_lost and order is not None and order.desired is Desired.SUSPEND

    # ------------------------------------------------------------ the way it goes

    @rule(seconds=st.sampled_from([10, 30, 3, 100, 1]), times=st.integers(1, 8))
    def run(self, seconds, times):
        for _ in range(times):
            self.site.tick(seconds)
            self.site.follow()

    @rule(seconds=st.sampled_from([1, 7, 0.5, 0, 61, 300]))
    def tick(self, seconds):
        self.site.tick(seconds)

    @rule(which=NODES, slow=st.integers(0, 3), fate=st.sampled_from(["arrives", "late", "lost"]), pulls=st.booleans())
    def exchange(self, which, slow, fate, pulls):
        id = self._host(which)
        if id is None or id in self.site.cut:
            return
        letter = self.site.exchange(id, slow=slow, pulls=pulls)
        if fate == "arrives":
            self.site.deliver(letter)
        elif fate == "late":
            self.letters.append(letter)

    @rule(which=st.integers(0, 5), again=st.booleans())
    def a_late_letter_arrives(self, which, again):
        if which < len(self.letters):
            self.site.deliver(self.letters[which] if again else self.letters.pop(which))

    # ------------------------------------------------------------ mishaps

    @rule(hours=st.sampled_from([0, 0.01, 0.2, 1, 5]))
    def the_service_is_away(self, hours):
        """Hosts go on with what they were told."""
        for host in self.site.hosts.values():
            host.live(self.site.now, self.site.now + hours * 3600)
            host.heard_at = self.site.now + hours * 3600
        self.site.now += hours * 3600
        self.site.present = self.site.rebuilt()

    @rule(which=NODES, how=st.sampled_from(TROUBLES))
    def node_trouble(self, which, how):
        id, site = self._host(which), self.site
        if id is None:
            return
        if how == "cut":
            site.cut.add(id)
        elif how == "back":
            site.cut.discard(id)
        elif how in ("power", "disks"):
            self._harm(id, how)
        elif how == "overhead":
            site.hosts[id].overhead_mib = 0 if site.hosts[id].overhead_mib else 50
        elif how == "removed" and len(site.hosts) > 2:
            self.troubled |= {w.lease for w in site.present.on_node(id)}
            site.take_out(id)
        elif how == "new" and len(site.hosts) < 3:
            site.put_in(10 + len(site.former))
        elif how in ("drain", "undrain"):
            site.decide(mark, id, how == "drain", actor="admin")

    def _harm(self, id, how):
        host = self.site.hosts[id]
        host.lose_power() if how == "power" else host.lose_disks()
        self.troubled |= {w.lease for w in self.site.present.on_node(id)}

    @rule(which=NODES, ahead_s=st.sampled_from([300, 50, 900, -100]), duration_s=st.sampled_from([101, 900]))
    def window(self, which, ahead_s, duration_s):
        """At most one at a time."""
        id = self._host(which)
        for window in list(self.site.present.maintenances):
            self.site.decide(remove_maintenance, window, actor="admin")
        if id is not None:
            self.site.window(id, int(self.site.now) + ahead_s, duration_s)

    @rule(which=NODES, index=st.integers(0, 5), how=st.sampled_from(["off", "broken", "done", "failed"]))
    def guest_trouble(self, which, index, how):
        id = self._host(which)
        guests = sorted(self.site.hosts[id].guests.items()) if id else []
        running = [(w, guest) for w, guest in guests if guest.state is Observation.RUNNING]
        if index < len(running):
            workspace, guest = running[index]
            guest.state = Observation.BROKEN if how == "broken" else Observation.STOPPED
            guest.exit_status = {"done": 0, "failed": 1}.get(how)
            self.troubled.add({w.id: w.lease for w in self.site.history.workspaces}[workspace])

    @rule(lease=LEASES, order=st.sampled_from(Command), index=st.integers(0, 5))
    def command(self, lease, order, index):
        members = [w for w in self.members(lease) if w.id in self.site.present.workspaces]
        if members and self._try(command, members[index % len(members)], order):
            self.troubled.add(lease.id)

    @rule(lease=LEASES, memory_mib=st.sampled_from([100, 500, 1500]), cpus=st.sampled_from([None, 1, 3]))
    def resize(self, lease, memory_mib, cpus):
        present = self.site.lease(lease.id)
        if not present.ended:
            self._try(resize, present, group=None, memory_mib=memory_mib, cpus=cpus)

    @rule(lease=LEASES, what=st.sampled_from(["tick", "extend", "resize", "cancel"]))
    def a_decision_fails_half_way(self, lease, what):
        present = self.site.lease(lease.id)

        def decide(draft: Draft) -> None:
            try:
                if what == "tick":
                    advance(draft, self.site.ids)
                elif present.ended:
                    pass
                elif what == "extend":
                    extend(draft, present, 60)
                elif what == "resize":
                    resize(draft, present, group=None, memory_mib=300, cpus=None)
                else:
                    cancel(draft, present)
                settle_plan(draft, self.site.ids)
            except VwsError:
                pass
            raise Broken

        with pytest.raises(Broken):
            self.site.decide(decide)

    # ------------------------------------------------------------ what must hold here

    @invariant()
    def saved_guests_are_not_ended_by_their_nodes(self):
        for lease in self.site.history.leases:
            if lease.state is LeaseState.SUSPENDED:
                ends = [w.end for w in self.members(lease) if w.state is State.SUSPENDED]
                assert all(end > self.site.now + 86_400 for end in ends)

    @invariant()
    def who_had_all_its_time_had_it(self):
        unseen = {e.workspace for e in self.site.history.events if e.kind == "workspace.lost" and _was_saved(e)}
        for lease in self.site.history.leases:
            over = lease.kind.soft and lease.state is LeaseState.ENDED and lease.reason == TIME_OVER
            if not over or lease.id in self.troubled:
                continue
            members = latest_members(lease, self.members(lease))
            for w in members:
                # Who has others that run cannot keep them waiting until its own node is heard of again.
                if len(members) == 1 or w.id not in unseen:
                    ran = sum(host.ran_s.get(w.id, 0) for host in (*self.site.hosts.values(), *self.site.former))
                    assert ran >= lease.worked_s - 1 - 2 * lease.suspensions, (lease, w)

    def teardown(self):
        """Once the trouble is over and nothing hard is left, everybody is served, and nothing remains."""
        self.site.cut.clear()
        site = self.site
        for id in list(site.present.maintenances):
            site.decide(remove_maintenance, id, actor="admin")
        for id in list(site.present.nodes):
            site.decide(mark, id, False, actor="admin")
        site.put_in(9)
        for host in site.hosts.values():
            host.overhead_mib = 0
        for lease in list(site.present.leases.values()):
            if not lease.soft:
                site.decide(cancel, lease)
        for _ in range(3000):
            if not site.present.leases:
                break
            moment = site.present.outlook.planner.next_moment()
            site.tick(min(max(moment - int(site.now), 1), 20))
            site.follow()
        assert not site.present.leases, list(site.present.leases.values())
        self.the_plan_is_what_the_record_says()
        self.every_profile_is_what_its_blocks_take()
        self.who_had_all_its_time_had_it()
        assert not any(host.guests for host in site.hosts.values())
        assert_nothing_is_left(site.present.outlook.planner, int(site.now))


def _was_saved(event) -> bool:
    return event.data["before"] in ("restoring", "suspended")


def mark(draft: Draft, id: str, drained: bool) -> None:
    draft.put_node(replace(draft.node(id), drained=drained))


def assert_nothing_is_left(planner, now: int) -> None:
    assert (planner.demands, planner.queue, planner.booked, planner.promised) == ({}, [], [], [])
    assert (planner._hard_ahead, planner._restoring, planner._used) == (0, 0, NOTHING)
    assert planner.next_moment() == -1
    for profile in planner.timeline.profiles:
        profile.forget(now)
        assert all(free == profile.capacity for free in profile.free)


class PlanKeptAtLength(PlanKept):
    pass


class PlanLifeAtLength(PlanLife):
    pass


QUICK = settings(max_examples=40, stateful_step_count=40, deadline=None)
SOAK = settings(max_examples=3000, stateful_step_count=60, deadline=None)
PlanKept.TestCase.settings = settings(QUICK, max_examples=10, stateful_step_count=20)
PlanLife.TestCase.settings = QUICK
PlanKeptAtLength.TestCase.settings = settings(SOAK, max_examples=500)
PlanLifeAtLength.TestCase.settings = SOAK
TestPlanKept = PlanKept.TestCase
TestPlanLife = PlanLife.TestCase
AT_LENGTH = (pytest.mark.soak, pytest.mark.timeout(7200))
PlanKeptAtLength.TestCase.pytestmark = PlanLifeAtLength.TestCase.pytestmark = list(AT_LENGTH)
TestPlanKeptAtLength = PlanKeptAtLength.TestCase
TestPlanLifeAtLength = PlanLifeAtLength.TestCase
