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
    waits = () if member.left_at is not None else _waits(context, member)
    return MemberStatus(member, fqdn(context, member), _state(context, member, waits), waits)


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


def _waits(context: Context, member: Member) -> tuple[Wait, ...]:
    roles = [role for role in context.requires(member) if role in context.roles]
    found = [
        _wait(f"role {role}", context.roles[role].missing) for role in roles if not context.roles[role].state.whole
    ]
    awaited = [
        what
        for role, side, spec in context.sides(member)
        if context.is_due(member, role, side, spec)
        for what in context.awaited(role, side, spec)
    ]
    return (*found, *(_wait(what, _keeping(context, what)) for what in dict.fromkeys(awaited)))


def _keeping(context: Context, what: str) -> set[str]:
    """Who has to do something before that is over."""
    kind, _, name = what.partition(" ")
    role = name if kind == "barrier" else context.publisher(name)
    tally = context.roles.get(role)
    if tally is None:
        return set()
    return tally.unended if kind == "barrier" else tally.providers


def _wait(what: str, names: set[str]) -> Wait:
    return Wait(what, tuple(sorted(names)[:SHOWN_MAX]), len(names))
