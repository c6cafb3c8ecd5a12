"""Every error that VWS raises on purpose.

    VwsError
      InvalidRequest      a value is wrong: names the field, what was asked, what would be accepted
      Unauthenticated     who is asking is not known
      Forbidden           who is asking may not do this
      NotFound            no such thing
      Conflict            the present state does not allow it
        CommandRefused      a workspace or lease cannot make this move now
        NameTaken           another live thing has this name
        InUse               something still depends on it
        ClientTokenReused   the same client token came with another request
        LimitReached        who asks, his group or his VO may not have more: which limit, what is held, what would do
        SecretUsed          the one-time secret of a context's member was traded before, with another token
        ContextClosed       the context, or who asks in it, has ended
        DuplicateNode       another agent already serves under this node's name or id
      CannotFit           the site has no room: the reason per node, and what would fit
      TooLarge            more bytes than are read
      Unavailable         a part that is needed does not answer now; try again

A domain error says what was asked, why not, and what would be possible. Front
ends render it in their protocol's own form (`frontends/faults.py`); the core
and the services know no HTTP.
"""

from __future__ import annotations

from typing import Any


class VwsError(Exception):
    """The root. `problem` is a full sentence; `possible` says what would be accepted or done next."""

    code = "error"

    def __init__(
        self,
        problem: str,
        *,
        field: str | None = None,
        asked: Any = None,
        possible: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.field = field
        self.asked = asked
        self.possible = possible
        self.details = details or {}


class InvalidRequest(VwsError):
    code = "invalid-request"


class Unauthenticated(VwsError):
    code = "unauthenticated"


class Forbidden(VwsError):
    code = "forbidden"


class NotFound(VwsError):
    code = "not-found"


class Conflict(VwsError):
    code = "conflict"


class CommandRefused(Conflict):
    code = "command-refused"


class NameTaken(Conflict):
    code = "name-taken"


class InUse(Conflict):
    code = "in-use"


class ClientTokenReused(Conflict):
    code = "client-token-reused"


class LimitReached(Conflict):
    """`details`: limit (its name), party (whose), held (how much of it), offers (what would be accepted)."""

    code = "limit-reached"


class SecretUsed(Conflict):
    code = "secret-used"


class ContextClosed(Conflict):
    code = "context-closed"


class DuplicateNode(Conflict):
    code = "duplicate-node"


class CannotFit(VwsError):
    """`details` holds `nodes` (a list of {node, reason}) and `offers` (what would be accepted)."""

    code = "cannot-fit"


class TooLarge(VwsError):
    code = "too-large"


class Unavailable(VwsError):
    code = "unavailable"
