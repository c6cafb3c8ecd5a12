"""The decisions about leases: granting, changing and ending them.

Each gathers its changes in a `Draft`, or refuses by a domain error, in which
case the draft is dropped and nothing has changed. What follows from facts and
from the passing of time is in core/standing.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from vws.core.draft import Draft
from vws.core.errors import CannotFit, CommandRefused, InvalidRequest, NameTaken
from vws.core.lifecycle import UNORDERED, Command, Desired, State
from vws.core.placement import place, refusal, rooms
from vws.core.present import Present
from vws.core.requirements import parse
from vws.core.site import Group, Image, Lease, LeaseKind, LeaseState, Node, Workspace
from vws.core.standing import begin_end, give, settle
from vws.core.terms import (
    CPUS_MAX,
    DURATION_S_MAX,
    MEMORY_MIB_MAX,
    MEMORY_MIB_MIN,
    GroupRequest,
    LeaseRequest,
    Size,
    When,
    check_duration,
    check_number,
    check_request,
)
from vws.core.usage import member_of, terms_of

Ids = Callable[[str], str]


# ---------------------------------------------------------------- granting


def grant(draft: Draft, request: LeaseRequest, *, owner: str, ids: Ids) -> Lease:
    """The lease for `request`, placed and addressed; raises CannotFit, InvalidRequest or NameTaken."""
    present, now = draft.present, draft.now
    start = int(now)
    request, images = resolve(present, request, now=start)
    chosen = fit(present, request, now=start)
    lease_id = ids("lse")
    lease = Lease(
        id=lease_id,
        name=_free_name(present, request.name or f"lease-{lease_id[-6:]}"),
        owner=owner,
        kind=LeaseKind.IMMEDIATE,
        state=LeaseState.PENDING,
        groups=tuple(_group(g, image) for g, image in zip(request.groups, images, strict=True)),
        start=start,
        end=start + request.duration_s,
        duration_s=request.duration_s,
        ssh_keys=request.ssh_keys,
        created_at=now,
        submitted_at=now,
        preemptible=request.preemptible,
    )
    draft.put_lease(lease)
    draft.say_lease("lease.granted", lease, **terms_of(lease))
    for workspace in _members(present, lease, chosen, now, ids):
        draft.say_workspace(
            "workspace.planned", draft.order(workspace), address=workspace.address, **member_of(workspace)
        )
    return lease


def resolve(present: Present, request: LeaseRequest, *, now: int) -> tuple[LeaseRequest, list[Image]]:
    """The checked request with the images its groups name, big enough for them."""
    request = check_request(request, now=now)
    for i, group in enumerate(request.groups):
        if group.requirement:
            parse(group.requirement, f"groups[{i}].requirement")
    _must_be_served(request)
    return request, [_image_for(present, g, f"groups[{i}]") for i, g in enumerate(request.groups)]


def _must_be_served(request: LeaseRequest) -> None:
    """Only what placing from now on can keep is agreed to; nothing that was asked for is left out in silence."""
    choosy = [g for g in request.groups if g.requirement or g.apart or g.together]
    if request.when is not When.IMMEDIATE or request.urgent or choosy:
        asked = request.when if request.when is not When.IMMEDIATE else "urgent or choosy"
        raise InvalidRequest(
            f"{asked} leases are not granted yet",
            field="when",
            asked=str(request.when),
            possible="an immediate lease on any nodes",
        )


def fit(present: Present, request: LeaseRequest, *, now: int) -> list[list[str]]:
    """For each group its members' nodes from now on; raises CannotFit."""
    nodes, timeline = present.nodes, present.timeline
    site = (timeline, present.addresses_free)
    room = rooms(nodes.values(), *site, now, now + request.duration_s, now=now, closed=present.closed)
    chosen = place(request.groups, room)
    if chosen is None:
        raise refusal(request.groups, request.duration_s, nodes, *site, now=now, closed=present.closed)
    return chosen


def find_image(present: Present, asked: str, field: str) -> Image:
    """The image of that id or name; raises InvalidRequest naming those there are."""
    image = present.images.get(asked) or next((i for i in present.images.values() if i.name == asked), None)
    if image is None:
        names = sorted(i.name for i in present.images.values())
        raise InvalidRequest(
            f"there is no image {asked[:60]!r}",
            field=field,
            asked=asked[:60],
            possible=f"one of: {', '.join(names[:20])}" if names else "import one first (vws image import)",
        )
    return image


def _image_for(present: Present, group: GroupRequest, where: str) -> Image:
    image = find_image(present, group.image, f"{where}.image")
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


def _free_name(present: Present, name: str) -> str:
    if present.lease_named(name) is not None:
        raise NameTaken(
            f"a live lease is already called {name}",
            field="name",
            asked=name,
            possible="another name, or none: then the site makes one up",
        )
    return name


def _group(request: GroupRequest, image: Image) -> Group:
    return Group(
        request.name,
        image.id,
        image.name,
        request.count,
        request.cpus,
        request.memory_mib,
        request.disk_mib,
        request.requirement,
        request.apart,
        request.together,
    )


def _members(
    present: Present, lease: Lease, chosen: Sequence[Sequence[str]], now: float, ids: Ids
) -> tuple[Workspace, ...]:
    taken: dict[str, set[str]] = {}
    members = []
    for group, nodes in zip(lease.groups, chosen, strict=True):
        prefix = f"{lease.name}-{group.name}" if group.name else lease.name
        for number, node in enumerate(nodes, start=1):
            held = taken.setdefault(node, set(present.addresses_held(node)))
            address = _free_address(present.nodes[node], held)
            held.add(address)
            members.append(_member(lease, group, f"{prefix}-{number}", number, node, address, now, ids))
    return tuple(members)


def _member(
    lease: Lease, group: Group, name: str, number: int, node: str, address: str, now: float, ids: Ids
) -> Workspace:
    return Workspace(
        id=ids("wsp"),
        name=name,
        lease=lease.id,
        owner=lease.owner,
        group=group.name,
        number=number,
        node=node,
        image=group.image,
        state=State.PLANNED,
        desired=Desired.RUN,
        address=address,
        mac=mac_of(address),
        cpus=group.cpus,
        memory_mib=group.memory_mib,
        disk_mib=group.disk_mib,
        cpus_defined=group.cpus,
        memory_defined_mib=group.memory_mib,
        end=lease.run[1],
        created_at=now,
        changed_at=now,
    )


def _free_address(node: Node, held: set[str]) -> str:
    hosts = ipaddress.ip_network(node.subnet).hosts()
    next(hosts)  # the gateway's
    return next(text for text in map(str, hosts) if text not in held)


def mac_of(address: str) -> str:
    """A locally administered MAC address with the IPv4 address in it: as unique as that is."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x77, *ipaddress.IPv4Address(address).packed))


# ---------------------------------------------------------------- changing


def command(draft: Draft, workspace: Workspace, order: Command) -> Workspace:
    """`order` given to one workspace; raises CommandRefused if its state does not allow it."""
    after = give(draft, workspace, order, f"asked by {draft.actor}")
    settle(draft)
    return after


def cancel(draft: Draft, lease: Lease) -> Lease:
    """Ends a lease now. A repeat changes nothing."""
    if lease.ended or lease.state is LeaseState.ENDING:
        return lease
    begin_end(draft, lease, LeaseState.ENDED, f"cancelled by {draft.actor}")
    settle(draft)
    return draft.lease(lease.id)


def extend(draft: Draft, lease: Lease, duration_s: int) -> Lease:
    """Moves the lease's end `duration_s` later; raises CannotFit if a later slot is taken by others."""
    check_duration(duration_s)
    start, before = _must_have_run(lease, "extended")
    end = before + duration_s
    check_number(end - start, "duration_s", 1, DURATION_S_MAX, "s in all")
    live = [w for w in draft.members(lease.id) if w.state not in UNORDERED]
    _must_be_open(draft.present, live, before, end, int(draft.now))
    _must_fit(draft.present, live, before, end, int(draft.now), lambda: "a shorter extension")
    after = draft.put_lease(replace(lease, end=end, duration_s=lease.duration_s + duration_s))
    draft.say_lease("lease.extended", after, before=before, **terms_of(after))
    for workspace in live:
        draft.order(replace(workspace, end=end))
    return after


def resize(draft: Draft, lease: Lease, *, group: str | None, memory_mib: int | None, cpus: int | None) -> Lease:
    """Sets the size of all workspaces of `group` (None: of all groups), the running ones too."""
    _, end = _must_have_run(lease, "resized")
    _check_resize(draft.present, lease, group, memory_mib, cpus)
    wanted = {g.name for g in lease.groups if group is None or g.name == group}
    live = [
        _resized_workspace(w, memory_mib, cpus)
        for w in draft.members(lease.id)
        if w.state not in UNORDERED and w.group in wanted
    ]
    now = int(draft.now)
    nearest = partial(_largest, draft.present, live, lease, now, memory_mib, cpus)
    _must_fit(draft.present, live, now, end, now, nearest)
    groups = tuple(_resized_group(g, memory_mib, cpus) if g.name in wanted else g for g in lease.groups)
    after = draft.put_lease(replace(lease, groups=groups))
    draft.say_lease("lease.resized", after, group=group, memory_mib=memory_mib, cpus=cpus, **terms_of(after))
    for workspace in live:
        draft.order(workspace)
    return after


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


def _must_have_run(lease: Lease, verb: str) -> tuple[int, int]:
    """Start and end of its run; raises CommandRefused for a lease that ends, and for one that waits for its time."""
    if lease.ended or lease.state is LeaseState.ENDING:
        raise CommandRefused(
            f"{lease.name} is {lease.state} ({lease.reason}) and cannot be {verb}",
            field="lease",
            asked=lease.id,
            possible="ask for a new lease",
        )
    if lease.start is None or lease.end is None:
        raise CommandRefused(
            f"{lease.name} is {lease.state} and has no time yet, so it cannot be {verb}",
            field="lease",
            asked=lease.id,
            possible="the same once it has begun",
        )
    return lease.start, lease.end


def _must_be_open(present: Present, mine: Sequence[Workspace], start: int, end: int, now: int) -> None:
    """Raise CannotFit if a node of these workspaces is in maintenance at some instant of [start, end)."""
    for node in sorted({w.node for w in mine}):
        closed = present.closed(node, start, end, now=now)
        if closed:
            name = present.nodes[node].name
            raise CannotFit(
                f"{name} cannot be used for so long: {closed}",
                field="lease",
                possible="an extension that ends before",
                details={"nodes": [{"node": node, "name": name, "reason": closed}], "offers": []},
            )


def _must_fit(
    present: Present, mine: Sequence[Workspace], start: int, end: int, now: int, nearest: Callable[[], str]
) -> None:
    """Raise CannotFit unless each node has room for these workspaces, as they would be, over [start, end).

    nearest: says which change like this one would fit.
    """
    for node, here, free in _rooms(present, mine, start, end, now):
        for workspace in here:
            free -= node.capacity.taken_by(workspace.held)
        too_wide = max(w.cpus for w in here) > node.capacity.cpus
        if too_wide or min(free.cpus, free.memory_mib, free.disk_mib) < 0:
            raise _no_room(node, here, free, nearest())


def _rooms(
    present: Present, mine: Sequence[Workspace], start: int, end: int, now: int
) -> Iterator[tuple[Node, list[Workspace], Size]]:
    """Each node of these workspaces, those on it, and what it has for them over [start, end)."""
    for node_id in sorted({w.node for w in mine}):
        node, here = present.nodes[node_id], [w for w in mine if w.node == node_id]
        others = present.timeline.peak(node_id, start, end, now=now, without=frozenset(w.id for w in here))
        yield node, here, node.capacity.size - others


def _largest(
    present: Present, mine: Sequence[Workspace], lease: Lease, now: int, memory_mib: int | None, cpus: int | None
) -> str:
    """How much of what was asked for (memory, CPUs) every one of these workspaces could have."""
    memory_max, cpus_max = MEMORY_MIB_MAX, CPUS_MAX
    for node, here, room in _rooms(present, mine, now, lease.run[1], now):
        memory_max = min(memory_max, room.memory_mib // len(here) - node.capacity.overhead_mib)
        cpus_max = min(cpus_max, room.cpus // len(here), node.capacity.cpus)
    # Whoever was given more at his boot holds it until the next one.
    if memory_max < max(w.memory_defined_mib for w in mine) or cpus_max < 1:
        return "a smaller change"
    parts = [f"{memory_max} MiB"] if memory_mib else []
    parts += [f"{cpus_max} CPU{'s' if cpus_max > 1 else ''}"] if cpus else []
    return f"up to {' and '.join(parts)} each"


def _no_room(node: Node, here: Sequence[Workspace], free: Size, nearest: str) -> CannotFit:
    short = [
        f"{-left} {unit} short"
        for left, unit in ((free.cpus, "CPUs"), (free.memory_mib, "MiB of memory"), (free.disk_mib, "MiB of disk"))
        if left < 0
    ] or [f"it has {node.capacity.cpus} CPUs"]
    reason = ", ".join(short)
    return CannotFit(
        f"{node.name}, the node of {', '.join(w.name for w in here)}, has no room for that: {reason}",
        field="lease",
        possible=f"{nearest}, or the same after other leases on that node have ended",
        details={"nodes": [{"node": node.id, "name": node.name, "reason": reason}], "offers": []},
    )
