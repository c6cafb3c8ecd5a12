"""When nodes are in maintenance."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Query, Response

from vws.frontends.rest import models
from vws.frontends.rest.call import LIMIT_DEFAULT, After, CallHere, ChangeHere, Limit, text
from vws.frontends.rest.operation import CHANGING, READING, router
from vws.ports import Filter

routes = router("nodes")


@routes.post(
    "/v1/nodes/{id}/maintenances",
    operation_id="plan_maintenance",
    status_code=201,
    response_model=models.Maintenance,
    responses=CHANGING,
)
def plan_maintenance(id: str, body: models.MaintenanceRequest, call: ChangeHere) -> Response:
    """Keep a node free for a time. What is there already stays; the answer names the leases that are in the way."""
    return call.mutate(
        lambda once: call.services.maintenances.plan(
            call.caller, id, start=body.start, duration_s=body.duration_s, reason=body.reason, once=once
        ),
        partial(call.views.maintenance, caller=call.caller),
        status=201,
    )


@routes.get(
    "/v1/maintenances", operation_id="list_maintenances", response_model=models.MaintenancePage, responses=READING
)
def list_maintenances(
    call: CallHere,
    after: After = None,
    limit: Limit = LIMIT_DEFAULT,
    everything: Annotated[bool, Query(alias="all", description="Those that are over or removed too.")] = False,
    node: Annotated[str | None, text("Only of this node: its id or name.")] = None,
) -> Response:
    """Maintenance windows that are on or ahead."""
    of = call.services.nodes.node(call.caller, node).id if node else None
    page = call.services.maintenances.maintenances(
        call.caller, Filter(live=not everything, node=of), after=after, limit=limit
    )
    return call.page(page, partial(call.views.maintenance, caller=call.caller))


@routes.get(
    "/v1/maintenances/{id}", operation_id="show_maintenance", response_model=models.Maintenance, responses=READING
)
def show_maintenance(id: str, call: CallHere) -> Response:
    """A maintenance window."""
    return call.answer(call.views.maintenance(call.services.maintenances.maintenance(call.caller, id), call.caller))


@routes.delete(
    "/v1/maintenances/{id}", operation_id="remove_maintenance", response_model=models.Maintenance, responses=CHANGING
)
def remove_maintenance(id: str, call: ChangeHere) -> Response:
    """Call a window off, or end it early."""
    return call.mutate(
        lambda once: call.services.maintenances.remove(call.caller, id, once),
        partial(call.views.maintenance, caller=call.caller),
    )
