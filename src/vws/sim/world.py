"""A site on a virtual clock: the planner that serves live requests, fed from a workload.

The world knows what the planner must not: when work really ends. At each moment it tells the planner what ended before
its time, lets it take the steps that are due, brings what arrives, and lets it fill the site; then it jumps to the next
moment at which anything can happen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from vws.core.calendar import Bar, Step
from vws.core.plan.demand import RUNNING, Block, Demand, Part
from vws.core.plan.haizea import HaizeaPlanner
from vws.core.plan.planner import DONE, GIVE_UP, GO_ON, KEPT, RUN, Planner
from vws.core.plan.profile import Amount
from vws.core.plan.rules import Rules
from vws.planning import rules_of
from vws.sim.choices import Choices
from vws.sim.report import Fate, Run
from vws.sim.workload import Job, SimulatedPolicy, SimulatedSite

PROGRESS_EVERY = 100


def simulate(
    jobs: Sequence[Job],
    site: SimulatedSite,
    policy: SimulatedPolicy,
    *,
    progress: Callable[[int], None] | None = None,
    keep_bars: bool = False,
) -> Run:
    """What becomes of `jobs` on `site` under `policy`; `progress` is told how many have arrived."""
    began = time.process_time()
    world = World(jobs, site, policy, keep_bars)
    world.live(progress)
    fates = tuple(world.fate(job) for job in jobs)
    return Run(fates, tuple(world.bars), time.process_time() - began)


def planner_for(site: SimulatedSite, policy: SimulatedPolicy) -> Planner:
    """The planner of a site of equal nodes under `policy`."""
    room = Amount(site.cpus, site.memory_mib, 0, 0, max(1, min(site.cpus, site.memory_mib)))
    rules: Rules = rules_of(policy.planning)
    rules.migrate = policy.migrate
    rules.suspend_mib_per_s = site.suspend_mib_per_s
    rules.resume_mib_per_s = site.resume_mib_per_s
    rules.transfer_mib_per_s = site.transfer_mib_per_s
    nodes = [room] * site.nodes
    return HaizeaPlanner(nodes, rules) if policy.rules == "haizea" else Planner(nodes, rules)


@dataclass(slots=True)
class Story:
    """What has become of a job so far."""

    granted: bool = False
    start: int | None = None
    end: int | None = None


class World:
    def __init__(self, jobs: Sequence[Job], site: SimulatedSite, policy: SimulatedPolicy, keep_bars: bool) -> None:
        self.bars: list[Bar] = []
        self._planner = planner_for(site, policy)
        self._choices = Choices(policy, self._planner)
        self._restartable = policy.restartable
        self._keep_bars = keep_bars
        self._jobs = sorted(jobs, key=lambda job: job.submit)
        self._stories: list[Story] = [Story() for _ in self._jobs]
        self._number_of = {job.id: number for number, job in enumerate(self._jobs)}
        self._ends: list[tuple[int, int, int, Demand]] = []
        self._parts: dict[tuple[int, int, int], Part] = {}
        self._demands: dict[int, Demand] = {}
        self._site = site
        self._names = site.node_names()

    def live(self, progress: Callable[[int], None] | None) -> None:
        planner, jobs = self._planner, self._jobs
        arrived, count, now = 0, len(jobs), 0
        while True:
            self._end_early(now)
            planner.due(now)
            while arrived < count and jobs[arrived].submit <= now:
                self._arrive(arrived, now)
                arrived += 1
                if progress is not None and arrived % PROGRESS_EVERY == 0:
                    progress(arrived)
            self._choices.reorder(now)
            planner.fill(now)
            planner.due(now)
            self._follow(now)
            now = self._next(arrived, now)
            if now < 0:
                break
        if progress is not None:
            progress(count)

    def _next(self, arrived: int, now: int) -> int:
        moment = self._planner.next_moment()
        if arrived < len(self._jobs) and (moment < 0 or self._jobs[arrived].submit < moment):
            moment = self._jobs[arrived].submit
        ends = self._ends
        while ends and not self._is_ending(ends[0]):
            heappop(ends)
        if ends and (moment < 0 or ends[0][0] < moment):
            moment = ends[0][0]
        return moment

    def _arrive(self, number: int, now: int) -> None:
        job = self._jobs[number]
        at = -1 if job.at is None else job.at
        demand = Demand(
            str(job.id),
            number,
            job.submit,
            [self._part(job)],
            job.requested,
            at=at,
            preemptible=at < 0,
            restartable=self._restartable,
        )
        self._choices.introduce(job, demand, now)
        self._demands[number] = demand
        self._stories[number].granted = self._planner.arrive(demand, now)

    def _part(self, job: Job) -> Part:
        key = (job.nodes, job.cpus, job.memory_mib)
        part = self._parts.get(key)
        if part is None:
            site = self._site
            alone = 2 * job.cpus > site.cpus or 2 * job.memory_mib > site.memory_mib
            part = Part(job.nodes, Amount(job.cpus, job.memory_mib), apart=alone)
            self._parts[key] = part
        return part

    # ------------------------------------------------------------ what really happens

    def _follow(self, now: int) -> None:
        """Take note of what the planner has had done."""
        planner = self._planner
        if not planner.actions:
            return
        actions, planner.actions = planner.actions, []
        for action in actions:
            demand, block = action.demand, action.block
            story = self._stories[demand.number]
            if action.kind == RUN and (story.start is None or not demand.saved_on):
                story.start = block.run
            if action.kind == RUN:
                self._choices.begins(demand, block.begin)
            elif action.kind in (DONE, KEPT, GIVE_UP):
                self._choices.ends(demand, now)
            if action.kind in (RUN, GO_ON):
                left = self._jobs[demand.number].runs - demand.worked
                if left < block.stop - block.run:
                    heappush(self._ends, (block.run + left, block.stop, block.order, demand))
            elif action.kind == DONE:
                story.end = now
            if self._keep_bars and action.kind in (DONE, KEPT, GIVE_UP):
                self._draw(demand, block, now)

    def _is_ending(self, end: tuple[int, int, int, Demand]) -> bool:
        moment, _, _, demand = end
        block = demand.block
        if demand.phase != RUNNING or block is None:
            return False
        left = self._jobs[demand.number].runs - demand.worked
        return moment == block.run + left and moment < block.stop

    def _end_early(self, now: int) -> None:
        ends, planner = self._ends, self._planner
        while ends and ends[0][0] <= now:
            end = heappop(ends)
            if self._is_ending(end):
                planner.ended(end[3], now)

    # ------------------------------------------------------------ the picture

    def _draw(self, demand: Demand, block: Block, now: int) -> None:
        job = self._jobs[demand.number]
        steps = (
            (Step.MIGRATE, block.begin, block.moved),
            (Step.RESUME if block.restores else Step.BOOT, block.moved, block.run),
            (Step.RUN, block.run, min(block.stop, now)),
            (Step.SUSPEND if block.saves else Step.SHUTDOWN, block.stop, min(block.end, now)),
        )
        for member, host in enumerate(block.hosts):
            for step, start, end in steps:
                if start < end:
                    self.bars.append(self._bar(job, member, host, step, start, end))
            if block.restores and demand.saved_at < block.begin:
                saved = demand.saved_on[member] if member < len(demand.saved_on) else host
                self.bars.append(self._bar(job, member, saved, Step.SAVED, demand.saved_at, block.begin))

    def _bar(self, job: Job, member: int, host: int, step: Step, start: int, end: int) -> Bar:
        kind = "best-effort" if job.at is None else "reservation"
        return Bar(
            self._names[host],
            start,
            end,
            step,
            str(job.id),
            f"{'lease' if job.at is None else 'reservation'} {job.id}",
            kind,
            f"{job.id}-{member + 1}",
            job.owner,
            "",
            job.cpus,
            job.memory_mib,
        )

    def fate(self, job: Job) -> Fate:
        number = self._number_of[job.id]
        story, demand = self._stories[number], self._demands.get(number)
        suspensions, migrations = (demand.suspensions, demand.migrations) if demand else (0, 0)
        return Fate(job, story.granted, story.start, story.end, suspensions, migrations)
