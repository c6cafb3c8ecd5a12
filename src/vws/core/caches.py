"""What nodes hold of images, as the record has it, and what an administrator asked of their caches.

A node's cache is its own affair: it says what is in it, and decides what goes when room is needed. The record keeps
what it said last, so that the planner knows where an image is, and the tasks of administrators, which are orders like
others: a task stays due until its node has done it or says why it cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum, auto

# So many tasks that are over are remembered of a node.
TASKS_KEPT = 16


class FileState(StrEnum):
    """COMPLETE: whole, and verified as it lies there. ARRIVING: on its way. PARTIAL: the transfer was broken off, and
    goes on when the file is wanted again. CHANGED: touched since it was verified, hashed again before its next use.
    REFUSED: planned leases or an administrator want it here, and it cannot come (`reason`)."""

    COMPLETE = auto()
    ARRIVING = auto()
    PARTIAL = auto()
    CHANGED = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file in a node's cache, or wanted there. role: in the image that it came for; size_bytes: of the whole file;
    disk_bytes: what it takes here; have_bytes: up to where it has come; used_at: UTC seconds, by the node's clock.
    altered_at: when the one that was here before it was found to have been altered since it was verified; 0: never."""

    sha256: str
    state: FileState
    role: str = ""
    size_bytes: int = 0
    disk_bytes: int = 0
    have_bytes: int = 0
    used_at: int = 0
    reason: str = ""
    altered_at: int = 0


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file that was to be cleared and was not, as it is in use."""

    sha256: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """What came of a task `id` to clear: which files went, how much that freed, and what stayed, and why."""

    id: str
    dropped: tuple[str, ...] = ()
    freed_bytes: int = 0
    kept: tuple[KeptFile, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheContents:
    """All that a node says of its cache. limit_bytes: of all files together; fetch_limit_mbit: how fast it fetches at
    most, 0 for no limit. cleared: what came of tasks in its orders."""

    limit_bytes: int = 0
    fetch_limit_mbit: float = 0.0
    files: tuple[CachedFile, ...] = ()
    cleared: tuple[Cleared, ...] = ()


class TaskKind(StrEnum):
    PREFETCH = auto()
    CLEAR = auto()


class TaskState(StrEnum):
    DUE = auto()
    DONE = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class CacheTask:
    """What an administrator asked of a node's cache. image: an id, files: its sha256s; none of both: all that is
    unused. reason: why it failed; freed_bytes, dropped, kept: of a clearing."""

    id: str
    kind: TaskKind
    image: str
    image_name: str
    files: tuple[str, ...]
    by: str
    asked_at: float
    state: TaskState = TaskState.DUE
    ended_at: float | None = None
    reason: str = ""
    freed_bytes: int = 0
    dropped: tuple[str, ...] = ()
    kept: tuple[KeptFile, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeCache:
    """The cache of the node `id`, as it was last told. removed_at: since when there is no such node."""

    id: str
    limit_bytes: int = 0
    fetch_limit_mbit: float = 0.0
    files: tuple[CachedFile, ...] = ()
    tasks: tuple[CacheTask, ...] = ()
    reported_at: float = 0.0
    removed_at: float | None = None

    @property
    def held(self) -> frozenset[str]:
        """The sha256s of what is here, whole and verified."""
        if self.removed_at is not None:
            return frozenset()
        return frozenset(file.sha256 for file in self.files if file.state is FileState.COMPLETE)

    @property
    def due(self) -> tuple[CacheTask, ...]:
        return tuple(task for task in self.tasks if task.state is TaskState.DUE)


def reported(cache: NodeCache, contents: CacheContents, now: float) -> NodeCache:
    """The cache after its node said what it holds; the same value if that is no news."""
    tasks = tuple(_after(task, contents, now) for task in cache.tasks)
    after = replace(
        cache, limit_bytes=contents.limit_bytes, fetch_limit_mbit=contents.fetch_limit_mbit, files=contents.files,
        tasks=tasks,
    )  # fmt: skip
    return cache if after == cache else replace(after, reported_at=now)


def with_task(cache: NodeCache, task: CacheTask) -> NodeCache:
    """The cache with one task more; of those that are over the latest are kept."""
    over = [each for each in cache.tasks if each.state is not TaskState.DUE]
    return replace(cache, tasks=(*over[-TASKS_KEPT:], *cache.due, task))


def _after(task: CacheTask, contents: CacheContents, now: float) -> CacheTask:
    if task.state is not TaskState.DUE:
        return task
    if task.kind is TaskKind.CLEAR:
        return _cleared(task, contents, now)
    files = {file.sha256: file for file in contents.files}
    refused = [file.reason for id in task.files if (file := files.get(id)) and file.state is FileState.REFUSED]
    if refused:
        return replace(task, state=TaskState.FAILED, reason=refused[0], ended_at=now)
    if all(id in files and files[id].state is FileState.COMPLETE for id in task.files):
        return replace(task, state=TaskState.DONE, ended_at=now)
    return task


def _cleared(task: CacheTask, contents: CacheContents, now: float) -> CacheTask:
    said = next((each for each in contents.cleared if each.id == task.id), None)
    if said is None:
        return task
    return replace(
        task, state=TaskState.DONE, ended_at=now, freed_bytes=said.freed_bytes, dropped=said.dropped, kept=said.kept
    )
