"""Tokens: who may ask."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response

from vws.core.site import Role
from vws.frontends.rest import models
from vws.frontends.rest.call import LIMIT_DEFAULT, After, CallHere, ChangeHere, Limit
from vws.frontends.rest.operation import CHANGING, READING, router
from vws.ports import Filter

routes = router("tokens")


@routes.post(
    "/v1/tokens", operation_id="create_token", status_code=201, response_model=models.NewToken, responses=CHANGING
)
def create_token(body: models.TokenRequest, call: ChangeHere) -> Response:
    """A new bearer token. Its text is shown this once."""

    def show(result: Any) -> dict[str, Any]:
        token, secret = result
        return call.views.token(token) | {"token": secret}

    return call.mutate(
        lambda once: call.services.access.create_token(
            call.caller, body.subject, Role(body.role), body.lifetime_s, once
        ),
        show,
        keep=lambda result: show(result) | {"token": None},
        status=201,
    )


@routes.get("/v1/tokens", operation_id="list_tokens", response_model=models.TokenPage, responses=READING)
def list_tokens(
    call: CallHere,
    after: After = None,
    limit: Limit = LIMIT_DEFAULT,
    live: Annotated[bool, Query(description="Only what was not revoked.")] = False,
) -> Response:
    """Tokens, without their texts, which are kept nowhere."""
    page = call.services.access.tokens(call.caller, Filter(live=live), after=after, limit=limit)
    return call.page(page, call.views.token)


@routes.delete("/v1/tokens/{id}", operation_id="revoke_token", response_model=models.Token, responses=CHANGING)
def revoke_token(id: str, call: ChangeHere) -> Response:
    """From now on this token is refused."""
    return call.mutate(lambda once: call.services.access.revoke_token(call.caller, id, once), call.views.token)
