"""From the plan to what is ordered, and from what is seen back to the plan.

`settle_plan` closes every decision: facts that the decision took in move the planner, what the planner then wants done
becomes orders, and every lease whose place in the plan has changed is written with it. `advance` is the passing of
time: what is due is done, and what can start is started.

A step may be impossible at the moment it is due (a guest that is to be saved still boots): it is ordered again at each
look until it is done, since until then its nodes are not free and nobody else begins there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vws.core.addresses import take_back
from vws.core.draft import Draft
from vws.core.errors import CommandRefused
from vws.core.image_gate import refused_now, say_allowed
from vws.core.lifecycle import UNORDERED, Command, Desired, State
from vws.core.members import make_again, make_members
from vws.core.outlook import Outlook, whole
from vws.core.plan.demand import BOOKED, PREPARING, RUNNING, SAVED, SAVING, STOPPING, WAITING, Demand
from vws.core.plan.planner import BEGIN, GIVE_UP, KEPT, SAVE, STOP, Action
from vws.core.site import LEASE_AHEAD, Lease, LeaseState, Workspace
from vws.core.spans import show_duration
from vws.core.standing import SAVED as SAVED_STATES
from vws.core.standing import TIME_OVER, begin_end, give, settle, to_be_replaced
from vws.core.usage import terms_of

Ids = Callable[[str], str]
# Their memory is no longer on their nodes.
OUT_OF_THE_WAY = frozenset({State.SUSPENDED, State.STOPPED, State.LOST})
# What is saved must outlast the service: its node would remove it at its end.
FAR_S = 366 * 86_400


def advance(draft: Draft, ids: Ids) -> None:
    """What the passing of time brings: steps that are due, room that has come free."""
    outlook, now = draft.present.outlook, int(draft.now)
    planner = outlook.planner
    outlook.turn_to(now)
    outlook.hear(draft.changes.nodes, now)
    outlook.displace(now)
    planner.due(now)
    planner.hurry(now)
    planner.fill(now)
    planner.due(now)
    settle_plan(draft, ids)
    _press(draft, outlook)


def settle_plan(draft: Draft, ids: Ids) -> None:
    """Bring plan and record together after a decision."""
    outlook = draft.present.outlook
    for id in draft.touched_leases:
        demand = outlook.planner.demands.get(id)
        if demand is not None:
            _notice(draft, outlook, demand)
            outlook.planner.press(demand)
    _carry_out(draft, outlook, ids)
    settle(draft)
    _replace(draft, ids)
    _write(draft, outlook)
    take_back(draft)
    _close_clusters(draft)


# ---------------------------------------------------------------- facts


def _notice(draft: Draft, outlook: Outlook, demand: Demand) -> None:
    """What has happened to a lease, as far as the plan is concerned."""
    planner, now = outlook.planner, int(draft.now)
    lease = draft.lease(demand.id)
    live = [w for w in draft.members(lease.id) if w.state not in UNORDERED]
    if lease.ended:
        planner.ended(demand, now)
    elif lease.state is LeaseState.ENDING and demand.phase in (WAITING, BOOKED, SAVED):
        planner.withdraw(demand, now)
    elif demand.phase == PREPARING and not demand.hard and _is_up(lease, live):
        planner.up(demand, now, whole(draft.now))
    elif demand.phase == SAVING and live and all(w.state in OUT_OF_THE_WAY for w in live):
        planner.kept(demand, now)
    elif demand.phase == STOPPING and lease.state is LeaseState.WAITING and not _left(draft, lease):
        planner.given_up(demand, now)


def _is_up(lease: Lease, live: list[Workspace]) -> bool:
    """Whether it runs as far as it ever will: one that goes on may have lost a member meanwhile, but not all: who was
    out of sight before it was resumed has its time still to come."""
    if lease.state is LeaseState.DEGRADED:
        states = {w.state for w in live}
        return states.isdisjoint(SAVED_STATES) and states != {State.LOST}
    return lease.state is LeaseState.ACTIVE


def _left(draft: Draft, lease: Lease) -> list[Workspace]:
    return [w for w in draft.members(lease.id) if w.released_at is None]


# ---------------------------------------------------------------- actions


def _carry_out(draft: Draft, outlook: Outlook, ids: Ids) -> None:
    planner = outlook.planner
    while planner.actions:
        actions, planner.actions = planner.actions, []
        for action in actions:
            _do(draft, outlook, action, ids)


def _do(draft: Draft, outlook: Outlook, action: Action, ids: Ids) -> None:
    lease = draft.find_lease(action.demand.id)
    if lease is None or lease.ended or lease.state is LeaseState.ENDING:
        return
    if action.kind == BEGIN and action.block.restores:
        _resume(draft, lease, action)
    elif action.kind == BEGIN:
        _deploy(draft, outlook, lease, action, ids)
    elif action.kind == SAVE:
        draft.say_lease("lease.suspending", lease, until=action.block.end)
        _suspend(draft, lease)
    elif action.kind == KEPT:
        after = draft.put_lease(replace(lease, state=LeaseState.SUSPENDED, suspensions=action.demand.suspensions))
        draft.say_lease("lease.suspended", after, before=str(lease.state), worked_s=action.demand.worked)
    elif action.kind == STOP:
        begin_end(draft, lease, LeaseState.FAILED if lease.active_at is None else LeaseState.ENDED, TIME_OVER)
    elif action.kind == GIVE_UP:
        _give_up(draft, lease)


def _deploy(draft: Draft, outlook: Outlook, lease: Lease, action: Action, ids: Ids) -> None:
    """Make the workspaces of a lease whose block begins, if its images may still be run."""
    refused = refused_now(draft, lease)
    if refused:
        begin_end(draft, lease, LeaseState.FAILED, refused)
        return
    block = action.block
    if lease.soft:
        lease = replace(lease, start=block.run, end=block.stop)
    after = draft.put_lease(replace(lease, state=LeaseState.PENDING, reason=""))
    if lease.state in LEASE_AHEAD:
        draft.say_lease("lease.pending", after, before=str(lease.state), **terms_of(after))
    hosts = [outlook.nodes[host] for host in block.hosts]
    end = block.stop + FAR_S if lease.soft else after.run[1]
    make_members(draft, after, hosts, ids, end=end)
    say_allowed(draft, after, "start", [draft.node(host).name for host in hosts])


def _resume(draft: Draft, lease: Lease, action: Action) -> None:
    block = action.block
    draft.put_lease(replace(lease, start=block.run, end=block.stop))
    draft.say_lease("lease.resuming", lease, run=block.run)
    _restore(draft, lease, end=block.stop + FAR_S)


def _restore(draft: Draft, lease: Lease, *, end: int) -> None:
    for workspace in draft.members(lease.id):
        if workspace.state is State.SUSPENDED:
            give(draft, replace(workspace, end=end), Command.RESTORE, "its lease goes on")
        elif workspace.state is State.LOST and workspace.desired is not Desired.RUN:
            draft.order(replace(workspace, desired=Desired.RUN, end=end))


def _suspend(draft: Draft, lease: Lease) -> None:
    end = int(draft.now) + FAR_S
    for workspace in draft.members(lease.id):
        if workspace.state in UNORDERED or workspace.desired is Desired.SUSPEND:
            continue
        if workspace.state is State.LOST:
            # Whenever its node is back, others may be there.
            draft.order(replace(workspace, desired=Desired.SUSPEND, end=end))
            continue
        try:
            give(draft, replace(workspace, end=end), Command.SUSPEND, "its node is promised to others")
        except CommandRefused:
            pass  # it is between two states; `_press` orders it again


def _give_up(draft: Draft, lease: Lease) -> None:
    reason = "its node was promised to others; it begins anew when there is room"
    after = draft.put_lease(
        replace(lease, state=LeaseState.WAITING, reason=reason, active_at=None, start=None, end=None, worked_s=0)
    )
    draft.say_lease("lease.waiting", after, before=str(lease.state), reason=reason)
    for workspace in draft.members(lease.id):
        if workspace.state not in UNORDERED:
            give(draft, workspace, Command.TERMINATE, reason)


def _press(draft: Draft, outlook: Outlook) -> None:
    """Order again what could not be ordered when it was due, and what a node that was away has not done."""
    pressing, outlook.planner.pressing = outlook.planner.pressing, {}
    for demand in pressing.values():
        block = demand.block
        if demand.phase == SAVING or (demand.kept and demand.phase in (SAVED, BOOKED)):
            _suspend(draft, draft.lease(demand.id))
        elif demand.phase == PREPARING and block is not None and block.restores:
            _restore(draft, draft.lease(demand.id), end=block.stop + FAR_S)


# ---------------------------------------------------------------- the record


def _write(draft: Draft, outlook: Outlook) -> None:
    """Every lease whose place in the plan has changed, with its plan."""
    planner = outlook.planner
    touched, planner.touched = planner.touched, {}
    for id, demand in touched.items():
        lease = draft.find_lease(id)
        if lease is None:
            continue
        if lease.ended:
            draft.put_lease(replace(lease, worked_s=demand.worked))
            continue
        after = planned(lease, outlook, demand)
        if after != lease:
            draft.put_lease(after)
            _say_booking(draft, lease, after)
            _order_ends(draft, after, demand)


def planned(lease: Lease, outlook: Outlook, demand: Demand) -> Lease:
    """The lease with its present plan, and the times that follow from it."""
    plan = outlook.plan_of(demand)
    after = replace(lease, plan=plan, worked_s=demand.worked, migrations=demand.migrations, restarts=demand.restarts)
    if lease.soft and lease.state is not LeaseState.ENDING:
        after = replace(after, start=None if plan is None else plan.run, end=None if plan is None else plan.stop)
    elif demand.hurries and plan is not None:
        after = replace(after, start=plan.run, end=plan.stop)
    if lease.deadline is not None and plan is not None and plan.stop > lease.deadline and lease.state in LEASE_AHEAD:
        after = replace(
            after, reason=f"as planned now it is over {show_duration(plan.stop - lease.deadline)} after its deadline"
        )
    return after


def _replace(draft: Draft, ids: Ids) -> None:
    """Make members anew that have failed, where their cluster wants it, once nothing is left of them."""
    for id in draft.touched_leases:
        lease = draft.lease(id)
        cluster = draft.find_cluster(lease.cluster)
        for workspace in to_be_replaced(cluster, lease, draft.members(id)):
            if workspace.released_at is not None:
                make_again(draft, lease, workspace, ids)
                draft.say_lease("lease.replacing", lease, member=workspace.name, reason=workspace.reason)


def _close_clusters(draft: Draft) -> None:
    """A cluster has ended once all of its leases have."""
    ended = (draft.lease(id) for id in draft.touched_leases)
    for id in sorted({lease.cluster for lease in ended if lease.cluster and lease.ended}):
        cluster = draft.find_cluster(id)
        if cluster is not None and all(lease.ended for lease in draft.leases_of_cluster(id)):
            draft.put_cluster(replace(cluster, ended_at=draft.now))
            draft.say("cluster.ended", owner=cluster.owner, cluster=id, name=cluster.name)


def _say_booking(draft: Draft, before: Lease, after: Lease) -> None:
    if after.planned_start is not None and after.planned_start != before.planned_start:
        draft.say_lease("lease.booked", after, start=after.planned_start, end=after.planned_end)


def _order_ends(draft: Draft, lease: Lease, demand: Demand) -> None:
    """Nodes end workspaces by themselves: of a soft lease when its time is over, unless it is to be saved before."""
    block = demand.block
    if not lease.soft or block is None or demand.phase not in (PREPARING, RUNNING):
        return
    end = block.stop if not block.saves else block.stop + FAR_S
    if demand.phase == PREPARING:
        end = block.stop + FAR_S  # its time counts from when it is up
    for workspace in draft.members(lease.id):
        if workspace.state not in UNORDERED and workspace.end != end:
            draft.order(replace(workspace, end=end))
