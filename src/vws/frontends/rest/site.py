"""The site itself: is it well, what is it called, whom to trust, what it counts, what it can do."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from fastapi import FastAPI, Request, Response

from vws import __version__
from vws.core.site import Role
from vws.frontends.rest import models
from vws.frontends.rest.call import ApiHere, CallHere
from vws.frontends.rest.metrics import CONTENT_TYPE
from vws.frontends.rest.operation import refusals, router
from vws.service.rates import lines

routes = router("site")

_PEM = "application/x-pem-file"


def _open(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of an operation that needs no token."""
    return {status: answer for status, answer in refusals(*statuses).items() if status not in (401, 403)}


@routes.get("/v1/health", operation_id="check_health", response_model=models.Health, responses=_open())
def check_health(api: ApiHere) -> Response:
    """200 while the service and its store answer, 503 otherwise. Needs no token."""
    found = api.services.health()
    shown = {name: found[name] for name in ("status", "time", "warnings")}
    return Response(json.dumps(shown), media_type="application/json")


@routes.get("/v1/site", operation_id="show_site", response_model=models.SiteView, responses=_open())
async def show_site(api: ApiHere) -> models.SiteView:
    """What this site is called. Needs no token."""
    site = api.services.site
    return models.SiteView(name=site.settings.name, url=site.settings.url, version=__version__, time=site.clock.now())


@routes.get(
    "/v1/ca",
    operation_id="show_ca",
    response_class=Response,
    responses=_open() | {200: {"content": {_PEM: {"schema": {"type": "string"}}}, "description": "PEM."}},
)
async def show_ca(api: ApiHere) -> Response:
    """The certificate of the site's own authority. Needs no token; compare it with one that came another way."""
    return Response(api.ca_pem, media_type=_PEM)


@routes.get("/v1/rates", operation_id="show_rates", response_model=models.Rates, responses=refusals())
def show_rates(call: CallHere) -> Response:
    """How long staging, boot, suspension and the other steps take here; needs an administrator's token."""
    call.caller.must_be(Role.ADMIN)
    return call.answer({"items": [asdict(line) for line in lines(call.services.site.rates.now)]})


@routes.get(
    "/metrics",
    operation_id="show_metrics",
    response_class=Response,
    responses=refusals()
    | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics."}},
)
def show_metrics(call: CallHere) -> Response:
    """For Prometheus, in its text form; needs an administrator's token."""
    call.caller.must_be(Role.ADMIN)
    return Response(call.api.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


@routes.get("/v1/openapi.json", include_in_schema=False)
async def show_openapi(request: Request) -> Response:
    return Response(_document(request.app), media_type="application/json")


@lru_cache(4)
def _document(app: FastAPI) -> str:
    return json.dumps(app.openapi())
