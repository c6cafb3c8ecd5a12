"""One request, as an operation gets it: who asks, what serves, and how often it was asked before.

`Call.mutate` is where a client token (the header Idempotency-Key) becomes a `Once`: the same request again gets the
first one's answer, word for word, and nothing is done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from vws.core.draft import Draft
from vws.core.errors import InvalidRequest
from vws.core.site import Answer
from vws.frontends.rest.metrics import Metrics
from vws.frontends.rest.operation import REFERENCE_LENGTH_MAX
from vws.frontends.rest.tunnels import Tunnels
from vws.frontends.rest.views import Json, Views, json_text
from vws.frontends.rest.wakeups import Wakeups
from vws.ports import Page
from vws.service import Services
from vws.service.access import Caller
from vws.service.once import Once

CLIENT_TOKEN_LENGTH_MAX = 128
LIMIT_DEFAULT = 100
LIMIT_MAX = 1000

bearer = HTTPBearer(auto_error=False, scheme_name="token", description="`Authorization: Bearer vws.tok-….…`")


@dataclass(frozen=True)
class Api:
    """What one app serves from, in `app.state.api`."""

    services: Services
    views: Views
    wakeups: Wakeups
    tunnels: Tunnels
    metrics: Metrics
    ca_pem: bytes


async def api_of(connection: HTTPConnection) -> Api:
    api: Api = connection.app.state.api
    return api


ApiHere = Annotated[Api, Depends(api_of)]


def authenticated(connection: HTTPConnection, api: Api) -> Caller:
    """Whom the bearer token stands for; raises Unauthenticated. For operations without a `Call`."""
    caller = api.services.access.authenticate(_bearer_token(connection))
    connection.scope["vws.caller"] = caller
    return caller


def knows_token(connection: HTTPConnection, api: Api) -> bool:
    """Whether `authenticated` needs no look into the store."""
    parts = (_bearer_token(connection) or "").split(".")
    return len(parts) == 3 and parts[1] in api.services.site.present.tokens


def _bearer_token(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _caller(
    request: Request, api: ApiHere, _: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Caller:
    return authenticated(request, api)


CallerHere = Annotated[Caller, Depends(_caller)]

ClientToken = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same request again under the same key gets the first one's answer and changes nothing. "
        "Kept for a day.",
        examples=["1f0c5a52-6b1e-4f0e-9d43-6a1fb0c0f9aa"],
        json_schema_extra={"maxLength": CLIENT_TOKEN_LENGTH_MAX, "minLength": 1, "pattern": "^[ -~]+$"},
    ),
]


class Call:
    """An authenticated request that changes nothing."""

    def __init__(self, api: ApiHere, caller: CallerHere) -> None:
        self.api = api
        self.services = api.services
        self.views = api.views
        self.caller = caller

    def answer(self, body: Json, status: int = 200) -> Response:
        return Response(json_text(body), status, media_type="application/json")

    def page(self, page: Page, show: Callable[[Any], Json]) -> Response:
        return self.answer({"items": [show(item) for item in page.items], "next": page.next})


class Change(Call):
    """An authenticated request that changes something, once per client token."""

    def __init__(self, api: ApiHere, caller: CallerHere, client_token: str | None, fingerprint: str) -> None:
        super().__init__(api, caller)
        self._client_token = client_token
        self._fingerprint = fingerprint

    @property
    def is_repeat(self) -> bool:
        """Whether something was asked under this client token before; a look into the store."""
        token = self._client_token
        return token is not None and self.services.site.store.answer(self.caller.subject, token) is not None

    def mutate(
        self,
        act: Callable[[Once | None], Any],
        show: Callable[[Any], Json],
        *,
        status: int = 200,
        in_draft: Callable[[Any, Draft], Json] | None = None,
        keep: Callable[[Any], Json] | None = None,
        content: str = "",
    ) -> Response:
        """Do it and answer with `show(result)`.

        in_draft: shows the result before the record has it. keep: shows what may be kept of an answer that holds a
        secret. content: belongs to the request beside what the fingerprint already covers (an upload's sha256).
        """
        kept: list[str] = []

        def render(body: Json) -> str:
            kept.append(json_text(body))
            return kept[-1]

        def gather(result: Any, draft: Draft) -> Json:
            return in_draft(result, draft) if in_draft else (keep or show)(result)

        once = None
        if self._client_token is not None:
            once = Once(self._client_token, self._fingerprint + content, status, render, gather)
        result = act(once)
        if isinstance(result, Answer):
            return _json(result.body, result.status, {"Idempotency-Replayed": "true"})
        return _json(kept[-1] if kept and not keep else json_text(show(result)), status)


def _json(text: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(text, status, headers, media_type="application/json")


async def _change(request: Request, api: ApiHere, caller: CallerHere, client_token: ClientToken = None) -> Change:
    # An upload is no body to read here: whoever takes one adds its sha256 (`content`).
    streams = request.headers.get("content-type", "").startswith("application/octet-stream")
    body = b"" if request.method == "DELETE" or streams else await request.body()
    return Change(api, caller, check_client_token(client_token), fingerprint(request, body))


def check_client_token(client_token: str | None) -> str | None:
    if client_token is None:
        return None
    if (
        not 1 <= len(client_token) <= CLIENT_TOKEN_LENGTH_MAX
        or not client_token.isascii()
        or not client_token.isprintable()
    ):
        raise InvalidRequest(
            "this cannot be a client token",
            field="Idempotency-Key",
            asked=client_token,
            possible=f"1 to {CLIENT_TOKEN_LENGTH_MAX} printable ASCII characters, such as a UUID",
        )
    return client_token


def fingerprint(request: Request, body: bytes) -> str:
    scope = request.scope
    line = f"{request.method} {scope['path']}?{scope['query_string'].decode('latin-1')}\n"
    return hashlib.sha256(line.encode() + body).hexdigest()


CallHere = Annotated[Call, Depends(Call)]
ChangeHere = Annotated[Change, Depends(_change)]

_TEXT: dict[str, Any] = {"max_length": REFERENCE_LENGTH_MAX, "pattern": r"^[^\x00]*$"}


def text(description: str) -> Any:
    """A query parameter that is text: short, and without what no store takes."""
    return Query(description=description, **_TEXT)


Id = Annotated[str, Path(max_length=REFERENCE_LENGTH_MAX)]
After = Annotated[str | None, Query(description="`next` of the page before.", min_length=1, **_TEXT)]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Items of a page.")]
Live = Annotated[bool, Query(description="Only what has not ended.")]
