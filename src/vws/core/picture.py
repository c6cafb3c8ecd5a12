"""The plan and what came before it, as a calendar.

What has happened is read from the record: each workspace's states by its events, and of one that has none in the
window its present state. What is to happen is the leases' plans. The two meet at `now`: no plan is drawn before it and
no fact after it, so a picture never shows what was only meant to be. Steps that go on across it are one bar.

Who reads it sees when each node is taken, as in the calendar of a meeting room, but of others' leases neither owner nor
name (`veiled`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vws.core.calendar import Bar, Calendar, Step
from vws.core.lifecycle import UNORDERED, State
from vws.core.members import name_of
from vws.core.outlook import latest_members, recorded_plan, whole
from vws.core.rates import Rates
from vws.core.rates import Step as Work
from vws.core.site import Changes, Group, Lease, LeaseState, Maintenance, Plan, PlanPhase, Workspace

HOUR_S = 3600
AHEAD_S = 7 * 86_400
ANOTHERS = "another's"

STEP_OF = {
    State.PLANNED: Step.STAGE,
    State.STAGING: Step.STAGE,
    State.STARTING: Step.BOOT,
    State.REBOOTING: Step.BOOT,
    State.RUNNING: Step.RUN,
    State.PAUSING: Step.RUN,
    State.PAUSED: Step.RUN,
    State.RESUMING: Step.RUN,
    State.STOPPED: Step.RUN,  # it keeps its room
    State.LOST: Step.RUN,
    State.SUSPENDING: Step.SUSPEND,
    State.SUSPENDED: Step.SAVED,
    State.RESTORING: Step.RESUME,
    State.TERMINATING: Step.SHUTDOWN,
    State.TERMINATED: Step.SHUTDOWN,
    State.FAILED: Step.SHUTDOWN,
}


@dataclass(frozen=True, slots=True)
class Stretch:
    """One step of one member on a node (an id) over [start, end)."""

    step: Step
    node: str
    start: int
    end: int
    state: str = ""


def calendar_of(
    record: Changes, title: str, *, start: int, now: int, end: int | None = None, rates: Rates | None = None
) -> Calendar:
    """The picture over [start, end), UTC seconds; until the last planned end (a week ahead at most) if no end is given.

    record: nodes, leases, their workspaces, maintenances, and the events since `start`, of leases that have ended
    too. rates: how long boots and ends take; as configured by default if not given.
    """
    end = last_end(record, now) if end is None else end
    frame = _Frame(record, start, end, now, rates or Rates())
    names = {node.id: node.name for node in record.nodes}
    bars = [bar for lease in record.leases for bar in frame.bars_of(lease)]
    bars += [_closed(window, names) for window in record.maintenances if window.meets(start, end)]
    kept = tuple(bar for bar in bars if bar.node and bar.start < end and bar.end > start)
    rows = tuple(node.name for node in record.nodes if node.removed_at is None)
    return Calendar(title, rows, kept, start, end, now)


def last_end(record: Changes, now: int) -> int:
    """When the last thing that is planned is over: an hour ahead at least, a week at most."""
    ends = [lease.plan.end for lease in record.leases if lease.plan is not None and not lease.ended]
    ends += [window.end for window in record.maintenances]
    return min(max([now + HOUR_S, *ends]), now + AHEAD_S)


def veiled(calendar: Calendar, reader: str) -> Calendar:
    """As a user may see it: of others' leases when and where, how much and of which kind; not whose and what for."""
    numbers: dict[str, str] = {}
    bars = []
    for bar in calendar.bars:
        if bar.owner != reader and bar.step is not Step.MAINTENANCE:
            number = numbers.setdefault(bar.workspace, f"{ANOTHERS} {len(numbers) + 1}")
            bar = replace(bar, owner="", label=ANOTHERS, workspace=number)
        bars.append(bar)
    return replace(calendar, bars=tuple(bars))


def _closed(window: Maintenance, names: dict[str, str]) -> Bar:
    node = names.get(window.node, "")
    end = window.end if window.removed_at is None else min(window.end, int(window.removed_at))
    return Bar(
        node, window.start, end, Step.MAINTENANCE, window.id, window.reason, "maintenance", state=str(window.state)
    )


class _Frame:
    """A record, and how much of it is drawn."""

    def __init__(self, record: Changes, start: int, end: int, now: int, rates: Rates) -> None:
        self._start, self._end, self._now = start, end, now
        self._rates = rates
        self._names = {node.id: node.name for node in record.nodes}
        self._members: dict[str, list[Workspace]] = {}
        for workspace in record.workspaces:
            self._members.setdefault(workspace.lease, []).append(workspace)
        self._changes: dict[str, list[tuple[float, str, str]]] = {}
        for event in record.events:
            kind = event.kind.removeprefix("workspace.")
            if event.workspace and kind in STEP_OF:
                before = str(event.data.get("before", ""))
                self._changes.setdefault(event.workspace, []).append((event.at, before, kind))

    def bars_of(self, lease: Lease) -> Iterator[Bar]:
        if lease.plan is not None and lease.plan.begin >= self._end:
            return
        members = sorted(self._members.get(lease.id, ()), key=lambda workspace: workspace.id)
        latest = latest_members(lease, members)
        earlier = {workspace.id: workspace for workspace in members}
        each = [(group, number) for group in lease.groups for number in group.numbers]
        plan = None if lease.ended else recorded_plan(lease, members)
        for index, (group, number) in enumerate(each):
            workspace = latest[index]
            stretches: list[Stretch] = []
            if workspace is not None:
                del earlier[workspace.id]
                stretches += self._past(workspace)
            if not lease.ended:
                stretches += self._ahead(lease, plan, index, group, workspace)
            name = workspace.name if workspace is not None else name_of(lease.name, group, number)
            yield from self._drawn(lease, group, name, stretches)
        for workspace in earlier.values():
            group = next(group for group in lease.groups if group.name == workspace.group)
            yield from self._drawn(lease, group, workspace.name, self._past(workspace))

    # ------------------------------------------------------------ what happened

    def _past(self, workspace: Workspace) -> Iterator[Stretch]:
        """What a workspace was, as far as the record is at hand, until it left its node."""
        until = self._now if workspace.released_at is None else min(int(workspace.released_at), self._now)
        changes = self._changes.get(workspace.id, [])
        if not changes:
            if workspace.released_at is None:
                yield self._was(workspace, str(workspace.state), max(workspace.changed_at, workspace.created_at), until)
            return
        first_at, before, _ = changes[0]
        if before:
            yield self._was(workspace, before, max(workspace.created_at, self._start), first_at)
        ends = [at for at, _, _ in changes[1:]] + [until]
        for (at, _, state), end in zip(changes, ends, strict=True):
            yield self._was(workspace, state, at, min(end, until))

    @staticmethod
    def _was(workspace: Workspace, state: str, start: float, end: float) -> Stretch:
        return Stretch(STEP_OF[State(state)], workspace.node, int(start), int(end), state)

    # ------------------------------------------------------------ what is planned

    def _ahead(
        self, lease: Lease, plan: Plan | None, index: int, group: Group, workspace: Workspace | None
    ) -> Iterator[Stretch]:
        now = self._now
        for each in self._planned(lease, plan, index, group, workspace):
            if each.end > now and each.node:
                yield replace(each, start=max(each.start, now))

    def _planned(
        self, lease: Lease, plan: Plan | None, index: int, group: Group, workspace: Workspace | None
    ) -> Iterator[Stretch]:
        """The steps of a plan, those that are over by now too."""
        now = self._now
        gone = workspace is None or workspace.state in UNORDERED
        if workspace is not None and workspace.released_at is None and (gone or lease.state is LeaseState.ENDING):
            yield Stretch(Step.SHUTDOWN, workspace.node, now, now + max(1, whole(self._rates.cost(Work.SHUTDOWN))))
        if lease.state is LeaseState.ENDING:
            return
        home = workspace.node if workspace is not None and not gone else ""
        if plan is None:
            if lease.state is LeaseState.SUSPENDED:
                yield Stretch(Step.SAVED, home, now, self._end)
            return
        if gone and plan.phase is not PlanPhase.BOOKED:
            return
        yield from self._before(plan, plan.hosts[index], home, group)
        yield from self._run(plan, plan.hosts[index], workspace)

    def _before(self, plan: Plan, node: str, home: str, group: Group) -> Iterator[Stretch]:
        if plan.restores:
            yield Stretch(Step.SAVED, home, self._now, plan.begin)
            if home != node:
                yield Stretch(Step.MIGRATE, home, plan.begin, plan.moved)
                yield Stretch(Step.MIGRATE, node, plan.begin, plan.moved)
            yield Stretch(Step.RESUME, node, plan.moved, plan.run)
        elif plan.phase in (PlanPhase.BOOKED, PlanPhase.PREPARING):
            boot = max(plan.moved, plan.run - whole(self._rates.cost(Work.BOOT, image=group.image)))
            yield Stretch(Step.STAGE, node, plan.moved, boot)
            yield Stretch(Step.BOOT, node, boot, plan.run)

    def _run(self, plan: Plan, node: str, workspace: Workspace | None) -> Iterator[Stretch]:
        rests = plan.phase is PlanPhase.RUNNING and workspace is not None and workspace.state is State.SUSPENDED
        yield Stretch(Step.SAVED if rests else Step.RUN, node, plan.run, plan.stop)
        yield Stretch(Step.SUSPEND if plan.saves else Step.SHUTDOWN, node, plan.stop, plan.end)
        if plan.saves:
            yield Stretch(Step.SAVED, node, plan.end, self._end)

    # ------------------------------------------------------------ drawing

    def _drawn(self, lease: Lease, group: Group, name: str, stretches: Iterable[Stretch]) -> Iterator[Bar]:
        kind = "periodic" if lease.series else str(lease.kind)
        for each in _joined(stretches):
            yield Bar(
                self._names.get(each.node, ""),
                each.start,
                each.end,
                each.step,
                lease.id,
                lease.name,
                kind,
                name,
                lease.owner,
                each.state or str(lease.state),
                group.cpus,
                group.memory_mib,
            )


def _joined(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Without the empty ones; those that go on as they were are one. Their state is the last that was seen."""
    last: Stretch | None = None
    for each in stretches:
        if each.start >= each.end:
            continue
        if last is not None and (last.step, last.node, last.end) == (each.step, each.node, each.start):
            last = replace(last, end=each.end, state=each.state or last.state)
            continue
        if last is not None:
            yield last
        last = each
    if last is not None:
        yield last
