"""Fair share: who has used less than his part comes first, and what was used long ago is forgotten.

This is Slurm's classic fair-share factor, https://slurm.schedmd.com/classic_fair_share.html, on a tree of two levels
(VOs, users). Usage decays by half in each half-life. With U the part that a user or VO has of all decayed usage, and S
its part of all shares (a user's of his VO's, times his VO's of the site's),

    effective usage of a VO:    E = U
    effective usage of a user:  E = U + (E of his VO - U) * his part of his VO's shares
    factor:                     F = 2 ** (-E / S)

F is 1 for who has used nothing, 1/2 for who has used exactly his part, and nearly 0 for who has used far more. A user
who used nothing himself still bears a part of what his VO used: that is what the middle line is for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from vws.core.membership import OTHERS, Membership


def decayed(rate: float, start: float, end: float, at: float, half_life_s: float) -> float:
    """What a use of `rate` over [start, end) still counts at `at` >= end, in rate times seconds. half_life_s 0: all."""
    if half_life_s <= 0:
        return rate * (end - start)
    # The integral of rate * 2 ** (-(at - t) / half_life_s); expm1 keeps its digits for short spans.
    per_s = math.log(2) / half_life_s
    return rate / per_s * math.exp(-per_s * (at - end)) * -math.expm1(-per_s * (end - start))


class FairShare:
    """Decayed usage per user. Its owner charges it with what was used, in any order, and asks for shares at an instant.

    What is charged is a rate (nodes, or CPUs) over an interval; only its proportions matter.
    """

    def __init__(self, membership: Membership, half_life_s: float = 7 * 86400.0) -> None:
        self.membership = membership
        self.half_life_s = half_life_s
        self._usage: dict[str, tuple[float, float]] = {}  # user: what it was worth, when

    def charge(self, user: str, rate: float, start: float, end: float) -> None:
        if end <= start:
            return
        worth, at = self._usage.get(user, (0.0, end))
        later = max(at, end)
        added = decayed(rate, start, end, later, self.half_life_s)
        self._usage[user] = (worth * self._fading(later - at) + added, later)

    def usage(self, user: str, now: float) -> float:
        """What a user's use still counts, in rate times seconds."""
        worth, at = self._usage.get(user, (0.0, now))
        return worth * self._fading(max(0.0, now - at))

    def shares(self, now: float, going: Iterable[tuple[str, float, float]] = ()) -> Shares:
        """The factors at `now`. going: (user, rate, start) of what is in use and not charged yet."""
        usage = {user: self.usage(user, now) for user in self._usage}
        for user, rate, start in going:
            if start < now:
                usage[user] = usage.get(user, 0.0) + decayed(rate, start, now, now, self.half_life_s)
        return Shares(self.membership, usage)

    def _fading(self, age_s: float) -> float:
        return 1.0 if self.half_life_s <= 0 else math.exp2(-age_s / self.half_life_s)


class Shares:
    """The fair-share factor of each user at one instant."""

    def __init__(self, membership: Membership | None = None, usage: Mapping[str, float] | None = None) -> None:
        self._membership = membership or Membership()
        self._usage = dict(usage or {})
        self._total = sum(self._usage.values())
        self._used_by_vo: dict[str, float] = {}
        for user, used in self._usage.items():
            vo = self._membership.vo_of(user)
            self._used_by_vo[vo] = self._used_by_vo.get(vo, 0.0) + used
        self._others = {u for u in self._usage if self._membership.vo_of(u) == OTHERS}
        self._shares_of_others = sum(map(self._membership.share_of_user, self._others))
        self._factors: dict[str, float] = {}

    def factor(self, user: str) -> float:
        """From 0 (used far more than his part) to 1 (used nothing)."""
        known = self._factors.get(user)
        if known is None:
            known = self._factors[user] = self._factor(user)
        return known

    def _factor(self, user: str) -> float:
        if self._total <= 0:
            return 1.0
        vo = self._membership.vo_of(user)
        part_of_vo = self._part_of_vo(user, vo)
        share = part_of_vo * self._part_of_site(vo)
        used, used_by_vo = self._usage.get(user, 0.0) / self._total, self._used_by_vo.get(vo, 0.0) / self._total
        effective = used + (used_by_vo - used) * part_of_vo
        if effective <= 0:
            return 1.0
        return math.exp2(-effective / share) if share > 0 else 0.0

    def _part_of_vo(self, user: str, vo: str) -> float:
        own = self._membership.share_of_user(user)
        if vo == OTHERS:
            # Nobody lists them: those count who used something, and who asks.
            total = self._shares_of_others + (0.0 if user in self._others else own)
        else:
            total = sum(map(self._membership.share_of_user, self._membership.vos[vo].users))
        return own / total if total > 0 else 0.0

    def _part_of_site(self, vo: str) -> float:
        vos = {*self._membership.vos, vo}
        if self._others:
            vos.add(OTHERS)
        total = sum(self._membership.share_of_vo(each) for each in vos)
        return self._membership.share_of_vo(vo) / total if total > 0 else 0.0
