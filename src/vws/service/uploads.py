"""Uploads that go on where they broke, whoever was killed: the client, the connection, the service.

An upload is a folder with a note of what it is to become and the file as far as it came. It is hashed as it is written,
so that nothing is read again at its end; only a restarted service reads what is there once more. Where the file is zero
it gets holes. Nothing in here is an image: one is made of it, or refused, when all has come.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vws.core.errors import Conflict, InvalidRequest, LimitReached, NotFound, TooLarge, Unavailable, VwsError
from vws.core.site import Answer, Image, Role
from vws.faultpoints import reach
from vws.service.access import Caller
from vws.service.images import Images
from vws.service.once import Once
from vws.service.site import Site

KEPT_S = 24 * 3600
OPEN_MAX = 16  # of one user
# What an upload must leave of the service's disk, for its record.
DISK_RESERVE_BYTES = 256 << 20
BLOCK_BYTES = 64 << 10
PIECE_BYTES = 1 << 20
NOTE = "session.json"
_ZEROS = bytes(BLOCK_BYTES)


@dataclass(frozen=True)
class Upload:
    """key: by which its sender finds it again; size_bytes: of the whole file; offset: how much of it has come. format:
    that it is said to have. encrypt: its disk is to be kept encrypted."""

    id: str
    owner: str
    name: str
    size_bytes: int
    key: str
    shared: tuple[str, ...] | None
    format: str | None
    created_at: float
    offset: int = 0
    encrypt: bool = False

    @property
    def expires_at(self) -> float:
        return self.created_at + KEPT_S


class Uploads:
    def __init__(self, site: Site, images: Images, directory: Path) -> None:
        self._site = site
        self._images = images
        self._directory = directory
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._files: dict[str, SparseFile] = {}

    def begin(
        self,
        caller: Caller,
        name: str,
        size_bytes: int,
        *,
        key: str = "",
        shared: Iterable[str] | None = None,
        format: str | None = None,
        encrypt: bool = False,
    ) -> Upload:
        """A new upload; the one that the caller began under the same key, if all else was asked for alike.

        Raises what `Images.check_upload` does, TooLarge, LimitReached (too many open ones), Unavailable without room.
        """
        sharing = None if shared is None else tuple(shared)
        self._images.check_upload(caller, name, size_bytes, sharing)
        with self._lock:
            mine = [upload for upload in self._all() if upload.owner == caller.subject]
            asked = Upload("", caller.subject, name, size_bytes, key, sharing, format, 0, encrypt=encrypt)
            for upload in mine:
                if key and replace(upload, id="", created_at=0, offset=0) == asked:
                    return upload
            if len(mine) >= OPEN_MAX:
                raise LimitReached(
                    f"{caller.subject} has {len(mine)} uploads open", field="uploads", asked=len(mine) + 1,
                    possible=f"at most {OPEN_MAX}; they end when they are completed, dropped or a day old",
                )  # fmt: skip
            check_room(self._directory, size_bytes, 0, self._site.settings.image_bytes_max, reserve=False)
            upload = replace(asked, id=self._site.ids.new("upl"), created_at=self._site.clock.now())
            self._note(upload)
        reach("service.upload.begun")
        return upload

    def upload(self, caller: Caller, id: str) -> Upload:
        caller.must_be(Role.ADMIN, Role.USER)
        found = self._read(self._directory / id) if "/" not in id and id.startswith("upl-") else None
        if found is None or found.owner != caller.subject:
            raise NotFound(
                f"there is no upload {id[:60]!r}", field="id", asked=id[:60],
                possible="a new one: an upload is dropped when it is a day old",
            )  # fmt: skip
        return found

    def drop(self, caller: Caller, id: str) -> None:
        """Conflict while somebody writes to it."""
        upload = self.upload(caller, id)
        with self._alone(upload):
            self._remove(upload)

    @contextmanager
    def receiving(self, caller: Caller, id: str, offset: int) -> Iterator[SparseFile]:
        """The file to write on, from `offset`, which must be where it ends. Conflict while another does so."""
        upload = self.upload(caller, id)
        with self._alone(upload):
            file = self._opened(upload)
            if file.position != offset:
                raise Conflict(
                    f"the upload goes on at {file.position}, not at {offset}", field="offset", asked=offset,
                    possible=f"offset={file.position}", details={"offset": file.position},
                )  # fmt: skip
            yield file

    def complete(
        self, caller: Caller, id: str, sha256: str, once: Once | None = None, passphrase: str | None = None
    ) -> Image | Answer:
        """The image in an upload of which all has come, as `Images.add` makes it. A file that is refused is gone; one
        that could not be kept (Unavailable, LimitReached), or that the passphrase does not open, can be completed
        again."""
        kept = self._site.store.answer(caller.subject, once.client_token) if once else None
        if once and kept:
            answer = once.check(kept)
            with suppress(NotFound, Conflict):
                self.drop(caller, id)  # which the process was killed before it could do
            return answer
        upload = self.upload(caller, id)
        with self._alone(upload):
            file = self._opened(upload)
            if file.position != upload.size_bytes:
                raise Conflict(
                    f"{file.position} of {upload.size_bytes} bytes have come", details={"offset": file.position}
                )
            if sha256 and file.sha256 != sha256:
                self._remove(upload)
                raise InvalidRequest(
                    "the file was altered on its way: its sha256 is another", field="sha256", asked=sha256,
                    possible="the same file anew; nothing was kept",
                )  # fmt: skip
            file.flush()
            reach("service.upload.checked")
            return self._made(caller, upload, file.sha256, once, passphrase)

    def _made(
        self, caller: Caller, upload: Upload, sha256: str, once: Once | None, passphrase: str | None
    ) -> Image | Answer:
        temporary = self._images.begin()
        os.link(self._data(upload.id), temporary)
        try:
            made = self._images.add(
                caller, temporary, upload.name, once, shared=upload.shared, sha256=sha256, declared=upload.format,
                encrypt=upload.encrypt, passphrase=passphrase,
            )  # fmt: skip
        except (Unavailable, LimitReached):
            raise  # what can be mended: it is kept for another try
        except VwsError as error:
            if error.field != "passphrase":
                self._remove(upload)
            raise
        self._remove(upload)
        return made

    def expire(self) -> None:
        """Drop what is a day old; called now and then."""
        now = self._site.clock.now()
        for upload in self._all():
            if upload.expires_at <= now and upload.id not in self._busy:
                self._remove(upload)

    # ------------------------------------------------------------ folders

    def _all(self) -> list[Upload]:
        folders = self._directory.glob("upl-*") if self._directory.exists() else ()
        return [upload for folder in sorted(folders) if (upload := self._read(folder)) is not None]

    def _data(self, id: str) -> Path:
        return self._directory / id / "data"

    def _note(self, upload: Upload) -> None:
        folder = self._directory / upload.id
        try:
            folder.mkdir(parents=True, mode=0o700)
            self._data(upload.id).touch(mode=0o600)
            # Whole or not at all: it is what makes the folder an upload.
            (folder / "new").write_text(json.dumps(asdict(upload)))
            (folder / "new").rename(folder / NOTE)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise Unavailable(
                f"the service cannot begin the upload: {error.strerror}", possible="the same when its disk has room"
            ) from None

    def _read(self, folder: Path) -> Upload | None:
        try:
            noted: dict[str, Any] = json.loads((folder / NOTE).read_bytes())
            file = self._files.get(folder.name)
            offset = file.position if file else (folder / "data").stat().st_size
        except (OSError, ValueError):
            return None
        shared = noted["shared"]
        return Upload(**noted | {"offset": offset, "shared": None if shared is None else tuple(shared)})

    def _remove(self, upload: Upload) -> None:
        file = self._files.pop(upload.id, None)
        if file is not None:
            file.close()
        shutil.rmtree(self._directory / upload.id, ignore_errors=True)

    @contextmanager
    def _alone(self, upload: Upload) -> Iterator[None]:
        with self._lock:
            if upload.id in self._busy:
                raise Conflict("this upload is being written to by another request", possible="the same in a moment")
            self._busy.add(upload.id)
        try:
            yield
        finally:
            self._busy.discard(upload.id)

    def _opened(self, upload: Upload) -> SparseFile:
        if upload.id not in self._files:
            self._files[upload.id] = SparseFile(self._data(upload.id), self._site.settings.image_bytes_max)
        return self._files[upload.id]


class SparseFile:
    """A file that grows at its end, hashed as it does, with holes where it is zero."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        """Goes on with what is at `path`; that is read once, for its hash. What was complete when a process was killed
        may be kept as an image's file by now, and is not opened for writing any more."""
        self._path = path
        self._bytes_max = bytes_max
        self._digest = hashlib.sha256()
        path.touch(0o600)
        whole = not path.stat().st_mode & 0o200
        self._file = path.open("rb" if whole else "r+b", buffering=0)
        self.position = 0
        while piece := self._file.read(PIECE_BYTES):
            self._digest.update(piece)
            self.position += len(piece)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Append. TooLarge, Unavailable when the disk has no room; what was written before stays."""
        check_room(self._path.parent, len(data), self.position, self._bytes_max)
        try:
            for start, end in _filled(data):
                os.pwrite(self._file.fileno(), memoryview(data)[start:end], self.position + start)
            self._file.truncate(self.position + len(data))
        except OSError as error:
            raise Unavailable(
                f"the service cannot keep the file: {error.strerror}", possible="the same when its disk has room"
            ) from None
        self._digest.update(data)
        self.position += len(data)
        reach("service.upload.received")

    def write_within(self, data: bytes, size_bytes: int) -> None:
        """The same for a file of which the length is known; InvalidRequest for what goes beyond it."""
        if self.position + len(data) > size_bytes:
            raise InvalidRequest(
                f"the upload is longer than the {size_bytes} bytes that were announced", field="body",
                possible="a new upload with the right size_bytes",
            )  # fmt: skip
        self.write(data)

    def skip(self, position: int) -> None:
        """Append zeros up to there."""
        if position > self._bytes_max:
            raise _too_large(self._bytes_max)
        self._file.truncate(position)
        while self.position < position:
            length = min(BLOCK_BYTES, position - self.position)
            self._digest.update(_ZEROS if length == BLOCK_BYTES else _ZEROS[:length])
            self.position += length

    def flush(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _filled(data: bytes) -> Iterator[tuple[int, int]]:
    """[start, end) of the runs of blocks that are not zero."""
    begun: int | None = None
    for at in range(0, len(data), BLOCK_BYTES):
        length = min(BLOCK_BYTES, len(data) - at)
        zero = data.startswith(_ZEROS if length == BLOCK_BYTES else _ZEROS[:length], at)
        if zero and begun is not None:
            yield begun, at
            begun = None
        elif not zero and begun is None:
            begun = at
    if begun is not None:
        yield begun, len(data)


def check_room(place: Path, more: int, so_far: int, bytes_max: int, *, reserve: bool = True) -> None:
    """Raise TooLarge, or Unavailable when the disk has no room for as many bytes more."""
    if so_far + more > bytes_max:
        raise _too_large(bytes_max)
    if reserve and more + DISK_RESERVE_BYTES > shutil.disk_usage(place).free:
        raise Unavailable(
            "the service's disk has no room for this image", possible="a smaller one; or ask the administrator for room"
        )


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"the image is larger than {bytes_max} bytes", field="body", possible=f"at most {bytes_max} bytes")
