"""The world, as small protocols: what the services and the node agent need and no more.

Each has a real implementation, a fake that ships where a fake makes sense, and
one contract suite in tests/contract that both pass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from vws.core.caches import CachedFile, Cleared, NodeCache
from vws.core.context import ContextRecord, Member
from vws.core.deployment import CaptureOrder, DiskTrouble, NodeOrders, Quiesced, WorkspaceKeys, WorkspaceOrder
from vws.core.lifecycle import Observation
from vws.core.site import (
    Address,
    Answer,
    Capacity,
    Changes,
    Cluster,
    Document,
    Event,
    Image,
    ImageFile,
    ImageTag,
    Lease,
    Maintenance,
    Node,
    Revocation,
    Save,
    SealedKey,
    Signer,
    Subscription,
    Token,
    Workspace,
)
from vws.core.traits import UNSAID, Traits


class Clock(Protocol):
    def now(self) -> float:
        """UTC seconds."""
        ...


class Ids(Protocol):
    def new(self, prefix: str) -> str:
        """A new id such as `lse-01jd…`: sorts by time of making, never repeats."""
        ...


# ---------------------------------------------------------------- store


class StaleRevision(Exception):
    """Another process committed since this one read; nothing was written. Read again, decide again."""


@dataclass(frozen=True)
class Snapshot:
    """All that is alive (`Store.load`), or all that changed after a revision (`Store.changed_since`).

    Alive: leases not ended with all their workspaces (released ones too); nodes, images and tags not removed; tokens
    neither revoked, nor expired long ago; maintenances neither over nor removed; all signers; revocations not
    lifted; subscriptions not removed; addresses reserved or held; saves that are due; caches of nodes not removed. In
    `changed_since`, ended and removed values are included.
    """

    revision: int
    leases: tuple[Lease, ...] = ()
    workspaces: tuple[Workspace, ...] = ()
    nodes: tuple[Node, ...] = ()
    images: tuple[Image, ...] = ()
    tokens: tuple[Token, ...] = ()
    maintenances: tuple[Maintenance, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    image_tags: tuple[ImageTag, ...] = ()
    signers: tuple[Signer, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    addresses: tuple[Address, ...] = ()
    saves: tuple[Save, ...] = ()
    caches: tuple[NodeCache, ...] = ()


@dataclass(frozen=True)
class Page:
    """`next` is the cursor of the following page, None at the end."""

    items: tuple[Any, ...]
    next: str | None


@dataclass(frozen=True)
class Filter:
    """What a listing is limited to; None means any. `live`: only what has not ended (removed, released). content: of
    images (core/site.py: Image); tag: of names of images."""

    owner: str | None = None
    lease: str | None = None
    workspace: str | None = None
    node: str | None = None
    image: str | None = None
    name: str | None = None
    series: str | None = None
    cluster: str | None = None
    pool: str | None = None
    content: str | None = None
    tag: str | None = None
    live: bool = False
    states: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class KeptContext:
    record: ContextRecord
    members: tuple[Member, ...]


@dataclass(frozen=True)
class ContextLog:
    """The end of the output of a hook's last run."""

    context: str
    member: str
    role: str
    side: str
    hook: str
    log: bytes


@dataclass(frozen=True)
class ContextChanges:
    """One batch of what guests said. contexts: each at the revision after the one it was decided on, or new (`opened`:
    their ids); members, logs: whole, replaced by their keys."""

    contexts: tuple[ContextRecord, ...] = ()
    opened: frozenset[str] = frozenset()
    members: tuple[Member, ...] = ()
    logs: tuple[ContextLog, ...] = ()
    events: tuple[Event, ...] = ()
    answers: tuple[Answer, ...] = ()


class ContextStore(Protocol):
    """The record of contexts. Thread-safe. Every method is one transaction."""

    def commit(self, changes: ContextChanges) -> int:
        """Write all or nothing; return the seq of the last event. The site's revision stays.

        Raises StaleRevision if another process changed one of the contexts, NameTaken for a live context's name.
        """
        ...

    def live(self) -> tuple[KeptContext, ...]:
        """All that are not closed, sorted by id."""
        ...

    def get(self, id: str) -> KeptContext | None: ...

    def revisions(self) -> dict[str, int]:
        """Of those that are not closed."""
        ...

    def page(self, where: Filter, *, after: str | None, limit: int) -> Page:
        """ContextRecords, sorted by id. InvalidRequest for a cursor that this store did not give."""
        ...

    def logs(self, id: str, member: str) -> tuple[ContextLog, ...]: ...


class Store(Protocol):
    """The one record. Thread-safe. Every method is one transaction."""

    @property
    def contexts(self) -> ContextStore: ...

    def load(self) -> Snapshot: ...

    def changed_since(self, revision: int) -> Snapshot: ...

    def revision(self) -> int: ...

    def commit(self, changes: Changes, *, expected: int) -> tuple[int, int]:
        """Write all of `changes` or nothing; return the new (revision, seq of the last event).

        Raises StaleRevision if the store's revision is not `expected`; NameTaken, Conflict for a broken unique rule
        (an address held twice, a live lease's name used twice).
        """
        ...

    def get(self, kind: type[Any], id: str) -> Any:
        """The Lease, Workspace, Node, Image, ImageTag, Token or Maintenance of that id, alive or ended; None if
        there never was one."""
        ...

    def page(
        self, kind: type[Any], where: Filter, *, after: str | None, limit: int, newest_first: bool = False
    ) -> Page:
        """Sorted by id (by time of making), the other way round if asked for. InvalidRequest for a cursor that this
        store did not give."""
        ...

    def events(self, where: Filter, *, after: int, limit: int) -> tuple[Event, ...]:
        """Events with seq > `after`, in order."""
        ...

    def last_seq(self) -> int: ...

    def answer(self, subject: str, client_token: str) -> Answer | None: ...

    def documents(self, image: str) -> tuple[Document, ...]:
        """All that is kept beside an image, in the order in which it was added."""
        ...

    def documents_bytes(self, by: str) -> int:
        """How much somebody keeps beside images that are not removed."""
        ...

    def forget_documents(self) -> None:
        """Delete what is kept beside images that were removed."""
        ...

    def keys(self, of: str) -> tuple[SealedKey, ...]:
        """Those of an image or a workspace, in the order in which they were added."""
        ...

    def keys_of(self) -> frozenset[str]:
        """The ids of all images and workspaces that have any."""
        ...

    def forget_keys(self, of: Iterable[str]) -> None:
        """Delete the keys of these; what only they opened is lost for good."""
        ...

    def heard(self, at_by_node: dict[str, float]) -> None:
        """Remember when nodes were last heard from; changes no revision."""
        ...

    def heard_at(self) -> dict[str, float]: ...

    def forget(self, *, answers_before: float) -> int:
        """Delete answers older than that; return how many."""
        ...

    def lead(self) -> bool:
        """Become, or still be, the one process that reconciles (an advisory lock; SQLite: always)."""
        ...

    def bringing_files(self) -> AbstractContextManager[None]:
        """While it lasts, no process of the site is let in by `dropping_files`. Unavailable if that takes too long."""
        ...

    def dropping_files(self) -> AbstractContextManager[bool]:
        """Whether no other process of the site brings files while it lasts; waits for nobody. Who dies lets go."""
        ...

    def close(self) -> None: ...


# ---------------------------------------------------------------- blobs


@dataclass(frozen=True)
class Extent:
    """A part of a file, in bytes."""

    offset: int
    length: int


class Blobs(Protocol):
    """Files by their sha256, each either whole or absent. Where a file is zero it may have holes, which are not kept.

    All methods raise Unavailable if the place does not answer, or refuses.
    """

    def size(self, sha256: str) -> int | None:
        """Length in bytes, holes counted; None if there is no such file."""
        ...

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        """Its bytes from `offset` on, holes as zeros. NotFound if there is no such file."""
        ...

    def extents(self, sha256: str) -> Sequence[Extent]:
        """Where it is no hole, in order and apart. NotFound if there is no such file."""
        ...

    def place(self, sha256: str, target: Path) -> None:
        """Have its bytes at `target`, a new path, for a program that needs a file; it must not be written to. Costs no
        copy where that can be helped. NotFound if there is no such file; OSError if `target` cannot be written."""
        ...

    def adopt(self, temporary: Path, sha256: str) -> None:
        """Take a complete file in, which is gone afterwards; a repeat is harmless."""
        ...

    def remove(self, sha256: str) -> None: ...

    def all(self) -> Sequence[str]:
        """The sha256 of every file kept."""
        ...

    def sweep(self) -> None:
        """Let go of what is half kept. Only while nobody adopts (`Store.dropping_files`)."""
        ...

    def check(self) -> None:
        """Raise Unavailable, saying what to mend, unless files can be kept and read here. Changes nothing."""
        ...


# ---------------------------------------------------------------- nodes


class HypervisorError(Exception):
    """What could not be done, in a sentence for the user. `final`: trying again will not help."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final


class ImageRefused(HypervisorError):
    """The node will not boot this: what is to boot is not what was vouched for. Trying again will not help."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, final=True)


@dataclass(frozen=True)
class Description:
    """What a node is. hypervisor: kvm, tcg or fake; reason: why that one."""

    capacity: Capacity
    hypervisor: str
    reason: str
    traits: Traits = UNSAID


@dataclass(frozen=True)
class Instance:
    """What a hypervisor has of one workspace, seen just now.

    state: RUNNING (the domain runs; whether the guest is up is another question: `guest_up`), PAUSED, SUSPENDED (saved
    to disk, no domain), STOPPED (the disk is there, no domain runs, as after the guest's own power-off or before its
    first boot), BROKEN (with reason: crashed, disk full, panicked).
    boots: the number of the last boot started, kept on disk. created: its disk exists.
    end: the lease's end that it was told, kept on disk, so that ends are enforced by an agent that has no orders yet.
    exit_status: of the order's command, once the guest has powered off after it; it outlives later boots.
    disks: those that the guest said, in its present boot, that it could not prepare.
    """

    id: str
    state: Observation
    boots: int
    created: bool
    end: int
    reason: str = ""
    host_key: str = ""
    memory_mib: int = 0
    memory_defined_mib: int = 0
    exit_status: int | None = None
    disks: tuple[DiskTrouble, ...] = ()


class Stream(Protocol):
    """A byte stream to a guest's port or console."""

    async def read(self, size: int = 65536) -> bytes:
        """b"" at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class Fetch(Protocol):
    async def __call__(self, sha256: str, size_bytes: int, target: Path) -> str:
        """Download a blob to `target` (resuming what is there). Returns the sha256 of what came to be there, which the
        caller compares."""
        ...


class ImageStore(Protocol):
    """A node's cache of image files, within a limit. What workspaces need is here or comes (`Hypervisor.create`); the
    rest is kept for as long as there is room, what was used last the longest."""

    @property
    def limit_bytes(self) -> int:
        """What all files together may take."""
        ...

    def expect(self, ordered: Collection[str], wanted: Sequence[ImageFile]) -> None:
        """From now on never drop what is `ordered` (sha256s), as workspaces will use it, nor for other prefetches what
        is `wanted`, the soonest first."""
        ...

    async def prefetch(self, file: ImageFile, fetch: Fetch) -> None:
        """Have a file here before anybody needs it. Gives way to whatever workspaces fetch meanwhile, and takes no room
        from what is used or wanted. Raises HypervisorError."""
        ...

    async def trim(self) -> None:
        """Drop what is unused beyond the limit, which may have been lowered."""
        ...

    async def contents(self) -> Sequence[CachedFile]:
        """All that is here or on its way, by sha256. Reads no file."""
        ...

    async def clear(self, task: str, files: Collection[str] | None) -> Cleared:
        """Drop these files (sha256s; None: all), but for those that are used, expected or wanted."""
        ...


class Hypervisor(Protocol):
    """One node's means to run workspaces. Every call is idempotent and may be repeated after a kill at any point.

    keys: what an encrypted workspace needs (`WorkspaceOrder.encrypted`), None for others. Nothing of them, nothing that
    such a guest writes and nothing of its memory lies in the clear on the node's disk, at any time.

    It touches only what carries its mark. All methods raise HypervisorError with a reason for the user: ImageRefused
    from create, start and restore for an image that is not, or no more, what the order says is vouched for.
    Calls for different workspaces may run at the same time, calls for one do not (the agent sees to that).
    """

    @property
    def images(self) -> ImageStore: ...

    async def open(self, orders: NodeOrders | None) -> None:
        """Get ready: adopt or start daemons, bridge, DHCP for the orders' subnet.

        Repeated when orders change the subnet and after a loss of the connection."""
        ...

    async def mend(self) -> None:
        """Have the guests' network as `open` made it, whatever befell it since. Asked every few seconds, so it costs
        next to nothing while all is well. What is raised says why guests are without it; they run on."""
        ...

    async def close(self, *, tear_down: bool) -> None:
        """Let go. `tear_down`: remove daemons, bridge and namespace too (only when no workspace is left)."""
        ...

    async def describe(self) -> Description: ...

    async def instances(self) -> Sequence[Instance]:
        """Everything here that carries the mark, remains and half-made ones included."""
        ...

    async def create(self, order: WorkspaceOrder, fetch: Fetch, step: Any, keys: WorkspaceKeys | None = None) -> None:
        """Image files in the cache and verified, overlay, host key, NoCloud disk, DHCP entry. Starts nothing.
        `step(text)` tells what is going on."""
        ...

    async def start(self, order: WorkspaceOrder, keys: WorkspaceKeys | None = None) -> None:
        """Boot number `order.boots`: define with the order's size and start. The number is kept on disk before."""
        ...

    async def guest_up(self, order: WorkspaceOrder) -> bool:
        """Does the guest answer, as its image says when it is ready (`ready`: ssh or boot)?"""
        ...

    async def pause(self, id: str) -> None: ...

    async def resume(self, id: str) -> None: ...

    async def suspend(self, id: str, keys: WorkspaceKeys | None = None) -> None:
        """To disk; the domain is gone afterwards."""
        ...

    async def restore(self, order: WorkspaceOrder, keys: WorkspaceKeys | None = None) -> None: ...

    async def stop(self, id: str, *, grace_s: float) -> None:
        """Ask the guest to power off, force it after `grace_s`; the disk stays."""
        ...

    async def resize(self, order: WorkspaceOrder) -> None:
        """Live: memory by balloon up to what is defined, CPU by share."""
        ...

    async def update(self, order: WorkspaceOrder) -> None:
        """Keep what must outlive the agent and needs no other call: the new end."""
        ...

    async def remove(self, id: str) -> None:
        """Force it off and remove everything: domain, saved state, overlay, NoCloud disk, DHCP entry, tap. Returns only
        when nothing is left; the console's log stays."""
        ...

    async def take(self, order: CaptureOrder) -> None:
        """Have what the workspace's disk holds now, until `drop_capture`: of a guest that runs after a rest of under a
        second, at its end once it is off. Its disk may be gone afterwards then, so `remove` follows. A repeat changes
        nothing."""
        ...

    async def delta(self, order: CaptureOrder) -> Path:
        """What was taken, cleaned if that is ordered, as a qcow2 without the name of what it is a delta on. A final
        error if it cannot be cleaned, with what helps."""
        ...

    async def quiesced(self, id: str) -> Quiesced:
        """What kept the guest from writing when a capture was taken, which was."""
        ...

    async def captures(self, *, taken: bool = False) -> set[str]:
        """The ids of all captures of which there is anything; or of those that were taken whole."""
        ...

    async def drop_capture(self, id: str) -> None: ...

    async def console(self, id: str, *, tail_bytes: int) -> bytes:
        """The end of the serial console's log; b"" if there is none. Works after the end too."""
        ...

    async def connect(self, order: WorkspaceOrder, port: int) -> Stream:
        """Open a TCP connection to the guest's port."""
        ...

    def changes(self) -> AsyncIterator[str]:
        """Yield a workspace's id whenever something happened to it that was not asked for here (died, stopped)."""
        ...
