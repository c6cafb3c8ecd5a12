"""The nodes' side of the API: they join, pull numbered orders, report facts, fetch files and carry tunnels.

Hundreds of nodes call these all day, so the two that matter, orders and reports, read and write JSON without a
validator in between and hold no thread while they wait. Only the node itself may speak for itself.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Request, Response, WebSocket
from pydantic import TypeAdapter

from vws.core.deployment import NodeReport
from vws.core.errors import Forbidden, InvalidRequest, Unavailable
from vws.core.site import Role
from vws.core.wire import from_json, to_json
from vws.frontends.rest import models
from vws.frontends.rest.call import Api, CallHere, ChangeHere, authenticated, bearer, knows_token
from vws.frontends.rest.operation import CHANGING, READING, REFERENCE_LENGTH_MAX, body_limit, router
from vws.frontends.rest.problems import not_json, problem
from vws.frontends.rest.views import json_text
from vws.frontends.rest.wakeups import first_of, gone
from vws.service.access import Caller
from vws.service.nodes import CONSOLE_BYTES_MAX

WAIT_S_MAX = 60.0
REPORT_BYTES_MAX = 4 << 20
REPORT_WAIT_S = 30.0

routes = router("link")
# Orders are made in threads of their own, few, so that a flood of them leaves threads for users.
_orders_threads = CapacityLimiter(2)
_console_slots = CapacityLimiter(4)


def _must_be(caller: Caller, id: str) -> None:
    """Raise Forbidden unless the caller is the node itself."""
    caller.must_be(Role.NODE)
    if caller.subject != id:
        raise Forbidden("only a node itself may do this", field="id", asked=id, possible=f"for {caller.subject}")


# ---------------------------------------------------------------- orders and reports


_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_SECURITY: list[dict[str, list[str]]] = [{bearer.scheme_name: []}]
_POLL = (
    ("instance", {"type": "string", "minLength": 1, "maxLength": REFERENCE_LENGTH_MAX}, "Which agent asks."),
    ("after", {"type": "integer", "minimum": 0, "default": 0}, "The generation that the node has."),
    ("wait", {"type": "number", "minimum": 0, "maximum": WAIT_S_MAX, "default": 0}, "Seconds."),
)


@routes.get(
    "/v1/nodes/{id}/orders",
    operation_id="pull_orders",
    response_model=models.Orders,
    responses=READING | {409: CHANGING[409]},
    openapi_extra={
        "security": _SECURITY,
        "parameters": [
            _ID,
            *(
                {"name": name, "in": "query", "required": name == "instance", "schema": schema, "description": text}
                for name, schema, text in _POLL
            ),
        ],
    },
)
async def pull_orders(request: Request) -> Response:
    """The node's complete orders, once they are newer than `after`; null and nothing else after `wait` seconds."""
    api: Api = request.app.state.api
    id, nodes = request.path_params["id"], api.services.nodes
    caller = await _node(request, api, id)
    instance, after, wait_s = _read_poll(request.query_params)
    nodes.heard(caller, id, instance)
    with api.wakeups.waiting(id) as woken:
        await _until_news(api, request, id, after, woken, time.monotonic() + wait_s)
    if api.wakeups.stopping:
        # Not an empty answer: hundreds of nodes would ask again at once, of a service that is about to end.
        raise Unavailable("the service is stopping", possible="the same when it is back")
    orders = "null"
    if nodes.generation(id) > after:
        orders = await run_sync(_orders, api, caller, id, instance, limiter=_orders_threads)
        api.metrics.orders.inc()
    tunnels, now = json_text(api.tunnels.tell(id)), api.services.site.clock.now()
    return Response(f'{{"orders":{orders},"tunnels":{tunnels},"time":{now}}}', media_type="application/json")


async def _node(request: Request, api: Api, id: str) -> Caller:
    """The caller, who must be the node itself. Without a thread if its token is in memory, as a node's is."""
    if knows_token(request, api):
        caller = authenticated(request, api)
    else:
        caller = await run_sync(authenticated, request, api)
    _must_be(caller, id)
    return caller


def _read_poll(query: Mapping[str, str]) -> tuple[str, int, float]:
    """(instance, after, wait in seconds)"""
    instance, after, wait = query.get("instance", ""), query.get("after", "0"), query.get("wait", "0")
    if not 1 <= len(instance) <= REFERENCE_LENGTH_MAX or "\0" in instance:
        raise InvalidRequest(
            "no agent is named", field="instance", asked=instance, possible="the agent's own lasting name"
        )
    if not (after.isascii() and after.isdecimal() and len(after) < 19):
        raise InvalidRequest(
            "after is not a whole number", field="after", asked=after, possible="the generation that the node has"
        )
    try:
        wait_s = float(wait)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= WAIT_S_MAX:
        raise InvalidRequest("wait is out of bounds", field="wait", asked=wait, possible=f"0 to {WAIT_S_MAX:g} seconds")
    return instance, int(after), wait_s


async def _until_news(api: Api, request: Request, id: str, after: int, woken: asyncio.Event, until: float) -> None:
    leaving = None
    try:
        while not (api.services.nodes.generation(id) > after or api.tunnels.has_news(id) or api.wakeups.stopping):
            left_s = until - time.monotonic()
            if left_s <= 0 or (leaving and leaving.done()):
                return
            leaving = leaving or asyncio.ensure_future(gone(request.receive))
            await first_of(woken, leaving, left_s)
            woken.clear()
    finally:
        if leaving:
            leaving.cancel()


def _orders(api: Api, caller: Caller, id: str, instance: str) -> str:
    return json_text(to_json(api.services.nodes.orders(caller, id, instance)))


@routes.post(
    "/v1/nodes/{id}/reports",
    operation_id="send_report",
    response_model=models.Acknowledgement,
    responses=CHANGING,
    openapi_extra={
        "security": _SECURITY,
        "parameters": [_ID],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NodeReport"}}},
        },
    },
)
@body_limit(REPORT_BYTES_MAX)
async def send_report(request: Request) -> Response:
    """Facts: every workspace that the node has anything of. Answered when they are committed."""
    api: Api = request.app.state.api
    id = request.path_params["id"]
    caller = await _node(request, api, id)
    try:
        said = json.loads(await request.body(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return problem(not_json(str(error)))
    report = from_json(NodeReport, said)
    if report.node != id:
        raise InvalidRequest(
            "the report is another node's", field="node", asked=report.node, possible=f"a report of {id}"
        )
    generation = await _committed(api, caller, report)
    api.metrics.reports.inc()
    now = api.services.site.clock.now()
    return Response(f'{{"generation":{generation},"time":{now}}}', media_type="application/json")


async def _committed(api: Api, caller: Caller, report: NodeReport) -> int:
    taken = asyncio.wrap_future(api.services.reconciler.submit(caller, report))
    try:
        return await asyncio.wait_for(taken, REPORT_WAIT_S)
    except TimeoutError:
        raise Unavailable(
            f"the report was not committed within {REPORT_WAIT_S:g} s", possible="the same report again"
        ) from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def report_schema() -> dict[str, Any]:
    """The JSON schema of a report, its parts under #/components/schemas."""
    return TypeAdapter(NodeReport).json_schema(ref_template="#/components/schemas/{model}")


# ---------------------------------------------------------------- joining


@routes.post(
    "/v1/nodes/join",
    operation_id="join_site",
    status_code=201,
    response_model=models.Joined,
    responses=CHANGING,
)
def join_site(body: models.JoinRequest, call: ChangeHere) -> Response:
    """Become a node, with a join token, which is spent by it."""

    def show(result: Any, token: bool = True) -> dict[str, Any]:
        node, text = result
        return {"node": node.id, "name": node.name, "token": text if token else None, "subnet": node.subnet}

    return call.mutate(
        lambda once: call.services.nodes.join(call.caller, body.name, body.instance, body.version, once),
        show,
        keep=lambda result: show(result, token=False),
        status=201,
    )


# ---------------------------------------------------------------- files and logs


@routes.put(
    "/v1/nodes/{id}/consoles/{workspace}",
    operation_id="keep_console",
    status_code=204,
    response_class=Response,
    responses=CHANGING,
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}, "required": True}},
)
@body_limit(CONSOLE_BYTES_MAX)
async def keep_console(id: str, workspace: str, request: Request, call: CallHere) -> Response:
    """The end of a console's log, to be kept beyond the workspace's end."""
    _must_be(call.caller, id)
    data = await request.body()
    await run_sync(call.services.nodes.keep_console, call.caller, id, workspace, data, limiter=_console_slots)
    return Response(status_code=204)


# ---------------------------------------------------------------- tunnels


@routes.websocket("/v1/nodes/{id}/tunnels/{tunnel}", name="carry_tunnel")
async def carry_tunnel(websocket: WebSocket, id: str, tunnel: str) -> None:
    """The node's end of a tunnel that it heard of with its orders."""
    api: Api = websocket.app.state.api
    _must_be(await run_sync(authenticated, websocket, api), id)
    taken = api.tunnels.take(tunnel, id)
    await api.tunnels.join(taken, websocket)
    await taken.over.wait()
