"""What the events tell of how long steps took.

Events say when a workspace's state changed; a step lasts from the one change to the other. Two things make that more
than a subtraction:

- What moves bytes shares its node's disk and network with its neighbours. Steps of one kind that overlap on a node are
  therefore one observation, made when the last of them ends: so many MiB in so many seconds.
- What was disturbed tells nothing: a step that ended otherwise than it should, and all that were under way on a node
  that fell silent, or while nobody was there to hear of their ends.

A stopwatch is its owner's and changed in place. It forgets a step when that ends: it holds no more than is under way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from vws.core.rates import BY_MIB, Observation, Step
from vws.core.site import Event

# The state that a step begins with, and from which states it counts (None: from any).
BEGINS: dict[str, tuple[Step, frozenset[str] | None]] = {
    "staging": (Step.STAGE, None),
    # That of a reboot has the end of the boot before in it.
    "starting": (Step.BOOT, frozenset({"planned", "staging"})),
    "suspending": (Step.SUSPEND, None),
    "restoring": (Step.RESUME, None),
    "migrating": (Step.TRANSFER, None),
    # What does not run any more is sooner gone.
    "terminating": (Step.SHUTDOWN, frozenset({"running"})),
}
# The states that it ends well with.
ENDS: dict[Step, frozenset[str]] = {
    Step.STAGE: frozenset({"starting", "running"}),
    Step.BOOT: frozenset({"running"}),
    Step.SUSPEND: frozenset({"suspended"}),
    Step.RESUME: frozenset({"running"}),
    Step.TRANSFER: frozenset({"suspended", "restoring"}),
    Step.SHUTDOWN: frozenset({"terminated"}),
}
BLINDING = frozenset({"node.silent", "node.lost", "node.removed"})


@dataclass(frozen=True, slots=True)
class _Begun:
    step: Step
    node: str
    at: float


@dataclass(slots=True)
class _Batch:
    """Steps of one kind on one node that overlap. mib: moved by those that have ended."""

    begun_at: float
    under_way: int = 0
    mib: int = 0
    spoilt: bool = False


@dataclass(slots=True)
class _Ordered:
    """A lease whose members were ordered at `at`. waiting: those of which nothing has begun."""

    at: float
    members: int = 0
    waiting: set[str] = field(default_factory=set)


class Stopwatch:
    """Give it every event once, in order."""

    def __init__(self) -> None:
        self._begun: dict[str, _Begun] = {}
        self._batches: dict[tuple[str, Step], _Batch] = {}
        self._ordered: dict[str, _Ordered] = {}

    def hear(self, events: Iterable[Event]) -> Iterator[Observation]:
        """What these events tell of steps that have ended. They count once the iterator is exhausted."""
        for event in events:
            subject, _, state = event.kind.partition(".")
            if event.kind == "workspace.planned":
                self._order(event)
            elif subject == "workspace" and "before" in event.data:
                yield from self._enacted(event)
                yield from self._end(event, state)
                self._begin(event, state)
            elif event.kind in BLINDING:
                self._forget({id for id, begun in self._begun.items() if begun.node == event.node})
            elif event.kind in ("lease.ended", "lease.failed"):
                self._ordered.pop(event.lease, None)

    def interrupt(self) -> None:
        """Nobody listened for a while: what is under way will tell nothing."""
        self._forget(set(self._begun))
        self._ordered.clear()

    def _forget(self, workspaces: set[str]) -> None:
        for id in workspaces:
            begun = self._begun.pop(id)
            self._batches.pop((begun.node, begun.step), None)

    # ------------------------------------------------------------ from the order to the first step

    def _order(self, event: Event) -> None:
        ordered = self._ordered.setdefault(event.lease, _Ordered(event.at))
        ordered.members += 1
        ordered.waiting.add(event.workspace)

    def _enacted(self, event: Event) -> Iterator[Observation]:
        """When something has begun of every member: that took so long for each of them."""
        ordered = self._ordered.get(event.lease)
        if ordered is None:
            return
        ordered.waiting.discard(event.workspace)
        if not ordered.waiting:
            del self._ordered[event.lease]
            yield from _observed(event, Step.ENACT, (event.at - ordered.at) / ordered.members)

    # ------------------------------------------------------------ steps

    def _begin(self, event: Event, state: str) -> None:
        step, before = BEGINS.get(state, (None, None))
        if step is None or (before is not None and event.data["before"] not in before):
            return
        self._begun[event.workspace] = _Begun(step, event.node, event.at)
        if step in BY_MIB:
            self._batches.setdefault((event.node, step), _Batch(event.at)).under_way += 1

    def _end(self, event: Event, state: str) -> Iterator[Observation]:
        begun = self._begun.pop(event.workspace, None)
        if begun is None:
            return
        well = state in ENDS[begun.step]
        if begun.step in BY_MIB:
            yield from self._end_in_batch(event, begun, well)
        elif well:
            yield from _observed(event, begun.step, event.at - begun.at)

    def _end_in_batch(self, event: Event, begun: _Begun, well: bool) -> Iterator[Observation]:
        batch = self._batches.get((begun.node, begun.step))
        if batch is None:
            return
        batch.under_way -= 1
        batch.mib += event.data.get("fetched_mib" if begun.step is Step.STAGE else "memory_mib", 0)
        batch.spoilt |= not well
        if batch.under_way:
            return
        del self._batches[begun.node, begun.step]
        if not batch.spoilt:
            # Nothing was fetched: what staging took was the rest of it.
            step = Step.CREATE if begun.step is Step.STAGE and not batch.mib else begun.step
            yield from _observed(event, step, event.at - batch.begun_at, batch.mib)


def _observed(event: Event, step: Step, seconds: float, mib: int = 0) -> Iterator[Observation]:
    """Nothing of a node that has not said what it runs guests by."""
    hypervisor = event.data.get("hypervisor", "")
    if hypervisor:
        yield Observation(step, seconds, mib, hypervisor, event.image)
