"""Who belongs to whom: users, the VO of each, the groups of users, and what each of these may have.

A user has one VO at most, because what he uses is counted once: a share that two VOs pay for is nobody's. He may be in
any number of groups, which carry limits and nothing else. Users that no VO names are together in a VO without a name,
so that a site without VOs shares equally among its users and a site with some still has room for guests.

A limit of a VO or a group holds for all of its users together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from vws.core.errors import InvalidRequest
from vws.core.terms import check_ssh_key

OTHERS = ""
DAYS_MAX = 36_500  # a century: what is longer is a slip of the pen


@dataclass(frozen=True, slots=True)
class Limits:
    """What one party may have; None: no limit.

    concurrent: workspaces at one instant. total: workspaces of all leases that have not ended, those that wait counted
    in. ahead_s: how far off a lease may begin when it is asked for. node_hours: of workspaces within any `days` days:
    what was held in the past ones and what is agreed from now on.
    """

    concurrent: int | None = None
    total: int | None = None
    ahead_s: int | None = None
    node_hours: float | None = None
    days: int = 30

    @property
    def bind(self) -> bool:
        return (self.concurrent, self.total, self.ahead_s, self.node_hours) != (None, None, None, None)


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class VO:
    """share: of the site, as against the other VOs. priority: of its users' leases. limits: of all its users together,
    in place of those that the policy has for each VO."""

    users: tuple[str, ...] = ()
    share: float = 1.0
    priority: float = 0.0
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class UserGroup:
    """limits: of all its users together, in place of those that the policy has for each group."""

    users: tuple[str, ...] = ()
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class User:
    """share: of his VO's, as against its other users. priority: added to his VO's. limits: in place of those that the
    policy has for each user. keys, subject: his ssh public keys and the subject of his certificate, for machines that
    require `user:keys`, `vo:keys` or `vo:gridmap`. image_quota_mib: in place of that of [images]."""

    share: float = 1.0
    priority: float = 0.0
    limits: Limits | None = None
    keys: tuple[str, ...] = ()
    subject: str = ""
    image_quota_mib: int | None = None


@dataclass(frozen=True, slots=True)
class Party:
    """One that limits hold for. title: as a sentence calls it; users: whose leases count."""

    title: str
    users: frozenset[str]
    limits: Limits


class Membership:
    """The users of a site, indexed. Raises InvalidRequest, naming the setting, for what contradicts itself."""

    def __init__(
        self,
        vos: Mapping[str, VO] | None = None,
        groups: Mapping[str, UserGroup] | None = None,
        users: Mapping[str, User] | None = None,
        *,
        each_user: Limits = NO_LIMITS,
        each_group: Limits = NO_LIMITS,
        each_vo: Limits = NO_LIMITS,
    ) -> None:
        self.vos = dict(vos or {})
        self.groups = dict(groups or {})
        self.users = dict(users or {})
        self._each = {"user": each_user, "group": each_group, "vo": each_vo}
        self._vo_of = self._index_vos()
        self._groups_of: dict[str, tuple[str, ...]] = {}
        for name, group in self.groups.items():
            for user in group.users:
                self._groups_of[user] = (*self._groups_of.get(user, ()), name)
        self._check()

    @property
    def days_max(self) -> int:
        """How far back limits look."""
        own = [party.limits for kind in (self.vos, self.groups, self.users) for party in kind.values()]
        return max(limits.days for limits in (*self._each.values(), *own) if limits is not None)

    @property
    def limits_concurrency(self) -> bool:
        """Whether anybody may be kept from running what has room."""
        own = [party.limits for kind in (self.vos, self.groups, self.users) for party in kind.values()]
        return any(limits.concurrent is not None for limits in (*self._each.values(), *own) if limits is not None)

    def vo_of(self, user: str) -> str:
        return self._vo_of.get(user, OTHERS)

    def groups_of(self, user: str) -> tuple[str, ...]:
        return self._groups_of.get(user, ())

    def priority_of(self, user: str) -> float:
        vo, own = self.vos.get(self.vo_of(user)), self.users.get(user)
        return (vo.priority if vo else 0.0) + (own.priority if own else 0.0)

    def share_of_vo(self, vo: str) -> float:
        return self.vos[vo].share if vo in self.vos else 1.0

    def share_of_user(self, user: str) -> float:
        return self.users[user].share if user in self.users else 1.0

    def parties(self, user: str) -> tuple[Party, ...]:
        """Whose limits a lease of this user must keep: his own, those of his groups and of his VO."""
        own = self.users.get(user)
        found = [self._party("user", user, frozenset({user}), own.limits if own else None)]
        for name in self.groups_of(user):
            group = self.groups[name]
            found.append(self._party("group", name, frozenset(group.users), group.limits))
        if vo := self.vo_of(user):
            found.append(self._party("vo", vo, frozenset(self.vos[vo].users), self.vos[vo].limits))
        return tuple(found)

    def _party(self, kind: str, name: str, users: frozenset[str], limits: Limits | None) -> Party:
        title = {"user": "the user", "group": "the group", "vo": "the VO"}[kind]
        return Party(f"{title} {name}", users, self._each[kind] if limits is None else limits)

    def _index_vos(self) -> dict[str, str]:
        index: dict[str, str] = {}
        for name, vo in self.vos.items():
            for user in vo.users:
                if user in index:
                    raise InvalidRequest(
                        f"{user} is in the VOs {index[user]} and {name}",
                        field=f"vos.{name}.users",
                        asked=user,
                        possible="each user in one VO; groups may overlap",
                    )
                index[user] = name
        return index

    def _check(self) -> None:
        shares = [(f"vos.{name}.share", vo.share) for name, vo in self.vos.items()]
        shares += [(f"users.{name}.share", user.share) for name, user in self.users.items()]
        for field, share in shares:
            if not 0 <= share <= 1e9:
                raise InvalidRequest(f"{field} is {share:g}", field=field, asked=share, possible="0 or more")
        named = [(f"policy.each_{kind}", limits) for kind, limits in self._each.items()]
        for section in ("vos", "groups", "users"):
            parties = getattr(self, section).items()
            named += [(f"{section}.{name}.limits", party.limits) for name, party in parties if party.limits is not None]
        for field, limits in named:
            check_limits(limits, field)
        for name, user in self.users.items():
            for i, key in enumerate(user.keys):
                check_ssh_key(key, f"users.{name}.keys[{i}]")
            _check_subject(user.subject, f"users.{name}.subject")


def _check_subject(subject: str, where: str) -> None:
    """It is written between quotes, one to a line."""
    if not subject.isprintable() or '"' in subject:
        raise InvalidRequest(f"{where} cannot be a subject", field=where, possible="such as /DC=org/DC=example/CN=Ann")


def check_limits(limits: Limits, where: str) -> None:
    for field in fields(limits):
        value = getattr(limits, field.name)
        low, high = (1, DAYS_MAX) if field.name == "days" else (0, math.inf)
        if value is not None and not low <= value <= high:
            raise InvalidRequest(
                f"{where}.{field.name} is {value}",
                field=f"{where}.{field.name}",
                asked=value,
                possible=f"{low} or more" if high == math.inf else f"{low} to {high}",
            )
