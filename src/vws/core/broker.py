"""The rules of a context: who is expected, who said what, and what follows from it.

A `Context` is a data structure that its owner changes in place, and that is made anew from its records with the same
answers. It has no clock: every call has `now`. Every call may be repeated; what changes nothing moves nothing.

One number counts the context's changes: the version. Whatever a member can hear carries the version at which it last
changed, so that what is new to somebody is found by comparing numbers (core/context_document.py). Of a role nothing new
is told while one of its providers has yet to report; the versions during which that was so are kept as gaps, because
what changed in one is news to all who asked before its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vws.core.context import (
    MEMBER,
    ContextRecord,
    ContextState,
    Expected,
    Hook,
    Identity,
    Introduce,
    Member,
    Moved,
    Notice,
    Ran,
    RoleSpec,
    RoleState,
    Side,
    SideSpec,
    Value,
)
from vws.core.errors import Conflict, ContextClosed, Forbidden, InvalidRequest, NameTaken, NotFound, SecretUsed
from vws.core.saying import VALUES_MAX, check_identity, check_ran
from vws.core.tally import Tally, put
from vws.core.waits import check_member, check_waits

# Beyond a hook's own time limit, which its agent enforces.
GRACE_S = 30.0
REFUSALS_EVERY_S = 3600.0
TIME_OVER = "its time was over"


class Context:
    def __init__(self, record: ContextRecord, members: Iterable[Member] = ()) -> None:
        self.record = record
        self.members: dict[str, Member] = {}
        self.roles: dict[str, Tally] = {}
        self._specs = {role.name: role for role in record.spec.roles}
        self._publishers = {value.name: role.name for role in record.spec.roles for value in role.publishes}
        self._values: dict[str, tuple[str, Value]] = {}
        self._names: dict[str, str] = {}
        self._touched: dict[str, Member] = {}
        self._notices: list[Notice] = []
        self._undone: set[str] = set()
        self._failing: dict[str, str] = {}
        # Whose progress is to be judged anew, before anybody asks for the whole.
        self._unsure: set[str] = set()
        self._all_unsure = True
        self.apply(record, members)

    # ------------------------------------------------------------ the record

    def apply(self, record: ContextRecord, members: Iterable[Member]) -> None:
        """Take over what was recorded, by this process or by another."""
        self.record = record
        for state in record.roles:
            self._tally(state.name).state = state
        for member in members:
            self._index(member)
        self._all_unsure = True

    def take(self, now: float) -> Moved | None:
        """What the calls since the last `take` changed, None if nothing; to be kept, or forgotten with this object."""
        if not self._touched and not self._notices and self.record.state is self._state():
            return None
        self._settle_state(now)
        roles = tuple(tally.state for tally in self.roles.values())
        self.record = replace(self.record, roles=roles, revision=self.record.revision + 1)
        moved = Moved(self.record, tuple(self._touched.values()), tuple(self._notices))
        self._touched, self._notices = {}, []
        return moved

    @property
    def version(self) -> int:
        return self.record.version

    @property
    def closed(self) -> bool:
        return self.record.closed_at is not None

    # ------------------------------------------------------------ who takes part

    def open(self) -> None:
        """Have the record kept, whoever is expected yet."""
        self._say("context.opened")

    def expect(self, expected: Expected, now: float) -> None:
        """A member there is to be; again with other addresses or another start: that changes, and one that slept, or
        comes back with other addresses, is asked who it is. One that had left, or is another workspace now, begins
        anew. Raises InvalidRequest for what nobody provides."""
        self._must_be_open()
        known = self.members.get(expected.name)
        if known is not None:
            _check_same_roles(known, expected)
        if known is not None and known.left_at is None and known.expected.workspace == expected.workspace:
            if expected != known.expected:
                self._touch(replace(known, expected=expected))
                woke = known.expected.start is None and expected.start is not None
                moved = known.identity is not None and expected.addresses != known.expected.addresses
                if woke or moved:
                    self.renew(expected.name, now)
            return
        check_member(self.record.spec, expected)
        values = known.values if known is not None else ()
        member = Member(self.record.id, expected.name, expected, now, due_version=self._advance(), values=values)
        self._put(member, now)

    def check(self) -> None:
        """Raise InvalidRequest if what is waited for can never be; to be called once all were expected."""
        check_waits(self.record.spec, [member.expected for member in self.present()])

    def leave(self, name: str, now: float) -> None:
        """There is no such member any more. What it published stays."""
        member = self.members.get(name)
        if member is None or member.left_at is not None or self.closed:
            return
        version = self._advance()
        self._put(replace(member, left_at=now, left_version=version, token_sha256="", late="", due=False), now)

    def renew(self, name: str, now: float) -> None:
        """What the member said of itself is doubted, as after a restore elsewhere: it is asked to report again, and its
        roles are not whole until it has."""
        member = self._member(name)
        if not member.due:
            self._put(replace(member, due=True, due_at=now, due_version=self._advance(), late=""), now)
        else:
            self._touch(replace(member, due_at=now, late=""))

    def close(self, now: float, reason: str = "") -> None:
        """No more changes; agents stop, and secrets that members published are forgotten."""
        if self.closed:
            return
        self._advance()
        self.record = replace(self.record, state=ContextState.CLOSED, closed_at=now, reason=reason)
        secret = {value.name for role in self.record.spec.roles for value in role.publishes if value.secret}
        for member in list(self.members.values()):
            kept = tuple(value for value in member.values if value.name not in secret)
            if kept != member.values or member.token_sha256:
                self._touch(replace(member, values=kept, token_sha256=""))
        self._say("context.closed")

    # ------------------------------------------------------------ what members say

    def join(self, name: str, token_sha256: str, now: float) -> Member:
        """The one-time secret is traded for the token of that hash; again with the same one: the same answer."""
        member = self._member(name)
        if member.token_sha256 == token_sha256:
            return member
        if member.token_sha256:
            self._refuse(member, now)
        joined = replace(member, token_sha256=token_sha256, joined_at=now)
        self._touch(joined)
        self._say("context.joined", name)
        return joined

    def _refuse(self, member: Member, now: float) -> None:
        """Told to the owner, but not for each of a thousand tries."""
        if not member.refused_at or now >= member.refused_at + REFUSALS_EVERY_S:
            self._touch(replace(member, refused_at=now))
            self._say("context.secret-refused", member.name)
        raise SecretUsed(
            f"the secret of {member.name} was used before, with another token; its owner has been told",
            field="secret",
            possible="the token that was made then; if it is lost, a new member in the place of this one",
        )

    def report(self, name: str, identity: Identity, now: float) -> None:
        """Who the member is; again after a change. Raises NameTaken for a name that another member goes by."""
        member = self._member(name)
        identity = check_identity(identity, member.expected)
        self._check_name_free(member, identity)
        if member.identity == identity and not member.due:
            return
        version = self._advance()
        self._put(replace(member, identity=identity, version=version, due=False, reported_at=now, late=""), now)

    def _check_name_free(self, member: Member, identity: Identity) -> None:
        other = self._goes_by(identity.name)
        if other is not None and other is not member:
            raise NameTaken(
                f"{member.name} calls itself {identity.name}, as {other.name} is called",
                field="name",
                asked=identity.name,
                possible="a host name of its own for each member",
            )

    def _goes_by(self, name: str) -> Member | None:
        """The present member of that name, or with that name of its host."""
        named = self.members.get(name)
        if named is not None and named.left_at is None:
            return named
        claims = self.members.get(self._names.get(name, ""))
        stands = claims is not None and claims.left_at is None and claims.identity and claims.identity.name == name
        return claims if stands else None

    def publish(self, name: str, value: str, content_base64: str, now: float) -> None:
        """A value, or again with other content. It is that provider's until it leaves."""
        member, role = self._member(name), self._publishers.get(value)
        if role is None:
            raise NotFound(
                f"no role publishes {value[:60]}",
                field="value",
                asked=value[:60],
                possible=", ".join(sorted(self._publishers)) or "a value under `publishes` of a role",
            )
        if role not in self.provides(member):
            raise Forbidden(f"{name} does not provide {role}, which publishes {value}", field="value", asked=value)
        owner, held = self._values.get(value, (name, None))
        if owner != name and self.members[owner].left_at is None:
            raise Conflict(
                f"{value} was published by {owner}", field="value", asked=value, possible=f"{owner}'s, with `uses`"
            )
        if held is not None and owner == name and held.content_base64 == content_base64:
            return
        fresh = Value(value, content_base64, self._advance(), now)
        kept = tuple(each for each in member.values if each.name != value)
        self._put(replace(member, values=(*kept, fresh)[-VALUES_MAX:]), now)

    def ended(self, name: str, ran: Ran, now: float) -> None:
        """A hook's end; the last one of each hook is kept."""
        member = self._member(name)
        if all(role.name != ran.role or side is not ran.side for role, side, _ in self.sides(member)):
            sides = [f"{side} of {role.name}" for role, side, _ in self.sides(member)]
            raise InvalidRequest(
                f"{name} has no {ran.side} side of {ran.role[:60]}",
                field="role",
                asked=ran.role[:60],
                possible=", ".join(sides) or "nothing: it has no hooks",
            )
        check_ran(ran, self.version)
        key = (ran.role, ran.side, ran.hook)
        same = next((each for each in member.ran if (each.role, each.side, each.hook) == key), None)
        if same is not None and replace(same, at=ran.at) == ran:
            return
        self._advance()
        others = tuple(each for each in member.ran if each is not same)
        after = replace(member, ran=(*others, replace(ran, at=now)), late="")
        self._put(after, now)
        if ran.status and (same is None or not same.status):
            said = {"role": ran.role, "side": str(ran.side), "hook": str(ran.hook), "status": str(ran.status)}
            self._say("context.hook-failed", name, **said, message=ran.message)

    def heard(self, name: str, version: int, now: float) -> None:
        """The member has the document of that version: it asked for what comes after it."""
        member = self.members.get(name)
        if member is not None and self.is_news_that_it_heard(member, version):
            self._touch(replace(member, heard=version, heard_at=now, late=""))

    def is_news_that_it_heard(self, member: Member, version: int) -> bool:
        if member.left_at is not None or self.closed or not self.is_told(member):
            return False
        return self.has(member) < self.target(member) <= version <= self.version

    # ------------------------------------------------------------ the passing of time

    def pass_time(self, now: float) -> None:
        """Who has not done in time what only it keeps others waiting for is late, until it has."""
        if self.record.ends_at is not None and now >= self.record.ends_at:
            self.close(now, TIME_OVER)
        if self.closed:
            return
        self._judge_unsure()
        for name in sorted(self._undone):
            member = self.members[name]
            owes, since = self.owes(member)
            if owes and not member.late and since is not None and now > since:
                late = f"{name} {owes} within {self.record.spec.within_s} s"
                self._touch(replace(member, late=late))

    def owes(self, member: Member) -> tuple[str, float | None]:
        """What the member has yet to do while it waits for nobody ("": nothing), and when that is overdue (None: it
        sleeps)."""
        owed, since = self._owes_awake(member)
        start = member.expected.start
        return owed, None if since is None or start is None else max(since, start + self.record.spec.within_s)

    def _owes_awake(self, member: Member) -> tuple[str, float | None]:
        within_s = self.record.spec.within_s
        if member.due:
            return "has not reported", member.due_at + within_s
        if not self.is_told(member):
            return "", None
        if self.has(member) < self.target(member):
            return "has not fetched what it requires", self._told_at(member) + within_s
        for role, side, spec in self.sides(member):
            if self.is_due(member, role, side, spec) and not self.awaited(role, side, spec):
                since = max(self._told_at(member), self._awaited_at(role, side, spec), _last_ran_at(member))
                return f"has not ended its hooks ({side} of {role.name})", since + within_s + GRACE_S
        return "", None

    # ------------------------------------------------------------ roles of a member

    def present(self) -> Iterable[Member]:
        return (member for member in self.members.values() if member.left_at is None)

    def provides(self, member: Member) -> tuple[str, ...]:
        return tuple(dict.fromkeys((MEMBER, *member.expected.provides)))

    def requires(self, member: Member) -> tuple[str, ...]:
        """Roles alone, without site, VO and user information."""
        everybody = (MEMBER,) if self.record.spec.introduce is Introduce.ALL else ()
        return tuple(dict.fromkeys((*everybody, *(role for role in member.expected.requires if ":" not in role))))

    def sides(self, member: Member) -> list[tuple[RoleSpec, Side, SideSpec]]:
        """What it is to do, in the order of the specification."""
        provides, requires = self.provides(member), self.requires(member)
        return [
            (role, side, role.side(side))
            for role in self.record.spec.roles
            for side, taken in ((Side.PROVIDER, provides), (Side.CLIENT, requires))
            if role.name in taken and role.side(side).asks_anything
        ]

    def is_told(self, member: Member) -> bool:
        """Whether every role that it requires is whole."""
        return all(self._tally(role).state.whole for role in self.requires(member))

    def target(self, member: Member) -> int:
        """The version that it must have to know all that it requires."""
        return max((self._tally(role).state.version for role in self.requires(member)), default=0)

    def has(self, member: Member) -> int:
        return max((member.heard, *(ran.version for ran in member.ran)))

    def _told_at(self, member: Member) -> float:
        return max((member.reported_at, *(self._tally(role).state.at for role in self.requires(member))))

    def awaits(self, role: RoleSpec, side: Side, spec: SideSpec) -> tuple[str, ...]:
        """The roles whose barriers a side waits for."""
        return tuple(dict.fromkeys((*([role.name] if side is Side.CLIENT else []), *spec.after)))

    def awaited(self, role: RoleSpec, side: Side, spec: SideSpec) -> list[str]:
        """What is still waited for: "barrier ROLE", "value NAME"."""
        barriers = [f"barrier {each}" for each in self.awaits(role, side, spec) if not self._tally(each).state.passed]
        return barriers + [f"value {each}" for each in spec.uses if each not in self._values]

    def _awaited_at(self, role: RoleSpec, side: Side, spec: SideSpec) -> float:
        passed = [self._tally(each).state.passed_at for each in self.awaits(role, side, spec)]
        return max((0.0, *passed, *(self._values[each][1].at for each in spec.uses if each in self._values)))

    def is_due(self, member: Member, role: RoleSpec, side: Side, spec: SideSpec) -> bool:
        """Whether a hook of this side has yet to end well."""
        hooks = {hook.hook for hook in spec.hooks}
        mine = {ran.hook: ran for ran in member.ran if (ran.role, ran.side) == (role.name, side)}
        joined = mine.get(Hook.ON_JOINED)
        if Hook.ON_JOINED in hooks and (joined is None or joined.status):
            return True
        if Hook.ON_CHANGED not in hooks:
            return False
        newest = max(
            (ran.version for hook, ran in mine.items() if hook is not Hook.ON_LEFT and not ran.status), default=0
        )
        return newest < self.target(member)

    def value(self, name: str) -> Value | None:
        found = self._values.get(name)
        return found[1] if found else None

    def publisher(self, value: str) -> str:
        """The role that publishes it."""
        return self._publishers[value]

    def is_secret(self, value: str) -> bool:
        role = self._specs[self._publishers[value]]
        return any(each.secret for each in role.publishes if each.name == value)

    # ------------------------------------------------------------ moving

    def _must_be_open(self) -> None:
        if self.closed:
            raise ContextClosed(f"the context {self.record.name} is closed", possible="a new context")

    def _member(self, name: str) -> Member:
        self._must_be_open()
        member = self.members.get(name)
        if member is None:
            raise NotFound(f"{self.record.name} has no member {name[:60]}", field="member", asked=name[:60])
        if member.left_at is not None:
            raise ContextClosed(f"{name} is no longer a member of {self.record.name}", possible="a new member")
        return member

    def _advance(self) -> int:
        self.record = replace(self.record, version=self.record.version + 1)
        return self.record.version

    def _say(self, kind: str, member: str = "", **data: str) -> None:
        self._notices.append(Notice(kind, member, data))

    def _touch(self, member: Member) -> None:
        """Keep a record that no role depends on."""
        self._touched[member.name] = member
        self._index(member)
        self._unsure.add(member.name)

    def _put(self, member: Member, now: float) -> None:
        """Keep a record, and settle the roles that it provides."""
        self._touch(member)
        tells = self.version in (member.version, member.left_version)
        for role in self.provides(member):
            if self._tally(role).settle(self.version, now, tells=tells):
                self._all_unsure = True

    def _tally(self, role: str) -> Tally:
        tally = self.roles.get(role)
        if tally is None:
            tally = self.roles[role] = Tally(RoleState(role), self._specs.get(role))
        return tally

    def _index(self, member: Member) -> None:
        self.members[member.name] = member
        for role in self.provides(member):
            self._tally(role).count(member)
        if member.identity is not None and "." in member.identity.name and member.left_at is None:
            self._names[member.identity.name] = member.name
        for value in member.values:
            held = self._values.get(value.name)
            if held is None or held[1].version <= value.version:
                self._values[value.name] = (member.name, value)

    # ------------------------------------------------------------ the whole

    def _judge_unsure(self) -> None:
        for name in list(self.members if self._all_unsure else self._unsure):
            self._judge(self.members[name])
        self._unsure, self._all_unsure = set(), False

    def _judge(self, member: Member) -> None:
        is_here = member.left_at is None
        put(self._undone, member.name, is_here and not self.is_done(member))
        self._failing.pop(member.name, None)
        why = _why_failing(member) if is_here else ""
        if why:
            self._failing[member.name] = why

    def is_done(self, member: Member) -> bool:
        """It knows all that it requires, and its hooks have ended well."""
        return (
            not member.due
            and self.is_told(member)
            and self.has(member) >= self.target(member)
            and not any(self.is_due(member, *side) for side in self.sides(member))
        )

    def _state(self) -> ContextState:
        if self.closed:
            return ContextState.CLOSED
        self._judge_unsure()
        if self._failing:
            return ContextState.FAILED
        return ContextState.OPEN if self._undone or not any(True for _ in self.present()) else ContextState.READY

    def _settle_state(self, now: float) -> None:
        if self.closed:
            return
        state, before = self._state(), self.record
        reason = (
            "; ".join(self._failing[name] for name in sorted(self._failing)[:5]) if state is ContextState.FAILED else ""
        )
        if state is before.state and reason == before.reason:
            return
        self.record = replace(before, state=state, reason=reason)
        if state is ContextState.READY and before.state is not state:
            self.record = replace(self.record, ready_at=before.ready_at or now)
            self._say("context.ready")
        elif state is ContextState.FAILED and reason != before.reason:
            self._say("context.failed", reason=reason)


def _check_same_roles(member: Member, expected: Expected) -> None:
    """Others heard of that name under these roles."""
    if (expected.provides, expected.requires) != (member.expected.provides, member.expected.requires):
        raise Conflict(
            f"{member.name} has, or had, other roles",
            field="provides",
            asked=list(expected.provides),
            possible="another name for a member with these roles",
        )


def _last_ran_at(member: Member) -> float:
    return max((ran.at for ran in member.ran), default=0.0)


def _why_failing(member: Member) -> str:
    if member.late:
        return member.late
    bad = next((ran for ran in member.ran if ran.status), None)
    if bad is None:
        return ""
    said = f": {bad.message}" if bad.message else ""
    return f"{member.name}: {bad.hook} of {bad.role} ({bad.side}) ended with {bad.status}{said}"
