"""Contexts as people see them: made for machines that VWS did not boot, watched, closed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Response

from vws.core.context import ContextRecord, ContextSpec, Expected
from vws.core.context_status import MemberStatus
from vws.core.wire import from_json
from vws.frontends.rest import context_models as models
from vws.frontends.rest.call import LIMIT_DEFAULT, After, CallHere, ChangeHere, Limit, Live, text
from vws.frontends.rest.operation import CHANGING, READING, body_limit, router
from vws.ports import Filter
from vws.service.contexts import ContextView

routes = router("contexts")
BODY_BYTES_MAX = 8 << 20


@routes.post(
    "/v1/contexts",
    operation_id="create_context",
    status_code=201,
    response_model=models.NewContext,
    responses=CHANGING,
)
@body_limit(BODY_BYTES_MAX)
def create_context(body: models.ContextRequest, call: ChangeHere) -> Response:
    """Expect these members, wherever they run. The answer has what each machine needs to join, its secret first."""
    asked = body.model_dump(mode="json")
    duration_s = asked.pop("duration_s")
    members = [from_json(Expected, member, "members") for member in asked.pop("members")]
    spec = from_json(ContextSpec, asked, "context")
    contexts = call.services.contexts

    def show(id: str) -> dict[str, Any]:
        view = contexts.view(id)
        names = [status.member.name for status in view.members]
        secrets = [{"name": name, "secret": contexts.secret_of_member(id, name)} for name in names]
        return _summary(view.record) | {
            "url": call.services.site.settings.url,
            "ca_pem": call.api.ca_pem.decode(),
            "secrets": secrets,
        }

    return call.mutate(lambda once: contexts.create(call.caller, spec, members, duration_s, once), show, status=201)


@routes.get("/v1/contexts", operation_id="list_contexts", response_model=models.ContextPage, responses=READING)
def list_contexts(
    call: CallHere,
    after: After = None,
    limit: Limit = LIMIT_DEFAULT,
    live: Live = False,
    name: Annotated[str | None, text("Only of this name.")] = None,
) -> Response:
    """Contexts, those of clusters too; of others' for administrators only."""
    page = call.services.contexts.contexts(call.caller, Filter(live=live, name=name), after=after, limit=limit)
    return call.page(page, _summary)


@routes.get("/v1/contexts/{id}", operation_id="show_context", response_model=models.ContextStatus, responses=READING)
def show_context(id: str, call: CallHere) -> Response:
    """How far a context is, by its id, or by its name while it is open: each member, whom it waits for, what it ran."""
    return call.answer(_status(call.services.contexts.context(call.caller, id)))


@routes.get(
    "/v1/contexts/{id}/members/{name}/log",
    operation_id="show_member_log",
    response_model=models.MemberLog,
    responses=READING,
)
def show_member_log(id: str, name: str, call: CallHere) -> Response:
    """The ends of the outputs of a member's hooks, of each hook's last run."""
    logs = call.services.contexts.logs(call.caller, id, name)
    shown = [
        {"role": log.role, "side": log.side, "hook": log.hook, "log": log.log.decode("utf-8", "replace")}
        for log in logs
    ]
    return call.answer({"items": shown})


@routes.delete(
    "/v1/contexts/{id}", operation_id="close_context", response_model=models.ContextStatus, responses=CHANGING
)
def close_context(id: str, call: ChangeHere) -> Response:
    """No more changes; the agents of its members stop."""
    return call.mutate(lambda _: call.services.contexts.close(call.caller, id), _status)


# ---------------------------------------------------------------- views


def _summary(record: ContextRecord) -> dict[str, Any]:
    names = ("id", "name", "owner", "state", "reason", "version", "created_at", "ready_at", "closed_at", "ends_at")
    return {name: getattr(record, name) for name in names} | {"domain": record.spec.domain}


def _status(view: ContextView) -> dict[str, Any]:
    return _summary(view.record) | {"members": [_member(status) for status in view.members]}


def _member(status: MemberStatus) -> dict[str, Any]:
    member = status.member
    return {
        "name": member.name,
        "fqdn": status.fqdn,
        "state": status.state,
        "provides": list(member.expected.provides),
        "requires": list(member.expected.requires),
        "workspace": member.expected.workspace,
        "nics": [asdict(nic) for nic in (member.identity.nics if member.identity else ())],
        "waits": [{"what": wait.what, "members": list(wait.members), "count": wait.count} for wait in status.waits],
        "ran": [asdict(ran) for ran in member.ran],
        "published": [value.name for value in member.values],
        "late": member.late,
        "joined_at": member.joined_at,
        "reported_at": member.reported_at or None,
        "left_at": member.left_at,
    }
