"""Nodes' image caches: what is in them and who uses it, and what administrators have fetched or cleared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vws.core.cache_tasks import ask_clear, ask_prefetch
from vws.core.caches import CacheTask, NodeCache
from vws.core.draft import Draft
from vws.core.errors import NotFound
from vws.core.image_names import show_tag
from vws.core.lifecycle import UNORDERED
from vws.core.prefetch import files_of
from vws.core.site import Answer, Image, Node, Role
from vws.ports import Filter, Page
from vws.service.access import Caller
from vws.service.images import Images
from vws.service.nodes import Nodes
from vws.service.once import Once
from vws.service.site import Site


@dataclass(frozen=True)
class Uses:
    """By sha256: what images a file is of, which workspaces and saves on the node use it, and what is wanted there."""

    images: dict[str, list[str]]
    users: dict[str, list[str]]
    wanted: frozenset[str]


class Caches:
    def __init__(self, site: Site, nodes: Nodes, images: Images) -> None:
        self._site = site
        self._nodes = nodes
        self._images = images

    def cache(self, caller: Caller, node: str) -> NodeCache:
        """By the node's id or name; an empty one of a node that has said nothing yet."""
        caller.must_be(Role.ADMIN)
        return self._site.present.cache_of(self._nodes.node(caller, node).id)

    def all(self, caller: Caller, *, after: str | None, limit: int) -> Page:
        caller.must_be(Role.ADMIN)
        return self._site.store.page(NodeCache, Filter(live=True), after=after, limit=limit)

    def uses(self, cache: NodeCache) -> Uses:
        with self._site.lock:
            present = self._site.present
            here = {file.sha256 for file in cache.files}
            images: dict[str, list[str]] = {}
            for image in present.images.values():
                tags = present.tags_of(image.id) if here & {file.sha256 for file in image.files} else []
                name = show_tag(tags[0].name, tags[0].tag) if tags else image.id
                for file in image.files:
                    images.setdefault(file.sha256, []).append(name)
            wanted = present.prefetches.wanted(cache.id, self._site.clock.now())
            return Uses(images, self._users(cache.id), frozenset(file.sha256 for file in wanted))

    def _users(self, node: str) -> dict[str, list[str]]:
        present, users = self._site.present, dict[str, list[str]]()
        for workspace in present.on_node(node):
            lease = present.leases.get(workspace.lease)
            groups = [group for group in lease.groups if group.name == workspace.group] if lease else []
            for group in groups if workspace.state not in UNORDERED or workspace.came_up else ():
                for sha256 in files_of(group, present.images):
                    users.setdefault(sha256, []).append(workspace.name)
        for save in present.saves_on(node):
            for file in present.images[save.base].chain if save.base in present.images else ():
                users.setdefault(file.sha256, []).append(f"the save of {save.name}")
        return users

    def node_name(self, cache: NodeCache) -> str:
        node = self._site.present.nodes.get(cache.id)
        return node.name if node else cache.id

    # ------------------------------------------------------------ asking

    def prefetch(self, caller: Caller, node: str, image: str, once: Once | None = None) -> CacheTask | Answer:
        """Have an image in a node's cache, now. Raises Conflict for one that can never be there."""
        caller.must_be(Role.ADMIN)
        found = self._images.image(caller, image)
        return self._ask(caller, node, lambda draft, id, at: ask_prefetch(draft, id, at, found, image), once)

    def clear(self, caller: Caller, node: str, image: str | None, once: Once | None = None) -> CacheTask | Answer:
        """Drop an image, or all that is unused, from a node's cache; what is used stays."""
        caller.must_be(Role.ADMIN)
        found: Image | None = self._images.image(caller, image) if image else None
        return self._ask(caller, node, lambda draft, id, at: ask_clear(draft, id, at, found, image or ""), once)

    def _ask(
        self, caller: Caller, name: str, ask: Callable[[Draft, str, Node], CacheTask], once: Once | None
    ) -> CacheTask | Answer:
        id = self._nodes.node(caller, name).id

        def decide(draft: Draft) -> CacheTask:
            node = draft.present.nodes.get(id)
            if node is None:
                raise NotFound("the node was removed", field="id", asked=name[:60], possible="vws node list")
            return ask(draft, self._site.ids.new("cac"), node)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)
