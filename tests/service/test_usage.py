"""Usage of a whole site over a real store: who may see what, which interval, and what the policy goes by."""

import datetime as dt
import random
import time
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from tests.service.conftest import ADMIN, ANN, BOB, Rig
from vws.core.chosen import Chosen
from vws.core.errors import Forbidden, InvalidRequest
from vws.core.membership import VO, Limits, Membership
from vws.core.site import Changes, Event, Role
from vws.core.standing import expire
from vws.core.tariff import Band, Tariff
from vws.service import usage
from vws.service.access import Caller
from vws.service.site import Settings
from vws.service.usage import Asked, Usage, instant

ZURICH = ZoneInfo("Europe/Zurich")
START = dt.datetime(2026, 9, 1, tzinfo=ZURICH).timestamp()
MEMBERSHIP = Membership({"atlas": VO(("ann",)), "cms": VO(("cid",))}, each_user=Limits(node_hours=100, days=90))
SETTINGS = Settings(
    chosen=Chosen(membership=MEMBERSHIP, half_life_s=86400.0),
    tariff=Tariff("credit", base=2.0, bands=(Band(0.5, begin="20:00", end="06:00"),), time_zone="Europe/Zurich"),
)


@pytest.fixture
def rig(store, tmp_path):
    """ann has two workspaces and bob one, for an hour from 1 September, midnight in Zurich; half an hour has passed."""
    rig = Rig(store, tmp_path, SETTINGS)
    rig.clock.time = START
    rig.enroll("one", "two")
    rig.request(2, duration_s=3600)
    rig.request(1, caller=BOB, duration_s=3600)
    rig.obey()
    rig.clock.time += 1800
    return rig


def rows(rig, caller=ADMIN, **asked):
    report = rig.services.usage.report(caller, Asked(**asked))
    return {
        (r["user"], r["vo"], r["day"]): (r["reserved"]["node_hours"], r["used"]["node_hours"]) for r in report["rows"]
    }


def test_an_administrator_sees_everybody_and_a_user_himself(rig):
    assert rows(rig) == {("ann", "atlas", ""): (1, 1), ("bob", "", ""): (0.5, 0.5)}
    assert rows(rig, user="bob") == {("bob", "", ""): (0.5, 0.5)}
    assert rows(rig, BOB) == rows(rig, BOB, user="bob") == {("bob", "", ""): (0.5, 0.5)}
    with pytest.raises(Forbidden, match="administrators only"):
        rows(rig, BOB, user="ann")
    with pytest.raises(Forbidden):
        rows(rig, Caller("nod-1", Role.NODE))


def test_a_report_says_what_it_is_about(rig):
    report = rig.services.usage.report(ADMIN, Asked(by="vo"))
    assert (report["from"], report["to"]) == (START, START + 1800)
    assert (report["unit"], report["time_zone"], report["by"]) == ("credit", "Europe/Zurich", "vo")
    # By night, at half of 2 credits.
    assert report["total"]["reserved"] == {"node_hours": 1.5, "cpu_hours": 1.5, "charge": 1.5}
    assert [row["vo"] for row in report["rows"]] == ["", "atlas"]
    assert report["events"] > 10


def test_by_lease_and_by_day(rig):
    lease = rig.services.leases.leases(ANN, usage.Filter(), after=None, limit=1).items[0]
    report = rig.services.usage.report(ADMIN, Asked(by="lease", lease=lease.id))
    assert [(r["lease"], r["name"], r["user"]) for r in report["rows"]] == [(lease.id, lease.name, "ann")]
    rig.clock.time = START + 23.75 * 3600
    rig.request(1, duration_s=3600)
    rig.clock.time = START + 26 * 3600
    by_day = rows(rig, by="day", user="ann")
    assert by_day[("", "", "2026-09-01")][0] == 2.25
    assert by_day[("", "", "2026-09-02")][0] == 0.75


def test_an_interval_is_clipped_and_months_add_up(rig):
    rig.clock.time = START + 3605
    rig.site.change("site", expire)
    for node in list(rig.site.present.nodes.values()):
        rig.report(node.id)
    rig.clock.time = START + 40 * 86400
    september = rows(rig, since="2026-09", until="2026-10")
    assert september[("ann", "atlas", "")][0] == 2
    assert rows(rig) == {}, "this month is October"
    first = rows(rig, since="2026-09-01T00:00", until="2026-09-01T00:15")
    then = rows(rig, since="2026-09-01T00:15", until="2026-10")
    assert first[("bob", "", "")][0] + then[("bob", "", "")][0] == september[("bob", "", "")][0] == 1


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"by": "node"}, "by"),
        ({"vo": "alice"}, "vo"),
        ({"since": "2026-13"}, "from"),
        ({"until": "soon"}, "to"),
        ({"since": "2026-09-02", "until": "2026-09-01"}, "from"),
        ({"since": "2030-01"}, "from"),
        ({"since": "9" * 30}, "from"),
    ],
)
def test_what_cannot_be_answered_is_named(rig, asked, field):
    with pytest.raises(InvalidRequest) as error:
        rows(rig, **asked)
    assert error.value.field == field


def test_a_vo_is_counted_alone(rig):
    assert rows(rig, vo="atlas") == {("ann", "atlas", ""): (1, 1)}
    assert rows(rig, vo="cms") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1800000000", 1_800_000_000),
        ("2026-10", dt.datetime(2026, 10, 1, tzinfo=ZURICH).timestamp()),
        ("2026-10-25", dt.datetime(2026, 10, 25, tzinfo=ZURICH).timestamp()),
        ("2026-10-25T12:30", dt.datetime(2026, 10, 25, 12, 30, tzinfo=ZURICH).timestamp()),
        ("2026-10-25T12:30Z", dt.datetime(2026, 10, 25, 12, 30, tzinfo=dt.UTC).timestamp()),
    ],
)
def test_instants_are_of_the_sites_clock(text, expected):
    assert instant(text, ZURICH, "from") == expected


# ---------------------------------------------------------------- for the policy


def test_shares_and_spent_node_hours_follow_what_is_held(rig):
    usage = rig.services.usage
    usage.catch_up()
    assert usage.spent("ann", 0) == 1
    assert usage.spent("ann", START + 900) == 0.5
    assert usage.spent("nobody", 0) == 0
    shares = usage.shares(rig.clock.now())
    # ann's VO and the users without one have a share of one each of three; ann used twice as much.
    assert shares.factor("ann") < shares.factor("bob") < shares.factor("cid") == 1


def test_what_has_ended_is_still_counted(rig):
    for lease in rig.services.leases.leases(ADMIN, usage.Filter(), after=None, limit=9).items:
        rig.leases.cancel(ADMIN, lease.id)
    rig.clock.time += 9 * 86400
    rig.services.usage.catch_up()
    assert rig.services.usage.spent("ann", 0) == 1
    rig.restart()
    rig.services.usage.catch_up()
    assert rig.services.usage.spent("ann", 0) == 1


def test_a_limit_of_node_hours_goes_by_it(rig):
    rig.services.usage.catch_up()
    lease = rig.services.leases.leases(ANN, usage.Filter(), after=None, limit=1).items[0]
    asked = replace(
        lease, id="lse-new", start=int(rig.clock.now()), duration_s=98 * 1800
    )  # 98 node-hours, beside 1 held and 1 to come
    check = SETTINGS.chosen.check
    check(asked, [lease], rig.clock.now(), rig.services.usage.spent)
    with pytest.raises(Exception, match="100 node-hours in 90 days"):
        check(replace(asked, duration_s=98 * 1800 + 60), [lease], rig.clock.now(), rig.services.usage.spent)


# ---------------------------------------------------------------- many events


def many(count: int, begin: float, seed: int = 7) -> list[Event]:
    """A life of leases of one workspace each, ten events long, over 30 days; times in order."""
    draw, found = random.Random(seed), []
    for number in range(count // 10):
        at, length = begin + draw.random() * 30 * 86400, 60 + draw.random() * 86400
        lease, workspace, user = f"lse-{number}", f"wsp-{number}", f"user-{number % 50}"
        terms = {"lease_kind": "immediate", "start": at, "end": at + length, "workspaces": 1, "cpus_in_all": 2}
        steps = [(0, "lease.granted", ""), (0, "workspace.planned", workspace), (1, "workspace.staging", workspace),
                 (2, "workspace.starting", workspace), (9, "workspace.running", workspace), (9, "lease.active", ""),
                 (length, "lease.ending", ""), (length, "workspace.terminating", workspace),
                 (length + 3, "workspace.released", workspace), (length + 3, "lease.ended", "")]  # fmt: skip
        for after, kind, subject in steps:
            data = terms if kind == "lease.granted" else {}
            found.append(Event(at + after, "ann", kind, user, lease, subject, data=data))
    return sorted(found, key=lambda event: event.at)


def put(store, events: list[Event]) -> None:
    for first in range(0, len(events), 5000):
        store.commit(Changes(events=tuple(events[first : first + 5000])), expected=store.revision())


def test_marks_change_no_answer(rig, monkeypatch):
    put(rig.store, many(3000, START + 3600))
    rig.clock.time = START + 33 * 86400
    intervals = [(START + a * 86400, START + b * 86400) for a, b in ((0, 33), (3, 4), (20, 31), (10, 11))]

    def answers(counting: Usage) -> list[tuple[list, dict]]:
        asked = [Asked("user", since=str(int(a)), until=str(int(b))) for a, b in intervals]
        return [(r["rows"], r["total"]) for r in (counting.report(ADMIN, each) for each in asked)]

    plain = answers(rig.services.usage)
    monkeypatch.setattr(usage, "_MARK_EVENTS", 100)
    monkeypatch.setattr(usage, "_MARKS_MAX", 8)
    marked = Usage(rig.site)
    assert answers(marked) == plain
    assert 2 < len(marked._marks) <= 8
    short = Asked("user", since=str(int(intervals[1][0])), until=str(int(intervals[1][1])))
    assert marked.report(ADMIN, short)["events"] < rig.services.usage.report(ADMIN, short)["events"]


def test_a_month_of_many_events_is_read_in_seconds(rig):
    put(rig.store, many(20_000, START + 3600))
    rig.clock.time = START + 33 * 86400
    said: list[tuple[int, int]] = []
    begun = time.perf_counter()
    report = rig.services.usage.report(ADMIN, Asked("day", since="2026-09"), lambda *far: said.append(far))
    taken = time.perf_counter() - begun
    assert report["events"] > 20_000
    assert len(report["rows"]) >= 30
    assert taken < 10, "100,000 events in a few seconds on a quiet machine; this is a fifth on a busy one"
    assert len(said) >= 10
    assert all(0 < done <= whole for done, whole in said)
