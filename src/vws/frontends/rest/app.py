"""The REST front end as one ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from vws import __version__
from vws.core.errors import VwsError
from vws.frontends.rest import (
    addresses,
    blobs,
    caches,
    clusters,
    contexts,
    events,
    guests,
    image_exports,
    image_lists,
    images,
    keys,
    leases,
    link,
    maintenances,
    nodes,
    plan,
    saves,
    site,
    tokens,
    trust,
    uploads,
    usage,
    workspaces,
)
from vws.frontends.rest.call import Api
from vws.frontends.rest.document import document
from vws.frontends.rest.gate import Gate
from vws.frontends.rest.metrics import Metrics
from vws.frontends.rest.problems import on_http_exception, on_validation_error, on_vws_error
from vws.frontends.rest.tunnels import Tunnels
from vws.frontends.rest.views import Views
from vws.frontends.rest.wakeups import Wakeups
from vws.service import Services

# The link first: it is called most, and routes are tried in order.
_PARTS = (
    link,
    leases,
    workspaces,
    guests,
    trust,
    saves,
    images,
    keys,
    image_exports,
    image_lists,
    blobs,
    uploads,
    caches,
    nodes,
    maintenances,
    clusters,
    contexts,
    addresses,
    plan,
    tokens,
    events,
    usage,
    site,
)


def create_app(services: Services, *, ca_pem: bytes) -> FastAPI:
    """The app over `services`; `ca_pem` is shown at /v1/ca. One app serves in one event loop."""
    wakeups = Wakeups(services.site)
    api = Api(services, Views(services), wakeups, Tunnels(wakeups), Metrics(services.site), ca_pem)
    api.metrics.watch(wakeups.count, api.tunnels.count)
    app = bare_app()
    app.state.api = api
    app.add_middleware(Gate, metrics=api.metrics, wakeups=wakeups)
    return app


def bare_app() -> FastAPI:
    """All operations, and nothing yet that serves them: enough to describe them (`app.openapi()`)."""
    app = FastAPI(
        title="VWS", version=__version__, lifespan=_lifespan, redirect_slashes=False,
        openapi_url=None, docs_url=None, redoc_url=None,
    )  # fmt: skip
    routes = [route for part in _PARTS for route in part.routes.routes]
    app.state.operations = [route for route in routes if hasattr(route, "methods")]
    # Not by include_router, which analyses each of them a second time, a quarter of a second in the first requests.
    app.router.routes.extend(routes)
    app.add_exception_handler(VwsError, on_vws_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, on_http_exception)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, on_validation_error)  # type: ignore[arg-type]
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    api: Api = app.state.api
    api.wakeups.open()
    try:
        yield
    finally:
        api.wakeups.close()


def close_app(app: FastAPI) -> None:
    """Let long polls and followers of events end at once. From any thread, and from a signal handler."""
    api: Api = app.state.api
    api.wakeups.close()
