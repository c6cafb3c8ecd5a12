"""The calendar over HTTP."""

from __future__ import annotations

import time

from vws.core.calendar import calendar_from_json
from vws.frontends.rest import plan_models


def test_the_plan_is_a_calendar(here):
    (node,) = here.enroll("one")
    lease = here.lease(2, name="cluster")
    node.obey()
    answer = here.ann.get("/v1/plan")
    assert answer.status_code == 200, answer.text
    plan_models.Calendar.model_validate(answer.json())
    calendar = calendar_from_json(answer.json())
    assert calendar.nodes == ("one",)
    assert {(bar.lease, bar.label, bar.workspace) for bar in calendar.bars} == {
        (lease["id"], "cluster", "cluster-1"),
        (lease["id"], "cluster", "cluster-2"),
    }
    assert max(bar.end for bar in calendar.bars) == lease["end"]
    assert "cluster" not in here.bob.get("/v1/plan").text
    assert "cluster" in here.root.get("/v1/plan").text


def test_a_window_may_be_asked_for(here):
    here.enroll("one")
    here.lease()
    now = int(time.time())
    found = here.ann.get("/v1/plan", params={"start": now + 3600, "end": now + 7200}).json()
    assert (found["start"], found["end"], found["bars"]) == (now + 3600, now + 7200, [])
    refused = here.ann.get("/v1/plan", params={"start": now, "end": now})
    assert (refused.status_code, refused.json()["field"]) == (422, "end")
    assert here.nobody.get("/v1/plan").status_code == 401
