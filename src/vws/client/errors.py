"""What the client raises: the site's refusals, and the lack of any answer."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]


class VwsClientError(Exception):
    """The root of what this module raises. `code` is for programs; `possible` says what to do next."""

    def __init__(self, problem: str, *, code: str, possible: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.code = code
        self.possible = possible


class ConnectionFailed(VwsClientError):
    """The site did not answer. code: `unreachable`, `untrusted` (its certificate is not the site's), `no-site`."""


class ApiError(VwsClientError):
    """The site refused. `members` is the whole RFC 9457 problem."""

    def __init__(self, status: int, members: Json) -> None:
        detail = str(members.get("detail") or members.get("title") or f"the service answered {status}")
        super().__init__(detail, code=str(members.get("code") or "error"), possible=members.get("possible"))
        self.status = status
        self.members = members
        self.detail = detail
        self.field: str | None = members.get("field")
        self.asked: Any = members.get("asked")
        self.nodes: list[Json] = members.get("nodes") or []
        self.offers: list[Json] = members.get("offers") or []


def members_of(body: bytes) -> Json:
    """The members of a problem; none if the answer comes from something that is no VWS."""
    try:
        members = json.loads(body)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}
