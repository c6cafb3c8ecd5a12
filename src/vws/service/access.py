"""Who is asking, and what they may do.

A token reads `vws.<id>.<secret>`. The secret is 256 random bits, so one round of sha256 is enough to keep it at rest:
there is nothing to guess. Roles: admin (everything), user (own leases), node (the link of one node), join (become a
node, once).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace

from vws.core.draft import Draft
from vws.core.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from vws.core.site import Answer, Role, Token
from vws.core.terms import check_number
from vws.ports import Filter, Page
from vws.service.once import Once
from vws.service.site import Site

LIFETIME_S_MAX = 10 * 366 * 24 * 3600
_TOKEN = re.compile(r"vws\.(tok-[0-9a-z]{1,40})\.([0-9A-Za-z_-]{20,100})")
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class Caller:
    """subject: a user's name or a node's id; token: the id of the token that said so."""

    subject: str
    role: Role
    token: str = ""

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN

    def must_be(self, *roles: Role) -> None:
        if self.role not in roles:
            raise Forbidden(
                f"a token with the role {self.role} may not do this",
                asked=str(self.role),
                possible=f"a token with the role {' or '.join(roles)}",
            )

    def must_own(self, owner: str, what: str) -> None:
        self.must_be(Role.ADMIN, Role.USER)
        if not self.is_admin and owner != self.subject:
            raise Forbidden(
                f"{what} belongs to another user",
                asked=what,
                possible="your own: vws lease list; an administrator may act for others",
            )


SITE = Caller("site", Role.ADMIN)


class Access:
    def __init__(self, site: Site) -> None:
        self._site = site

    def authenticate(self, bearer: str | None) -> Caller:
        """The caller that a bearer token stands for; raises Unauthenticated saying what is wrong with it."""
        if not bearer:
            raise _unknown("no token was given")
        match = _TOKEN.fullmatch(bearer)
        if match is None:
            raise _unknown("the token is malformed: it should read vws.tok-….… as it was given out")
        token = self._site.present.tokens.get(match[1]) or self._site.store.get(Token, match[1])
        digest = hashlib.sha256(match[2].encode()).hexdigest()
        if token is None or not hmac.compare_digest(digest, token.secret_sha256):
            raise _unknown("the token is not known here")
        is_join = token.role is Role.JOIN
        if token.revoked_at is not None:
            raise _unknown("the join token was used" if is_join else "the token was revoked", is_join)
        if token.expires_at is not None and token.expires_at <= self._site.clock.now():
            raise _unknown("the join token has expired" if is_join else "the token has expired", is_join)
        return Caller(token.subject, token.role, token.id)

    def create_token(
        self, caller: Caller, subject: str, role: Role, lifetime_s: int | None, once: Once | None = None
    ) -> tuple[Token, str] | Answer:
        """A new token and its text, which is shown this once."""
        caller.must_be(Role.ADMIN)
        if role not in (Role.ADMIN, Role.USER):
            raise InvalidRequest(
                f"a token of the role {role} is not made this way",
                field="role",
                asked=str(role),
                possible="admin or user; nodes get theirs by joining (vws node token)",
            )
        if not _SUBJECT.fullmatch(subject):
            raise InvalidRequest(
                "this cannot be a user's name",
                field="subject",
                asked=subject[:60],
                possible="letters, digits and . _ @ -, at most 64",
            )
        return self._site.change(
            caller.subject,
            lambda draft: issue(self._site, draft, subject, role, lifetime_s),
            once=once,
            subject=caller.subject,
        )

    def tokens(self, caller: Caller, where: Filter, *, after: str | None, limit: int) -> Page:
        caller.must_be(Role.ADMIN)
        return self._site.store.page(Token, where, after=after, limit=limit)

    def revoke_token(self, caller: Caller, id: str, once: Once | None = None) -> Token | Answer:
        caller.must_be(Role.ADMIN)

        def decide(draft: Draft) -> Token:
            token = draft.present.tokens.get(id)
            if token is None:
                raise NotFound(f"there is no token {id[:60]}", field="id", asked=id[:60], possible="vws token list")
            return revoke(draft, token)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)


def _unknown(problem: str, is_join: bool = False) -> Unauthenticated:
    maker = "vws node token" if is_join else "vws token create"
    return Unauthenticated(problem, field="Authorization", possible=f"Bearer with a valid token ({maker})")


def issue(site: Site, draft: Draft, subject: str, role: Role, lifetime_s: int | None) -> tuple[Token, str]:
    """Put a new token into the draft; return it and its text."""
    if lifetime_s is not None:
        check_number(lifetime_s, "lifetime_s", 1, LIFETIME_S_MAX, "s")
    secret = secrets.token_urlsafe(32)
    token = Token(
        id=site.ids.new("tok"),
        subject=subject,
        role=role,
        secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
        created_at=draft.now,
        expires_at=None if lifetime_s is None else draft.now + lifetime_s,
    )
    draft.put_token(token)
    draft.say("token.created", token=token.id, subject=subject, role=str(role), expires_at=token.expires_at)
    return token, f"vws.{token.id}.{secret}"


def revoke(draft: Draft, token: Token) -> Token:
    after = draft.put_token(replace(token, revoked_at=draft.now))
    draft.say("token.revoked", token=token.id, subject=token.subject, role=str(token.role))
    return after
