"""What a site chose: one function for each choice of its policy, by name, and who its users are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from vws.core.admission import (
    Admit,
    HeldBefore,
    Holdings,
    everyone,
    holdings_of,
    nothing_before,
    spent_by,
    within_limits,
)
from vws.core.errors import InvalidRequest, VwsError
from vws.core.membership import Limits, Membership, Party
from vws.core.outstanding import Outstanding
from vws.core.policy import (
    HostRank,
    MaySuspend,
    Order,
    Standing,
    best_fit,
    by_priority,
    fair_share,
    first_come,
    hard_suspends_soft,
    higher_priority,
    image_first,
    nobody,
    only_urgent,
    pack,
    smallest_first,
    spread,
    urgent_first,
    within_vo,
)
from vws.core.site import Lease

SEEN_MAX = 200_000

ADMISSION: Mapping[str, Admit] = {"limits": within_limits, "everyone": everyone}
ORDER: Mapping[str, Order] = {
    "first-come": first_come,
    "smallest-first": smallest_first,
    "fair-share": fair_share,
    "priority": by_priority,
    "urgent-first": urgent_first,
}
PREEMPTION: Mapping[str, MaySuspend] = {
    "nobody": nobody,
    "hard-suspends-soft": hard_suspends_soft,
    "only-urgent": only_urgent,
    "higher-priority": higher_priority,
    "within-vo": within_vo,
}
HOSTS: Mapping[str, HostRank] = {"spread": spread, "pack": pack, "image-first": image_first, "best-fit": best_fit}
REGISTRY: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "admission": ADMISSION,
    "order": ORDER,
    "preemption": PREEMPTION,
    "hosts": HOSTS,
}
ARGUMENTS: Mapping[str, int] = {"admission": 4, "order": 3, "preemption": 2, "hosts": 1}


def named(choice: str, name: str, where: str) -> Callable[..., Any]:
    """The function of that name for one of the choices in REGISTRY; InvalidRequest lists the names there are."""
    known = REGISTRY[choice]
    if name not in known:
        raise InvalidRequest(
            f"{where} is {name!r}, which is no {choice} function",
            field=where,
            asked=name,
            possible=f"one of {', '.join(known)}; or a function of your own, as module:function",
        )
    return known[name]


@dataclass(frozen=True)
class Chosen:
    """One function for each choice, and who is who."""

    admit: Admit = within_limits
    order: Order = first_come
    preempt: MaySuspend = hard_suspends_soft
    host_rank: HostRank = spread
    membership: Membership = field(default_factory=Membership)
    half_life_s: float = 7 * 86400.0
    # A VO's limits look at all its leases at each request, and few of them have changed since the last.
    _seen: dict[str, tuple[Lease, Standing]] = field(default_factory=dict, repr=False, compare=False)

    def standing(self, lease: Lease) -> Standing:
        """What the functions see of a lease."""
        seen = self._seen.get(lease.id)
        if seen is not None and seen[0] is lease:
            return seen[1]
        standing = Standing.of(lease, self.membership)
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        self._seen[lease.id] = lease, standing
        return standing

    def may_suspend(self, hard: Standing, victim: Standing) -> bool:
        return victim.preemptible and hard.lease != victim.lease and self.preempt(hard, victim)

    def beside(self, owner: str) -> frozenset[str]:
        """The users whose leases may keep one of `owner` from being granted."""
        parties = [p for p in self.membership.parties(owner) if p.limits.bind or self.admit is not within_limits]
        return frozenset[str]().union(*(party.users for party in parties))

    def check(
        self,
        lease: Lease,
        leases: Iterable[Lease],
        now: float,
        before: HeldBefore = nothing_before,
        outstanding: Outstanding | None = None,
    ) -> None:
        """Raise LimitReached (or what the site's own function raises) unless `lease` is admitted beside `leases`, those
        that have not ended; one of the same id is taken for its former terms. before: what users held in the past.
        outstanding: what there is beside `leases`, which may have other terms for some of it."""
        self.check_beside(lease, self.held(lease, leases, before, outstanding), now)

    def check_beside(self, lease: Lease, held: Iterable[tuple[Holdings, Limits]], now: float) -> None:
        """The same for other terms of a lease for which it is known what is `held`: on a large site that is much."""
        asked = self.standing(lease)
        for holdings, limits in held:
            self.admit(asked, holdings, limits, now)

    def check_start(self, asked: Standing, held: Iterable[Standing], at: float) -> None:
        """The same for a lease that would start at `at`, beside `held`, each with the start that is agreed or planned
        for it."""
        parties = self._bound(asked)
        others = list(held) if parties else []
        for party in parties:
            holdings = holdings_of(party, others, nothing_before)
            self.admit(asked.starting(at), holdings, Limits(concurrent=party.limits.concurrent), at)

    def kept_from(self, asked: Standing, held: Iterable[Standing], at: float) -> str:
        """What `check_start` says against it; "" for nothing."""
        try:
            self.check_start(asked, held, at)
        except VwsError as reached:
            return reached.problem
        return ""

    def _bound(self, asked: Standing) -> list[Party]:
        """The parties whose limits the lease must keep."""
        own = self.admit is not within_limits
        return [party for party in self.membership.parties(asked.owner) if party.limits.bind or own]

    def held(
        self,
        asked: Lease,
        leases: Iterable[Lease],
        before: HeldBefore = nothing_before,
        outstanding: Outstanding | None = None,
    ) -> list[tuple[Holdings, Limits]]:
        """What the parties whose limits a lease must keep hold of all these, without that lease, and those limits."""
        parties = self._bound(self.standing(asked))
        if not parties:
            return []
        changed, outstanding = Outstanding(), outstanding or Outstanding()
        instead = {asked.id}
        for lease in leases:
            instead.add(lease.id)
            if lease.id != asked.id:
                changed.put(lease)
        return [(self._holdings(party, changed, outstanding, instead, before), party.limits) for party in parties]

    def _holdings(
        self, party: Party, changed: Outstanding, outstanding: Outstanding, instead: set[str], before: HeldBefore
    ) -> Holdings:
        nodes = changed.nodes(party.users) + outstanding.nodes(party.users, instead)
        leases = chain(outstanding.of(party.users, instead), changed.of(party.users))
        return Holdings(party.title, map(self.standing, leases), spent_by(party, before), nodes)
