"""Doing a thing once, however often it is asked for.

A caller that heard no answer asks again with the same client token. The answer to
the first is kept in the same transaction as what it did, so that there is no
instant at which one exists without the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vws.core.draft import Draft
from vws.core.errors import ClientTokenReused
from vws.core.site import Answer

# How long answers are kept, seconds. A client that retries later than that asks anew.
KEPT_S = 24 * 3600


def _result_alone(result: Any, draft: Draft) -> Any:
    return result


@dataclass(frozen=True)
class Once:
    """fingerprint: of the request, so that another one under the same token is told apart. render: result -> body.

    gather: what `render` gets, from the result and the draft it stands in, for a body that shows more than the result
    (a lease with its workspaces): the record does not have it yet when the body is kept.
    """

    client_token: str
    fingerprint: str
    status: int
    render: Callable[[Any], str]
    gather: Callable[[Any, Draft], Any] = _result_alone

    def answer(self, subject: str, result: Any, draft: Draft) -> Answer:
        body = self.render(self.gather(result, draft))
        return Answer(subject, self.client_token, self.fingerprint, self.status, body, draft.now)

    def check(self, kept: Answer) -> Answer:
        if kept.fingerprint != self.fingerprint:
            raise ClientTokenReused(
                "this client token came with another request before",
                field="Idempotency-Key",
                asked=self.client_token,
                possible="a new token for a new request; the same request again for its first answer",
            )
        return kept
