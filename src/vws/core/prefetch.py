"""What nodes should have in their caches before it is needed: the images of leases that are planned there.

A node is told with its orders, the soonest lease first. Orders are numbered, and a number costs a commit and a poll,
while plans change all the time: so nodes are told anew only when something that they do not hold comes or goes
(`news`). What they hold already and are not told of is still theirs; it just counts as unused.

Only what begins within a day is fetched: later plans will have changed by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vws.core.caches import NodeCache, TaskKind
from vws.core.site import Group, Image, ImageFile, Lease, PlanPhase

AHEAD_S = 24 * 3600
_STEP_S = 600


@dataclass(frozen=True, slots=True)
class _Planned:
    begin: int
    files: tuple[ImageFile, ...]


class Prefetches:
    """images: those on record by id, as they are at any time."""

    def __init__(self, images: Mapping[str, Image]) -> None:
        self._images = images
        self._planned: dict[str, dict[str, _Planned]] = {}  # by node, by lease
        self._nodes_of: dict[str, tuple[str, ...]] = {}  # by lease
        self._caches: dict[str, NodeCache] = {}
        self._told: dict[str, frozenset[str]] = {}
        self._changed: set[str] = set()
        self._coming: dict[int, set[str]] = {}  # nodes by when, in steps, a lease that is planned there comes in sight
        self._sighted = -1

    # ------------------------------------------------------------ what is known

    def take_lease(self, lease: Lease, now: float) -> None:
        self._sight(now)
        for node in self._nodes_of.pop(lease.id, ()):
            del self._planned[node][lease.id]
            self._changed.add(node)
        plan = lease.plan
        if lease.ended or plan is None or plan.phase is not PlanPhase.BOOKED:
            return
        needed = dict(_needs(lease, self._images))
        for node, files in needed.items():
            self._planned.setdefault(node, {})[lease.id] = _Planned(plan.begin, files)
            self._changed.add(node)
            self._coming.setdefault((plan.begin - AHEAD_S) // _STEP_S + 1, set()).add(node)
        if needed:
            self._nodes_of[lease.id] = tuple(needed)

    def take_cache(self, cache: NodeCache) -> None:
        if cache.removed_at is None:
            self._caches[cache.id] = cache
            self._changed.add(cache.id)
        else:
            self._caches.pop(cache.id, None)

    def told(self, node: str, now: float) -> None:
        """A node has new orders, which say what is to be prefetched now."""
        self._told[node] = frozenset(file.sha256 for file in self.wanted(node, now))
        self._changed.discard(node)

    # ------------------------------------------------------------ what follows

    def wanted(self, node: str, now: float) -> tuple[ImageFile, ...]:
        """What a node is to have, the soonest first, each file once: of planned leases as much as its cache can hold;
        then what administrators asked for."""
        cache = self._caches.get(node) or NodeCache(node)
        found: dict[str, ImageFile] = {}
        room_bytes = cache.limit_bytes or 1 << 62
        within = (each for each in list(self._planned.get(node, {}).items()) if each[1].begin <= now + AHEAD_S)
        for _, planned in sorted(within, key=lambda each: (each[1].begin, each[0])):
            new = {file.sha256: file for file in planned.files if file.sha256 not in found}
            size_bytes = sum(file.sent_bytes for file in new.values())
            if size_bytes > room_bytes:
                break
            room_bytes -= size_bytes
            found.update(new)
        for task in cache.due:
            if task.kind is TaskKind.PREFETCH and (image := self._images.get(task.image)):
                found.update((file.sha256, file) for file in image.files if file.sha256 not in found)
        return tuple(found.values())

    def news(self, now: float) -> list[str]:
        """The nodes that are to be told anew."""
        self._sight(now)
        self._changed = {node for node in self._changed if self._is_news(node, now)}
        return sorted(self._changed)

    def _sight(self, now: float) -> None:
        """What comes within a day, looked at once in each step."""
        present = int(now // _STEP_S)
        if present != self._sighted:
            self._sighted = present
            for step in [step for step in self._coming if step <= present]:
                self._changed |= self._coming.pop(step)

    def _is_news(self, node: str, now: float) -> bool:
        wanted = frozenset(file.sha256 for file in self.wanted(node, now))
        cache = self._caches.get(node)
        return bool((wanted ^ self._told.get(node, frozenset())) - (cache.held if cache else frozenset()))


def _needs(lease: Lease, images: Mapping[str, Image]) -> Iterator[tuple[str, tuple[ImageFile, ...]]]:
    """By node of a lease's plan, the files that its members there need."""
    files = {group.name: files_of(group, images) for group in lease.groups}
    if lease.plan is None or not any(files.values()):
        return
    found: dict[str, dict[str, ImageFile]] = {}
    each = (group.name for group in lease.groups for _ in range(group.count))
    for name, node in zip(each, lease.plan.hosts, strict=True):
        if node and files[name]:
            found.setdefault(node, {}).update(files[name])
    for node, needed in found.items():
        yield node, tuple(needed.values())


def files_of(group: Group, images: Mapping[str, Image]) -> dict[str, ImageFile]:
    """By sha256, the files of a group's image and the disks of others that it shares, as far as they are on record."""
    image = images.get(group.image)
    shared = (images[disk.image].file_of(disk) for disk in group.disks if disk.image in images)
    files = (*(image.files if image else ()), *(file for file in shared if file is not None))
    return {file.sha256: file for file in files}
