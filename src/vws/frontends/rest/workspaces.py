"""Workspaces: look, and command one by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Query, Response

from vws.core.lifecycle import Command, State
from vws.frontends.rest import models
from vws.frontends.rest.call import LIMIT_DEFAULT, After, CallHere, Change, ChangeHere, Limit, Live, text
from vws.frontends.rest.operation import CHANGING, READING, router
from vws.ports import Filter

routes = router("workspaces")

_MEANINGS = {
    Command.PAUSE: "Stop its CPUs; its memory stays where it is.",
    Command.RESUME: "Let a paused one go on, or call a suspension off.",
    Command.SUSPEND: "Save it to its node's disk, where it takes no memory.",
    Command.RESTORE: "Let a suspended one go on.",
    Command.REBOOT: "Stop it, by force if need be, and boot it anew with the size that was last asked for.",
}


@routes.get("/v1/workspaces", operation_id="list_workspaces", response_model=models.WorkspacePage, responses=READING)
def list_workspaces(
    call: CallHere,
    after: After = None,
    limit: Limit = LIMIT_DEFAULT,
    live: Live = False,
    state: Annotated[list[State] | None, Query(description="Only these states.")] = None,
    owner: Annotated[str | None, text("Only this user's.")] = None,
    lease: Annotated[str | None, text("Only of this lease (id or name).")] = None,
    node: Annotated[str | None, text("Only on this node (id or name).")] = None,
    name: Annotated[str | None, text("Only of this name.")] = None,
) -> Response:
    """Workspaces in the order of their making; a user sees his own."""
    where = Filter(
        owner=owner,
        lease=call.services.leases.lease(call.caller, lease).id if lease else None,
        node=call.services.nodes.node(call.caller, node).id if node else None,
        name=name,
        live=live,
        states=tuple(map(str, state or ())),
    )
    page = call.services.leases.workspaces(call.caller, where, after=after, limit=limit)
    return call.page(page, call.views.workspace)


@routes.get("/v1/workspaces/{id}", operation_id="show_workspace", response_model=models.Workspace, responses=READING)
def show_workspace(id: str, call: CallHere) -> Response:
    """A workspace by its id, or by its name."""
    return call.answer(call.views.workspace(call.services.leases.workspace(call.caller, id)))


def _command(call: Change, id: str, command: Command, status: int = 200) -> Response:
    return call.mutate(
        lambda once: call.services.leases.command(call.caller, id, command, once),
        call.views.workspace,
        status=status,
    )


def _operation(command: Command) -> Callable[[str, ChangeHere], Response]:
    def operation(id: str, call: ChangeHere) -> Response:
        return _command(call, id, command)

    return operation


for _verb, _meaning in _MEANINGS.items():
    routes.add_api_route(
        f"/v1/workspaces/{{id}}/{_verb}",
        _operation(_verb),
        methods=["POST"],
        operation_id=f"{_verb}_workspace",
        summary=f"{_verb.title()} Workspace",
        description=_meaning,
        response_model=models.Workspace,
        responses=CHANGING,
    )


@routes.delete(
    "/v1/workspaces/{id}",
    operation_id="terminate_workspace",
    status_code=202,
    response_model=models.Workspace,
    responses=CHANGING,
)
def terminate_workspace(id: str, call: ChangeHere) -> Response:
    """End this one and keep the rest of its lease. Accepted: it is gone once its node says so."""
    return _command(call, id, Command.TERMINATE, 202)
