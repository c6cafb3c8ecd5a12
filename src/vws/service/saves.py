"""Saving workspaces: asked for by users, taken and handed in by nodes, looked at before an image is made of it.

A node is believed no more than a user is: what it hands in is a file from a stranger, looked at like every other. It
goes on where it broke, whoever was killed; nothing of it is an image until it is whole and checked, and then it is one
in the same commit that says that the save is done.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vws import __version__
from vws.core import saves
from vws.core.deployment import Quiesced, plain
from vws.core.draft import Draft
from vws.core.errors import Conflict, InvalidRequest, NotFound, Unavailable, VwsError
from vws.core.image_access import must_own_name, user_of
from vws.core.image_names import check_new_name, show_tag
from vws.core.image_origin import made_from
from vws.core.manifest import digest
from vws.core.site import Answer, Document, DocumentKind, Image, OriginKind, Role, Save, Workspace
from vws.faultpoints import reach
from vws.ports import Filter, Page
from vws.service.access import Caller
from vws.service.disk_check import examine_disk
from vws.service.images import Images
from vws.service.leases import Leases
from vws.service.once import Once
from vws.service.site import Site
from vws.service.uploads import SparseFile

STATEMENT_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:vws:build:save:1"
BUILDER = "urn:vws:builder:workspace-save"


class Saves:
    def __init__(self, site: Site, images: Images, leases: Leases, directory: Path) -> None:
        self._site = site
        self._images = images
        self._leases = leases
        self._directory = directory
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._files: dict[str, SparseFile] = {}

    # ------------------------------------------------------------ users

    def ask(
        self, caller: Caller, workspace: str, name: str, *, at_end: bool, clean: bool, once: Once | None = None
    ) -> Save | Answer:
        """Order that a workspace becomes the image `name` (NAME or NAME:TAG) of its owner.

        Raises CommandRefused, Conflict (core/saves.py: ask), NameTaken, NotFound, Forbidden.
        """
        found = self._leases.workspace(caller, workspace)
        tag = check_new_name(name)
        base = self._site.present.images.get(found.image) or self._site.store.get(Image, found.image)

        def decide(draft: Draft) -> Save:
            present = draft.present.workspaces.get(found.id, found)
            must_own_name(draft.present, tag[0], user_of(draft.present, present.owner, draft.now))
            save = Save(
                self._site.ids.new("sav"), present.id, present.lease, present.owner, present.node, base.id, *tag,
                at_end=at_end, clean=clean, asked_at=draft.now,
            )  # fmt: skip
            return saves.ask(draft, present, base, save)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def save(self, caller: Caller, id: str) -> Save:
        caller.must_be(Role.ADMIN, Role.USER)
        found: Save | None = self._site.store.get(Save, id)
        if found is None:
            raise NotFound(f"there is no save {id[:60]!r}", field="id", asked=id[:60], possible="vws workspace saves")
        caller.must_own(found.owner, f"the save {found.id}")
        return found

    def all(self, caller: Caller, where: Filter, *, after: str | None, limit: int) -> Page:
        caller.must_be(Role.ADMIN, Role.USER)
        where = where if caller.is_admin else replace(where, owner=caller.subject)
        return self._site.store.page(Save, where, after=after, limit=limit)

    # ------------------------------------------------------------ nodes

    def _due(self, caller: Caller, node: str, id: str) -> Save:
        caller.must_be(Role.NODE)
        save = self._site.present.saves.get(id)
        if save is None or save.node != node or caller.subject != node:
            raise NotFound(f"the node {node[:60]} is to save nothing called {id[:60]!r}", field="save", asked=id[:60])
        return save

    def offset(self, caller: Caller, node: str, id: str) -> int:
        """How much of a capture has come, in bytes."""
        with self._alone(self._due(caller, node, id)) as save:
            return self._opened(save).position

    @contextmanager
    def receiving(self, caller: Caller, node: str, id: str, offset: int) -> Iterator[SparseFile]:
        """The file to write on, from `offset`, which must be where it ends. Conflict while another does so."""
        with self._alone(self._due(caller, node, id)) as save:
            file = self._opened(save)
            if file.position != offset:
                raise Conflict(
                    f"the capture goes on at {file.position}, not at {offset}", field="offset", asked=offset,
                    details={"offset": file.position},
                )  # fmt: skip
            yield file

    def complete(self, caller: Caller, node: str, id: str, sha256: str, quiesced: Quiesced | None = None) -> Save:
        """The save, now that all has come: done, or failed if no image can be made of it. InvalidRequest if what came
        is not what was sent: it is to be sent anew then. quiesced: as the node says; None: it does not."""
        with self._alone(self._due(caller, node, id)) as save:
            file = self._opened(save)
            if file.sha256 != sha256:
                self._drop(save.id)
                raise InvalidRequest("the capture was altered on its way", field="sha256", possible="send it anew")
            file.flush()
            reach("service.save.received")
            try:
                ended = self._made(save, quiesced)
            except Unavailable:
                raise
            except VwsError as error:
                ended = self._ended(save, f"no image can be made of it: {error.problem}")
            self._drop(save.id)
            return ended

    def give_up(self, caller: Caller, node: str, id: str, reason: str) -> Save:
        with self._alone(self._due(caller, node, id)) as save:
            ended = self._ended(save, plain(reason))
            self._drop(save.id)
            return ended

    def sweep(self) -> None:
        """Remove what an earlier process left of saves that are over. Call it before serving."""
        for path in self._directory.glob("*"):
            if path.name not in self._site.present.saves:
                path.unlink()

    # ------------------------------------------------------------ making

    def _made(self, save: Save, quiesced: Quiesced | None) -> Save:
        path = self._link(save.id)
        try:
            delta = examine_disk(path, "disk", "qcow2", self._site.settings.image_bytes_max)
            base: Image = self._site.present.images.get(save.base) or self._site.store.get(Image, save.base)
            owner = self._owner(save)
            origins = made_from(self._site.present, base, OriginKind.SAVED)
            image = replace(saves.saved_image(base, save, delta), origins=origins)
            ended = self._images.enter_made(
                owner, (save.name, save.tag), image, (image.files[0], path),
                lambda kept: [self._provenance(save, base, kept, quiesced)],
                lambda draft, kept: saves.done(draft, save, kept),
            )  # fmt: skip
            assert isinstance(ended, Save)
            return ended
        finally:
            path.unlink(missing_ok=True)

    def _link(self, id: str) -> Path:
        """Another name of the file, for the images to take: what has come stays until the commit."""
        path = self._images.begin()
        os.link(self._directory / id, path)
        return path

    def _owner(self, save: Save) -> Caller:
        user = user_of(self._site.present, save.owner, self._site.clock.now())
        return Caller(save.owner, Role.ADMIN if user.is_admin else Role.USER)

    def _ended(self, save: Save, reason: str) -> Save:
        ended = self._site.change(save.node, lambda draft: saves.failed(draft, save, reason))
        assert isinstance(ended, Save)
        return ended

    def _provenance(self, save: Save, base: Image, image: Image, quiesced: Quiesced | None) -> Document:
        workspace: Workspace = self._site.store.get(Workspace, save.workspace)
        asked = {
            "workspace": {"id": save.workspace, "name": workspace.name},
            "lease": save.lease,
            "user": save.owner,
            "when": "end" if save.at_end else "now",
            "cleaned": save.clean,
        }
        beneath = {"name": base.name, "uri": f"vws:{base.id}", "digest": {"sha256": digest(base)}}
        statement: dict[str, Any] = {
            "_type": STATEMENT,
            "subject": [{"name": show_tag(save.name, save.tag), "digest": {"sha256": digest(image)}}],
            "predicateType": PROVENANCE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE, "externalParameters": asked, "resolvedDependencies": [beneath],
                    "internalParameters": {"quiesced": str(quiesced or "unknown")},
                },
                "runDetails": {
                    "builder": {"id": BUILDER, "version": {"vws": __version__}},
                    "metadata": {"invocationId": save.id},
                    "byproducts": [{"name": "node", "uri": f"vws:{save.node}"}],
                },
            },
        }  # fmt: skip
        content = json.dumps(statement, indent=1).encode() + b"\n"
        now = self._site.clock.now()
        return Document("", image.id, DocumentKind.PROVENANCE, STATEMENT_TYPE, content, now, save.owner)

    # ------------------------------------------------------------ files

    @contextmanager
    def _alone(self, save: Save) -> Iterator[Save]:
        with self._lock:
            if save.id in self._busy:
                raise Unavailable("this capture is being written to by another request", possible="again in a moment")
            self._busy.add(save.id)
        try:
            yield save
        finally:
            self._busy.discard(save.id)

    def _opened(self, save: Save) -> SparseFile:
        if save.id not in self._files:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._files[save.id] = SparseFile(self._directory / save.id, self._site.settings.image_bytes_max)
        return self._files[save.id]

    def _drop(self, id: str) -> None:
        file = self._files.pop(id, None)
        if file is not None:
            file.close()
        (self._directory / id).unlink(missing_ok=True)
