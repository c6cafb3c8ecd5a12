"""Image files in a directory, each under the sha256 of its bytes.

Holes are the file system's own: a file that was written sparsely is kept, read and told of as it lies there.

A file comes by rename after its bytes are on the disk, so that whatever happens, a path that exists is whole. Being
addressed by their bytes, files are never changed (0444), and two adoptions of the same one are one. Uploads wait
elsewhere on the same file system until they are complete and checked: nothing half done is ever in here.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from vws.core.errors import InvalidRequest, NotFound, Unavailable
from vws.ports import Extent

PIECE_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class FileBlobs:
    """`vws.ports.Blobs` in `directory`/<first two digits>/<sha256>."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, sha256: str) -> Path | None:
        if not _SHA256.match(sha256):
            return None
        path = self._place(sha256)
        return path if path.is_file() else None

    def size(self, sha256: str) -> int | None:
        path = self.path(sha256)
        return path.stat().st_size if path else None

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        stream = self._found(sha256).open("rb")
        stream.seek(offset)
        return stream

    def extents(self, sha256: str) -> Sequence[Extent]:
        with self._found(sha256).open("rb") as file:
            return tuple(data_extents(file.fileno()))

    def place(self, sha256: str, target: Path) -> None:
        try:
            os.link(self._found(sha256), target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            self._copy(sha256, target)

    def _copy(self, sha256: str, target: Path) -> None:
        with target.open("xb") as copy:
            copy.truncate(self.size(sha256))
            for extent in self.extents(sha256):
                with self.open(sha256, extent.offset) as stream:
                    copy.seek(extent.offset)
                    copy_bytes(stream, copy, extent.length)

    def sweep(self) -> None:
        """Nothing half kept is ever in here."""

    def check(self) -> None:
        probe = self._directory / ".check"
        try:
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise _not_kept(error, self._directory) from error

    def _found(self, sha256: str) -> Path:
        path = self.path(sha256)
        if path is None:
            raise absent(sha256)
        return path

    def adopt(self, temporary: Path, sha256: str) -> None:
        """Take a complete file, which must be on the same file system. The caller vouches for its sha256.

        Raises InvalidRequest if `sha256` is none, Unavailable if the disk refuses.
        """
        place = self._place(check_sha256(sha256))
        if place.is_file():
            temporary.unlink(missing_ok=True)
            return
        try:
            self._move(temporary, place)
        except OSError as error:
            raise _not_kept(error, self._directory) from error

    def _move(self, temporary: Path, place: Path) -> None:
        temporary.chmod(0o444)
        _flush(temporary)
        place.parent.mkdir(exist_ok=True, mode=0o700)
        temporary.rename(place)
        _flush(place.parent)
        _flush(self._directory)

    def remove(self, sha256: str) -> None:
        if _SHA256.match(sha256):
            self._place(sha256).unlink(missing_ok=True)

    def all(self) -> Sequence[str]:
        return sorted(path.name for path in self._directory.glob("[0-9a-f][0-9a-f]/*") if _SHA256.match(path.name))

    def _place(self, sha256: str) -> Path:
        return self._directory / sha256[:2] / sha256


def absent(sha256: str) -> NotFound:
    return NotFound("there is no file with this sha256", field="sha256", asked=sha256[:64])


def check_sha256(sha256: str) -> str:
    if not _SHA256.match(sha256):
        raise InvalidRequest("not a sha256", field="sha256", asked=sha256[:80], possible="64 hexadecimal digits")
    return sha256


def data_extents(file: int) -> Iterator[Extent]:
    end, position = os.fstat(file).st_size, 0
    while position < end:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        position = os.lseek(file, start, os.SEEK_HOLE)
        yield Extent(start, position - start)


def copy_bytes(source: BinaryIO, target: BinaryIO, length: int) -> None:
    """EOFError if the source is shorter."""
    while length:
        piece = source.read(min(length, PIECE_BYTES))
        if not piece:
            raise EOFError(f"{length} bytes are missing")
        target.write(piece)
        length -= len(piece)


def _flush(path: Path) -> None:
    """What was written to a file, or renamed in a directory, is on the disk afterwards."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _not_kept(error: OSError, directory: Path) -> Unavailable:
    if error.errno == errno.EXDEV:
        possible = f"uploads and {directory} on the same file system"
    else:
        possible = "the same request again once the cause is mended (a full disk)"
    return Unavailable(f"the file could not be kept: {error.strerror}; nothing was changed", possible=possible)
