"""The shapes of contexts: what makes one, how far it is, what its members' hooks printed.

Requests mirror the values in core/context.py; what is wrong in them is said by core/waits.py.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from vws.core.context import ContextState, Hook, Introduce, Side, Ssh
from vws.core.context_status import MemberState
from vws.core.terms import NAME_LENGTH_MAX, NAME_PATTERN
from vws.frontends.rest.models import Asked, Text, Whole

Name = Annotated[
    str,
    Field(min_length=1, json_schema_extra={"pattern": f"^{NAME_PATTERN}$", "maxLength": NAME_LENGTH_MAX}),
]
Bytes = Annotated[str, Field(description="Base64.", examples=["aGVsbG8K"], pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class FileAsked(Asked):
    path: Annotated[Text, Field(examples=["/etc/slurm/slurm.conf"])]
    content_base64: Bytes
    mode: Annotated[Text, Field(examples=["0644"], json_schema_extra={"pattern": "^[0-7]{3,4}$"})] = "0644"


class HookAsked(Asked):
    hook: Annotated[Hook, Field(strict=False)]
    content_base64: Bytes


class SideAsked(Asked):
    """What providers, or clients, of a role do."""

    files: list[FileAsked] = []
    hooks: list[HookAsked] = []
    after: Annotated[list[Name], Field(description="Roles whose barriers are waited for.")] = []
    uses: Annotated[list[Name], Field(description="Values that are waited for.")] = []


class ValueAsked(Asked):
    name: Name
    secret: bool = False


class RoleAsked(Asked):
    name: Name
    provider: SideAsked = SideAsked()
    client: SideAsked = SideAsked()
    publishes: list[ValueAsked] = []


class DataAsked(Asked):
    name: Name
    content_base64: Bytes


class MemberAsked(Asked):
    name: Name
    provides: list[Name] = []
    requires: Annotated[
        list[Text], Field(description="Roles, and information such as `site:dns`.", examples=[["head", "site:dns"]])
    ] = []
    networks: list[Name] = []


class ContextRequest(Asked):
    """A context of machines that VWS did not boot."""

    name: Name
    members: list[MemberAsked]
    roles: list[RoleAsked] = []
    data: list[DataAsked] = []
    introduce: Annotated[Introduce, Field(strict=False)] = Introduce.ALL
    ssh: Annotated[Ssh, Field(strict=False)] = Ssh.MUTUAL
    within_s: Annotated[Whole, Field(description="For a member to report, and for a hook to end, seconds.")] = 600
    duration_s: Annotated[Whole, Field(description="After which it is closed, seconds.")] = 30 * 86400


# ---------------------------------------------------------------- answers


class Wait(BaseModel):
    """members: who is awaited, the first of `count`."""

    what: str = Field(examples=["role head", "barrier nfs-server", "value munge-key"])
    members: list[str]
    count: int


class HookRan(BaseModel):
    role: str
    side: Side
    hook: Hook
    version: int
    status: int = Field(description="0: it ended well.")
    message: str
    at: float


class NicSeen(BaseModel):
    network: str
    address: str
    mac: str


class MemberView(BaseModel):
    """One member: waits for whom, ran what, failed how."""

    name: str
    fqdn: str
    state: MemberState
    provides: list[str]
    requires: list[str]
    workspace: str
    nics: list[NicSeen]
    waits: list[Wait]
    ran: list[HookRan]
    published: list[str] = Field(description="Names of values.")
    late: str = Field(description='What it has not done in time; "": nothing.')
    joined_at: float | None
    reported_at: float | None
    left_at: float | None


class ContextSummary(BaseModel):
    id: str = Field(examples=["ctx-01jd3k9q4t7c2vz"])
    name: str
    owner: str
    state: ContextState
    reason: str
    domain: str
    version: int
    created_at: float
    ready_at: float | None
    closed_at: float | None
    ends_at: float | None = Field(description="When it is closed by itself; null: with its cluster.")


class ContextStatus(ContextSummary):
    members: list[MemberView]


class ContextPage(BaseModel):
    items: list[ContextSummary]
    next: str | None


class Secret(BaseModel):
    name: str
    secret: str = Field(description="Good once, for this member.")


class NewContext(ContextSummary):
    """What each machine needs: url, ca_pem and its own secret."""

    url: str
    ca_pem: str
    secrets: list[Secret]


class HookLog(BaseModel):
    role: str
    side: Side
    hook: Hook
    log: str = Field(description="The end of its output.")


class MemberLog(BaseModel):
    items: list[HookLog]
