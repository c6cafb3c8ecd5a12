"""Haizea 1.0's scheduler, read literally: an oracle for the planner's `haizea` rules.

Slow, small and exact: it gives the start and the end of every lease of the reference schedules. The site has equal
nodes that take one virtual machine each, as in those schedules. Where Haizea does something odd, a comment says so: the
oddity decides some lease of some schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

DAY_S = 86_400
TRANSFER_MIB_PER_S = 12.5
NODE_MIB = 1024
RATE_MIB_PER_S = 50

Interval = tuple[int, int]


class State(Enum):
    QUEUED = auto()
    SCHEDULED = auto()
    ACTIVE = auto()
    SUSPENDING = auto()
    SUSPENDED = auto()
    RESUME_SCHEDULED = auto()
    RESUMING = auto()
    REJECTED = auto()
    DONE = auto()


@dataclass
class Lease:
    """submit, requested, runs (seconds) and nodes as asked; at: a reservation's start, None for best effort.

    resume, run, suspend: the intervals of its present block. saved_on: the nodes where it was suspended.
    moves: its transfers, each with the nodes that it concerns. worked: seconds of work before this block.
    """

    id: int
    submit: int
    nodes: int
    requested: int
    runs: int
    at: int | None = None
    state: State = State.QUEUED
    hosts: list[int] = field(default_factory=list)
    resume: Interval | None = None
    run: Interval | None = None
    suspend: Interval | None = None
    moves: list[tuple[int, int, set[int]]] = field(default_factory=list)
    saved_on: list[int] = field(default_factory=list)
    saved_at: int = 0
    worked: int = 0
    start: int | None = None
    end: int | None = None

    @property
    def is_reservation(self) -> bool:
        return self.at is not None

    @property
    def block(self) -> list[Interval]:
        return [interval for interval in (self.resume, self.run, self.suspend) if interval]

    @property
    def remaining(self) -> int:
        return self.requested - self.worked

    def forget_block(self) -> None:
        self.resume = self.run = self.suspend = None


@dataclass(frozen=True)
class Policy:
    """bookings: how many leases may be promised a later start (0: no backfilling, 1: EASY).

    suspension: of no lease, of those with one node (serial), or of all.
    """

    bookings: int = 1
    suspension: str = "none"
    migration: bool = False


@dataclass(frozen=True)
class Held:
    """A node held by a lease over [start, end); a transfer occupies nothing, but counts as a lease on the node."""

    start: int
    end: int
    lease: int
    kind: str


class Oracle:
    def __init__(self, leases: Iterable[Lease], nodes: int, policy: Policy) -> None:
        self.leases = list(leases)
        self._policy = policy
        self._held: list[list[Held]] = [[] for _ in range(nodes)]
        self._table: dict[int, Lease] = {}  # leases with a block
        self._booked: dict[int, Lease] = {}  # those of them whose later start was promised
        self._queue: list[Lease] = []
        self._moments: set[int] = set()
        self._again = False
        self._per_node_s = math.ceil(NODE_MIB / RATE_MIB_PER_S)
        self._transfer_s = math.ceil(NODE_MIB / TRANSFER_MIB_PER_S)

    # ------------------------------------------------------------ the clock

    def simulate(self) -> list[Lease]:
        """The leases, each with its start and end."""
        arrivals, now = sorted(self.leases, key=lambda lease: lease.submit), 0
        while True:
            self._end_early(now)
            self._end_on_time(now)
            self._begin(now)
            while arrivals and arrivals[0].submit <= now:
                self._arrive(arrivals.pop(0), now)
            self._pass_queue(now)
            self._begin(now)
            self._end_on_time(now)
            upcoming = [*self._next_moments(now), *(lease.submit for lease in arrivals[:1])]
            if not upcoming:
                return self.leases
            now = min(upcoming)

    def _next_moments(self, now: int) -> Iterable[int]:
        for lease in self._table.values():
            yield from (moment for interval in lease.block for moment in interval if moment > now)
            early = self._early_end(lease)
            if early is not None and early > now:
                yield early
        self._moments = {moment for moment in self._moments if moment > now}
        yield from self._moments

    def _arrive(self, lease: Lease, now: int) -> None:
        if lease.is_reservation:
            self._reserve(lease, now)
        else:
            self._enqueue(lease)

    def _enqueue(self, lease: Lease) -> None:
        self._queue.append(lease)
        self._queue.sort(key=lambda each: each.submit)

    def _begin(self, now: int) -> None:
        for lease in self._table.values():
            if lease.state is State.RESUME_SCHEDULED and lease.resume and lease.resume[0] == now:
                lease.state = State.RESUMING
            elif lease.state in (State.SCHEDULED, State.RESUMING) and lease.run and lease.run[0] == now:
                if lease.state is State.SCHEDULED:
                    lease.start = now
                lease.state = State.ACTIVE
                # Not before: while it resumes, a booking goes on counting.
                self._booked.pop(lease.id, None)

    def _end_on_time(self, now: int) -> None:
        for lease in list(self._table.values()):
            if lease.state is State.ACTIVE and lease.run and lease.run[1] == now:
                lease.worked += lease.run[1] - lease.run[0]
                if lease.suspend:
                    lease.state = State.SUSPENDING
                else:
                    self._finish(lease, now)
            elif lease.state is State.SUSPENDING and lease.suspend and lease.suspend[1] == now:
                self._release(lease, now)
                lease.forget_block()
                lease.state, lease.saved_at, lease.saved_on = State.SUSPENDED, now, lease.hosts
                self._enqueue(lease)

    def _finish(self, lease: Lease, now: int) -> None:
        self._release(lease, None)
        lease.state, lease.end = State.DONE, now

    def _early_end(self, lease: Lease) -> int | None:
        if lease.state is not State.ACTIVE or lease.run is None:
            return None
        left = lease.runs - lease.worked
        return lease.run[0] + left if left < lease.run[1] - lease.run[0] else None

    def _end_early(self, now: int) -> None:
        """One by one, by their scheduled ends; after each all bookings are placed anew, by id, one at a time."""
        ending = [lease for lease in self._table.values() if self._early_end(lease) == now]
        for lease in sorted(ending, key=lambda each: each.run[1] if each.run else 0):
            self._finish(lease, now)
            for booked in [self._booked[id] for id in sorted(self._booked)]:
                if booked.state is not State.RESUMING:
                    self._book_anew(booked, now)

    def _book_anew(self, lease: Lease, now: int) -> None:
        self._call_off(lease, now)
        # A suspended lease is then in a state for which Haizea's threshold leaves out what its resumption costs.
        self._again = True
        placed = self._schedule(lease, now)
        self._again = False
        assert placed, lease

    def _call_off(self, lease: Lease, now: int) -> None:
        self._booked.pop(lease.id, None)
        self._release(lease, now)
        resuming = lease.state in (State.RESUME_SCHEDULED, State.RESUMING)
        lease.state = State.SUSPENDED if resuming else State.QUEUED
        lease.forget_block()

    # ------------------------------------------------------------ best effort

    def _pass_queue(self, now: int) -> None:
        queue, self._queue = self._queue, []
        for index, lease in enumerate(queue):
            if len(self._booked) >= self._policy.bookings and not self._any_cpu_free(now):
                self._queue += queue[index:]
                return
            if not self._schedule(lease, now):
                self._queue.append(lease)
                if self._policy.bookings == 0:
                    self._queue += queue[index + 1 :]
                    return

    def _any_cpu_free(self, now: int) -> bool:
        """Suspending and resuming take memory and no CPU."""
        return any(not any(h.kind == "run" and h.start <= now < h.end for h in held) for held in self._held)

    def _schedule(self, lease: Lease, now: int) -> bool:
        """Place it now, else book it for later if another booking is allowed."""
        suspended = lease.state is State.SUSPENDED
        duration = lease.remaining + (self._cost(lease) if suspended else 0)
        soonest = now + self._transfer_s if suspended and self._policy.migration else now
        only = lease.saved_on if suspended and not self._policy.migration else None
        found = self._fit(lease, [soonest], duration, only)
        if found is None and len(self._booked) < self._policy.bookings:
            found = self._fit(lease, self._later(soonest), duration, only)
            assert found is not None, lease
            self._booked[lease.id] = lease
        if found is not None:
            self._place(lease, *found, now)
        return found is not None

    def _later(self, after: int) -> list[int]:
        """When blocks end, in the order in which their runs end."""
        blocks = sorted(self._table.values(), key=lambda each: each.run[1] if each.run else 0)
        return list(dict.fromkeys(each.block[-1][1] for each in blocks if each.run and each.run[1] > after))

    def _fit(
        self, lease: Lease, starts: Sequence[int], duration: int, only: list[int] | None
    ) -> tuple[int, list[int], int] | None:
        for start in starts:
            found = self._map(lease, start, start + duration, self._is_strict(lease), only=only)
            if found and (found[1] == start + duration or found[1] - start >= self._threshold(lease)):
                return start, *found
        return None

    def _place(self, lease: Lease, start: int, hosts: list[int], end: int, now: int) -> None:
        suspended, lease.moves = lease.state is State.SUSPENDED, []
        if suspended and self._policy.migration:
            self._plan_moves(lease, hosts, max(lease.saved_at, now))
        lease.hosts = hosts
        lease.resume = (start, start + self._per_node_s) if suspended else None
        run = lease.resume[1] if lease.resume else start
        if run + lease.remaining <= end:
            lease.run, lease.suspend = (run, run + lease.remaining), None
        else:
            lease.run, lease.suspend = (run, end - self._per_node_s), (end - self._per_node_s, end)
        lease.state = State.RESUME_SCHEDULED if suspended else State.SCHEDULED
        self._hold(lease)

    def _plan_moves(self, lease: Lease, hosts: list[int], begin: int) -> None:
        """Rounds of transfers in which each node takes part once. They may well end after the resumption began."""
        waiting = [{old, new} for old, new in zip(lease.saved_on, hosts, strict=True) if old != new]
        while waiting:
            concerned: set[int] = set()
            rest = []
            for pair in waiting:
                if pair & concerned:
                    rest.append(pair)
                else:
                    concerned |= pair
            lease.moves.append((begin, begin + self._transfer_s, concerned))
            self._moments |= {begin, begin + self._transfer_s}
            begin, waiting = begin + self._transfer_s, rest

    # ------------------------------------------------------------ cutting

    def _is_strict(self, lease: Lease) -> bool:
        """Whether only its whole length will do."""
        suspension = self._policy.suspension
        return lease.is_reservation or suspension == "none" or (suspension == "serial" and lease.nodes > 1)

    @staticmethod
    def _cost(lease: Lease) -> int:
        """Haizea's estimate of a suspension or resumption: it grows with the square of the nodes."""
        return lease.nodes * math.ceil(lease.nodes * NODE_MIB / RATE_MIB_PER_S)

    def _threshold(self, lease: Lease) -> int:
        both = lease.state is State.SUSPENDED and not self._again
        return 2 * self._cost(lease) * (2 if both else 1)

    # ------------------------------------------------------------ reservations

    def _reserve(self, lease: Lease, now: int) -> None:
        assert lease.at is not None
        start, end = lease.at, lease.at + lease.requested
        victims, candidates = set[int](), self._candidates(start, end)
        while (found := self._map(lease, start, end, True, without=victims)) is None:
            if not candidates:
                lease.state = State.REJECTED
                return
            victims.add(candidates.pop().id)
        for id in sorted(victims):
            self._preempt(self._table[id], start, now)
        lease.hosts, lease.run, lease.state = found[0], (start, end), State.SCHEDULED
        self._hold(lease)

    def _candidates(self, start: int, end: int) -> list[Lease]:
        """Whom a reservation may preempt, the oldest last, which is who is taken first; none older than a week."""
        found = [
            each
            for each in self._table.values()
            if not each.is_reservation
            and each.submit > start - 7 * DAY_S
            and any(begin < end and finish > start for begin, finish in each.block)
        ]
        return sorted(found, key=lambda each: (-each.submit, each.id))

    def _preempt(self, lease: Lease, at: int, now: int) -> None:
        assert lease.run is not None
        run = lease.run[0]
        waits = lease.state in (State.SCHEDULED, State.RESUME_SCHEDULED) and run >= at
        if waits or self._is_strict(lease) or at - run < self._threshold(lease):
            # At once, a day ahead, even if it runs; its work since its last start is lost.
            self._call_off(lease, now)
            self._enqueue(lease)
            return
        self._release(lease, None)
        lease.run, lease.suspend = (run, at - self._per_node_s), (at - self._per_node_s, at)
        self._hold(lease)

    # ------------------------------------------------------------ nodes

    def _hold(self, lease: Lease) -> None:
        kinds = (("resume", lease.resume), ("run", lease.run), ("suspend", lease.suspend))
        for host in lease.hosts:
            self._held[host] += [Held(*interval, lease.id, kind) for kind, interval in kinds if interval]
        for begin, end, concerned in lease.moves:
            for host in concerned:
                self._held[host].append(Held(begin, end, lease.id, "move"))
        self._table[lease.id] = lease

    def _release(self, lease: Lease, now: int | None) -> None:
        """Give its nodes back. now: transfers that have begun by then go on."""
        for host in set(lease.hosts).union(*(concerned for _, _, concerned in lease.moves)):
            self._held[host] = [
                held
                for held in self._held[host]
                if held.lease != lease.id or (now is not None and held.kind == "move" and held.start < now < held.end)
            ]
        self._table.pop(lease.id, None)

    def _map(
        self,
        lease: Lease,
        start: int,
        end: int,
        strict: bool,
        *,
        without: set[int] | frozenset[int] = frozenset(),
        only: list[int] | None = None,
    ) -> tuple[list[int], int] | None:
        """(hosts, until when all of them are free), by score; hosts that are free only briefly are taken too."""
        found = []
        for host in range(len(self._held)) if only is None else only:
            until = self._free_until(host, start, end, without)
            if until is not None and not (strict and until < end):
                found.append((-self._score(host, start, lease.requested), host, until))
        if len(found) < lease.nodes:
            return None
        chosen = sorted(found)[: lease.nodes]
        return [host for _, host, _ in chosen], min(until for *_, until in chosen)

    def _free_until(self, host: int, start: int, end: int, without: set[int] | frozenset[int]) -> int | None:
        for held in self._held[host]:
            if held.kind == "move" or held.lease in without:
                continue
            if held.start <= start < held.end:
                return None
            if start < held.start < end:
                end = held.start
        return end

    def _score(self, host: int, at: int, requested: int) -> float:
        """Few leases there at that time, and no change for long after it."""
        there = {held.lease for held in self._held[host] if held.start <= at < held.end}
        changes = [held.end if held.start <= at else held.start for held in self._held[host] if held.end > at]
        steady_s = min(changes, default=at + requested) - at
        steady = 1.0 if steady_s >= requested else steady_s / requested
        return 0.5 * ((4 - min(4, len(there))) / 4) + 0.25 + 0.25 * steady
