"""Sets of nodes by the planner's index, and which nodes hold which files of images.

The planner asks of one node at a time, whoever works out a lease's preparation of all of them at once: a `NodeSet`
answers both. `Holdings` keeps one for each file and each image that anybody asked about, right as nodes say what is in
their caches: a change costs what has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vws.core.caches import NodeCache
from vws.core.site import Image, ImageFile


class NodeSet:
    """Some of the nodes: by index for the planner, which asks of one node at a time; and as the bits of a number, for
    what is asked of all of them at once."""

    def __init__(self, each: list[bool]) -> None:
        self.each = each
        self._bits = sum(1 << index for index, is_in in enumerate(each) if is_in)

    def set(self, index: int, is_in: bool) -> None:
        self.each[index] = is_in
        bit = 1 << index
        self._bits = self._bits | bit if is_in else self._bits & ~bit

    def is_within(self, other: NodeSet) -> bool:
        return not self._bits & ~other._bits

    def meets(self, other: NodeSet) -> bool:
        return bool(self._bits & other._bits)


class Holdings:
    """Nodes are known by their index, from 0 on, in the order in which they were added."""

    def __init__(self) -> None:
        self._held: list[frozenset[str]] = []  # by node
        self._files: dict[str, NodeSet] = {}
        self._images: dict[str, tuple[frozenset[str], NodeSet]] = {}
        self._limits: dict[float, NodeSet] = {}  # by how many Mbit/s they fetch at most
        self.sizes: list[int] = []  # by node, what its cache can hold in bytes; 0: not known
        self.least_size = 0  # of the smallest cache; 0: none is known

    def add_node(self) -> None:
        self._held.append(frozenset())
        self.sizes.append(0)
        for nodes in self._files.values():
            nodes.each.append(False)
        for files, nodes in self._images.values():
            nodes.each.append(False)
            nodes.set(len(self._held) - 1, not files)
        for nodes in self._limits.values():
            nodes.each.append(False)

    def take(self, index: int, cache: NodeCache) -> None:
        """What a node says of its cache now."""
        before, after = self._held[index], cache.held
        self._held[index] = after
        changed = before ^ after
        for id in changed & self._files.keys():
            self._files[id].set(index, id in after)
        for files, nodes in self._images.values():
            if not changed.isdisjoint(files):
                nodes.set(index, files <= after)
        self._take_limit(index, cache.fetch_limit_mbit)
        self._take_size(index, cache.limit_bytes if cache.removed_at is None else 0)

    def _take_size(self, index: int, size: int) -> None:
        before, self.sizes[index] = self.sizes[index], size
        if before == self.least_size != size:
            self.least_size = min((each for each in self.sizes if each), default=0)
        elif size:
            self.least_size = min(size, self.least_size or size)

    def can_hold(self, index: int, size_bytes: int) -> bool:
        """Whether a node could ever have so much of images."""
        return not self.sizes[index] or size_bytes <= self.sizes[index]

    def _take_limit(self, index: int, limit_mbit: float) -> None:
        for known, nodes in self._limits.items():
            if nodes.each[index] and known != limit_mbit:
                nodes.set(index, False)
        if limit_mbit > 0:
            self._limits.setdefault(limit_mbit, NodeSet([False] * len(self._held))).set(index, True)

    def with_image(self, image: Image | None, id: str) -> NodeSet:
        """The nodes that hold all of an image; kept right from now on. None: of one that nobody knows, none."""
        found = self._images.get(id)
        if found is None:
            if image is None:
                return NodeSet([False] * len(self._held))
            files = frozenset(file.sha256 for file in image.files)
            found = self._images[id] = files, NodeSet([files <= held for held in self._held])
        return found[1]

    def missing(self, files: Mapping[str, ImageFile], where: NodeSet) -> Iterable[ImageFile]:
        """Those of some files, by sha256, that one of these nodes at least has to fetch."""
        return [file for id, file in files.items() if not where.is_within(self._with_file(id))]

    def _with_file(self, id: str) -> NodeSet:
        found = self._files.get(id)
        if found is None:
            found = self._files[id] = NodeSet([id in held for held in self._held])
        return found

    def slowest_mbit(self, where: NodeSet) -> float:
        """The lowest limit under which one of these nodes fetches; 0: none has any."""
        return min((limit for limit, nodes in self._limits.items() if nodes.meets(where)), default=0.0)
