"""What a site's [policy] makes of a simulation: who comes first, and who may suspend whom.

The functions are those of a live site, called with the same small values. Where they ask who used how much (fair
share), that is what was reserved on the virtual clock; the queue is put in order anew as often as a live site does it.
A policy that names neither costs nothing: the planner's own order is first come, first served, and its own victims are
those that have no start of their own.
"""

from __future__ import annotations

from dataclasses import replace

from vws.core.chosen import Chosen
from vws.core.plan.demand import Demand
from vws.core.plan.planner import Planner
from vws.core.policy import Standing, first_come, hard_suspends_soft
from vws.core.shares import FairShare, Shares
from vws.policies import PolicyConfig, choose
from vws.sim.workload import Job, SimulatedPolicy

REORDER_EVERY_S = 10
DAY_S = 86_400


class Choices:
    """The choices of `policy`, made for `planner`."""

    def __init__(self, policy: SimulatedPolicy, planner: Planner) -> None:
        named = PolicyConfig(order=policy.order, preemption=policy.preemption, half_life_days=policy.half_life_days)
        self._chosen: Chosen = choose(named, policy.members)
        self._planner = planner
        self._orders = self._chosen.order is not first_come
        self._preempts = self._chosen.preempt is not hard_suspends_soft
        self._fair = FairShare(self._chosen.membership, policy.half_life_days * DAY_S)
        self._going: dict[int, tuple[str, float, float]] = {}
        self._reordered = 0
        if self._preempts:
            planner.rules.may_suspend = self._may_suspend

    def introduce(self, job: Job, demand: Demand, now: int) -> None:
        """`demand`, which is to arrive now, gets its turn."""
        demand.turn = float(job.submit)
        if not (self._orders or self._preempts):
            return
        demand.standing = self._standing(job, demand)
        if self._orders and not demand.hard:
            demand.turn = self._turn(demand, self._shares(now), now)

    def begins(self, demand: Demand, begin: int) -> None:
        """It has its nodes since `begin`."""
        if self._orders and isinstance(demand.standing, Standing):
            self._going[demand.number] = demand.standing.owner, float(demand.members), float(begin)

    def ends(self, demand: Demand, now: int) -> None:
        """Its nodes are free."""
        if demand.number in self._going:
            owner, members, begin = self._going.pop(demand.number)
            self._fair.charge(owner, members, begin, float(now))

    def reorder(self, now: int) -> None:
        """Put those that wait in the turn that they have now."""
        planner = self._planner
        if not self._orders or not planner.queue or now - self._reordered < REORDER_EVERY_S:
            return
        self._reordered = now
        shares = self._shares(now)
        for demand in (*planner.queue, *planner.booked):
            demand.turn = self._turn(demand, shares, now)
        planner.queue.sort(key=_in_turn)
        planner.booked.sort(key=_in_turn)

    def _shares(self, now: int) -> Shares:
        return self._fair.shares(float(now), self._going.values())

    def _turn(self, demand: Demand, shares: Shares, now: int) -> float:
        return self._chosen.order(_present(demand), shares, float(now))

    def _may_suspend(self, hard: Demand, victim: Demand) -> bool:
        return self._chosen.may_suspend(_present(hard), _present(victim))

    def _standing(self, job: Job, demand: Demand) -> Standing:
        membership = self._chosen.membership
        return Standing(
            job.owner,
            job.nodes,
            float(job.requested),
            float(job.submit),
            str(job.id),
            "best-effort" if job.at is None else "reservation",
            membership.vo_of(job.owner),
            membership.groups_of(job.owner),
            job.nodes * job.cpus,
            job.nodes * job.memory_mib,
            None if job.at is None else float(job.at),
            priority=membership.priority_of(job.owner),
            preemptible=demand.preemptible,
            restartable=demand.restartable,
        )


def _present(demand: Demand) -> Standing:
    """Its standing, with what is done of it by now."""
    standing = demand.standing
    assert isinstance(standing, Standing)
    if standing.done_s != demand.worked:
        standing = demand.standing = replace(standing, done_s=float(demand.worked))
    return standing


def _in_turn(demand: Demand) -> tuple[float, int]:
    return demand.turn, demand.number
