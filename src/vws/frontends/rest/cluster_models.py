"""Clusters as JSON."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import BaseModel, Field

from vws.core import terms
from vws.core.cluster import ClusterState
from vws.core.context import ContextState
from vws.core.errors import InvalidRequest
from vws.core.lifecycle import State
from vws.core.site import OnFailure
from vws.core.terms import When
from vws.frontends.rest.models import Asked, Fit, Text, Whole
from vws.service.clusters import Launch

FILE_LENGTH_MAX = 1 << 20
FILES_MAX = 1000


class LaunchRequest(Asked):
    """A cluster file with the files that it names."""

    file: Annotated[str, Field(description="The cluster file's text, YAML.", max_length=FILE_LENGTH_MAX)]
    files: Annotated[
        dict[str, str],
        Field(description="The files that it names, by their paths in it, in base64.", max_length=FILES_MAX),
    ] = {}
    parameters: Annotated[dict[str, str], Field(description="Values of its parameters.")] = {}
    name: Annotated[Text | None, Field(description="In place of the file's.")] = None
    duration_s: Annotated[Whole | None, Field(description="In place of the file's.")] = None
    when: Annotated[When | None, Field(description="In place of the file's.")] = None
    start: Annotated[Whole | None, Field(description="Of a reservation, UTC seconds.")] = None
    deadline: Annotated[Whole | None, Field(description="By which it is over, UTC seconds.")] = None
    ssh_keys: Annotated[
        list[str], Field(description="Who may log in to its members.", max_length=terms.SSH_KEYS_MAX)
    ] = []

    def value(self) -> Launch:
        files = {path: _bytes(path, text) for path, text in self.files.items()}
        given = self.model_dump(exclude={"file", "files", "parameters", "ssh_keys"})
        return Launch(self.file, files, self.parameters, ssh_keys=tuple(self.ssh_keys), **given)


def _bytes(path: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            f"the content of {path[:60]} is not base64", field=f"files.{path[:60]}", possible="its bytes in base64"
        ) from None


class Resized(Asked):
    group: Annotated[Text, Field(description="Whose members.", examples=["worker"])]
    count: Annotated[Whole, Field(description="How many more, or fewer.", examples=[1])]


class ClusterNetwork(BaseModel):
    id: str
    name: str
    cidr: str = Field(description="Its range.")
    outgoing: bool = Field(description="Whether its members reach what their node reaches.")
    pool: str = Field(description="The site's pool whose network it is; empty: its own.")


class ClusterRoles(BaseModel):
    group: str
    provides: list[str]
    requires: list[str]
    on_failure: OnFailure


class ClusterMember(BaseModel):
    name: str = Field(description="Among the members.")
    workspace: str = Field(description="Its name at the site.")
    id: str = Field(description="The workspace's id.")
    group: str
    state: State = Field(description="Of the workspace.")
    reason: str = Field(description="Why, if there is more to say; or what of it does not work, such as a disk.")
    node: str
    addresses: dict[str, str] = Field(description="By the name of the network; the node's own has none.")
    context: str = Field(description="What it does, or waits for, in the context.")


class Cluster(BaseModel):
    id: str
    name: str
    owner: str
    state: ClusterState
    reason: str = Field(description="Why it is not ready.")
    created_at: float
    ready_at: float | None = Field(description="When it was first ready.")
    ended_at: float | None
    end: int | None = Field(description="When its leases end, UTC seconds.")
    context: str = Field(description="The id of its context.")
    context_state: ContextState | None
    networks: list[ClusterNetwork]
    groups: list[ClusterRoles]
    members: list[ClusterMember]
    leases: list[str] = Field(description="The ids of its leases: its launch, and each time that it grew.")


class ClusterPage(BaseModel):
    items: list[Cluster]
    next: str | None


class Price(BaseModel):
    """What it would be charged if it ran for as long as is asked for."""

    amount: float
    unit: str


class ClusterFit(Fit):
    """What a launch would be answered now."""

    price: Price
    notes: list[str] = Field(description="What one should know of the file.")
