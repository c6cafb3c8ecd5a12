"""Images: taken in only after a look at what they really are, and kept under names that move.

An image comes from a user and will be opened by a hypervisor that runs as root: nothing is believed. What it is is
told from its first bytes, never from its name; a qcow2 that points at other files is refused before any tool opens it;
qemu-img looks at it in a child with limits on time, memory and output.

The same upload by the same user is the same image, whatever it is called; the same by another is another image of the
same files. A name is whose image was pushed under it first; pushing other bytes moves the tag, and what it pointed at
stays as it was: leases are granted for images, never for names.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from vws.core.draft import Draft
from vws.core.errors import Conflict, Forbidden, InUse, InvalidRequest, NotFound, Unavailable
from vws.core.image_access import (
    ImageUser,
    called,
    called_by,
    deltas_on,
    due_saves,
    is_needed,
    leases_using,
    look_up,
    may_change,
    may_use,
    must_be_usable,
    must_exist,
    must_own_name,
    put_tag,
    remove_tag,
)
from vws.core.image_documents import Reader
from vws.core.image_names import LATEST, PUBLIC, check_new_name, read_reference, show_tag
from vws.core.image_origin import from_the_clear, made_from, remembering, traced
from vws.core.image_quota import check_quota, held_bytes, quota_of, quota_reached
from vws.core.manifest import digest, made_sha256
from vws.core.site import Answer, Document, DocumentKind, Image, ImageFile, ImageTag, OriginKind, Role
from vws.core.trust import check_attestation
from vws.faultpoints import reach
from vws.ports import Blobs, Filter, Page
from vws.service import disk_check
from vws.service.access import Caller
from vws.service.encryption import check_passphrase, encrypt_found, encrypt_image
from vws.service.image_check import Found, examine
from vws.service.image_files import ImageFiles
from vws.service.once import Once
from vws.service.sealing import KeyRing, new_passphrase
from vws.service.site import Site

T = TypeVar("T")
DOCUMENT_BYTES_MAX = 32 << 20
TOLD_MAX = 100


class Images:
    def __init__(self, site: Site, blobs: Blobs, uploads: Path, ring: KeyRing) -> None:
        self._site = site
        self._uploads = uploads
        self._ring = ring
        self.files = ImageFiles(site, blobs)

    def user(self, caller: Caller) -> ImageUser:
        vo = self._site.settings.chosen.membership.vo_of(caller.subject)
        return ImageUser(caller.subject, vo, caller.is_admin)

    def _quota_mib(self, user: str) -> int | None:
        return quota_of(self._site.settings.images, self._site.settings.chosen.membership.users, user)

    # ------------------------------------------------------------ taking in

    def begin(self) -> Path:
        """A new temporary file's path, on the file system of the blob store, to receive an upload."""
        self._uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._uploads / self._site.ids.new("upl")

    def check_upload(
        self, caller: Caller, name: str, bytes_sent: int | None, shared: Iterable[str] | None = None
    ) -> None:
        """Raise what `add` is sure to raise for a file of that size (None: not known), so that it need not be sent."""
        caller.must_be(Role.ADMIN, Role.USER)
        must_own_name(self._site.present, check_new_name(name)[0], self.user(caller))
        self.check_shared(shared or ())
        quota_mib = self._quota_mib(caller.subject)
        if quota_mib is not None and (bytes_sent or 0) > quota_mib << 20:
            held = held_bytes(list(self._site.present.images.values()), caller.subject)
            held += self._site.store.documents_bytes(caller.subject)
            raise quota_reached(caller.subject, held, bytes_sent or 0, quota_mib)

    def add(
        self,
        caller: Caller,
        temporary: Path,
        name: str,
        once: Once | None = None,
        *,
        shared: Iterable[str] | None = None,
        sha256: str = "",
        declared: str | None = None,
        encrypt: bool = False,
        passphrase: str | None = None,
    ) -> Image | Answer:
        """The image in a complete upload, checked, kept and called `name` (NAME or NAME:TAG) from now on; the temporary
        file is gone afterwards in any case. shared: who may use it (core/site.py: Image); None: everybody what an
        administrator brings, nobody else what others do. sha256: of the file, where it is known.
        declared: the format that it is said to have (service/image_check.py). encrypt: its disk is to be encrypted
        before it is kept; passphrase: of the disk, which is encrypted already.

        Raises InvalidRequest saying what is wrong with it, NameTaken if the name is another user's, LimitReached for
        one that is too large for its owner's quota. The same file again is the same image.
        """
        caller.must_be(Role.ADMIN, Role.USER)
        tag = check_new_name(name)
        sharing = self.check_shared((PUBLIC,) if shared is None and caller.is_admin else shared or ())
        parts = temporary.with_suffix(".parts")
        try:
            bytes_max = self._site.settings.image_bytes_max
            found = examine(temporary, parts, declared, bytes_max, passphrase)
            reach("service.image.unpacked")
            sha256 = sha256 or disk_check.digest(temporary)
            image = _image_of(found, sha256, self._site.ids.new("img"), tag[0], caller.subject, sharing)
            image = self._traced(caller, image)
            if encrypt:
                passphrase = new_passphrase()
                found = encrypt_found(found, parts, bytes_max, passphrase)
                # The same upload in the clear is another image, and its sha256 would tell what is in this one.
                clear, image = image, _with_files(image, found)
                image = from_the_clear(replace(image, sha256=made_sha256(image)), clear)
            check_passphrase(found, passphrase)
            return self._keep(caller, tag, image, found, once, passphrase)
        except OSError as error:
            raise Unavailable(
                f"the service cannot unpack the image: {error.strerror or error}; nothing was changed",
                possible="the same when its disk has room",
            ) from None
        finally:
            _discard(temporary, parts)

    def _traced(self, caller: Caller, image: Image) -> Image:
        """With what is known of its disk, which may have been here before."""
        twins, after = list[Image](), None
        while image.content:
            page = self._site.store.page(Image, Filter(content=image.content), after=after, limit=1000)
            twins += page.items
            after = page.next
            if after is None:
                break
        return traced(self._site.present, image, twins, self.user(caller))

    def _keep(
        self, caller: Caller, tag: tuple[str, str], image: Image, found: Found, once: Once | None,
        passphrase: str | None,
    ) -> Image | Answer:  # fmt: skip
        with self.files.entering(found.files):
            reach("service.image.adopted")
            whole = self.files.measured(image)

            def decide(draft: Draft) -> Image:
                kept = self._come(draft, caller, tag, whole, found)
                if kept.id == whole.id:
                    self._keep_key(draft, kept, passphrase)
                return kept

            entered = self._change(caller, decide, once)
            reach("service.image.committed")
        self._mend(image)
        return entered

    def _keep_key(self, draft: Draft, image: Image, passphrase: str | None) -> None:
        for file in image.files:
            if file.encryption and passphrase:
                self._ring.add(draft, image.id, file.sha256, passphrase)

    def encrypt(
        self, caller: Caller, asked: str, name: str, once: Once | None = None, *, shared: Iterable[str] | None = None
    ) -> Image | Answer:
        """An image of one's own, called `name`, with the content of another that one may use, encrypted. Blocks while
        its disk is converted. shared: who may use it; None: who may use that one if it is the caller's or he is an
        administrator, else nobody.

        Raises Conflict if that is encrypted, damaged or has no disk, what `check_upload` and conversion.convert raise.
        """
        answered = self._site.store.answer(caller.subject, once.client_token) if once else None
        if once and answered:
            return once.check(answered)
        source = self.image(caller, asked)
        tag = check_new_name(name)
        if source.encrypted:
            raise Conflict(
                f"the image {asked[:60]} is encrypted already", field="id", asked=asked[:60],
                possible="vws image copy for one of your own",
            )  # fmt: skip
        if source.simulated:
            raise Conflict(f"the image {asked[:60]} is simulated: it has no files", field="id", asked=asked[:60])
        self.files.check(source)
        self.check_upload(caller, name, source.size_bytes, shared)
        if shared is None and may_change(source, self.user(caller)):
            shared = source.shared
        sharing = self.check_shared(shared or ())
        work = self.begin().with_suffix(".parts")
        passphrase = new_passphrase()
        try:
            made, new = encrypt_image(source, self.files, work, self._site.settings.image_bytes_max, passphrase)
            reach("service.image.encrypted")
            origins = made_from(self._site.present, source, OriginKind.ENCRYPTED)
            new_id = self._site.ids.new("img")
            image = replace(made, id=new_id, name=tag[0], owner=caller.subject, shared=sharing, origins=origins)

            def decide(draft: Draft) -> Image:
                self._live(draft, caller, source.id)  # so that what the two share is still there
                kept = self._enter(draft, caller, tag, image)
                self._keep_key(draft, kept, passphrase)
                for document in self._site.store.documents(source.id):
                    if document.kind is DocumentKind.SBOM:
                        self._document(draft, replace(document, image=kept.id, by=caller.subject))
                draft.say("image.encrypted", owner=kept.owner, image=kept.id, name=tag[0], source=source.id)
                return kept

            with self.files.entering(new):
                reach("service.image.adopted")
                entered = self._change(caller, decide, once)
                reach("service.image.committed")
                return entered
        except OSError as error:
            raise Unavailable(
                f"the service cannot encrypt the image: {error.strerror or error}; nothing was changed",
                possible="the same when its disk has room",
            ) from None
        finally:
            _discard(work, work)

    def enter_made(
        self, owner: Caller, tag: tuple[str, str], image: Image, made: tuple[ImageFile, Path],
        documents: Callable[[Image], Iterable[Document]], then: Callable[[Draft, Image], T], once: Once | None = None,
    ) -> T | Answer:  # fmt: skip
        """An image of which one file is new, which the site made: its disk. then: what else is decided with it."""

        def decide(draft: Draft) -> T:
            new = replace(self.files.measured(image), id=self._site.ids.new("img"))
            kept = self._enter(draft, owner, tag, new)
            for document in documents(kept) if kept.id == new.id else ():
                self._document(draft, document)
            return then(draft, kept)

        with self.files.entering([made]):
            reach("service.image.adopted")
            return self._site.change(owner.subject, decide, once=once, subject=owner.subject)

    def _come(self, draft: Draft, caller: Caller, tag: tuple[str, str], image: Image, found: Found) -> Image:
        kept = self._enter(draft, caller, tag, image)
        if kept.id == image.id:
            for kind, media_type, content in found.documents:
                self._document(draft, Document("", image.id, kind, media_type, content, draft.now, caller.subject))
        return kept

    def _document(self, draft: Draft, document: Document) -> Document:
        self._check_documents_quota(draft, document)
        sha256 = hashlib.sha256(document.content).hexdigest()
        draft.say("image.documented", image=document.image, document=str(document.kind), sha256=sha256)
        return draft.add_document(replace(document, id=self._site.ids.new("doc")))

    def _enter(self, draft: Draft, caller: Caller, tag: tuple[str, str], image: Image) -> Image:
        must_own_name(draft.present, tag[0], self.user(caller))
        images = draft.present.images.values()
        other = next((i for i in images if (i.sha256, i.owner) == (image.sha256, image.owner)), None)
        if other is None:
            quota_mib = self._quota_mib(caller.subject)
            said_bytes = 0 if quota_mib is None else self._site.store.documents_bytes(caller.subject)
            check_quota(images, caller.subject, image.files, quota_mib, said_bytes)
        kept = self._put(draft, replace(image, created_at=draft.now)) if other is None else _again(draft, other, image)
        put_tag(draft, self._site.ids.new("tag"), kept, *tag, self.user(caller))
        reach("service.image.entered")
        return kept

    def _put(self, draft: Draft, image: Image) -> Image:
        draft.say("image.added", owner=image.owner, image=image.id, name=image.name, sha256=image.sha256)
        return draft.put_image(image)

    def _mend(self, image: Image) -> None:
        """Files that came again are good again; so are the images of them that were found damaged."""
        came = {file.sha256 for file in image.files}
        for other in list(self._site.present.images.values()):
            if other.damaged and came & {file.sha256 for file in other.files}:
                self.files.examine(other)

    def simulate(self, name: str) -> None:
        """List an image that fake nodes know and that has no files; nothing happens if the name is there."""

        def decide(draft: Draft) -> None:
            if draft.present.tagged(name, LATEST) is None:
                sha256 = hashlib.sha256(b"simulated " + name.encode()).hexdigest()
                image = Image(
                    self._site.ids.new("img"), name, "site", sha256, 0, "direct", (),
                    cmdline=f"simulated={name}",  # of no files, it would have the digest of all that are simulated
                    simulated=True, created_at=draft.now, shared=(PUBLIC,),
                )  # fmt: skip
                self._put(draft, image)
                put_tag(draft, self._site.ids.new("tag"), image, name, LATEST, ImageUser("site", is_admin=True))

        self._site.change("site", decide)

    # ------------------------------------------------------------ finding

    def image(self, caller: Caller, asked: str) -> Image:
        """By NAME, NAME:TAG, id (removed ones too) or digest. NotFound; Forbidden if it is not the caller's to use."""
        caller.must_be(Role.ADMIN, Role.USER)
        reference = read_reference(asked, "id")
        found = look_up(self._site.present, reference, self.user(caller))
        if found is None and reference.id:
            found = self._site.store.get(Image, reference.id)
        image = must_exist(self._site.present, found, asked, self.user(caller))
        must_be_usable(image, self.user(caller), asked, "id")
        return image

    def blobs_of(self, caller: Caller, asked: str, sha256: str) -> Blobs:
        """Where a file of an image that the caller may use is."""
        image = self.image(caller, asked)
        if all(file.sha256 != sha256 for file in image.files) or self.files.blobs.size(sha256) is None:
            raise NotFound(f"the image {asked[:60]} has no such file", field="sha256", asked=sha256[:64])
        return self.files.blobs

    def images(self, caller: Caller, where: Filter, *, after: str | None, limit: int) -> Page:
        """Those that the caller may use. `where.name`: those that have the name, or were pushed under it first."""
        caller.must_be(Role.ADMIN, Role.USER)
        user, name = self.user(caller), where.name
        where, found = replace(where, name=None), list[Image]()
        while True:
            page = self._site.store.page(Image, where, after=after, limit=limit - len(found))
            found += (i for i in page.items if may_use(i, user) and (name is None or self._has_name(i, name)))
            after = page.next
            if after is None or len(found) == limit:
                return Page(tuple(found), after)

    def _has_name(self, image: Image, asked: str) -> bool:
        name, colon, tag = asked.partition(":")
        tags = self._site.present.tags_of(image.id)
        if not colon:
            return image.name == name or any(each.name == name for each in tags)
        return any((each.name, each.tag) == (name, tag) for each in tags)

    def history(self, caller: Caller, name: str, *, after: str | None, limit: int) -> Page:
        """What the tags of a name (or NAME:TAG) point and pointed at, the last first; of images that the caller may
        use. NotFound if there never was such a name."""
        caller.must_be(Role.ADMIN, Role.USER)
        wanted, colon, tag = name.partition(":")
        where, found = Filter(name=wanted, tag=tag if colon else None), list[ImageTag]()
        while True:
            left = limit - len(found)
            page = self._site.store.page(ImageTag, where, after=after, limit=left, newest_first=True)
            if not page.items and after is None:
                raise NotFound(
                f"no image was ever called {name[:60]}", field="name", asked=name[:60],
                possible="vws image list shows what there is",
            )  # fmt: skip
            found += (row for row in page.items if self._may_use(caller, row.image))
            after = page.next
            if after is None or len(found) == limit:
                return Page(tuple(found), after)

    def _may_use(self, caller: Caller, id: str) -> bool:
        """An image on record, or one that was removed."""
        return may_use(self._site.present.images.get(id) or self._site.store.get(Image, id), self.user(caller))

    # ------------------------------------------------------------ changing

    def tag(self, caller: Caller, asked: str, name: str, once: Once | None = None) -> Image | Answer:
        """Let NAME or NAME:TAG point at an image that the caller may use. NameTaken if the name is another user's."""
        tag = check_new_name(name)

        def decide(draft: Draft) -> Image:
            image = self._live(draft, caller, asked)
            put_tag(draft, self._site.ids.new("tag"), image, *tag, self.user(caller))
            return image

        return self._change(caller, decide, once)

    def untag(self, caller: Caller, name: str, once: Once | None = None) -> Image | Answer:
        """Take a tag away; the image stays, until `gc` if nothing else points at it."""
        tag = check_new_name(name)

        def decide(draft: Draft) -> Image:
            found = draft.present.tagged(*tag)
            if found is None:
                raise NotFound(f"there is no {show_tag(*tag)}", field="name", asked=name[:60])
            caller.must_own(found.owner, f"the name {tag[0]}")
            remove_tag(draft, found)
            return draft.present.images[found.image]

        return self._change(caller, decide, once)

    def share(self, caller: Caller, asked: str, shared: Iterable[str], once: Once | None = None) -> Image | Answer:
        """Say who may use an image from now on: names of VOs, `public` for all, none for its owner alone. What was
        granted stays granted."""
        sharing = self.check_shared(shared)

        def decide(draft: Draft) -> Image:
            image = self._own(draft, caller, asked)
            if image.shared == sharing:
                return image
            draft.say("image.shared", owner=image.owner, image=image.id, name=image.name, shared=list(sharing))
            return draft.put_image(replace(image, shared=sharing))

        return self._change(caller, decide, once)

    def copy(self, caller: Caller, asked: str, name: str, once: Once | None = None) -> Image | Answer:
        """An image of one's own with the files and documents of another's that one may use: it stays when that goes.
        Conflict if that is one's own, as the same files of the same owner are the same image."""
        tag = check_new_name(name)

        def decide(draft: Draft) -> Image:
            image = self._live(draft, caller, asked)
            _must_be_anothers(draft, image, caller.subject, asked, show_tag(*tag))
            copy = replace(
                image, id=self._site.ids.new("img"), name=tag[0], owner=caller.subject, shared=(), retired_at=None,
                origins=made_from(draft.present, image, OriginKind.COPIED),
            )  # fmt: skip
            kept = self._enter(draft, caller, tag, copy)
            if kept.id == copy.id:
                self._ring.copy(draft, image, kept)
                for document in self._welcome(draft, caller, image):
                    self._document(draft, replace(document, image=copy.id, by=caller.subject))
            return kept

        return self._change(caller, decide, once)

    def remove(self, caller: Caller, asked: str, once: Once | None = None, *, now: bool = False) -> Image | Answer:
        """Take an image out with all its names. While leases use it (those too that are planned), or images are deltas
        on it, it is only retired: granted to nobody any more, and gone when the last is over; InUse instead if it has
        to go `now`. Its files go with the last image that has them."""

        def decide(draft: Draft) -> Image:
            image = self._own(draft, caller, asked)
            users, deltas = leases_using(draft.present, image.id), deltas_on(draft.present, image.id)
            users += [f"the save of {save.name}" for save in due_saves(draft.present, image.id)]
            if (users or deltas) and now:
                raise _in_use(called(draft.present, image), users, deltas)
            for tag in draft.tags_of(image.id):
                remove_tag(draft, tag)
            return _retire(draft, image, users) if users or deltas else _take_out(draft, image)

        removed = self._change(caller, decide, once)
        self._site.store.forget_documents()
        self.files.drop_unlisted(_files_of(removed))
        return removed

    def tidy(self) -> None:
        """Take out the retired images that nothing needs any more; called every few seconds."""

        def decide(draft: Draft) -> list[Image]:
            return [_take_out(draft, image) for image in draft.present.images.values() if _is_over(draft, image)]

        if any(image.retired_at is not None for image in list(self._site.present.images.values())):
            taken = self._site.change("site", decide)
            assert not isinstance(taken, Answer)
            if taken:
                self._site.store.forget_documents()
                self.files.drop_unlisted({file.sha256 for image in taken for file in image.files})

    # ------------------------------------------------------------ looking after

    def verify(self, caller: Caller, asked: str) -> Image:
        """Read all files of an image and note whether they are as they came, on all images that have them: nothing new
        is granted or made of one while they are not."""
        image = self.image(caller, asked)
        if not may_change(image, self.user(caller)):
            raise Forbidden("only its owner and administrators have an image verified", asked=asked[:60])
        return self.files.examine(image)

    def collect(self, caller: Caller, *, dry_run: bool = False) -> tuple[list[Image], list[str]]:
        """Drop what nothing points at, or only say what that would be: (images without a name that came longer ago than
        the site keeps such, sha256s of files of no image). Never what a lease that is planned or runs needs, nor the
        base of a delta."""
        caller.must_be(Role.ADMIN)

        def decide(draft: Draft) -> list[Image]:
            idle = [image for image in draft.present.images.values() if self._is_idle(draft, image)]
            return idle if dry_run else [_take_out(draft, image) for image in idle]

        images = self._site.change(caller.subject, decide)
        assert not isinstance(images, Answer)
        if not dry_run:
            return images, self._dropped(caller, images)
        going = {file.sha256 for image in images for file in image.files}
        gone = {image.id for image in images}
        needed = {f.sha256 for i in self._site.present.images.values() if i.id not in gone for f in i.files}
        return images, sorted({*self.files.unlisted(), *(going - needed)})

    def _dropped(self, caller: Caller, images: list[Image]) -> list[str]:
        """The sha256s of the files that went with these images, or were of none; on record."""
        self._site.store.forget_documents()
        files = self.files.drop_unlisted()
        if images or files:
            told: dict[str, Any] = {"images": [image.id for image in images][:TOLD_MAX], "files": len(files)}
            self._site.change(caller.subject, lambda draft: draft.say("images.collected", **told))
        return files

    def _is_idle(self, draft: Draft, image: Image) -> bool:
        if draft.tags_of(image.id) or draft.now - image.created_at < self._site.settings.images.keep_untagged_s:
            return False
        return not is_needed(draft.present, image.id)

    def sweep(self) -> None:
        """Remove what an earlier process left: unfinished uploads, files of no image. Call it before serving."""
        for leftover in self._uploads.glob("*"):
            if not (leftover / "session.json").exists():
                _discard(leftover, leftover)
        self._site.store.forget_documents()
        self.files.drop_unlisted()

    # ------------------------------------------------------------ documents

    def documents(self, caller: Caller, asked: str) -> tuple[Document, ...]:
        """What is kept beside an image that the caller may use, in the order in which it was added."""
        return self._site.store.documents(self.image(caller, asked).id)

    def add_document(
        self, caller: Caller, asked: str, kind: DocumentKind, media_type: str, content: bytes, once: Once | None = None
    ) -> Document | Answer:
        """Keep what is said of an image: by its owner and administrators, an attestation by whoever may use it. The
        same content again is the same document."""
        image = self.image(caller, asked)
        if kind is not DocumentKind.ATTESTATION and not may_change(image, self.user(caller)):
            raise Forbidden(f"the image {asked[:60]} belongs to another user", asked=asked[:60])
        _check_document(media_type, content)
        if kind is DocumentKind.ATTESTATION:
            check_attestation(content, digest(image))

        def decide(draft: Draft) -> Document:
            present = self._live(draft, caller, image.id)
            document = Document("", image.id, kind, media_type, content, draft.now, caller.subject)
            reader, there = (
                Reader(draft.present, present, self.user(caller), draft.now),
                self._site.store.documents(image.id),
            )
            same = reader.same(there, document)
            if same is not None:
                return same
            reader.check_room(there, document)
            return self._document(draft, document)

        return self._change(caller, decide, once)

    def remove_document(self, caller: Caller, asked: str, id: str, once: Once | None = None) -> Document | Answer:
        """Keep it no longer, at the word of the image's owner, of an administrator or of who added it."""
        image = self.image(caller, asked)

        def decide(draft: Draft) -> Document:
            found = next((each for each in self._site.store.documents(image.id) if each.id == id), None)
            if found is None:
                raise NotFound(f"the image has no document {id[:60]!r}", field="document", asked=id[:60],
                               possible="vws image documents IMAGE lists them")  # fmt: skip
            if found.by != caller.subject and not may_change(image, self.user(caller)):
                raise Forbidden(
                    f"the document {id} was added by {found.by}, beside an image of {image.owner}", field="document",
                    asked=id[:60], possible="either of them, or an administrator, may remove it",
                )  # fmt: skip
            sha256 = hashlib.sha256(found.content).hexdigest()
            said = {"document": str(found.kind), "sha256": sha256, "by": found.by}
            draft.say("image.undocumented", owner=image.owner, image=image.id, name=image.name, **said)
            return draft.drop_document(found)

        return self._change(caller, decide, once)

    def _welcome(self, draft: Draft, caller: Caller, image: Image) -> list[Document]:
        """What is said of an image, without what strangers say."""
        reader = Reader(draft.present, image, self.user(caller), draft.now)
        return [document for document in self._site.store.documents(image.id) if reader.is_welcome(document)]

    def _check_documents_quota(self, draft: Draft, document: Document) -> None:
        quota_mib = self._quota_mib(document.by)
        if quota_mib is None:
            return
        images = draft.present.images | {image.id: image for image in draft.changes.images}
        held = held_bytes(images.values(), document.by) + self._site.store.documents_bytes(document.by)
        held += sum(len(each.content) for each in draft.changes.documents if each.by == document.by)
        if held + len(document.content) > quota_mib << 20:
            raise quota_reached(document.by, held, len(document.content), quota_mib)

    # ------------------------------------------------------------ deciding

    def _change(self, caller: Caller, decide: Callable[[Draft], T], once: Once | None) -> T | Answer:
        caller.must_be(Role.ADMIN, Role.USER)
        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def _live(self, draft: Draft, caller: Caller, asked: str) -> Image:
        """An image on record that the caller may use."""
        user = self.user(caller)
        image = must_exist(draft.present, look_up(draft.present, read_reference(asked, "id"), user), asked, user)
        must_be_usable(image, self.user(caller), asked, "id")
        return image

    def _own(self, draft: Draft, caller: Caller, asked: str) -> Image:
        image = self._live(draft, caller, asked)
        if not may_change(image, self.user(caller)):
            raise Forbidden(
                f"the image {called_by(draft.present, image, asked)} belongs to another user", asked=asked[:60]
            )
        return image

    def check_shared(self, shared: Iterable[str]) -> tuple[str, ...]:
        """In one order and once each; an empty name is nobody's (a query cannot hold an empty list). Raises
        InvalidRequest with field "shared"."""
        sharing = tuple(sorted(filter(None, set(shared))))
        vos = self._site.settings.chosen.membership.vos
        for each in sharing:
            if each != PUBLIC and each not in vos:
                raise InvalidRequest(
                    f"there is no VO {each[:60]!r}", field="shared", asked=each[:60],
                    possible=f"{PUBLIC} for everybody" + (f", or {', '.join(sorted(vos)[:20])}" if vos else ""),
                )  # fmt: skip
        return sharing


def _image_of(found: Found, sha256: str, id: str, name: str, owner: str, shared: tuple[str, ...]) -> Image:
    return Image(
        id=id,
        name=name,
        owner=owner,
        sha256=sha256,
        size_bytes=sum(file.size_bytes for file, _ in found.files),
        boot=found.boot,
        files=tuple(file for file, _ in found.files),
        cmdline=found.cmdline,
        user=found.user,
        ready=found.ready,
        memory_mib_min=found.memory_mib_min,
        disk_mib_min=found.disk_mib_min,
        shared=shared,
        beside=found.beside,
    )


def _with_files(image: Image, found: Found) -> Image:
    files = tuple(file for file, _ in found.files)
    return replace(image, files=files, size_bytes=sum(file.size_bytes for file in files))


def _again(draft: Draft, image: Image, came: Image) -> Image:
    """What is there already, brought or made once more: it is granted again, and was made from what that was."""
    after = remembering(replace(image, retired_at=None), came.origins)
    return image if after == image else draft.put_image(after)


def _must_be_anothers(draft: Draft, image: Image, user: str, asked: str, new: str) -> None:
    if image.owner == user:
        name = called_by(draft.present, image, asked)
        raise Conflict(
            f"the image {name} is yours already: the same files would be the same image", field="id",
            asked=asked[:60], possible=f"another name for it: vws image tag {name} {new}",
        )  # fmt: skip


def _retire(draft: Draft, image: Image, users: list[str]) -> Image:
    if image.retired_at is not None:
        return image
    draft.say("image.retired", owner=image.owner, image=image.id, name=image.name, leases=users[:50])
    return draft.put_image(replace(image, retired_at=draft.now))


def _take_out(draft: Draft, image: Image) -> Image:
    draft.say("image.removed", owner=image.owner, image=image.id, name=image.name)
    return draft.put_image(replace(image, removed_at=draft.now))


def _is_over(draft: Draft, image: Image) -> bool:
    return image.retired_at is not None and not is_needed(draft.present, image.id)


def _in_use(name: str, users: list[str], deltas: list[Image]) -> InUse:
    by = [f"{', '.join(users[:5])}" + (f" and {len(users) - 5} more" if users[5:] else "")] if users else []
    by += [f"images that are deltas on it ({len(deltas)})"] if deltas else []
    return InUse(
        f"the image {name} is used by {' and '.join(by)}",
        field="id",
        asked=name,
        possible="end the leases first; or without --now: then it goes when the last of them is over",
    )


def _files_of(removed: Image | Answer) -> list[str]:
    return [file.sha256 for file in removed.files] if isinstance(removed, Image) else []


def _check_document(media_type: str, content: bytes) -> None:
    if not 1 <= len(media_type) <= 200 or not media_type.isascii() or not media_type.isprintable():
        raise InvalidRequest("this is no media type", field="media_type", possible="such as application/json")
    if not 1 <= len(content) <= DOCUMENT_BYTES_MAX:
        raise InvalidRequest(
            f"the document has {len(content)} bytes", field="content", possible=f"1 to {DOCUMENT_BYTES_MAX} bytes"
        )


def _discard(temporary: Path, parts: Path) -> None:
    if not temporary.is_dir():
        temporary.unlink(missing_ok=True)
    if parts.is_dir():
        for leftover in parts.iterdir():
            leftover.unlink(missing_ok=True)
        os.rmdir(parts)
