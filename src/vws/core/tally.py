"""One role's providers: who has reported, whose own side has ended well, who has left; and what follows for the role.

A role is *whole* once all of its providers have reported, and has *passed* once each of them has ended its own side
well. Both may be undone: by another provider, or by one whose word is doubted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vws.core.context import Gap, Hook, Member, RoleSpec, RoleState, Side

# Older ones are run together: what they cover is then told once more than needed.
GAPS_MAX = 16


@dataclass(slots=True)
class Tally:
    """missing: those yet to report; unended: those whose side has yet to end well. spec: None if there is nothing to do
    for its providers."""

    state: RoleState
    spec: RoleSpec | None = None
    providers: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    unended: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)

    def count(self, member: Member) -> None:
        """Take in what a provider, or former provider, is now."""
        name, is_here = member.name, member.left_at is None
        put(self.providers, name, is_here)
        put(self.missing, name, is_here and member.due)
        put(self.unended, name, is_here and not self._has_ended(member))
        put(self.left, name, not is_here and member.version > 0)

    def _has_ended(self, member: Member) -> bool:
        if member.identity is None:
            return False
        if self.spec is None or all(hook.hook is not Hook.ON_JOINED for hook in self.spec.provider.hooks):
            return True
        key = (self.spec.name, Side.PROVIDER, Hook.ON_JOINED)
        return any((ran.role, ran.side, ran.hook) == key and not ran.status for ran in member.ran)

    def settle(self, version: int, now: float, *, tells: bool) -> bool:
        """Bring the state up to date; whether it changed. tells: what is told of a provider is new in this version."""
        before = state = self.state
        # A list that was told stays one when the last provider has left: an empty one.
        whole = not self.missing and (bool(self.providers) or before.version > 0)
        if whole and not before.whole:
            state = replace(state, whole=True, version=version, at=now, gaps=_closed(state, version))
        elif before.whole and not whole:
            state = replace(state, whole=False, since=version)
        elif whole and tells:
            state = replace(state, version=version, at=now)
        passed = bool(self.providers) and not self.unended
        if passed != before.passed:
            state = replace(state, passed=passed, passed_version=version, passed_at=now)
        self.state = state
        return state is not before


def put(names: set[str], name: str, belongs: bool) -> None:
    """Have the name in the set, or not."""
    if belongs:
        names.add(name)
    else:
        names.discard(name)


def _closed(state: RoleState, version: int) -> tuple[Gap, ...]:
    gaps = (*state.gaps, Gap(state.since, version))
    if len(gaps) > GAPS_MAX:
        gaps = (Gap(gaps[0].since, gaps[1].until), *gaps[2:])
    return gaps
