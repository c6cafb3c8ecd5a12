"""Takes a root file system's tar apart: `python -I root_tree.py TAR FILTER FOLDER BYTES_MAX`, run confined.

Nothing is extracted under the names that the tar gives. Each file's bytes go to FOLDER/content/NUMBER; names, owners
and links go to FOLDER/commands, by which debugfs writes them into a file system that is never mounted. So no name or
link can lead anywhere on this machine, whatever it says; those that would lead out of a tree are refused all the same,
since an archive that has them was not made of a root file system. An absolute symbolic link is kept: where it is
followed, the tree is the root.

Left out: devices below dev/ (the guest's kernel makes its own; elsewhere they are refused), sockets and FIFOs, and of
extended attributes all but capabilities and the users' own.

stdout: one line of JSON, {"entries", "bytes", "boot": {name: [content, size]}, "programs"} or {"problem", "possible"}.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ENTRIES_MAX = 1_000_000
# One command of debugfs is one line of at most 8,191 bytes, with room for two names.
NAME_BYTES_MAX, PATH_BYTES_MAX, TARGET_BYTES_MAX = 255, 2000, 2000
XATTR_BYTES_MAX = 2048
BLOCK_BYTES = 1 << 16
PIECE_BYTES = 1 << 20
ID_MAX = (1 << 32) - 2
# Of what is in boot/, what could be a kernel or its initial file system; and what tells whether ssh will answer.
BOOT_FILES = ("boot/vmlinuz-", "boot/initrd.img-", "boot/initramfs-", "boot/initrd-")
PROGRAMS = (
    "usr/sbin/sshd",
    "usr/sbin/dropbear",
    "sbin/init",
    "usr/sbin/init",
    "lib/systemd/systemd",
    "usr/lib/systemd/systemd",
)


class Refused(Exception):
    def __init__(self, problem: str, possible: str) -> None:
        super().__init__(problem)
        self.told = {"problem": problem, "possible": possible}


class Owner(NamedTuple):
    uid: int = 0
    gid: int = 0
    mtime: int = 0


UNSAID = Owner()


@dataclass(slots=True)
class Entry:
    """kind: d, f or l. content: the number of a file's bytes. links: names that a file has."""

    kind: str
    mode: int
    owner: Owner = UNSAID
    content: int = 0
    size: int = 0
    target: str = ""
    links: int = 1
    attributes: dict[str, bytes] = field(default_factory=dict)


class Tree:
    """What is to be in the file system, by path without leading slash; "" is the root."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self.entries: dict[str, Entry] = {"": Entry("d", 0o755)}
        self.hard: list[tuple[str, str]] = []
        self.bytes = 0
        self._folder = folder
        self._bytes_max = bytes_max
        self._contents = 0

    def add(self, archive_entry: Any) -> None:
        path = clean(archive_entry.pathname)
        kind = archive_entry.filetype & 0o170000
        if archive_entry.islnk:
            self._add_hard(path, clean(archive_entry.linkpath))
        elif kind == stat.S_IFDIR:
            self._add_folder(path, archive_entry)
        elif kind == stat.S_IFREG:
            self._new(path, self._file(path, archive_entry))
        elif kind == stat.S_IFLNK:
            self._new(
                path, Entry("l", 0o777, owner_of(archive_entry), target=check_target(path, archive_entry.linkpath))
            )
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            check_device(path)
        elif kind not in (stat.S_IFIFO, stat.S_IFSOCK):
            raise Refused(f"the tar's {shown(path)} is of an unknown kind", "a tar of files, folders and links")

    def _add_folder(self, path: str, archive_entry: Any) -> None:
        made = Entry("d", archive_entry.mode & 0o7777, owner_of(archive_entry), attributes=attributes_of(archive_entry))
        if path in self.entries and self.entries[path].kind == "d":
            self.entries[path] = made
        else:
            self._new(path, made)

    def _new(self, path: str, entry: Entry) -> None:
        self._need_parents(path)
        if path in self.entries:
            raise Refused(f"the tar holds {shown(path)} twice", "a tar that holds each file once")
        if len(self.entries) + len(self.hard) >= ENTRIES_MAX:
            raise Refused(f"the tar holds more than {ENTRIES_MAX} files", "a smaller root file system")
        self.entries[path] = entry

    def _need_parents(self, path: str) -> None:
        for place, letter in enumerate(path):
            if letter == "/":
                parent = self.entries.setdefault(path[:place], Entry("d", 0o755))
                if parent.kind != "d":
                    raise Refused(
                        f"the tar's {shown(path)} goes through {shown(path[:place])}, which is no folder",
                        "a tar in which only folders hold files",
                    )

    def _add_hard(self, path: str, target: str) -> None:
        found = self.entries.get(target)
        if found is None or found.kind != "f":
            raise Refused(
                f"the tar's {shown(path)} is a hard link to {shown(target)}, which is no file of this tar before it",
                "a tar that holds what its links point at",
            )
        # In the tree, so that nothing else comes to have the name; written as a link.
        self._new(path, found)
        self.hard.append((path, target))
        found.links += 1

    def _file(self, path: str, archive_entry: Any) -> Entry:
        size = archive_entry.size or 0
        if size < 0 or self.bytes + size > self._bytes_max:
            raise Refused(
                f"the tar's {shown(path)} says it has {size} bytes, more than all of an image may have unpacked",
                f"at most {self._bytes_max} bytes",
            )
        self._contents += 1
        with (self._folder / "content" / str(self._contents)).open("wb") as content:
            written = copy(archive_entry, content, size)
        self.bytes += written
        return Entry(
            "f",
            archive_entry.mode & 0o7777,
            owner_of(archive_entry),
            content=self._contents,
            size=written,
            attributes=attributes_of(archive_entry),
        )

    # ------------------------------------------------------------ written down

    def commands(self) -> Iterator[str]:
        """What debugfs is to do. Parents come before what is in them, as a path is added after its parents."""
        linked = {path for path, _ in self.hard}
        for path, entry in self.entries.items():
            if path in linked:
                continue
            name = quoted(f"/{path}")
            if entry.kind == "d" and path not in ("", "lost+found"):
                yield f"mkdir {name}"
            elif entry.kind == "f":
                yield f"write {quoted(str(self._folder / 'content' / str(entry.content)))} {name}"
            elif entry.kind == "l":
                yield f"symlink {name} {quoted(entry.target)}"
            yield from self._inode(name, entry)
        yield from (f"ln {quoted('/' + target)} {quoted('/' + path)}" for path, target in self.hard)

    def _inode(self, name: str, entry: Entry) -> Iterator[str]:
        kind = {"d": 0o40000, "f": 0o100000, "l": 0o120000}[entry.kind]
        fields = {
            "mode": f"0{kind | entry.mode:o}",
            "uid": entry.owner.uid,
            "gid": entry.owner.gid,
            "mtime": f"@{entry.owner.mtime}",
        }
        if entry.links > 1:
            fields["links_count"] = entry.links
        yield from (f"sif {name} {key} {value}" for key, value in fields.items() if value != 0)
        for key, data in entry.attributes.items():
            self._contents += 1
            place = self._folder / "content" / str(self._contents)
            place.write_bytes(data)
            yield f"ea_set -f {quoted(str(place))} {name} {key}"

    def summary(self) -> dict[str, Any]:
        boot = {p: [e.content, e.size] for p, e in self.entries.items() if e.kind == "f" and p.startswith(BOOT_FILES)}
        programs = [path for path in PROGRAMS if path in self.entries]
        return {"entries": len(self.entries), "bytes": self.bytes, "boot": boot, "programs": programs}


# ---------------------------------------------------------------- names


def clean(path: str | bytes | None) -> str:
    """A member's path without ./ and the leading slash that some archivers leave."""
    if not isinstance(path, str):
        raise Refused(f"the tar has a name that is not UTF-8: {path!r:.60}", "names in UTF-8")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Refused(f"the tar's {shown(path)} leads out of it (..)", "a tar whose names stay in it")
    if any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in path):
        raise Refused(f"the tar's {shown(path)} has control characters in its name", "names that can be printed")
    cleaned = "/".join(parts)
    if len(cleaned.encode()) > PATH_BYTES_MAX or any(len(part.encode()) > NAME_BYTES_MAX for part in parts):
        raise Refused(
            f"the tar's {shown(path)} has too long a name",
            f"names of at most {NAME_BYTES_MAX} bytes, paths of at most {PATH_BYTES_MAX}",
        )
    return cleaned


def check_target(path: str, target: str | bytes | None) -> str:
    if not isinstance(target, str) or not target or not target.isprintable():
        raise Refused(f"the tar's {shown(path)} is a link to what is no printable name", "names that can be printed")
    if len(target.encode()) > TARGET_BYTES_MAX:
        raise Refused(f"the tar's {shown(path)} is a link to too long a name", f"at most {TARGET_BYTES_MAX} bytes")
    if not target.startswith("/"):
        depth = path.count("/")
        for part in target.split("/"):
            depth += -1 if part == ".." else part not in ("", ".")
            if depth < 0:
                raise Refused(
                    f"the tar's {shown(path)} is a link that leads out of it: {shown(target)}", "links that stay in it"
                )
    return target


def check_device(path: str) -> None:
    if path.split("/")[0] != "dev":
        raise Refused(f"the tar's {shown(path)} is a device", "a tar with devices in dev/ only, or none")


def shown(path: str) -> str:
    return repr(path if len(path) <= 80 else path[:77] + "...")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# ---------------------------------------------------------------- members


def owner_of(archive_entry: Any) -> Owner:
    uid, gid, mtime = archive_entry.uid, archive_entry.gid, int(archive_entry.mtime or 0)
    if not (0 <= uid <= ID_MAX and 0 <= gid <= ID_MAX):
        raise Refused(
            f"the tar's {shown(str(archive_entry.pathname))} belongs to user {uid}, group {gid}",
            f"ids of 0 to {ID_MAX}",
        )
    return Owner(uid, gid, max(0, min(mtime, (1 << 31) - 1)))


def copy(archive_entry: Any, target: Any, size: int) -> int:
    """The bytes, with holes where they are zero. They never come to more than `size`, which was checked."""
    left, ends_in_hole = size, False
    # Each piece costs a buffer of the length that is asked for, however small the file is.
    for piece in archive_entry.get_blocks(min(max(size, 1), PIECE_BYTES)):
        left -= len(piece)
        if left < 0:
            raise Refused("a file of the tar has more bytes than it says", "an undamaged copy of it")
        for begin in range(0, len(piece), BLOCK_BYTES):
            block = piece[begin : begin + BLOCK_BYTES]
            ends_in_hole = block.count(0) == len(block)
            if ends_in_hole:
                target.seek(len(block), os.SEEK_CUR)
            else:
                target.write(block)
    if ends_in_hole:
        target.truncate(size - left)
    return size - left


def attributes_of(archive_entry: Any) -> dict[str, bytes]:
    """Extended attributes that mean in the guest what they meant where the tar was made."""
    from libarchive import ffi

    library, entry = ffi.libarchive, ctypes.c_void_p(archive_entry._entry_p)
    if not library.archive_entry_xattr_reset(entry):
        return {}
    name, value, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
    found: dict[str, bytes] = {}
    while library.archive_entry_xattr_next(entry, ctypes.byref(name), ctypes.byref(value), ctypes.byref(size)) == 0:
        key = (name.value or b"").decode(errors="replace")
        wanted = key == "security.capability" or (key.startswith("user.") and key.replace(".", "").isalnum())
        if wanted and key.isascii() and len(key) < 200 and size.value <= XATTR_BYTES_MAX:
            found[key] = ctypes.string_at(value, size.value)
    return found


def read(tar: Path, compression: str, tree: Tree) -> None:
    import libarchive
    from libarchive.exception import ArchiveError

    try:
        with libarchive.file_reader(
            str(tar), format_name="tar", filter_name=compression, block_size=PIECE_BYTES
        ) as members:
            for member in members:
                tree.add(member)
    except ArchiveError as error:
        if compression != "none" and not tree.hard and len(tree.entries) == 1:
            raise Refused(
                f"this file is compressed ({compression}), and what is in it is no tar", "unpack it first"
            ) from None
        raise Refused(f"this tar cannot be read: {str(error)[:200]}", "an undamaged copy of it") from None
    except MemoryError:
        raise Refused("taking this tar apart took too much memory", "a smaller root file system") from None


def main() -> None:
    tar, compression, folder, bytes_max = sys.argv[1:]
    tree = Tree(Path(folder), int(bytes_max))
    (tree._folder / "content").mkdir()
    try:
        read(Path(tar), compression, tree)
        with (Path(folder) / "commands").open("w", encoding="utf-8") as commands:
            commands.writelines(f"{line}\n" for line in tree.commands())
        told = tree.summary()
    except Refused as refused:
        told = refused.told
    print(json.dumps(told))


if __name__ == "__main__":
    main()
