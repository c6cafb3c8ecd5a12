"""EASY and conservative backfilling by trying: every second, every node, nothing kept, everything done anew.

Sites of equal nodes for one machine each, leases that wait their turn, nothing suspended. `off` is first come, first
served: nobody goes ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vws.sim.workload import Job

NEVER = 1 << 40


@dataclass
class Held:
    job: Job
    nodes: list[int]
    start: int
    end: int


@dataclass
class Classic:
    jobs: list[Job]
    nodes: int
    backfill: str
    running: list[Held] = field(default_factory=list)
    booked: list[Held] = field(default_factory=list)
    queue: list[Job] = field(default_factory=list)
    done: dict[int, tuple[int, int]] = field(default_factory=dict)

    def outcome(self) -> list[tuple[int, int | None, int | None]]:
        arrivals = sorted(self.jobs, key=lambda job: job.submit)
        now = 0
        while arrivals or self.queue or self.booked or self.running:
            freed = self._end(now)
            self._begin(now)
            while arrivals and arrivals[0].submit <= now:
                self.queue.append(arrivals.pop(0))
            if freed:
                self._book_anew(now)
            self._serve(now)
            self._begin(now)
            now += 1
        return [(job.id, *self.done[job.id]) for job in self.jobs]

    def _end(self, now: int) -> bool:
        """Whether anything ended."""
        ending = [held for held in self.running if held.start + held.job.runs == now]
        for held in ending:
            self.running.remove(held)
            self.done[held.job.id] = (held.start, now)
        return bool(ending)

    def _begin(self, now: int) -> None:
        for held in list(self.booked):
            if held.start == now:
                self.booked.remove(held)
                self.running.append(held)

    def _book_anew(self, now: int) -> None:
        """Each in turn to its earliest start while the others stand; then whoever has room now, until none has."""
        for held in sorted(self.booked, key=lambda held: self._turn(held.job)):
            self._move(held, self._earliest(held.job, now, held.start, but=held))
        moved = True
        while moved:
            moved = False
            for held in sorted(self.booked, key=lambda held: self._turn(held.job)):
                if held.start > now and (there := self._at(held.job, now, but=held)):
                    self._move(held, there)
                    moved = True

    def _move(self, held: Held, there: Held | None) -> None:
        if there is not None and there.start < held.start:
            held.nodes, held.start, held.end = there.nodes, there.start, there.end

    def _serve(self, now: int) -> None:
        allowed = {"off": 0, "easy": 1, "conservative": NEVER}[self.backfill]
        waiting = list(self.queue)
        while waiting:
            job = waiting[0]
            there = self._at(job, now)
            if there is None and len([held for held in self.booked if held.start > now]) < allowed:
                there = self._earliest(job, now, NEVER)
            if there is None:
                break
            self._hold(job, there)
            waiting.pop(0)
        if self.backfill != "off":
            for job in sorted(waiting, key=lambda job: (job.nodes * job.requested, self._turn(job))):
                there = self._at(job, now)
                if there is not None:
                    self._hold(job, there)

    def _hold(self, job: Job, there: Held) -> None:
        self.queue.remove(job)
        self.booked.append(there)

    def _turn(self, job: Job) -> tuple[int, int]:
        return job.submit, job.id

    # ------------------------------------------------------------ room

    def _earliest(self, job: Job, now: int, before: int, but: Held | None = None) -> Held | None:
        second = now
        while second < before:
            there = self._at(job, second, but)
            if there is not None:
                return there
            second += 1
        return None

    def _at(self, job: Job, start: int, but: Held | None = None) -> Held | None:
        """On the nodes which others take soonest after it."""
        end = start + job.requested
        free = []
        for node in range(self.nodes):
            there = [held for held in (*self.running, *self.booked) if node in held.nodes and held is not but]
            if all(held.end <= start or held.start >= end for held in there):
                free.append((min((held.start for held in there if held.start >= end), default=NEVER), node))
        if len(free) < job.nodes:
            return None
        return Held(job, [node for _, node in sorted(free)[: job.nodes]], start, end)
