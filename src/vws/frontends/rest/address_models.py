"""Pools and their addresses as JSON."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from vws.frontends.rest.models import Asked, Text


class AddressRequest(Asked):
    """An address that is to stay one's own, whatever holds it."""

    name: Annotated[Text, Field(description="What cluster files call it.", examples=["front"])]
    pool: Annotated[Text | None, Field(description="Of which pool; the default one if not given.")] = None
    address: Annotated[Text, Field(description="Which one; empty: any.", examples=["192.0.2.17"])] = ""
    owner: Annotated[Text | None, Field(description="For whom: for administrators only. Default: who asks.")] = None


class Address(BaseModel):
    id: str = Field(examples=["adr-01jd3k9q4t7c2vz"])
    pool: str
    address: str
    owner: str
    name: str = Field(description="Under which it is reserved; empty: it is not.")
    cluster: str = Field(description="The id of the cluster that holds it; empty: none does.")
    cluster_name: str
    member: str = Field(description="Who holds it in that cluster.")
    created_at: float = Field(description="When it was reserved or given.")
    released_at: float | None = Field(description="When it went back into its pool.")


class AddressPage(BaseModel):
    items: list[Address]
    next: str | None


class Pool(BaseModel):
    """Addresses that the site has set aside."""

    name: str
    range: str = Field(description="The network that they are in.", examples=["192.0.2.0/24"])
    gateway: str
    default: bool = Field(description="Whether `public: true` in a cluster file means it.")
    require: str = Field(description="What nodes must be to have guests on it.")
    size: int = Field(description="How many addresses it has.")
    free: int
    held: int = Field(description="By members of clusters.")
    reserved: int = Field(description="By users, held or not.")
    reserved_max: int = Field(description="How many a user may reserve.")


class Pools(BaseModel):
    items: list[Pool]
