"""A site's plan, kept in step with what is present there.

The planner (core/plan) knows numbers: nodes by index, demands, blocks. An `Outlook` owns one and speaks the site's
words: it takes over what commits change (`apply`), and says what the planner decided as the plans of leases
(`plan_of`).

Whatever the planner decides is written into the leases' `plan` by the same commit that acts on it. So an outlook made
anew from the record is equal to the one that was kept in step, and `apply` finds nothing to do when a commit is its
own. Where the two differ, the record is right: the demand is taken over as the record has it.
"""

from __future__ import annotations

import functools
import ipaddress
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vws.core.admission import everyone, within_limits
from vws.core.caches import NodeCache
from vws.core.chosen import Chosen
from vws.core.holdings import Holdings, NodeSet
from vws.core.plan.demand import BOOKED, OVER, PHASES, WAITING, Block, Demand, Part
from vws.core.plan.live import SitePlanner
from vws.core.plan.placing import Placing
from vws.core.plan.profile import FOREVER, NOTHING, Amount
from vws.core.plan.rules import Rules
from vws.core.plan.timeline import Timeline
from vws.core.policy import HostView, Standing, best_fit, spread
from vws.core.prefetch import files_of
from vws.core.rates import Rates, Step, boot_s, stage_s
from vws.core.requirements import node_attributes, parse
from vws.core.shares import Shares
from vws.core.site import (
    LEASE_AHEAD,
    Capacity,
    Changes,
    Group,
    Image,
    ImageFile,
    Lease,
    LeaseState,
    Maintenance,
    Node,
    NodeState,
    Plan,
    PlanPhase,
    Workspace,
)

# A network's own address, its broadcast and the gateway cannot be given.
ADDRESSES_NOT_GIVEN = 3
MIB = 1 << 20
ENDING = LeaseState.ENDING
# There what was promised begins, and what is saved is resumed.
AWAKE = frozenset({NodeState.READY, NodeState.DRAINED})
PHASE_OF = {phase: PHASES.index(str(phase)) for phase in PlanPhase}
PHASE_NAMED = {number: phase for phase, number in PHASE_OF.items()}


class Outlook:
    """rules: what the site chose for planning. chosen: its policy's functions."""

    def __init__(self, rules: Rules | None = None, chosen: Chosen | None = None) -> None:
        self.rules = rules or Rules(spread=True, migrate=False)
        self.chosen = chosen or Chosen()
        self.rates = Rates()
        self.shares: Shares | None = None
        self.planner = SitePlanner(self.rules)
        self.nodes: list[str] = []  # ids, by the planner's index
        self._index: dict[str, int] = {}
        self._node_values: dict[str, Node] = {}
        self._masks: dict[tuple[str, int, int], NodeSet] = {}
        self._windows: dict[str, tuple[int, Amount, Maintenance]] = {}
        self._numbers = 0
        self.overhead_mib = 0  # of one workspace beside its own memory, at worst
        self._overhead_known = True
        self._cpus: set[tuple[int, int]] = set()  # of the nodes there have been: real ones, and how many are leased
        # Nodes and windows have changed: what was planned there may have to go elsewhere.
        self.disturbed = False
        # Hard leases that are to begin where nothing may, and how far the plan had moved when they were last tried.
        self.stuck: set[str] = set()
        self._tried_at = 0
        self.rules.may_suspend = self._may_suspend
        self.rules.spread = self.chosen.host_rank is spread
        if self.chosen.host_rank not in (spread, best_fit):
            self.rules.host_rank = self._rank
        self._holdings = Holdings()
        self._remasked = False
        self._leases: Mapping[str, Lease] = {}
        self._images: Mapping[str, Image] = {}
        self._now = 0
        if self.chosen.membership.limits_concurrency or self.chosen.admit not in (within_limits, everyone):
            self.rules.may_start = self._may_start

    def blank(self) -> Outlook:
        """One of the same site that knows nothing yet."""
        other = Outlook(self.rules, self.chosen)
        other.rates, other.shares = self.rates, self.shares
        return other

    # ------------------------------------------------------------ in step

    def apply(self, changes: Changes, present: Any, now: int) -> None:
        """Take over what a commit has changed. present: the site after it (core/present.py)."""
        self._leases, self._images, self._now = present.leases, present.images, now
        for node in changes.nodes:
            self._take_node(node, now)
        for window in changes.maintenances:
            self._take_window(window, now)
        for cache in changes.caches:
            self._take_cache(cache)
        leases = {lease.id for lease in changes.leases} | {w.lease for w in changes.workspaces}
        for id in sorted(leases):
            self._take_lease(present.leases.get(id), id, present.members(id), now)
        if self._overhead_changed() or self._remasked:
            self._remasked = False
            self._rebuild(present, now)

    def _rebuild(self, present: Any, now: int) -> None:
        """Every size has changed: take all leases over again."""
        for id in sorted(present.leases):
            demand = self.planner.demands.get(id)
            if demand is not None:
                self.planner.forget(demand, now)
        for id in sorted(present.leases):
            self._take_lease(present.leases[id], id, present.members(id), now)

    def _overhead_changed(self) -> bool:
        """Sizes hold what a workspace takes beside its own memory, at worst."""
        if self._overhead_known:
            return False
        self._overhead_known = True
        overhead_mib = max((n.capacity.overhead_mib for n in self._node_values.values()), default=0)
        changed = overhead_mib != self.overhead_mib
        self.overhead_mib = overhead_mib
        return changed

    # ------------------------------------------------------------ nodes

    def hear(self, nodes: Iterable[Node], now: int) -> None:
        """What a decision has just learned of nodes, before it is committed."""
        for node in nodes:
            self._take_node(node, now)

    def _take_node(self, node: Node, now: int) -> None:
        index = self._index_of(node.id)
        capacity = room_of(node)
        if not capacity.same(self.planner.timeline.profiles[index].capacity):
            self.planner.set_capacity(index, capacity)
            self._resize_windows(index, capacity)
        before = self._node_values.get(node.id)
        self._node_values[node.id] = node
        self._cpus.add((node.capacity.cpus, node.capacity.size.cpus))
        if node.removed_at is not None:
            self._node_values.pop(node.id)
        if _is_other(before, node):
            self._fit_anew(index)
            self._overhead_known = False
        state = node.state if node.removed_at is None else NodeState.LOST
        is_open, awake = state is NodeState.READY, state in AWAKE
        timeline = self.planner.timeline
        if (is_open, awake) != (timeline.open[index], timeline.awake[index]):
            self.planner.set_open(index, is_open, awake)
            self.disturbed = True

    def _index_of(self, id: str) -> int:
        """A node's index. One that nobody knows, or not any more, has no room and runs nothing."""
        index = self._index.get(id)
        if index is None:
            index = self._index[id] = self.planner.add_node(NOTHING)
            self.nodes.append(id)
            for nodes in self._masks.values():
                nodes.each.append(False)
            self._holdings.add_node()
            # What a record has planned there has to go elsewhere.
            self.disturbed = True
        return index

    def mask(self, requirement: str, cpus: int, image_bytes: int = 0) -> list[bool]:
        """By index, whether a node can hold a member that asks for that; kept right as nodes change."""
        return self._fit(requirement, cpus, image_bytes).each

    def _fit(self, requirement: str, cpus: int, image_bytes: int = 0) -> NodeSet:
        key = (requirement, cpus, image_bytes)
        found = self._masks.get(key)
        if found is None:
            found = self._masks[key] = NodeSet([self._is_fit(index, *key) for index in range(len(self.nodes))])
        return found

    def _is_fit(self, index: int, requirement: str, cpus: int, image_bytes: int) -> bool:
        node = self._node_values.get(self.nodes[index])
        return node is not None and is_fit(node, requirement, cpus) and self._holdings.can_hold(index, image_bytes)

    def _fit_anew(self, index: int) -> None:
        """What a node could hold has changed."""
        for key, mask in self._masks.items():
            mask.set(index, self._is_fit(index, *key))
        self.planner.timeline.changed()

    def _fit_of(self, group: Group) -> NodeSet:
        """The nodes that could have a member of a group. Images that every cache can hold have one set in common."""
        image_bytes = self.image_bytes(group)
        return self._fit(group.requirement, group.cpus, image_bytes if image_bytes > self._holdings.least_size else 0)

    def image_bytes(self, group: Group) -> int:
        """What a member's images take in its node's cache."""
        return sum(file.sent_bytes for file in files_of(group, self._images).values())

    def cache_size(self, node: str) -> int:
        """What a node's image cache can hold, in bytes; 0: not known."""
        return self._holdings.sizes[self._index[node]]

    def _take_window(self, window: Maintenance, now: int) -> None:
        before = self._windows.pop(window.id, None)
        if before is not None:
            index, amount, known = before
            self.planner.reopen(index, amount, max(known.start, 0), known.end)
        if window.removed_at is None and window.node in self._index:
            index = self._index[window.node]
            amount = self.planner.timeline.profiles[index].capacity
            self._windows[window.id] = (index, amount, window)
            self.planner.close(index, amount, max(window.start, 0), window.end)
        self.disturbed = True

    def _resize_windows(self, index: int, capacity: Amount) -> None:
        for id, (at, before, window) in self._windows.items():
            if at == index:
                self.planner.reopen(index, before, max(window.start, 0), window.end)
                self.planner.close(index, capacity, max(window.start, 0), window.end)
                self._windows[id] = (index, capacity, window)

    def displace(self, now: int) -> list[str]:
        """Plan anew what was to begin where nothing may. Gives the ids of the hard leases that have no other place."""
        if not self.disturbed and (not self.stuck or self.planner.moves == self._tried_at):
            return []
        self.disturbed = False
        shut: dict[int, list[tuple[int, int]]] = {}
        for index, is_open in enumerate(self.planner.timeline.open):
            if not is_open:
                shut[index] = [(0, FOREVER)]
        for index, _, window in self._windows.values():
            shut.setdefault(index, []).append((window.start, window.end))
        self.stuck = {demand.id for demand in self.planner.displace(shut, now)} if shut else set()
        self._tried_at = self.planner.moves
        return sorted(self.stuck)

    def capacity(self, node: str) -> tuple[Capacity, str]:
        """What a node offers, and its name."""
        value = self._node_values[node]
        return value.capacity, value.name

    def room(self, node: str, start: int, end: int) -> Amount:
        """The least that a node has left over [start, end)."""
        return self.planner.timeline.profiles[self._index[node]].least(start, end)

    def whole_room(self, node: str) -> Amount:
        """All that a node has to give, were it empty."""
        return self.planner.timeline.profiles[self._index[node]].capacity

    def look(self, demand: Demand, now: int) -> tuple[Block | None, list[Demand]]:
        """The block that a demand would get, and who would give way for it. Nothing is changed."""
        if demand.hard:
            return self.planner.find(demand, now)
        placing = self.planner.placing
        block = placing.best(demand, now) or placing.later(demand, now)
        if block is not None and 0 <= demand.by < block.stop:
            block = None
        return block, []

    def could_ever(self, demand: Demand) -> bool:
        """Whether the empty site, with all of its nodes, could run it."""
        if not all(self.planner.timeline.could_hold(part) for part in demand.asks):
            return False
        return len(demand.asks) == 1 or self._could_together(demand)

    def _could_together(self, demand: Demand) -> bool:
        """Whether there is room for all of its groups at once, each of which has room alone."""
        empty = Timeline([profile.capacity for profile in self.planner.timeline.profiles])
        hosts, _ = Placing(empty, self.rules).nodes(demand, 0, 1, 1)
        return hosts is not None

    def hosts_of(self, demand: Demand) -> list[str]:
        """The ids of its nodes, as far as they are still there."""
        hosts = demand.block.hosts if demand.block is not None else []
        return sorted({self.nodes[host] for host in hosts if host >= 0} & self._node_values.keys())

    def open_until(self, demand: Demand, end: int, now: int) -> int:
        """Until when, `end` at most, its nodes have room for it."""
        return self.planner.could_last(demand, end, now)

    def why_closed(self, present: Any, demand: Demand, node: str, start: int, end: int, now: int) -> str:
        """Why a node has no room for its members here over [start, end); "" if it has."""
        closed = present.closed(node, start, end, now=now)
        if closed:
            return str(closed)
        return "others have it by then" if self.planner.is_taken(demand, self._index[node], start, end) else ""

    def resize(self, demand: Demand, lease: Lease, members: Iterable[Workspace], now: int) -> bool:
        """Give a demand the sizes that `lease` and its members have now; False if that has no room."""
        found = latest_members(lease, members)
        parts = [self._part(group, memory_of(group, lease, found)) for group in lease.groups]
        before = demand.parts
        if not self.planner.resize(demand, parts, now):
            return False
        if demand.block is None and not demand.kept and not self.could_ever(demand):
            return not self.planner.resize(demand, before, now)
        return True

    def room_beside(self, demand: Demand, now: int) -> dict[str, Amount]:
        """By node of a demand, the least that others leave until its block's end."""
        block = demand.block
        if block is None:
            return {}
        self.planner.timeline.lift(demand.parts, block, now)
        found = {node: self.room(node, now, block.end) for node in self.hosts_of(demand)}
        self.planner.timeline.lay(demand.parts, block, now)
        return found

    def members_on(self, demand: Demand, node: str, groups: Iterable[Group]) -> list[Group]:
        """The group of each member that a demand has on a node."""
        hosts = demand.block.hosts if demand.block is not None else []
        each = [group for group in groups for _ in range(group.count)]
        return [group for group, host in zip(each, hosts, strict=True) if host == self._index[node]]

    # ------------------------------------------------------------ leases

    def _take_lease(self, lease: Lease | None, id: str, members: list[Workspace], now: int) -> None:
        demand = self.planner.demands.get(id)
        if lease is None or lease.ended:
            if demand is not None:
                self.planner.forget(demand, now)
            return
        recorded = recorded_plan(lease, members)
        present_members = latest_members(lease, members)
        if demand is not None and self._agrees(demand, lease, recorded, present_members):
            self._let_go(demand, lease, present_members, now)
            return
        number = self.number() if demand is None else demand.number
        if demand is not None:
            self.planner.forget(demand, now)
        demand = self.demand_of(lease, number, members)
        block = None if recorded is None else self._block_of(recorded)
        phase = PHASE_OF[recorded.phase] if recorded is not None else OVER if lease.state is ENDING else WAITING
        self.planner.adopt(demand, phase, block, now)
        self._let_go(demand, lease, present_members, now)

    def number(self) -> int:
        """For the next demand: ties are broken by it."""
        self._numbers += 1
        return self._numbers

    def _agrees(self, demand: Demand, lease: Lease, plan: Plan | None, members: list[Workspace | None]) -> bool:
        sizes = [self._size(group, memory_of(group, lease, members)) for group in lease.groups]
        mine = [part.size.plus(part.kept_size) if demand.kept else part.size for part in demand.parts]
        return (
            self.same_plan(self.plan_of(demand), plan)
            and sizes == mine
            and demand.requested == lease.duration_s
            and demand.worked == lease.worked_s
        )

    @staticmethod
    def same_plan(mine: Plan | None, recorded: Plan | None) -> bool:
        """Overdue blocks are prolonged without telling the record, and gone members leave their node blank."""
        if mine is None or recorded is None:
            return mine is recorded
        if (mine.phase, mine.begin, mine.run, mine.saves) != (
            recorded.phase,
            recorded.begin,
            recorded.run,
            recorded.saves,
        ):
            return False
        if mine.stop != recorded.stop and mine.phase is not PlanPhase.PREPARING:
            return False
        return all(a == b for a, b in zip(mine.hosts, recorded.hosts, strict=True) if a)

    def _let_go(self, demand: Demand, lease: Lease, members: list[Workspace | None], now: int) -> None:
        """Room of members that are gone while the others stay."""
        if not demand.kept and (demand.block is None or demand.phase == BOOKED):
            return
        for index, member in enumerate(members):
            if member is not None and member.released_at is not None:
                self.planner.left(demand, index, now)

    def demand_of(self, lease: Lease, number: int, members: Iterable[Workspace] = ()) -> Demand:
        """What the planner is to know of a lease."""
        found = latest_members(lease, list(members))
        hard = not lease.soft
        demand = Demand(
            lease.id,
            number,
            int(lease.submitted_at),
            [self._part(group, memory_of(group, lease, found)) for group in lease.groups],
            lease.duration_s,
            at=lease.start if hard and lease.start is not None else -1,
            by=-1 if lease.deadline is None else lease.deadline,
            preemptible=lease.preemptible,
            restartable=lease.restartable,
            urgent=lease.urgent,
            prepare_s=0 if lease.kind == "immediate" else self.prepare_s(lease),
            shutdown_s=0 if hard else self.shutdown_s(),
            turn=self.turn(lease, lease.submitted_at),
            standing=self.chosen.standing(lease),
            one_node=lease.one_node,
        )
        demand.worked = lease.worked_s
        demand.hurries = lease.urgent and lease.kind == "immediate"
        demand.suspensions, demand.migrations, demand.restarts = lease.suspensions, lease.migrations, lease.restarts
        if is_kept(lease):
            here = [w is not None and w.released_at is None for w in found]
            demand.saved_on = [
                self._index_of(w.node) if w and is_here else -1 for w, is_here in zip(found, here, strict=True)
            ]
        return demand

    def _part(self, group: Group, memory_mib: int) -> Part:
        part = Part(
            group.count,
            self._size(group, memory_mib),
            apart=group.apart,
            together=group.together,
            eligible=self._fit_of(group).each,
            prefers=self._holders(group.image).each,
        )
        part.kept_size = Amount(0, 0, group.disk_mib, 0, 1)
        return part

    def _size(self, group: Group, memory_mib: int) -> Amount:
        return Amount(group.cpus, memory_mib + self.overhead_mib, group.disk_mib, group.bandwidth_mbit, 1)

    def turn(self, lease: Lease, now: float) -> float:
        """Its key in the queue, the smallest first."""
        return float(self.chosen.order(self.chosen.standing(lease), self.shares or Shares(), now))

    def _may_start(self, demand: Demand, at: int) -> bool:
        return not self.held_back(demand, at)

    def held_back(self, demand: Demand, at: int) -> str:
        """The limit that keeps a soft demand from beginning at `at`, in words; "" if none does. What is planned
        counts."""
        return self.chosen.kept_from(self._standing(demand), self._beside(demand), at)

    def check_promise(self, demand: Demand, now: int) -> None:
        """A demand with a deadline is promised its time: raises what a limit says against it then."""
        block, _ = self.look(demand, now)
        if block is not None:
            self.chosen.check_start(self._standing(demand), self._beside(demand), block.begin)

    def never_admitted(self, demand: Demand) -> str:
        """The limit that keeps a soft demand from ever beginning, though its owner had nothing else; "" if none does.
        It was higher when the lease was asked for."""
        return self.chosen.kept_from(self._standing(demand), (), self._now)

    def _standing(self, demand: Demand) -> Standing:
        assert isinstance(demand.standing, Standing)
        return demand.standing

    def _beside(self, demand: Demand) -> Iterator[Standing]:
        """Those that hold, or are planned to hold, what counts against the same limits."""
        beside = self.chosen.beside(self._standing(demand).owner)
        for each in self.planner.holding.values():
            standing, block = each.standing, each.block
            if each is not demand and block is not None and isinstance(standing, Standing) and standing.owner in beside:
                yield standing.starting(block.begin)

    def turn_to(self, now: int) -> None:
        """The moment of the decision that is being made."""
        self._now = now

    def reorder(self, shares: Shares, now: float) -> None:
        """Put those that wait in the turn that they have now."""
        self.shares = shares
        for id, demand in self.planner.demands.items():
            lease = self._leases.get(id)
            if lease is not None and lease.soft:
                demand.turn = self.turn(lease, now)
        self.planner.turn_anew()

    def _rank(self, demand: Demand, node: int, at: int, until: int) -> float:
        """How little a node is wanted for a demand, by the site's own choice of hosts."""
        profile, value = self.planner.timeline.profiles[node], self._node_values[self.nodes[node]]
        free = profile.free_at(at)
        prefers = demand.parts[0].prefers
        view = HostView(
            value.name,
            profile.capacity.cpus,
            free.cpus,
            profile.capacity.memory_mib,
            free.memory_mib,
            profile.capacity.places - free.places,
            prefers is not None and prefers[node],
            math.inf if until >= FOREVER else until,
        )
        return self.chosen.host_rank(view)

    def _take_cache(self, cache: NodeCache) -> None:
        """What a node holds by now. One that was removed is no news."""
        if cache.id not in self._index and cache.removed_at is not None:
            return
        index, least = self._index_of(cache.id), self._holdings.least_size
        size = self._holdings.sizes[index]
        self._holdings.take(index, cache)
        if self._holdings.sizes[index] != size:
            self._fit_anew(index)
            lower = self._holdings.least_size
            # Images that were no question are one now: who wants them must be told where they may be.
            if (lower < least or not least) and any(_bytes_of(image) > lower for image in self._images.values()):
                self._remasked = True

    def holds(self, node: str, image: str) -> bool:
        """Whether all files of an image are on a node, as far as is known."""
        return node in self._index and self._holders(image).each[self._index[node]]

    def _holders(self, image: str) -> NodeSet:
        return self._holdings.with_image(self._images.get(image), image)

    def _may_suspend(self, hard: Demand, victim: Demand) -> bool:
        return self.chosen.may_suspend(hard.standing, victim.standing)  # type: ignore[arg-type]

    # ------------------------------------------------------------ preparation

    def prepare_s(self, lease: Lease) -> int:
        """How long it takes at most until all its workspaces run, wherever they come to be."""
        members = sum(group.count for group in lease.groups)
        alone_s = max(boot_s(self.rates, members, image=group.image) for group in lease.groups)
        crowding = self._crowding(sum(group.count * group.cpus for group in lease.groups))
        return whole(self._stage_s(lease) + alone_s * crowding)

    def _stage_s(self, lease: Lease) -> float:
        """Until a node has all files that a lease's members need: what every node holds takes no time, and what several
        of them need, a disk that others are deltas on, takes it once."""
        needed: dict[str, ImageFile] = {}
        limits = [0.0]
        for group in lease.groups:
            where = self._fit_of(group)
            missing = self._holdings.missing(files_of(group, self._images), where)
            needed.update((file.sha256, file) for file in missing)
            limits += [self._holdings.slowest_mbit(where)] if missing else []
        mib = sum(file.sent_bytes for file in needed.values()) / MIB
        return stage_s(self.rates, mib, limit_mbit=min((limit for limit in limits if limit), default=0.0))

    def _crowding(self, cpus: int) -> float:
        """By how much guests that boot together on one node's CPUs are slower than one alone, at worst."""
        return max([1.0, *(min(cpus, leased) / real for real, leased in self._cpus if real > 0)])

    def shutdown_s(self) -> int:
        return whole(self.rates.cost(Step.SHUTDOWN))

    def learn(self, rates: Rates) -> None:
        """Plan by these rates from now on."""
        if rates is self.rates:
            return
        self.rates = rates
        if self.rules.learn(*(rates.cost(step) for step in (Step.SUSPEND, Step.RESUME, Step.TRANSFER, Step.ENACT))):
            self.planner.learn()

    # ------------------------------------------------------------ plans

    def sketch(self) -> dict[str, Any]:
        """What two outlooks of one record have in common: plans, who waits in which turn, sizes and open nodes. Where
        overdue blocks end for now is left out: that is moved on without being recorded."""
        plans = {}
        for id, demand in self.planner.demands.items():
            plan = self.plan_of(demand)
            sizes = [
                (part.count, part.size.plus(part.kept_size) if demand.kept else part.size) for part in demand.parts
            ]
            said = plan and (plan.phase, plan.hosts, plan.begin, plan.run, plan.saves, plan.doomed)
            setbacks = demand.suspensions, demand.migrations, demand.restarts
            plans[id] = (said, sizes, demand.requested, demand.worked, setbacks)
        opened = {id: self.planner.timeline.open[index] for id, index in self._index.items()}
        waiting = [demand.id for demand in self.planner.queue]
        return {"plans": plans, "waiting": waiting, "open": {id for id, is_open in opened.items() if is_open}}

    def plan_of(self, demand: Demand) -> Plan | None:
        """What the record is to say of a demand; "" in hosts for a member that is gone."""
        block = demand.block
        if block is None:
            return None
        return Plan(
            PHASE_NAMED[demand.phase],
            tuple(self.nodes[host] if host >= 0 else "" for host in block.hosts),
            block.begin,
            block.moved,
            block.run,
            block.stop,
            block.end,
            block.saves,
            block.restores,
            block.doomed,
            block.moves,
        )

    def _block_of(self, plan: Plan) -> Block:
        hosts = [self._index_of(host) if host else -1 for host in plan.hosts]
        block = Block(hosts, plan.begin, plan.moved, plan.run, plan.stop, plan.end)
        block.saves, block.restores, block.doomed, block.moves = plan.saves, plan.restores, plan.doomed, plan.moves
        return block


# ---------------------------------------------------------------- nodes


def room_of(node: Node) -> Amount:
    """All that a node can hold; nothing of one that is removed."""
    if node.removed_at is not None:
        return Amount(0, 0, 0, 0, 0)
    size = node.capacity.size
    return Amount(size.cpus, size.memory_mib, size.disk_mib, node.capacity.bandwidth_mbit, places_of(node.subnet))


@functools.lru_cache(maxsize=16_384)
def places_of(subnet: str) -> int:
    return max(0, ipaddress.ip_network(subnet).num_addresses - ADDRESSES_NOT_GIVEN)


def _bytes_of(image: Image) -> int:
    return sum(file.sent_bytes for file in image.files)


def _is_other(before: Node | None, node: Node) -> bool:
    """Whether anything has changed by which nodes are chosen; most often only its orders have."""
    if before is None or node.removed_at is not None:
        return True
    return (
        (before.capacity, before.hypervisor, before.name) != (node.capacity, node.hypervisor, node.name)
        or before.traits != node.traits
        or (before.labels, before.attributes) != (node.labels, node.attributes)
    )


def is_fit(node: Node, requirement: str, cpus: int) -> bool:
    """Whether the node is such that a member could be there at all."""
    if node.removed_at is not None or cpus > node.capacity.cpus:
        return False
    return not requirement or parse(requirement).matches(node_attributes(node))


# ---------------------------------------------------------------- leases


def latest_members(lease: Lease, members: Iterable[Workspace]) -> list[Workspace | None]:
    """The workspace of each member, group by group, the last one where it was made anew; None for none yet."""
    last: dict[tuple[str, int], Workspace] = {}
    for workspace in members:
        last[workspace.group, workspace.number] = workspace
    return [last.get((group.name, number)) for group in lease.groups for number in group.numbers]


def memory_of(group: Group, lease: Lease, members: list[Workspace | None]) -> int:
    """The most that a member of the group holds: what it was booted with may be more than what is asked now."""
    mine = [w for w in members if w is not None and w.group == group.name and w.released_at is None]
    held = [w.held.memory_mib for w in mine]
    return max([group.memory_mib, *held])


def is_kept(lease: Lease) -> bool:
    """Whether the plan has saved its workspaces since they were made, so that something of them is on their nodes for
    good."""
    if not lease.soft:
        return False
    return lease.plan.restores if lease.plan is not None else lease.state not in LEASE_AHEAD


def recorded_plan(lease: Lease, members: list[Workspace]) -> Plan | None:
    """The lease's plan. One from before there were plans holds its nodes from its start to its end."""
    if lease.plan is not None or lease.soft or lease.state is LeaseState.PLANNED:
        return lease.plan
    if lease.start is None or lease.end is None:
        return None
    hosts = tuple(w.node if w is not None else "" for w in latest_members(lease, members))
    start, end = lease.start, max(lease.start, lease.end)
    return Plan(PlanPhase.RUNNING, hosts, start, start, start, end, end)


def whole(seconds: float) -> int:
    return -int(-seconds // 1)
