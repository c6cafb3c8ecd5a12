"""Maintenance: a time over which a node runs nothing, because somebody works on it.

A window is known ahead, so that nothing is planned into it; that is what it is for, and all it does. It ends no lease:
what was granted before it was known stands, and whoever plans the window is told what is in its way. Unlike a drained
node, one with a window ahead goes on taking what will be over in time.

Windows pass by themselves. Their beginning and their end are recorded as events by the loop that watches the clock.
"""

from __future__ import annotations

from dataclasses import replace

from vws.core.draft import Draft
from vws.core.errors import InvalidRequest, NotFound
from vws.core.lifecycle import UNORDERED
from vws.core.present import Present
from vws.core.recurrence import said
from vws.core.site import Lease, Maintenance, Node
from vws.core.terms import DURATION_S_MAX, check_duration

REASON_LENGTH_MAX = 200
# Further ahead nobody knows what a node will need.
AHEAD_S_MAX = 5 * DURATION_S_MAX


def plan_maintenance(draft: Draft, node: Node, *, id: str, start: int, duration_s: int, reason: str) -> Maintenance:
    """A new window of `node` from `start` (UTC seconds; it may have begun). Raises InvalidRequest for one that is over
    or cannot be."""
    now = int(draft.now)
    if not now - DURATION_S_MAX <= start <= now + AHEAD_S_MAX:
        raise InvalidRequest(
            "the maintenance is too long ago" if start < now else "the maintenance is too far ahead",
            field="start",
            asked=start,
            possible=f"{said(now - DURATION_S_MAX)} to {said(now + AHEAD_S_MAX)}",
        )
    check_duration(duration_s)
    if not reason.strip().isprintable() or not 0 < len(reason.strip()) <= REASON_LENGTH_MAX:
        raise InvalidRequest(
            "a maintenance needs a reason that others can read",
            field="reason",
            asked=reason[:60],
            possible=f"one line of at most {REASON_LENGTH_MAX} characters, such as new disks",
        )
    if start + duration_s <= now:
        raise InvalidRequest(
            "the maintenance would be over already",
            field="start",
            asked=start,
            possible="a later start, or a longer duration",
        )
    window = Maintenance(id, node.id, start, start + duration_s, reason.strip(), draft.now)
    _say(draft, "maintenance.planned", window)
    return draft.put_maintenance(_begun(draft, window) if start <= now else window)


def remove_maintenance(draft: Draft, id: str) -> Maintenance:
    """Call a window off, or end it early. Raises NotFound for one that is over or removed."""
    window = draft.present.maintenances.get(id)
    if window is None:
        raise NotFound(
            f"there is no maintenance {id[:60]!r} that is on or ahead",
            field="id",
            asked=id[:60],
            possible="vws node maintenance list",
        )
    _say(draft, "maintenance.removed", window)
    # To be told from one that lasted, it was never removed at its very end.
    return draft.put_maintenance(replace(window, removed_at=min(draft.now, window.end - 0.001)))


def forget_maintenances(draft: Draft, node: Node) -> None:
    """All windows of a node that is taken out of the site."""
    for window in draft.present.maintenances_of(node.id):
        remove_maintenance(draft, window.id)


def pass_time(draft: Draft) -> None:
    """Record what windows have begun and ended by now."""
    for window in list(draft.present.maintenances.values()):
        after = window
        if window.begun_at is None and window.start <= draft.now:
            after = _begun(draft, after)
        if window.end <= draft.now:
            _say(draft, "maintenance.over", after)
            after = replace(after, removed_at=draft.now)
        if after != window:
            draft.put_maintenance(after)


def in_the_way(present: Present, window: Maintenance) -> list[Lease]:
    """The leases that have something on its node, or are promised it, at some instant of the window; by their names."""
    here = {
        w.lease for w in present.on_node(window.node) if w.state not in UNORDERED and window.meets(w.created_at, w.end)
    }
    return sorted(
        (lease for lease in present.leases.values() if lease.id in here or _is_promised(lease, window)),
        key=lambda lease: lease.name,
    )


def _is_promised(lease: Lease, window: Maintenance) -> bool:
    plan = lease.plan
    return plan is not None and window.node in plan.hosts and window.meets(plan.begin, plan.end)


def _begun(draft: Draft, window: Maintenance) -> Maintenance:
    _say(draft, "maintenance.begun", window)
    return replace(window, begun_at=draft.now)


def _say(draft: Draft, kind: str, window: Maintenance) -> None:
    name = draft.node(window.node).name
    draft.say(
        kind,
        node=window.node,
        name=name,
        maintenance=window.id,
        start=window.start,
        end=window.end,
        reason=window.reason,
    )
