"""A file on its way to this node: without its zeros, hashed while it is written, resumed where it broke.

The file's own length tells how far it came, for it grows only by what has arrived: a kill at any point leaves a prefix.
After a kill that prefix is read once more when the transfer goes on, as no hash outlives its process; a transfer that
broke, or gave way to another, goes on from what was known of it (`Known`), so that breaks cost nothing. A
piece is written and hashed by a thread while the next one arrives, so that two are in memory and no more.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vws.core.frames import FrameReader

PIECE_BYTES = 256 << 10
_ZEROS = bytes(PIECE_BYTES)


@dataclass(frozen=True)
class Known:
    """The hash of a file's first bytes, up to its end; worth nothing once the file is another one."""

    digest: Any
    hashed: int
    inode: int
    changed_ns: int


class Landing:
    """The file that a stream of frames becomes. All methods block; not thread-safe."""

    def __init__(self, target: Path, size_bytes: int, known: Known | None = None) -> None:
        """Goes on with what is at `target`; what is too long is no part of this file, and is dropped."""
        self._file = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size_bytes = size_bytes
        if os.fstat(self._file).st_size > size_bytes:
            os.ftruncate(self._file, 0)
        self._digest = hashlib.sha256()
        self._hashed = 0
        if known is not None and known.hashed >= 0 and known == self._stamped(known.digest, known.hashed):
            self._digest, self._hashed = known.digest.copy(), known.hashed
            os.lseek(self._file, known.hashed, os.SEEK_SET)
        while piece := os.read(self._file, PIECE_BYTES):
            self._digest.update(piece)
            self._hashed += len(piece)
        self._frames = FrameReader(self._hashed, size_bytes)

    @property
    def position(self) -> int:
        return self._frames.position

    @property
    def whole(self) -> bool:
        return self._frames.ended

    def take(self, data: bytes) -> None:
        """A piece of the stream. InvalidRequest if it is none of this file; OSError if it cannot be written."""
        for offset, piece in self._frames.feed(data):
            self._zeros_to(offset)
            _write(self._file, piece, offset)
            self._digest.update(piece)
            self._hashed = offset + len(piece)
        if self._frames.ended:
            self._zeros_to(self._size_bytes)
            os.ftruncate(self._file, self._size_bytes)

    def _zeros_to(self, offset: int) -> None:
        while self._hashed < offset:
            length = min(PIECE_BYTES, offset - self._hashed)
            self._digest.update(_ZEROS if length == PIECE_BYTES else _ZEROS[:length])
            self._hashed += length

    def sha256(self) -> str:
        return self._digest.hexdigest()

    def _stamped(self, digest: Any, hashed: int) -> Known:
        seen = os.fstat(self._file)
        return Known(digest, hashed if seen.st_size == hashed else -1, seen.st_ino, seen.st_mtime_ns)

    def known(self) -> Known:
        """For the landing that goes on from here."""
        return self._stamped(self._digest.copy(), self._hashed)

    def close(self) -> None:
        os.close(self._file)


def _write(file: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written


class Pace:
    """A limit in bytes a second, shared by all transfers of a node; 0: none. A second's worth may go at once."""

    def __init__(self, bytes_s: float = 0) -> None:
        self._bytes_s = bytes_s
        self._free_at = 0.0

    async def spend(self, count: int) -> None:
        """Return when so many bytes may have gone."""
        if not self._bytes_s:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now - 1.0) + count / self._bytes_s
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


async def land(
    stream: AsyncIterator[bytes], landing: Landing, progress: Callable[[int], None], pace: Pace
) -> None:  # fmt: skip
    """Take a stream in to its end. Raises what `landing.take` and the stream raise; what came before is kept."""
    writing: asyncio.Future[None] | None = None
    # One thread for all of a transfer: each of a pool's would keep memory of its own.
    thread = ThreadPoolExecutor(1, "transfer")
    try:
        async for piece in _large(stream):
            if writing is not None:
                await writing
                progress(landing.position)
            writing = asyncio.get_running_loop().run_in_executor(thread, landing.take, piece)
            await pace.spend(len(piece))
    finally:
        if writing is not None:
            await asyncio.shield(writing)
        thread.shutdown(wait=False)
    progress(landing.position)


async def _large(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces that are worth a thread's while; of a stream that breaks, all that came."""
    held, count = list[bytes](), 0
    try:
        async for chunk in stream:
            held.append(chunk)
            count += len(chunk)
            if count >= PIECE_BYTES:
                yield b"".join(held)
                held, count = [], 0
    except Exception:
        yield b"".join(held)
        raise
    yield b"".join(held)
