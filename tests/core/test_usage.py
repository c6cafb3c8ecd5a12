"""What events add up to: by hand, and against counting step by step what random sites have."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.core.builders import NOW, World, node
from vws.core.agreement import cancel, command
from vws.core.amendment import extend, resize
from vws.core.errors import VwsError
from vws.core.lifecycle import Command, Observation, State
from vws.core.meter import BY, Meter
from vws.core.site import Event, LeaseState
from vws.core.standing import expire
from vws.core.tariff import PRICES, Band, Clock, Tariff
from vws.core.terms import GroupRequest
from vws.core.usage import Ledger

HOUR_S = 3600.0
NIGHT = Tariff(base=2.0, preemptible=0.5, bands=(Band(0.5, begin="20:00", end="06:00"),))


def numbered(events) -> list[Event]:
    return [replace(event, seq=seq) for seq, event in enumerate(events, start=1)]


def meter(events, start: float, end: float, by: str = "user", tariff: Tariff = NIGHT, **more) -> Meter:
    clock = Clock.over(start, end, lambda at: 0, tariff.bands)
    counted = Meter(clock, tariff, PRICES["per-cpu-hour"], by, lambda user: {"ann": "atlas"}.get(user, ""), **more)
    ledger = Ledger()
    for event in numbered(events):
        if event.at < end:
            counted.add(ledger.take(event))
    counted.add(ledger.going(end))
    return counted


def totals(events, start: float, end: float, **more) -> list[float]:
    total = meter(events, start, end, **more).total
    return [getattr(a, f) for a in (total.reserved, total.used) for f in ("node_hours", "cpu_hours", "charge")]


# ---------------------------------------------------------------- by hand


def at(minute: float) -> float:
    return NOW + 60 * minute


def event(minute: float, kind: str, workspace: str = "", lease: str = "lse-1", **data) -> Event:
    return Event(at(minute), "ann", kind, "ann", lease=lease, workspace=workspace, data=data)


def granted(
    minute: float, begin: float | None, end: float | None, kind="reservation", nodes=2, cpus=4, **more
) -> Event:
    times = {"start": None if begin is None else at(begin), "end": None if end is None else at(end)}
    return event(minute, "lease.granted", lease_kind=kind, workspaces=nodes, cpus_in_all=cpus, **times, **more)


def hours(events, begin: float, end: float) -> tuple[float, float, float, float]:
    """Node-hours and CPU-hours reserved, and the same used, over these minutes."""
    total = meter(events, at(begin), at(end)).total
    found = (total.reserved.node_hours, total.reserved.cpu_hours, total.used.node_hours, total.used.cpu_hours)
    return tuple(round(each, 9) for each in found)  # type: ignore[return-value]


def test_a_hard_lease_is_reserved_from_its_start_to_its_end():
    events = [granted(0, 60, 120)]
    assert hours(events, 0, 60) == (0, 0, 0, 0)
    assert hours(events, 60, 90) == (1, 2, 0, 0)
    assert hours(events, 0, 600) == (2, 4, 0, 0)


def test_what_is_given_back_early_is_reserved_no_more():
    events = [granted(0, 60, 120), event(90, "lease.ending"), event(91, "lease.ended")]
    assert hours(events, 0, 600) == (1, 2, 0, 0)
    assert hours([granted(0, 60, 120), event(30, "lease.ending")], 0, 600) == (0, 0, 0, 0)


def test_an_extension_counts_from_the_agreed_end():
    events = [granted(0, 0, 60), event(50, "lease.extended", end=at(90))]
    assert hours(events, 0, 600) == (3, 6, 0, 0)
    assert hours(events, 0, 55) == pytest.approx((110 / 60, 220 / 60, 0, 0))


def test_a_resize_counts_from_when_it_was_made():
    events = [
        granted(0, 0, 60),
        event(0, "workspace.planned", "w1", group="a", cpus=2),
        event(0, "workspace.planned", "w2", group="b", cpus=2),
        event(0, "workspace.running", "w1"),
        event(0, "workspace.running", "w2"),
        event(30, "lease.resized", group="b", cpus=4, cpus_in_all=6),
    ]
    assert hours(events, 0, 60) == (2, 5, 2, 5)


def test_used_is_what_ran_and_not_what_boots_rests_or_is_lost():
    events = [
        granted(0, 0, 600, nodes=1, cpus=3),
        event(0, "workspace.planned", "w", cpus=3),
        event(5, "workspace.starting", "w"),
        event(10, "workspace.running", "w"),
        event(20, "workspace.pausing", "w"),
        event(25, "workspace.paused", "w"),  # 15 minutes
        event(40, "workspace.running", "w"),
        event(41, "workspace.rebooting", "w"),
        event(50, "workspace.running", "w"),
        event(55, "workspace.suspended", "w"),  # 15 more
        event(58, "workspace.restoring", "w"),
        event(60, "workspace.running", "w"),
        event(70, "workspace.lost", "w"),  # 10 more
        event(90, "workspace.running", "w"),
        event(110, "workspace.terminating", "w"),  # 20 more
        event(115, "workspace.terminated", "w"),
        event(111, "workspace.released", "w"),
    ]
    assert hours(events, 0, 600)[2:] == (1, 3)
    assert hours(events, 20, 30)[2:] == (round(5 / 60, 9), 0.25)


def test_a_soft_lease_is_reserved_while_it_has_nodes():
    events = [
        granted(0, None, None, kind="best-effort"),
        event(60, "workspace.planned", "w"),
        event(61, "lease.active"),
        event(120, "workspace.suspending", "w"),
        event(121, "workspace.suspended", "w"),
        event(122, "lease.suspended"),  # 62 minutes
        event(180, "workspace.restoring", "w"),
        event(182, "workspace.running", "w"),
        event(183, "lease.active"),
        event(238, "lease.ending"),  # and 58
        event(239, "lease.ended"),
    ]
    assert hours(events, 0, 600)[:2] == (4, 8)
    assert hours(events, 0, 60)[:2] == (0, 0)
    assert hours(events, 130, 170)[:2] == (0, 0)


def test_what_runs_on_because_its_node_is_away_is_not_used():
    up = [granted(0, 0, 60, nodes=1, cpus=1), event(0, "workspace.running", "w")]
    assert hours(up, 0, 600)[2] == 1
    told_to_go = [*up, event(30, "lease.ending"), event(30, "workspace.terminating", "w")]
    assert hours([*told_to_go, event(400, "workspace.terminated", "w")], 0, 600)[2] == 0.5


def test_a_suspension_by_the_user_keeps_the_room_reserved():
    events = [
        granted(0, 0, 60, nodes=1, cpus=1),
        event(0, "workspace.running", "w"),
        event(30, "workspace.suspended", "w"),
    ]
    assert hours(events, 0, 60) == (1, 1, 0.5, 0.5)


def test_a_lease_that_is_said_to_be_waiting_first_is_known_from_then():
    waiting = replace(granted(0, None, None, kind="best-effort"), kind="lease.waiting")
    assert hours([waiting, event(60, "lease.pending"), event(90, "lease.ending")], 0, 600)[0] == 1


def test_events_of_the_first_release_say_less_and_are_understood():
    events = [
        event(0, "lease.granted", end=at(60), workspaces=2),
        event(0, "workspace.planned", "w", address="10.64.0.2"),
        event(30, "workspace.running", "w"),
    ]
    assert hours(events, 0, 600) == (2, 2, 0.5, 0.5)
    assert hours([event(0, "lease.active"), event(0, "workspace.running", "w")], 0, 600) == (0, 0, 0, 0)


def test_rows_are_by_user_vo_lease_or_day():
    events = [
        granted(0, 0, 60),
        replace(granted(0, 0, 30, nodes=1, name="other"), lease="lse-2", owner="bob"),
        replace(granted(0, 0, 30, nodes=1, vo="cms"), lease="lse-3", owner="ann"),
    ]
    rows = {by: [(r.key, r.reserved.node_hours) for r in meter(events, NOW, at(60), by=by).rows] for by in BY}
    assert rows["user"] == [("ann", 2.5), ("bob", 0.5)]
    assert rows["vo"] == [("", 0.5), ("atlas", 2), ("cms", 0.5)]
    assert rows["lease"] == [("lse-1", 2), ("lse-2", 0.5), ("lse-3", 0.5)]
    midnight = NOW - NOW % 86400 + 86400
    days = meter([granted(0, 0, 60 * 30)], NOW, midnight + HOUR_S, by="day").rows
    assert [(row.day, row.reserved.node_hours) for row in days] == [(0, 2 * (midnight - NOW) / HOUR_S), (1, 2)]
    assert meter(events, NOW, at(60), by="lease", vo="cms").rows[0].key == "lse-3"
    assert [row.name for row in meter(events, NOW, at(60), by="lease").rows] == ["", "other", ""]


def test_charges_go_by_the_time_of_day_and_what_the_lease_is():
    assert NOW % 86400 == 8 * HOUR_S
    day = meter([granted(0, 0, 60)], NOW, at(60)).total.reserved.charge
    evening = meter([granted(0, 13 * 60, 14 * 60, preemptible=True)], NOW, at(24 * 60)).total.reserved.charge
    assert (day, evening) == (4 * 2.0, 4 * 2.0 * 0.5 * 0.5)


def test_a_copy_goes_its_own_way():
    events = numbered([granted(0, 0, 60), event(0, "workspace.running", "w"), event(30, "lease.ending")])
    ledger = Ledger()
    for each in events[:2]:
        list(ledger.take(each))
    copy = ledger.copy()
    list(ledger.take(events[2]))
    assert (copy.seq, ledger.seq, len(copy)) == (2, 3, 1)
    assert sum(not span.used for span in copy.going(at(60))) == 1
    assert sum(not span.used for span in ledger.going(at(60))) == 0


# ---------------------------------------------------------------- random sites


class Counted(World):
    """A site whose usage is also counted between any two things that happen."""

    def __init__(self) -> None:
        super().__init__(node(1, cpus=4), node(2, cpus=4))
        self.running: set[str] = set()
        self.reserved_h = self.used_h = self.used_cpu_h = 0.0

    def apply(self, changes) -> None:
        super().apply(changes)
        states = {w.id: w.state for w in self.present.workspaces.values()}
        still = {State.PAUSING, State.SUSPENDING, State.REBOOTING}
        self.running = {
            id for id, state in states.items() if state is State.RUNNING or (id in self.running and state in still)
        }

    def wait(self, seconds: float) -> None:
        for lease in self.present.leases.values():
            if lease.state is not LeaseState.ENDING:
                overlap = min(lease.run[1], self.now + seconds) - max(lease.run[0], self.now)
                self.reserved_h += max(0.0, overlap) / HOUR_S * sum(g.count for g in lease.groups)
        for id in self.running:
            workspace = self.present.workspaces[id]
            until_its_end = max(0.0, min(workspace.end, self.now + seconds) - self.now)
            self.used_h += until_its_end / HOUR_S
            self.used_cpu_h += workspace.cpus * until_its_end / HOUR_S
        self.now += seconds


steps = st.lists(
    st.tuples(
        st.sampled_from(["grant", "obey", "command", "extend", "resize", "cancel", "wait", "wait", "silent"]),
        st.integers(0, 50),
        st.integers(1, 3),
    ),
    min_size=3,
    max_size=25,
)


def play(site: Counted, what: str, number: int, size: int) -> None:
    leases, workspaces = list(site.present.leases.values()), list(site.present.workspaces.values())
    chosen = leases[number % len(leases)] if leases else None
    try:
        if what == "grant":
            site.grant(GroupRequest("demo", size, cpus=1 + number % 2), duration_s=600 * (1 + number % 5))
        elif what == "obey":
            site.obey(
                [Observation.RUNNING, Observation.PAUSED, Observation.SUSPENDED, Observation.STARTING][number % 4]
            )
        elif what == "silent":
            site.report(f"nod-00{1 + number % 2}")
        elif what == "wait":
            site.wait(37 * number)
            site.decide(expire)
        elif what == "command" and workspaces:
            site.decide(command, workspaces[number % len(workspaces)], list(Command)[number % len(Command)])
        elif chosen is None:
            return
        elif what == "extend":
            site.decide(extend, chosen, 300 * size)
        elif what == "resize":
            site.decide(resize, chosen, group=None, memory_mib=None, cpus=size)
        elif what == "cancel":
            site.decide(cancel, chosen)
    except VwsError:
        pass


def played(script) -> Counted:
    site = Counted()
    for what, number, size in script:
        play(site, what, number, size)
    site.wait(10.0)
    return site


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_events_tell_what_counting_finds(script):
    site = played([("grant", 1, 2), ("obey", 0, 1), *script])
    events = site.history.events
    assert site.now > NOW
    reserved, _, _, used, used_cpus, _ = totals(events, NOW, site.now)
    assert used == pytest.approx(site.used_h, abs=1e-9)
    assert used_cpus == pytest.approx(site.used_cpu_h, abs=1e-9)
    assert reserved == pytest.approx(site.reserved_h, abs=1e-9)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_usage_adds_up_over_adjacent_intervals(script, parts):
    site = played(script)
    assume(site.now > NOW + 1)
    edges = [NOW, *sorted(NOW + part * (site.now - NOW) for part in parts), site.now]
    whole = totals(site.history.events, NOW, site.now)
    pieces = [totals(site.history.events, a, b) for a, b in itertools.pairwise(edges) if b > a]
    assert [sum(column) for column in zip(*pieces, strict=True)] == pytest.approx(whole, abs=1e-9)
    assert all(value >= 0 for piece in pieces for value in piece)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_no_more_is_used_than_there_is(script):
    site = played([("grant", 0, 3), ("obey", 0, 1), *script])
    capacity_h = sum(n.capacity.cpus for n in site.present.nodes.values()) * (site.now - NOW) / HOUR_S
    *_, used_cpus, _ = totals(site.history.events, NOW, site.now)
    # A share of CPUs may be lowered below the virtual CPUs of a boot, never raised above what the node has.
    assert 0 <= used_cpus <= capacity_h + 1e-9


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.sampled_from(BY))
def test_rows_add_up_to_the_total(script, by):
    site = played(script)
    counted = meter(site.history.events, NOW, site.now, by=by)
    for side in ("reserved", "used"):
        assert sum(getattr(row, side).charge for row in counted.rows) == pytest.approx(
            getattr(counted.total, side).charge
        )
