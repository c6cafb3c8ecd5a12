"""The calendar of a site, through the service: from the record, whatever process made it."""

import pytest

from tests.service.conftest import ADMIN, ANN, BOB
from vws.core.calendar import Step
from vws.core.errors import InvalidRequest
from vws.core.picture import ANOTHERS
from vws.core.terms import GroupRequest, LeaseRequest, When

HOUR_S = 3600


def shown(rig, caller=ANN, **window):
    return rig.services.plans.calendar(caller, **window)


def test_the_past_comes_from_events_the_future_from_the_plan(rig):
    rig.enroll("n1", "n2")
    over = rig.request(2)
    rig.clock.time += 10
    rig.obey()
    rig.clock.time += 100
    rig.leases.cancel(ANN, over.id)
    rig.obey()
    rig.clock.time += 60
    now = int(rig.clock.time)
    ahead = rig.leases.request(
        ANN, LeaseRequest((GroupRequest("demo"),), 1800, when=When.RESERVATION, start=now + 2 * HOUR_S)
    )
    before = shown(rig)
    rig.restart()
    after = shown(rig)
    assert after == before, "what one process has seen the record tells another"
    assert (after.title, after.nodes) == (rig.settings.name, ("n1", "n2"))
    assert (after.start, after.now, after.end) == (now - HOUR_S, now, ahead.end)
    run = [bar for bar in after.bars if bar.lease == over.id and bar.step is Step.RUN]
    assert {(bar.start, bar.end) for bar in run} == {(now - 160, now - 60)}
    assert len({bar.workspace for bar in run}) == 2
    planned = [bar for bar in after.bars if bar.lease == ahead.id]
    assert [bar.step for bar in planned] == [Step.STAGE, Step.BOOT, Step.RUN]
    assert (planned[-1].start, planned[-1].end) == (ahead.start, ahead.end)


def test_of_a_long_record_only_the_window_is_read(rig, monkeypatch):
    rig.enroll("n1")
    for _ in range(20):
        lease = rig.request()
        rig.obey()
        rig.leases.cancel(ANN, lease.id)
        rig.obey()
        rig.clock.time += HOUR_S
    read = []
    events = rig.site.store.events

    def counted(where, *, after, limit):
        found = events(where, after=after, limit=limit)
        read.extend(found)
        return found

    monkeypatch.setattr(rig.site.store, "events", counted)
    leases = {bar.lease for bar in shown(rig, start=int(rig.clock.time) - 3 * HOUR_S - 60).bars}
    assert len(leases) <= 3
    every = rig.site.store.last_seq()
    assert len(read) < every / 2
    read.clear()
    assert shown(rig, start=int(rig.clock.time) + 60).bars == ()
    assert not read, "nothing has happened in the future"


def test_a_user_sees_when_nodes_are_taken_not_by_whom(rig):
    rig.enroll("n1")
    rig.request(caller=ANN)
    (bar,) = shown(rig, BOB).bars[:1]
    assert (bar.label, bar.owner) == (ANOTHERS, "")
    (bar,) = shown(rig, ADMIN).bars[:1]
    assert bar.owner == "ann"


@pytest.mark.parametrize(
    ("start", "end", "field"), [(0, -1, "end"), (5, 5, "end"), (-8 * 86400, None, "start"), (None, 10**9, "end")]
)
def test_windows_that_cannot_be_shown(rig, start, end, field):
    now = int(rig.clock.time)
    with pytest.raises(InvalidRequest) as refused:
        shown(rig, start=None if start is None else now + start, end=None if end is None else now + end)
    assert refused.value.field == field
