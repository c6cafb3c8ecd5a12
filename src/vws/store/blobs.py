"""Image files in a directory, each under the sha256 of its bytes.

A file comes by rename after its bytes are on the disk, so that whatever happens, a path that exists is whole. Being
addressed by their bytes, files are never changed (0444), and two adoptions of the same one are one. Uploads wait
elsewhere on the same file system until they are complete and checked: nothing half done is ever in here.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

from vws.core.errors import InvalidRequest, Unavailable

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

    def adopt(self, temporary: Path, sha256: str) -> None:
        """Take a complete file, which must be on the same file system. The caller vouches for its sha256.

        Raises InvalidRequest if `sha256` is none, Unavailable if the disk refuses.
        """
        if not _SHA256.match(sha256):
            raise InvalidRequest("not a sha256", field="sha256", asked=sha256[:80], possible="64 hexadecimal digits")
        place = self._place(sha256)
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
