"""The plan: who has which node when."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from vws.core.calendar import calendar_to_json
from vws.frontends.rest import plan_models
from vws.frontends.rest.call import CallHere
from vws.frontends.rest.operation import refusals, router

routes = router("plan")

Moment = Annotated[int | None, Query(description="UTC seconds.", ge=0, le=1 << 40)]


@routes.get("/v1/plan", operation_id="show_plan", response_model=plan_models.Calendar, responses=refusals())
def show_plan(call: CallHere, start: Moment = None, end: Moment = None) -> Response:
    """What each node did, does and is to do over [start, end): from an hour ago until the last planned end, a week
    ahead at most, if nothing is said. Others' leases are shown without owner and name, except to administrators."""
    return call.answer(calendar_to_json(call.services.plans.calendar(call.caller, start=start, end=end)))
