"""The two moments at which the site's image policy is asked: when a lease is, and when its workspaces are made.

Between them days may pass, in which signers are revoked, attestations expire and policies change: what may not run any
more is not begun. Once its workspaces are made, a lease keeps what it was granted, but for revocations: those reach
every boot (service/trust.py: `vouched`). Nodes see to it that what boots is what was granted (core/trust.py).

What is said of the image that a workspace boots is said of those whose disks it shares, too: who may not run an image
does not get at what is in it by this way.

A workspace that runs what was revoked meanwhile runs on. What would stop it for a new start is refused, as that start
would fail, and take its disks with it.

Every decision that a policy made is an event. A site without a policy decides nothing and says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from vws.core.draft import Draft
from vws.core.errors import CommandRefused
from vws.core.image_policy import Decision, ImageRefused, must_be_allowed
from vws.core.lifecycle import Command, State
from vws.core.site import Group, Image, Lease, Workspace
from vws.core.subscriptions import not_listed

ALLOWED, REFUSED = "image.allowed", "image.refused"
# After these its node looks at what it boots, now or when it is to go on.
STARTING = frozenset({Command.REBOOT, Command.SUSPEND, Command.RESTORE})


def admitted(
    draft: Draft, groups: Sequence[Group], images: Sequence[Image], owner: str, cluster: str
) -> tuple[Group, ...]:
    """The groups, as the policy lets `owner` have them; raises ImageRefused."""
    return tuple(
        _admitted(draft, group, image, owner, cluster, f"groups[{i}]")
        for i, (group, image) in enumerate(zip(groups, images, strict=True))
    )


def _admitted(draft: Draft, group: Group, image: Image, owner: str, cluster: str, where: str) -> Group:
    decision = replace(_judged(draft, image, owner), image=group.image_name)
    must_be_allowed(decision, f"{where}.image")
    if decision.isolated and cluster:
        _must_have_no_way_out(draft, group, decision, cluster, where)
    for i, disk in enumerate(group.disks):
        shared = draft.present.images.get(disk.image)
        if shared is not None and shared != image:
            must_be_allowed(_judged(draft, shared, owner), f"{where}.disks[{i}].image")
    return replace(group, signers=tuple(sorted(decision.keys)), isolated=decision.isolated)


def _must_have_no_way_out(draft: Draft, group: Group, decision: Decision, cluster: str, where: str) -> None:
    mine = draft.cluster(cluster).networks
    for network in mine:
        if (network.outgoing or network.pool) and network.name in group.networks:
            name = network.name
            raise ImageRefused(
                f"the image {decision.named} may have no way out, and the network {name} has one ({decision.rule})",
                field=f"{where}.networks",
                asked=name,
                possible="a network without outgoing, or an image that the policy lets out",
                details={"image": decision.image, "digest": decision.digest, "rule": decision.rule},
            )


def say_allowed(draft: Draft, lease: Lease, at: str, nodes: Sequence[str] = ()) -> None:
    """Record what the policy says of the lease's images now. at: `request` or `start`; nodes: the names of theirs."""
    for image, decision in _decisions(draft, lease):
        if decision.rule:
            where = {"nodes": sorted(set(nodes))} if nodes else {}
            told = {"name": decision.image, "at": at, "lease_name": lease.name, **where, **decision.told}
            draft.say(ALLOWED, owner=lease.owner, image=image, lease=lease.id, **told)


def refused_now(draft: Draft, lease: Lease) -> str:
    """Why the lease must not begin, recorded; "" if it may."""
    for image, decision in _decisions(draft, lease):
        if not decision.allowed:
            told = {"name": decision.image, "at": "start", "lease_name": lease.name, **decision.told}
            draft.say(REFUSED, owner=lease.owner, image=image, lease=lease.id, **told)
            by = f" ({decision.rule})" if decision.rule else ""
            return f"its image {decision.named} may not be run any more: {decision.reason}{by}"
    return ""


def must_start_again(draft: Draft, workspace: Workspace, order: Command) -> None:
    """Raise CommandRefused if `order` would have a workspace started whose image may not boot any more."""
    why = draft.present.boot_refusal(workspace) if order in STARTING else ""
    if not why:
        return
    stopped = workspace.state in (State.SUSPENDED, State.STOPPED)
    stays = "what is kept of it stays until its lease ends" if stopped else "it runs on until its lease ends"
    raise CommandRefused(
        f"cannot {order} {workspace.name}: it would not start again, and its disks would be lost: {why}",
        field="command",
        asked=str(order),
        possible=f"{stays}; {order} it if the site lets the image run again"
        + ("" if stopped else ", or take from it what you need"),
    )


def _decisions(draft: Draft, lease: Lease) -> Iterator[tuple[str, Decision]]:
    asked = {group.image: group.image_name for group in lease.groups}
    used = [id for group in lease.groups for id in (group.image, *(disk.image for disk in group.disks)) if id]
    for id in dict.fromkeys(used):
        image = draft.present.images.get(id)
        if image is not None:  # one that was removed meanwhile is no longer anybody's to judge
            decision = _judged(draft, image, lease.owner)
            yield id, replace(decision, image=asked.get(id, decision.image))


def _judged(draft: Draft, image: Image, user: str) -> Decision:
    """An image that came from a list needs the list's word beside the policy's."""
    return not_listed(draft.present, image, draft.now) or draft.present.judge(image, user, draft.now)
