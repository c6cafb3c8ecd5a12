"""Image lists of others as JSON."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from vws.frontends.rest.models import Asked, Text

MESSAGE = "The signed list itself (S/MIME), in base64; none: it is fetched from its address."


class ListRequest(Asked):
    """A HEPiX image list to follow."""

    url: Annotated[str, Field(max_length=2000, examples=["https://images.example.org/list"])] = ""
    message: Annotated[str | None, Field(max_length=12 << 20, description=MESSAGE)] = None
    endorser: Annotated[str, Field(max_length=2000, description="Subject of the certificate that must sign it.")]
    ca_pem: Annotated[str, Field(max_length=100_000, description="The authority that issued that certificate, PEM.")]
    shared: Annotated[list[Text], Field(max_length=100, description="Of what is fetched: VOs, or `public`.")] = []


class ListMessage(Asked):
    message: Annotated[str | None, Field(max_length=12 << 20, description=MESSAGE)] = None


class ListFetch(Asked):
    identifier: Annotated[str, Field(max_length=10_000, description="Of the image, as the list has it.")]
    name: Annotated[str, Field(max_length=200, description="NAME or NAME:TAG; empty: made of its title.")] = ""


class ListedImage(BaseModel):
    identifier: str
    version: str
    title: str
    uri: str
    size_bytes: int
    sha512: str
    format: str
    image: str = Field(description="The id of what was fetched; empty: nothing yet.")
    dropped_at: float | None = Field(description="Since when it is on the list no more.")


class ImageList(BaseModel):
    id: str = Field(examples=["ils-01jd3k9q4t7c2vz"])
    name: str = Field(description="The list's own identifier.")
    title: str
    version: str
    url: str
    endorser: str
    authority: str
    shared: list[str]
    images: list[ListedImage]
    created_at: float = Field(description="As the list says.")
    expires_at: float = Field(description="From then on nothing new is leased with its images.")
    added_at: float
    by: str
    refreshed_at: float
    problem: str = Field(description="Why it could not be read when it was looked at last.")
    removed_at: float | None


class ImageLists(BaseModel):
    items: list[ImageList]
