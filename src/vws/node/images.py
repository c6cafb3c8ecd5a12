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

All files together take no more than a limit (eviction.py). Room is made before a
transfer begins. What is used, ordered or on its way never goes: who begins to use a
file holds its lock, notes that he does, and only then looks whether it is there;
who drops one holds the same lock and looks who uses it.

Workspaces come first: while one of them fetches, no prefetch does. One that is
interrupted goes on later from where it was.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from logging import getLogger
from pathlib import Path
from typing import Any, TypeVar

from vws.core import qcow2
from vws.core.caches import CachedFile, Cleared, FileState, KeptFile
from vws.core.errors import InvalidRequest
from vws.core.quantities import show_bytes
from vws.core.site import ImageFile
from vws.faultpoints import reach
from vws.node.commands import CommandFailed, Commands
from vws.node.eviction import Entry, entries, in_turn, share_of, sweep, victims
from vws.node.naming import check_file
from vws.node.state import write_whole
from vws.ports import Fetch, HypervisorError, ImageRefused

log = getLogger(__name__)
T = TypeVar("T")
_LOOK_MEMORY_MIB = 1024
_LOOK_CPU_S = 10
_ROOM_BYTES = 64 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TURN_S = 0.5
USED, ORDERED, WANTED, COMING = (
    "a workspace uses it",
    "a workspace that is ordered here needs it",
    "a lease that is planned here, or an administrator, wants it here",
    "it is on its way",
)


class ImageCache:
    """limit_bytes: of all files together; 0: a quarter of the file system. in_use: the sha256s that workspaces and
    saves have under them, asked from any thread. looks: whether disks must be such as can be booted."""

    def __init__(
        self, directory: Path, *, limit_bytes: int = 0, in_use: Callable[[], set[str]] = set, looks: bool = True
    ) -> None:
        self.directory = directory / "images"
        self.limit_bytes = limit_bytes or share_of(directory)
        self._in_use = in_use
        self._looks = looks
        self._commands = Commands()
        self._locks: dict[str, asyncio.Lock] = {}
        self._making_room = asyncio.Lock()
        self._coming: dict[str, ImageFile] = {}
        # When files were found altered of which no other has come yet, UTC seconds.
        self._altered: dict[str, int] = {}
        self._ordered: frozenset[str] = frozenset()
        self._wanted: tuple[ImageFile, ...] = ()
        self._hurries = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self._prefetching: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Have the directory, without what kills left in it. Blocks."""
        self.directory.mkdir(parents=True, exist_ok=True)
        sweep(self.directory)

    def path(self, sha256: str) -> Path:
        return self.directory / sha256

    def expect(self, ordered: Collection[str], wanted: Sequence[ImageFile]) -> None:
        self._ordered = frozenset(ordered)
        self._wanted = tuple(wanted)

    # -------------------------------------------------------- having files

    async def ensure(self, files: Iterable[ImageFile], fetch: Fetch, step: Callable[[str], None]) -> None:
        """Have all `files` here and verified, each fetched once however many ask at the same time.

        Raises HypervisorError; final if the image is corrupt, even fetched anew, is none that may be run, or can never
        fit. ImageRefused if one was here and has been altered.
        """
        needed = tuple(files)
        self._check_fits(needed)
        for file in needed:
            check_file(file)
            await self._have(file, fetch, step)

    async def _have(self, file: ImageFile, fetch: Fetch, step: Callable[[str], None]) -> None:
        lock = self._lock(file.sha256)
        if not lock.locked():
            async with lock:
                if await _to_the_end(asyncio.to_thread(self._is_here, file)):
                    await asyncio.to_thread(self.touch, [file.sha256])
                    return
        with self._hurried():
            await self._turn(lock, file, step)
            try:
                if not await _to_the_end(asyncio.to_thread(self._is_here, file)):
                    await self._get(file, fetch, step, for_workspace=True)
            finally:
                lock.release()

    def _lock(self, sha256: str) -> asyncio.Lock:
        return self._locks.setdefault(sha256, asyncio.Lock())

    async def _turn(self, lock: asyncio.Lock, file: ImageFile, step: Callable[[str], None]) -> None:
        """Take the lock; while others fetch the file, say so, and how far they are."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TURN_S):
                    await lock.acquire()
                return
            have_bytes = _length(self._partial(file.sha256))
            percent = have_bytes * 100 // max(file.size_bytes, 1)
            step(f"fetching the image's {file.role}, {percent} % of it, for another workspace too")

    @contextmanager
    def _hurried(self) -> Iterator[None]:
        """While a workspace waits for a file, no prefetch is under way."""
        self._hurries += 1
        self._calm.clear()
        if self._prefetching is not None:
            self._prefetching.cancel()
        try:
            yield
        finally:
            self._hurries -= 1
            if not self._hurries:
                self._calm.set()

    async def prefetch(self, file: ImageFile, fetch: Fetch) -> None:
        check_file(file)
        self._check_fits((file,))
        while True:
            await self._calm.wait()
            getting = self._prefetching = asyncio.create_task(self._prefetched(file, fetch))
            try:
                await asyncio.wait({getting})
            finally:
                self._prefetching = None
                if not getting.done():
                    getting.cancel()
                    await asyncio.gather(getting, return_exceptions=True)
            if not getting.cancelled():
                return getting.result()

    async def _prefetched(self, file: ImageFile, fetch: Fetch) -> None:
        async with self._lock(file.sha256):
            here = False
            with suppress(ImageRefused):  # nothing boots from it now
                here = await _to_the_end(asyncio.to_thread(self._is_here, file))
            if not here:
                await self._get(file, fetch, lambda text: None, for_workspace=False)

    def check(self, files: Iterable[ImageFile]) -> None:
        """Raise HypervisorError unless all are here as they were verified, ImageRefused if one was altered since.
        Blocks; cheap while nobody touches them."""
        for file in files:
            check_file(file)
            if self._is_here(file):
                self.touch([file.sha256])
                continue
            raise HypervisorError(
                f"the image's {file.role} is missing from the node's cache; what was made from it cannot boot, new "
                "workspaces fetch it anew"
            )

    def _is_here(self, file: ImageFile) -> bool:
        """As it was when it was hashed; if not quite, it is hashed again. ImageRefused if it was altered: who can write
        there could write more, so that somebody must hear of it, and it is not quietly fetched anew."""
        path = self.path(file.sha256)
        try:
            seen = _identity(path)
        except FileNotFoundError:
            return False
        if self._noted(file.sha256).get("identity") == seen:
            return True
        if _sha256(path) == file.sha256:
            self._note(file)
            return True
        path.unlink()
        self._altered[file.sha256] = int(time.time())
        log.warning("the %s %s was altered in the cache after it had been verified", file.role, file.sha256[:12])
        raise ImageRefused(
            f"this node refuses to boot it: the image's {file.role} was altered in the node's cache after it had been "
            f"verified (it is not sha256:{file.sha256[:12]} any more) and has been removed; new workspaces fetch it "
            "anew"
        )

    def _noted(self, sha256: str) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            noted = json.loads(self._note_path(sha256).read_bytes())
            return noted if isinstance(noted, dict) else {}
        return {}

    def _note(self, file: ImageFile) -> None:
        """As far as the disk has room: without a note it is hashed again, and nothing worse."""
        altered_at = self._altered.pop(file.sha256, self._altered_at(file.sha256))
        noted = {"identity": _identity(self.path(file.sha256)), "role": file.role, "altered_at": altered_at}
        with suppress(OSError):
            write_whole(self._note_path(file.sha256), json.dumps(noted).encode(), durable=False)

    def _altered_at(self, sha256: str) -> int:
        at = self._noted(sha256).get("altered_at")
        return at if type(at) is int else 0

    def _note_path(self, sha256: str) -> Path:
        return self.directory / f"{sha256}.json"

    def _partial(self, sha256: str) -> Path:
        return self.directory / f"{sha256}.part"

    def touch(self, sha256s: Iterable[str]) -> None:
        """They are used now: what is unused the longest goes first, and a note's time is when its file was used."""
        now = time.time()
        for sha256 in sha256s:
            with suppress(FileNotFoundError):
                os.utime(self._note_path(sha256), (now, now))

    # -------------------------------------------------------- fetching

    async def _get(
        self, file: ImageFile, fetch: Fetch, step: Callable[[str], None], *, for_workspace: bool
    ) -> None:  # fmt: skip
        partial = self._partial(file.sha256)
        await self._make_room(file, for_workspace=for_workspace)
        try:
            for _ in range(2):
                step(f"fetching the image's {file.role}")
                try:
                    fetched = await fetch(file.sha256, file.size_bytes, partial)
                except OSError as error:
                    raise _unwritten(file, partial, error) from None
                reach("agent.cache.arrived")
                if await _to_the_end(asyncio.to_thread(self._adopt, file, partial, fetched)):
                    return
        finally:
            del self._coming[file.sha256]
        raise HypervisorError(
            f"the image is corrupt: its {file.role} was fetched twice and is not what its sha256 says", final=True
        )

    def _adopt(self, file: ImageFile, partial: Path, fetched: str) -> bool:
        """Put a fetched file in place; False, and it is gone, if it is not the one asked for. It was hashed on its way:
        it is not read again."""
        if fetched != file.sha256:
            partial.unlink(missing_ok=True)
            return False
        if self._looks and file.role not in ("kernel", "initrd"):
            self._look(file, partial)
        try:
            _sync(partial)
        except OSError as error:
            raise _unwritten(file, partial, error) from None
        os.chmod(partial, 0o444)
        os.replace(partial, self.path(file.sha256))
        reach("agent.cache.adopted")
        self._note(file)
        return True

    # -------------------------------------------------------- room

    def _check_fits(self, files: Iterable[ImageFile]) -> None:
        """A final HypervisorError for what could not be here though nothing else were."""
        needed = sum({file.sha256: file.sent_bytes for file in files}.values())
        if needed > self.limit_bytes:
            raise HypervisorError(
                f"the image can never be on this node: it takes {show_bytes(needed)}, and the node's image cache holds "
                f"{show_bytes(self.limit_bytes)} at most. Nothing was fetched, and nothing was dropped for it. Ask for "
                "another node or a smaller image; or the administrator allows a larger cache ([node] cache in its "
                "site.toml)",
                final=True,
            )

    async def _make_room(self, file: ImageFile, *, for_workspace: bool) -> None:
        """Drop what nobody uses, the longest unused first, if that is what it takes; and keep the room made for this
        file. Where all of that would not be enough, nothing is dropped."""
        async with self._making_room:
            here = await asyncio.to_thread(entries, self.directory)
            excess = self._excess_bytes(file, here)
            if excess > 0:
                await self._free(file, here, excess, for_workspace=for_workspace)
            self._coming[file.sha256] = file

    async def trim(self) -> None:
        """Drop what is unused beyond the limit, which may be lower than it was."""
        async with self._making_room:
            here = await asyncio.to_thread(entries, self.directory)
            excess = sum(entry.disk_bytes for entry in here) - self.limit_bytes
            kept = await asyncio.to_thread(self._reasons)
            for entry in in_turn(here, kept, [file.sha256 for file in self._wanted], for_workspace=True):
                if excess > 0:
                    excess -= await self._drop(entry)

    def _excess_bytes(self, file: ImageFile, here: list[Entry]) -> int:
        """How much has to go before a file can come, beside what others were promised."""
        there = {entry.sha256: entry.disk_bytes for entry in here}
        coming = [*self._coming.values(), file]
        to_come = sum(max(0, each.sent_bytes - there.get(each.sha256, 0)) for each in coming)
        free = shutil.disk_usage(self.directory).free
        return max(sum(there.values()) + to_come - self.limit_bytes, to_come + _ROOM_BYTES - free)

    async def _free(self, file: ImageFile, here: list[Entry], excess: int, *, for_workspace: bool) -> None:
        kept = await asyncio.to_thread(self._reasons) | {file.sha256: COMING}
        turn = in_turn(here, kept, [each.sha256 for each in self._wanted], for_workspace=for_workspace)
        chosen = victims(turn, excess)
        if chosen is None:
            raise self._no_room(file, here, kept)
        for entry in chosen:
            excess -= await self._drop(entry)
        if excess > 0:
            raise HypervisorError(f"no room for the image's {file.role}: what was to go is used again; tried anew")

    def _no_room(self, file: ImageFile, here: list[Entry], kept: Collection[str]) -> HypervisorError:
        used = sum(entry.disk_bytes for entry in here if entry.sha256 in kept and entry.sha256 != file.sha256)
        free = shutil.disk_usage(self.directory).free
        where = (
            f"the node's disk is full ({show_bytes(free)} left)"
            if free < file.sent_bytes + _ROOM_BYTES
            else "the node's image cache is full"
        )
        return HypervisorError(
            f"{where}: the image's {file.role} needs {show_bytes(file.sent_bytes)}; of the "
            f"{show_bytes(self.limit_bytes)} that the cache may hold, {show_bytes(used)} are used by workspaces and "
            "were kept; nothing was dropped. Wait until they have ended, take another node, or have a larger cache "
            "allowed ([node] cache)"
        )

    def _reasons(self) -> dict[str, str]:
        """Why files stay, by sha256, whoever else needs room. Blocks."""
        coming = dict.fromkeys([id for id, lock in self._locks.items() if lock.locked()], COMING)
        return coming | dict.fromkeys(self._ordered, ORDERED) | dict.fromkeys(self._in_use(), USED)

    async def _drop(self, entry: Entry) -> int:
        """Remove a file unless it has come into use; how many bytes that freed."""
        lock = self._lock(entry.sha256)
        if lock.locked():
            return 0
        async with lock:
            return await _to_the_end(asyncio.to_thread(self._unlink, entry))

    def _unlink(self, entry: Entry) -> int:
        if entry.sha256 in self._ordered or entry.sha256 in self._in_use():
            return 0
        entry.path.unlink(missing_ok=True)
        reach("agent.cache.dropped")
        self._note_path(entry.sha256).unlink(missing_ok=True)
        return entry.disk_bytes

    async def clear(self, task: str, files: Collection[str] | None) -> Cleared:
        async with self._making_room:
            here = [e for e in await asyncio.to_thread(entries, self.directory) if files is None or e.sha256 in files]
            wanted = dict.fromkeys((file.sha256 for file in self._wanted), WANTED)
            kept = wanted | await asyncio.to_thread(self._reasons)
            freed = {e.sha256: await self._drop(e) for e in here if e.sha256 not in kept}
        dropped = tuple(id for id in freed if not self.path(id).exists())
        stayed = tuple(KeptFile(e.sha256, kept.get(e.sha256, USED)) for e in here if e.sha256 not in dropped)
        return Cleared(task, dropped, sum(freed.values()), stayed)

    # -------------------------------------------------------- telling

    async def contents(self) -> Sequence[CachedFile]:
        return await asyncio.to_thread(self._contents)

    def _contents(self) -> list[CachedFile]:
        coming = dict(self._coming)
        known = {file.sha256: file for file in self._wanted} | coming
        return sorted((self._told(e, coming, known) for e in entries(self.directory)), key=lambda file: file.sha256)

    def _told(self, entry: Entry, coming: Collection[str], known: dict[str, ImageFile]) -> CachedFile:
        noted = {} if entry.partial else self._noted(entry.sha256)
        file = known.get(entry.sha256)
        role, size_bytes = noted.get("role", file.role if file else ""), entry.size_bytes
        if entry.partial:
            state = FileState.ARRIVING if entry.sha256 in coming else FileState.PARTIAL
            size_bytes = file.size_bytes if file else 0
        else:
            with suppress(FileNotFoundError):
                same = noted.get("identity") == _identity(entry.path)
            state = FileState.COMPLETE if same else FileState.CHANGED
        return CachedFile(
            entry.sha256, state, role, size_bytes, entry.disk_bytes, entry.size_bytes, int(entry.used_at),
            altered_at=0 if entry.partial else self._altered_at(entry.sha256),
        )  # fmt: skip

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


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _unwritten(file: ImageFile, partial: Path, error: OSError) -> HypervisorError:
    """Why a file cannot be kept. On a full disk what had come is given back: guests on it need the room to go on."""
    if error.errno not in _FULL:
        return HypervisorError(f"the image's {file.role} cannot be kept on the node: {error.strerror or error}")
    come = _length(partial)
    partial.unlink(missing_ok=True)
    return HypervisorError(
        f"the node's disk is full: no space was left when {show_bytes(come)} of the {show_bytes(file.size_bytes)} of "
        f"the image's {file.role} had come; they were removed, so that what runs there has room. Free space on "
        "the node's disk (vws node cache clear), or take another node"
    )


async def _to_the_end(work: Awaitable[T]) -> T:
    """Wait for work in a thread even when cancelled: nobody must begin anew with files that it still writes."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
