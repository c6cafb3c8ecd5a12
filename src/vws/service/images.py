"""Images: taken in only after a look at what they really are.

An image comes from a user and will be opened by a hypervisor that runs as root: nothing is believed. What it is is
told from its first bytes, never from its name; a qcow2 that points at other files is refused before any tool opens it;
qemu-img looks at it in a child with limits on time, memory and output.

Two kinds are taken: disk images (qcow2, raw) which firmware boots, and VWS's appliance bundles (a tar of
appliance.json, kernel, initrd and optionally disk.qcow2) which the hypervisor boots directly.

Files are kept for the images on record and for nothing else. Whatever an upload came to (a refusal, an answer given
before, a commit that failed), those of its files that no image has are removed again.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from vws.core.draft import Draft
from vws.core.errors import Forbidden, InUse, NameTaken, NotFound, Unavailable
from vws.core.site import Answer, Image, Role
from vws.core.terms import check_name
from vws.ports import Blobs, Filter, Page
from vws.service.access import Caller
from vws.service.image_check import Found, examine
from vws.service.once import Once
from vws.service.site import Site


class Images:
    def __init__(self, site: Site, blobs: Blobs, uploads: Path) -> None:
        self._site = site
        self._blobs = blobs
        self._uploads = uploads
        # Between its adoption and its commit a file is of no image: nothing is swept meanwhile.
        self._keeping = threading.Lock()

    def begin(self) -> Path:
        """A new temporary file's path, on the file system of the blob store, to receive an upload."""
        self._uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._uploads / self._site.ids.new("upl")

    def check_upload(self, caller: Caller, name: str, bytes_sent: int | None) -> None:
        """Raise what `add` is sure to raise for a file of that size (None: not known), so that it need not be sent."""
        caller.must_be(Role.ADMIN, Role.USER)
        check_name(name)
        other = _named(self._site.present.images, name)
        if other is not None and _is_sure_to_differ(other, bytes_sent):
            raise _taken(name)

    def add(self, caller: Caller, temporary: Path, name: str, once: Once | None = None) -> Image | Answer:
        """The image in a complete upload, checked and kept; the temporary file is gone afterwards in any case.

        Raises InvalidRequest saying what is wrong with it, NameTaken if another image has the name. The same file under
        the same name again is the same image.
        """
        caller.must_be(Role.ADMIN, Role.USER)
        check_name(name)
        parts = temporary.with_suffix(".parts")
        try:
            found = examine(temporary, parts)
            return self._keep(caller, name, _sha256(temporary), found, once)
        except OSError as error:
            raise Unavailable(
                f"the service cannot unpack the image: {error.strerror or error}; nothing was changed",
                possible="the same when its disk has room",
            ) from None
        finally:
            _discard(temporary, parts)

    def _keep(self, caller: Caller, name: str, sha256: str, found: Found, once: Once | None) -> Image | Answer:
        with self._keeping:
            try:
                for file, path in found.files:
                    self._blobs.adopt(path, file.sha256)
                return self._site.change(
                    caller.subject,
                    lambda draft: self._enter(draft, caller, name, sha256, found),
                    once=once,
                    subject=caller.subject,
                )
            finally:
                self._drop_unlisted(file.sha256 for file, _ in found.files)

    def _enter(self, draft: Draft, caller: Caller, name: str, sha256: str, found: Found) -> Image:
        other = _named(draft.present.images, name)
        if other is not None:
            if other.sha256 == sha256:
                return other
            raise _taken(name)
        return self._put(
            draft,
            Image(
                id=self._site.ids.new("img"),
                name=name,
                owner=caller.subject,
                sha256=sha256,
                size_bytes=sum(file.size_bytes for file, _ in found.files),
                boot=found.boot,
                files=tuple(file for file, _ in found.files),
                cmdline=found.cmdline,
                user=found.user,
                ready=found.ready,
                memory_mib_min=found.memory_mib_min,
                disk_mib_min=found.disk_mib_min,
                created_at=draft.now,
            ),
        )

    def _put(self, draft: Draft, image: Image) -> Image:
        draft.say("image.added", owner=image.owner, image=image.id, name=image.name, sha256=image.sha256)
        return draft.put_image(image)

    def simulate(self, name: str) -> None:
        """List an image that fake nodes know and that has no files; nothing happens if the name is there."""

        def decide(draft: Draft) -> None:
            if all(i.name != name for i in draft.present.images.values()):
                digest = hashlib.sha256(b"simulated " + name.encode()).hexdigest()
                self._put(
                    draft,
                    Image(
                        self._site.ids.new("img"),
                        name,
                        "site",
                        digest,
                        0,
                        "direct",
                        (),
                        simulated=True,
                        created_at=draft.now,
                    ),
                )

        self._site.change("site", decide)

    def image(self, caller: Caller, id_or_name: str) -> Image:
        caller.must_be(Role.ADMIN, Role.USER)
        images = self._site.present.images
        found = images.get(id_or_name) or _named(images, id_or_name)
        found = found or self._site.store.get(Image, id_or_name)
        if found is None:
            raise NotFound(
                f"there is no image {id_or_name[:60]!r}", field="id", asked=id_or_name[:60], possible="vws image list"
            )
        return found

    def images(self, caller: Caller, where: Filter, *, after: str | None, limit: int) -> Page:
        caller.must_be(Role.ADMIN, Role.USER)
        return self._site.store.page(Image, where, after=after, limit=limit)

    def remove(self, caller: Caller, id_or_name: str, once: Once | None = None) -> Image | Answer:
        """Take an image out; InUse while a lease uses it. Its files go with the last image that has them."""
        found = self.image(caller, id_or_name)
        if found.owner != caller.subject and not caller.is_admin:
            raise Forbidden(f"the image {found.name} belongs to another user", asked=found.name)

        def decide(draft: Draft) -> Image:
            image = draft.present.images.get(found.id)
            if image is None:
                raise NotFound(f"the image {found.name} was removed before", field="id", asked=found.id)
            users = sorted({w.name for w in draft.present.workspaces.values() if w.image == image.id})
            if users:
                raise InUse(
                    f"{len(users)} workspaces use the image {image.name}: {', '.join(users[:5])}",
                    field="id",
                    asked=image.name,
                    possible="end their leases first",
                )
            draft.say("image.removed", owner=image.owner, image=image.id, name=image.name)
            return draft.put_image(replace(image, removed_at=draft.now))

        result = self._site.change(caller.subject, decide, once=once, subject=caller.subject)
        with self._keeping:
            self._drop_unlisted(file.sha256 for file in found.files)
        return result

    def sweep(self) -> None:
        """Remove what an earlier process left: unfinished uploads, files of no image. Call it before serving."""
        for leftover in self._uploads.glob("*"):
            _discard(leftover, leftover)
        with self._keeping:
            self._drop_unlisted(self._blobs.all())

    def _drop_unlisted(self, sha256s: Iterable[str]) -> None:
        """Remove those of these files that no image has; the caller holds `_keeping`."""
        try:
            self._site.catch_up()  # a commit may have been made though its answer was lost
        except Unavailable:
            return  # what is to be kept is not known; the next start sweeps
        with self._site.lock:
            kept = {file.sha256 for image in self._site.present.images.values() for file in image.files}
        for sha256 in sha256s:
            if sha256 not in kept:
                self._blobs.remove(sha256)


def _named(images: Mapping[str, Image], name: str) -> Image | None:
    return next((i for i in list(images.values()) if i.name == name), None)


def _taken(name: str) -> NameTaken:
    return NameTaken(
        f"an image is already called {name}",
        field="name",
        asked=name,
        possible="another name, or remove the old one first (vws image remove)",
    )


def _is_sure_to_differ(image: Image, size_bytes: int | None) -> bool:
    """A disk image was uploaded as it is; a bundle holds its files plainly and is larger than they are together."""
    if image.simulated or size_bytes is None:
        return image.simulated
    return size_bytes < image.size_bytes or (image.boot == "disk" and size_bytes != image.size_bytes)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _discard(temporary: Path, parts: Path) -> None:
    if not temporary.is_dir():
        temporary.unlink(missing_ok=True)
    if parts.is_dir():
        for leftover in parts.iterdir():
            leftover.unlink(missing_ok=True)
        os.rmdir(parts)
