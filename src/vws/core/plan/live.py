"""The planner of a real site: it plans ends, but nothing has ended until somebody has seen it.

What differs from a planner whose plans simply come true:

- A block past its end goes on holding its nodes, a few seconds at a time, until its owner says that nothing is left
  (`ended`, `kept`, `given_up`); and a block begins only where the nodes are as free as was planned.
- A soft demand's time counts from when it is up (`up`), and its block is moved to that.
- Nodes come, change, close and have windows in which they run nothing; what was planned there is planned anew. What is
  there already stays.
- Demands are made longer or larger, lose members, and are taken over from a record at a restart (`adopt`).

Saved members keep their disk, what was saved, and their place for good: from then on that is held apart from their
blocks. So they resume where they were saved.
"""

from __future__ import annotations

from typing import Final, final

from vws.core.plan.demand import BOOKED, OVER, PREPARING, RUNNING, SAVED, SAVING, STOPPING, WAITING, Block, Demand, Part
from vws.core.plan.planner import GIVE_UP, SAVE, STOP, Planner, in_turn, insert_in_turn
from vws.core.plan.profile import FOREVER, NOTHING, Amount
from vws.core.plan.rules import Rules

# For so long at a time an overdue block goes on, seconds.
OVERDUE_S: Final = 10


@final
class SitePlanner(Planner):
    """touched: the demands whose block or phase has changed since the owner last emptied it."""

    def __init__(self, rules: Rules) -> None:
        super().__init__([], rules)
        self.touched: dict[str, Demand] = {}
        self.urgent: dict[str, Demand] = {}  # those that would rather begin before their time
        # Those whose members may have to be saved or restored by an order yet to be given; their owner empties it.
        self.pressing: dict[str, Demand] = {}
        self.moves = 0  # how often anything has been touched

    def _touch(self, demand: Demand) -> None:
        self.touched[demand.id] = demand
        self.moves += 1

    def arrive(self, demand: Demand, now: int) -> bool:
        taken = super().arrive(demand, now)
        if taken:
            self._touch(demand)
        return taken

    # ------------------------------------------------------------ what is planned, and what is seen

    def _ready(self, now: int) -> list[Demand]:
        """Who is there and overdue goes on holding its nodes before anybody else begins there."""
        ready = super()._ready(now)
        return [each for each in ready if each.phase != BOOKED] + [each for each in ready if each.phase == BOOKED]

    def _may_begin(self, block: Block, now: int) -> bool:
        timeline = self.timeline
        return all(
            host < 0 or (timeline.awake[host] and NOTHING.fits_in(timeline.profiles[host].free_at(now)))
            for host in block.hosts
        )

    def _go_to_run(self, demand: Demand, now: int) -> None:
        block = demand.block
        assert block is not None
        hoped = demand.phase == BOOKED and not demand.hard and demand not in self.promised
        if hoped and block.begin <= now and self._is_held_back(demand, now):
            # Others have what its owner may have at a time: it waits for them, not on these nodes. What was promised
            # was admitted for its time, and may be a little late.
            self._release(demand, now)
            self._enqueue(demand)
            return
        if demand.phase == BOOKED and not demand.hard and block.begin < now:
            self._begin_late(demand, block, now)
            return
        if demand.phase == BOOKED and block.begin == now and not self._may_begin(block, now):
            self._wait(demand, now)
            return
        if demand.phase == PREPARING and not demand.hard and block.run <= now:
            # It runs when it is up, not when it was to be.
            if not block.doomed:
                self._hold_on(demand, block, now)
                return
            if block.stop > now:
                self._wake(demand, block.stop)
                return
        super()._go_to_run(demand, now)

    def _begin_late(self, demand: Demand, block: Block, now: int) -> None:
        """A booking whose nodes were not free in time, or whose time nobody watched: all of it is still to come."""
        self._lift(demand, now)
        found = self.placing.best(demand, now)
        self._put_back(demand, now)
        if found is not None and self._may_begin(found, now):
            promised = demand in self.promised
            self._release(demand, now)
            self._lay(demand, found, now)
            if promised:
                insert_in_turn(self.promised, demand)
        elif now - block.begin > OVERDUE_S:
            self._release(demand, now)
            self._enqueue(demand)
        else:
            self._wait(demand, now)

    def _wait(self, demand: Demand, now: int) -> None:
        """What is to begin cannot yet."""
        if not demand.hard and demand not in self.booked and demand not in self.promised:
            self._book_as(demand)
        self._wake(demand, now + 1)

    def _stop(self, demand: Demand, block: Block, now: int) -> None:
        if block.doomed:
            if demand.phase == PREPARING and block.restores:
                self._restoring -= 1
                self._used = self._used.plus(demand.total).minus(demand.saved_total)
            demand.phase = STOPPING
            self._act(GIVE_UP, demand, block)
            return
        if block.saves and block.stop < now:
            self._note_overtime(demand, block, now)
        super()._stop(demand, block, now)

    def _note_overtime(self, demand: Demand, block: Block, now: int) -> None:
        """Nobody watched when it was to be saved: it has run until now, and may be done."""
        self._lift(demand, now)
        block.stop = min(now, block.run + demand.remaining)
        if block.stop == block.run + demand.remaining:
            block.saves = False
        block.end = max(block.end, block.stop)
        self._put_back(demand, now)

    def _keep(self, demand: Demand, block: Block, now: int) -> None:
        self._hold_on(demand, block, now)

    def _finish(self, demand: Demand, block: Block, now: int) -> None:
        self._hold_on(demand, block, now)

    def _hold_on(self, demand: Demand, block: Block, now: int) -> None:
        """Its nodes are not free before somebody has seen that they are."""
        if _held_until(demand, block) <= now + OVERDUE_S:
            self._lift(demand, now)
            _prolong(demand, block, now)
            self._put_back(demand, now)
        self._wake(demand, now + OVERDUE_S)

    def _act(self, kind: int, demand: Demand, block: Block) -> None:
        super()._act(kind, demand, block)
        self._touch(demand)
        self.press(demand)

    def press(self, demand: Demand) -> None:
        """It, or one of its members, has changed."""
        if (demand.kept or demand.phase == SAVING) and demand.id in self.demands:
            self.pressing[demand.id] = demand

    def _stand(self, now: int) -> bool:
        """Windows and overdue blocks take rooms ahead: every booking is placed anew."""
        return not self.promised and not self.booked

    def _lay(self, demand: Demand, block: Block, now: int) -> None:
        super()._lay(demand, block, now)
        self._touch(demand)
        if demand.hurries:
            self.urgent[demand.id] = demand

    def _release(self, demand: Demand, now: int) -> None:
        super()._release(demand, now)
        self._touch(demand)

    def _give_way(self, victim: Demand, begin: int, now: int) -> None:
        super()._give_way(victim, begin, now)
        self._touch(victim)

    def hurry(self, now: int) -> None:
        """Urgent ones that wait for others to be saved begin as soon as they are, not only when they should be."""
        for demand in list(self.urgent.values()):
            block = demand.block
            if block is None or demand.phase != BOOKED or not demand.hurries or block.begin <= now:
                self.urgent.pop(demand.id)
                continue
            planned_at = demand.at
            self._lift(demand, now)
            demand.at = now + demand.prepare_s
            found = self.placing.at(demand, now)
            if found is None or not self._may_begin(found, now):
                demand.at = planned_at
                self._put_back(demand, now)
            else:
                self._hard_ahead -= 1
                self._lay(demand, found, now)

    # ------------------------------------------------------------ facts

    def up(self, demand: Demand, now: int, at: int) -> None:
        """All its members run. A soft demand's time counts from `at`, the next whole second."""
        block = demand.block
        if block is None or demand.phase > RUNNING:
            return
        if not demand.hard:
            self._lift(demand, now)
            block.moved = min(block.moved, now)
            block.run = at
            self._set_end(demand, block, at)
            self._put_back(demand, now)
        self._touch(demand)
        if demand.phase == PREPARING:
            self._run(demand, block)
        elif demand.phase == RUNNING:
            self._wake(demand, block.stop)

    def _set_end(self, demand: Demand, block: Block, now: int) -> None:
        """The end that a lifted block has now that it runs: as asked, or cut where others come."""
        stop = now + demand.remaining
        end = stop + demand.shutdown_s
        if block.saves or block.doomed:
            if end > block.end:
                if block.saves:
                    block.stop = max(now, min(block.end - self.rules.save_s(demand, block.hosts), stop - 1))
                return
            block.saves = block.doomed = False
        elif end > block.end:
            open_until = self._open_until(demand, block.hosts, now, end)
            if open_until < end and not self.rules.can_be_saved(demand):
                self._unbook_on(block.hosts, now, end)
                open_until = self._open_until(demand, block.hosts, now, end)
            if open_until < end:
                self._cut(demand, block, max(open_until, block.end))
                return
        else:
            self._freed = True
        block.stop, block.end = stop, end

    def _unbook_on(self, hosts: list[int], start: int, end: int) -> None:
        """Who was to begin on those nodes meanwhile, whenever there is room, waits for another time."""
        for other in list(self.booked):
            block = other.block
            if block is not None and block.begin < end and start < block.end and not set(hosts).isdisjoint(block.hosts):
                self._release(other, start)
                self._enqueue(other)

    def _cut(self, demand: Demand, block: Block, end: int) -> None:
        """Nothing is open beyond `end`: saved if it can be, else it has a little less than it asked for."""
        block.end = end
        if self.rules.can_be_saved(demand):
            block.saves = True
            block.stop = max(block.run, min(end - self.rules.save_s(demand, block.hosts), block.run + demand.remaining))
        else:
            block.stop = max(block.run, end - demand.shutdown_s)

    def _open_until(self, demand: Demand, hosts: list[int], at: int, end: int) -> int:
        """Until when the nodes have room for their members, which hold nothing there meanwhile."""
        for host, amount in _amounts(demand, hosts).items():
            end = self.timeline.profiles[host].until(amount, at, end)
        return end

    def kept(self, demand: Demand, now: int) -> None:
        """All its members are saved."""
        block = demand.block
        assert block is not None, demand
        assert demand.phase == SAVING, demand
        hosts = block.hosts
        super()._keep(demand, block, now)
        self._keep_apart(demand, hosts, now)

    def _keep_apart(self, demand: Demand, hosts: list[int], now: int) -> None:
        """From its first suspension on, what is kept of it is held on its nodes, whatever else happens."""
        if demand.kept:
            return
        demand.kept = True
        member = 0
        for part in demand.parts:
            for _ in range(part.count):
                if hosts[member] >= 0:
                    self.timeline.profiles[hosts[member]].take(part.kept_size, now, FOREVER)
                member += 1
        self.timeline.changed()
        _resize(demand, [_without_kept(part) for part in demand.parts], hosts)

    def given_up(self, demand: Demand, now: int) -> None:
        """Nothing is left of a doomed one: it begins anew when there is room."""
        self._give_back_kept(demand, now)
        self._release(demand, now)
        parts = [_with_kept(part) for part in demand.parts] if demand.kept else demand.parts
        demand.kept = False
        _resize(demand, parts, [])
        demand.worked = 0
        demand.saved_on = []
        demand.restarts += 1
        demand.at = -1
        self._enqueue(demand)

    def withdraw(self, demand: Demand, now: int) -> None:
        """It is to begin no more; what is kept of it is there until it has ended."""
        if demand.block is not None:
            demand.saved_on = demand.block.hosts if demand.kept else []
            self._release(demand, now)
        elif self._leave(demand):
            self._has_freed_all()
        demand.phase = OVER
        self._touch(demand)

    def ended(self, demand: Demand, now: int) -> None:
        block = demand.block
        if block is not None and demand.phase == RUNNING:
            # Its nodes may have ended it before anybody here has looked at the clock.
            demand.worked += max(0, min(now, block.stop) - block.run)
        self.forget(demand, now)
        self._touch(demand)

    def left(self, demand: Demand, member: int, now: int) -> None:
        """One of its members is gone; the others go on."""
        block = demand.block
        hosts = block.hosts if block is not None else demand.saved_on
        if hosts[member] < 0:
            return
        size = demand.sizes()[member]
        saved_size = demand.saved_size_of(member)
        if demand.kept:
            self.timeline.profiles[hosts[member]].give(kept_size_of(demand, member), now, FOREVER)
            self.timeline.changed()
        if block is not None:
            self._lift(demand, now)
            hosts[member] = -1
            self._put_back(demand, now)
            if demand.phase != BOOKED:
                self._used = self._used.minus(saved_size if _counts_as_saved(demand, block) else size)
        if demand.saved_on:
            demand.saved_on[member] = -1  # wherever it goes on next, it is without this one
        _discount(demand, member)
        self._has_freed_all()

    # ------------------------------------------------------------ asking

    def could_last(self, demand: Demand, end: int, now: int) -> int:
        """Until when, `end` at most, a demand could stay where it is, others giving way as they would to `prolong`."""
        block = demand.block
        assert block is not None
        self._lift(demand, now)
        until = self._open_until(demand, block.hosts, max(block.end, now), end)
        beyond = end + 1
        while beyond - until > 1:
            # The end itself first: nearly always it is refused for good or granted.
            tried = end if beyond > end else (until + beyond) // 2
            if self._giving_way(demand, tried, now) is None:
                beyond = tried
            else:
                until = tried
        self._put_back(demand, now)
        return until

    def stays(self, demand: Demand) -> bool:
        """Whether it comes to its end in its present block: what is to be saved before goes on at another time."""
        return demand.block is not None and demand.phase != SAVING and not demand.block.saves

    def is_taken(self, demand: Demand, node: int, start: int, end: int) -> bool:
        """Whether a node has no room for its members there over [start, end), after their block."""
        block = demand.block
        assert block is not None
        hosts = [host if host == node else -1 for host in block.hosts]
        return self._open_until(demand, hosts, start, end) < end

    # ------------------------------------------------------------ changing what was asked

    def prolong(self, demand: Demand, duration_s: int, now: int) -> bool:
        """So much longer than asked before; False if others have the nodes by then."""
        block = demand.block
        if block is None or not self.stays(demand):
            demand.requested += duration_s
            demand.least = -1
            self._ask_anew(demand)
            self._touch(demand)
            return True
        end = block.end + duration_s
        self._lift(demand, now)
        victims = self._giving_way(demand, end, now)
        if victims is not None:
            self._oust(victims, block.end, now)
            demand.requested += duration_s
            block.stop += duration_s
            block.end = end
            self._touch(demand)
        self._put_back(demand, now)
        if demand.phase == RUNNING:
            self._wake(demand, block.stop)
        return victims is not None

    def _giving_way(self, demand: Demand, end: int, now: int) -> list[Demand] | None:
        """Who gives way so that a lifted demand can stay where it is until `end`; None if that is not enough."""
        block = demand.block
        assert block is not None
        if self._stays_until(demand, end, now):
            return []
        givers = self._givers(block.end, end, now, set(block.hosts))
        found, victims = self._over(
            demand, givers, None, lambda: block if self._stays_until(demand, end, now) else None, now
        )
        return None if found is None else victims

    def _stays_until(self, demand: Demand, end: int, now: int) -> bool:
        block = demand.block
        assert block is not None
        return self._open_until(demand, block.hosts, max(block.end, now), end) >= end

    def resize(self, demand: Demand, parts: list[Part], now: int) -> bool:
        """Other sizes of its members, where they are; False if that has no room. What is not placed just changes, but
        what is saved must have room where it is."""
        block = demand.block
        before = demand.parts
        if demand.kept:
            parts = [_without_kept(part) for part in parts]
        self._touch(demand)
        if block is None:
            _resize(demand, parts, demand.saved_on)
            could_hold = self._could_hold(demand)
            if not could_hold:
                _resize(demand, before, demand.saved_on)
            self._ask_anew(demand)
            return could_hold
        self._lift(demand, now)
        _resize(demand, parts, block.hosts)
        # Who asks for no more may have it, whatever else there is too much of on his node.
        grows = not all(after.size.fits_in(part.size) for after, part in zip(parts, before, strict=True))
        fits = not grows or self._open_until(demand, block.hosts, max(block.begin, now), block.end) >= block.end
        if not fits or not self._still_saves(demand, block, now):
            _resize(demand, before, block.hosts)
            fits = False
        elif demand.phase != BOOKED:
            self._recount()
        self.preemptible.put(demand)
        self._put_back(demand, now)
        self._has_freed_all()
        return fits

    def _ask_anew(self, demand: Demand) -> None:
        """It asks for something else than before, perhaps while it waits."""
        if self.waiting.has(demand):
            self.waiting.put(demand)

    def learn(self) -> None:
        """Other rates: what those who wait need at least is another."""
        for demand in self.queue:
            demand.least = -1
            self.waiting.put(demand)

    def _could_hold(self, demand: Demand) -> bool:
        """Whether the nodes where it is saved could hold it, if nothing else were there."""
        return all(
            amount.fits_in(self.timeline.profiles[host].capacity)
            for host, amount in _amounts(demand, demand.saved_on).items()
        )

    def _still_saves(self, demand: Demand, block: Block, now: int) -> bool:
        """Begin the suspension at the end of a lifted block so that it is over in time, if that can be."""
        if not block.saves or demand.phase > RUNNING:
            return True
        stop = block.end - self.rules.save_s(demand, block.hosts)
        if stop <= max(block.run, now):
            return False
        if stop < block.stop:
            block.stop = stop
            if demand.phase == RUNNING:
                self._wake(demand, stop)
        return True

    def _recount(self) -> None:
        """What is in use, from those who use it."""
        self._used = NOTHING
        for demand in self.holding.values():
            block = demand.block
            if block is None or demand.phase == BOOKED:
                continue
            self._used = self._used.plus(demand.saved_total if _counts_as_saved(demand, block) else demand.total)

    # ------------------------------------------------------------ nodes

    def add_node(self, capacity: Amount) -> int:
        self._capacity = self._capacity.plus(capacity)
        return self.timeline.add(capacity)

    def set_capacity(self, node: int, capacity: Amount) -> None:
        profile = self.timeline.profiles[node]
        self._capacity = self._capacity.plus(capacity).minus(profile.capacity)
        self.moves += 1
        self.timeline.resize(node, capacity)
        self._has_freed_all()

    def set_open(self, node: int, is_open: bool, awake: bool) -> None:
        """Whether it takes new members; whether what is there, or was promised it, may begin."""
        self.timeline.open[node] = is_open
        self.timeline.awake[node] = awake
        self.moves += 1
        self.timeline.changed()
        self._has_freed_all()

    def close(self, node: int, amount: Amount, start: int, end: int) -> None:
        """A window in which the node runs nothing: all its capacity is taken."""
        self.timeline.profiles[node].take(amount, start, end)
        self.timeline.changed()

    def reopen(self, node: int, amount: Amount, start: int, end: int) -> None:
        self.timeline.profiles[node].give(amount, start, end)
        self.timeline.changed()
        self._has_freed_all()

    def displace(self, shut: dict[int, list[tuple[int, int]]], now: int) -> list[Demand]:
        """Plan anew what was to begin on nodes while they are shut: by node, over which intervals. Gives the hard
        demands for which there is no other room: they stay where they are, hoping."""
        stuck: list[Demand] = []
        for demand in list(self.holding.values()):
            block = demand.block
            if block is None or demand.phase != BOOKED or not _meets(block, shut):
                continue
            if demand.hard:
                if not self._move(demand, block, now):
                    stuck.append(demand)
            else:
                self._release(demand, now)
                self._enqueue(demand)
        return stuck

    def _move(self, demand: Demand, block: Block, now: int) -> bool:
        """A hard demand that has not begun to other nodes, at the same time."""
        self._lift(demand, now)
        found, victims = self.find(demand, now)
        if found is None:
            self._put_back(demand, now)
            return False
        self._oust(victims, found.begin, now)
        self._hard_ahead -= 1
        self._lay(demand, found, now)
        return True

    # ------------------------------------------------------------ the record

    def adopt(self, demand: Demand, phase: int, block: Block | None, now: int) -> None:
        """Take over a demand as a record has it."""
        self._adopt(demand, phase, block, now)
        self.press(demand)

    def _adopt(self, demand: Demand, phase: int, block: Block | None, now: int) -> None:
        self._take(demand)
        if block is not None:
            for member in range(len(demand.saved_on)):
                if demand.saved_on[member] < 0:
                    block.hosts[member] = -1
        _resize(demand, demand.parts, demand.saved_on if block is None else block.hosts)
        if demand.saved_on:
            self._keep_apart(demand, demand.saved_on, now)
        if block is None:
            if phase == OVER:
                demand.phase = OVER
            else:
                self._enqueue(demand)
            return
        self._laid += 1
        block.order = self._laid
        demand.block = block
        demand.phase = phase
        self._hold(demand)
        if phase != BOOKED and _held_until(demand, block) <= now:
            _prolong(demand, block, now)  # how overdue it was by then is not in the record
        self._put_back(demand, now)
        if phase == BOOKED:
            self._book_as(demand)
            if demand.hurries:
                self.urgent[demand.id] = demand
            self._wake(demand, block.begin)
            return
        self._used = self._used.plus(demand.saved_total if _counts_as_saved(demand, block) else demand.total)
        if phase == PREPARING and block.restores:
            self._restoring += 1
        self._wake(demand, block.run if phase == PREPARING else block.stop if phase == RUNNING else block.end)

    def _book_as(self, demand: Demand) -> None:
        if demand.hard:
            self._hard_ahead += 1
        else:
            insert_in_turn(self.promised if demand.by >= 0 else self.booked, demand)

    def forget(self, demand: Demand, now: int) -> None:
        """It is no more, or will be adopted in another form."""
        self._give_back_kept(demand, now)
        if demand.block is not None:
            self._release(demand, now)
        elif self._leave(demand):
            self._freed = True  # others may have waited behind it
        demand.next = -1
        self.demands.pop(demand.id, None)
        self.urgent.pop(demand.id, None)
        self.pressing.pop(demand.id, None)
        # What is adopted next under this id is as the record has it.
        self.touched.pop(demand.id, None)

    def _give_back_kept(self, demand: Demand, now: int) -> None:
        if not demand.kept:
            return
        hosts = demand.saved_on if demand.block is None else demand.block.hosts
        member = 0
        for part in demand.parts:
            for _ in range(part.count):
                if hosts[member] >= 0:
                    self.timeline.profiles[hosts[member]].give(part.kept_size, now, FOREVER)
                member += 1
        self.timeline.changed()
        self._has_freed_all()

    def _has_freed_all(self) -> None:
        """Anything may have been freed, for ever."""
        self._freed = True
        self._freed_until = FOREVER

    def turn_anew(self) -> None:
        """The turns of those that wait have changed."""
        self.queue.sort(key=in_turn)
        self.booked.sort(key=in_turn)


def _held_until(demand: Demand, block: Block) -> int:
    """Until when it holds all that it takes; who is to be saved has no CPUs after its stop."""
    return block.stop if _runs_when_up(demand) else block.end


def _prolong(demand: Demand, block: Block, now: int) -> None:
    """It is overdue: its nodes are held for some time more."""
    block.end = max(block.end, now + 2 * OVERDUE_S)
    if _runs_when_up(demand):
        block.stop = block.end


def _runs_when_up(demand: Demand) -> bool:
    """Whether its run has yet to begin, and takes as long as ever once it does; a hard one's is over as agreed."""
    return demand.phase == PREPARING and not demand.hard


def _meets(block: Block, shut: dict[int, list[tuple[int, int]]]) -> bool:
    for host in block.hosts:
        for start, end in shut.get(host, []):
            if block.begin < end and start < block.end:
                return True
    return False


def _resize(demand: Demand, parts: list[Part], hosts: list[int]) -> None:
    """Other sizes for those of its members that are not gone."""
    demand.resize(parts)
    for member in range(len(hosts)):
        if hosts[member] < 0:
            _discount(demand, member)


def _amounts(demand: Demand, hosts: list[int]) -> dict[int, Amount]:
    """By node, what its members there take together."""
    amounts: dict[int, Amount] = {}
    sizes = demand.sizes()
    for member in range(len(hosts)):
        if hosts[member] >= 0:
            amounts[hosts[member]] = amounts.get(hosts[member], NOTHING).plus(sizes[member])
    return amounts


def _discount(demand: Demand, member: int) -> None:
    demand.total = demand.total.minus(demand.sizes()[member])
    demand.saved_total = demand.saved_total.minus(demand.saved_size_of(member))


def kept_size_of(demand: Demand, member: int) -> Amount:
    for part in demand.parts:
        if member < part.count:
            return part.kept_size
        member -= part.count
    raise IndexError(member)


def _counts_as_saved(demand: Demand, block: Block) -> bool:
    """Whether what it has in use has no CPUs."""
    return demand.phase == SAVING or (demand.phase == PREPARING and block.restores)


def _without_kept(part: Part) -> Part:
    """The part less what is kept of its members apart."""
    return _of_size(part, part.size.minus(part.kept_size))


def _with_kept(part: Part) -> Part:
    return _of_size(part, part.size.plus(part.kept_size))


def _of_size(part: Part, size: Amount) -> Part:
    other = Part(
        part.count, size, apart=part.apart, together=part.together, eligible=part.eligible, prefers=part.prefers
    )
    other.kept_size = part.kept_size
    return other


__all__ = ["OVERDUE_S", "SAVE", "SAVED", "STOP", "WAITING", "SitePlanner"]
