"""Files to a site and back: without their zeros, verified while they move, resumed where they broke.

On the way there the service keeps what has come for a day under a key made from the file's place, length and time, so
that the same command again goes on. On the way back the file's own length tells how far it came. A stream is frames
(offset, length, bytes) of what is not zero; the last one has no bytes and says how long the file is.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vws.client.connection import given
from vws.client.errors import ApiError, ConnectionFailed, Json, VwsClientError

if TYPE_CHECKING:
    import httpx

    from vws.client.operations import Client

# A large image is looked at and unpacked before the answer comes.
ANSWER_TIMEOUT_S = 900.0
GIVE_UP_S = 120.0
SPEAK_EVERY_S = 10.0
BLOCK_BYTES = 256 << 10
HEADER_BYTES = 16
MEDIA_TYPE = "application/vnd.vws.frames"
_ZEROS = bytes(BLOCK_BYTES)

Progress = Callable[[int], object]


# ---------------------------------------------------------------- there


def upload(
    client: Client, path: Path, name: str, shared: Sequence[str] | None, format: str | None, told: Progress,
    encrypt: bool = False, passphrase: str | None = None,
) -> Json:  # fmt: skip
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        asked = {
            "name": name,
            "size_bytes": size,
            "key": _key(path, file),
            "shared": None if shared is None else list(shared),
            "format": format,
            "encrypt": encrypt or None,
        }
        begun = client.post("/v1/uploads", given(asked))
        sha256 = _send(client, file, begun, told)
    secret = {} if passphrase is None else {"Image-Passphrase": base64.b64encode(passphrase.encode()).decode()}
    place = f"/v1/uploads/{begun['id']}/complete"
    done = client.post(place, {"sha256": sha256}, timeout_s=ANSWER_TIMEOUT_S, headers=secret)
    told(size)
    return done


def _key(path: Path, file: BinaryIO) -> str:
    """The same file at the same place, unchanged, has the same key."""
    seen = os.fstat(file.fileno())
    said = (socket.gethostname(), str(path.resolve()), seen.st_size, seen.st_mtime_ns, seen.st_ino)
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _send(client: Client, file: BinaryIO, begun: Json, told: Progress) -> str:
    """All that is missing, as often as the connection breaks and comes back; returns the whole file's sha256."""
    last = time.monotonic()
    offset = begun["offset"]
    while True:
        reading = _Reading(file, begun["size_bytes"], offset, told)
        try:
            if offset < begun["size_bytes"]:
                _patch(client, begun["id"], reading, offset)
            return reading.sha256()
        except (ConnectionFailed, ApiError) as error:
            now_at = _where(client, begun["id"], error)
            if now_at > offset:
                last = time.monotonic()
            if time.monotonic() - last > GIVE_UP_S:
                raise
            offset = now_at
            time.sleep(0.5)


def _where(client: Client, id: str, error: ConnectionFailed | ApiError) -> int:
    """How far an upload came that broke; raises `error` if it is over."""
    if isinstance(error, ApiError) and error.status not in (409, 502, 503, 504):
        raise error
    try:
        offset: int = client.get(f"/v1/uploads/{id}")["offset"]
        return offset
    except ConnectionFailed:
        return 0  # not known yet; the next answer corrects it


def _patch(client: Client, id: str, reading: _Reading, offset: int) -> None:
    client.stream_to(f"/v1/uploads/{id}", reading.frames(), {"offset": offset}, MEDIA_TYPE, ANSWER_TIMEOUT_S)


class _Reading:
    """A file as frames from an offset on, hashed from its beginning."""

    def __init__(self, file: BinaryIO, size: int, offset: int, told: Progress) -> None:
        self._file, self._size, self._offset, self._told = file, size, offset, told
        self._digest = hashlib.sha256()
        self._at = 0
        file.seek(0)
        for _ in self._blocks(offset):
            pass

    def frames(self) -> Iterator[bytes]:
        sent_at = time.monotonic()
        for at, block in self._blocks(self._size):
            # Zeros need not be sent, but a site gives up who is silent for a minute.
            if block != _ZEROS[: len(block)] or time.monotonic() - sent_at > SPEAK_EVERY_S:
                yield header(at, len(block)) + block
                sent_at = time.monotonic()
            self._told(self._at)
        yield header(self._size, 0)

    def _blocks(self, end: int) -> Iterator[tuple[int, bytes]]:
        while self._at < end:
            block = self._file.read(min(BLOCK_BYTES, end - self._at))
            if not block:
                raise VwsClientError("the file became shorter while it was sent", code="file-changed")
            at, self._at = self._at, self._at + len(block)
            self._digest.update(block)
            yield at, block

    def sha256(self) -> str:
        return self._digest.hexdigest()


def header(offset: int, length: int) -> bytes:
    return offset.to_bytes(8, "big") + length.to_bytes(8, "big")


# ---------------------------------------------------------------- back


def download(client: Client, image: str, sha256: str, size: int, target: Path, told: Progress) -> None:
    with target.open("ab"):
        pass
    with target.open("r+b") as file:
        writing = _Writing(file, size)
        last = time.monotonic()
        while writing.at < size:
            before = writing.at
            try:
                _get(client, image, sha256, writing, told)
            except ConnectionFailed:
                if writing.at > before:
                    last = time.monotonic()
                if time.monotonic() - last > GIVE_UP_S:
                    raise
                time.sleep(0.5)
        file.truncate(size)
    if writing.sha256() != sha256:
        target.unlink()
        raise VwsClientError(
            "what came is not what its sha256 says", code="corrupt", possible="the same again; it was thrown away"
        )


def _get(client: Client, image: str, sha256: str, writing: _Writing, told: Progress) -> None:
    path = f"/v1/images/{image}/files/{sha256}"
    reader = _Frames(writing)
    for chunk in client.stream_from(path, {"holes": "skip", "offset": writing.at}):
        reader.feed(chunk)
        told(writing.at)
    if not reader.ended:
        raise ConnectionFailed("the answer was cut short", code="unreachable")


def export(
    client: Client, path: str, where: Json, target: Path, told: Callable[[int, int], object]
) -> Mapping[str, str]:
    """What a site makes for who asks, to `target`, which it replaces when it is whole; returns the answer's headers.

    Nobody knows its sha256 beforehand: what came of it is kept beside the target, under the tag of the bytes that it is
    the beginning of, and the site says whether it still has those.
    """
    came, last = _came(target), 0.0
    while True:
        try:
            return _go_on(client, path, where, target, told)
        except ConnectionFailed:
            before, came = came, _came(target)
            last = time.monotonic() if came > before else last
            if time.monotonic() - last > GIVE_UP_S:
                raise
            time.sleep(0.5)


def _parts(target: Path) -> list[tuple[Path, str]]:
    """What came of a target, each with its tag."""
    form = re.compile(rf"\.{re.escape(target.name)}\.([0-9a-f]{{64}})\.part")
    found = ((path, form.fullmatch(path.name)) for path in sorted(target.parent.iterdir()))
    return [(path, match[1]) for path, match in found if match]


def _came(target: Path) -> int:
    return sum(path.stat().st_size for path, _ in _parts(target))


def _go_on(
    client: Client, path: str, where: Json, target: Path, told: Callable[[int, int], object]
) -> Mapping[str, str]:
    part, tag = next(iter(_parts(target)), (None, ""))
    size = part.stat().st_size if part else 0
    with client.receiving(path, where, {"Range": f"bytes={size}-", "If-Range": f'"{tag}"'} if size else {}) as answer:
        if part is None or answer.status_code == 200:
            for old, _ in _parts(target):
                old.unlink(missing_ok=True)
            part, size = target.with_name(f".{target.name}.{answer.headers['ETag'].strip(chr(34))}.part"), 0
        with part.open("r+b" if size else "wb") as file:
            _receive(answer, file, size, told)
    part.replace(target)
    return answer.headers


def _receive(answer: httpx.Response, file: BinaryIO, begin: int, told: Callable[[int, int], object]) -> None:
    """A connection that breaks off early is httpx's to notice, by the length that was announced."""
    total = begin + int(answer.headers.get("Content-Length", 0))
    file.seek(begin)
    try:
        for piece in answer.iter_raw(BLOCK_BYTES):
            if piece.count(0) == len(piece):
                file.seek(len(piece), os.SEEK_CUR)
            else:
                file.write(piece)
            told(file.tell(), total)
    finally:
        file.truncate(file.tell())


class _Writing:
    """A file that grows at its end, hashed from its beginning; begins with what is there."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._digest, self.at = file, hashlib.sha256(), 0
        if os.fstat(file.fileno()).st_size > size:
            file.truncate(0)
        while piece := file.read(BLOCK_BYTES):
            self._digest.update(piece)
            self.at += len(piece)

    def skip(self, to: int) -> None:
        while self.at < to:
            length = min(BLOCK_BYTES, to - self.at)
            self._digest.update(_ZEROS[:length])
            self.at += length

    def write(self, data: bytes) -> None:
        self._file.seek(self.at)
        self._file.write(data)
        self._digest.update(data)
        self.at += len(data)

    def sha256(self) -> str:
        return self._digest.hexdigest()


class _Frames:
    def __init__(self, writing: _Writing) -> None:
        self._writing, self._head, self._left, self.ended = writing, b"", 0, False

    def feed(self, data: bytes) -> None:
        while data:
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                self._writing.write(piece)
            else:
                missing = HEADER_BYTES - len(self._head)
                self._head, data = self._head + data[:missing], data[missing:]
                if len(self._head) == HEADER_BYTES:
                    self._writing.skip(int.from_bytes(self._head[:8], "big"))
                    self._left = int.from_bytes(self._head[8:], "big")
                    self.ended, self._head = not self._left, b""
