"""Tars of plain files: written piece by piece as they are sent, read with nothing believed.

What is exported as a tar is never on the disk as one: its members are files that are there already, and everything
about them is known before the first byte is sent, so that the tar's length is too.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vws.core.image_formats import wrong

PIECE_BYTES = 1 << 20
MEMBERS_MAX = 10_000
_END_BYTES = 2 * tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Member:
    name: str
    size_bytes: int
    content: Callable[[], Iterable[bytes]]


def in_memory(name: str, data: bytes) -> Member:
    return Member(name, len(data), lambda: (data,))


def length_bytes(members: Iterable[Member]) -> int:
    """Of the tar that `written` gives."""
    blocks = sum(1 + -(-member.size_bytes // tarfile.BLOCKSIZE) for member in members)
    return blocks * tarfile.BLOCKSIZE + _END_BYTES


def written(members: Iterable[Member], offset: int = 0) -> Iterator[bytes]:
    """The tar from an offset on, piece by piece. OSError if a member has not the bytes that it should have; one that
    ends before the offset is not read."""
    for member in members:
        length = length_bytes((member,)) - _END_BYTES
        if offset < length:
            yield from _from(_written(member), offset)
        offset = max(0, offset - length)
    yield bytes(_END_BYTES)[offset:]


def _written(member: Member) -> Iterator[bytes]:
    info = tarfile.TarInfo(member.name)  # owner and time are 0 unless said
    info.size = member.size_bytes
    yield info.tobuf(tarfile.GNU_FORMAT)  # ustar ends at 8 GiB a member
    count = 0
    for piece in member.content():
        count += len(piece)
        yield piece
    if count != member.size_bytes:
        raise OSError(f"{member.name} has {count} bytes, not {member.size_bytes}")
    yield bytes(-count % tarfile.BLOCKSIZE)


def _from(pieces: Iterable[bytes], offset: int) -> Iterator[bytes]:
    for piece in pieces:
        if offset < len(piece):
            yield piece[offset:] if offset else piece
        offset = max(0, offset - len(piece))


class PlainMember(tarfile.TarInfo):
    """A member that is its own bytes and nothing else, told from its header alone.

    A sparse member is as long as it says, however few bytes came; extended headers are read into memory, however many
    came. Both are refused before tarfile follows them.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0:  # where the next one is, tarfile goes by this
            raise wrong(f"the tar's {member.name[:80]!r} says it has {member.size} bytes", "an undamaged copy of it")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
            raise wrong(
                f"the tar's {member.name[:60]!r} is not a plain file (sparse, a link, or with an extended header)",
                "a tar of plain files: tar --format=ustar",
            )
        return member


def unpack(path: Path, folder: Path, place: Callable[[str], str | None], complete: str) -> None:
    """Write the members of a tar into `folder`.

    place: the name under which a member is kept there, a plain one; None for one that is passed over; it raises
    InvalidRequest for what does not belong into such a tar. complete: what is called so, "the bundle". Raises
    InvalidRequest with field "file".
    """
    bytes_max = path.stat().st_size
    try:
        with tarfile.open(path, "r:", tarinfo=PlainMember) as tar:
            for number, member in enumerate(tar):
                if number >= MEMBERS_MAX:  # tarfile remembers each
                    raise wrong(f"{complete} holds more than {MEMBERS_MAX} members", complete)
                _unpack_member(tar, member, folder, place, complete, bytes_max)
            # tarfile takes whatever is no header for the end.
            if not _is_end(path, tar.offset):
                raise wrong(f"{complete} is damaged or cut short: it has no end", f"all of {complete}")
    except (tarfile.TarError, EOFError) as error:
        raise wrong(f"this tar file cannot be read: {error}") from None


def _is_end(path: Path, offset: int) -> bool:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _unpack_member(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    folder: Path,
    place: Callable[[str], str | None],
    complete: str,
    bytes_max: int,
) -> None:
    name = place(member.name.removeprefix("./"))
    if name is None:
        return
    if member.isdir():
        raise wrong(f"{complete}'s {member.name[:60]!r} is a folder where a file should be", complete)
    if (folder / name).exists():
        raise wrong(f"{complete} holds {member.name[:80]!r} twice", "each member once")
    if member.size > bytes_max:
        raise wrong(
            f"{complete}'s {member.name[:80]!r} says it has {member.size} bytes, more than came", f"all of {complete}"
        )
    stream = tar.extractfile(member)
    assert stream is not None
    with (folder / name).open("xb") as target:
        shutil.copyfileobj(stream, target, PIECE_BYTES)
