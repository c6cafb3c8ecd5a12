"""Haizea 1.0's rules on this planner: the same nodes, profiles, blocks and steps, its choices.

To compare schedules, lease by lease; no site should want them. What Haizea does otherwise:

- Every later start is tried in the order in which runs end, and placed by a score of the node (few leases there, no
  change for long); nodes that are free only briefly are taken too, and the block is cut to the shortest.
- A block is worth having if it lasts as long as Haizea's estimate of its suspension, twice; the estimate grows with the
  square of the nodes.
- A reservation preempts the oldest first, until it fits, and all of those; who would not have run long enough is
  cancelled at once, however far ahead the reservation is, and its work is lost.
- After each early end the bookings are placed anew, by number, and a suspended one's estimate then leaves out what its
  resumption costs. A booking counts until it runs.
- Whoever resumes waits for one transfer, whether it moves or not. Several rounds of transfers may end after the
  resumption began. Transfers occupy nothing, but count as leases on both of their nodes.

Source: Haizea 1.0 (2009), the papers of HPDC 2008 and HPCC 2009.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, final

from vws.core.plan.demand import BOOKED, PREPARING, RUNNING, SAVED, SAVING, WAITING, Block, Demand
from vws.core.plan.planner import GIVE_UP, Planner, remove
from vws.core.plan.profile import Amount
from vws.core.plan.rules import NOBODYS, SINGLES, Rules, seconds

TOO_OLD_TO_PREEMPT_S: Final = 7 * 86_400
LEASES_COUNTED: Final = 4


@final
class Mark:
    """That a demand is on a node over [start, end), by a step of its block or by a transfer."""

    def __init__(self, start: int, end: int, number: int, transfer: bool) -> None:
        self.start = start
        self.end = end
        self.number = number
        self.transfer = transfer


@final
class Mapping:
    def __init__(self, start: int, hosts: list[int], end: int) -> None:
        self.start = start
        self.hosts = hosts
        self.end = end


@final
class HaizeaPlanner(Planner):
    def __init__(self, capacities: list[Amount], rules: Rules) -> None:
        super().__init__(capacities, rules)
        self._marks: list[list[Mark]] = [[] for _ in capacities]
        self._table: dict[int, Demand] = {}  # who has a block, in the order of being laid
        self._transfers: dict[int, list[tuple[int, int, list[int]]]] = {}
        self._moments: list[int] = []
        self._again = False
        self._calling_off = False

    def next_moment(self) -> int:
        moment = super().next_moment()
        if self._moments and (moment < 0 or self._moments[0] < moment):
            return self._moments[0]
        return moment

    def ended(self, demand: Demand, now: int) -> None:
        super().ended(demand, now)
        for booked in sorted(self.booked, key=_number):
            if booked.phase != PREPARING:
                self._call_off(booked, now)
                self._again = True
                self._schedule(booked, now)
                self._again = False

    # ------------------------------------------------------------ the queue

    def fill(self, now: int) -> None:
        while self._moments and self._moments[0] <= now:
            heappop(self._moments)
        waiting, self.queue = self.queue, []
        for i in range(len(waiting)):
            if len(self.booked) >= self.rules.bookings and not self._any_cpu_free(now):
                self.queue.extend(waiting[i:])
                return
            if not self._schedule(waiting[i], now):
                self.queue.append(waiting[i])
                if self.rules.bookings == 0:
                    self.queue.extend(waiting[i + 1 :])
                    return

    def _any_cpu_free(self, now: int) -> bool:
        """Who saves or restores memory takes no CPU."""
        return any(profile.free_at(now).cpus > 0 for profile in self.timeline.profiles)

    def _enqueue(self, demand: Demand) -> None:
        """By submit time; who comes back is put after those of the same second."""
        demand.phase = SAVED if demand.saved_on else WAITING
        i = len(self.queue)
        while i > 0 and self.queue[i - 1].turn > demand.turn:
            i -= 1
        self.queue.insert(i, demand)

    def _leave(self, demand: Demand) -> bool:
        waited = demand in self.queue
        if waited:
            self.queue.remove(demand)
        return waited

    # ------------------------------------------------------------ blocks

    def _schedule(self, demand: Demand, now: int) -> bool:
        """Place it now, else later if another booking is allowed."""
        saved = bool(demand.saved_on)
        duration = demand.remaining + (self._estimate(demand) if saved else 0)
        soonest = now + self.rules.transfer_s(demand) if saved and self.rules.migrate else now
        only = demand.saved_on if saved and not self.rules.migrate else None
        found = self._map(demand, soonest, duration, only)
        if found is None and len(self.booked) < self.rules.bookings:
            for moment in self._later(soonest):
                found = self._map(demand, moment, duration, only)
                if found is not None:
                    self.booked.append(demand)
                    break
        if found is None:
            return False
        self._place(demand, found, now)
        return True

    def _later(self, after: int) -> list[int]:
        """When blocks end, in the order in which their runs end."""
        blocks: list[Block] = []
        for demand in self._table.values():
            block = demand.block
            if block is not None and block.stop > after:
                blocks.append(block)
        blocks.sort(key=_stop)
        moments: dict[int, bool] = {}
        for block in blocks:
            moments[block.end] = True
        return list(moments)

    def _place(self, demand: Demand, found: Mapping, now: int) -> None:
        saved, hosts = bool(demand.saved_on), found.hosts
        run = found.start + (self.rules.restore_s(demand, hosts) if saved else 0)
        stop = run + demand.remaining
        block = Block(hosts, found.start, found.start, run, stop, stop)
        block.restores = saved
        if stop > found.end:
            block.saves = True
            block.stop, block.end = found.end - self.rules.save_s(demand, hosts), found.end
        self._transfers[demand.number] = []
        if saved and self.rules.migrate:
            self._plan_transfers(demand, block, max(demand.saved_at, now))
        self._lay(demand, block, now)

    def _plan_transfers(self, demand: Demand, block: Block, begin: int) -> None:
        """Rounds of transfers in which each node takes part once."""
        duration = self.rules.transfer_s(demand)
        waiting: list[tuple[int, int]] = []
        for i in range(len(block.hosts)):
            if demand.saved_on[i] != block.hosts[i]:
                waiting.append((demand.saved_on[i], block.hosts[i]))
        block.moves = len(waiting)
        while waiting:
            concerned: list[int] = []
            rest: list[tuple[int, int]] = []
            for old, new in waiting:
                if old in concerned or new in concerned:
                    rest.append((old, new))
                else:
                    concerned.append(old)
                    concerned.append(new)
            self._transfers[demand.number].append((begin, begin + duration, concerned))
            begin += duration
            heappush(self._moments, begin)  # where the next round begins, too; the first begins at once
            waiting = rest

    def _lay(self, demand: Demand, block: Block, now: int) -> None:
        super()._lay(demand, block, now)
        self._mark(demand, block)

    def _mark(self, demand: Demand, block: Block) -> None:
        for start, end in ((block.begin, block.run), (block.run, block.stop), (block.stop, block.end)):
            if start < end:
                for host in block.hosts:
                    self._marks[host].append(Mark(start, end, demand.number, False))
        for start, end, concerned in self._transfers.get(demand.number, []):
            for host in concerned:
                self._marks[host].append(Mark(start, end, demand.number, True))
        self._table.pop(demand.number, None)
        self._table[demand.number] = demand

    def _unmark(self, demand: Demand, block: Block, keep_begun_at: int) -> None:
        """keep_begun_at: transfers that have begun by then go on; -1: none does."""
        for host in block.hosts:
            self._unmark_node(host, demand.number, keep_begun_at)
        for _, _, concerned in self._transfers.get(demand.number, []):
            for host in concerned:
                self._unmark_node(host, demand.number, keep_begun_at)
        self._table.pop(demand.number, None)

    def _unmark_node(self, host: int, number: int, at: int) -> None:
        self._marks[host] = [
            mark
            for mark in self._marks[host]
            if mark.number != number or (mark.transfer and at >= 0 and mark.start < at < mark.end)
        ]

    def _go_on(self, demand: Demand, block: Block, now: int) -> bool:
        """Who is to be suspended is, even if nobody comes."""
        return False

    def _begin(self, demand: Demand, block: Block) -> None:
        booked = demand in self.booked
        super()._begin(demand, block)
        if booked:
            self.booked.append(demand)

    def _run(self, demand: Demand, block: Block) -> None:
        remove(self.booked, demand)
        super()._run(demand, block)

    def _release(self, demand: Demand, now: int) -> None:
        block = demand.block
        assert block is not None
        goes_on = self._calling_off or demand.phase == SAVING
        super()._release(demand, now)
        remove(self.booked, demand)
        self._unmark(demand, block, now if goes_on else -1)

    # ------------------------------------------------------------ nodes

    def _map(self, demand: Demand, start: int, duration: int, only: list[int] | None) -> Mapping | None:
        strict = self._is_strict(demand)
        found = self._hosts(demand, start, start + duration, strict, only)
        threshold = self._threshold(demand, bool(demand.saved_on) and not self._again)
        if found is None or found.end == start + duration or found.end - start >= threshold:
            return found
        return None

    def _hosts(self, demand: Demand, start: int, end: int, strict: bool, only: list[int] | None) -> Mapping | None:
        """Nodes by score, as many members on each as fit; the end is cut to what the shortest of them allows."""
        part = demand.parts[0]
        free: list[int] = []
        for host in range(len(self._marks)) if only is None else only:
            until = self.timeline.profiles[host].until(part.size, start, end)
            if until > start and not (strict and until < end):
                free.append(host)
        if part.apart and len(free) < part.count:
            return None
        scored: list[tuple[float, int]] = []
        for host in free:
            scored.append((-self._score(host, start, demand.requested), host))
        scored.sort()
        hosts: list[int] = []
        cut = end
        for _, host in scored:
            there = 0
            while len(hosts) < part.count and there < part.most_per_node:
                amount = part.size if there == 0 else part.size.times(there + 1)
                until = self.timeline.profiles[host].until(amount, start, cut)
                if until <= start or (strict and until < end):
                    break
                cut = min(cut, until)
                there += 1
                hosts.append(host)
            if len(hosts) == part.count:
                return Mapping(start, hosts, cut)
        return None

    def _score(self, host: int, at: int, requested: int) -> float:
        there: list[int] = []
        change = at + requested
        for mark in self._marks[host]:
            if mark.start <= at < mark.end:
                if mark.number not in there:
                    there.append(mark.number)
                change = min(change, mark.end)
            elif mark.start > at:
                change = min(change, mark.start)
        steady = 1.0 if change - at >= requested else (change - at) / requested
        return 0.5 * ((LEASES_COUNTED - min(LEASES_COUNTED, len(there))) / LEASES_COUNTED) + 0.25 + 0.25 * steady

    # ------------------------------------------------------------ cutting

    def _is_strict(self, demand: Demand) -> bool:
        suspend = self.rules.suspend
        return demand.hard or suspend == NOBODYS or (suspend == SINGLES and demand.members > 1)

    def _estimate(self, demand: Demand) -> int:
        """Haizea's estimate of a suspension or resumption."""
        return demand.members * seconds(int(demand.total.memory_mib) / self.rules.suspend_mib_per_s)

    def _threshold(self, demand: Demand, both: bool) -> int:
        """both: it is suspended, so that its resumption counts too (whoever has been given a block is not)."""
        return 2 * self._estimate(demand) * (2 if both else 1)

    # ------------------------------------------------------------ reservations

    def _reserve(self, demand: Demand, now: int) -> bool:
        start, end = demand.at, demand.at + demand.requested
        candidates = self._candidates(start, end)
        lifted: list[Demand] = []
        found = self._hosts(demand, start, end, True, None)
        while found is None and candidates:
            victim = candidates.pop()
            assert victim.block is not None
            self.timeline.lift(victim.parts, victim.block, now)
            lifted.append(victim)
            found = self._hosts(demand, start, end, True, None)
        for victim in lifted:
            assert victim.block is not None
            self.timeline.lay(victim.parts, victim.block, now)
        if found is None:
            return False
        lifted.sort(key=_number)
        for victim in lifted:
            self._preempt(victim, start, now)
        block = Block(found.hosts, start, start, start, end, end)
        self._transfers[demand.number] = []
        self._lay(demand, block, now)
        return True

    def _candidates(self, start: int, end: int) -> list[Demand]:
        """Whom a reservation may preempt, the oldest last, which is who is taken first; none older than a week."""
        found: list[Demand] = []
        for each in self._table.values():
            block = each.block
            if block is None or each.hard or each.submit <= start - TOO_OLD_TO_PREEMPT_S:
                continue
            if block.begin < end and block.end > start:
                found.append(each)
        found.sort(key=_youngest_first)
        return found

    def _preempt(self, demand: Demand, at: int, now: int) -> None:
        block = demand.block
        assert block is not None
        waits = demand.phase == BOOKED and block.run >= at
        if waits or self._is_strict(demand) or at - block.run < self._threshold(demand, False):
            if demand.phase >= RUNNING:
                self._act(GIVE_UP, demand, block)
            self._call_off(demand, now)
            self._enqueue(demand)
            return
        self.timeline.lift(demand.parts, block, now)
        self._unmark(demand, block, -1)
        block.saves = True
        block.stop, block.end = at - self.rules.save_s(demand, block.hosts), at
        self._laid += 1
        block.order = self._laid
        self.timeline.lay(demand.parts, block, now)
        self._mark(demand, block)
        if demand.phase == RUNNING:
            self._wake(demand, block.stop)

    def _call_off(self, demand: Demand, now: int) -> None:
        """Take its block away. Who runs starts anew one day: what was saved before is lost with it."""
        if demand.phase >= RUNNING:
            demand.saved_on = []
        self._calling_off = True
        self._release(demand, now)
        self._calling_off = False
        demand.phase = SAVED if demand.saved_on else WAITING


def _number(demand: Demand) -> int:
    return demand.number


def _stop(block: Block) -> int:
    return block.stop


def _youngest_first(demand: Demand) -> tuple[int, int]:
    return -demand.submit, demand.number
