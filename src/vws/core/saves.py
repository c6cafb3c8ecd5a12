"""Workspaces that become images: what may be saved, and how a save ends.

A save is an order to a node like others: it stays until it is done or has failed, whoever was away meanwhile. The
workspace may be gone by then, which is why a save says for itself where it is, whose and on what.
"""

from __future__ import annotations

from dataclasses import replace

from vws.core.draft import Draft
from vws.core.errors import CommandRefused, Conflict
from vws.core.image_names import show_tag
from vws.core.lifecycle import FINAL, State
from vws.core.manifest import made_sha256
from vws.core.site import Image, ImageFile, Node, Save, SaveState, Workspace

# With a disk that lies still, or can be made to.
NOW = frozenset({State.RUNNING, State.PAUSED, State.STOPPED})


def ask(draft: Draft, workspace: Workspace, image: Image, save: Save) -> Save:
    """Order it. Raises CommandRefused, Conflict when the workspace cannot be saved so."""
    _check_state(workspace, save.at_end)
    if image.simulated or (image.disk is None and image.boot == "disk"):
        raise Conflict(f"{workspace.name} runs a simulated image, of which nothing can be kept", asked=workspace.name)
    if _is_encrypted(draft, workspace, image):
        raise Conflict(
            f"{workspace.name} is encrypted, and encrypted workspaces cannot be saved: what is saved is cleaned in the "
            "clear on its node", asked=workspace.name,
            possible="take what is worth keeping out of the guest itself; the image is as it was",
        )  # fmt: skip
    for other in list(draft.present.saves.values()):
        if other.workspace == workspace.id and other.at_end == save.at_end:
            called = show_tag(other.name, other.tag)
            raise Conflict(
                f"{workspace.name} is being saved as {called} already", field="workspace", asked=workspace.name,
                possible="the same when that is over (vws workspace saves)",
            )  # fmt: skip
    draft.say_workspace("workspace.save-asked", workspace, save=save.id, called=save.name, at_end=save.at_end)
    return draft.put_save(save)


def _is_encrypted(draft: Draft, workspace: Workspace, image: Image) -> bool:
    """By its image or one whose disk it shares, as its node judges it (core/deployment.py)."""
    lease = draft.present.leases.get(workspace.lease)
    groups = (group for group in (lease.groups if lease else ()) if group.name == workspace.group)
    shared = (draft.present.images.get(disk.image) for group in groups for disk in group.disks)
    return image.encrypted or any(other.encrypted for other in shared if other is not None)


def _check_state(workspace: Workspace, at_end: bool) -> None:
    over = workspace.state in FINAL or workspace.state is State.TERMINATING or workspace.released_at is not None
    if over or (not at_end and workspace.state not in NOW):
        allowed = ", ".join(sorted(NOW))
        raise CommandRefused(
            f"cannot save a workspace that is {workspace.state}", field="workspace", asked=workspace.name,
            possible="nothing of it is left" if over else f"while it is {allowed}; or --when end",
        )  # fmt: skip


def done(draft: Draft, save: Save, image: Image) -> Save:
    after = replace(save, state=SaveState.DONE, image=image.id, ended_at=draft.now)
    draft.say(
        "workspace.saved", owner=save.owner, lease=save.lease, node=save.node, image=image.id,
        workspace=save.workspace, save=save.id, base=save.base,
    )  # fmt: skip
    return draft.put_save(after)


def failed(draft: Draft, save: Save, reason: str) -> Save:
    draft.say(
        "workspace.save-failed", owner=save.owner, lease=save.lease, node=save.node,
        workspace=save.workspace, save=save.id, reason=reason,
    )  # fmt: skip
    return draft.put_save(replace(save, state=SaveState.FAILED, reason=reason, ended_at=draft.now))


def forsake_saves(draft: Draft, node: Node) -> None:
    """A node is taken out: what it was to save it never will."""
    for save in draft.present.saves_on(node.id):
        failed(draft, save, f"its node {node.name} was removed")


def saved_image(base: Image, save: Save, delta: ImageFile) -> Image:
    """The image that a workspace of the image `base` became, with `delta` as its disk. It has no id yet."""
    beneath = tuple(replace(file, role="base") for file in base.chain)
    rest = tuple(file for file in base.files if file.role not in ("disk", "base"))
    files = (replace(delta, base=beneath[0].sha256 if beneath else ""), *beneath, *rest)
    own = sum(file.size_bytes for file in files if file.role != "base")
    made = replace(
        base, id="", name=save.name, owner=save.owner, size_bytes=own, files=files,
        disk_mib_min=delta.virtual_size_mib, created_at=0.0, removed_at=None, shared=(), retired_at=None,
        base=base.id if beneath else "",
    )  # fmt: skip
    return replace(made, sha256=made_sha256(made))
