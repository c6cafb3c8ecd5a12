"""What a member hears: the text of its document, from pieces that members share.

Fields divided by tabs, lines for a shell to read (docs/contextualising.md). A document since a version holds what
changed after it, and is None if nothing did. The list of a role's providers is the same for everybody who requires the
role: it is written once for all who last asked between the same two changes, however many they are.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vws.core.broker import Context
from vws.core.context import MEMBER, ContextState, DataSpec, Expected, Member, Ssh
from vws.core.tally import Tally

FORMAT = 1
_NUMBERED = re.compile(r"(.*?)(\d*)")


class Piece:
    """Text that many documents have in common; known by being the same object."""

    __slots__ = ("__weakref__", "text")

    def __init__(self, text: str) -> None:
        self.text = text.encode()


@dataclass(frozen=True, slots=True)
class Document:
    """A document: `head` is one member's own, then come the shared ones, then `tail`."""

    version: int
    head: bytes
    shared: tuple[Piece, ...]
    tail: bytes

    @property
    def text(self) -> bytes:
        return b"".join((self.head, *(piece.text for piece in self.shared), self.tail))


@dataclass(slots=True)
class _List:
    """What changed of a role's providers, in the order of versions: (version, member's name)."""

    changes: list[tuple[int, str]]
    pieces: dict[tuple[int, bool, bool], Piece] = field(default_factory=dict)


class Documents:
    """The documents of one context. `renew` after the context changed; pieces that still hold are kept."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lists: dict[str, tuple[int, _List]] = {}
        self._static: dict[tuple[tuple[str, ...], tuple[str, ...]], Piece] = {}
        self._newest: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}

    def renew(self) -> None:
        self._newest.clear()

    def has_news(self, name: str, since: int) -> bool:
        """Whether `document` has anything to say."""
        member = self._context.members.get(name)
        if member is None or member.left_at is not None or self._context.closed or not 0 < since <= self._version:
            return True
        return max(self._newest_of(member), member.due_version if member.due else 0) > since

    def document(self, name: str, since: int) -> Document | None:
        """What is new for a member after version `since` (0: all). One that is ahead of the record gets all."""
        member = self._context.members.get(name)
        if not self.has_news(name, since):
            return None
        if member is None or member.left_at is not None or self._context.closed:
            return closed_document(self._version)
        since = since if since <= self._version else 0
        lists = [self._list(role, since, keys) for role, keys in self._told(member)]
        shared = ([] if since else [self._static_of(member)]) + [piece for piece in lists if piece is not None]
        return Document(self._version, self._head(member, since), tuple(shared), self._tail(member, since))

    @property
    def _version(self) -> int:
        return self._context.version

    # ------------------------------------------------------------ what is new

    def _newest_of(self, member: Member) -> int:
        """The version of the last change that a member may hear of; the same for all of the same roles."""
        key = (member.expected.provides, member.expected.requires)
        found = self._newest.get(key)
        if found is None:
            found = self._newest[key] = max((0, *self._versions(member)))
        return found

    def _versions(self, member: Member) -> Iterable[int]:
        for role in self._context.requires(member):
            tally = self._context.roles.get(role)
            if tally is not None:
                yield tally.state.version
        for role in self._awaited(member):
            tally = self._context.roles.get(role)
            if tally is not None:
                yield tally.state.passed_version
        for name in self._used(member):
            value = self._context.value(name)
            if value is not None:
                yield value.version

    def _awaited(self, member: Member) -> list[str]:
        sides = self._context.sides(member)
        return list(dict.fromkeys(role for side in sides for role in self._context.awaits(*side)))

    def _used(self, member: Member) -> list[str]:
        return list(dict.fromkeys(name for *_, spec in self._context.sides(member) for name in spec.uses))

    def _told(self, member: Member) -> list[tuple[str, bool]]:
        """The roles that it hears of, and whether with their providers' keys: once is enough."""
        requires = self._context.requires(member)
        return [(role, MEMBER not in requires or role == MEMBER) for role in requires]

    # ------------------------------------------------------------ a member's own part

    def _head(self, member: Member, since: int) -> bytes:
        state = self._context.record.state
        lines = [("vws-context", FORMAT, self._version, state), ("self", member.name, fqdn(self._context, member))]
        if not since:
            lines.append(("within", self._context.record.spec.within_s))
        if member.due and member.due_version > since:
            lines.append(("report",))
        for name in self._used(member):
            value = self._context.value(name)
            if value is not None and value.version > since:
                lines.append(("value", name, value.content_base64))
        return _lines(lines).encode()

    def _tail(self, member: Member, since: int) -> bytes:
        lines: list[tuple[object, ...]] = []
        for role in self._awaited(member):
            tally = self._context.roles.get(role)
            if tally is not None and tally.state.passed_version > since and (since or tally.state.passed):
                lines.append(("passed" if tally.state.passed else "pending", role))
        return _lines([*lines, ("end",)]).encode()

    # ------------------------------------------------------------ what the specification says

    def _static_of(self, member: Member) -> Piece:
        key = (member.expected.provides, member.expected.requires)
        if key not in self._static:
            self._static[key] = Piece(_lines(self._specified(member)))
        return self._static[key]

    def _specified(self, member: Member) -> Iterable[tuple[object, ...]]:
        for name in self._context.requires(member):
            yield "requires", name
        for item in (*self._context.record.spec.data, *_informed(self._context, member.expected)):
            yield "data", item.name, item.content_base64
        for role, side, spec in self._context.sides(member):
            for file in spec.files:
                yield "file", side, role.name, file.mode, file.path, file.content_base64
            for hook in spec.hooks:
                yield "hook", side, role.name, hook.hook, hook.content_base64
            for each in self._context.awaits(role, side, spec):
                yield "wait", side, role.name, "barrier", each
            for name in spec.uses:
                yield "wait", side, role.name, "value", name

    # ------------------------------------------------------------ lists

    def _list(self, role: str, since: int, keys: bool) -> Piece | None:
        """None if nothing of it is new. In a gap those who missed the list as it was before are told that much, but not
        that it is whole: whatever could be told by some version, who asks since that version must have been told."""
        tally = self._context.roles.get(role)
        if tally is None or tally.state.version <= since:
            return None
        if not tally.state.whole:
            names = [name for version, name in self._changed(tally) if version > _told_until(tally, since)]
            return Piece(_lines(self._listed(role, tally, names, since > 0, keys)))
        known = self._changes(role, tally)
        begin = bisect_right(known.changes, (_told_until(tally, since), "\uffff"))
        key = (begin, since > 0, keys)
        if key not in known.pieces:
            names = [name for _, name in known.changes[begin:]]
            known.pieces[key] = Piece(_lines(self._listed(role, tally, names, since > 0, keys)))
        return known.pieces[key]

    def _changes(self, role: str, tally: Tally) -> _List:
        version, known = self._lists.get(role, (-1, None))
        if known is None or version != tally.state.version:
            known = _List(sorted(self._changed(tally)))
            self._lists[role] = (tally.state.version, known)
        return known

    def _changed(self, tally: Tally) -> list[tuple[int, str]]:
        """When each provider last changed. One that is to report is left out, until it has."""
        members = self._context.members
        changes = [(members[name].version, name) for name in tally.providers - tally.missing]
        return changes + [(members[name].left_version or 0, name) for name in tally.left]

    def _listed(
        self, role: str, tally: Tally, names: Sequence[str], again: bool, keys: bool
    ) -> Iterable[tuple[object, ...]]:
        with_user_keys = self._context.record.spec.ssh is Ssh.MUTUAL
        for name in sorted(names, key=_order):
            member = self._context.members[name]
            if name in tally.left:
                if again:
                    yield "gone", role, name
                continue
            assert member.identity is not None
            for nic in member.identity.nics:
                yield "member", role, name, nic.network, nic.address, fqdn(self._context, member)
            for host_key in member.identity.host_keys if keys else ():
                yield "host-key", name, host_key
            for user_key in member.identity.user_keys if keys and with_user_keys else ():
                yield "user-key", name, user_key
        if tally.state.whole:
            yield "role", role, tally.state.version


def closed_document(version: int) -> Document:
    """For members of a context that has ended, and for those that have left: there is nothing more."""
    text = _lines([("vws-context", FORMAT, version, ContextState.CLOSED), ("end",)]).encode()
    return Document(version, text, (), b"")


def fqdn(context: Context, member: Member) -> str:
    """Its own host name if that is qualified, else NAME.DOMAIN."""
    own = member.identity.name if member.identity is not None else ""
    if "." in own:
        return own
    return domain_name(context, member.name)


def domain_name(context: Context, name: str) -> str:
    domain = context.record.spec.domain
    return f"{name}.{domain}" if domain else name


def _informed(context: Context, expected: Expected) -> Iterable[DataSpec]:
    """What it requires of site, VO and user."""
    wanted = {role.replace(":", "-") for role in expected.requires if ":" in role}
    return (item for item in context.record.information if item.name in wanted)


def _told_until(tally: Tally, since: int) -> int:
    """The version up to which somebody who asked at `since` was told of the role: before the gap, if it was in one."""
    for gap in tally.state.gaps:
        if gap.since <= since < gap.until:
            return gap.since - 1
    return since


def _order(name: str) -> tuple[str, int]:
    """worker-2 before worker-10."""
    match = _NUMBERED.fullmatch(name)
    assert match is not None
    return match[1], int(match[2] or 0)


def _lines(rows: Iterable[tuple[object, ...]]) -> str:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)
