"""Usage: what was agreed and what ran, from the record of events. At once, or with word of how far the reading is.

A report reads the record, which may take longer than a caller likes to wait without a sign: asked for as a stream of
server-sent events, it comes as `progress` events and one event `usage` (or `problem`) at the end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Literal

from anyio.to_thread import run_sync
from fastapi import Query, Request, Response
from starlette.responses import StreamingResponse

from vws.core.errors import VwsError
from vws.frontends.faults import fault_of
from vws.frontends.rest import usage_models
from vws.frontends.rest.call import Call, CallHere, text
from vws.frontends.rest.operation import READING, router
from vws.frontends.rest.problems import problem
from vws.frontends.rest.views import Json, json_text
from vws.service.usage import Asked

STREAM = "text/event-stream"

routes = router("usage")

_ANSWERS = READING | {
    200: {
        "model": usage_models.UsageReport,
        "description": "The report; or, with `Accept: text/event-stream`, events named `progress` "
        '(`{"read": ..., "of": ...}`) and at the end one named `usage`, or `problem`.',
        "content": {STREAM: {"schema": {"type": "string"}}},
    }
}
_TIME = "UTC seconds, or a date of the site's clock: 2026-10, 2026-10-03, 2026-10-03T12:00."


@routes.get("/v1/usage", operation_id="list_usage", response_model=usage_models.UsageReport, responses=_ANSWERS)
async def list_usage(
    request: Request,
    call: CallHere,
    by: Annotated[Literal["user", "vo", "lease", "day"], Query(description="What a row is.")] = "user",
    user: Annotated[str | None, text("Only this user's.")] = None,
    vo: Annotated[str | None, text("Only those of this VO's users.")] = None,
    lease: Annotated[str | None, text("Only of this lease (id or name).")] = None,
    since: Annotated[
        str | None, Query(alias="from", max_length=40, description=f"{_TIME} Else this month's first.")
    ] = None,
    until: Annotated[str | None, Query(alias="to", max_length=40, description=f"{_TIME} Else now.")] = None,
) -> Response:
    """Node-hours, CPU-hours and charges, reserved and used; a user sees his own."""
    asked = await run_sync(_asked, call, Asked(by, user, vo, lease, since, until))
    if STREAM in request.headers.get("accept", ""):
        return StreamingResponse(_stream(call, asked), media_type=STREAM)
    return call.answer(await run_sync(call.services.usage.report, call.caller, asked))


def _asked(call: Call, asked: Asked) -> Asked:
    if asked.lease is None:
        return asked
    return Asked(**(asdict(asked) | {"lease": call.services.leases.lease(call.caller, asked.lease).id}))


async def _stream(call: Call, asked: Asked) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()

    def tell(read: int, of: int) -> None:
        loop.call_soon_threadsafe(said.put_nowait, (read, of))

    def report() -> Json:
        try:
            return call.services.usage.report(call.caller, asked, tell)
        finally:
            loop.call_soon_threadsafe(said.put_nowait, None)

    reading = asyncio.ensure_future(run_sync(report))
    while (far := await said.get()) is not None:
        yield _frame("progress", {"read": far[0], "of": far[1]})
    try:
        yield _frame("usage", await reading)
    except VwsError as error:
        yield _frame("problem", json.loads(bytes(problem(fault_of(error)).body)))


def _frame(name: str, data: Json) -> bytes:
    return f"event: {name}\ndata: {json_text(data)}\n\n".encode()
