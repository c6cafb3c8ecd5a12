"""The record: what happened, who asked, when. As pages, or followed as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Header, Query, Request, Response
from starlette.responses import StreamingResponse

from vws.core.errors import InvalidRequest, VwsError
from vws.core.site import Event, Role
from vws.frontends.rest import models
from vws.frontends.rest.call import LIMIT_DEFAULT, Call, CallHere, Limit, authenticated, text
from vws.frontends.rest.operation import READING, router
from vws.frontends.rest.views import json_text
from vws.frontends.rest.wakeups import EVENTS
from vws.ports import Filter

HEARTBEAT_S = 15.0
# A follower looks at the record at most this often, however many commits there are.
PAUSE_S = 0.05
STREAM = "text/event-stream"
_BATCH = 500
_SEQ_MAX = 2**63 - 1

routes = router("events")

_ANSWERS = READING | {
    200: {
        "model": models.EventPage,
        "description": "A page; or, with `Accept: text/event-stream`, events as they happen (`id:` is the seq, `data:` "
        "the event), from now on unless `after` or `Last-Event-ID` says from where.",
        "content": {STREAM: {"schema": {"type": "string"}}},
    }
}


@routes.get("/v1/events", operation_id="list_events", response_model=models.EventPage, responses=_ANSWERS)
async def list_events(
    request: Request,
    call: CallHere,
    after: Annotated[int | None, Query(ge=0, le=_SEQ_MAX, description="Only later ones than this seq.")] = None,
    limit: Limit = LIMIT_DEFAULT,
    lease: Annotated[str | None, text("Only of this lease (id or name).")] = None,
    workspace: Annotated[str | None, text("Only of this workspace (id or name).")] = None,
    node: Annotated[str | None, text("Only of this node (id or name).")] = None,
    last_event_id: Annotated[str | None, Header(description="Where a stream broke off.")] = None,
) -> Response:
    """What happened, in order; a user sees what concerns him."""
    where = await run_sync(_where, call, lease, workspace, node)
    if STREAM in request.headers.get("accept", ""):
        start = _resume(last_event_id, after, call.services.site.seq)
        return StreamingResponse(_follow(request, call, where, start), media_type=STREAM)
    events = await run_sync(_read, call, where, after or 0, limit)
    last = events[-1].seq if len(events) == limit else None
    return call.answer({"items": [call.views.event(event) for event in events], "next": last})


def _where(call: Call, lease: str | None, workspace: str | None, node: str | None) -> Filter:
    call.caller.must_be(Role.ADMIN, Role.USER)
    services = call.services
    return Filter(
        owner=None if call.caller.is_admin else call.caller.subject,
        lease=services.leases.lease(call.caller, lease).id if lease else None,
        workspace=services.leases.workspace(call.caller, workspace).id if workspace else None,
        node=services.nodes.node(call.caller, node).id if node else None,
    )


def _read(call: Call, where: Filter, after: int, limit: int) -> tuple[Event, ...]:
    return call.services.site.events(where, after=after, limit=limit)


def _resume(last_event_id: str | None, after: int | None, now: int) -> int:
    if last_event_id is None:
        return now if after is None else after
    if not last_event_id.isascii() or not last_event_id.isdecimal() or len(last_event_id) > 18:
        raise InvalidRequest(
            "this is no event's id",
            field="Last-Event-ID",
            asked=last_event_id,
            possible="the id of the last event seen",
        )
    return int(last_event_id)


async def _follow(request: Request, call: Call, where: Filter, after: int) -> AsyncIterator[bytes]:
    """Events after `after` until the client leaves, its token ends or the service stops."""
    wakeups, said_at = call.api.wakeups, time.monotonic()
    # The id alone: one who loses the connection before the first event can still say from where to go on.
    yield f"retry: 1000\nid: {after}\n\n".encode()
    with wakeups.waiting(EVENTS) as woken:
        while not wakeups.stopping:
            woken.clear()
            events = await run_sync(_read, call, where, after, _BATCH)
            if events:
                after, said_at = events[-1].seq, time.monotonic()
                yield "".join(_frame(call, event) for event in events).encode()
            elif time.monotonic() - said_at >= HEARTBEAT_S:
                if not await run_sync(_may_go_on, request, call):
                    return
                said_at = time.monotonic()
                yield b": still here\n\n"
            await asyncio.sleep(PAUSE_S if len(events) < _BATCH else 0)
            with suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), 0 if len(events) == _BATCH else HEARTBEAT_S)


def _frame(call: Call, event: Event) -> str:
    return f"id: {event.seq}\ndata: {json_text(call.views.event(event))}\n\n"


def _may_go_on(request: Request, call: Call) -> bool:
    """A token that was revoked or has expired since then sees nothing more."""
    try:
        authenticated(request, call.api)
    except VwsError:
        return False
    return True
