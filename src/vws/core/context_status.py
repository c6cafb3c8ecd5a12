"""How far a context is, for people: of the whole and of each member, waits for whom, ran what, failed how.

No secret is in it: values are told by name, and whether they are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto

from vws.core.broker import Context
from vws.core.context import Member, Ran
from vws.core.context_document import fqdn

SHOWN_MAX = 20


class MemberState(StrEnum):
    """EXPECTED: not heard of. JOINED: it has its token, not its identity. WAITING: for others. RUNNING: fetching what
    it requires, or its hooks. READY: all done. LATE: it has not done in time what only it can do."""

    EXPECTED = auto()
    JOINED = auto()
    WAITING = auto()
    RUNNING = auto()
    READY = auto()
    FAILED = auto()
    LATE = auto()
    LEFT = auto()


@dataclass(frozen=True, slots=True)
class Wait:
    """what: `role NAME` (that all its providers report), `barrier NAME` or `value NAME`. members: who is awaited, the
    first of `count`."""

    what: str
    members: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class MemberStatus:
    member: Member
    fqdn: str
    state: MemberState
    waits: tuple[Wait, ...]

    @property
    def ran(self) -> tuple[Ran, ...]:
        return self.member.ran


def member_status(context: Context, member: Member) -> MemberStatus:
    return _status(context, member, {})


def all_status(context: Context) -> tuple[MemberStatus, ...]:
    """Of all members; what many wait for is looked up once."""
    known: dict[str, Wait] = {}
    return tuple(_status(context, member, known) for member in context.members.values())


def _status(context: Context, member: Member, known: dict[str, Wait]) -> MemberStatus:
    waits = []
    for what in () if member.left_at is not None else _awaited(context, member):
        if what not in known:
            known[what] = _wait(what, _keeping(context, what))
        waits.append(known[what])
    return MemberStatus(member, fqdn(context, member), _state(context, member, tuple(waits)), tuple(waits))


def _state(context: Context, member: Member, waits: tuple[Wait, ...]) -> MemberState:
    if member.left_at is not None:
        return MemberState.LEFT
    if member.late:
        return MemberState.LATE
    if any(ran.status for ran in member.ran):
        return MemberState.FAILED
    if member.due:
        return MemberState.JOINED if member.joined_at is not None else MemberState.EXPECTED
    if waits:
        return MemberState.WAITING
    return MemberState.READY if context.is_done(member) else MemberState.RUNNING


def _awaited(context: Context, member: Member) -> list[str]:
    roles = [role for role in context.requires(member) if role in context.roles]
    awaited = [f"role {role}" for role in roles if not context.roles[role].state.whole]
    for role, side, spec in context.sides(member):
        if context.is_due(member, role, side, spec):
            awaited += context.awaited(role, side, spec)
    return list(dict.fromkeys(awaited))


def _keeping(context: Context, what: str) -> set[str]:
    """Who has to do something before that is over."""
    kind, _, name = what.partition(" ")
    tally = context.roles.get(context.publisher(name) if kind == "value" else name)
    if tally is None:
        return set()
    return {"role": tally.missing, "barrier": tally.unended, "value": tally.providers}[kind]


def _wait(what: str, names: set[str]) -> Wait:
    return Wait(what, tuple(sorted(names)[:SHOWN_MAX]), len(names))
