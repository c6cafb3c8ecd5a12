"""The files behind the images: kept for the images on record and for nothing else.

Whatever an upload came to (a refusal, an answer given before, a commit that failed), those of its files that no image
has are removed again. Between its adoption and its commit a file is of no image: nothing is swept meanwhile, neither by
this process nor by another one of the site with the same bucket. What cannot be swept for that reason is, by the next
one who may.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vws.core.errors import NotFound, Unavailable
from vws.core.site import Image, ImageFile
from vws.ports import Blobs
from vws.service.site import Site

PIECE_BYTES = 1 << 20


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

    def fault(self, file: ImageFile) -> str:
        """What is wrong with a kept file, in words; "" if it is as it came. Reads all of it."""
        try:
            size, found = hash_stream(self.read(file.sha256))
        except NotFound:
            return f"its {file.role} ({file.sha256[:12]}…) is missing"
        except OSError as error:
            return f"its {file.role} ({file.sha256[:12]}…) cannot be read: {error.strerror or error}"
        if size != file.size_bytes:
            return f"its {file.role} ({file.sha256[:12]}…) has {size} bytes, not {file.size_bytes}"
        return "" if found == file.sha256 else f"its {file.role} ({file.sha256[:12]}…) was altered where it is kept"

    def read(self, sha256: str, offset: int = 0) -> Iterator[bytes]:
        with self.blobs.open(sha256, offset) as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece


def hash_stream(pieces: Iterable[bytes]) -> tuple[int, str]:
    """(length, sha256)"""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()
