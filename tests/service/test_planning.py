"""The plan that a service goes by is the one in its record: after a restart, when a commit fails, and beside others."""

from __future__ import annotations

import errno
import threading
from random import Random

import pytest

from tests.core.hosts import Host
from tests.service.conftest import ANN, BOB, Rig
from tests.soaking import one_in
from vws.ambient import TimeIds
from vws.core.errors import CannotFit, Unavailable, VwsError
from vws.core.plan.profile import NOTHING
from vws.core.site import LeaseState, PlanPhase
from vws.core.terms import Exceptions, GroupRequest, LeaseRequest, When
from vws.service.once import Once
from vws.service.site import Settings, Site
from vws.store.sql import SqlStore

NODES = ("n1", "n2", "n3")
KINDS = ("immediate", "urgent", "reservation", "series", "best-effort", "best-effort", "deadline")


def terms_of(kind: str, now: int, duration_s: int) -> dict:
    return {
        "immediate": {},
        "urgent": {"urgent": True},
        "reservation": {"when": When.RESERVATION, "start": now + 150},
        "series": {
            "when": When.PERIODIC,
            "rule": "FREQ=HOURLY;COUNT=3",
            "start": now + 200,
            "exceptions": Exceptions.SKIP,
        },
        "best-effort": {"when": When.BEST_EFFORT, "preemptible": True},
        "deadline": {"when": When.DEADLINE, "deadline": now + 500 + duration_s, "preemptible": True},
    }[kind]


class Life:
    """Leases of all kinds come and go at a site whose nodes do at once what they are told."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.random = Random(seed)
        self.hosts = {node.id: Host(node.id, rig.clock.time) for node in rig.enroll(*NODES)}
        self.seen: set[str] = set()
        self.left_alone: set[str] = set()

    def ask(self, kind: str, count: int = 1, cpus: int = 4, memory_mib: int = 700, duration_s: int = 300):
        group = GroupRequest("demo", count, cpus, memory_mib, 100)
        terms = terms_of(kind, int(self.rig.clock.time), duration_s)
        return self.rig.leases.request(ANN, LeaseRequest((group,), duration_s, **terms))

    def fill(self) -> None:
        """All nodes are taken by what can be saved, and wanted by somebody with a time: so there is a suspension."""
        soft = self.ask("best-effort", 6, 8, 700, 900)
        self.pass_time(20)
        hard = self.ask("reservation", 3, 8, 3000)
        self.left_alone = {soft.id, hard.id}

    def something(self) -> None:
        """Some request or other; it may be refused."""
        random, leases = self.random, sorted(self.rig.site.present.leases.keys() - self.left_alone)
        try:
            what = random.choice(["ask", "ask", "extend", "resize", "cancel"]) if leases else "ask"
            if what == "ask":
                cpus, memory_mib = random.choice([1, 2, 4, 8]), random.choice([200, 700, 2500])
                self.ask(random.choice(KINDS), random.randint(1, 4), cpus, memory_mib, random.choice([60, 300, 900]))
            elif what == "extend":
                self.rig.leases.extend(ANN, random.choice(leases), 60)
            elif what == "resize":
                self.rig.leases.resize(ANN, random.choice(leases), memory_mib=random.choice([300, 900]))
            else:
                self.rig.leases.cancel(ANN, random.choice(leases))
        except VwsError:
            pass

    def pass_time(self, seconds: int, times: int = 1) -> None:
        for _ in range(times):
            before = self.rig.clock.time
            self.rig.clock.time += seconds
            for host in self.hosts.values():
                host.live(before, self.rig.clock.time)
            self.rig.services.reconciler.tick()
            self.follow()
            self._look()

    def follow(self) -> None:
        for id, host in self.hosts.items():
            host.pull(self.rig.site.present, self.rig.clock.time)
            host.work(self.rig.clock.time)
            letter = host.write(self.rig.clock.time)
            self.rig.report(id, *letter.facts, generation=letter.generation)

    def _look(self) -> None:
        for lease in self.rig.site.present.leases.values():
            self.seen |= {str(lease.kind), str(lease.state), *([str(lease.plan.phase)] if lease.plan else [])}

    def go_on(self) -> None:
        self.something()
        self.pass_time(self.random.choice([1, 10, 25]), self.random.randint(0, 3))

    def end(self) -> None:
        """Everybody is served, and nothing is left."""
        for lease in list(self.rig.site.present.leases.values()):
            if not lease.soft:
                self.rig.leases.cancel(ANN, lease.id)
        for _ in range(500):
            if not self.rig.site.present.leases:
                break
            self.pass_time(20)
        assert self.rig.site.present.leases == {}
        assert not any(host.guests for host in self.hosts.values())


def sketch(site: Site) -> dict:
    return site.present.outlook.sketch()


def recorded(rig: Rig) -> dict:
    """The plan that another process would find."""
    return sketch(Site(rig.store, rig.clock, TimeIds(), rig.settings))


def assert_nothing_is_taken_twice(site: Site) -> None:
    for profile in site.present.outlook.planner.timeline.profiles:
        assert all(NOTHING.fits_in(free) for free in profile.free)


# ---------------------------------------------------------------- restarts


@pytest.mark.parametrize("seed", one_in(4, range(4)))
def test_restarted_at_any_moment_the_service_goes_by_the_same_plan(rig, seed):
    life = Life(rig, seed)
    life.fill()
    for _ in range(80):
        life.go_on()
        before = sketch(rig.site)
        if life.random.random() < 0.5:
            rig.restart()
        assert recorded(rig) == before
    assert life.seen >= {PlanPhase.BOOKED, PlanPhase.PREPARING, PlanPhase.RUNNING, LeaseState.SUSPENDED}
    assert life.seen >= {"best-effort", "reservation", "immediate"}
    life.end()


# ---------------------------------------------------------------- commits that fail


def disk_full() -> OSError:
    return OSError(errno.ENOSPC, "no space left on device")


FAILURES = (lambda: Unavailable("the store does not answer"), disk_full, KeyboardInterrupt)


def failing(failure):
    def commit(changes, *, expected):
        raise failure()

    return commit


@pytest.mark.parametrize("failure", FAILURES)
def test_of_a_decision_that_cannot_be_committed_nothing_remains(rig, monkeypatch, failure):
    life = Life(rig, 5)
    life.fill()
    failed = 0
    for _ in range(50):
        life.go_on()
        before, revision, present = sketch(rig.site), rig.store.revision(), dict(rig.site.present.workspaces)
        with monkeypatch.context() as patched:
            patched.setattr(rig.store, "commit", failing(failure))
            try:
                life.something()
                life.pass_time(5)
            except (OSError, KeyboardInterrupt, Unavailable):
                failed += 1
        assert (sketch(rig.site), rig.store.revision()) == (before, revision)
        assert rig.site.present.workspaces == present
        assert recorded(rig) == before
    assert failed > 10
    life.end()


def test_a_commit_whose_answer_was_lost_is_found_in_the_record(rig, monkeypatch):
    life = Life(rig, 6)
    commit = rig.store.commit

    def lose_the_answer(changes, *, expected):
        commit(changes, expected=expected)
        raise Unavailable("the connection is gone")

    once = Once("token", "fingerprint", 201, lambda lease: lease.id)
    request = LeaseRequest((GroupRequest("demo", 3, 8, 8000, 100),), 300)
    with monkeypatch.context() as patched:
        patched.setattr(rig.store, "commit", lose_the_answer)
        with pytest.raises(Unavailable):
            rig.leases.request(ANN, request, once)
    answer = rig.leases.request(ANN, request, once)
    with pytest.raises(CannotFit):
        rig.leases.request(BOB, request)
    assert list(rig.site.present.leases) == [answer.body]
    assert recorded(rig) == sketch(rig.site)
    life.end()


# ---------------------------------------------------------------- several processes


@pytest.fixture
def two(postgres_url, tmp_path):
    """Two service processes on one database, with one clock."""
    stores = SqlStore.open(postgres_url), SqlStore.open(postgres_url)
    first, second = (Rig(store, tmp_path, Settings()) for store in stores)
    second.clock = first.clock
    second.restart()
    yield first, second
    for store in stores:
        store.close()


def meanwhile(rig: Rig, monkeypatch, deed) -> None:
    """Before the next commit of `rig`, and after its decision, `deed` is done."""
    commit, waiting = rig.store.commit, [deed]

    def after_others(changes, *, expected):
        while waiting:
            waiting.pop()()
        return commit(changes, expected=expected)

    monkeypatch.setattr(rig.store, "commit", after_others)


def at(rig: Rig, ahead_s: int, count: int, caller=ANN, duration_s: int = 600):
    """A reservation of so many whole nodes."""
    start = int(rig.clock.time) + ahead_s
    group = GroupRequest("demo", count, 8, 8000, 100)
    return rig.leases.request(caller, LeaseRequest((group,), duration_s, when=When.RESERVATION, start=start))


def test_who_comes_second_decides_again_on_what_the_first_has_left(two, monkeypatch):
    first, second = two
    first.enroll(*NODES)
    taken = []
    meanwhile(second, monkeypatch, lambda: taken.append(at(first, 300, 2)))
    with pytest.raises(CannotFit):
        at(second, 300, 2, BOB)
    assert sketch(first.site) == sketch(second.site) == recorded(first)
    meanwhile(second, monkeypatch, lambda: taken.append(at(first, 2000, 2)))
    other = at(second, 2000, 1, BOB)
    assert not set(other.plan.hosts) & set(taken[1].plan.hosts)
    first.site.catch_up()
    assert sketch(first.site) == sketch(second.site) == recorded(first)
    assert_nothing_is_taken_twice(first.site)


def test_what_was_taken_in_on_the_way_to_a_decision_is_told_too(two, monkeypatch):
    """A node that waits at one process for its orders hears of those that another has written."""
    first, second = two
    nodes = {node.id for node in first.enroll(*NODES)}
    second.site.catch_up()
    for decide in (lambda: at(second, 5000, 3, BOB), lambda: at(second, 300, 3, BOB)):  # one granted, one refused
        told: set[str] = set()
        unwatch = second.site.watch(lambda nodes, seq, told=told: told.update(nodes))
        lease = []
        meanwhile(second, monkeypatch, lambda lease=lease: lease.append(first.request(3, memory_mib=8000)))
        try:
            decide()
        except CannotFit:
            pass
        unwatch()
        assert told == nodes
        first.leases.cancel(ANN, lease[0].id)
        first.obey()


def test_many_who_ask_at_once_get_no_node_twice(two):
    first, second = two
    first.enroll(*NODES)
    granted, refused = [], []

    def ask(rig: Rig) -> None:
        for number in range(8):
            try:
                granted.append(at(rig, 300 + 700 * (number % 2), 1))
            except CannotFit as refusal:
                refused.append(refusal)

    threads = [threading.Thread(target=ask, args=(rig,)) for rig in (first, second, first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 2 * len(NODES), "every node at both times, to the last one"
    assert len(refused) == 32 - len(granted)
    assert len({(lease.start, lease.plan.hosts) for lease in granted}) == len(granted)
    for rig in two:
        rig.site.catch_up()
    assert sketch(first.site) == sketch(second.site) == recorded(first)
    assert_nothing_is_taken_twice(second.site)


@pytest.mark.parametrize("seed", one_in(2, range(2)))
def test_two_processes_lead_one_life(two, seed):
    """Requests come to either, and either may be the one that leads, or that nodes report to."""
    life = Life(two[0], seed)
    two[1].site.catch_up()
    life.fill()
    for _ in range(80):
        life.rig = life.random.choice(two)
        life.rig.site.catch_up()
        life.go_on()
        assert sketch(life.rig.site) == recorded(life.rig)
        if life.random.random() < 0.2:
            life.rig.restart()
    for rig in two:
        rig.site.catch_up()
    assert sketch(two[0].site) == sketch(two[1].site)
    assert LeaseState.SUSPENDED in life.seen
