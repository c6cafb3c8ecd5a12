"""The contexts of a site: opened for clusters and for people, joined by guests.

A guest is known by two things. Its secret is an HMAC of what it is (its workspace's id, or its context's id and its
name) under a key that only this site has, so nothing is kept for it; it is good for one trade. Its token is its own,
and of that the site keeps the hash. Either leads to one member of one context: there is no call by which a guest could
name another.

Calls by guests return futures: the front end that serves thousands of them has no thread for each.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from vws.core.broker import Context
from vws.core.context import ContextRecord, ContextSpec, ContextState, Expected, Identity, Member, Ran
from vws.core.context_document import Document, closed_document, domain_name
from vws.core.context_status import MemberState, MemberStatus, all_status, member_status
from vws.core.deployment import ContextOrder
from vws.core.errors import ContextClosed, InvalidRequest, NotFound, TooLarge, Unauthenticated, Unavailable
from vws.core.information import Informed, as_data
from vws.core.saying import LOG_BYTES_MAX, VALUE_BYTES_MAX
from vws.core.site import Answer, Cluster, Role, Workspace
from vws.core.terms import DURATION_S_MAX, check_name, check_number
from vws.core.waits import check_context, check_member
from vws.ports import ContextLog, Filter, Page
from vws.service.access import Caller
from vws.service.certificates import sign_host
from vws.service.context_writer import ContextWriter, Listener
from vws.service.once import Once
from vws.service.site import Site

T = TypeVar("T")
WAIT_S = 30.0
# How many contexts that have ended are remembered for their guests' sake.
ENDED_MAX = 50
NAMED_MAX = 20
MESSAGE_LENGTH_MAX = 200
FAILING = (MemberState.FAILED, MemberState.LATE)
# What is shorter would be found by chance.
REDACTED_LENGTH_MIN = 6
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Here:
    """Who a guest is, by its token."""

    context: str
    member: str


@dataclass(frozen=True, slots=True)
class ContextView:
    record: ContextRecord
    members: tuple[MemberStatus, ...]


class Contexts:
    def __init__(self, site: Site, directory: Path, informed: Informed) -> None:
        self._site = site
        self._tls = directory / "tls"
        self._key = _key(directory / "context.key")
        self._informed = informed
        self._writer = ContextWriter(site)
        self._tokens: dict[str, Here] = {}
        self._workspaces: dict[str, Here] = {}
        self._ended: list[str] = []
        self._writer.watch(self._index)
        self._index(frozenset(self._writer.told))

    def start(self) -> None:
        self._writer.start()

    def stop(self) -> None:
        self._writer.stop()

    def watch(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(ids of contexts)` after each commit, from any thread; returns the function that ends it."""
        return self._writer.watch(listener)

    def _index(self, ids: frozenset[str]) -> None:
        """Who is behind which token and workspace."""
        with self._writer.lock:
            for id in ids:
                told = self._writer.told.get(id)
                if told is None or told.context.closed:
                    self._ended.append(id)
                for member in told.context.members.values() if told else ():
                    here = Here(id, member.name)
                    if member.token_sha256:
                        self._tokens[member.token_sha256] = here
                    if member.expected.workspace:
                        self._workspaces[member.expected.workspace] = here
        if len(self._ended) > ENDED_MAX:
            self._forget_ended()

    def _forget_ended(self) -> None:
        """Until then guests of contexts that have ended are told so when they ask."""
        ended, self._ended = set(self._ended), []
        self._tokens = {key: here for key, here in self._tokens.items() if here.context not in ended}
        self._workspaces = {key: here for key, here in self._workspaces.items() if here.context not in ended}

    # ------------------------------------------------------------ for clusters

    def open(
        self,
        owner: str,
        spec: ContextSpec,
        members: Sequence[Expected],
        *,
        keys: Sequence[str] = (),
        actor: str = "",
        cluster: str = "",
        ends_at: float | None = None,
        once: Once | None = None,
        subject: str = "",
    ) -> str:
        """Make a context in which these members are expected, and return its id. keys: the user's, for `user:keys`.
        cluster: the id of the one that is to have these members; each is expected from when it has a workspace.

        Raises InvalidRequest for what could never be ready, NameTaken for the name of another open context.
        """
        known = self.known(owner, keys)
        check_context(spec, members, known)
        if not spec.domain:
            spec = replace(spec, domain=f"{spec.name}.{self._informed.site.domain}")
        id, now = self._site.ids.new("ctx"), self._site.clock.now()
        record = ContextRecord(id, spec.name, owner, spec, as_data(known), now, cluster=cluster, ends_at=ends_at)

        def act(context: Context, now: float) -> str:
            for member in () if cluster else members:
                context.expect(member, now)
            return id

        answers = (_kept(once, subject, id, now),) if once else ()
        return _result(self._writer.ask(id, act, actor=actor or owner, opens=record, answers=answers))

    def known(self, owner: str, keys: Sequence[str] = ()) -> dict[str, str]:
        """What of site, VO and user information there is for a user: text by name."""
        return self._informed.known(owner, keys, self._ca_pem())

    def _ca_pem(self) -> bytes:
        try:
            return (self._tls / "ca.crt").read_bytes()
        except FileNotFoundError:
            return b""

    def alter(
        self, id: str, *, expect: Iterable[Expected] = (), leave: Iterable[str] = (), renew: Iterable[str] = ()
    ) -> None:
        """Members come, go, or are to report anew (after a restore): all of it in one step. A repeat is harmless.

        Raises NotFound for a context that is not open, InvalidRequest for a wrong member; nothing is changed then.
        """
        coming, going, doubted = list(expect), list(leave), list(renew)

        def act(context: Context, now: float) -> None:
            for member in coming:
                check_member(context.record.spec, member)
            for member in coming:
                context.expect(member, now)
            for name in going:
                context.leave(name, now)
            for name in doubted:
                context.renew(name, now)

        _result(self._writer.ask(id, act))

    def expect(self, id: str, *members: Expected) -> None:
        self.alter(id, expect=members)

    def leave(self, id: str, *names: str) -> None:
        self.alter(id, leave=names)

    def renew(self, id: str, *names: str) -> None:
        """What these members said of themselves is doubted: they are asked again."""
        self.alter(id, renew=names)

    def close_context(self, id: str, actor: str = "") -> None:
        """No more changes; agents stop. A repeat is harmless."""
        try:
            _result(self._writer.ask(id, lambda context, now: context.close(now), actor=actor))
        except NotFound:
            pass

    def is_open(self, id: str) -> bool:
        return id in self._writer.told

    def of_clusters(self) -> dict[str, str]:
        """The ids of the clusters whose contexts are open, by their contexts'."""
        with self._writer.lock:
            records = [told.context.record for told in self._writer.told.values() if not told.context.closed]
        return {record.id: record.cluster for record in records if record.cluster}

    def failed_cluster(self, id: str) -> str:
        """The id of the cluster whose context has failed; "" if it has not, or is nobody's."""
        with self._writer.lock:
            told = self._writer.told.get(id)
            failed = told is not None and told.context.record.state is ContextState.FAILED
            return told.context.record.cluster if told and failed else ""

    def told_of(self, id: str) -> tuple[Member, ...]:
        """All members that an open context was ever told of. Raises NotFound."""
        with self._writer.lock:
            told = self._writer.told.get(id)
            if told is None:
                raise _no_context(id)
            return tuple(told.context.members.values())

    def failing(self, id: str) -> tuple[Member, ...]:
        """The members of an open context whose hooks ended badly, or that are late. Quick while there are none."""
        with self._writer.lock:
            told = self._writer.told.get(id)
            if told is None or told.context.record.state is not ContextState.FAILED:
                return ()
            statuses = (member_status(told.context, member) for member in told.context.present())
            return tuple(status.member for status in statuses if status.state in FAILING)

    def members_of(self, id: str) -> tuple[str, ...]:
        """The names of the members of an open context."""
        with self._writer.lock:
            told = self._writer.told.get(id)
            return tuple(member.name for member in told.context.present()) if told else ()

    def secret_of(self, workspace: str) -> str:
        """The one-time secret of a workspace, by its id."""
        return f"{workspace}.{self._sign(workspace)}"

    def order_of(self, workspace: Workspace, cluster: Cluster) -> ContextOrder | None:
        """What a cluster's member is told of its context on its disk; None without one."""
        if not cluster.context:
            return None
        secret, ca_pem = self.secret_of(workspace.id), self._ca_pem().decode()
        return ContextOrder(self._site.settings.url, secret, ca_pem, cluster.domain)

    def secret_of_member(self, id: str, name: str) -> str:
        """The one-time secret of a member that VWS did not boot."""
        return f"{id}/{name}.{self._sign(f'{id}/{name}')}"

    def _sign(self, subject: str) -> str:
        digest = hmac.new(self._key, b"vws context secret 1 " + subject.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    # ------------------------------------------------------------ for people

    def create(
        self, caller: Caller, spec: ContextSpec, members: Sequence[Expected], duration_s: int, once: Once | None = None
    ) -> str:
        """A context of machines that VWS did not boot, closed after so long; the id of the first answer under the same
        client token."""
        caller.must_be(Role.ADMIN, Role.USER)
        kept = self._site.store.answer(caller.subject, once.client_token) if once else None
        if once is not None and kept is not None:
            return str(json.loads(once.check(kept).body)["id"])
        if any(member.workspace for member in members):
            raise InvalidRequest("a workspace is named", field="members.workspace", possible="vws cluster launch")
        check_number(duration_s, "duration_s", 1, DURATION_S_MAX, "s")
        end = self._site.clock.now() + duration_s
        return self.open(caller.subject, spec, members, ends_at=end, once=once, subject=caller.subject)

    def contexts(self, caller: Caller, where: Filter, *, after: str | None, limit: int) -> Page:
        """ContextRecords: all for an administrator, one's own for others."""
        caller.must_be(Role.ADMIN, Role.USER)
        if not caller.is_admin:
            where = replace(where, owner=caller.subject)
        return self._site.store.contexts.page(where, after=after, limit=limit)

    def context(self, caller: Caller, id: str) -> ContextView:
        """The context of that id, or of that name if it is open, with the status of each member."""
        return self.view(self._owned(caller, id).id)

    def _owned(self, caller: Caller, reference: str) -> ContextRecord:
        with self._writer.lock:
            named = [
                told.context.record for told in self._writer.told.values() if told.context.record.name == reference
            ]
        kept = None if named else self._site.store.contexts.get(reference)
        if not named and kept is None:
            raise _no_context(reference)
        record = named[0] if named else kept.record if kept else None
        assert record is not None
        caller.must_own(record.owner, f"the context {reference[:60]}")
        return record

    def view(self, id: str) -> ContextView:
        """The same without asking who wants to know. Raises NotFound."""
        with self._writer.lock:
            told = self._writer.told.get(id)
            if told is not None:
                return _view(told.context)
        kept = self._site.store.contexts.get(id)
        if kept is None:
            raise _no_context(id)
        return _view(Context(kept.record, kept.members))

    def logs(self, caller: Caller, id: str, member: str) -> tuple[ContextLog, ...]:
        """The ends of the outputs of a member's hooks."""
        view = self.context(caller, id)
        if all(status.member.name != member for status in view.members):
            names = ", ".join(status.member.name for status in view.members[:NAMED_MAX])
            raise NotFound(
                f"{view.record.name} has no member {member[:60]}",
                field="name",
                asked=member[:60],
                possible=names or "none yet: they come when the cluster starts",
            )
        return self._site.store.contexts.logs(view.record.id, member)

    def close(self, caller: Caller, id: str) -> ContextView:
        record = self._owned(caller, id)
        self.close_context(record.id, caller.subject)
        return self.view(record.id)

    # ------------------------------------------------------------ for guests

    def join(self, secret: str, token_sha256: str) -> Future[tuple[str, str]]:
        """Trade the secret: (member's name, context's name)."""
        if not _SHA256.fullmatch(token_sha256):
            raise InvalidRequest(
                "token_sha256 is no sha256", field="token_sha256", possible="64 hexadecimal digits in lower case"
            )
        subject = self._traded(secret)
        here, done = self._found(subject), Future[tuple[str, str]]()
        if here is not None:
            self._join(here, token_sha256, done)
        else:
            # Another process may have made its context a moment ago.
            self._writer.refresh(lambda: self._join(self._found(subject), token_sha256, done))
        return done

    def _join(self, here: Here | None, token_sha256: str, done: Future[tuple[str, str]]) -> None:
        if here is None:
            done.set_exception(
                ContextClosed(
                    "nobody expects this machine any more: its context has ended, or it has left it",
                    field="secret",
                    possible="a new member",
                )
            )
            return
        name = here.member

        def act(context: Context, now: float) -> tuple[str, str]:
            return context.join(name, token_sha256, now).name, context.record.name

        self._writer.ask(here.context, act, done=done, actor=name, point="join")

    def _traded(self, secret: str) -> str:
        """Whose secret it is; raises Unauthenticated for what this site did not make."""
        subject, _, signature = secret.rpartition(".")
        if not hmac.compare_digest(self._sign(subject).encode(), signature.encode()):
            raise Unauthenticated(
                "the secret is not one of this site's", field="Authorization", possible="the secret as it was given out"
            )
        return subject

    def _found(self, subject: str) -> Here | None:
        id, slash, name = subject.partition("/")
        here = Here(id, name) if slash else self._workspaces.get(subject)
        with self._writer.lock:
            told = self._writer.told.get(here.context) if here else None
            member = told.context.members.get(here.member) if told and here else None
        is_it = member is not None and member.left_at is None and (slash or member.expected.workspace == subject)
        return here if is_it else None

    def authenticate(self, token: str) -> Here:
        """The member behind a token; raises Unauthenticated. One that has left is known still, and told so."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        here = self._tokens.get(digest)
        with self._writer.lock:
            told = self._writer.told.get(here.context) if here else None
            member = told.context.members.get(here.member) if told and here else None
        # Another machine may have the name by now.
        is_other = member is not None and member.left_at is None and member.token_sha256 != digest
        if here is None or is_other:
            raise Unauthenticated(
                "the token is not known here", field="Authorization", possible="join again, with the same token"
            )
        return here

    def report(self, here: Here, identity: Identity) -> Future[None]:
        return self._ask(here, lambda context, now: context.report(here.member, identity, now), point="identity")

    def publish(self, here: Here, value: str, data: bytes) -> Future[None]:
        check_name(value, "value")
        if len(data) > VALUE_BYTES_MAX:
            raise TooLarge(
                f"the value {value} has {len(data)} bytes", field=value, possible=f"at most {VALUE_BYTES_MAX} bytes"
            )
        content = base64.b64encode(data).decode()
        return self._ask(here, lambda context, now: context.publish(here.member, value, content, now), point="publish")

    def ended(self, here: Here, ran: Ran, log: bytes) -> Future[None]:
        """A hook's end. Of a longer log the end is kept; a secret in it is blotted out. Why it ended badly is told by
        the last line that it printed if it says nothing else."""
        with self._writer.lock:
            told = self._writer.told.get(here.context)
            known = _secrets(told.context) if told else []
        log = _without(log[-LOG_BYTES_MAX:], known)
        said = _without(ran.message.encode(), known) or (log if ran.status else b"")
        ran = replace(ran, message=_last_line(said))
        kept = ContextLog(here.context, here.member, ran.role, str(ran.side), str(ran.hook), log)
        return self._ask(here, lambda context, now: context.ended(here.member, ran, now), logs=(kept,), point="ran")

    def _ask(self, here: Here, act: Callable[[Context, float], None], **more: Any) -> Future[None]:
        return self._writer.ask(here.context, act, actor=here.member, **more)

    def heard(self, here: Here, version: int) -> None:
        """The member asked for what comes after this version, so it has that. Kept if it matters."""
        with self._writer.lock:
            told = self._writer.told.get(here.context)
            member = told.context.members.get(here.member) if told else None
            is_news = told and member and told.context.is_news_that_it_heard(member, version)
        if is_news:
            self._ask(here, lambda context, now: context.heard(here.member, version, now))

    def document(self, here: Here, since: int) -> Document | None:
        """What is new for a member; None if nothing is."""
        with self._writer.lock:
            told = self._writer.told.get(here.context)
            return told.documents.document(here.member, since) if told else closed_document(max(since, 0))

    def having_news(self, id: str, asked: Iterable[tuple[str, int]]) -> list[bool]:
        """For each (member, since) whether there is anything new."""
        with self._writer.lock:
            told = self._writer.told.get(id)
            return [told is None or told.documents.has_news(name, since) for name, since in asked]

    def certificate(self, here: Here, request_pem: bytes) -> bytes:
        """A host certificate for the names in the request, which must be the member's own, and then the CA's."""
        with self._writer.lock:
            told = self._writer.told.get(here.context)
            member = told.context.members.get(here.member) if told else None
            if told is None or member is None or member.left_at is not None:
                raise ContextClosed("the context has ended", possible="a new context")
            names = self._certified(told.context, member)
        return sign_host(self._tls, request_pem, names, self._site.clock.now())

    def _certified(self, context: Context, member: Member) -> tuple[str, ...]:
        if "site:certificate" not in member.expected.requires:
            raise InvalidRequest(
                f"{member.name} does not require site:certificate",
                field="requires",
                possible="requires: [site:certificate] in its group",
            )
        return domain_name(context, member.name), member.name, *member.expected.addresses


def _result(done: Future[T]) -> T:
    try:
        return done.result(WAIT_S)
    except TimeoutError:
        raise Unavailable(
            f"the record of contexts has not answered within {WAIT_S:g} s; the change may still be made",
            possible="the same again in a moment",
        ) from None


def _view(context: Context) -> ContextView:
    return ContextView(context.record, all_status(context))


def _no_context(reference: str) -> NotFound:
    return NotFound(
        f"there is no context {reference[:60]}", field="id", asked=reference[:60], possible="vws context list"
    )


def _secrets(context: Context) -> list[bytes]:
    found = [value for member in context.members.values() for value in member.values if context.is_secret(value.name)]
    raw = [base64.b64decode(value.content_base64) for value in found]
    forms = {form for each in raw for form in (each, each.strip(), base64.b64encode(each))}
    return sorted((form for form in forms if len(form) >= REDACTED_LENGTH_MIN), key=len, reverse=True)


def _last_line(printed: bytes) -> str:
    """For people's terminals, so without what would move about there."""
    line = printed.rstrip().rpartition(b"\n")[2].decode("utf-8", "replace")
    return "".join(c for c in line if c.isprintable()).strip()[:MESSAGE_LENGTH_MAX]


def _without(text: bytes, secret: Iterable[bytes]) -> bytes:
    for each in secret:
        text = text.replace(each, b"[secret]")
    return text


def _kept(once: Once, subject: str, id: str, now: float) -> Answer:
    """Only which context it was: an answer with secrets is made anew for each repeat."""
    return Answer(subject, once.client_token, once.fingerprint, once.status, json.dumps({"id": id}), now)


def _key(path: Path) -> bytes:
    """The site's key, made when it is first needed. Raises Unavailable if it cannot be kept."""
    try:
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            # Not replaced if another process was faster: what it signed must hold.
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            temporary.unlink()
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(
            f"the key {path} cannot be kept: {error.strerror}", possible="room and rights there"
        ) from error
