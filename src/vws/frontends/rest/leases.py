"""Leases: ask, look, extend, resize, cancel."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from vws.core.site import LeaseState
from vws.frontends.rest import models
from vws.frontends.rest.call import LIMIT_DEFAULT, After, CallHere, ChangeHere, Limit, Live, text
from vws.frontends.rest.operation import CHANGING, READING, router
from vws.ports import Filter

routes = router("leases")


@routes.post(
    "/v1/leases",
    operation_id="request_lease",
    status_code=201,
    response_model=models.Lease | models.Series,
    responses=CHANGING,
)
def request_lease(body: models.LeaseRequest, call: ChangeHere) -> Response:
    """Ask for a lease: all of its groups, or a refusal with the reason per node and what would fit. What is periodic
    becomes a series of leases."""
    return call.mutate(
        lambda once: call.services.leases.request(call.caller, body.value(), once),
        call.views.granted,
        in_draft=call.views.granted_in,
        status=201,
    )


@routes.post(
    "/v1/leases/explain",
    operation_id="explain_request",
    response_model=models.Fit,
    responses=CHANGING,
)
def explain_request(body: models.LeaseRequest, call: CallHere) -> Response:
    """What a request would be answered now. Nothing is changed."""
    return call.answer(call.services.leases.would_fit(call.caller, body.value()))


@routes.get("/v1/leases", operation_id="list_leases", response_model=models.LeasePage, responses=READING)
def list_leases(
    call: CallHere,
    after: After = None,
    limit: Limit = LIMIT_DEFAULT,
    live: Live = False,
    state: Annotated[list[LeaseState] | None, Query(description="Only these states.")] = None,
    owner: Annotated[str | None, text("Only this user's.")] = None,
    name: Annotated[str | None, text("Only of this name.")] = None,
    series: Annotated[str | None, text("Only those of one periodic request.")] = None,
) -> Response:
    """Leases in the order of their making; a user sees his own."""
    where = Filter(owner=owner, name=name, series=series, live=live, states=tuple(map(str, state or ())))
    return call.page(call.services.leases.leases(call.caller, where, after=after, limit=limit), call.views.lease)


@routes.get("/v1/leases/{id}", operation_id="show_lease", response_model=models.Lease, responses=READING)
def show_lease(id: str, call: CallHere) -> Response:
    """A lease by its id, or by its name."""
    return call.answer(call.views.lease(call.services.leases.lease(call.caller, id)))


@routes.get(
    "/v1/leases/{id}/explain", operation_id="explain_lease", response_model=models.Explanation, responses=READING
)
def explain_lease(id: str, call: CallHere) -> Response:
    """Why a lease is as it is, workspace by workspace."""
    return call.answer(call.services.leases.explain(call.caller, id))


@routes.post("/v1/leases/{id}/extend", operation_id="extend_lease", response_model=models.Lease, responses=CHANGING)
def extend_lease(id: str, body: models.Extension, call: ChangeHere) -> Response:
    """Move the end so many seconds further."""
    return call.mutate(
        lambda once: call.services.leases.extend(call.caller, id, body.duration_s, once),
        call.views.lease,
        in_draft=call.views.lease_in,
    )


@routes.post("/v1/leases/{id}/resize", operation_id="resize_lease", response_model=models.Lease, responses=CHANGING)
def resize_lease(id: str, body: models.Resizing, call: ChangeHere) -> Response:
    """Give each workspace of a group (of all groups) another memory or another share of CPUs."""
    size = body.model_dump()
    return call.mutate(
        lambda once: call.services.leases.resize(call.caller, id, **size, once=once),
        call.views.lease,
        in_draft=call.views.lease_in,
    )


@routes.delete(
    "/v1/leases/{id}", operation_id="cancel_lease", status_code=202, response_model=models.Lease, responses=CHANGING
)
def cancel_lease(id: str, call: ChangeHere) -> Response:
    """End it now. Accepted: it has ended once every node says that nothing is left."""
    return call.mutate(
        lambda once: call.services.leases.cancel(call.caller, id, once),
        call.views.lease,
        in_draft=call.views.lease_in,
        status=202,
    )
