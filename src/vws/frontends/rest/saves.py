"""Workspaces that become images: asked for by users, handed in by nodes in parts."""

from __future__ import annotations

from typing import Annotated, Literal

from anyio.to_thread import run_sync
from fastapi import Query, Request, Response
from pydantic import BaseModel, Field

from vws.core.deployment import Quiesced
from vws.core.wire import to_json
from vws.frontends.rest import models
from vws.frontends.rest.call import LIMIT_DEFAULT, After, CallHere, ChangeHere, Id, Limit, Live, text
from vws.frontends.rest.image_names import NEW_NAME
from vws.frontends.rest.operation import CHANGING, READING, body_limit, router
from vws.frontends.rest.uploads import take_body
from vws.ports import Filter

_UNLIMITED = 1 << 62

routes = router("workspaces")


class SaveRequest(models.Asked):
    name: str = Field(
        max_length=200, json_schema_extra=NEW_NAME, description="NAME or NAME:TAG of the image that it becomes."
    )
    when: Literal["now", "end"] = Field("now", description="end: as it is when the workspace ends.")
    clean: bool = Field(True, description="Take out ssh host keys, machine id, secrets and logs.")


class Save(BaseModel):
    id: str
    workspace: str
    lease: str
    owner: str
    node: str
    base: str = Field(description="The id of the image that it is a delta of.")
    name: str
    tag: str
    at_end: bool
    clean: bool
    asked_at: float
    state: str = Field(description="due, done or failed.")
    image: str = Field(description="The id of the image that it became, or empty.")
    reason: str
    ended_at: float | None


class SavePage(BaseModel):
    items: list[Save]
    next: str | None


class Received(BaseModel):
    offset: int = Field(description="How much has come, in bytes.")


class CaptureDone(models.Asked):
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    quiesced: Annotated[
        Quiesced | None, Field(strict=False, description="What kept its guest from writing when it was taken.")
    ] = None


class CaptureFailed(models.Asked):
    reason: str = Field(max_length=1000)


# ---------------------------------------------------------------- users


@routes.post(
    "/v1/workspaces/{id}/saves", operation_id="save_workspace", status_code=202, response_model=Save, responses=CHANGING
)
def save_workspace(id: Id, body: SaveRequest, call: ChangeHere) -> Response:
    """Let a workspace become an image of its owner. Accepted: it is one when its node has handed it in."""
    return call.mutate(
        lambda once: call.services.saves.ask(
            call.caller, id, body.name, at_end=body.when == "end", clean=body.clean, once=once
        ),
        to_json,
        status=202,
    )


@routes.get("/v1/saves", operation_id="list_saves", response_model=SavePage, responses=READING)
def list_saves(
    call: CallHere,
    after: After = None,
    limit: Limit = LIMIT_DEFAULT,
    live: Live = False,
    workspace: Annotated[str | None, text("Only of this workspace (id or name).")] = None,
) -> Response:
    """Saves in the order in which they were asked for; a user sees his own."""
    found = call.services.leases.workspace(call.caller, workspace).id if workspace else None
    page = call.services.saves.all(call.caller, Filter(workspace=found, live=live), after=after, limit=limit)
    return call.page(page, to_json)


@routes.get("/v1/saves/{id}", operation_id="show_save", response_model=Save, responses=READING)
def show_save(id: Id, call: CallHere) -> Response:
    """A save, also when it is over: what image it became, or why there is none."""
    return call.answer(to_json(call.services.saves.save(call.caller, id)))


# ---------------------------------------------------------------- nodes


@routes.get("/v1/nodes/{id}/captures/{save}", operation_id="show_capture", response_model=Received, responses=READING)
def show_capture(id: Id, save: Id, call: CallHere) -> Response:
    """How much of a workspace that this node saves has come."""
    return call.answer({"offset": call.services.saves.offset(call.caller, id, save)})


@routes.patch(
    "/v1/nodes/{id}/captures/{save}",
    operation_id="continue_capture",
    response_model=Received,
    responses=CHANGING,
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The file's bytes from offset on.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
@body_limit(_UNLIMITED)
async def continue_capture(
    id: Id,
    save: Id,
    request: Request,
    call: CallHere,
    offset: Annotated[int, Query(ge=0, description="Where it ends so far.")],
) -> Response:
    """Send more of what is saved. What has come stays, if the connection breaks."""
    receiving = call.services.saves.receiving(call.caller, id, save, offset)
    file = await run_sync(receiving.__enter__)
    try:
        await take_body(request, file.write)
        return call.answer({"offset": file.position})
    finally:
        await run_sync(receiving.__exit__, None, None, None)


@routes.post(
    "/v1/nodes/{id}/captures/{save}/complete", operation_id="complete_capture", response_model=Save, responses=CHANGING
)
def complete_capture(id: Id, save: Id, body: CaptureDone, call: CallHere) -> Response:
    """All has come: an image is made of it, or the save fails with the reason."""
    return call.answer(to_json(call.services.saves.complete(call.caller, id, save, body.sha256, body.quiesced)))


@routes.post(
    "/v1/nodes/{id}/captures/{save}/failed", operation_id="fail_capture", response_model=Save, responses=CHANGING
)
def fail_capture(id: Id, save: Id, body: CaptureFailed, call: CallHere) -> Response:
    """The node cannot save it, and says why."""
    return call.answer(to_json(call.services.saves.give_up(call.caller, id, save, body.reason)))
