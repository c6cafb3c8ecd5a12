"""The choices that a site makes for itself: plain functions, which its configuration names.

    admission    admit(asked, holdings, limits, now)     may this lease be asked for?    None, or raises a VwsError
    order        order(standing, shares, now) -> float   who comes first?                smallest first
    preemption   may_suspend(hard, victim) -> bool       who may suspend whom?
    hosts        host_rank(host) -> float                which of the nodes that fit?    smallest first

Each sees small plain values and nothing else, so that one may be written in a line. An order and a preemption can be
tried in a simulation (`vws simulate --config`) and used on the site as they are; a log says too little for the others.
What may never be chosen is not asked: a lease that did not say it may be preempted is suspended by nobody, whatever a
function says (`Chosen.may_suspend`), and equal ranks go by submission and id, so that a plan is the same each time
(`Chosen.rank`).

Here are the values, and the functions for the last three. Limits are in core/admission.py, fair shares in
core/shares.py, prices in core/tariff.py; core/chosen.py gathers what a site chose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from vws.core.membership import Membership
from vws.core.shares import Shares
from vws.core.site import LEASE_AHEAD, Lease, LeaseKind, LeaseState


@dataclass(frozen=True, slots=True)
class Standing:
    """One lease, asked for or held. Times are UTC seconds.

    submit: when it was asked for. nodes: workspaces in all groups; cpus, memory_mib: of all of them together.
    requested_s: the length of the run asked for; done_s: as much of it as is done and saved.
    start: of a hard lease as agreed, of one with a deadline as promised, of a soft one of its present run; None while
    it waits.
    running: it takes room now.
    """

    owner: str
    nodes: int = 1
    requested_s: float = 3600.0
    submit: float = 0.0
    lease: str = ""
    kind: str = "immediate"
    vo: str = ""
    user_groups: tuple[str, ...] = ()
    cpus: int = 1
    memory_mib: int = 0
    start: float | None = None
    done_s: float = 0.0
    priority: float = 0.0
    urgent: bool = False
    preemptible: bool = False
    restartable: bool = False
    running: bool = False

    @classmethod
    def of(cls, lease: Lease, membership: Membership) -> Standing:
        ahead = lease.state in LEASE_AHEAD or lease.state is LeaseState.SUSPENDED
        # What has a deadline was promised its time, like what has a start.
        promised = lease.plan.run if lease.kind is LeaseKind.DEADLINE and lease.plan is not None else None
        soft = lease.kind in (LeaseKind.BEST_EFFORT, LeaseKind.DEADLINE)
        return cls(
            owner=lease.owner,
            nodes=sum(group.count for group in lease.groups),
            requested_s=lease.duration_s,
            submit=lease.submitted_at,
            lease=lease.id,
            kind=str(lease.kind),
            vo=membership.vo_of(lease.owner),
            user_groups=membership.groups_of(lease.owner),
            cpus=sum(group.count * group.cpus for group in lease.groups),
            memory_mib=sum(group.count * group.memory_mib for group in lease.groups),
            start=promised if soft and ahead else lease.start,
            done_s=lease.worked_s,
            priority=membership.priority_of(lease.owner),
            urgent=lease.urgent,
            preemptible=lease.preemptible,
            restartable=lease.restartable,
            running=not ahead,
        )

    @property
    def soft(self) -> bool:
        return self.kind in (LeaseKind.BEST_EFFORT, LeaseKind.DEADLINE)

    @property
    def left_s(self) -> float:
        """What is left of its run."""
        return max(0.0, self.requested_s - self.done_s)

    @property
    def end(self) -> float | None:
        return None if self.start is None else self.start + self.left_s

    def starting(self, at: float) -> Standing:
        """The same, with its (next) run from `at` on."""
        return replace(self, start=at)

    def waited_s(self, now: float) -> float:
        """Since it was asked for, until its start or now."""
        return max(0.0, (now if self.start is None else min(now, self.start)) - self.submit)


@dataclass(frozen=True, slots=True)
class HostView:
    """A node on which the next workspace would fit, as a choice of hosts sees it.

    *_free: what is left while it would run, before it is taken. workspaces: how many are there then.
    has_image: no transfer is needed. free_until: when another has that room (UTC seconds).
    """

    node: str
    cpus: int
    cpus_free: int
    memory_mib: int
    memory_free_mib: int
    workspaces: int = 0
    has_image: bool = False
    free_until: float = math.inf

    @property
    def part_free(self) -> float:
        """Of the scarcer one of CPUs and memory, from 0 to 1."""
        return min(self.cpus_free / max(self.cpus, 1), self.memory_free_mib / max(self.memory_mib, 1))


Order = Callable[[Standing, Shares, float], float]
MaySuspend = Callable[[Standing, Standing], bool]
HostRank = Callable[[HostView], float]


# ---------------------------------------------------------------- order


def first_come(standing: Standing, shares: Shares, now: float) -> float:
    """By the time of submission."""
    return standing.submit


def smallest_first(standing: Standing, shares: Shares, now: float) -> float:
    """The least work (nodes times time left) first: shortest waits on average, and the large wait for it."""
    return standing.nodes * standing.left_s


def fair_share(standing: Standing, shares: Shares, now: float) -> float:
    """Whoever used the least of his share first; what was used fades."""
    return -shares.factor(standing.owner)


def by_priority(standing: Standing, shares: Shares, now: float) -> float:
    """The highest priority of VO and user first; of these the first come."""
    return -standing.priority


def urgent_first(standing: Standing, shares: Shares, now: float) -> float:
    """The urgent first; among them, and among the others, fair share."""
    return fair_share(standing, shares, now) - (1.0 if standing.urgent else 0.0)


# ---------------------------------------------------------------- preemption


def nobody(hard: Standing, victim: Standing) -> bool:
    """Nothing is suspended; what does not fit is refused, or waits."""
    return False


def hard_suspends_soft(hard: Standing, victim: Standing) -> bool:
    """A lease with a given start suspends those that have none; an urgent one any that is not urgent itself."""
    return hard.start is not None and (victim.soft or (hard.urgent and not victim.urgent))


def only_urgent(hard: Standing, victim: Standing) -> bool:
    """Only an urgent lease suspends others, and none that is urgent itself."""
    return hard.urgent and not victim.urgent


def higher_priority(hard: Standing, victim: Standing) -> bool:
    """Only leases of a lower priority are suspended."""
    return hard.priority > victim.priority


def within_vo(hard: Standing, victim: Standing) -> bool:
    """A VO's leases suspend leases of the same VO: VOs do not disturb each other."""
    return bool(hard.vo) and hard.vo == victim.vo


# ---------------------------------------------------------------- hosts


def spread(host: HostView) -> float:
    """Where most is free: a node that fails hurts least."""
    return -host.part_free


def pack(host: HostView) -> float:
    """Where least is free: nodes that stay empty are room for large workspaces."""
    return host.part_free


def image_first(host: HostView) -> float:
    """Where the image is already, else spread: the least to transfer before a start."""
    return (0.0 if host.has_image else 2.0) - host.part_free


def best_fit(host: HostView) -> float:
    """Where the room is taken soonest afterwards: long rooms stay whole for long leases."""
    return host.free_until
