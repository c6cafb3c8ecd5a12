"""A tree of files as an ext4 file system in a qcow2 image, the same bytes for the same tree.

mke2fs can fill a file system from a folder, but takes that folder's times of change and the order in which it happens
to list its files. So the file system is made empty, with its ids fixed and the libraries' clock stopped
(E2FSPROGS_FAKE_TIME), and debugfs writes the tree into it, in the order of the names. Nothing is mounted.

A tree may be that of several disks: what is below the mount point of one goes onto that.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vws.core.errors import InvalidRequest
from vws.guest.cpio import Tree, with_folders
from vws.guest.debs import BuildError, run

NAMESPACE = uuid.UUID("7677732d-6461-7461-2d64-69736b000001")
LABEL = "vws"
# Named one by one, as what mke2fs does by itself depends on a file of this machine.
FEATURES = (
    *("has_journal", "ext_attr", "resize_inode", "dir_index", "filetype", "extent", "64bit", "flex_bg"),
    *("sparse_super", "large_file", "huge_file", "dir_nlink", "extra_isize", "metadata_csum"),
)
# Folders that are there and empty, as something is mounted on them; mke2fs makes lost+found itself.
EMPTIED = ("dev", "proc", "sys", "run", "tmp")
MADE = "lost+found"
CAPABILITY = "security.capability"
FULL = ("Could not allocate", "No free space", "no space left")
PART_START = 1 << 20


@dataclass(frozen=True, slots=True)
class Inode:
    """A file, folder or link to be written. content: a file that holds its bytes; same_as: a path written before."""

    path: str
    mode: int
    mtime_s: int
    uid: int = 0
    gid: int = 0
    content: str = ""
    target: str = ""
    same_as: str = ""
    links: int = 1
    capability: bytes = b""


@dataclass(frozen=True, slots=True)
class Layout:
    """A disk that is to be. offset: where its file system begins; what is before that is the boot loader's. called: by
    the recipe."""

    size_mib: int
    identity: uuid.UUID
    label: str
    now_s: int
    offset: int = 0
    called: str = "disk"


def identity(name: str, version: str) -> uuid.UUID:
    """Of the file system of an appliance: it does not change from build to build."""
    return uuid.uuid5(NAMESPACE, f"{name} {version}")


def inodes_of_tree(tree: Tree, folder: Path, now_s: int) -> list[Inode]:
    """Of a tree in memory, all root's; the contents are written into `folder`."""
    found = []
    for number, (path, entry) in enumerate(with_folders(tree).items()):
        if entry.is_link:
            found.append(Inode(path, entry.mode, now_s, target=entry.data.decode()))
            continue
        if not entry.is_folder:
            (folder / str(number)).write_bytes(entry.data)
        found.append(Inode(path, entry.mode, now_s, content="" if entry.is_folder else str(number)))
    return found


def inodes_of_folder(tree: Path, until_s: float) -> tuple[list[Inode], int]:
    """Of a folder, contents by their paths in it; and the time of the newest file that the build did not make.

    What was changed at `until_s` or later is of the build: it gets that time.
    """
    stats = {path: os.lstat(tree / path) for path in _walk(tree)}
    package_times = [int(s.st_mtime) for s in stats.values() if s.st_mtime < until_s and stat.S_ISREG(s.st_mode)]
    newest_s = max(package_times, default=1)
    first: dict[int, str] = {}
    return [_inode(tree, path, found, newest_s, first) for path, found in stats.items()], newest_s


def _walk(top: Path) -> Iterator[str]:
    paths: list[str] = []
    for folder, folders, files in os.walk(top):
        inside = os.path.relpath(folder, top)
        paths += [os.path.normpath(os.path.join(inside, name)) for name in (*folders, *files)]
    return (path for path in sorted(paths) if path != MADE and (path.split("/")[0] not in EMPTIED or "/" not in path))


def _inode(tree: Path, path: str, found: os.stat_result, newest_s: int, first: dict[int, str]) -> Inode:
    _check_name(path)
    mtime_s = min(int(found.st_mtime), newest_s)
    inode = Inode(path, found.st_mode, mtime_s, found.st_uid, found.st_gid)
    if stat.S_ISLNK(found.st_mode):
        target = os.readlink(tree / path)
        _check_name(target)
        return replace(inode, target=target)
    if stat.S_ISDIR(found.st_mode):
        return replace(inode, mtime_s=newest_s)
    if not stat.S_ISREG(found.st_mode):
        raise BuildError(f"/{path} is a device, pipe or socket, which no appliance brings")
    before = first.setdefault(found.st_ino, path) if found.st_nlink > 1 else path
    same_as = before if before != path else ""
    return replace(inode, content=path, same_as=same_as, capability=_capability(tree / path))


def _capability(path: Path) -> bytes:
    if CAPABILITY not in os.listxattr(path, follow_symlinks=False):
        return b""
    return os.getxattr(path, CAPABILITY, follow_symlinks=False)


def _check_name(path: str) -> None:
    if not path.isprintable() or '"' in path:
        raise BuildError(f"the file name {path!r} has a quote or a control character, which is not taken in")


def split(inodes: Iterable[Inode], mounts: Iterable[str]) -> dict[str, list[Inode]]:
    """The inodes by the disk that they are on, told by its mount point, the root's by ""; one that nothing is on
    is not there. mounts: absolute paths. A disk's own root is as its mount point was."""
    places = sorted((mount.lstrip("/") for mount in mounts), key=len, reverse=True)
    found: dict[str, list[Inode]] = {}
    tops: dict[str, Inode] = {}
    first: dict[tuple[str, str], str] = {}
    for inode in inodes:
        if inode.path in places:
            tops[inode.path] = replace(inode, path="")
        place = next((each for each in places if inode.path.startswith(f"{each}/")), "")
        path = inode.path[len(place) :].lstrip("/")
        same_as = first.setdefault((place, inode.same_as or inode.path), path)
        on = found.setdefault(place, [tops[place]] if place in tops else [])
        on.append(replace(inode, path=path, same_as="" if same_as == path else same_as))
    return {f"/{place}" if place else "": on for place, on in found.items()}


def make_qcow2(inodes: Iterable[Inode], contents: Path, target: Path, layout: Layout, start: bytes = b"") -> None:
    """Write `target`, a compressed qcow2 with these inodes. start: what the disk begins with (layout.offset bytes).

    Raises InvalidRequest when they do not fit.
    """
    raw = target.with_suffix(".raw")
    with raw.open("wb") as stream:
        stream.write(start)
        stream.truncate(layout.size_mib << 20)
    try:
        _format(raw, layout)
        _fill(raw, list(inodes), contents, layout, target.parent)
        run(["e2fsck", "-f", "-n", _within(raw, layout)], env=_environment(layout))
        pack = ["-c", "-m", "2", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd"]
        run(["qemu-img", "convert", *pack, str(raw), str(target)])
    finally:
        raw.unlink()


def _within(raw: Path, layout: Layout) -> str:
    return f"{raw}?offset={layout.offset}" if layout.offset else str(raw)


def _format(raw: Path, layout: Layout) -> None:
    # 4 KiB blocks and few inodes, as the file system is to grow; nothing left for the guest to initialise.
    journal_mib = 16 if layout.size_mib >= 1024 else 8 if layout.size_mib >= 64 else 4
    shape = ["-b", "4096", "-i", "16384", "-I", "256", "-m", "0", "-J", f"size={journal_mib}"]
    fixed = [f"hash_seed={layout.identity}", "lazy_itable_init=0", "lazy_journal_init=0", "nodiscard"]
    fixed += [f"offset={layout.offset}"] if layout.offset else []
    named = ["-U", str(layout.identity), "-L", layout.label, "-E", ",".join(fixed), "-O", f"none,{','.join(FEATURES)}"]
    size = f"{(layout.size_mib << 10) - (layout.offset >> 10)}k"
    run(["mke2fs", "-q", "-F", "-t", "ext4", *shape, *named, str(raw), size], env=_environment(layout))


def _fill(raw: Path, inodes: list[Inode], contents: Path, layout: Layout, folder: Path) -> None:
    commands = folder / "debugfs-commands"
    lines = [line for each in inodes for line in _lines(each, folder)]
    links: dict[str, int] = {}
    for each in inodes:
        if each.same_as:
            links[each.same_as] = links.get(each.same_as, 1) + 1
    lines += [f'set_inode_field "/{path}" links_count {count}' for path, count in links.items()]
    commands.write_text("".join(f"{line}\n" for line in lines))
    said = run(
        ["debugfs", "-w", "-f", str(commands), _within(raw, layout)],
        env=_environment(layout),
        with_stderr=True,
        cwd=contents,
    )
    wrong = [line for line in said.splitlines() if not line.startswith(("debugfs", "Allocated inode:"))]
    if any(word.lower() in line.lower() for line in wrong for word in FULL):
        raise InvalidRequest(
            f"{layout.called}.size: {len(inodes)} files do not fit on a disk of {layout.size_mib} MiB",
            field=f"{layout.called}.size",
            asked=f"{layout.size_mib}MiB",
            possible="a larger disk, or fewer packages and files",
        )
    if wrong:
        raise BuildError(f"the disk could not be filled: {wrong[0]}")


def _lines(inode: Inode, folder: Path) -> Iterator[str]:
    path = f'"/{inode.path}"'
    if inode.same_as:
        yield f'ln "/{inode.same_as}" {path}'
        return
    if inode.target:
        yield f'symlink {path} "{inode.target}"'
    elif stat.S_ISDIR(inode.mode):
        if inode.path:
            yield f"mkdir {path}"
    else:
        yield f'write "{inode.content}" {path}'
    if not inode.target:
        yield f"set_inode_field {path} mode 0{inode.mode:o}"
    yield f"set_inode_field {path} mtime @{inode.mtime_s}"
    yield from (f"set_inode_field {path} {name} {value}" for name, value in _owner(inode).items() if value)
    if inode.capability:
        value = folder / f"capability-{inode.capability.hex()}"
        value.write_bytes(inode.capability)
        yield f'ea_set -f "{value}" {path} {CAPABILITY}'


def _owner(inode: Inode) -> Mapping[str, int]:
    return {"uid": inode.uid, "gid": inode.gid}


def _environment(layout: Layout) -> dict[str, str]:
    # 0 would mean: the real time.
    fixed = {"E2FSPROGS_FAKE_TIME": str(max(1, layout.now_s)), "MKE2FS_CONFIG": "/dev/null"}
    return {**os.environ, **fixed, "LC_ALL": "C", "TZ": "UTC"}
