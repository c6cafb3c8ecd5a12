"""The files behind the images: kept for the images on record and for nothing else.

Whatever an upload came to (a refusal, an answer given before, a commit that failed), those of its files that no image
has are removed again. Between its adoption and its commit a file is of no image: nothing is swept meanwhile, neither by
this process nor by another one of the site with the same bucket. What cannot be swept for that reason is, by the next
one who may.

Nothing is made of a file, nor sent to a user as an image, that is not as it came: what is written anew has a sha256 of
its own, by which nobody would find the damage any more. What is found of a file is noted on all images that have it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vws.core.draft import Draft
from vws.core.errors import Conflict, NotFound, Unavailable
from vws.core.site import Image, ImageFile
from vws.ports import Blobs
from vws.service.site import Site

PIECE_BYTES = 1 << 20
MISSING, ALTERED = "is missing", "was altered where it is kept"


class ImageFiles:
    def __init__(self, site: Site, blobs: Blobs) -> None:
        self._site = site
        self.blobs = blobs
        self._keeping = threading.Lock()

    @contextmanager
    def entering(self, files: Iterable[tuple[ImageFile, Path]]) -> Iterator[None]:
        """Take files in; what is not on record at the end is gone again."""
        given = list(files)
        with self._keeping:
            try:
                with self._site.store.bringing_files():
                    self._adopt(given)
                    yield
            finally:
                self._drop(file.sha256 for file, _ in given)

    def _adopt(self, given: list[tuple[ImageFile, Path]]) -> None:
        damaged = self._damaged()
        for file, path in given:
            if file.sha256 in damaged:
                self.blobs.remove(file.sha256)
            self.blobs.adopt(path, file.sha256)

    def measured(self, image: Image) -> Image:
        """An image whose files are here, with how much of each is data."""
        return replace(image, files=tuple(map(self._measured, image.files)))

    def _measured(self, file: ImageFile) -> ImageFile:
        if file.data_bytes:
            return file
        return replace(file, data_bytes=sum(extent.length for extent in self.blobs.extents(file.sha256)))

    def drop_unlisted(self, sha256s: Iterable[str] | None = None) -> list[str]:
        """Remove those of these files (None: of all) that no image has; returns which."""
        with self._keeping:
            return self._drop(sha256s)

    def unlisted(self) -> list[str]:
        kept = self._listed()
        return [sha256 for sha256 in self.blobs.all() if sha256 not in kept]

    def _drop(self, sha256s: Iterable[str] | None) -> list[str]:
        try:
            with self._site.store.dropping_files() as alone:
                return self._drop_alone(sha256s) if alone else []
        except Unavailable:
            return []  # what is to be kept is not known; the next start sweeps

    def _drop_alone(self, sha256s: Iterable[str] | None) -> list[str]:
        self._site.catch_up()  # a commit may have been made though its answer was lost
        if sha256s is None:
            self.blobs.sweep()
            sha256s = self.blobs.all()
        kept = self._listed()
        dropped = [sha256 for sha256 in sha256s if sha256 not in kept]
        for sha256 in dropped:
            self.blobs.remove(sha256)
        return dropped

    def _listed(self) -> set[str]:
        with self._site.lock:
            return {file.sha256 for image in self._site.present.images.values() for file in image.files}

    def _damaged(self) -> set[str]:
        images = list(self._site.present.images.values())
        return {file.sha256 for image in images if image.damaged for file in image.files}

    # ------------------------------------------------------------ looking at bytes

    def examine(self, image: Image) -> Image:
        """Read all files of an image, and note what is found; returns the image with that."""
        self._note({file.sha256: self._fault(file) for file in image.files})
        return self._site.present.images.get(image.id, image)

    def _fault(self, file: ImageFile) -> str:
        """What is wrong with a kept file, in words that follow its name; "" if it is as it came. Reads all of it."""
        try:
            size, found = hash_stream(self.read(file.sha256))
        except NotFound:
            return MISSING
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        if size != file.size_bytes:
            return f"has {size} bytes, not {file.size_bytes}"
        return "" if found == file.sha256 else ALTERED

    def _note(self, faults: Mapping[str, str]) -> None:
        """On all images that have these files. faults: by sha256, "" for what is as it came."""

        def decide(draft: Draft) -> None:
            for image in list(draft.present.images.values()):
                looked_at = all(file.sha256 in faults for file in image.files)
                damaged = _damaged_by(faults, image)
                if damaged != image.damaged and (damaged or looked_at):
                    _note_damage(draft, image, damaged)

        self._site.change("site", decide)

    def check(self, image: Image) -> None:
        """Raise Conflict if something is known to be wrong with a file of it."""
        if image.damaged:
            raise _is_damaged(image, image.damaged)

    def check_whole(self, image: Image, files: Iterable[ImageFile]) -> None:
        """Read these files of an image; Conflict if one is not as it came."""
        for file in files:
            for _ in self.whole(image, file):
                pass

    def place(self, image: Image, file: ImageFile, target: Path) -> None:
        """`Blobs.place` for a file of an image; Conflict if it is not as it came."""
        try:
            self.blobs.place(file.sha256, target)
        except NotFound:
            raise self._found(image, file, MISSING) from None
        with target.open("rb") as placed:
            if hashlib.file_digest(placed, "sha256").hexdigest() != file.sha256:
                raise self._found(image, file, ALTERED)

    def whole(self, image: Image, file: ImageFile, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a file of an image from an offset on, the last of them only if all of it is as it came. Conflict
        otherwise: who got the beginning never has all of it."""
        found, at, held = hashlib.sha256(), 0, b""
        for piece in self.read(file.sha256):
            if held:
                yield held
            found.update(piece)
            held = piece[max(0, offset - at) :]
            at += len(piece)
        if found.hexdigest() != file.sha256:
            raise self._found(image, file, ALTERED)
        yield held

    def _found(self, image: Image, file: ImageFile, fault: str) -> Conflict:
        self._note({file.sha256: fault})
        return _is_damaged(image, _told(file, fault))

    def read(self, sha256: str, offset: int = 0) -> Iterator[bytes]:
        with self.blobs.open(sha256, offset) as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece


def _damaged_by(faults: Mapping[str, str], image: Image) -> str:
    return "; ".join(_told(file, faults[file.sha256]) for file in image.files if faults.get(file.sha256))


def _told(file: ImageFile, fault: str) -> str:
    return f"its {file.role} ({file.sha256[:12]}…) {fault}"


def _note_damage(draft: Draft, image: Image, damaged: str) -> None:
    kind = "image.damaged" if damaged else "image.mended"
    draft.say(kind, owner=image.owner, image=image.id, name=image.name, reason=damaged or image.damaged)
    draft.put_image(replace(image, damaged=damaged))


def _is_damaged(image: Image, damaged: str) -> Conflict:
    return Conflict(
        f"the image {image.name} is damaged: {damaged}; nothing is made of it", field="id", asked=image.name,
        possible="its owner may import the same file again, which mends it",
    )  # fmt: skip


def hash_stream(pieces: Iterable[bytes]) -> tuple[int, str]:
    """(length, sha256)"""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()
