"""The node's cache of image files, by their sha256.

A file is in it whole or not at all: fetched to `SHA256.part` (which a broken
download leaves, to be resumed), hashed, looked at, and only then put in place by
rename, read-only. Beside it `SHA256.json` notes size, times and inode of what was
hashed; while these are the same the file is not hashed again. Among the times is
that of the last change of anything about it (ctime), which nobody can set.

A disk image comes from strangers and names other files if it likes (a backing
file, a data file), which the hypervisor, being root's child, would read. Such an
image is refused by its header, before any program opens it, and formats are
always said, never guessed: a raw disk may hold a qcow2 header that its guest
wrote there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from vws.core import qcow2
from vws.core.errors import InvalidRequest
from vws.core.site import ImageFile
from vws.node.commands import CommandFailed, Commands
from vws.node.naming import check_file
from vws.node.state import write_whole
from vws.ports import Fetch, HypervisorError, ImageRefused

_LOOK_MEMORY_MIB = 1024
_LOOK_CPU_S = 10
_ROOM_MIB = 64


class ImageCache:
    def __init__(self, directory: Path) -> None:
        self.directory = directory / "images"
        self._commands = Commands()
        self._fetching: dict[str, asyncio.Lock] = {}

    def path(self, sha256: str) -> Path:
        return self.directory / sha256

    async def ensure(
        self, files: Iterable[ImageFile], fetch: Fetch, step: Callable[[str], None], in_use: Callable[[], set[str]]
    ) -> None:
        """Have all `files` here and verified, each fetched once however many ask at the same time.

        `in_use`: the sha256s that must stay when room is made. Raises HypervisorError; final if the image is corrupt,
        even fetched anew, or is none that may be run.
        """
        for file in files:
            check_file(file)
            async with self._fetching.setdefault(file.sha256, asyncio.Lock()):
                if not await asyncio.to_thread(self._is_here, file):
                    await self._fetch(file, fetch, step, in_use)

    def check(self, files: Iterable[ImageFile]) -> None:
        """Raise HypervisorError unless all are here as they were verified, ImageRefused if one was altered since.
        Blocks; cheap while nobody touches them."""
        for file in files:
            check_file(file)
            there = self.path(file.sha256).exists()
            if self._is_here(file):
                continue
            if there:
                raise ImageRefused(
                    f"this node refuses to boot it: the image's {file.role} was altered in the node's cache after it "
                    f"had been verified (it is not sha256:{file.sha256[:12]} any more) and has been removed; new "
                    "workspaces fetch it anew"
                )
            raise HypervisorError(
                f"the image's {file.role} is missing from the node's cache; what was made from it cannot boot, new "
                "workspaces fetch it anew"
            )

    def _is_here(self, file: ImageFile) -> bool:
        """As it was when it was hashed; if not quite, it is hashed again."""
        path = self.path(file.sha256)
        try:
            seen = _identity(path)
        except FileNotFoundError:
            return False
        if self._noted(file.sha256) == seen:
            return True
        if _sha256(path) == file.sha256:
            self._note(file.sha256)
            return True
        path.unlink()
        return False

    def _noted(self, sha256: str) -> list[int] | None:
        try:
            noted: list[int] = json.loads(self._note_path(sha256).read_bytes())
            return noted
        except (OSError, ValueError):
            return None

    def _note(self, sha256: str) -> None:
        write_whole(self._note_path(sha256), json.dumps(_identity(self.path(sha256))).encode(), durable=False)

    def _note_path(self, sha256: str) -> Path:
        return self.directory / f"{sha256}.json"

    # -------------------------------------------------------- fetching

    async def _fetch(
        self, file: ImageFile, fetch: Fetch, step: Callable[[str], None], in_use: Callable[[], set[str]]
    ) -> None:
        partial = self.directory / f"{file.sha256}.part"
        await asyncio.to_thread(self._make_room, file, partial, in_use)
        for _ in range(2):
            step(f"fetching the image's {file.role}")
            try:
                fetched = await fetch(file.sha256, file.size_bytes, partial)
            except OSError as error:
                raise HypervisorError(f"the image's {file.role} cannot be kept: {error.strerror or error}") from None
            if await asyncio.to_thread(self._adopt, file, partial, fetched):
                return
        raise HypervisorError(
            f"the image is corrupt: its {file.role} was fetched twice and is not what its sha256 says", final=True
        )

    def _make_room(self, file: ImageFile, partial: Path, in_use: Callable[[], set[str]]) -> None:
        """Drop images that nobody uses, the longest unused first, if that is what it takes."""
        got = partial.stat().st_size if partial.exists() else 0
        needed = max(0, file.size_bytes - got) + (_ROOM_MIB << 20)
        if shutil.disk_usage(self.directory).free >= needed:
            return
        used = in_use() | {sha256 for sha256, lock in self._fetching.items() if lock.locked()}
        idle = [p for p in self.directory.iterdir() if p.name.split(".")[0] not in used and p.suffix != ".json"]
        for path in sorted(idle, key=lambda p: p.stat().st_atime):
            path.unlink()
            self._note_path(path.name).unlink(missing_ok=True)
            if shutil.disk_usage(self.directory).free >= needed:
                return
        raise HypervisorError(f"the node's disk is full: the image's {file.role} needs {needed >> 20} MiB")

    def _adopt(self, file: ImageFile, partial: Path, fetched: str) -> bool:
        """Put a fetched file in place; False, and it is gone, if it is not the one asked for. It was hashed on its way:
        it is not read again."""
        if fetched != file.sha256:
            partial.unlink(missing_ok=True)
            return False
        if file.role in ("disk", "base"):
            self._look(file, partial)
        _sync(partial)
        os.chmod(partial, 0o444)
        os.replace(partial, self.path(file.sha256))
        self._note(file.sha256)
        return True

    # -------------------------------------------------------- looking

    def _look(self, file: ImageFile, path: Path) -> None:
        """Refuse, and delete, a disk that refers to other files or is none."""
        try:
            if file.format == "qcow2":
                with path.open("rb") as opened:
                    header = _header(opened.read(qcow2.HEADER_BYTES))
                if header.encryption != file.encryption:
                    said = "encrypted" if file.encryption else "in the clear"
                    raise HypervisorError(f"the image's disk is not {said}, as its manifest says", final=True)
            self._check_info(file, path)
        except HypervisorError:
            path.unlink()
            raise

    def _check_info(self, file: ImageFile, path: Path) -> None:
        try:
            arguments = ("qemu-img", "info", "--output=json", "-f", file.format, path)
            told = self._commands.limited(*arguments, memory_mib=_LOOK_MEMORY_MIB, cpu_s=_LOOK_CPU_S)
            info = json.loads(told)
        except (CommandFailed, ValueError) as error:
            raise HypervisorError(f"the image's disk is not a {file.format} image: {error}", final=True) from None
        data = info.get("format-specific", {}).get("data", {})
        if info.get("backing-filename") or data.get("data-file"):
            raise HypervisorError("the image's disk refers to another file", final=True)


def _header(data: bytes) -> qcow2.Header:
    try:
        return qcow2.read_header(data, luks=True)
    except InvalidRequest as error:
        raise HypervisorError(f"the image's disk is not one to run: {error.problem}", final=True) from None


def _identity(path: Path) -> list[int]:
    seen = path.stat()
    return [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def virtual_size_mib(header: bytes, size_bytes: int, format: str) -> int:
    """Of a disk image, from the start of its file; rounded up."""
    size = _header(header).virtual_size_bytes if format == "qcow2" else size_bytes
    return -(-size // (1 << 20))
