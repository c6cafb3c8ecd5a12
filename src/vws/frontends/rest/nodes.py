"""Nodes, as users and administrators see them."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from typing import Annotated, Any

from fastapi import Query, Response

from vws.frontends.rest import models
from vws.frontends.rest.call import LIMIT_DEFAULT, After, CallHere, ChangeHere, Limit, text
from vws.frontends.rest.operation import CHANGING, READING, router
from vws.ports import Filter

routes = router("nodes")


@routes.get("/v1/nodes", operation_id="list_nodes", response_model=models.NodePage, responses=READING)
def list_nodes(
    call: CallHere,
    after: After = None,
    limit: Limit = LIMIT_DEFAULT,
    everything: Annotated[bool, Query(alias="all", description="Removed ones too.")] = False,
    name: Annotated[str | None, text("Only of this name.")] = None,
) -> Response:
    """Nodes with what they have and what is held of it."""
    where = Filter(live=not everything, name=name)
    return call.page(call.services.nodes.nodes(call.caller, where, after=after, limit=limit), call.views.node)


@routes.get("/v1/nodes/{id}", operation_id="show_node", response_model=models.Node, responses=READING)
def show_node(id: str, call: CallHere) -> Response:
    """A node by its id, or by its name."""
    return call.answer(call.views.node(call.services.nodes.node(call.caller, id)))


@routes.post("/v1/nodes/{id}/drain", operation_id="drain_node", response_model=models.Node, responses=CHANGING)
def drain_node(id: str, call: ChangeHere) -> Response:
    """Place nothing new there; what runs stays to its end."""
    return call.mutate(lambda once: call.services.nodes.drain(call.caller, id, once), call.views.node)


@routes.post("/v1/nodes/{id}/undrain", operation_id="undrain_node", response_model=models.Node, responses=CHANGING)
def undrain_node(id: str, call: ChangeHere) -> Response:
    """Place new workspaces there again."""
    return call.mutate(lambda once: call.services.nodes.undrain(call.caller, id, once), call.views.node)


@routes.post("/v1/nodes/{id}/label", operation_id="label_node", response_model=models.Node, responses=CHANGING)
def label_node(id: str, body: models.Relabelling, call: ChangeHere) -> Response:
    """Say what requirements may ask of it: labels and attributes, beside those of its own configuration."""
    change = body.value()
    return call.mutate(lambda once: call.services.nodes.label(call.caller, id, change, once), call.views.node)


@routes.delete("/v1/nodes/{id}", operation_id="remove_node", response_model=models.Node, responses=CHANGING)
def remove_node(
    id: str,
    call: ChangeHere,
    force: Annotated[bool, Query(description="The host is gone for good: give up what was on it.")] = False,
) -> Response:
    """Take a node out of the site."""
    return call.mutate(
        lambda once: call.services.nodes.remove(call.caller, id, force=force, once=once), call.views.node
    )


@routes.post(
    "/v1/nodes/invitations",
    operation_id="invite_node",
    status_code=201,
    response_model=models.Invitation,
    responses=CHANGING,
)
def invite_node(body: models.InvitationRequest, call: ChangeHere) -> Response:
    """A join token, with which one host may become a node, once."""

    def show(result: Any, text: bool = True) -> dict[str, Any]:
        token, secret = result
        url = call.services.site.settings.url
        return call.views.token(token) | {
            "token": join_text(url, call.api.ca_pem, secret) if text else None,
            "url": url,
        }

    return call.mutate(
        lambda once: call.services.nodes.invite(call.caller, body.lifetime_s, once),
        show,
        keep=lambda result: show(result, text=False),
        status=201,
    )


def join_text(url: str, ca_pem: bytes, secret: str) -> str:
    """All that a host needs to join, in one word: where, by which CA it is known (sha256 of its DER form), the token.

    So the new host trusts nobody on first use. vws/node/run.py reads it.
    """
    der = ssl.PEM_cert_to_DER_cert(ca_pem.decode())
    said = {"u": url, "f": hashlib.sha256(der).hexdigest(), "t": secret}
    return "vwsj." + base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
