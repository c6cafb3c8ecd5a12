"""Image lists of others (HEPiX) that the site follows; for administrators."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import Response

from vws.core.errors import InvalidRequest
from vws.core.site import Subscription
from vws.core.wire import to_json
from vws.frontends.rest import image_list_models as models
from vws.frontends.rest.call import CallHere, ChangeHere
from vws.frontends.rest.operation import CHANGING, READING, body_limit, router

# A list as base64, within its own limit (service/smime.py).
LIST_BODY_BYTES = 12 << 20

routes = router("image-lists")


@routes.post(
    "/v1/image-lists",
    operation_id="subscribe_image_list",
    status_code=201,
    response_model=models.ImageList,
    responses=CHANGING,
)
@body_limit(LIST_BODY_BYTES)
def subscribe_image_list(body: models.ListRequest, call: ChangeHere) -> Response:
    """Follow a list that a known endorser signs."""
    return call.mutate(
        lambda once: call.services.image_lists.subscribe(
            call.caller,
            url=body.url,
            message=_decoded(body.message),
            dn=body.endorser,
            ca_pem=body.ca_pem,
            shared=body.shared,
            once=once,
        ),
        _shown,
        status=201,
    )


@routes.get("/v1/image-lists", operation_id="list_image_lists", response_model=models.ImageLists, responses=READING)
def list_image_lists(call: CallHere) -> Response:
    """The lists that the site follows."""
    return call.answer({"items": [_shown(each) for each in call.services.image_lists.subscriptions(call.caller)]})


@routes.get("/v1/image-lists/{id}", operation_id="show_image_list", response_model=models.ImageList, responses=READING)
def show_image_list(id: str, call: CallHere) -> Response:
    """A list by its id, or by its own identifier."""
    return call.answer(_shown(call.services.image_lists.subscription(call.caller, id)))


@routes.post(
    "/v1/image-lists/{id}/refresh",
    operation_id="refresh_image_list",
    response_model=models.ImageList,
    responses=CHANGING,
)
@body_limit(LIST_BODY_BYTES)
def refresh_image_list(id: str, body: models.ListMessage, call: ChangeHere) -> Response:
    """Read a list again: verified anew, and never an older one."""
    return call.mutate(
        lambda once: call.services.image_lists.refresh(call.caller, id, _decoded(body.message), once), _shown
    )


@routes.post(
    "/v1/image-lists/{id}/fetch", operation_id="fetch_listed_image", response_model=models.ImageList, responses=CHANGING
)
def fetch_listed_image(id: str, body: models.ListFetch, call: ChangeHere) -> Response:
    """Bring an image of a list to the site, if its bytes have the sha512 that the list says."""
    return call.mutate(
        lambda once: call.services.image_lists.fetch(call.caller, id, body.identifier, body.name, once), _shown
    )


@routes.delete(
    "/v1/image-lists/{id}", operation_id="unsubscribe_image_list", response_model=models.ImageList, responses=CHANGING
)
def unsubscribe_image_list(id: str, call: ChangeHere) -> Response:
    """Follow a list no more; its images stay."""
    return call.mutate(lambda once: call.services.image_lists.unsubscribe(call.caller, id, once), _shown)


def _decoded(message: str | None) -> bytes | None:
    try:
        return None if message is None else base64.b64decode(message, validate=True)
    except ValueError:
        raise InvalidRequest(
            "the list is not in base64", field="message", possible="base64, as RFC 4648 has it"
        ) from None


def _shown(subscription: Subscription) -> dict[str, Any]:
    shown: dict[str, Any] = to_json(subscription)
    del shown["ca_pem"]
    return shown | {"endorser": shown.pop("dn"), "authority": shown.pop("ca")}
