"""A site's whole life for the planner to plan, and an auditor who believes nothing that the planner says.

`Life` feeds a planner from a `Scenario` as the simulator does, and lets demands end when they really do. After each
call `Auditor` replays the actions in a ledger of its own and looks at everything that must hold at any time; what it
expects is computed anew from the demands' blocks, second by second where need be, never from the planner's sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.core.plan.audit import Auditor
from vws.core.plan.demand import RUNNING, Demand, Part
from vws.core.plan.planner import Planner
from vws.core.plan.profile import FOREVER, Amount
from vws.core.plan.rules import Rules

MOST_MOMENTS = 20_000


@dataclass(frozen=True)
class Members:
    """A part, before the planner sees it."""

    count: int
    size: Amount
    kind: str = ""  # or apart, or together
    eligible: tuple[bool, ...] | None = None
    prefers: tuple[bool, ...] | None = None

    def part(self) -> Part:
        return Part(
            self.count,
            self.size,
            apart=self.kind == "apart",
            together=self.kind == "together",
            eligible=None if self.eligible is None else list(self.eligible),
            prefers=None if self.prefers is None else list(self.prefers),
        )


@dataclass(frozen=True)
class Wish:
    """A demand, and what the world alone knows of it: how long its work takes, and when it is withdrawn.

    ahead: how long before its start a hard one is asked for; within: how long after its submission the deadline is.
    """

    submit: int
    members: tuple[Members, ...]
    requested: int
    runs: int = 1 << 30
    ahead: int = -1
    within: int = -1
    preemptible: bool | None = None  # soft ones are
    restartable: bool = False
    prepare_s: int = 0
    shutdown_s: int = 0
    turn: int | None = None
    withdrawn_after: int = -1
    one_node: bool = False

    def demand(self, number: int) -> Demand:
        return Demand(
            f"d{number}",
            number,
            self.submit,
            [members.part() for members in self.members],
            self.requested,
            at=-1 if self.ahead < 0 else self.submit + self.ahead,
            by=-1 if self.within < 0 else self.submit + self.within,
            preemptible=self.ahead < 0 if self.preemptible is None else self.preemptible,
            restartable=self.restartable,
            prepare_s=self.prepare_s,
            shutdown_s=self.shutdown_s,
            turn=float(self.submit if self.turn is None else self.turn),
            one_node=self.one_node,
        )


@dataclass(frozen=True)
class Scenario:
    """rules: arguments of `Rules`. closed: nodes that take nobody."""

    nodes: tuple[Amount, ...]
    wishes: tuple[Wish, ...]
    rules: dict[str, object] = field(default_factory=dict)
    closed: tuple[int, ...] = ()

    def planner(self) -> Planner:
        planner = Planner(list(self.nodes), Rules(**self.rules))  # type: ignore[arg-type]
        for node in self.closed:
            planner.timeline.open[node] = False
        return planner

    def can_run(self, demand: Demand) -> bool:
        """Whether the empty site has room for it: a site refuses the others before they are planned."""
        whole = Demand("alone", 0, 0, demand.parts, demand.requested, preemptible=False, one_node=demand.one_node)
        return self.planner().placing.best(whole, 0) is not None


class Life:
    """shortcut: whether a booking may be left as it is without looking; without it all are placed anew."""

    def __init__(self, scenario: Scenario, *, audited: bool = True, shortcut: bool = True) -> None:
        self.log: list[tuple[object, ...]] = []
        self.planner = scenario.planner()
        self.demands: dict[str, Demand] = {}
        self.auditor = Auditor(self.planner, self.demands) if audited else None
        self.granted: list[bool] = []
        self._scenario = scenario
        self._shortcut = shortcut
        self._wishes = {f"d{number}": wish for number, wish in enumerate(scenario.wishes)}
        arrivals = (wish.demand(number) for number, wish in enumerate(scenario.wishes))
        self._arrivals = sorted((each for each in arrivals if scenario.can_run(each)), key=lambda each: each.submit)
        self._since: dict[str, int] = {}

    def live(self) -> Life:
        try:
            self._live()
        except AssertionError as error:
            error.add_note(f"scenario = {self._scenario!r}")
            raise
        return self

    def _live(self) -> None:
        now = min((demand.submit for demand in self._arrivals), default=-1)
        for _ in range(MOST_MOMENTS):
            if now < 0:
                break
            self._moment(now)
            now = self._next(now)
        else:
            raise AssertionError("time stands still")
        if self.auditor:
            self.auditor.all_is_over()

    def _moment(self, now: int) -> None:
        for id, demand in sorted(self.demands.items()):
            if self._leaves_at(id, demand) <= now and demand.id in self.planner.demands:
                self.planner.ended(demand, now)
                self._after("ended", now, demand)
        self.planner.due(now)
        self._after("due", now)
        while self._arrivals and self._arrivals[0].submit <= now:
            self._arrive(self._arrivals.pop(0), now)
        if not self._shortcut:
            self.planner._freed_until = FOREVER
        self.planner.fill(now)
        self._after("fill", now)
        self.planner.due(now)
        self._after("due", now)
        if self.auditor:
            self.auditor.moment_is_over(now)

    def _arrive(self, demand: Demand, now: int) -> None:
        if self.auditor:
            self.auditor.before_arrival(demand, now)
        self.demands[demand.id] = demand
        taken = self.planner.arrive(demand, now)
        self.granted.append(taken)
        if not taken:
            del self.demands[demand.id]
        self._after("arrive" if taken else "refused", now, demand)

    def _after(self, call: str, now: int, demand: Demand | None = None) -> None:
        actions, self.planner.actions = self.planner.actions, []
        for action in actions:
            block = action.block
            times = (block.begin, block.moved, block.run, block.stop, block.end, block.saves, tuple(block.hosts))
            self.log.append((now, action.kind, action.demand.id, *times))
        if self.auditor:
            self.auditor.after(call, now, demand, actions)

    # ------------------------------------------------------------ the world

    def _leaves_at(self, id: str, demand: Demand) -> int:
        """When it is withdrawn or its work ends before its time; FOREVER if neither is in sight."""
        wish, block = self._wishes[id], demand.block
        moment = FOREVER if wish.withdrawn_after < 0 else wish.submit + wish.withdrawn_after
        if block is not None and demand.phase == RUNNING and wish.runs < demand.requested:
            done = block.run + max(0, wish.runs - demand.worked)
            if done < block.stop:
                moment = min(moment, done)
        return moment

    def _next(self, now: int) -> int:
        moments = [self._leaves_at(id, demand) for id, demand in self.demands.items() if id in self.planner.demands]
        moments += [demand.submit for demand in self._arrivals[:1]]
        planned = self.planner.next_moment()
        if planned >= 0:
            assert planned > now, "what is due was not done"
            moments.append(planned)
        first = min(moments, default=FOREVER)
        return -1 if first == FOREVER else max(now, first)


def simple(submit: int, count: int, requested: int, **more: object) -> Wish:
    """So many members that have a node of `ONE` each to themselves."""
    return Wish(submit, (Members(count, ONE, "apart"),), requested, **more)  # type: ignore[arg-type]


ONE = Amount(1, 100)


def equal_nodes(count: int, size: Amount = ONE) -> tuple[Amount, ...]:
    return (size,) * count


def starts(life: Life, ids: Sequence[str]) -> list[int]:
    """When each first ran."""
    first: dict[object, int] = {}
    for now, kind, id, *_ in life.log:
        if kind == 2:
            first.setdefault(id, now)  # type: ignore[arg-type]
    return [first.get(id, -1) for id in ids]
