"""Disks converted for those who fetch them, kept for a while: a download that broke goes on with the same bytes.

Converting the same disk twice does not give the same file (many formats have a random id), so what is kept has a tag of
its own, by which a receiver says what the part is of that he has. A file is kept for an hour after somebody last read
of it, also over a restart, and goes sooner where the disk gets short: whoever reads it then has it open still. Two who
want the same at the same time wait for one conversion.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from vws.core.errors import Unavailable
from vws.faultpoints import reach
from vws.service.conversion import RESERVE_BYTES

KEPT_S = 3600.0
PIECE_BYTES = 1 << 20
# With less room than this nothing is kept for those who may come back.
SHORT_BYTES = 4 * RESERVE_BYTES
_WORK = "work-"


class Kept:
    """A converted file that is open, whatever becomes of its name. tag: the same tag, the same bytes."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._file = path.open("rb")
        self._now = now
        self.tag = hashlib.sha256(path.name.encode()).hexdigest()
        self.size_bytes = os.fstat(self._file.fileno()).st_size

    def sha256(self) -> str:
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()

    def read(self, offset: int = 0) -> Iterator[bytes]:
        """Its bytes from an offset on; closes it at the end."""
        with self._file as file:
            file.seek(offset)
            while piece := file.read(PIECE_BYTES):
                _touch(file, self._now())
                yield piece


class Converted:
    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._folder, self._now = folder, now
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def sweep(self) -> None:
        """Remove what an earlier process left in the middle of a conversion. Call it before serving."""
        for left in self._folder.glob(f"{_WORK}*"):
            shutil.rmtree(left, ignore_errors=True)

    def open(self, key: str, make: Callable[[Path, Path], None]) -> Kept:
        """The file that is kept under a key of letters, digits and points. make: writes it to the path that it is given
        first, and may use the folder that it is given then; what it raises leaves nothing."""
        with self._turns[key]:
            path = next(self._folder.glob(f"{key}.*"), None) or self._made_with_room(key, make)
            reach("service.export.converted")
            os.utime(path, (self._now(),) * 2)
            return Kept(path, self._now)

    def _made_with_room(self, key: str, make: Callable[[Path, Path], None]) -> Path:
        try:
            return self._made(key, make)
        except Unavailable:  # what is kept for others goes first
            if not self._drop(lambda path: True):
                raise
            return self._made(key, make)

    def _made(self, key: str, make: Callable[[Path, Path], None]) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        work = Path(tempfile.mkdtemp(dir=self._folder, prefix=_WORK))
        try:
            made = work / "made"
            reach("service.export.begun")
            make(made, work)
            with made.open("rb") as file:
                os.fsync(file.fileno())
            return made.rename(self._folder / f"{key}.{secrets.token_hex(8)}")
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def expire(self) -> None:
        """Drop what nobody came back for; called every few seconds, waits for nobody."""
        if not self._folder.exists():
            return
        short = shutil.disk_usage(self._folder).free < SHORT_BYTES
        self._drop(lambda path: short or self._is_old(path))

    def _drop(self, going: Callable[[Path], bool]) -> int:
        """How many were dropped; none that somebody is about to open."""
        dropped = 0
        for path in self._folder.iterdir():
            key = path.name.rpartition(".")[0]
            if key and going(path) and self._turns[key].acquire(blocking=False):
                try:
                    path.unlink(missing_ok=True)
                    dropped += 1
                finally:
                    self._turns[key].release()
        return dropped

    def _is_old(self, path: Path) -> bool:
        with suppress(FileNotFoundError):
            return abs(self._now() - path.stat().st_mtime) > KEPT_S
        return False


def _touch(file: BinaryIO, now: float) -> None:
    with suppress(OSError):
        os.utime(file.fileno(), (now, now))
