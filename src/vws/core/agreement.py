"""The decisions about leases: granting, changing and ending them.

Each gathers its changes in a `Draft`, or refuses by a domain error, in which
case the draft is dropped and nothing has changed. What follows from facts and
from the passing of time is in core/standing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from vws.core.admission import HeldBefore, nothing_before
from vws.core.draft import Draft
from vws.core.enactment import settle_plan
from vws.core.errors import CannotFit, CommandRefused, InvalidRequest, LimitReached, NameTaken
from vws.core.image_access import ImageUser, find_image, user_of
from vws.core.image_gate import admitted, say_allowed
from vws.core.lifecycle import UNORDERED, Command
from vws.core.offers import refusal, too_soon, why_not
from vws.core.plan.demand import Demand
from vws.core.plan.profile import Amount
from vws.core.present import Present
from vws.core.recurrence import said
from vws.core.requirements import parse
from vws.core.site import Group, Image, Lease, LeaseKind, LeaseState, Node, PlanPhase, Workspace
from vws.core.spans import show_exactly
from vws.core.standing import begin_end, give, is_put_by, settle
from vws.core.terms import (
    CPUS_MAX,
    DURATION_S_MAX,
    MEMORY_MIB_MAX,
    MEMORY_MIB_MIN,
    Disk,
    Exceptions,
    GroupRequest,
    LeaseRequest,
    When,
    check_duration,
    check_number,
    check_request,
)
from vws.core.usage import terms_of

Ids = Callable[[str], str]


# ---------------------------------------------------------------- granting


@dataclass(frozen=True, slots=True)
class Skipped:
    """An instance of a series that cannot be had."""

    start: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True)
class Series:
    """What a periodic request became: a reservation for each start of its rule but the exceptions."""

    id: str
    leases: tuple[Lease, ...]
    skipped: tuple[Skipped, ...]


def grant(
    draft: Draft, request: LeaseRequest, *, owner: str, ids: Ids, before: HeldBefore = nothing_before
) -> Lease | Series:
    """The lease for `request`, in the plan and begun if it begins now; several for a rule.

    Raises CannotFit (with why, and what would be accepted), InvalidRequest, NameTaken, LimitReached, ImageRefused.
    """
    request, images = resolve(draft.present, request, owner, now=int(draft.now))
    draft.present.outlook.turn_to(int(draft.now))
    # What is overdue is not free before somebody has seen that it is.
    draft.present.outlook.planner.due(int(draft.now))
    if request.when is When.PERIODIC:
        return _grant_series(draft, request, images, owner, ids, before)
    lease = draw_up(draft, request, images, owner, ids("lse"))
    _enter(draft, lease, before)
    _go_on(draft, ids)
    return draft.lease(lease.id)


def draw_up(draft: Draft, request: LeaseRequest, images: Sequence[Image], owner: str, id: str) -> Lease:
    """The lease that is asked for, not yet agreed to. Raises NameTaken, ImageRefused."""
    now = int(draft.now)
    kind = LeaseKind.RESERVATION if request.when is When.PERIODIC else LeaseKind(str(request.when))
    start = None if kind.soft else now if request.start is None else request.start
    asked = tuple(_group(g, image) for g, image in zip(request.groups, images, strict=True))
    return Lease(
        id=id,
        name=_free_name(draft, request.name or f"lease-{id[-6:]}"),
        owner=owner,
        kind=kind,
        state=LeaseState.WAITING if kind.soft else LeaseState.PLANNED,
        groups=admitted(draft, asked, images, owner, request.cluster),
        start=start,
        end=None if start is None else start + request.duration_s,
        duration_s=request.duration_s,
        ssh_keys=request.ssh_keys,
        created_at=draft.now,
        submitted_at=draft.now,
        deadline=request.deadline,
        urgent=request.urgent,
        preemptible=request.preemptible or request.restartable,
        restartable=request.restartable,
        command=request.command,
        cluster=request.cluster,
        one_node=request.one_node,
    )


def _enter(draft: Draft, lease: Lease, before: HeldBefore) -> None:
    """Take a lease into the plan and the record; raises CannotFit or LimitReached."""
    outlook, now = draft.present.outlook, int(draft.now)
    outlook.chosen.check(lease, draft.changed_leases(), draft.now, before, draft.present.outstanding)
    demand = outlook.demand_of(lease, outlook.number())
    must_be_ready(draft.present, lease, demand, now)
    if lease.kind is LeaseKind.BEST_EFFORT and not outlook.could_ever(demand):
        # It would wait for ever.
        raise refusal(draft.present, lease, demand, now=now)
    if not outlook.planner.arrive(demand, now):
        hurries = lease.urgent and lease.kind is LeaseKind.IMMEDIATE
        block, victims = outlook.planner.soonest(demand, now) if hurries else (None, [])
        if block is None:
            raise refusal(draft.present, lease, demand, now=now)
        outlook.planner.accept(demand, block, victims, now)
        lease = replace(lease, start=demand.at, end=demand.at + lease.duration_s)
    draft.put_lease(lease)
    draft.say_lease("lease.granted", lease, **terms_of(lease))
    say_allowed(draft, lease, "request")


def must_be_ready(present: Present, lease: Lease, demand: Demand, now: int) -> None:
    """A reservation runs at its start: what has to happen before must have time to."""
    if demand.hard and demand.at - demand.prepare_s < now:
        raise too_soon(present, lease, demand, now=now)


def _go_on(draft: Draft, ids: Ids) -> None:
    """Begin what can begin now that something has arrived."""
    planner, now = draft.present.outlook.planner, int(draft.now)
    planner.due(now)
    planner.fill(now)
    planner.due(now)
    settle_plan(draft, ids)


def _grant_series(
    draft: Draft, request: LeaseRequest, images: Sequence[Image], owner: str, ids: Ids, before: HeldBefore
) -> Series:
    id = ids("srs")
    instances = [replace(lease, series=id) for lease in instances_of(draft, request, images, owner, id, ids)]
    skipped = tuple(exceptions_of(draft, instances, before))
    if skipped and (request.exceptions is Exceptions.REFUSE or len(skipped) == len(instances)):
        raise _refused_series(instances, skipped)
    granted = without(instances, skipped)
    for lease in granted:
        _enter(draft, lease, before)
    _go_on(draft, ids)
    return Series(id, tuple(draft.lease(lease.id) for lease in granted), skipped)


def instances_of(
    draft: Draft, request: LeaseRequest, images: Sequence[Image], owner: str, id: str, ids: Ids
) -> list[Lease]:
    """The reservations that a periodic request asks for, not yet agreed to. id: of the series."""
    name = request.name or f"series-{id[-6:]}"
    return [
        draw_up(draft, replace(request, name=f"{name}-{number}", start=start), images, owner, ids("lse"))
        for number, start in enumerate(request.starts(int(draft.now)), start=1)
    ]


def exceptions_of(draft: Draft, instances: Sequence[Lease], before: HeldBefore) -> Iterator[Skipped]:
    """The instances that cannot be had beside those before them. They do not overlap, so that no room is taken by one
    which another asks for, but limits are theirs together."""
    held = draft.changed_leases()
    for lease in instances:
        reason = _why_no_instance(draft, lease, held, before)
        if reason:
            yield Skipped(*lease.run, reason)
        else:
            held.append(lease)


def _why_no_instance(draft: Draft, lease: Lease, held: Sequence[Lease], before: HeldBefore) -> str:
    """Why an instance cannot be had beside others of its owner; "" if it can."""
    present, outlook, now = draft.present, draft.present.outlook, int(draft.now)
    demand = outlook.demand_of(lease, outlook.number())
    try:
        outlook.chosen.check(lease, held, draft.now, before, present.outstanding)
        must_be_ready(present, lease, demand, now)
    except (CannotFit, LimitReached) as refused:
        return refused.problem
    return "" if outlook.planner.find(demand, now)[0] is not None else why_not(present, lease, demand, now=now)


def without(instances: Sequence[Lease], skipped: Sequence[Skipped]) -> list[Lease]:
    """The instances of a series that are no exceptions."""
    missing = {each.start for each in skipped}
    return [lease for lease in instances if lease.start not in missing]


def _refused_series(instances: Sequence[Lease], skipped: Sequence[Skipped]) -> CannotFit:
    first, offers = skipped[0], offers_of_series(instances, skipped)
    return CannotFit(
        f"{len(skipped)} of the {len(instances)} starts of this rule cannot be had, the first at {said(first.start)}: "
        f"{first.reason}",
        field="rule",
        asked=len(instances),
        possible=offers[0]["text"] if offers else "another rule, fewer nodes, or a later time",
        details={"nodes": [], "offers": offers},
    )


def offers_of_series(instances: Sequence[Lease], skipped: Sequence[Skipped]) -> list[dict[str, Any]]:
    """A series without its exceptions, if anything is left of it."""
    some = len(instances) - len(skipped)
    if not some or not skipped:
        return []
    others = f"the other {some} starts" if some > 1 else "the other start"
    text = f"{others} could be had, if exceptions may be skipped"
    return [{"kind": "exceptions", "count": some, "skipped": [asdict(each) for each in skipped], "text": text}]


def resolve(present: Present, request: LeaseRequest, owner: str, *, now: int) -> tuple[LeaseRequest, list[Image]]:
    """The checked request with the images its groups name, which its owner may use, big enough for them."""
    request = check_request(request, now=now)
    for i, group in enumerate(request.groups):
        if group.requirement:
            parse(group.requirement, f"groups[{i}].requirement")
    user = user_of(present, owner, now)
    groups = tuple(_with_images(present, group, user, f"groups[{i}]") for i, group in enumerate(request.groups))
    request = replace(request, groups=groups)
    return request, [_image_for(present, g, user, f"groups[{i}]") for i, g in enumerate(request.groups)]


def _with_images(present: Present, group: GroupRequest, user: ImageUser, where: str) -> GroupRequest:
    """Its shared disks with their images' ids."""
    disks = tuple(
        replace(disk, image=_disk_image(present, disk, user, f"{where}.disks[{i}].image").id) if disk.image else disk
        for i, disk in enumerate(group.disks)
    )
    return replace(group, disks=disks)


def _disk_image(present: Present, disk: Disk, user: ImageUser, where: str) -> Image:
    image = find_image(present, disk.image, user, where)
    whole = image.disk is not None and not image.base
    if not whole and not image.simulated:
        why = f"is a delta of {image.base}" if image.base else "has no disk"
        raise InvalidRequest(
            f"the image {image.name} {why}", field=where, asked=disk.image[:60], possible="an image of a whole disk"
        )
    return image


def _image_for(present: Present, group: GroupRequest, user: ImageUser, where: str) -> Image:
    image = find_image(present, group.image, user, f"{where}.image")
    for field, low in (("memory_mib", image.memory_mib_min), ("disk_mib", image.disk_mib_min)):
        asked = getattr(group, field)
        if asked < low:
            raise InvalidRequest(
                f"the image {image.name} needs at least {low} MiB of {field.removesuffix('_mib')}",
                field=f"{where}.{field}",
                asked=asked,
                possible=f"{low} MiB or more",
            )
    return image


def _free_name(draft: Draft, name: str) -> str:
    if draft.present.lease_named(name) is not None:
        raise NameTaken(
            f"a live lease is already called {name}",
            field="name",
            asked=name,
            possible="another name, or none: then the site makes one up",
        )
    return name


def _called(asked: str, image: Image) -> str:
    """As it was called at that time, by whoever asked; an id or a digest tells people nothing."""
    return asked.removesuffix(":latest") if not asked.startswith(("img-", "sha256:")) else image.name


def _group(request: GroupRequest, image: Image) -> Group:
    return Group(
        request.name,
        image.id,
        _called(request.image, image),
        request.count,
        request.cpus,
        request.memory_mib,
        request.disk_mib,
        request.requirement,
        request.apart,
        request.together,
        request.bandwidth_mbit,
        request.first,
        request.networks,
        request.disks,
    )


# ---------------------------------------------------------------- changing


def command(draft: Draft, workspace: Workspace, order: Command) -> Workspace:
    """`order` given to one workspace; raises CommandRefused if its state does not allow it."""
    if order is not Command.TERMINATE:
        _must_not_be_saved(draft.lease(workspace.lease), order)
    after = give(draft, workspace, order, f"asked by {draft.actor}")
    settle(draft)
    return after


def _must_not_be_saved(lease: Lease, order: Command) -> None:
    """What the plan has suspended is not resumed by hand: others have its nodes."""
    saving = lease.plan is not None and lease.plan.phase is PlanPhase.SAVING
    if saving or is_put_by(lease):
        raise CommandRefused(
            f"{lease.name} gives way to others: it is suspended by the plan and goes on by itself",
            field="command",
            asked=str(order),
            possible=f"vws lease explain {lease.name} says when it goes on; terminate",
        )


def cancel(draft: Draft, lease: Lease) -> Lease:
    """Ends a lease now. A repeat changes nothing."""
    if lease.ended or lease.state is LeaseState.ENDING:
        return lease
    begin_end(draft, lease, LeaseState.ENDED, f"cancelled by {draft.actor}")
    settle(draft)
    return draft.lease(lease.id)


def extend(draft: Draft, lease: Lease, duration_s: int) -> Lease:
    """Makes the lease's run `duration_s` longer; raises CannotFit if others have its nodes by then."""
    check_duration(duration_s)
    _must_live(lease, "extended")
    check_number(lease.duration_s + duration_s, "duration_s", 1, DURATION_S_MAX, "s in all")
    outlook, now = draft.present.outlook, int(draft.now)
    demand = outlook.planner.demands[lease.id]
    longer = replace(lease, duration_s=lease.duration_s + duration_s)
    if lease.end is not None:
        longer = replace(longer, end=lease.end + duration_s)
    outlook.chosen.check(longer, draft.changed_leases(), draft.now, outstanding=draft.present.outstanding)
    _must_keep_its_deadline(lease, demand, duration_s, now)
    if not outlook.planner.prolong(demand, duration_s, now):
        raise _cannot_prolong(draft.present, lease, demand, duration_s, now)
    after = draft.put_lease(longer)
    draft.say_lease("lease.extended", after, before=lease.end, **terms_of(after))
    if not lease.soft:
        for workspace in _living(draft, lease):
            draft.order(replace(workspace, end=after.run[1]))
    return after


def _must_keep_its_deadline(lease: Lease, demand: Demand, duration_s: int, now: int) -> None:
    if lease.deadline is None:
        return
    over = (demand.block.stop if demand.block is not None else now + demand.remaining) + duration_s
    if over > lease.deadline:
        left_s = max(0, lease.deadline - over + duration_s)
        raise CannotFit(
            f"{lease.name} would be over {show_exactly(over - lease.deadline)} after its deadline, "
            f"{said(lease.deadline)}",
            field="duration_s",
            asked=duration_s,
            possible=f"{show_exactly(left_s)} at most" if left_s else "a new lease for what is to come after it",
            details={"nodes": [], "offers": []},
        )


def _cannot_prolong(present: Present, lease: Lease, demand: Demand, duration_s: int, now: int) -> CannotFit:
    outlook, block = present.outlook, demand.block
    assert block is not None
    until = outlook.open_until(demand, block.end + duration_s, now)
    blocked = [
        {"node": node, "name": present.nodes[node].name, "reason": reason}
        for node in outlook.hosts_of(demand)
        if (reason := outlook.why_closed(present, demand, node, block.end, block.end + duration_s, now))
    ]
    who = ", ".join(dict.fromkeys(each["name"] for each in blocked)) or "a node"
    why = blocked[0]["reason"] if blocked else "others have it by then"
    possible_s = until - block.end
    offers = []
    if possible_s > 0:
        offers = [{"kind": "shorter", "duration_s": possible_s, "text": f"{show_exactly(possible_s)} longer would fit"}]
    return CannotFit(
        f"{lease.name} cannot go on for {show_exactly(duration_s)} more on {who}: {why}",
        field="duration_s",
        asked=duration_s,
        possible=f"{show_exactly(possible_s)} at most" if possible_s > 0 else "a new lease for the time after it",
        details={"nodes": blocked, "offers": offers},
    )


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
