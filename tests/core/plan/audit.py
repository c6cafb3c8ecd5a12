"""The auditor: what must hold after every call of the planner, checked against a ledger kept from its actions alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.core.plan.naive import how_many
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
    Part,
)
from vws.core.plan.planner import BEGIN, DONE, GIVE_UP, GO_ON, KEPT, RUN, SAVE, STOP, Action, Planner
from vws.core.plan.profile import FOREVER, NOTHING, Amount
from vws.core.plan.rules import ANYBODYS, SINGLES

FOLLOWS = {
    "waits": {BEGIN: "prepares", DONE: "over"},
    "prepares": {RUN: "runs", GIVE_UP: "waits", DONE: "over"},
    "runs": {GO_ON: "runs", SAVE: "saves", STOP: "stops", GIVE_UP: "waits", DONE: "over"},
    "saves": {KEPT: "waits", DONE: "over"},
    "stops": {DONE: "over"},
}


@dataclass
class Entry:
    """What the ledger holds of a demand; `terms` are those of a hard one when it was granted."""

    demand: Demand
    state: str = "waits"
    worked: int = 0
    since: int = 0
    saved_on: list[int] = field(default_factory=list)
    promise: int | None = None
    terms: tuple[object, ...] | None = None
    block: tuple[object, ...] | None = None
    suspensions: int = 0
    restarts: int = 0
    ahead: int = 0  # how many were before it when it came


def terms_of(block: Block | None) -> tuple[object, ...] | None:
    if block is None:
        return None
    flags = (block.saves, block.restores, block.doomed)
    return (tuple(block.hosts), block.begin, block.moved, block.run, block.stop, block.end, *flags)


class Auditor:
    def __init__(self, planner: Planner, demands: dict[str, Demand]) -> None:
        self._planner = planner
        self._demands = demands
        self._entries: dict[str, Entry] = {}
        self._hard_granted = 0
        self._before: tuple[object, ...] = ()
        self._wrong_to_refuse = False

    # ------------------------------------------------------------ after each call

    def before_arrival(self, demand: Demand, now: int) -> None:
        self._before = self._state(now)
        self._wrong_to_refuse = demand.hard and self._hard_would_fit(demand, now)

    def after(self, call: str, now: int, demand: Demand | None, actions: Sequence[Action]) -> None:
        if call == "arrive" and demand is not None:
            self._entries[demand.id] = Entry(demand, ahead=len(self._planner.queue))
        if call == "refused":
            assert self._state(now) == self._before, "a refusal changed something"
            assert not self._wrong_to_refuse, f"{demand} was refused, but would fit"
        for action in actions:
            self._replay(action, call, now)
        if call == "ended" and demand is not None:
            self._entries[demand.id].state = "over"
        displacing = call == "arrive" and demand is not None and demand.hard
        self._hard_granted += displacing
        going_on = {action.demand.id for action in actions if action.kind == GO_ON}
        for entry in self._entries.values():
            if entry.state != "over":
                self._look_at(entry, displacing, entry.demand.id in going_on)
        self._count_room(now)
        for action in actions:
            # With its last second to do, it had no room for its shutdown.
            if action.kind == SAVE and action.demand.phase == SAVING and action.demand.remaining > 1:
                assert not self._could_go_on(action.demand, action.block, now), f"{action.demand} suspended for nobody"

    def _replay(self, action: Action, call: str, now: int) -> None:
        entry, block, kind = self._entries[action.demand.id], action.block, action.kind
        assert kind in FOLLOWS[entry.state], (kind, entry)
        if kind == DONE and call != "ended":
            assert entry.state == "stops", entry
        entry.state = FOLLOWS[entry.state][kind]
        check = {BEGIN: self._began, RUN: self._ran, SAVE: self._saved, KEPT: self._kept, STOP: self._stopped}
        if kind in check:
            check[kind](entry, block, now)
        elif kind == GIVE_UP:
            assert entry.demand.restartable, f"{entry.demand} lost its work"
            assert now == block.stop == block.end
            entry.worked, entry.saved_on = 0, []
            entry.restarts += 1
        elif kind == DONE and call != "ended":
            assert now == block.end == block.stop + entry.demand.shutdown_s

    def _began(self, entry: Entry, block: Block, now: int) -> None:
        assert now == block.begin
        assert entry.promise is None or now <= entry.promise, f"{entry.demand} was promised {entry.promise}"
        assert block.restores == bool(entry.saved_on)
        entry.promise = None

    def _ran(self, entry: Entry, block: Block, now: int) -> None:
        demand = entry.demand
        assert now == block.run
        if demand.hard:
            assert now == demand.at
        elif entry.saved_on:
            assert now - block.moved == self._memory_s(demand, block.hosts, self._planner.rules.resume_mib_per_s)
            self._moved(entry, block)
        else:
            assert now - block.begin == demand.prepare_s
        entry.since = now

    def _moved(self, entry: Entry, block: Block) -> None:
        moves = [(a, b) for a, b in zip(entry.saved_on, block.hosts, strict=True) if a != b]
        assert block.moves == len(moves)
        if not self._planner.rules.migrate:
            assert not moves
        largest = max(part.size.memory_mib for part in entry.demand.parts)
        round_s = math.ceil(largest / self._planner.rules.transfer_mib_per_s)
        assert block.moved - block.begin >= fewest_rounds(moves) * round_s, "transfers cannot be done in that time"

    def _saved(self, entry: Entry, block: Block, now: int) -> None:
        demand = entry.demand
        assert now == block.stop
        assert can_be_saved(self._planner, demand, entry.suspensions), f"{demand} cannot be saved"
        entry.worked += now - entry.since
        assert now > entry.since, "suspended before it did anything"
        assert 0 < entry.worked < demand.requested, "suspended when its work was done"
        entry.since = now

    def _kept(self, entry: Entry, block: Block, now: int) -> None:
        assert now == block.end
        needs_s = self._memory_s(entry.demand, block.hosts, self._planner.rules.suspend_mib_per_s)
        assert now - entry.since == needs_s
        entry.saved_on = list(block.hosts)
        entry.suspensions += 1

    def _stopped(self, entry: Entry, block: Block, now: int) -> None:
        assert now == block.stop
        entry.worked += now - entry.since
        assert entry.worked == entry.demand.requested, "ended before or after its work was done"

    # ------------------------------------------------------------ what holds at any time

    def _look_at(self, entry: Entry, displacing: bool, goes_on: bool) -> None:
        demand, block = entry.demand, entry.demand.block
        terms, before, entry.block = terms_of(block), entry.block, terms_of(block)
        if block is not None:
            self._is_lawful(demand, block)
        if demand.hard:
            # One that is preemptible gives way to others once it has begun, and is a soft one when it has.
            if entry.terms is None or (demand.preemptible and demand.phase != BOOKED and (displacing or goes_on)):
                entry.terms = terms
            assert terms == entry.terms, "a hard lease was moved or shortened"
            assert block is not None
            assert block.saves or block.doomed or (block.run, block.stop) == (demand.at, demand.at + demand.requested)
            assert block.begin <= max(demand.submit, demand.at - demand.prepare_s)
            return
        assert demand.suspensions == entry.suspensions
        assert demand.saved_on == entry.saved_on
        if demand.phase == BOOKED and block is not None:
            if entry.promise is not None:
                assert block.begin <= entry.promise, f"{demand} was promised {entry.promise}"
            else:
                entry.promise = block.begin
        elif entry.promise is not None and block is None:
            assert displacing, f"{demand} lost its promise"
            entry.promise = None
        if block is not None and terms != before:
            if block.saves:
                self._has_gain(entry, block, displacing or goes_on)
            if before is not None and demand.phase in (PREPARING, RUNNING, SAVING, STOPPING):
                assert displacing or goes_on or entry.state == "prepares", "who runs was cut for nobody"
                assert not goes_on or block.end > before[5] or not block.saves, "what goes on ends sooner"  # type: ignore[operator]
        if demand.by >= 0 and block is not None:
            assert block.stop <= demand.by

    def _is_lawful(self, demand: Demand, block: Block) -> None:
        assert block.begin <= block.moved <= block.run <= block.stop <= block.end
        assert len(block.hosts) == demand.members, "all or nothing"
        assert not demand.one_node or len(set(block.hosts)) == 1
        member = 0
        for part in demand.parts:
            hosts = block.hosts[member : member + part.count]
            member += part.count
            if part.apart:
                assert len(set(hosts)) == part.count
            if part.together:
                assert len(set(hosts)) == 1
            for host in hosts:
                assert self._planner.timeline.open[host]
                assert part.eligible is None or part.eligible[host]

    def _has_gain(self, entry: Entry, block: Block, displacing: bool) -> None:
        """A suspension that is planned makes room for somebody, and what runs before it is worth the trouble."""
        demand, rules = entry.demand, self._planner.rules
        save_s = self._memory_s(demand, block.hosts, rules.suspend_mib_per_s)
        restore_s = self._memory_s(demand, block.hosts, rules.resume_mib_per_s)
        assert block.stop > block.run
        assert block.end - block.stop == save_s
        if not displacing:
            assert block.stop - block.run >= int(rules.useful * (save_s + restore_s)), "a useless block"

    def _could_go_on(self, demand: Demand, block: Block, now: int) -> bool:
        """Whether its nodes have room for it to run on, longer than its suspension takes."""
        for host, sizes in on_node(demand, block.hosts).items():
            profile, idle = self._planner.timeline.profiles[host], total([idle_size(size) for size in sizes])
            for point in (now, *(p for p in profile.times if now < p < block.end)):
                if not total(sizes).fits_in(profile.free_at(point).plus(idle)):
                    return False
            if not total(sizes).fits_in(profile.free_at(block.end)):
                return False
        return True

    def _count_room(self, now: int) -> None:
        """No node is ever over capacity, and each profile is exactly what the blocks leave."""
        held: list[list[tuple[int, int, Amount]]] = [[] for _ in self._planner.timeline.profiles]
        in_use = NOTHING
        for demand in self._planner.demands.values():
            for node, start, end, amount in occupied(demand):
                held[node].append((start, end, amount))
                if demand.phase != BOOKED and start <= now < end:
                    in_use = in_use.plus(amount)
        for profile, holds in zip(self._planner.timeline.profiles, held, strict=True):
            points = {now, *(p for p in profile.times if p > now)}
            points |= {point for start, end, _ in holds for point in (start, end) if point > now}
            for point in points:
                taken = [amount for start, end, amount in holds if start <= point < end]
                left = profile.capacity.minus(total(taken))
                assert NOTHING.fits_in(left), f"over capacity at {point}"
                assert profile.free_at(point) == left, f"the profile is wrong at {point}"

    # ------------------------------------------------------------ after each moment

    def moment_is_over(self, now: int) -> None:
        planner = self._planner
        self._lists_are_right()
        in_use = total([a for d in planner.demands.values() for _, s, e, a in occupied(d) if s <= now < e])
        assert planner._used == in_use, "the sum in use is wrong"
        waiting = planner.queue if planner.rules.backfill else planner.queue[:1]
        for demand in waiting:
            assert not self._could_start(demand, now), f"{demand} could start at {now}"
        for demand in filter(self._is_placed_exactly, waiting):
            assert planner.placing.best(demand, now) is None, f"{demand} could start at {now}"
        for demand in filter(self._is_placed_exactly, (*planner.booked, *planner.promised)):
            assert not self._could_begin_now(demand, now), f"{demand} could begin now"
        if planner.rules.backfill:
            left = [demand for demand in planner.queue if planner.placing.later(demand, now) is not None]
            assert not left or len(planner.booked) >= planner.rules.bookings, f"{left[0]} could be promised a start"

    def _lists_are_right(self) -> None:
        planner = self._planner
        turn = {id: (demand.turn, demand.number) for id, demand in self._demands.items()}
        live = planner.demands
        assert sorted(live) == sorted(id for id, entry in self._entries.items() if entry.state != "over")
        for listed, expected in (
            (planner.queue, [d for d in live.values() if d.block is None]),
            (planner.booked, [d for d in live.values() if d.phase == BOOKED and not d.hard and d.by < 0]),
            (planner.promised, [d for d in live.values() if d.phase == BOOKED and not d.hard and d.by >= 0]),
        ):
            assert [d.id for d in listed] == sorted((d.id for d in expected), key=turn.__getitem__)
        assert planner._hard_ahead == len([d for d in live.values() if d.hard and d.phase == BOOKED])
        for demand in live.values():
            entry = self._entries[demand.id]
            phases = {"waits": (WAITING, SAVED, BOOKED), "prepares": (PREPARING,), "runs": (RUNNING,)}
            assert demand.phase in (phases | {"saves": (SAVING,), "stops": (STOPPING,)})[entry.state]
            assert (demand.phase == SAVED) == (demand.block is None and bool(entry.saved_on))
            if entry.state == "waits":
                assert demand.worked == entry.worked

    def all_is_over(self) -> None:
        planner = self._planner
        assert not planner.demands
        assert not planner.queue
        assert not planner.booked
        assert not planner.promised
        assert planner.next_moment() == -1
        assert planner._used == NOTHING
        for profile in planner.timeline.profiles:
            profile.forget(1 << 30)
            assert (profile.times, profile.free) == ([0], [profile.capacity])
        for entry in self._entries.values():
            assert entry.state == "over"
            assert entry.demand.phase == OVER
            self._was_not_suspended_for_ever(entry)

    def _was_not_suspended_for_ever(self, entry: Entry) -> None:
        demand, rules = entry.demand, self._planner.rules
        assert entry.suspensions <= rules.setbacks_max
        assert entry.restarts <= rules.setbacks_max
        largest = max(part.size.memory_mib for part in demand.parts)
        least = largest / rules.suspend_mib_per_s + largest / rules.resume_mib_per_s
        worth = max(1, int(rules.useful * least))
        assert entry.suspensions <= demand.requested // worth * (1 + entry.restarts) + self._hard_granted

    # ------------------------------------------------------------ what would fit

    def _is_placed_exactly(self, demand: Demand) -> bool:
        """Several parts are packed one after the other, and members that are saved take longer where they share a node:
        there a fuller site may by chance be packed better."""
        saved = demand.saved_on or can_be_saved(self._planner, demand, demand.suspensions)
        return len(demand.asks) == 1 and (demand.one_per_node or not saved)

    def _could_begin_now(self, demand: Demand, now: int) -> bool:
        """Whether a booking would have room now if it did not stand where it does."""
        planner, block = self._planner, demand.block
        assert block is not None
        planner.timeline.lift(demand.parts, block, now)
        found = planner.placing.best(demand, now)
        planner.timeline.lay(demand.parts, block, now)
        return found is not None

    def _could_start(self, demand: Demand, now: int) -> bool:
        """Whether it surely could: one part only, and the longest that preparation and saving can take on any nodes."""
        if len(demand.asks) != 1:
            return False
        part, rules = demand.asks[0], self._planner.rules
        worst = [0] * demand.members
        spread = list(range(demand.members)) if demand.one_per_node else worst
        before = demand.prepare_s
        if demand.saved_on:
            if not rules.migrate:
                return False
            largest = max(part.size.memory_mib for part in demand.parts)
            round_s = math.ceil(largest / rules.transfer_mib_per_s)
            rounds = 1 if demand.one_per_node else demand.members
            before = rounds * round_s + self._memory_s(demand, spread, rules.resume_mib_per_s)
        length = before + demand.requested - demand.worked + demand.shutdown_s
        if can_be_saved(self._planner, demand, demand.suspensions) and demand.one_per_node:
            save_s = self._memory_s(demand, spread, rules.suspend_mib_per_s)
            restore_s = self._memory_s(demand, spread, rules.resume_mib_per_s)
            useful_s = max(1, int(rules.useful * (save_s + restore_s)))
            if useful_s < demand.requested - demand.worked:
                length = min(length, before + useful_s + save_s)
        return self._fits(part, now, now + length, {})

    def _hard_would_fit(self, demand: Demand, now: int) -> bool:
        """Whether it would if all made room that can: only for one part, where that can be counted."""
        if len(demand.asks) != 1:
            return False
        begin = max(now, demand.at - demand.prepare_s)
        end = demand.at + demand.requested + demand.shutdown_s
        gone: dict[int, list[tuple[int, int, Amount]]] = {}
        for victim in self._planner.demands.values():
            granted = victim.by >= 0 or (victim.hard and victim.phase == BOOKED)
            if victim.block is None or granted or not victim.preemptible:
                continue
            if self._can_make_room(victim, victim.block, begin, now):
                for node, start, finish, amount in occupied(victim):
                    gone.setdefault(node, []).append((start, finish, amount))
        return self._fits(demand.asks[0], begin, end, gone)

    def _can_make_room(self, victim: Demand, block: Block, begin: int, now: int) -> bool:
        if block.end <= begin:
            return False
        spared = now - victim.submit > self._planner.rules.spared_after_s
        if victim.phase == BOOKED and block.begin > now:
            return not spared
        if victim.phase > RUNNING or block.doomed:
            return False
        stop = begin - self._memory_s(victim, block.hosts, self._planner.rules.suspend_mib_per_s)
        savable = (
            can_be_saved(self._planner, victim, victim.suspensions) and max(now, block.run + 1) <= stop < block.stop
        )
        restartable = victim.restartable and victim.restarts < self._planner.rules.setbacks_max and not spared
        return savable or (restartable and begin < block.stop)

    def _fits(self, part: Part, start: int, end: int, gone: dict[int, list[tuple[int, int, Amount]]]) -> bool:
        count = 0
        size = part.size.times(part.count) if part.together else part.size
        for node, profile in enumerate(self._planner.timeline.profiles):
            if not self._planner.timeline.open[node] or not (part.eligible is None or part.eligible[node]):
                continue
            points = {start, *(p for p in profile.times if start < p < end)}
            points |= {p for s, e, _ in gone.get(node, []) for p in (s, e) if start < p < end}
            there = 1 if part.apart or part.together else part.count
            for point in points:
                back = total([amount for s, e, amount in gone.get(node, []) if s <= point < e])
                there = how_many(size, profile.free_at(point).plus(back), there)
            count += there
        return count >= (1 if part.together else part.count)

    def _state(self, now: int) -> tuple[object, ...]:
        planner = self._planner
        rooms = [
            [(t, profile.free_at(t)) for t in (now, *(later for later in profile.times if later > now))]
            for profile in planner.timeline.profiles
        ]
        blocks = [(id, demand.phase, terms_of(demand.block)) for id, demand in planner.demands.items()]
        lists = [[each.id for each in listed] for listed in (planner.queue, planner.booked, planner.promised)]
        return repr(rooms), blocks, lists, planner._used, planner._hard_ahead, planner.next_moment()

    def _memory_s(self, demand: Demand, hosts: list[int], mib_per_s: float) -> int:
        """Node by node, one member after another."""
        sums = (
            sum(math.ceil(size.memory_mib / mib_per_s) for size in sizes) for sizes in on_node(demand, hosts).values()
        )
        return max(sums) + math.ceil(self._planner.rules.enact_s * demand.members)


def can_be_saved(planner: Planner, demand: Demand, suspensions: int) -> bool:
    rules = planner.rules
    allowed = rules.suspend == ANYBODYS or (rules.suspend == SINGLES and demand.members == 1)
    allowed = allowed and suspensions < rules.setbacks_max
    return allowed and demand.preemptible and demand.by < 0


def occupied(demand: Demand) -> list[tuple[int, int, int, Amount]]:
    """(node, start, end, amount) of each member of its block."""
    block, found = demand.block, []
    if block is None:
        return []
    begins = block.run if block.restores else block.begin
    ends = block.stop if block.saves else block.end
    for host, size in zip(block.hosts, demand.sizes(), strict=True):
        idle = idle_size(size)
        found += [(host, block.begin, begins, idle), (host, begins, ends, size), (host, ends, block.end, idle)]
    return [each for each in found if each[1] < each[2]]


def idle_size(size: Amount) -> Amount:
    """What a member holds while its memory is written or read."""
    return Amount(0, size.memory_mib, size.disk_mib, 0, size.places)


def on_node(demand: Demand, hosts: list[int]) -> dict[int, list[Amount]]:
    found: dict[int, list[Amount]] = {}
    for host, size in zip(hosts, demand.sizes(), strict=True):
        found.setdefault(host, []).append(size)
    return found


def total(amounts: Sequence[Amount]) -> Amount:
    whole = NOTHING
    for amount in amounts:
        whole = whole.plus(amount)
    return whole


def fewest_rounds(moves: list[tuple[int, int]]) -> int:
    """In how few rounds the transfers can be done if no node takes part in two at once: by trying."""
    rounds = max((sum(node in move for move in moves) for node in {n for move in moves for n in move}), default=0)
    while not _colours(moves, rounds, []):
        rounds += 1
    return rounds


def _colours(moves: list[tuple[int, int]], rounds: int, given: list[int]) -> bool:
    if len(given) == len(moves):
        return True
    one = moves[len(given)]
    used = {colour for colour, other in zip(given, moves, strict=False) if set(one) & set(other)}
    fresh = max(given, default=-1) + 1  # which unused colour it gets makes no difference
    return any(
        _colours(moves, rounds, [*given, colour]) for colour in range(min(rounds, fresh + 1)) if colour not in used
    )


__all__ = ["FOREVER", "Auditor", "fewest_rounds"]
