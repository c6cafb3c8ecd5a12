"""How leases and workspaces stand after facts and the passing of time.

A lease's state follows from its workspaces' (`settle`), so that there is one
truth: no lease is active whose workspaces do not run. All or nothing holds until
a lease was active once: a member that breaks before ends the whole. Afterwards the
others stay and the lease is degraded.

A member whose command has ended is done: that its guest is off then breaks nothing, and
when all that are left are done, so is the lease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vws.core.cache_tasks import hear_cache
from vws.core.deployment import NodeReport, WorkspaceFact, facts_of, readable
from vws.core.draft import Draft
from vws.core.lifecycle import FINAL, GOALS, SETTLED, UNORDERED, Command, Observation, State, commanded, observed
from vws.core.site import (
    LEASE_AHEAD,
    LEASE_FINAL,
    Cluster,
    Lease,
    LeaseState,
    Node,
    NodeState,
    OnFailure,
    PlanPhase,
    Workspace,
)

TIME_OVER = "its time was over"
SAVED = frozenset({State.SUSPENDED, State.RESTORING})
BROKEN = frozenset({State.FAILED, State.LOST, State.STOPPED})
# After so many have failed in one place, another one would, too.
REPLACEMENTS_MAX = 3


@dataclass(frozen=True, slots=True)
class Patience:
    """After how many seconds without a sound a node is called silent (nothing new is placed there) and lost."""

    silent_after_s: float = 25.0
    lost_after_s: float = 60.0


# ---------------------------------------------------------------- commands


def give(draft: Draft, workspace: Workspace, command: Command, reason: str = "") -> Workspace:
    """The workspace after `command`, ordered from its node; raises CommandRefused. A repeat changes nothing."""
    state = commanded(workspace.state, command)
    if state == workspace.state:
        return workspace
    after = draft.move(workspace, state, reason, desired=GOALS[command])
    if command is Command.REBOOT:
        # Only a new boot can have more than was defined for the present one.
        after = replace(after, boots=after.boots + 1, memory_defined_mib=after.memory_mib, cpus_defined=after.cpus)
    return draft.order(after)


def begin_end(draft: Draft, lease: Lease, outcome: LeaseState, reason: str) -> Lease:
    """Order everything of a lease removed; it has ended once every node says that nothing is left."""
    lease = draft.put_lease(replace(lease, state=LeaseState.ENDING, outcome=outcome, reason=reason))
    draft.say_lease("lease.ending", lease, reason=reason, outcome=str(outcome), **_exit_statuses(draft, lease))
    for workspace in draft.members(lease.id):
        if workspace.state not in UNORDERED:
            give(draft, workspace, Command.TERMINATE, reason)
    return lease


# ---------------------------------------------------------------- facts


def absorb(draft: Draft, report: NodeReport) -> None:
    """What a node's report changes. The report is the newest of the agent that speaks for the node."""
    report = readable(report)
    node = draft.node(report.node)
    seen = replace(
        node,
        capacity=report.capacity,
        traits=report.traits,
        hypervisor=report.hypervisor,
        hypervisor_reason=report.hypervisor_reason,
        version=report.version,
        instance=report.instance,
        problem=report.problem,
        # 0: the node sees nothing just now, which undoes nothing.
        applied_generation=report.generation or node.applied_generation,
        sequence=max(node.sequence, 1),
        silent=False,
        lost=False,
    )
    if report.generation > node.generation:
        # The record is older than the node's orders (a restored backup): number beyond them.
        seen = replace(seen, generation=report.generation + 1)
    if seen != node:
        _say_node(draft, node, draft.put_node(seen))
    if report.cache is not None:
        hear_cache(draft, node.id, report.cache)
    for workspace, fact, said in facts_of(report, draft.present.on_node(node.id)):
        witness(draft, workspace, fact, said)
    settle(draft)


def _say_node(draft: Draft, before: Node, after: Node) -> None:
    if before.state != after.state:
        draft.say(f"node.{after.state}", node=after.id, name=after.name, before=str(before.state), reason=after.problem)


def witness(draft: Draft, before: Workspace, fact: Observation, said: WorkspaceFact | None = None) -> Workspace:
    """The workspace after a fact. Never refuses."""
    said = _with_troubles(said or WorkspaceFact(before.id, fact))
    state = observed(before.state, fact)
    after = before
    if state != before.state:
        fetched: dict[str, Any] = {"fetched_mib": said.fetched_mib} if before.state is State.STAGING else {}
        after = draft.move(before, state, said.reason or _reason(before, fact, said), **fetched)
    elif said.reason and state not in FINAL:
        after = replace(before, reason=said.reason)
    elif state in SETTLED:
        after = replace(before, reason="")
    after = replace(after, step=said.step, host_key=said.host_key or before.host_key)
    if said.exit_status not in (None, before.exit_status):
        after = replace(after, exit_status=said.exit_status)
        draft.say_workspace("workspace.done", after, exit_status=said.exit_status)
    for trouble in said.disks:
        if str(trouble) not in before.reason:
            draft.say_workspace("workspace.disk-failed", after, disk=trouble.disk, reason=trouble.reason)
    if state is State.RUNNING:
        after = replace(after, came_up=True, running_at=after.running_at or draft.now)
    if state in FINAL and fact in (Observation.GONE, Observation.ENDED):
        after = _released(draft, after)
    elif state is State.FAILED and before.state is not State.FAILED:
        if said.refused:
            draft.say_workspace("workspace.refused", after, reason=said.reason)
        return draft.order(after)  # what is left of it is to be removed
    return draft.put_workspace(after) if after != before else before


def _with_troubles(said: WorkspaceFact) -> WorkspaceFact:
    """A guest that runs without one of its disks runs, and has a reason for its user to look at it."""
    return said if said.reason or not said.disks else replace(said, reason="; ".join(map(str, said.disks)))


def _released(draft: Draft, workspace: Workspace) -> Workspace:
    draft.say_workspace("workspace.released", workspace, address=workspace.address)
    return replace(workspace, released_at=draft.now, step="")


def _reason(before: Workspace, fact: Observation, said: WorkspaceFact) -> str:
    if fact is Observation.GONE:
        return before.reason or "it vanished from its node"
    if fact is Observation.STOPPED and said.exit_status is not None:
        return f"its command ended with status {said.exit_status}"
    return {
        Observation.ENDED: "its lease's time was over",
        Observation.SILENT: "its node has not been heard from",
        Observation.STOPPED: "the guest powered itself off",
        Observation.BROKEN: "it broke and its node did not say why",
    }.get(fact, "")


# ---------------------------------------------------------------- time


def expire(draft: Draft) -> None:
    """End every lease whose time is over."""
    for lease in draft.present.over_by(draft.now):
        # A soft lease is over when the plan says so: until then it may be suspended and go on.
        over = not lease.soft and lease.end is not None and lease.end <= draft.now
        if over and lease.state is not LeaseState.ENDING and not lease.ended:
            begin_end(draft, lease, _natural_outcome(lease), _why_over(draft, lease))
    settle(draft)


def _why_over(draft: Draft, lease: Lease) -> str:
    """That its time is over; of one that never ran as a whole, what was missing."""
    if lease.active_at is not None:
        return TIME_OVER
    members = draft.members(lease.id)
    if members:
        up = sum(w.state is State.RUNNING for w in members)
        return f"{TIME_OVER} when {up} of its {len(members)} workspaces had come up"
    nodes = [draft.present.nodes.get(id) for id in (lease.plan.hosts if lease.plan else ())]
    shut = sorted({f"{n.name} was {n.state}" for n in nodes if n is not None and n.state is not NodeState.READY})
    return f"{TIME_OVER} before it could begin: {', '.join(shut) or 'its nodes were not free in time'}"


def _natural_outcome(lease: Lease) -> LeaseState:
    return LeaseState.FAILED if lease.active_at is None else LeaseState.ENDED


def listen(draft: Draft, silent_for_s: dict[str, float], patience: Patience) -> None:
    """Call nodes silent or lost that were not heard from for so long; their workspaces become lost with them."""
    least_s = min(patience.silent_after_s, patience.lost_after_s)
    quiet = {id for id, age in silent_for_s.items() if age > least_s}
    for id in [id for id in draft.present.nodes if id in quiet] if quiet else []:
        node, age = draft.node(id), silent_for_s[id]
        if not node.sequence or (node.lost and age > patience.lost_after_s):
            continue
        if age > patience.lost_after_s:
            _lose(draft, node)
        elif age > patience.silent_after_s and not node.silent:
            _say_node(draft, node, draft.put_node(replace(node, silent=True)))
    settle(draft)


def _lose(draft: Draft, node: Node) -> None:
    _say_node(draft, node, draft.put_node(replace(node, silent=True, lost=True)))
    for workspace in draft.present.on_node(node.id):
        witness(draft, workspace, Observation.SILENT)


def forsake(draft: Draft, node: Node) -> None:
    """Take an administrator's word that nothing runs on a node any more: everything there is released."""
    for workspace in draft.present.on_node(node.id):
        after = workspace
        if after.state not in FINAL:
            state = State.TERMINATED if after.state is State.TERMINATING else State.FAILED
            after = draft.move(after, state, after.reason or "its node was removed")
        draft.put_workspace(_released(draft, after))
    settle(draft)


# ---------------------------------------------------------------- leases


def settle(draft: Draft) -> None:
    """Bring the state of every lease that the draft touches in line with its workspaces."""
    for lease_id in draft.touched_leases:
        _settle_lease(draft, draft.lease(lease_id))


def _settle_lease(draft: Draft, lease: Lease) -> None:
    if lease.state in LEASE_FINAL | LEASE_AHEAD:
        return
    members = draft.members(lease.id)
    if lease.state is LeaseState.ENDING:
        if all(w.released_at is not None for w in members):
            _end(draft, lease)
        return
    live = [w for w in members if w.state not in UNORDERED]
    replaced = to_be_replaced(draft.find_cluster(lease.cluster), lease, members)
    others = [w for w in latest(members) if w not in replaced]
    broken = broken_among(others)
    busy = [w for w in live if not _is_done(w)]
    if lease.active_at is None and broken:
        begin_end(draft, lease, LeaseState.FAILED, _blame(broken))
    elif not live and not replaced:
        begin_end(draft, lease, *_outcome(draft, lease, broken))
    elif replaced:
        if lease.active_at is not None:
            _stand(draft, lease, LeaseState.DEGRADED, f"{_blame(replaced)}; made anew")
    elif not busy:
        _end_done(draft, lease, live, broken)
    elif broken:
        _stand(draft, lease, LeaseState.DEGRADED, _blame(broken))
    elif is_put_by(lease) and any(w.state in SAVED for w in busy):
        _stand(draft, lease, LeaseState.SUSPENDED, "")  # by the plan, not because its user said so
    elif all(w.state in SETTLED and (lease.active_at or w.came_up) for w in busy):
        _stand(draft, lease, LeaseState.ACTIVE, "")
    else:
        return
    if draft.lease(lease.id).state is LeaseState.ENDING:
        _settle_lease(draft, draft.lease(lease.id))


def latest(members: Iterable[Workspace]) -> list[Workspace]:
    """The last one made of each member."""
    return list({(w.group, w.number): w for w in members}.values())


def broken_among(members: Iterable[Workspace]) -> list[Workspace]:
    """Those that are lost, stopped or failed before their command had ended."""
    return [w for w in members if w.state in BROKEN and not _is_done(w)]


def to_be_replaced(cluster: Cluster | None, lease: Lease, members: Sequence[Workspace]) -> list[Workspace]:
    """The members of a lease that have failed and, by their cluster's word, are to be made anew. members: all that
    were ever made, in their order."""
    if cluster is None or lease.state in LEASE_FINAL | LEASE_AHEAD | {LeaseState.ENDING}:
        return []
    made = Counter((w.group, w.number) for w in members)
    return [
        w
        for w in latest(members)
        if w.state is State.FAILED
        and made[w.group, w.number] <= REPLACEMENTS_MAX
        and cluster.roles_of(w.group).on_failure is OnFailure.REPLACE
    ]


def is_put_by(lease: Lease) -> bool:
    """Whether the plan has suspended it, for others or until it is resumed."""
    if not lease.soft or lease.state in LEASE_FINAL | LEASE_AHEAD | {LeaseState.ENDING}:
        return False
    plan = lease.plan
    waits = plan is None or (plan.restores and plan.phase in (PlanPhase.BOOKED, PlanPhase.PREPARING))
    return waits or lease.state is LeaseState.SUSPENDED


def _stand(draft: Draft, lease: Lease, state: LeaseState, reason: str) -> None:
    if (lease.state, lease.reason) == (state, reason):
        return
    first = state is LeaseState.ACTIVE and lease.active_at is None
    after = replace(lease, state=state, reason=reason)
    if first:
        after = replace(after, active_at=draft.now, begun_at=after.begun_at or draft.now)
    draft.put_lease(after)
    if state is not lease.state:
        kept = {"early_s": round(lease.start - draft.now, 3)} if first and lease.start and not lease.soft else {}
        draft.say_lease(f"lease.{state}", after, before=str(lease.state), reason=reason, **kept)


def _end(draft: Draft, lease: Lease) -> None:
    after = replace(lease, state=lease.outcome or LeaseState.ENDED, ended_at=draft.now)
    draft.put_lease(after)
    statuses = _exit_statuses(draft, lease)
    draft.say_lease(f"lease.{after.state}", after, before=str(lease.state), reason=after.reason, **statuses)


def _blame(broken: Iterable[Workspace]) -> str:
    return "; ".join(f"{w.name} is {w.state}: {w.reason}" for w in broken)


def _is_done(workspace: Workspace) -> bool:
    """Its command has ended, however; a reboot since then is its user's own affair."""
    return workspace.exit_status is not None


def _end_done(draft: Draft, lease: Lease, done: list[Workspace], broken: list[Workspace]) -> None:
    """The commands of all that are left have ended, perhaps before anybody saw all guests answer."""
    if lease.active_at is None:
        _stand(draft, lease, LeaseState.ACTIVE, "")
    failed = [w for w in done if w.exit_status]
    statuses = ", ".join(f"with status {w.exit_status} on {w.name}" for w in failed)
    reason = f"its command ended {statuses}" if failed else "its command ended"
    blame = f"; {_blame(broken)}" if broken else ""
    begin_end(draft, draft.lease(lease.id), LeaseState.ENDED, reason + blame)


def _exit_statuses(draft: Draft, lease: Lease) -> dict[str, dict[str, int]]:
    """What an event tells of the lease's command; nothing of a lease without one."""
    ended = {w.name: w.exit_status for w in draft.members(lease.id) if w.exit_status is not None}
    return {"exit_statuses": ended} if ended else {}


def _outcome(draft: Draft, lease: Lease, broken: list[Workspace]) -> tuple[LeaseState, str]:
    """What becomes of a lease whose workspaces are all gone; nodes may have ended it in time without the service."""
    if broken:
        return LeaseState.FAILED, _blame(broken)
    if lease.end is not None and lease.end <= draft.now:
        return _natural_outcome(lease), TIME_OVER
    return LeaseState.ENDED, "all its workspaces were terminated"
