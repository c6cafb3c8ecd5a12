"""Takes out of the copy of a workspace's disk what must differ between machines; a program of its own, run as root.

It runs in mount and process namespaces that it alone is in, so that whatever ends it, no mount and no process stays.
The disk is never mounted: qemu-storage-daemon shows it as a file (FUSE), and e2fsprogs, as a user without rights, work
on that. What else the disk is a delta of is said by the caller and never read from a header.

A file goes by its inode, so that no name that a guest chose is ever part of a command: its blocks are zeroed, the inode
is cleared, and e2fsck takes the names out that lead there. The journal is zeroed, for it holds copies. Blocks that are
free are discarded at last, so that nothing which was ever deleted travels with the image.

Nothing but Python's own library is imported: it starts in a tenth of a second, and sees nothing of the node.

Standard input: {"chain": [[path, format], ...], "uid", "gid"}, the disk first; the folder is its own to write in.
Standard output: {"cleaned": number of files} or {"refused": why}.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/"}
MEMORY_BYTES = 1 << 30
CPU_S = 300
READY_WITHIN_S = 20.0
ZEROS = bytes(1 << 20)
DEPTH_MAX = 8
FILES_MAX = 200_000
JOURNAL = 8
ROOT = 2

# Files that go; a folder: all files below it. `*` stands for any name, or a part of one. A system's root may lie in the
# root of the disk, and the demo appliance keeps what is in /vws there. Root's own ssh keys open the other members of a
# context, and its munge key all of a cluster's: of neither can be told who put it there.
GO = (
    "etc/ssh/ssh_host_*",
    "etc/dropbear/*",
    "etc/munge/munge.key",
    "etc/machine-id",
    "etc/vws/context",
    "etc/vws/env",
    "etc/vws/authorized_keys",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/cloud/instances",
    "var/lib/cloud/data",
    "var/lib/cloud/sem",
    "var/lib/cloud/seed",
    "var/lib/vws",
    "var/lib/vws-context",
    "var/lib/dhcp",
    "var/lib/NetworkManager",
    "var/log",
    "var/spool/mail",
    "run",
    "vws",
    "root/.ssh/authorized_keys",
    "root/.ssh/id_*",
    "root/.*_history",
    "home/*/.ssh/authorized_keys",
    "home/*/.*_history",
)
# What programs expect to be there, though empty: systemd makes a new id of an empty file without a first boot's fuss.
EMPTIED = ("/etc/machine-id",)
# What holds no files that a machine wrote for itself.
HARMLESS = frozenset({"squashfs", "erofs", "iso9660", "vfat"})
_EXTENDED = ("0X5", "0XF", "0X85")
# Partitions of GPT without a file system.
_BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
# A name may hold anything but a slash, as e2fsck has seen to.
_ENTRY = re.compile(r"/(\d+)/([0-7]+)/\d*/\d*/([^/]*)/\d*/")
_PART = re.compile(r'START="(\d+)" SECTORS="(\d+)" TYPE="([^"]*)"')
_SECTOR_BYTES = 512


class Refused(Exception):
    pass


def main() -> int:
    asked = json.load(sys.stdin)
    said: dict[str, Any]
    try:
        said = {"cleaned": clean(asked["chain"], asked["uid"], asked["gid"])}
    except Refused as error:
        said = {"refused": str(error)}
    except (OSError, subprocess.SubprocessError) as error:
        said = {"refused": f"the copy of its disk could not be cleaned: {error}"}
    print(json.dumps(said))
    return 0


def clean(chain: list[list[str]], uid: int, gid: int) -> int:
    """The number of files taken out of all file systems of the disk. Raises Refused."""
    with exported(chain, [None], uid, gid) as (whole,):
        found = _probed(whole)
        parts = [] if "PTTYPE" not in found else _partitions(whole)
        if not parts:
            return _clean_one(whole, found.get("TYPE", ""), uid, gid)
    places = [place for place, _ in parts]
    with exported(chain, places, uid, gid) as shown:
        kinds = [_probed(path).get("TYPE", "") for path in shown]
        pairs = [(path, kind) for path, kind, (_, bare) in zip(shown, kinds, parts, strict=True) if kind or not bare]
        for path, kind in pairs:  # refused before anything is changed
            _must_be_known(kind, path)
        return sum(_clean_one(path, kind, uid, gid) for path, kind in pairs)


def _clean_one(path: Path, kind: str, uid: int, gid: int) -> int:
    _must_be_known(kind, path)
    if kind in HARMLESS:
        return 0
    as_nobody = _Unprivileged(uid, gid)
    as_nobody.check(path)
    file_system = FileSystem(path, as_nobody)
    going = file_system.matching(GO)
    emptied = [place for place in EMPTIED if file_system.find(place) in going]
    file_system.forget({*going, JOURNAL}, kept=JOURNAL)
    as_nobody.check(path)
    for place in emptied:
        file_system.make_empty(place)
    as_nobody.check(path, "-E", "discard")
    return len(going)


def _must_be_known(kind: str, path: Path) -> None:
    if kind not in ("ext2", "ext3", "ext4") and kind not in HARMLESS:
        raise Refused(
            f"its disk has {kind or 'no known file system'}, from which host keys and logs cannot be taken out "
            "(ext2, ext3 and ext4 can be cleaned); save it as it is with --uncleaned"
        )


# ---------------------------------------------------------------- the disk as a file


@contextlib.contextmanager
def exported(
    chain: list[list[str]], places: Sequence[tuple[int, int] | None], uid: int, gid: int
) -> Iterator[list[Path]]:
    """Files in this folder that are the disk (None), or parts of it (offset, length), in bytes."""
    shown = [Path(f"export{number}") for number in range(len(places))]
    command = ["qemu-storage-daemon"]
    for number, (name, format) in reversed(list(enumerate(chain))):
        command += _node(number, name, format, is_last=number == len(chain) - 1)
    for number, place in enumerate(places):
        shown[number].touch()
        command += _export(number, shown[number], place)
    daemon = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for path in shown:
            _await(path, daemon)
            os.chown(path, uid, gid)
        yield shown
    finally:
        daemon.terminate()
        daemon.wait(60)
    if daemon.returncode:
        raise Refused("the copy of its disk could not be written (qemu-storage-daemon failed)")


def _node(number: int, path: str, format: str, *, is_last: bool) -> list[str]:
    top = number == 0
    file: dict[str, Any] = {"driver": "file", "filename": path, "read-only": not top}
    node: dict[str, Any] = {"node-name": f"disk{number}", "driver": format, "file": file, "read-only": not top}
    if format == "qcow2":
        node["backing"] = None if is_last else f"disk{number + 1}"
    if top:
        file["discard"] = "unmap"
        node |= {"discard": "unmap", "detect-zeroes": "unmap"}
    return ["--blockdev", json.dumps(node)]


def _export(number: int, path: Path, place: tuple[int, int] | None) -> list[str]:
    name, made = "disk0", list[str]()
    if place is not None:
        name = f"part{number}"
        part = {"node-name": name, "driver": "raw", "file": "disk0", "offset": place[0], "size": place[1]}
        made = ["--blockdev", json.dumps(part | {"discard": "unmap", "detect-zeroes": "unmap"})]
    export = {"type": "fuse", "id": f"export{number}", "node-name": name, "mountpoint": str(path.resolve())}
    return [*made, "--export", json.dumps(export | {"writable": True, "allow-other": "on"})]


def _await(path: Path, daemon: subprocess.Popen[str]) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while not os.path.ismount(path) and path.stat().st_size == 0:
        if daemon.poll() is not None:
            said = (daemon.stderr.read() if daemon.stderr else "").strip().splitlines()
            raise Refused(f"the copy of its disk cannot be opened: {said[-1][:300] if said else daemon.returncode}")
        if time.monotonic() > until:
            raise Refused(f"the copy of its disk was not shown within {READY_WITHIN_S:g} s")
        time.sleep(0.01)


def _probed(path: Path) -> dict[str, str]:
    """What is on it, in blkid's words."""
    found = subprocess.run(
        ["blkid", "-p", "-o", "export", path], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    if found.returncode == 8:
        raise Refused("what is on its disk can be read in several ways; save it as it is with --uncleaned")
    return dict(line.split("=", 1) for line in found.stdout.splitlines() if "=" in line)


def _partitions(path: Path) -> list[tuple[tuple[int, int], bool]]:
    """((offset, length), whether it needs no file system)"""
    told = subprocess.run(
        ["partx", "-P", "-o", "START,SECTORS,TYPE", path], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    found = [(int(start), int(count), kind.upper()) for start, count, kind in _PART.findall(told.stdout)]
    if any(kind in _EXTENDED for _, _, kind in found):
        raise Refused("its disk has an extended partition, which is not cleaned; save it as it is with --uncleaned")
    return [((start * _SECTOR_BYTES, count * _SECTOR_BYTES), kind == _BIOS_BOOT) for start, count, kind in found]


# ---------------------------------------------------------------- the file system


class _Unprivileged:
    """Runs programs that read what a guest wrote: as a user without rights, bounded."""

    def __init__(self, uid: int, gid: int) -> None:
        self._prefix = (
            *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", "--"),
            *("prlimit", f"--as={MEMORY_BYTES}", f"--cpu={CPU_S}", "--core=0", "--"),
        )

    def run(self, *command: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._prefix, *map(str, command)],
            env=ENVIRONMENT, input=stdin, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip

    def check(self, path: Path, *options: str) -> None:
        """Replay the journal, mend what is not in order. Raises Refused if that cannot be done."""
        done = self.run("e2fsck", "-f", "-y", *options, path)
        if done.returncode & ~3:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Refused(f"its file system cannot be mended: {said[-1][:200] if said else done.returncode}")


class FileSystem:
    def __init__(self, path: Path, runner: _Unprivileged) -> None:
        self._path = path
        self._runner = runner
        self._folders: dict[int, list[tuple[int, int, str]]] = {}

    def _ask(self, *commands: str, write: bool = False) -> list[list[str]]:
        """What debugfs says to each command, in lines."""
        script = "".join(f"{command}\n" for command in commands)
        done = self._runner.run("debugfs", *(("-w",) if write else ()), "-f", "-", self._path, stdin=script)
        answers = list[list[str]]()
        for line in done.stdout.split("\n"):
            if len(answers) < len(commands) and line == f"debugfs: {commands[len(answers)]}":
                answers.append([])
            elif answers:
                answers[-1].append(line)
        if done.returncode or len(answers) != len(commands):
            raise Refused(f"its file system cannot be read: {done.stderr.strip()[-200:]}")
        return answers

    def _entries(self, folder: int) -> list[tuple[int, int, str]]:
        """(inode, mode, name) of what is in a folder."""
        if folder not in self._folders:
            (lines,) = self._ask(f"ls -p <{folder}>")
            found = _ENTRY.findall("\n".join(lines))
            entries = [(int(inode), int(mode, 8), name) for inode, mode, name in found]
            self._folders[folder] = [each for each in entries if each[0] > 10 and each[2] not in (".", "..")]
        return self._folders[folder]

    def matching(self, patterns: Iterable[str]) -> set[int]:
        """The inodes of the regular files that the patterns mean."""
        found = set[int]()
        for pattern in patterns:
            found.update(self._below(ROOT, pattern.split("/")))
            if len(found) > FILES_MAX:
                raise Refused(f"more than {FILES_MAX} files are to be taken out of it")
        return found

    def _below(self, folder: int, steps: list[str]) -> Iterator[int]:
        for inode, mode, name in self._entries(folder):
            if not fnmatchcase(name, steps[0]):
                continue
            if len(steps) == 1:
                yield from self._files(inode, mode, DEPTH_MAX)
            elif _is_folder(mode):
                yield from self._below(inode, steps[1:])

    def _files(self, inode: int, mode: int, depth: int) -> Iterator[int]:
        if _is_file(mode):
            yield inode
        elif _is_folder(mode) and depth:
            for below, kind, _ in self._entries(inode):
                yield from self._files(below, kind, depth - 1)

    def find(self, place: str) -> int | None:
        here = ROOT
        for step in place.strip("/").split("/"):
            found = next((inode for inode, _, name in self._entries(here) if name == step), None)
            if found is None:
                return None
            here = found
        return here

    def forget(self, inodes: Iterable[int], *, kept: int) -> None:
        """Zero what these files hold; clear the inodes, but for `kept`, of which the first block stays too."""
        wanted = sorted(inodes)
        (told,) = self._ask("stats -h")
        size = next((int(line.split(":")[1]) for line in told if line.startswith("Block size:")), 0)
        if not size:
            raise Refused("its file system does not say the size of its blocks")
        answers = self._ask(*(f"blocks <{inode}>" for inode in wanted))
        with self._path.open("r+b", buffering=0) as disk:
            for inode, lines in zip(wanted, answers, strict=True):
                blocks = [int(word) for line in lines for word in line.split() if word.isdecimal()]
                _zero(disk.fileno(), blocks[1:] if inode == kept else blocks, size)
            os.fsync(disk.fileno())
        self._ask(*(f"clri <{inode}>" for inode in wanted if inode != kept), write=True)
        self._folders.clear()

    def make_empty(self, place: str) -> None:
        self._ask(f"write /dev/null {place}", f"set_inode_field {place} mode 0100444", write=True)


def _zero(disk: int, blocks: list[int], size: int) -> None:
    end = os.fstat(disk).st_size
    for first, count in _runs(blocks):
        at, left = first * size, count * size
        left = min(left, max(0, end - at))
        while left:
            written = os.pwrite(disk, memoryview(ZEROS)[: min(left, len(ZEROS))], at)
            at, left = at + written, left - written


def _runs(blocks: list[int]) -> Iterator[tuple[int, int]]:
    """(first, count) of the blocks that lie together."""
    first = count = 0
    for block in sorted(blocks):
        if count and block == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = block, 1
    if count:
        yield first, count


def _is_file(mode: int) -> bool:
    return mode & 0o170000 == 0o100000


def _is_folder(mode: int) -> bool:
    return mode & 0o170000 == 0o040000


if __name__ == "__main__":
    sys.exit(main())
