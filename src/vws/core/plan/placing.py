"""Where a demand could go: the best block from a moment on, and the earliest one.

Nodes are chosen so that rooms which stay open longest are kept for those who need them: among the openings that stay
open until the block's end, those that close first are taken (best fit in time). A soft demand that may be suspended
also takes a shorter block, cut where its openings close, if that is worth it (`least`).

A saved demand goes back to the nodes where it was saved, if they have room; else, where migration is allowed, to
others, and its block then begins with the transfers. Transfers between disjoint pairs of nodes go on side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heapreplace
from typing import final

from vws.core.plan.demand import Block, Demand, Part
from vws.core.plan.profile import FOREVER, NODE_BITS, NODE_MASK, NOTHING, Amount
from vws.core.plan.rules import Rules
from vws.core.plan.timeline import Timeline, first_open_until

# Of several parts none alone says when all fit: so many moments of each are tried.
MOMENTS_TRIED = 64


@final
class Placing:
    def __init__(self, timeline: Timeline, rules: Rules) -> None:
        self.timeline = timeline
        self.rules = rules
        self.packs = False  # what spreading has no room for may still fit when packed

    # ------------------------------------------------------------ soft

    def best(self, demand: Demand, at: int) -> Block | None:
        """The best block that begins at `at`."""
        if not demand.saved_on:
            return self._begun(demand, at, 0)
        block = self._at_home(demand, at)
        if block is None and self.rules.migrate:
            block = self._moved(demand, at)
        return block

    def later(self, demand: Demand, after: int) -> Block | None:
        """The earliest block that begins after `after`."""
        moves = self.rules.migrate and bool(demand.saved_on)
        least = self.least(demand, self.rules.transfer_s(demand) if moves else 0)
        where = self._home(demand) if demand.saved_on and not moves else None
        for moment in self.each_moment(demand, after + 1, least, where):
            block = self.best(demand, moment)
            if block is not None:
                return block
        # From then on nothing is taken: who does not fit there fits nowhere.
        return self.best(demand, self.timeline.last_change(after + 1))

    def least(self, demand: Demand, transfer_s: int = 0, hosts: list[int] | None = None) -> int:
        """The shortest block worth having (hosts unknown: one member per node)."""
        rules = self.rules
        restore_s = rules.restore_s(demand, hosts)
        before = transfer_s + (restore_s if demand.saved_on else demand.prepare_s)
        whole = before + demand.remaining + demand.shutdown_s
        save_s = rules.save_s(demand, hosts)
        useful_s = max(int(rules.useful * (save_s + restore_s)), 1)
        if not rules.can_be_saved(demand) or useful_s >= demand.remaining:
            return whole
        return min(whole, before + useful_s + save_s)

    def moments(self, demand: Demand, after: int, duration: int, where: list[bool] | None) -> list[int]:
        """Moments from `after` on worth trying: the first is the answer if the duration is sure to be right."""
        if len(demand.asks) == 1:
            part = _within(demand.asks[0], where)
            return self.timeline.moments(part, after, duration, 1 if self._is_sure(demand, where) else MOMENTS_TRIED)
        found: set[int] = set()
        first = after
        for part in demand.asks:
            moments = self.timeline.moments(_within(part, where), after, duration, MOMENTS_TRIED)
            if not moments:
                return []
            first = max(first, moments[0])
            found.update(moments)
        # All fit when something ends, though each of them may have fitted long before.
        found.update(self.timeline.changes(first, MOMENTS_TRIED))
        return [moment for moment in sorted(found) if moment >= first]

    def _is_sure(self, demand: Demand, where: list[bool] | None) -> bool:
        return where is None and not demand.saved_on and demand.one_per_node

    def each_moment(self, demand: Demand, after: int, duration: int, where: list[bool] | None) -> Iterator[int]:
        """The same one by one: most often the first will do, which is found sooner than all."""
        tried = 0
        if len(demand.asks) == 1:
            first = self.timeline.earliest(_within(demand.asks[0], where), after, duration)
            if first >= 0:
                yield first
            if first < 0 or self._is_sure(demand, where):
                return
            tried = 1
        yield from self.moments(demand, after, duration, where)[tried:]

    def doubt(self, demand: Demand) -> None:
        """What did not seem hopeless was."""
        for part in demand.asks:
            self.timeline.doubt(part)

    def is_hopeless(self, demand: Demand, now: int) -> bool:
        """Whether it is sure, without looking at nodes, that no block can begin now on whatever nodes there are."""
        if demand.saved_on:
            return False
        for part in demand.asks:
            until = self.timeline.open_until(part, now)
            if until <= now:
                return True
            if until < FOREVER:
                if demand.least < 0:
                    demand.least = self.least(demand)
                if until < now + demand.least:
                    return True
        return False

    def _begun(self, demand: Demand, at: int, transfer_s: int) -> Block | None:
        """The best block on any nodes, as if each member had its own; where that proves too short, with time for all
        of them on one node."""
        block = self._begun_if(demand, at, transfer_s, None)
        if demand.one_per_node or (block is not None and not block.saves):
            return block
        longer = self._begun_if(demand, at, transfer_s, [0] * demand.members)
        return block if longer is None or (block is not None and longer.saves) else longer

    def _begun_if(self, demand: Demand, at: int, transfer_s: int, crowd: list[int] | None) -> Block | None:
        """crowd: how the members may lie on nodes, for the time that their memory takes."""
        rules = self.rules
        before = transfer_s + (rules.restore_s(demand, crowd) if demand.saved_on else demand.prepare_s)
        wanted = at + before + demand.remaining + demand.shutdown_s
        hosts, end = self._nodes(demand, at, wanted, at + self.least(demand, transfer_s, crowd), None)
        if hosts is None:
            return None
        return self._block(demand, hosts, at, transfer_s, end)

    def _block(self, demand: Demand, hosts: list[int], at: int, transfer_s: int, end: int) -> Block | None:
        """The block on those nodes until `end` at most; None if it would not be worth it."""
        rules = self.rules
        run = at + transfer_s + (rules.restore_s(demand, hosts) if demand.saved_on else demand.prepare_s)
        stop = run + demand.remaining
        block = Block(hosts, at, at + transfer_s, run, stop, stop + demand.shutdown_s)
        block.restores = bool(demand.saved_on)
        if block.end > end:
            if not rules.can_be_saved(demand) or end - at < self.least(demand, transfer_s, hosts):
                return None
            block.saves = True
            save_s = rules.save_s(demand, hosts)
            # Where only its shutdown has no room, it is saved with a last second to do.
            block.stop = min(end - save_s, stop - 1)
            block.end = block.stop + save_s
        return block

    # ------------------------------------------------------------ saved

    def _at_home(self, demand: Demand, at: int) -> Block | None:
        """On the nodes where it was saved."""
        wanted = at + self.rules.restore_s(demand, demand.saved_on) + demand.remaining + demand.shutdown_s
        for node in demand.saved_on:
            if node >= 0 and not self.timeline.awake[node]:
                return None
        end = self._open_until(demand, demand.saved_on, at, wanted)
        return None if end <= at else self._block(demand, demand.saved_on, at, 0, end)

    def _open_until(self, demand: Demand, hosts: list[int], at: int, end: int) -> int:
        """Until when, `end` at most, those nodes have room for all members: `at` if they have none."""
        taken: dict[int, Amount] = {}
        sizes = demand.sizes()
        for i in range(len(sizes)):
            node = hosts[i]
            if node >= 0:
                taken[node] = taken[node].plus(sizes[i]) if node in taken else sizes[i]
        for node, amount in taken.items():
            end = self.timeline.profiles[node].until(amount, at, end)
            if end <= at:
                break
        return end

    def lengthen(self, demand: Demand, block: Block, now: int) -> bool:
        """Put off the suspension at the end of a lifted block that runs, for as long as its nodes have room; whether
        they have. All work done, it needs none."""
        stop = block.run + demand.remaining
        end = self._open_until(demand, block.hosts, now, stop + demand.shutdown_s)
        save_s = self.rules.save_s(demand, block.hosts)
        if end == stop + demand.shutdown_s:
            block.saves = False
            block.stop, block.end = stop, end
            return True
        later = min(end - save_s, stop - 1)
        if later <= max(block.stop, now):
            return False
        block.stop, block.end = later, later + save_s
        return True

    def _home(self, demand: Demand) -> list[bool]:
        where = [False] * len(self.timeline.profiles)
        for node in demand.saved_on:
            where[node] = True
        return where

    def _moved(self, demand: Demand, at: int) -> Block | None:
        """On other nodes, after as many rounds of transfers as it takes."""
        round_s = self.rules.transfer_s(demand)
        rounds = 1
        while True:
            block = self._begun(demand, at, rounds * round_s)
            if block is None:
                return None
            block.hosts = matched(demand.parts, demand.saved_on, block.hosts)
            block.moves, needed = transfers(demand.saved_on, block.hosts)
            if needed <= rounds:
                return block
            rounds = needed  # at most so many as there are members

    # ------------------------------------------------------------ hard

    def at(self, demand: Demand, begin: int) -> Block | None:
        """The block of a hard demand, whole or not at all."""
        block = Block([], begin, begin, demand.at, demand.at + demand.requested, 0)
        block.end = block.stop + demand.shutdown_s
        hosts, _ = self._nodes(demand, begin, block.end, block.end, None)
        if hosts is None:
            return None
        block.hosts = hosts
        return block

    # ------------------------------------------------------------ nodes

    def nodes(self, demand: Demand, at: int, wanted: int, least: int) -> tuple[list[int] | None, int]:
        """Nodes for all members and until when they have room: `wanted`, or sooner but not before `least`."""
        return self._nodes(demand, at, wanted, least, None)

    def _nodes(
        self, demand: Demand, at: int, wanted: int, least: int, where: list[bool] | None
    ) -> tuple[list[int] | None, int]:
        """Nodes for all members and until when they have room: `wanted`, or sooner but not before `least`."""
        if len(demand.asks) == 1:
            hosts, end = self._nodes_of(demand, _within(demand.asks[0], where), at, wanted, least)
            return hosts * demand.members if hosts is not None and demand.one_node else hosts, end
        hosts = self._nodes_of_all(demand, at, wanted, where)
        if hosts is None and self.rules.spread:
            self.packs = True
            hosts = self._nodes_of_all(demand, at, wanted, where)
            self.packs = False
        if hosts is not None or least >= wanted:
            return hosts, wanted
        # Cut where the first part's openings close: not the best cut, but one that fits whenever it is found.
        end = wanted
        for part in demand.parts:
            some, until = self._nodes_of(demand, _within(part, where), at, wanted, least)
            if some is None:
                return None, at
            end = min(end, until)
        return self._nodes_of_all(demand, at, end, where), end

    def _nodes_of(self, demand: Demand, part: Part, at: int, wanted: int, least: int) -> tuple[list[int] | None, int]:
        needed = part.openings_needed
        spreads = self.rules.spread and not self.packs
        ranked = self.rules.host_rank is not None or bool(demand.saved_on) or (part.prefers is not None and not spreads)
        if spreads and not ranked:
            spread = self._spread(part, at, wanted)
            if spread is not None:
                return spread * (part.count if part.together else 1), wanted
        openings = self.timeline.openings(part, at)
        if len(openings) < needed:
            return None, at
        first = first_open_until(openings, wanted)
        end = wanted
        if len(openings) - first < needed:
            chosen = openings[len(openings) - needed :]
            end = chosen[0] >> NODE_BITS
            if end < least:
                return None, at
        elif ranked:
            chosen = self._preferred(demand, part, openings[first:], needed, at)
        else:
            chosen = openings[first : first + needed]
        hosts: list[int] = []
        for opening in chosen:
            hosts.append(opening & NODE_MASK)
        if part.together:
            hosts = hosts * part.count
        return hosts, end

    def _spread(self, part: Part, at: int, wanted: int) -> list[int] | None:
        """Nodes that are open until `wanted`, where most is left, so that one that fails takes least with it; ties go
        to those that are preferred, then to the first node. None if there are too few."""
        needed = part.openings_needed
        heap = self._emptiest(part, at, wanted)
        if sum([key & NODE_MASK for _, key in heap]) < needed:
            return None
        chosen: list[int] = []
        while len(chosen) < needed:
            _, key = heap[0]
            node, count, room = key >> 2 * NODE_BITS & NODE_MASK, key >> NODE_BITS & NODE_MASK, key & NODE_MASK
            chosen.append(node)
            if count < room:
                profile = self.timeline.profiles[node]
                left = _left(profile.during(at), profile.capacity, part.asked, count + 1)
                heapreplace(heap, (-left, key + (1 << NODE_BITS)))
            else:
                heappop(heap)
        return chosen

    def _emptiest(self, part: Part, at: int, wanted: int) -> list[tuple[float, int]]:
        """The nodes open until `wanted` where most is left with one member there, as many as members at most, in
        order: what is left, negated; whether it is not preferred, the node, how many members are there, for how many
        it has room. Until when a node is open is looked at last, for most are none of the emptiest."""
        emptiest = Emptiest(part.openings_needed)
        for most_left, nodes in self._by_emptiness(part.asked, at):
            self._look_for_emptiest(part, at, wanted, nodes, most_left, emptiest)
        return emptiest.chosen()

    def _by_emptiness(self, size: Amount, at: int) -> list[tuple[float, list[int]]]:
        """The nodes that may have room at `at`, in groups, with what may at most be left of one in a group. Those
        where that is most come first: they may be enough."""
        if at == self.timeline.now:
            return [(1.0, self.timeline.nodes_for(size, at))]
        groups = [(_left(capacity, capacity, size, 1), nodes) for capacity, nodes in self.timeline.alike()]
        groups.sort(key=_most_left, reverse=True)
        return groups

    def _look_for_emptiest(
        self, part: Part, at: int, wanted: int, nodes: list[int], most_left: float, emptiest: Emptiest
    ) -> None:
        timeline = self.timeline
        size, most, eligible, prefers = part.asked, part.most_per_node, part.eligible, part.prefers
        for node in nodes:
            if emptiest.beats(most_left, node << 2 * NODE_BITS):
                return
            if not timeline.open[node] or (eligible is not None and not eligible[node]):
                continue
            profile = timeline.profiles[node]
            step = profile.during(at)
            left = _left(step, profile.capacity, size, 1)
            rather = 0 if prefers is None or prefers[node] else 1
            key = (rather << NODE_BITS | node) << 2 * NODE_BITS
            if emptiest.beats(left, key):
                continue
            room = int(step.count(size, wanted, most))
            if room > 0:
                emptiest.add(left, key | 1 << NODE_BITS | room)

    def _preferred(self, demand: Demand, part: Part, openings: list[int], needed: int, at: int) -> list[int]:
        """Nodes where it was saved first; then by the site's rank, or those that are preferred; then best fit."""
        rank, saved_on = self.rules.host_rank, set(demand.saved_on)
        prefers = part.prefers if rank is None else None
        keyed: list[tuple[bool, bool, float, int]] = []
        for opening in openings:
            node = opening & NODE_MASK
            worth = 0.0 if rank is None else rank(demand, node, at, opening >> NODE_BITS)
            keyed.append((node not in saved_on, prefers is not None and not prefers[node], worth, opening))
        keyed.sort()
        return [opening for _, _, _, opening in keyed[:needed]]

    def _nodes_of_all(self, demand: Demand, at: int, wanted: int, where: list[bool] | None) -> list[int] | None:
        """Nodes for the members of several parts, the biggest placed first."""
        parts = demand.parts
        order = sorted(range(len(parts)), key=lambda i: _bigness(parts[i]), reverse=True)
        chosen: dict[int, list[int]] = {}
        for i in order:
            hosts, _ = self._nodes_of(demand, _within(parts[i], where), at, wanted, wanted)
            if hosts is None:
                break
            chosen[i] = hosts
            for host in hosts:
                self.timeline.profiles[host].take(parts[i].size, at, wanted)
                self.timeline.lent(host)
        for i, hosts in chosen.items():
            for host in hosts:
                self.timeline.profiles[host].give(parts[i].size, at, wanted)
                self.timeline.lent(host)
        if len(chosen) < len(parts):
            return None
        return [host for i in range(len(parts)) for host in chosen[i]]


@final
class Emptiest:
    """The nodes of which most is left, as many as are needed at most; of those with as much left the lower keys."""

    def __init__(self, needed: int) -> None:
        self._needed = needed
        self._found: list[tuple[float, int]] = []
        self._least = 0.0
        self._last = 1 << 3 * NODE_BITS + 1

    def beats(self, left: float, key: int) -> bool:
        """Whether so many have been found that one like that is none of them."""
        return left < self._least or (left == self._least and key > self._last)

    def add(self, left: float, key: int) -> None:
        self._found.append((-left, key))
        if len(self._found) == 2 * self._needed:
            self._found = self.chosen()
            self._least, self._last = -self._found[-1][0], self._found[-1][1]

    def chosen(self) -> list[tuple[float, int]]:
        """In order, with what is left negated."""
        self._found.sort()
        return self._found[: self._needed]


def _most_left(group: tuple[float, list[int]]) -> float:
    return group[0]


def _left(free: Amount, capacity: Amount, size: Amount, count: int) -> float:
    """How much of a node is left, of what is scarcest, with so many members there."""
    return min(
        int(free.cpus - size.cpus * count) / max(int(capacity.cpus), 1),
        int(free.memory_mib - size.memory_mib * count) / max(int(capacity.memory_mib), 1),
        int(free.disk_mib - size.disk_mib * count) / max(int(capacity.disk_mib), 1),
    )


def _bigness(part: Part) -> tuple[int, int, int]:
    return part.size.memory_mib, part.size.cpus, part.count


def _within(part: Part, where: list[bool] | None) -> Part:
    """The part with fewer nodes to be on."""
    if where is None:
        return part
    eligible = part.eligible
    both = where if eligible is None else [a and b for a, b in zip(where, eligible, strict=True)]
    return Part(part.count, part.size, apart=part.apart, together=part.together, eligible=both, prefers=part.prefers)


def matched(parts: list[Part], saved_on: list[int], hosts: list[int]) -> list[int]:
    """The same nodes in another order: within each part, members stay where they were saved when they can."""
    found: list[int] = []
    first = 0
    for part in parts:
        left = list(hosts[first : first + part.count])
        placed: list[int] = []
        for node in saved_on[first : first + part.count]:
            if node in left:
                left.remove(node)
                placed.append(node)
            else:
                placed.append(-1)
        for node in placed:
            found.append(left.pop(0) if node < 0 else node)
        first += part.count
    return found


def transfers(old: list[int], new: list[int]) -> tuple[int, int]:
    """How many members move, and in how many rounds if each node takes part in one transfer at a time.

    That is colouring the edges of a multigraph. The busiest node's transfers need a round each, which is enough where
    no node both sends and receives (König, 1916); else half as many more are (Shannon, 1949), or one for each of those
    between one pair of nodes (Vizing, 1964).
    """
    at_node: dict[int, int] = {}
    between: dict[tuple[int, int], int] = {}
    senders: set[int] = set()
    receivers: set[int] = set()
    moves = 0
    for i in range(len(old)):
        a, b = old[i], new[i]
        if a != b:
            moves += 1
            senders.add(a)
            receivers.add(b)
            at_node[a] = at_node.get(a, 0) + 1
            at_node[b] = at_node.get(b, 0) + 1
            pair = (min(a, b), max(a, b))
            between[pair] = between.get(pair, 0) + 1
    if moves == 0:
        return 0, 0
    busiest = max(at_node.values())
    if senders.isdisjoint(receivers):
        return moves, busiest
    return moves, min(moves, busiest * 3 // 2, busiest + max(between.values()))


__all__ = ["NOTHING", "Placing", "matched", "transfers"]
