"""File trees as values, and the initramfs archive that is made of one.

Archives made by programs carry what the build machine's files carry: owners, times, inode numbers, the order in which
a directory lists them. A tree here is a plain mapping of path to entry with none of that, and the writer of the
kernel's archive format ("newc", Documentation/driver-api/early-userspace/buffer-format.rst) adds none.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass

TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """A directory, file or symbolic link (then `data` is its target), owned by root. mode has the type bits."""

    mode: int
    data: bytes = b""

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


Tree = Mapping[str, Entry]


def file(data: bytes | str, mode: int = 0o644) -> Entry:
    return Entry(stat.S_IFREG | mode, data.encode() if isinstance(data, str) else data)


def link(target: str) -> Entry:
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def folder(mode: int = 0o755) -> Entry:
    return Entry(stat.S_IFDIR | mode)


def with_folders(tree: Tree) -> dict[str, Entry]:
    """The tree in sorted order, with every parent folder that nothing named. Paths have no leading slash."""
    complete = dict(tree)
    for path in tree:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            complete.setdefault("/".join(parts[:depth]), folder())
    return dict(sorted(complete.items()))


def archive(tree: Tree) -> bytes:
    """The tree as a newc archive: parents first, all times 0, inode numbers counted from 1."""
    members = with_folders(tree)
    body = b"".join(_member(path, entry, inode) for inode, (path, entry) in enumerate(members.items(), 1))
    return _padded(body + _member(TRAILER, Entry(0), 0), 512)


def _member(path: str, entry: Entry, inode: int) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if entry.is_folder else 1
    numbers = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + name, 4) + _padded(entry.data, 4)


def _padded(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)
