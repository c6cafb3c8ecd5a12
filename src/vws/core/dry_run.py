"""What a request would be answered, without asking: the same checks in the same order as granting it
(core/agreement.py), and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vws.core.admission import HeldBefore, nothing_before
from vws.core.agreement import (
    draw_up,
    exceptions_of,
    exceptions_offered,
    instances_of,
    may_be_asked,
    offers_of_series,
    resolve,
    without,
)
from vws.core.draft import Draft
from vws.core.errors import CannotFit, LimitReached
from vws.core.image_policy import ImageRefused
from vws.core.offers import reasons, refusal
from vws.core.plan.demand import Block, Demand
from vws.core.present import Present
from vws.core.site import Image, Lease, LeaseKind
from vws.core.spans import show_duration
from vws.core.terms import Exceptions, LeaseRequest, When

Ids = Callable[[str], str]
Answer = dict[str, Any]


def consider(
    draft: Draft, request: LeaseRequest, *, owner: str, ids: Ids, before: HeldBefore = nothing_before
) -> Answer:
    """What `request` would be answered: {"fits", "reason", "start", "nodes", "offers"}. Raises InvalidRequest and
    NameTaken, as asking would."""
    request, images = resolve(draft.present, request, owner, now=int(draft.now))
    try:
        if request.when is When.PERIODIC:
            return _consider_series(draft, request, images, owner, ids, before)
        return _consider_one(draft, draw_up(draft, request, images, owner, ids("lse")), before)
    except ImageRefused as refused:
        return _answer(False, f"{refused.problem}; what would be accepted: {refused.possible}", None)
    except (CannotFit, LimitReached) as refused:
        details = refused.details or {}
        return _answer(False, refused.problem, None, details.get("nodes", ()), details.get("offers", ()))


def _answer(
    fits: bool,
    reason: str,
    start: int | None,
    nodes: Sequence[dict[str, str]] = (),
    offers: Sequence[dict[str, Any]] = (),
) -> Answer:
    return {"fits": fits, "reason": reason, "start": start, "nodes": list(nodes), "offers": list(offers)}


def _consider_one(draft: Draft, lease: Lease, before: HeldBefore) -> Answer:
    present, outlook, now = draft.present, draft.present.outlook, int(draft.now)
    demand, held = may_be_asked(draft, lease, before)
    block, victims = outlook.look(demand, now)
    if block is None and lease.urgent and lease.kind is LeaseKind.IMMEDIATE:
        block, victims = outlook.planner.soonest(demand, now)
    if block is not None:
        return _answer(True, _would(present, lease, block, victims, now), block.run, _shares(present, block))
    if lease.kind is LeaseKind.BEST_EFFORT:
        nodes = reasons(present, lease.groups, now, now + lease.duration_s, now=now)
        return _answer(True, "it would wait until nodes take new workspaces that do not now", None, nodes)
    raise refusal(present, lease, demand, held, now=now)


def _would(present: Present, lease: Lease, block: Block, victims: Sequence[Demand], now: int) -> str:
    planner = present.outlook.planner
    wait = show_duration(block.run - now)
    waiting = len(planner.queue) + len(planner.booked) if lease.soft else 0
    if block.begin <= now and not waiting:
        said = "all of it would start now"
    elif lease.kind is LeaseKind.BEST_EFFORT:
        said = f"it would wait; there is room for all of it {wait} from now"
    else:
        said = f"all of it would run {wait} from now"
    behind = f", behind {waiting} that wait already" if waiting else ""
    gives = f"; {len(victims)} that may be preempted would give way" if victims else ""
    return said + behind + gives


def _shares(present: Present, block: Block) -> list[dict[str, str]]:
    counted: dict[str, int] = {}
    for host in block.hosts:
        node = present.outlook.nodes[host]
        counted[node] = counted.get(node, 0) + 1
    return [
        {"node": id, "name": present.nodes[id].name, "reason": f"it would take {count}"}
        for id, count in sorted(counted.items())
    ]


def _consider_series(
    draft: Draft, request: LeaseRequest, images: Sequence[Image], owner: str, ids: Ids, before: HeldBefore
) -> Answer:
    instances = instances_of(draft, request, images, owner, ids("srs"), ids)
    skipped = list(exceptions_of(draft, instances, before))
    some = without(instances, skipped)
    fits = not skipped or (request.exceptions is Exceptions.SKIP and bool(some))
    reason = f"{len(some)} of {len(instances)} starts could be had"
    if skipped:
        reason += f"; the first exception: {skipped[0].reason}"
    if fits:
        without_them = exceptions_offered(instances, skipped)
        offers = [without_them] if without_them else []
    else:
        offers = offers_of_series(draft, instances, skipped, before)
    return _answer(fits, reason, some[0].start if some else None, (), offers)
