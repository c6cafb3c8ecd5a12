"""What to do next with one workspace, and what to say of it: the agent's only decision.

Pure: an order (or none), what the hypervisor has (or nothing), what this agent
remembers of the workspace, and the time by the service's clock go in; one step
and one fact come out. The agent carries the step out, remembers how it went
(`succeeded`, `failed`) and asks again, until there is nothing to do. Since every
answer derives from what is there, a killed agent needs no journal: it looks, and
goes on.

The table is in docs/designs/0001-foundation.md, "The node". Three points of it
are settled by memory rather than by looks:

- A boot counts as started once this agent saw it run (`Memory.boot`). The
  hypervisor notes the number before it starts the domain, so after a kill in
  between the number alone would claim a boot that never was.
- A guest counts as up from its first answer on (`Memory.up`), for what becomes
  of its sshd later is its own affair.
- A workspace whose end was enforced here stays ended (`Memory.ended`), even if
  an extension arrives while it is being removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum, auto

from vws.core.deployment import WorkspaceFact, WorkspaceOrder
from vws.core.lifecycle import Desired, Observation
from vws.ports import Instance


class Step(StrEnum):
    """NOTHING: rest. LOOK: ask whether the guest answers. CONSOLE: keep the end of its console's log.
    END: note on disk that its end has come. The others are the hypervisor's calls of that name."""

    NOTHING = auto()
    CREATE = auto()
    START = auto()
    LOOK = auto()
    STOP = auto()
    PAUSE = auto()
    RESUME = auto()
    SUSPEND = auto()
    RESTORE = auto()
    RESIZE = auto()
    UPDATE = auto()
    CONSOLE = auto()
    END = auto()
    REMOVE = auto()


TRIES = 3
LONGEST_PAUSE_S = 30.0
LOOK_OFTEN_FOR_S = 30.0
ENDED_BEFORE = "its lease had ended on the node before the extension arrived there"
NOT_CREATED = "its disk has vanished from the node; what it held is lost, request a new workspace"


@dataclass(frozen=True, slots=True)
class Failure:
    """How often a step failed in a row for one boot, why, and when it may be tried again (service's clock). refused: it
    is the image that this node will not boot."""

    boots: int
    tries: int
    reason: str
    final: bool
    again_at: float
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """What an agent remembers of one workspace; `boot`, `booted_at`, `up` and `ended` are kept on disk.

    boot: the last boot seen to have begun, at `booted_at`; up: the last boot in which the guest answered;
    looked_at: when this process last asked the guest in vain; console: the boot whose console's end was kept;
    sized: the (cpus, memory_mib) last given to the hypervisor by this process; fetched_mib: what it downloaded.
    """

    boot: int = 0
    booted_at: float = 0.0
    up: int = 0
    ended: bool = False
    looked_at: float | None = None
    console: int = 0
    last_words: str = ""
    sized: tuple[int, int] | None = None
    fetched_mib: int = 0
    failures: Mapping[Step, Failure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """`again_at`: decide again then, if nothing happens before (service's clock); None: only when something happens."""

    step: Step
    fact: WorkspaceFact | None
    again_at: float | None = None


S, O, D = Step, Observation, Desired  # noqa: E741

# This boot was started: what is ordered, what is there, and the step from here to there.
STEPS: dict[Desired, dict[Observation, Step]] = {
    D.RUN: {O.PAUSED: S.RESUME, O.SUSPENDED: S.RESTORE},
    D.PAUSE: {O.RUNNING: S.PAUSE, O.SUSPENDED: S.RESTORE},
    D.SUSPEND: {O.RUNNING: S.SUSPEND, O.PAUSED: S.SUSPEND},
}
# The boot before this one must give way first. What is saved to disk is restored only to be stopped: a saved domain
# that was merely forgotten would return at the next start instead of the boot that was ordered.
GIVE_WAY = {O.RUNNING: S.STOP, O.PAUSED: S.STOP, O.SUSPENDED: S.RESTORE}
DOING = {
    S.CREATE: "waiting to be created",
    S.START: "starting",
    S.LOOK: "waiting for the guest to answer",
    S.STOP: "stopping, to boot anew",
    S.PAUSE: "pausing",
    S.RESUME: "resuming",
    S.SUSPEND: "suspending to disk",
    S.RESTORE: "restoring from disk",
}


def converge(
    order: WorkspaceOrder | None, instance: Instance | None, memory: Memory, now: float, *, known: bool
) -> Decision:
    """The next step and the fact to report. `known`: there are orders at all, so a missing one means removal."""
    end = order.end if order else instance.end if instance else 0
    if order is None or order.desired is D.REMOVE:
        decision = _unordered(instance, memory, now, known or order is not None)
    elif memory.ended or now >= order.end:
        decision = _ended(order, instance, memory, now)
    elif instance is None or not instance.created:
        decision = _uncreated(order, instance)
    else:
        decision = _ordered(order, instance, memory, now)
    decision = _tempered(decision, order, memory, now)
    fact = decision.fact and replace(decision.fact, fetched_mib=memory.fetched_mib)
    return replace(decision, fact=fact, again_at=_soonest(now, decision.again_at, float(end)))


def _soonest(now: float, again_at: float | None, end: float) -> float | None:
    times = [t for t in (again_at, end if end > now else None) if t is not None]
    return min(times, default=None)


def _unordered(instance: Instance | None, memory: Memory, now: float, known: bool) -> Decision:
    if instance is None:
        return Decision(S.NOTHING, None)
    if memory.ended or 0 < instance.end <= now:
        return _removal(instance, memory, "removing it, its lease has ended", ended=True)
    if known:
        return _removal(instance, memory, "removing it", ended=False)
    return Decision(S.NOTHING, None)


def _ended(order: WorkspaceOrder, instance: Instance | None, memory: Memory, now: float) -> Decision:
    if instance is not None:
        return _removal(instance, memory, "removing it, its lease has ended", ended=True)
    reason = "its lease has ended" if now >= order.end else ENDED_BEFORE
    return Decision(S.NOTHING, WorkspaceFact(order.id, O.ENDED, boots=memory.boot, reason=reason))


def _removal(instance: Instance, memory: Memory, doing: str, *, ended: bool) -> Decision:
    fact = WorkspaceFact(instance.id, O.REMOVING, boots=instance.boots, step=doing)
    if ended and not memory.ended:
        return Decision(S.END, fact)
    if memory.console < instance.boots:
        return Decision(S.CONSOLE, fact)
    return Decision(S.REMOVE, fact)


def _uncreated(order: WorkspaceOrder, instance: Instance | None) -> Decision:
    begun = instance is not None and instance.boots >= order.boots
    if begun or not order.may_create:
        return Decision(S.NOTHING, WorkspaceFact(order.id, O.BROKEN, reason=NOT_CREATED))
    return Decision(S.CREATE, WorkspaceFact(order.id, O.STAGING, step=DOING[S.CREATE]))


def _ordered(order: WorkspaceOrder, instance: Instance, memory: Memory, now: float) -> Decision:
    decision = _toward(order, instance, memory, now)
    if instance.end != order.end and not _resting(S.UPDATE, order, memory, now):
        return replace(decision, step=S.UPDATE)
    return decision


def _toward(order: WorkspaceOrder, instance: Instance, memory: Memory, now: float) -> Decision:
    if instance.boots < order.boots:
        return _step(GIVE_WAY.get(instance.state, S.START), instance, O.STARTING)
    if instance.state in (O.STOPPED, O.BROKEN):
        if not _begun(order, instance, memory):
            return _step(S.START, instance, O.STARTING)
        return _rested(instance, memory)
    here = _alive(instance, memory) if instance.state is O.RUNNING else instance.state
    step = STEPS[order.desired].get(instance.state)
    if step is not None:
        return _step(step, instance, here)
    if instance.state is O.RUNNING:
        return _running(order, instance, memory, now)
    return _step(S.NOTHING, instance, here)


def _begun(order: WorkspaceOrder, instance: Instance, memory: Memory) -> bool:
    """Whether this boot was started: it was seen to run, or it was the first and left word of its command's end."""
    return memory.boot >= order.boots or (order.boots == 1 and instance.exit_status is not None)


def _rested(instance: Instance, memory: Memory) -> Decision:
    """No domain, though this boot was started: it powered itself off, or it died."""
    if instance.state is O.BROKEN:
        return _broken(instance, memory, instance.reason)
    return _step(S.NOTHING, instance, O.STOPPED)


def _running(order: WorkspaceOrder, instance: Instance, memory: Memory, now: float) -> Decision:
    if memory.up >= instance.boots:
        resize = memory.sized != (order.cpus, order.memory_mib) and not _resting(S.RESIZE, order, memory, now)
        return _step(S.RESIZE if resize else S.NOTHING, instance, O.RUNNING)
    waited_s = now - (memory.booted_at or now)
    if memory.looked_at is None:
        return _step(S.LOOK, instance, O.STARTING)
    if waited_s >= order.boot_limit_s:
        return _broken(instance, memory, _no_answer(order, memory))
    next_at = memory.looked_at + look_pause_s(waited_s)
    if now < next_at:
        return replace(_step(S.NOTHING, instance, O.STARTING, DOING[S.LOOK]), again_at=next_at)
    return _step(S.LOOK, instance, O.STARTING)


def look_pause_s(waited_s: float) -> float:
    """Often while a boot is fresh, then less and less: other guests need the CPU."""
    return 0.2 if waited_s < LOOK_OFTEN_FOR_S else min(2.0, 0.2 * waited_s / LOOK_OFTEN_FOR_S)


def _no_answer(order: WorkspaceOrder, memory: Memory) -> str:
    reason = f"the guest did not answer within {order.boot_limit_s} s of its start"
    return f"{reason}; its console ended with: {memory.last_words}" if memory.last_words else reason


def _broken(instance: Instance, memory: Memory, reason: str) -> Decision:
    """What broke is said only once its console's end is kept: it may be all that its user ever learns."""
    if memory.console < instance.boots:
        return Decision(S.CONSOLE, _fact(instance, _alive(instance, memory)))
    return Decision(S.NOTHING, _fact(instance, O.BROKEN, reason=reason))


def _alive(instance: Instance, memory: Memory) -> Observation:
    return O.RUNNING if memory.up >= instance.boots else O.STARTING


def _step(step: Step, instance: Instance, state: Observation, doing: str = "") -> Decision:
    return Decision(step, _fact(instance, state, step=doing or DOING.get(step, "")))


def _fact(instance: Instance, state: Observation, *, reason: str = "", step: str = "") -> WorkspaceFact:
    said = reason or (instance.reason if state is O.BROKEN else "")
    seen = (instance.host_key, instance.memory_mib, instance.exit_status)
    troubles = instance.disks if state is O.RUNNING else ()
    return WorkspaceFact(instance.id, state, instance.boots, said, step, *seen, disks=troubles)


# ------------------------------------------------------------ failures


def _failure(step: Step, order: WorkspaceOrder | None, memory: Memory) -> Failure | None:
    """The failure of `step` that still counts: a boot ordered anew starts with a clean slate."""
    failure = memory.failures.get(step)
    return failure if failure and failure.boots == _boots(order) else None


def _boots(order: WorkspaceOrder | None) -> int:
    return order.boots if order else 0


def _resting(step: Step, order: WorkspaceOrder | None, memory: Memory, now: float) -> bool:
    failure = _failure(step, order, memory)
    return failure is not None and now < failure.again_at


def _tempered(decision: Decision, order: WorkspaceOrder | None, memory: Memory, now: float) -> Decision:
    """`decision`, unless its step failed before: then wait, or give up, and say why in any case."""
    failure = _failure(decision.step, order, memory)
    if failure is None or decision.fact is None:
        return decision
    if _given_up(decision.step, failure):
        told = replace(decision.fact, state=O.BROKEN, reason=failure.reason, step="", refused=failure.refused)
        return Decision(S.NOTHING, told)
    fact = replace(decision.fact, reason=failure.reason)
    if now < failure.again_at:
        return Decision(S.NOTHING, fact, failure.again_at)
    return replace(decision, fact=fact)


def _given_up(step: Step, failure: Failure) -> bool:
    """Removal, ends and what a user can still call off are tried for ever."""
    if step in (S.CREATE, S.START):
        return failure.final or failure.tries >= TRIES
    return step is S.RESTORE and failure.final


def failed(
    memory: Memory,
    step: Step,
    order: WorkspaceOrder | None,
    reason: str,
    now: float,
    *,
    final: bool = False,
    refused: bool = False,
) -> Memory:
    """`memory` after `step` failed for `reason`. refused: it is the image that is not to boot."""
    before = _failure(step, order, memory)
    tries = before.tries + 1 if before else 1
    again_at = now + min(LONGEST_PAUSE_S, 0.5 * 2 ** min(tries - 1, 10))
    failure = Failure(_boots(order), tries, reason, final, again_at, refused)
    return replace(memory, failures={**memory.failures, step: failure})


def succeeded(memory: Memory, step: Step, order: WorkspaceOrder | None, now: float) -> Memory:
    """`memory` after `step` was carried out. LOOK and CONSOLE have their own: `looked`, `heard_out`."""
    failures = {s: f for s, f in memory.failures.items() if s is not step}
    memory = replace(memory, failures=failures)
    if step is S.END:
        return replace(memory, ended=True)
    if order is None:
        return memory
    if step is S.START:
        size = (order.cpus, order.memory_mib)
        return replace(memory, boot=order.boots, booted_at=now, looked_at=None, sized=size)
    if step is S.RESIZE:
        return replace(memory, sized=(order.cpus, order.memory_mib))
    if step in (S.RESUME, S.RESTORE):
        return replace(memory, booted_at=now, sized=None)
    return memory


def looked(memory: Memory, instance: Instance, up: bool, now: float) -> Memory:
    """`memory` after the guest was asked."""
    return replace(memory, up=instance.boots) if up else replace(memory, looked_at=now)


def heard_out(memory: Memory, instance: Instance, last_words: str) -> Memory:
    """`memory` after the end of the console's log was kept, or found to be out of reach."""
    return replace(memory, console=instance.boots, last_words=last_words)


def seen(memory: Memory, instance: Instance, now: float) -> Memory:
    """`memory` after a look: a domain that is there proves that its boot began."""
    alive = instance.state in (O.RUNNING, O.PAUSED, O.SUSPENDED)
    if not alive or instance.boots <= memory.boot:
        return memory
    return replace(memory, boot=instance.boots, booted_at=now, looked_at=None)
