"""Keys of what is encrypted: sealed on record, opened for the one who is to have them, and never said.

A node asks for the keys of a workspace when it is about to make, start, suspend or restore it. It gets them if the
workspace is its own to run: the lease was granted and begun, which is to say that the image policy allowed it
(core/image_gate.py), and nothing of it was revoked since. Each time is an event; no key is in one, nor in orders, kept
answers or errors.

A workspace has a key of its own, for the disks that it writes to and for its memory at rest. With the image's key,
whoever may have that (its owner, every node that ran it) could read what other users' guests wrote. It is forgotten
with its workspace: what is left of its files on a node's disk opens to nobody any more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from vws.core.deployment import FileKey, VouchedOf, WorkspaceKeys
from vws.core.draft import Draft
from vws.core.errors import Conflict, Forbidden, NotFound
from vws.core.image_access import may_change
from vws.core.image_origin import revocation_of
from vws.core.lifecycle import UNORDERED
from vws.core.site import Changes, Image, Role, Workspace
from vws.service.access import Caller
from vws.service.images import Images
from vws.service.sealing import KeyRing, new_passphrase
from vws.service.site import Site

GIVEN, EXPORTED = "image.key-given", "image.key-exported"


class Keys:
    def __init__(self, site: Site, ring: KeyRing, images: Images, vouched_of: VouchedOf) -> None:
        self._site = site
        self._ring = ring
        self._images = images
        self._vouched_of = vouched_of
        self._lock = threading.Lock()
        self._over: set[str] = set()
        site.follow(self._note_ends)

    # ------------------------------------------------------------ nodes

    def hand_out(self, caller: Caller, node: str, workspace: str) -> WorkspaceKeys:
        """What the node needs to run its workspace. Raises NotFound unless it is to run it, Forbidden if nothing of it
        is encrypted, Conflict if the keys cannot be opened."""
        caller.must_be(Role.NODE)

        def decide(draft: Draft) -> WorkspaceKeys:
            found = draft.present.workspaces.get(workspace)
            if found is None or found.node != node or caller.subject != node or found.state in UNORDERED:
                raise NotFound(
                    f"the node {node[:60]} runs no workspace {workspace[:60]!r}", field="workspace",
                    asked=workspace[:60],
                )  # fmt: skip
            return self._given(draft, found)

        given = self._site.change(node, decide)
        assert isinstance(given, WorkspaceKeys)
        return given

    def _given(self, draft: Draft, workspace: Workspace) -> WorkspaceKeys:
        images = [image for image in self._of(draft, workspace) if image.encrypted]
        if not images:
            raise Forbidden(f"{workspace.name} has nothing that is encrypted", field="workspace", asked=workspace.id)
        own = self._ring.opened(workspace.id).get("")
        if own is None:
            own = new_passphrase()
            self._ring.add(draft, workspace.id, "", own)
        entitled = [image for image in images if self._is_entitled(draft, workspace, image)]
        files = {sha256: key for image in entitled for sha256, key in self._ring.opened(image.id).items()}
        draft.say_workspace(
            GIVEN, workspace, node_name=draft.node(workspace.node).name, images=[image.id for image in entitled]
        )
        return WorkspaceKeys(own, tuple(FileKey(*each) for each in sorted(files.items())))

    def _of(self, draft: Draft, workspace: Workspace) -> Iterable[Image]:
        """The images whose disks it has."""
        lease = draft.present.leases[workspace.lease]
        groups = (group for group in lease.groups if group.name == workspace.group)
        wanted = [workspace.image, *(disk.image for group in groups for disk in group.disks if disk.image)]
        for id in dict.fromkeys(wanted):
            yield draft.present.images.get(id) or self._site.store.get(Image, id)

    def _is_entitled(self, draft: Draft, workspace: Workspace, image: Image) -> bool:
        """Revocations reach what runs: a guest goes on, and may be suspended, but boots no more."""
        if revocation_of(draft.present, image) is not None:
            return False
        if image.id != workspace.image:
            return True
        vouched = self._vouched_of(workspace, draft.present.leases[workspace.lease], image)
        return vouched is None or not vouched.refused

    # ------------------------------------------------------------ owners

    def export(self, caller: Caller, asked: str) -> str:
        """The passphrase of an image's disk, for its owner and administrators. Raises Conflict if it has none."""
        image = self._images.image(caller, asked)
        if not may_change(image, self._images.user(caller)):
            raise Forbidden(
                f"the key of {asked[:60]} is for its owner and administrators only", field="id", asked=asked[:60],
                possible="lease it: its nodes get the key",
            )  # fmt: skip

        def decide(draft: Draft) -> str:
            passphrase = self._ring.opened(image.id).get(image.disk.sha256) if image.disk else None
            if passphrase is None:
                raise Conflict(f"the image {asked[:60]} is not encrypted", field="id", asked=asked[:60])
            draft.say(EXPORTED, owner=image.owner, image=image.id, name=image.name)
            return passphrase

        exported = self._site.change(caller.subject, decide)
        assert isinstance(exported, str)
        return exported

    # ------------------------------------------------------------ forgetting

    def _note_ends(self, changes: Changes) -> None:
        over = {w.id for w in changes.workspaces if w.released_at is not None}
        over |= {image.id for image in changes.images if image.removed_at is not None and image.encrypted}
        if over:
            with self._lock:
                self._over |= over

    def tidy(self) -> None:
        """Forget the keys of what has ended; called every few seconds."""
        with self._lock:
            over, self._over = self._over, set()
        gone = over & self._site.store.keys_of() if over else over
        if gone:
            self._site.store.forget_keys(gone)

    def sweep(self) -> None:
        """The same for what ended while no process was there. Call it before serving."""
        kept = self._site.store.keys_of()
        self._site.catch_up()  # whatever has a key among those is present now, or over
        present = self._site.present
        alive = {w.id for w in present.workspaces.values() if w.released_at is None} | present.images.keys()
        with self._lock:
            self._over |= kept - alive
        self.tidy()
