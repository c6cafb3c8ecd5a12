"""A guest's memory at rest: what libvirt saves of it, encrypted in pieces while it is written.

Memory holds what the disk holds, and the disk's key besides. So of an encrypted workspace it never lies on the node's
disk in the clear, not even in passing. A file is

    MAGIC, SALT, pieces (length, AES-256-GCM of at most PIECE_BYTES), END

Its key is derived from the workspace's with the salt, so that the pieces may be numbered for nonces. A piece's number
and whether it is the last are in its nonce: none can be altered, left out, moved, or cut off without being noticed. END
says that all was written, to who has no key.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vws.ports import HypervisorError

MAGIC = b"vws-sealed-memory/1\n"
END = b"vws-sealed-memory-end\n"
SALT_BYTES = 16
PIECE_BYTES = 1 << 20
TAG_BYTES = 16
_LENGTH_BYTES = 4


class Sealing:
    """Writes the file `path`, which is whole once `finish` has returned; it is on disk then.

    Room for what `finish` writes is taken beforehand: a full disk shows while there is still something to be written,
    and the guest can go on.
    """

    def __init__(self, path: Path, passphrase: str) -> None:
        salt = secrets.token_bytes(SALT_BYTES)
        self._cipher = _cipher(passphrase, salt)
        self._held = bytearray()
        self._number = 0
        self._file = open(path, "wb", opener=_private)  # noqa: SIM115 - closed by its user
        self._file.write(MAGIC + salt)
        self._reserve()

    def write(self, data: bytes) -> None:
        self._held += data
        while len(self._held) > PIECE_BYTES:  # one piece is always left, to be the last
            self._seal(bytes(self._held[:PIECE_BYTES]), last=False)
            del self._held[:PIECE_BYTES]
            self._reserve()

    def finish(self) -> None:
        self._seal(bytes(self._held), last=True)
        self._held.clear()
        self._file.write(END)
        self._file.truncate()
        self._file.flush()
        os.fsync(self._file.fileno())

    def _reserve(self) -> None:
        self._file.flush()
        os.posix_fallocate(self._file.fileno(), self._file.tell(), 2 * PIECE_BYTES)

    def close(self) -> None:
        self._file.close()

    def _seal(self, piece: bytes, *, last: bool) -> None:
        sealed = self._cipher.encrypt(_nonce(self._number, last), piece, None)
        self._file.write(len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed)
        self._number += 1


def opened(path: Path, passphrase: str) -> Iterator[bytes]:
    """What was written, piece by piece, each only once it is known to be what it was. A final HypervisorError if the
    file is not as it was written with this passphrase."""
    try:
        with path.open("rb") as file:
            yield from _pieces(file, passphrase, path.stat().st_size - len(END))
    except InvalidTag:
        raise HypervisorError(
            "its saved memory is not as it was saved (it was altered on the node's disk, or its key is another); it "
            "cannot be restored, and its disk is as it was",
            final=True,
        ) from None


def _pieces(file: BinaryIO, passphrase: str, end: int) -> Iterator[bytes]:
    if file.read(len(MAGIC)) != MAGIC:
        raise InvalidTag
    cipher = _cipher(passphrase, file.read(SALT_BYTES))
    number, last = 0, False
    while not last:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "big")
        if not TAG_BYTES <= length <= PIECE_BYTES + TAG_BYTES:
            raise InvalidTag
        sealed = file.read(length)
        last = file.tell() >= end
        yield cipher.decrypt(_nonce(number, last), sealed, None)
        number += 1


def is_sealed(path: Path) -> bool:
    return _at(path, 0, len(MAGIC)) == MAGIC


def is_whole(path: Path) -> bool:
    """Whether all of it was written. What was altered since is seen when it is opened."""
    return is_sealed(path) and _at(path, -len(END), len(END)) == END


def _at(path: Path, offset: int, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
            return file.read(length)
    except OSError:
        return b""


def _cipher(passphrase: str, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt, b"vws memory at rest").derive(passphrase.encode()))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
