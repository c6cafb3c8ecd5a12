"""Changing what was agreed: a lease made longer, its workspaces made larger or smaller.

Nothing is moved for it: a lease goes on where it is, or is told until when, and up to which size, it could.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vws.core.admission import HeldBefore, nothing_before
from vws.core.bargain import Held, Offer, last
from vws.core.draft import Draft
from vws.core.errors import CannotFit, CommandRefused, InvalidRequest, LimitReached
from vws.core.lifecycle import UNORDERED
from vws.core.plan.demand import Demand
from vws.core.plan.profile import Amount
from vws.core.present import Present
from vws.core.recurrence import said
from vws.core.site import Group, Lease, LeaseState, Node, Workspace
from vws.core.spans import show_exactly
from vws.core.terms import (
    CPUS_MAX,
    DURATION_S_MAX,
    MEMORY_MIB_MAX,
    MEMORY_MIB_MIN,
    check_duration,
    check_number,
)
from vws.core.usage import terms_of

# ---------------------------------------------------------------- longer


def extend(draft: Draft, lease: Lease, duration_s: int, before: HeldBefore = nothing_before) -> Lease:
    """Makes the lease's run `duration_s` longer. Raises CannotFit if others have its nodes by then or it would be over
    after its deadline, LimitReached; each with how much longer it could be."""
    check_duration(duration_s)
    _must_live(lease, "extended")
    check_number(lease.duration_s + duration_s, "duration_s", 1, DURATION_S_MAX, "s in all")
    present, now = draft.present, int(draft.now)
    demand = present.outlook.planner.demands[lease.id]
    held = present.outlook.chosen.held(lease, draft.changed_leases(), before, present.outstanding)
    longer = _longer(lease, duration_s)
    try:
        present.outlook.chosen.check_beside(longer, held, draft.now)
    except LimitReached as reached:
        raise _beyond(present, lease, demand, held, duration_s, reached, now) from None
    if _left_s(lease, demand, now) < duration_s:
        raise _too_late(present, lease, demand, held, duration_s, now)
    if not present.outlook.planner.prolong(demand, duration_s, now):
        raise _cannot_prolong(present, lease, demand, held, duration_s, now)
    after = draft.put_lease(longer)
    draft.say_lease("lease.extended", after, before=lease.end, **terms_of(after))
    if not lease.soft:
        for workspace in _living(draft, lease):
            draft.order(replace(workspace, end=after.run[1]))
    return after


def _longer(lease: Lease, duration_s: int) -> Lease:
    end = None if lease.end is None else lease.end + duration_s
    return replace(lease, duration_s=lease.duration_s + duration_s, end=end)


def _left_s(lease: Lease, demand: Demand, now: int) -> int:
    """From when it is over by the plan to its deadline."""
    if lease.deadline is None:
        return DURATION_S_MAX
    return lease.deadline - (demand.block.stop if demand.block is not None else now + demand.remaining)


def _offers(present: Present, lease: Lease, demand: Demand, held: Held, duration_s: int, now: int) -> list[Offer]:
    """The most by which it could be longer, if anything."""
    possible_s = _possible_s(present, lease, demand, held, duration_s, now)
    if possible_s < 1:
        return []
    return [{"kind": "shorter", "duration_s": possible_s, "text": f"{show_exactly(possible_s)} longer would fit"}]


def _possible_s(present: Present, lease: Lease, demand: Demand, held: Held, duration_s: int, now: int) -> int:
    def admitted(longer_s: int) -> bool:
        try:
            present.outlook.chosen.check_beside(_longer(lease, longer_s), held, now)
        except LimitReached:
            return False
        return True

    most_s = min(duration_s, _left_s(lease, demand, now))
    possible_s = last(range(1, most_s + 1), admitted) or 0
    if demand.block is None or not possible_s or not present.outlook.planner.stays(demand):
        return possible_s
    end = demand.block.end
    return present.outlook.open_until(demand, end + possible_s, now) - end


def _beyond(
    present: Present, lease: Lease, demand: Demand, held: Held, duration_s: int, reached: LimitReached, now: int
) -> LimitReached:
    offers = _offers(present, lease, demand, held, duration_s, now)
    return LimitReached(
        reached.problem,
        field=reached.field,
        asked=reached.asked,
        possible=offers[0]["text"] if offers else "what it has; or the same when others of them have ended",
        details=reached.details | {"offers": offers},
    )


def _too_late(present: Present, lease: Lease, demand: Demand, held: Held, duration_s: int, now: int) -> CannotFit:
    assert lease.deadline is not None
    over_s = duration_s - _left_s(lease, demand, now)
    offers = _offers(present, lease, demand, held, duration_s, now)
    return CannotFit(
        f"{lease.name} would be over {show_exactly(over_s)} after its deadline, {said(lease.deadline)}",
        field="duration_s",
        asked=duration_s,
        possible=offers[0]["text"] if offers else "a new lease for what is to come after it",
        details={"nodes": [], "offers": offers},
    )


def _cannot_prolong(present: Present, lease: Lease, demand: Demand, held: Held, duration_s: int, now: int) -> CannotFit:
    outlook, block = present.outlook, demand.block
    assert block is not None
    blocked = [
        {"node": node, "name": present.nodes[node].name, "reason": reason}
        for node in outlook.hosts_of(demand)
        if (reason := outlook.why_closed(present, demand, node, block.end, block.end + duration_s, now))
    ]
    who = ", ".join(dict.fromkeys(each["name"] for each in blocked)) or "a node"
    why = blocked[0]["reason"] if blocked else "others have it by then"
    offers = _offers(present, lease, demand, held, duration_s, now)
    return CannotFit(
        f"{lease.name} cannot go on for {show_exactly(duration_s)} more on {who}: {why}",
        field="duration_s",
        asked=duration_s,
        possible=offers[0]["text"] if offers else "a new lease for the time after it",
        details={"nodes": blocked, "offers": offers},
    )


# ---------------------------------------------------------------- larger


def resize(draft: Draft, lease: Lease, *, group: str | None, memory_mib: int | None, cpus: int | None) -> Lease:
    """Sets the size of all workspaces of `group` (None: of all groups), the running ones too."""
    _must_live(lease, "resized")
    _check_resize(draft.present, lease, group, memory_mib, cpus)
    outlook, now = draft.present.outlook, int(draft.now)
    # What is overdue is not free before somebody has seen that it is.
    outlook.planner.due(now)
    wanted = {g.name for g in lease.groups if group is None or g.name == group}
    groups = tuple(_resized_group(g, memory_mib, cpus) if g.name in wanted else g for g in lease.groups)
    after = replace(lease, groups=groups)
    members = {w.id: w for w in draft.members(lease.id)}
    for workspace in _living(draft, lease):
        if workspace.group in wanted:
            members[workspace.id] = _resized_workspace(workspace, memory_mib, cpus)
    demand = outlook.planner.demands[lease.id]
    if not _is_wide_enough(draft, demand, groups) or not outlook.resize(demand, after, members.values(), now):
        raise _no_room(draft.present, lease, demand, groups, (memory_mib, cpus), now)
    draft.put_lease(after)
    draft.say_lease("lease.resized", after, group=group, memory_mib=memory_mib, cpus=cpus, **terms_of(after))
    for workspace in _living(draft, lease):
        if workspace.group in wanted:
            draft.order(members[workspace.id])
    return after


def _living(draft: Draft, lease: Lease) -> list[Workspace]:
    return [w for w in draft.members(lease.id) if w.state not in UNORDERED]


def _is_wide_enough(draft: Draft, demand: Demand, groups: Sequence[Group]) -> bool:
    """Whether each of its nodes has as many CPUs as one workspace there shall have."""
    block = demand.block
    if block is None:
        return True
    ids, member = draft.present.outlook.nodes, 0
    for group in groups:
        nodes = [draft.present.nodes.get(ids[host]) for host in block.hosts[member : member + group.count] if host >= 0]
        if any(node is not None and node.capacity.cpus < group.cpus for node in nodes):
            return False
        member += group.count
    return True


def _resized_group(group: Group, memory_mib: int | None, cpus: int | None) -> Group:
    return replace(group, memory_mib=memory_mib or group.memory_mib, cpus=cpus or group.cpus)


def _resized_workspace(workspace: Workspace, memory_mib: int | None, cpus: int | None) -> Workspace:
    return replace(workspace, memory_mib=memory_mib or workspace.memory_mib, cpus=cpus or workspace.cpus)


def _check_resize(present: Present, lease: Lease, group: str | None, memory_mib: int | None, cpus: int | None) -> None:
    if group is not None and group not in {g.name for g in lease.groups}:
        names = ", ".join(g.name or "(unnamed)" for g in lease.groups)
        raise InvalidRequest(f"{lease.name} has no group {group!r}", field="group", asked=group, possible=names)
    if memory_mib is None and cpus is None:
        raise InvalidRequest("nothing to change is named", field="memory_mib", possible="memory_mib, cpus or both")
    if memory_mib is not None:
        images = [present.images.get(g.image) for g in lease.groups if group in (None, g.name)]
        low = max([MEMORY_MIB_MIN, *(i.memory_mib_min for i in images if i is not None)])
        check_number(memory_mib, "memory_mib", low, MEMORY_MIB_MAX, "MiB")
    if cpus is not None:
        check_number(cpus, "cpus", 1, CPUS_MAX)


def _must_live(lease: Lease, verb: str) -> None:
    if lease.ended or lease.state is LeaseState.ENDING:
        raise CommandRefused(
            f"{lease.name} is {lease.state} ({lease.reason}) and cannot be {verb}",
            field="lease",
            asked=lease.id,
            possible="ask for a new lease",
        )


def _no_room(
    present: Present,
    lease: Lease,
    demand: Demand,
    groups: Sequence[Group],
    change: tuple[int | None, int | None],
    now: int,
) -> CannotFit:
    """Where the members would not fit, by how much, and up to which size they would."""
    memory_max, cpus_max, blocked = MEMORY_MIB_MAX, CPUS_MAX, []
    for node_id, room in present.outlook.room_beside(demand, now).items():
        node, here = present.nodes[node_id], present.outlook.members_on(demand, node_id, groups)
        short = _short(node, here, room)
        if short:
            blocked.append({"node": node.id, "name": node.name, "reason": ", ".join(short)})
        memory_max = min(memory_max, room.memory_mib // len(here) - node.capacity.overhead_mib)
        cpus_max = min(cpus_max, room.cpus // len(here), node.capacity.cpus)
    nearest = _nearest(present.members(lease.id), memory_max, cpus_max, change)
    where = blocked[0] if blocked else {"name": "its node", "reason": "others have it"}
    return CannotFit(
        f"{where['name']} has no room for {lease.name} like that: {where['reason']}",
        field="lease",
        possible=f"{nearest}, or the same after other leases on that node have ended",
        details={"nodes": blocked, "offers": []},
    )


def _short(node: Node, here: Sequence[Group], room: Amount) -> list[str]:
    need = (
        (sum(g.cpus for g in here) - room.cpus, "CPUs"),
        (sum(g.memory_mib + node.capacity.overhead_mib for g in here) - room.memory_mib, "MiB of memory"),
        (sum(g.disk_mib for g in here) - room.disk_mib, "MiB of disk"),
    )
    short = [f"{lacking} {unit} short" for lacking, unit in need if lacking > 0]
    if not short and any(g.cpus > node.capacity.cpus for g in here):
        return [f"it has {node.capacity.cpus} CPUs"]
    return short


def _nearest(
    members: Sequence[Workspace], memory_max: int, cpus_max: int, change: tuple[int | None, int | None]
) -> str:
    """How much of what was asked for (memory, CPUs) every one of these workspaces could have."""
    live = [w for w in members if w.state not in UNORDERED]
    # Whoever was given more at his boot holds it until the next one.
    if memory_max < max((w.memory_defined_mib for w in live), default=0) or cpus_max < 1:
        return "a smaller change"
    parts = [f"{memory_max} MiB"] if change[0] else []
    parts += [f"{cpus_max} CPU{'s' if cpus_max > 1 else ''}"] if change[1] else []
    return f"up to {' and '.join(parts)} each"
