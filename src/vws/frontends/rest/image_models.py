"""The shapes of what the REST API says of images; see models.py."""

from __future__ import annotations

from pydantic import BaseModel, Field

from vws.core.site import DocumentKind, OriginKind
from vws.frontends.rest.image_names import NEW_NAME
from vws.frontends.rest.models import Asked, Disk


class ImageFile(BaseModel):
    role: str
    sha256: str
    size_bytes: int
    format: str
    virtual_size_mib: int
    base: str = Field(description="The sha256 of the disk that this one is a delta of; empty: it stands alone.")
    encryption: str = Field(description="luks: what is in it is encrypted; empty: it is in the clear.")
    data_bytes: int = Field(description="What of it is no hole, and so is sent to nodes; 0: not known.")


class Origin(BaseModel):
    """What an image was made from, as it was then; it may be removed since."""

    how: OriginKind = Field(description="The next one was made from it. same-disk: it was brought, with the same disk.")
    image: str = Field(description="Its id. All of it is empty if it was not for who brought the image.")
    digest: str
    content: str = Field(description="The sha256 of its disk, or of the initrd of one that has none.")
    name: str = Field(description="What it was called then.")


class Revoked(BaseModel):
    """Why nobody may run an image."""

    since: float
    reason: str
    by: str
    name: str = Field(description="What was revoked was called so; empty if that is not for who brought the image.")
    digest: str = Field(description="Of what was revoked: the image, or one that it was made from; or empty likewise.")
    why: str = Field(description="The reason, and what the image has to do with what was revoked.")


class Image(BaseModel):
    id: str
    name: str = Field(description="The name it was first pushed under.")
    owner: str
    sha256: str
    size_bytes: int
    boot: str = Field(description="disk: firmware boots it; direct: kernel and initrd are given to the hypervisor.")
    files: list[ImageFile]
    cmdline: str
    user: str
    ready: str
    memory_mib_min: int
    disk_mib_min: int
    simulated: bool
    created_at: float
    removed_at: float | None
    shared: list[str] = Field(description="Names of VOs, or public; empty: its owner and administrators.")
    base: str = Field(description="The id of the image that its disk is a delta of, or empty.")
    retired_at: float | None = Field(description="Since when it is granted to nobody any more.")
    beside: list[Disk] = Field(description="Disks that its workspaces have, unless their lease asks for others.")
    damaged: str = Field(description="What is wrong with its files where they are kept, or empty.")
    origins: list[Origin] = Field(description="What it was made from, the nearest first, and what that was made from.")
    revoked: Revoked | None = Field(description="Since when, and why, nobody may run it; null: that is not so.")
    withdrawn: str = Field(
        description="Why the image list that it, or what it was made from, came from vouches for it no more; or empty."
    )
    digest: str = Field(description="The sha256 of its manifest: what is signed.")
    encrypted: bool = Field(description="Its disk is encrypted; only nodes that run it get the key.")
    tags: list[str] = Field(description="What it is called now: NAME, or NAME:TAG.")


class ImagePage(BaseModel):
    items: list[Image]
    next: str | None


class ImageTag(BaseModel):
    id: str
    name: str
    tag: str
    image: str
    owner: str
    set_at: float
    removed_at: float | None = Field(description="When it came to point at another image, or was taken away.")


class ImageHistory(BaseModel):
    items: list[ImageTag]
    next: str | None


class Sharing(Asked):
    shared: list[str] = Field(max_length=100, description="Names of VOs, `public` for all, none for its owner alone.")


class ImageName(Asked):
    name: str = Field(max_length=200, json_schema_extra=NEW_NAME, examples=["debian:12"])


class ImageCopy(ImageName):
    flat: bool = Field(default=False, description="With a disk that stands alone, where the other's is a delta.")


class Flattening(BaseModel):
    """How far it is."""

    done_bytes: int
    most_bytes: int = Field(description="What it may come to; it is often less.")


class Document(BaseModel):
    id: str
    image: str
    kind: DocumentKind
    media_type: str
    sha256: str
    size_bytes: int
    added_at: float
    by: str


class Documents(BaseModel):
    items: list[Document]


class Collected(BaseModel):
    images: list[Image]
    files: list[str] = Field(description="The sha256s of files that no image had.")


class UploadRequest(Asked):
    name: str = Field(
        max_length=200, json_schema_extra=NEW_NAME, description="Under which NAME or NAME:TAG.", examples=["debian:12"]
    )
    size_bytes: int = Field(ge=1, le=1 << 50, description="Of the whole file.")
    key: str = Field("", max_length=200, description="By which the sender finds the upload again; empty: not at all.")
    shared: list[str] | None = Field(None, max_length=100, description="As in `PUT /v1/images/{id}/sharing`.")
    format: str | None = Field(None, max_length=20, description="That the file has; not said: told by its bytes.")
    encrypt: bool = Field(False, description="Encrypt its disk, before anything of it is kept.")


class UploadDone(Asked):
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$", description="Of the whole file, zeros counted.")


class Upload(BaseModel):
    id: str
    name: str
    size_bytes: int
    offset: int = Field(description="How much of the file has come.")
    created_at: float
    expires_at: float
