"""Encrypted images and the keys of what is encrypted.

A passphrase that comes in is in a header (uploads.py); one that goes out, in an answer that is kept nowhere.
"""

from __future__ import annotations

from fastapi import Response
from pydantic import BaseModel, Field

from vws.core.wire import to_json
from vws.frontends.rest import image_models as models
from vws.frontends.rest.call import CallHere, ChangeHere, Id
from vws.frontends.rest.image_names import NEW_NAME, Named
from vws.frontends.rest.models import Asked
from vws.frontends.rest.operation import CHANGING, router

_NOT_KEPT = {"Cache-Control": "no-store"}

routes = router("images")


class Encryption(Asked):
    name: str = Field(
        max_length=200,
        json_schema_extra=NEW_NAME,
        description="What the encrypted image is called.",
        examples=["debian:sealed"],
    )
    shared: list[str] | None = Field(
        None,
        max_length=100,
        description="As in `PUT /v1/images/{id}/sharing`. Not said: as the image itself, if its owner or an "
        "administrator asks; else none.",
    )


class ImageKey(BaseModel):
    passphrase: str = Field(repr=False)


class FileKey(BaseModel):
    sha256: str
    passphrase: str = Field(repr=False)


class WorkspaceKeys(BaseModel):
    own: str = Field(repr=False, description="Of the disks that it writes to, and of its memory at rest.")
    files: list[FileKey] = Field(description="Of its image's files.")


@routes.post(
    "/v1/images/{id}/encrypted",
    operation_id="encrypt_image",
    status_code=201,
    response_model=models.Image,
    responses=CHANGING,
)
def encrypt_image(id: Named, body: Encryption, call: ChangeHere) -> Response:
    """Have an image of one's own with the content of another, its disk encrypted. Answered when it is made."""
    return call.mutate(
        lambda once: call.services.images.encrypt(call.caller, id, body.name, once, shared=body.shared),
        call.views.image,
        in_draft=call.views.image_in,
        status=201,
    )


@routes.post("/v1/images/{id}/key", operation_id="export_image_key", response_model=ImageKey, responses=CHANGING)
def export_image_key(id: Named, call: CallHere) -> Response:
    """The passphrase of an encrypted image, for its owner and administrators. Each time is an event."""
    passphrase = call.services.keys.export(call.caller, id)
    return _secret(call, {"passphrase": passphrase})


@routes.post(
    "/v1/nodes/{id}/workspaces/{workspace}/keys",
    operation_id="workspace_keys",
    response_model=WorkspaceKeys,
    responses=CHANGING,
)
def workspace_keys(id: Id, workspace: Id, call: CallHere) -> Response:
    """What the node needs to run an encrypted workspace that it is to run now. Each time is an event."""
    return _secret(call, to_json(call.services.keys.hand_out(call.caller, id, workspace)))


def _secret(call: CallHere, body: dict[str, object]) -> Response:
    answer = call.answer(body)
    answer.headers.update(_NOT_KEPT)
    return answer
