"""Ways into a guest: a tunnel to one of its ports, and the end of its serial console's log."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Query, Response, WebSocket

from vws.core.errors import CommandRefused, InvalidRequest, Unavailable
from vws.core.lifecycle import State
from vws.core.site import NodeState, Workspace
from vws.frontends.rest.call import Api, Call, CallHere, authenticated
from vws.frontends.rest.operation import READING, router
from vws.frontends.rest.tunnels import NO_ANSWER, close, collect, pump

AGENT_WAIT_S = 15.0
CONSOLE_WAIT_S = 5.0
CONSOLE_READ_S = 10.0
CONSOLE_BYTES_MAX = 1 << 20

routes = router("workspaces")


@routes.websocket("/v1/workspaces/{id}/tunnel", name="open_tunnel")
async def open_tunnel(websocket: WebSocket, id: str) -> None:
    """A byte stream to a TCP port of the guest (`?port=22`), in binary messages both ways.

    Refused with a problem before the WebSocket is accepted; afterwards closed with 4504 if the node does not come, or
    with the node's own code and reason if the guest does not answer.
    """
    api: Api = websocket.app.state.api
    port = _port(websocket)
    workspace = await run_sync(_running, api, websocket, id)
    with api.tunnels.open(workspace, f"tcp:{port}") as tunnel:
        await websocket.accept()
        agent = await api.tunnels.agent(tunnel, AGENT_WAIT_S)
        if agent is None:
            name = api.views.workspace(workspace)["node_name"]
            await close(websocket, NO_ANSWER, f"node {name} did not answer within {AGENT_WAIT_S:g} s")
            return
        await pump(websocket, agent, beats=tunnel.beats)


def _port(websocket: WebSocket) -> int:
    asked = websocket.query_params.get("port", "22")
    if not (asked.isascii() and asked.isdecimal() and len(asked) <= 5 and 1 <= int(asked) <= 65535):
        raise InvalidRequest("this is no port", field="port", asked=asked, possible="a whole number from 1 to 65535")
    return int(asked)


def _running(api: Api, websocket: WebSocket, id: str) -> Workspace:
    caller = authenticated(websocket, api)
    workspace = api.services.leases.workspace(caller, id)
    if workspace.state is not State.RUNNING:
        raise CommandRefused(
            f"{workspace.name} is {workspace.state}, not running",
            field="id",
            asked=id,
            possible="the same once it runs" if workspace.released_at is None else "another workspace: it has ended",
        )
    return workspace


@routes.get(
    "/v1/workspaces/{id}/console",
    operation_id="show_console",
    response_class=Response,
    responses=READING | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The log."}},
)
async def show_console(
    id: str,
    call: CallHere,
    tail_bytes: Annotated[int, Query(ge=1, le=CONSOLE_BYTES_MAX, description="How much of its end.")] = 65536,
) -> Response:
    """The end of the serial console's log: from the node while the workspace lives, else as it was kept."""
    workspace = await run_sync(call.services.leases.workspace, call.caller, id)
    data = await _live_console(call, workspace, tail_bytes)
    if data is None:
        data = await run_sync(call.services.nodes.kept_console, workspace.id)
    if data is None and workspace.released_at is None:
        raise Unavailable(
            f"the node of {workspace.name} does not answer now", possible="the same when it is back (vws node list)"
        )
    return Response((data or b"")[-tail_bytes:], media_type="text/plain; charset=utf-8")


async def _live_console(call: Call, workspace: Workspace, tail_bytes: int) -> bytes | None:
    node = call.services.site.present.nodes.get(workspace.node)
    away = node is None or node.state in (NodeState.SILENT, NodeState.LOST)
    if away or workspace.released_at is not None:
        return None
    tunnels = call.api.tunnels
    with tunnels.open(workspace, f"console:tail={tail_bytes}") as tunnel, suppress(TimeoutError):
        agent = await tunnels.agent(tunnel, CONSOLE_WAIT_S)
        if agent is not None:
            return await asyncio.wait_for(collect(agent, tail_bytes), CONSOLE_READ_S)
    return None
