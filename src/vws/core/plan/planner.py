"""The planner: every kind of lease on one timeline.

Its owner moves it and it never looks at a clock: each call has `now` (whole UTC seconds), which never goes back. What
has to be done is left in `actions`, in order, for the owner to take. Between two calls the plan is complete: every
demand that is to run has a block on the timeline, or waits in the queue because no room for it is open.

The queue is served in turn (the site's order: first come, fair share, ...). Who cannot start is booked a later start,
as many as `rules.bookings` says; the others may go ahead if they delay no booking. Bookings are placed anew, one by
one, whenever something is freed before its time, and can only come to stand earlier.

A hard demand takes room that soft ones hold if it must: those that wait are queued anew, those that run are cut so that
their suspension has ended when it begins. Who can neither be saved nor restarted is left alone.

References: Lifka, The ANL/IBM SP scheduling system, 1995 (EASY); Mu'alem and Feitelson, IEEE TPDS 12(6), 2001 (EASY and
conservative backfilling); Sotomayor, Keahey and Foster, HPDC 2008 (suspension before reservations).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, final

from vws.core.plan.demand import (
    BOOKED,
    OVER,
    PREPARING,
    RUNNING,
    SAVED,
    SAVING,
    STOPPING,
    WAITING,
    Block,
    Demand,
)
from vws.core.plan.givers import Givers, Preemptible
from vws.core.plan.placing import Placing
from vws.core.plan.profile import FOREVER, NOTHING, Amount
from vws.core.plan.rules import Rules
from vws.core.plan.timeline import Tally, Timeline
from vws.core.plan.waiting import Waiting

# What has to be done with a demand, in the order of its life.
BEGIN: Final = 1  # move, stage and boot, or resume: its block begins
RUN: Final = 2  # it is planned to be up
SAVE: Final = 3
KEPT: Final = 4  # it is planned to be saved; its nodes are planned with again
STOP: Final = 5  # its time is over
GIVE_UP: Final = 6  # to be killed and queued anew: it ran where a hard one has to be
DONE: Final = 7  # its nodes are free
GO_ON: Final = 8  # nobody needs its nodes after all: its suspension is put off, or is none any more

# After so many have given way in vain it is asked whether all of them would be enough.
LIFTED_UNASKED: Final = 64
# After so many could not start it is asked of all the others at once who still may.
ASKED_IN_VAIN: Final = 64


@final
class Action:
    def __init__(self, kind: int, demand: Demand, block: Block) -> None:
        self.kind = kind
        self.demand = demand
        self.block = block


class Planner:
    """One site's plan. At each moment its owner calls, in this order: `ended` (what ended before its time), `due`,
    `arrive`, `fill`, `due`."""

    def __init__(self, capacities: list[Amount], rules: Rules) -> None:
        self.rules = rules
        self.timeline = Timeline(capacities)
        self.placing = Placing(self.timeline, rules)
        self.demands: dict[str, Demand] = {}
        self.holding: dict[str, Demand] = {}  # those that have a block: few beside those that wait, on a large site
        self.preemptible = Preemptible(rules)  # of these
        self.queue: list[Demand] = []  # in turn
        self.waiting = Waiting(self.placing)  # the same
        self.booked: list[Demand] = []  # in turn
        self.promised: list[Demand] = []  # those with deadlines, which are booked whatever the rules say
        self.actions: list[Action] = []
        self._due: list[tuple[int, int, Demand]] = []
        self._wakes = 0
        self._laid = 0
        self._taken = 0
        self._freed = True
        self._freed_until = FOREVER
        self._fresh: list[Demand] = []
        self._hard_ahead = 0
        self._restoring = 0
        self._settled = True  # no booking would begin sooner if it were placed anew
        # What is in use now: who asks for more than the rest cannot start, wherever it is.
        self._capacity = NOTHING
        self._used = NOTHING
        for capacity in capacities:
            self._capacity = self._capacity.plus(capacity)

    # ------------------------------------------------------------ time

    def next_moment(self) -> int:
        """When `due` has something to do next; -1 if nothing is planned."""
        while self._due:
            moment, _, demand = self._due[0]
            if demand.next == moment:
                return moment
            heappop(self._due)
        return -1

    def due(self, now: int) -> None:
        """Take every step that is planned by `now`; ends come before beginnings."""
        self.timeline.now = now
        while True:
            ready = self._ready(now)
            if not ready:
                return
            for demand in ready:
                if demand.phase >= RUNNING:
                    self._go_to_end(demand, now)
            for demand in ready:
                if demand.phase == BOOKED or demand.phase == PREPARING:
                    self._go_to_run(demand, now)

    def _ready(self, now: int) -> list[Demand]:
        ready: list[Demand] = []
        while self._due and self._due[0][0] <= now:
            moment, _, demand = heappop(self._due)
            if demand.next == moment:
                demand.next = -1
                ready.append(demand)
        if len(ready) > 1:
            ready.sort(key=_laid_order)
        return ready

    def _wake(self, demand: Demand, moment: int) -> None:
        demand.next = moment
        self._wakes += 1
        heappush(self._due, (moment, self._wakes, demand))

    def _go_to_run(self, demand: Demand, now: int) -> None:
        block = demand.block
        assert block is not None
        if demand.phase == BOOKED:
            if block.begin > now:
                self._wake(demand, block.begin)
                return
            if not self._may_begin(block, now):
                self._wake(demand, now + 1)
                return
            self._begin(demand, block)
        if block.doomed and block.stop <= now:
            self._stop(demand, block, now)
            return
        if block.run > now:
            self._wake(demand, block.run)
            return
        self._run(demand, block)

    def _run(self, demand: Demand, block: Block) -> None:
        demand.phase = RUNNING
        if block.restores:
            self._restoring -= 1
            self._used = self._used.plus(demand.total).minus(demand.saved_total)
        self._act(RUN, demand, block)
        self._wake(demand, block.stop)

    def _may_begin(self, block: Block, now: int) -> bool:
        """Whether its nodes are as free as was planned; always so where plans are what happens."""
        return True

    def _begin(self, demand: Demand, block: Block) -> None:
        self._unbook(demand)
        demand.phase = PREPARING
        self.preemptible.put(demand)
        demand.migrations += block.moves
        if block.restores:
            self._restoring += 1
        self._used = self._used.plus(demand.saved_total if block.restores else demand.total)
        self._act(BEGIN, demand, block)

    def _go_to_end(self, demand: Demand, now: int) -> None:
        block = demand.block
        if block is None:
            return
        if demand.phase == RUNNING:
            if block.stop > now:
                self._wake(demand, block.stop)
                return
            self._stop(demand, block, now)
            if demand.block is None or demand.phase == RUNNING:
                return
        if block.end > now:
            self._wake(demand, block.end)
        elif demand.phase == SAVING:
            self._keep(demand, block, now)
        else:
            self._finish(demand, block, now)

    def _stop(self, demand: Demand, block: Block, now: int) -> None:
        if block.doomed:
            self._act(GIVE_UP, demand, block)
            self._release(demand, now)
            demand.worked = 0
            demand.saved_on = []
            demand.restarts += 1
            demand.at = -1
            self._enqueue(demand)
            return
        if block.saves and self._go_on(demand, block, now):
            return
        demand.worked += block.stop - block.run
        if block.saves:
            demand.phase = SAVING
            self._used = self._used.minus(demand.total).plus(demand.saved_total)
            self._has_freed(block)  # CPUs; the rest follows when it is saved
            self._act(SAVE, demand, block)
        else:
            demand.phase = STOPPING
            self._act(STOP, demand, block)

    def _go_on(self, demand: Demand, block: Block, now: int) -> bool:
        """Whether it runs on: whoever was to have its nodes has gone, or has others."""
        self._lift(demand, now)
        goes_on = self.placing.lengthen(demand, block, now)
        self._put_back(demand, now)
        if goes_on:
            self._act(GO_ON, demand, block)
            self._wake(demand, block.stop)
        return goes_on

    def _keep(self, demand: Demand, block: Block, now: int) -> None:
        self._release(demand, now)
        demand.at = -1  # whatever it was, it goes on when there is room
        demand.suspensions += 1
        demand.saved_on = block.hosts
        demand.saved_at = now
        self._enqueue(demand)
        self._act(KEPT, demand, block)

    def _finish(self, demand: Demand, block: Block, now: int) -> None:
        self._release(demand, now)
        demand.phase = OVER
        self.demands.pop(demand.id, None)
        self._act(DONE, demand, block)

    def _act(self, kind: int, demand: Demand, block: Block) -> None:
        self.actions.append(Action(kind, demand, block))

    # ------------------------------------------------------------ what the world says

    def arrive(self, demand: Demand, now: int) -> bool:
        """Take a demand in. False: a hard one that has no room, or one whose deadline cannot be met; then nothing has
        changed."""
        if demand.hard:
            taken = self._reserve(demand, now)
        elif demand.by >= 0:
            taken = self._promise(demand, now)
        else:
            self._enqueue(demand)
            insert_in_turn(self._fresh, demand)
            taken = True
        if taken:
            self._take(demand)
        return taken

    def accept(self, demand: Demand, block: Block, victims: list[Demand], now: int) -> None:
        """Take in a hard demand for which this has just been found."""
        self._place_over(demand, block, victims, now)
        self._take(demand)

    def _take(self, demand: Demand) -> None:
        self._taken += 1
        demand.taken = self._taken
        self.demands[demand.id] = demand

    def ended(self, demand: Demand, now: int) -> None:
        """Its work ended by itself, or it was withdrawn: it holds nothing any more and is forgotten."""
        block = demand.block
        if block is not None:
            self._release(demand, now)
            self._act(DONE, demand, block)
        elif self._leave(demand):
            self._freed = True  # others may have waited behind it
        demand.phase = OVER
        demand.next = -1
        self.demands.pop(demand.id, None)

    # ------------------------------------------------------------ the queue

    def fill(self, now: int) -> None:
        """Start what can start and book what may be booked, after anything has changed."""
        self.due(now)  # who gave way to what has just arrived may have to be gone by now
        if self._freed:
            self._fresh = []
            self._rebook(now)
            self._freed = False
            self._freed_until = 0
            self._serve(self.queue, now)
            if self.rules.backfill and self.queue:
                self._backfill(self.waiting.hopeful(self._capacity.minus(self._used), now), now)
        elif self._fresh and self.rules.backfill:
            fresh, self._fresh = self._fresh, []
            self._serve_fresh([each for each in fresh if each.phase == WAITING], now)
        elif self._fresh:
            self._fresh = []
            self._serve(self.queue, now)

    def _serve_fresh(self, fresh: list[Demand], now: int) -> None:
        """Nothing else has changed: all before them wait rightly, and they may at most go ahead of those."""
        if fresh and (len(self.booked) < self.rules.bookings or self.queue[0] is fresh[0]):
            self._serve(fresh, now)
        free = self._capacity.minus(self._used)
        left = [each for each in fresh if each.block is None and each.total.fits_in(free)]
        self._backfill([each for each in left if not self.placing.is_hopeless(each, now)], now)

    def _serve(self, queue: list[Demand], now: int) -> None:
        """Start or book in turn, until one stays that may not be booked."""
        served: list[Demand] = []
        for demand in queue:
            if self._start(demand, now) or self._book(demand, now):
                served.append(demand)
            elif not self.rules.backfill or len(self.booked) >= self.rules.bookings:
                break
        for demand in served:
            self._leave(demand)

    def _backfill(self, candidates: list[Demand], now: int) -> None:
        """Start those that delay nobody."""
        candidates.sort(key=in_turn)
        if self.rules.smallest_first:
            since = now - self.rules.patience_s
            candidates.sort(key=lambda each: each.area if each.submit > since else -1)
        in_vain = ASKED_IN_VAIN
        while candidates:
            candidates = self._start_some(candidates, in_vain, now)
            in_vain *= 2  # limits may keep many from starting whom nothing else does

    def _start_some(self, candidates: list[Demand], in_vain: int, now: int) -> list[Demand]:
        """Start those that can, until so many in a row could not; then those who are left and still may be able to."""
        failed = 0
        for i in range(len(candidates)):
            if self._start(candidates[i], now):
                self._leave(candidates[i])
                failed = 0
                continue
            failed += 1
            if failed >= in_vain:
                hopeful = {each.id for each in self.waiting.hopeful(self._capacity.minus(self._used), now)}
                return [each for each in candidates[i + 1 :] if each.id in hopeful]
        return []

    def _enqueue(self, demand: Demand) -> None:
        demand.phase = SAVED if demand.saved_on else WAITING
        demand.least = -1
        insert_in_turn(self.queue, demand)
        self.waiting.put(demand)

    def _leave(self, demand: Demand) -> bool:
        """It waits no more; whether it did."""
        waited = self.waiting.has(demand)
        if waited:
            self.waiting.remove(demand)
            remove_in_turn(self.queue, demand)
        return waited

    # ------------------------------------------------------------ blocks

    def _start(self, demand: Demand, now: int) -> bool:
        """Place a soft demand from now on, if there is room for a block worth having."""
        if not self._may_have_room(demand) or self.placing.is_hopeless(demand, now):
            return False
        block = self.placing.best(demand, now)
        if block is None:
            self.placing.doubt(demand)
            return False
        if self._is_held_back(demand, now):
            return False
        self._lay(demand, block, now)
        return True

    def _may_have_room(self, demand: Demand) -> bool:
        return demand.total.fits_in(self._capacity.minus(self._used))

    def _book(self, demand: Demand, now: int) -> bool:
        """Promise a soft demand the earliest start there is, if another promise is allowed."""
        full = len(self.booked) >= self.rules.bookings and demand.by < 0
        if full or self._is_held_back(demand, now):
            return False
        block = self.placing.later(demand, now)
        if block is None:
            return False
        self._lay(demand, block, now)
        insert_in_turn(self.promised if demand.by >= 0 else self.booked, demand)
        return True

    def _is_held_back(self, demand: Demand, at: int) -> bool:
        return self.rules.may_start is not None and not self.rules.may_start(demand, at)

    def _promise(self, demand: Demand, now: int) -> bool:
        block = self.placing.best(demand, now) or self.placing.later(demand, now)
        if block is None or block.stop > demand.by:
            return False
        self._lay(demand, block, now)
        insert_in_turn(self.promised, demand)
        return True

    def _rebook(self, now: int) -> None:
        """Place the bookings anew, in turn, one at a time: none can come to stand later than it did."""
        if self._stand(now):
            return
        waiting = [*self.promised, *self.booked]
        moved = False
        for demand in waiting:
            moved = self._place_anew(demand, now, True) or moved
        self._settled = not moved or len(waiting) == 1
        while moved:
            # Who was tried before another moved may have room by now.
            moved = False
            for demand in waiting:
                moved = self._place_anew(demand, now, False) or moved

    def _stand(self, now: int) -> bool:
        """Whether a single booking stands as it is: with nothing else ahead (nor any memory being read, after which
        CPUs are taken), rooms only ever open, and what has been freed before its time would have been free by then."""
        if self.promised or self._hard_ahead or self._restoring or not self._settled or len(self.booked) != 1:
            return not self.promised and not self.booked
        block = self.booked[0].block
        return block is not None and self._freed_until < block.begin and block.begin > now

    def _place_anew(self, demand: Demand, now: int, or_later: bool) -> bool:
        """Whether a booking begins now, or at least earlier than it did."""
        before = demand.block
        assert before is not None
        if before.begin <= now or not (or_later or self._may_have_room(demand)):
            return False
        self.timeline.lift(demand.parts, before, now)
        block = self.placing.best(demand, now)
        if block is None and or_later:
            block = self.placing.later(demand, now)
        if block is None or block.begin >= before.begin or (demand.by >= 0 and self._is_held_back(demand, block.begin)):
            self.timeline.lay(demand.parts, before, now)
            return False
        self._lay(demand, block, now)
        if block.begin <= now:
            remove(self.promised if demand.by >= 0 else self.booked, demand)
        return True

    def _lay(self, demand: Demand, block: Block, now: int) -> None:
        self._laid += 1
        block.order = self._laid
        demand.block = block
        demand.phase = BOOKED
        self._hold(demand)
        self.timeline.lay(demand.parts, block, now)
        self._wake(demand, block.begin)
        if demand.hard:
            self._hard_ahead += 1

    def _hold(self, demand: Demand) -> None:
        self.holding[demand.id] = demand
        self.preemptible.put(demand)

    def _hold_no_more(self, demand: Demand) -> None:
        demand.block = None
        demand.next = -1
        self.holding.pop(demand.id, None)
        self.preemptible.remove(demand)

    def _unbook(self, demand: Demand) -> None:
        if demand.hard:
            self._hard_ahead -= 1
        else:
            remove(self.promised, demand)  # or, once its promise could not be kept, booked as others are
            full = len(self.booked) >= self.rules.bookings
            remove(self.booked, demand)
            if full and len(self.booked) < self.rules.bookings:
                self._freed = True  # another may be promised a start

    def _release(self, demand: Demand, now: int) -> None:
        block = demand.block
        assert block is not None
        self.timeline.lift(demand.parts, block, now)
        if demand.phase == BOOKED:
            self._unbook(demand)
        elif demand.phase == PREPARING and block.restores:
            self._restoring -= 1
            self._used = self._used.minus(demand.saved_total)
        elif demand.phase == SAVING:
            self._used = self._used.minus(demand.saved_total)
        else:
            self._used = self._used.minus(demand.total)
        self._hold_no_more(demand)
        self._has_freed(block)

    def _has_freed(self, block: Block) -> None:
        self._freed = True
        self._freed_until = max(self._freed_until, block.end)

    # ------------------------------------------------------------ hard demands

    def find(self, demand: Demand, now: int) -> tuple[Block | None, list[Demand]]:
        """Where a hard demand could go, and who would have to give way for it. Nothing is changed."""
        begin = max(now, demand.at - demand.prepare_s)
        block = self.placing.at(demand, begin)
        if block is not None:
            return block, []
        end = demand.at + demand.requested + demand.shutdown_s
        tally = Tally(self.timeline, demand.asks, begin, end)
        victims = self._givers(begin, end, now)
        return self._over(demand, victims, tally, lambda: self.placing.at(demand, begin), now)

    def _reserve(self, demand: Demand, now: int) -> bool:
        """Place a hard demand, over soft ones if it must."""
        block, victims = self.find(demand, now)
        if block is None:
            return False
        self._place_over(demand, block, victims, now)
        return True

    def _place_over(self, demand: Demand, block: Block, victims: list[Demand], now: int) -> None:
        self._oust(victims, block.begin, now)
        self._lay(demand, block, now)

    def _oust(self, victims: list[Demand], begin: int, now: int) -> None:
        for victim in victims:
            self._lift(victim, now)
            self._give_way(victim, begin, now)

    def _over(
        self, demand: Demand, givers: Givers, tally: Tally | None, fit: Callable[[], Block | None], now: int
    ) -> tuple[Block | None, list[Demand]]:
        """The block that `fit` finds once as few of those who can give way as need be are out of it, and those. tally:
        of what it needs at least, where to ask `fit` takes long."""
        block: Block | None = None
        lifted: list[Demand] = []
        for victim in givers.in_order(demand, self.rules.may_suspend):
            if len(lifted) == LIFTED_UNASKED and tally is not None and not tally.could_be_enough(givers.all()):
                break
            self._lift(victim, now)
            lifted.append(victim)
            if _is_enough(tally, victim):
                block = fit()
                if block is not None:
                    break
        if block is None:
            for victim in lifted:
                self._put_back(victim, now)
            return None, []
        victims = self._needed(lifted, tally, fit, now)
        block = fit()
        for victim in victims:
            self._put_back(victim, now)
        return block, victims

    def _needed(
        self, lifted: list[Demand], tally: Tally | None, fit: Callable[[], Block | None], now: int
    ) -> list[Demand]:
        """Those of the lifted who cannot be put back. The dearest were lifted last, and are spared first."""
        needed = lifted[-1:]
        sure = tally is not None and tally.is_exact
        for victim in reversed(lifted[:-1]):
            self._put_back(victim, now)
            if not _is_enough(tally, victim) or not (sure or fit() is not None):
                self._lift(victim, now)
                if tally is not None and victim.block is not None:
                    tally.recount(victim.block.hosts)
                needed.append(victim)
        needed.reverse()
        return needed

    def _lift(self, demand: Demand, now: int) -> None:
        assert demand.block is not None
        self.timeline.lift(demand.parts, demand.block, now)

    def _put_back(self, demand: Demand, now: int) -> None:
        assert demand.block is not None
        self.timeline.lay(demand.parts, demand.block, now)

    def _givers(self, begin: int, end: int, now: int, where: set[int] | None = None) -> Givers:
        """The soft demands that could give way over [begin, end); of those that are on certain nodes (None: on any)."""
        givers = Givers()
        for victim in self.preemptible.within(max(begin - now, 0)):
            block = victim.block
            # What was granted for a time begins then: only what has begun gives way.
            if block is None or victim.by >= 0 or (victim.hard and victim.phase == BOOKED):
                continue
            if block.begin >= end or block.end <= begin or (where is not None and where.isdisjoint(block.hosts)):
                continue
            if victim.phase == BOOKED:
                if not self._is_spared(victim, now):
                    givers.add(victim, 0)
            elif self._can_give_way(victim, block, begin, now):
                givers.add(victim, victim.members)
        return givers

    def could_give_way(self, demand: Demand, most: int) -> list[Demand]:
        """Those who could give way for a demand at some time or other; none where they are more than `most`."""
        found: list[Demand] = []
        may = self.rules.may_suspend
        for each in self.preemptible.all():
            granted = each.by >= 0 or (each.hard and each.phase == BOOKED)
            if not granted and (may is None or may(demand, each)):
                found.append(each)
                if len(found) > most:
                    return []
        return found

    def soonest(self, demand: Demand, now: int) -> tuple[Block | None, list[Demand]]:
        """The same as `find`, for a demand that wants to run as soon as others can have been saved: it is moved there.
        Its former moment is tried no more."""
        may = self.rules.may_suspend
        for wait_s in self.preemptible.save_times(lambda each: may is None or may(demand, each)):
            demand.at, demand.hurries = now + wait_s + 1, True
            block, victims = self.find(demand, now)
            if block is not None:
                return block, victims
        return None, []

    def _victims(self, demand: Demand, begin: int, end: int, now: int) -> list[Demand]:
        """Those of them that could give way for a demand, the cheapest first."""
        return list(self._givers(begin, end, now).in_order(demand, self.rules.may_suspend))

    def _can_give_way(self, victim: Demand, block: Block, begin: int, now: int) -> bool:
        if victim.phase > RUNNING or block.doomed:
            return False
        if self._could_save(victim, block, begin, now):
            return True
        # Whose work is done by then only shuts down: no work need be lost for that.
        return self.rules.can_be_restarted(victim) and not self._is_spared(victim, now) and begin < block.stop

    def _is_spared(self, victim: Demand, now: int) -> bool:
        """Whether it has waited so long that nobody may put it off any more: hard demands come without end."""
        return now - victim.submit > self.rules.spared_after_s

    def _could_save(self, victim: Demand, block: Block, begin: int, now: int) -> bool:
        stop = begin - self.rules.save_s(victim, block.hosts)
        return self.rules.can_be_saved(victim) and now <= stop < block.stop and stop > block.run

    def _give_way(self, victim: Demand, begin: int, now: int) -> None:
        """A victim whose block has been lifted gets a shorter one, or none."""
        block = victim.block
        assert block is not None
        if victim.phase == BOOKED:
            self._unbook(victim)
            self._hold_no_more(victim)
            self._enqueue(victim)
        else:
            if self._could_save(victim, block, begin, now):
                block.saves = True
                block.stop = begin - self.rules.save_s(victim, block.hosts)
            else:
                block.saves = False
                block.doomed = True
                block.stop = begin
                block.run = min(block.run, begin)
                block.moved = min(block.moved, begin)
            block.end = begin
            self._laid += 1
            block.order = self._laid
            self.timeline.lay(victim.parts, block, now)
            self._wake(victim, block.stop if victim.phase == RUNNING else block.run)
        self._freed = True
        self._freed_until = FOREVER


def _laid_order(demand: Demand) -> int:
    return demand.block.order if demand.block is not None else 0


def _is_enough(tally: Tally | None, victim: Demand) -> bool:
    """Whether there may be enough now that this one was lifted or put back."""
    assert victim.block is not None
    if tally is None:
        return True
    tally.recount(victim.block.hosts)
    return tally.is_enough()


def remove(booked: list[Demand], demand: Demand) -> None:
    """Take a demand out of a list, if it is there."""
    for i in range(len(booked)):
        if booked[i] is demand:
            del booked[i]
            return


def in_turn(demand: Demand) -> tuple[float, int]:
    return demand.turn, demand.number


def insert_in_turn(queue: list[Demand], demand: Demand) -> None:
    """Keep `queue` sorted by turn, then number."""
    queue.insert(_place_in_turn(queue, demand), demand)


def remove_in_turn(queue: list[Demand], demand: Demand) -> None:
    """Take a demand out of a queue that is sorted so."""
    at = _place_in_turn(queue, demand)
    while queue[at] is not demand:
        at += 1
    del queue[at]


def _place_in_turn(queue: list[Demand], demand: Demand) -> int:
    low, high = 0, len(queue)
    while low < high:
        middle = (low + high) >> 1
        each = queue[middle]
        if each.turn < demand.turn or (each.turn == demand.turn and each.number < demand.number):
            low = middle + 1
        else:
            high = middle
    return low
