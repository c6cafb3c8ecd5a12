"""Doing a thing once, however often it is asked for.

A caller that heard no answer asks again with the same client token. The answer to
the first is kept in the same transaction as what it did, so that there is no
instant at which one exists without the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vws.core.errors import ClientTokenReused
from vws.core.site import Answer

# How long answers are kept, seconds. A client that retries later than that asks anew.
KEPT_S = 24 * 3600


@dataclass(frozen=True)
class Once:
    """fingerprint: of the request, so that another one under the same token is told apart. render: result -> body."""

    client_token: str
    fingerprint: str
    status: int
    render: Callable[[Any], str]

    def answer(self, subject: str, result: Any, now: float) -> Answer:
        return Answer(subject, self.client_token, self.fingerprint, self.status, self.render(result), now)

    def check(self, kept: Answer) -> Answer:
        if kept.fingerprint != self.fingerprint:
            raise ClientTokenReused(
                "this client token came with another request before",
                field="Idempotency-Key",
                asked=self.client_token,
                possible="a new token for a new request; the same request again for its first answer",
            )
        return kept
