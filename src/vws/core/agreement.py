"""The decisions about leases: granting and ending them. Changing what was agreed is in core/amendment.py.

Each gathers its changes in a `Draft`, or refuses by a domain error, in which
case the draft is dropped and nothing has changed. What follows from facts and
from the passing of time is in core/standing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from vws.core.admission import HeldBefore, nothing_before
from vws.core.bargain import SHORTEST_S, Held, Offer, last
from vws.core.disks import DISK_MIB_MAX, Disk, checked_disks, granted_mib, with_declared
from vws.core.draft import Draft
from vws.core.enactment import settle_plan
from vws.core.errors import CannotFit, CommandRefused, InvalidRequest, LimitReached, NameTaken
from vws.core.image_access import ImageUser, called_by, find_image, user_of
from vws.core.image_gate import admitted, must_start_again, say_allowed
from vws.core.lifecycle import Command, commanded
from vws.core.offers import beyond, not_in_time, refusal, too_soon, why_not
from vws.core.plan.demand import Demand
from vws.core.present import Present
from vws.core.recurrence import said
from vws.core.requirements import parse
from vws.core.site import Group, Image, Lease, LeaseKind, LeaseState, PlanPhase, Workspace
from vws.core.spans import show_exactly
from vws.core.standing import begin_end, give, is_put_by, settle
from vws.core.terms import (
    Exceptions,
    GroupRequest,
    LeaseRequest,
    When,
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
    asked = tuple(_group(draft.present, g, image) for g, image in zip(request.groups, images, strict=True))
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
    demand, held = may_be_asked(draft, lease, before)
    if not outlook.planner.arrive(demand, now):
        hurries = lease.urgent and lease.kind is LeaseKind.IMMEDIATE
        block, victims = outlook.planner.soonest(demand, now) if hurries else (None, [])
        if block is None:
            raise refusal(draft.present, lease, demand, held, now=now)
        outlook.planner.accept(demand, block, victims, now)
        lease = replace(lease, start=demand.at, end=demand.at + lease.duration_s)
    draft.put_lease(lease)
    draft.say_lease("lease.granted", lease, **terms_of(lease))
    say_allowed(draft, lease, "request")


def may_be_asked(draft: Draft, lease: Lease, before: HeldBefore) -> tuple[Demand, Held]:
    """What the planner is to be asked for, and what is held beside it. Raises LimitReached if a limit does not admit
    the lease, CannotFit if it could not be prepared by its start, or would wait for ever."""
    present, outlook, now = draft.present, draft.present.outlook, int(draft.now)
    held = outlook.chosen.held(lease, draft.changed_leases(), before, present.outstanding)
    demand = outlook.demand_of(lease, outlook.number())
    try:
        outlook.chosen.check_beside(lease, held, draft.now)
        if lease.kind is LeaseKind.DEADLINE:
            outlook.check_promise(demand, now)
    except LimitReached as reached:
        raise beyond(present, lease, demand, held, reached, now=now) from None
    if not_in_time(demand, now=now):
        raise too_soon(present, lease, demand, held, now=now)
    if lease.kind is LeaseKind.BEST_EFFORT and not outlook.could_ever(demand):
        raise refusal(present, lease, demand, held, now=now)
    return demand, held


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
        raise _refused_series(draft, instances, skipped, before)
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
    except LimitReached as refused:
        return refused.problem
    if not_in_time(demand, now=now):
        return not_in_time(demand, now=now)
    return "" if outlook.planner.find(demand, now)[0] is not None else why_not(present, lease, demand, now=now)


def without(instances: Sequence[Lease], skipped: Sequence[Skipped]) -> list[Lease]:
    """The instances of a series that are no exceptions."""
    missing = {each.start for each in skipped}
    return [lease for lease in instances if lease.start not in missing]


def _refused_series(
    draft: Draft, instances: Sequence[Lease], skipped: Sequence[Skipped], before: HeldBefore
) -> CannotFit:
    first, offers = skipped[0], offers_of_series(draft, instances, skipped, before)
    return CannotFit(
        f"{len(skipped)} of the {len(instances)} starts of this rule cannot be had, the first at {said(first.start)}: "
        f"{first.reason}",
        field="rule",
        asked=len(instances),
        possible="; ".join(offer["text"] for offer in offers) or "another rule, fewer nodes, or a later time",
        details={"nodes": [], "offers": offers},
    )


def offers_of_series(
    draft: Draft, instances: Sequence[Lease], skipped: Sequence[Skipped], before: HeldBefore
) -> list[Offer]:
    """A refused series without its exceptions, if anything is left of it; with fewer workspaces; with shorter runs."""
    fewer, shorter = _fewer_each(draft, instances, skipped, before), _shorter_each(draft, instances, skipped, before)
    return [offer for offer in (exceptions_offered(instances, skipped), fewer, shorter) if offer is not None]


def exceptions_offered(instances: Sequence[Lease], skipped: Sequence[Skipped]) -> Offer | None:
    some = len(instances) - len(skipped)
    if not some or not skipped:
        return None
    others = f"the other {some} starts" if some > 1 else "the other start"
    text = f"{others} could be had, if exceptions may be skipped"
    return {"kind": "exceptions", "count": some, "skipped": [asdict(each) for each in skipped], "text": text}


def _fewer_each(
    draft: Draft, instances: Sequence[Lease], skipped: Sequence[Skipped], before: HeldBefore
) -> Offer | None:
    groups = instances[0].groups
    if len(groups) > 1:
        return None

    def of(lease: Lease, count: int) -> Lease:
        return replace(lease, groups=(replace(groups[0], count=count),))

    count = _most_for_all(draft, instances, skipped, before, range(1, groups[0].count), of)
    text = f"{count} of this size would fit at each of the {len(instances)} starts"
    return None if count is None else {"kind": "fewer", "count": count, "text": text}


def _shorter_each(
    draft: Draft, instances: Sequence[Lease], skipped: Sequence[Skipped], before: HeldBefore
) -> Offer | None:
    def of(lease: Lease, duration_s: int) -> Lease:
        return replace(lease, duration_s=duration_s, end=lease.run[0] + duration_s)

    lengths = range(SHORTEST_S, instances[0].duration_s)
    length_s = _most_for_all(draft, instances, skipped, before, lengths, of)
    if length_s is None:
        return None
    text = f"all of it for {show_exactly(length_s)} would fit at each of the {len(instances)} starts"
    return {"kind": "shorter", "duration_s": length_s, "text": text}


def _most_for_all(
    draft: Draft,
    instances: Sequence[Lease],
    skipped: Sequence[Skipped],
    before: HeldBefore,
    values: Sequence[int],
    of: Callable[[Lease, int], Lease],
) -> int | None:
    """The last of the values with which no instance is an exception. It is looked for among those that were, and then
    tried with all."""
    starts = {each.start for each in skipped}

    def could_all(value: int, instances: Sequence[Lease]) -> bool:
        return next(exceptions_of(draft, [of(lease, value) for lease in instances], before), None) is None

    failing = [lease for lease in instances if lease.start in starts]
    found = last(values, lambda value: could_all(value, failing))
    return found if found is not None and could_all(found, instances) else None


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
    """Its disks of images with these images' ids, copies with the size that they are to have; and the disks that the
    image which it boots declares."""
    found = tuple(
        _with_image(present, disk, user, f"{where}.disks[{i}]") if disk.image else disk
        for i, disk in enumerate(group.disks)
    )
    image = find_image(present, group.image, user, f"{where}.image")
    disks = checked_disks(with_declared(found, image.beside, image.id), f"{where}.disks")
    disk_mib = group.root_mib + granted_mib(disks)
    check_number(disk_mib, f"{where}.disk_mib", 1, DISK_MIB_MAX, "MiB in all")
    return replace(group, disks=disks, disk_mib=disk_mib)


def _with_image(present: Present, disk: Disk, user: ImageUser, where: str) -> Disk:
    if disk.brought:
        return disk
    image = _disk_image(present, disk, user, f"{where}.image")
    size_mib = _copy_mib(image, disk, f"{where}.size_mib") if disk.private else 0
    return replace(disk, image=image.id, size_mib=size_mib)


def _copy_mib(image: Image, disk: Disk, where: str) -> int:
    """What a private copy of an image's disk is granted."""
    low_mib = image.disk.virtual_size_mib if image.disk is not None else 0
    if disk.size_mib < low_mib and disk.size_mib:
        raise InvalidRequest(
            f"the disk of the image {image.name} has {low_mib} MiB, more than the {disk.size_mib} MiB of the copy "
            f"{disk.name}",
            field=where,
            asked=disk.size_mib,
            possible=f"{low_mib} MiB or more, or no size: then as large as its image",
        )
    if not disk.size_mib and not low_mib:
        raise InvalidRequest(
            f"the image {image.name} is simulated: it does not say how large its copy {disk.name} would be",
            field=where,
            asked=0,
            possible="a size",
        )
    return disk.size_mib or low_mib


def _disk_image(present: Present, disk: Disk, user: ImageUser, where: str) -> Image:
    image = find_image(present, disk.image, user, where)
    whole = image.disk is not None and not image.base
    if not whole and not image.simulated:
        why = f"is a delta of {image.base}" if image.base else "has no disk"
        raise InvalidRequest(
            f"the image {image.name} {why}",
            field=where,
            asked=disk.image[:60],
            possible=f"an image of a whole disk (vws image copy {image.name} NEW --flat makes one of a delta)",
        )
    return image


def _image_for(present: Present, group: GroupRequest, user: ImageUser, where: str) -> Image:
    image = find_image(present, group.image, user, f"{where}.image")
    for field, low in (("memory_mib", image.memory_mib_min), ("disk_mib", image.disk_mib_min)):
        asked = group.root_mib if field == "disk_mib" else getattr(group, field)
        if asked < low:
            raise InvalidRequest(
                f"the image {image.name} needs at least {low} MiB of {field.removesuffix('_mib')}, "
                f"{asked} MiB were asked for",
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


def _group(present: Present, request: GroupRequest, image: Image) -> Group:
    return Group(
        request.name,
        image.id,
        called_by(present, image, request.image),
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


# ---------------------------------------------------------------- ending, and commands


def command(draft: Draft, workspace: Workspace, order: Command) -> Workspace:
    """`order` given to one workspace; raises CommandRefused if its state does not allow it, or its image may not
    be started any more."""
    if order is not Command.TERMINATE:
        _must_not_be_saved(draft.lease(workspace.lease), order)
    if commanded(workspace.state, order) is not workspace.state:
        must_start_again(draft, workspace, order)
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
