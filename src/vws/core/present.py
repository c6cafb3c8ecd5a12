"""What is alive at a site now, indexed: the values that decisions are made from, and the site's plan.

Mutable, and moved by `apply`, with `Changes` that the store has taken. Only the plan
(core/outlook.py) moves with a decision that is being made; when that decision is not
committed, `plan_anew` makes it again from what is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from typing import TypeVar

from vws.core.caches import NodeCache
from vws.core.image_policy import Judge, everything_allowed
from vws.core.outlook import Outlook
from vws.core.outstanding import Outstanding
from vws.core.pools import Pool
from vws.core.prefetch import Prefetches
from vws.core.site import (
    Address,
    Changes,
    Cluster,
    Image,
    ImageTag,
    Lease,
    Maintenance,
    Node,
    Revocation,
    Save,
    Signer,
    Subscription,
    Token,
    Workspace,
)
from vws.core.spans import show_duration

T = TypeVar("T")


def _none(workspace: Workspace) -> str:
    return ""


class Present:
    """Live leases, unreleased workspaces, nodes, images, their tags, tokens, maintenances, clusters and addresses of
    pools by id; the plan; and the site's pools by name."""

    def __init__(self, outlook: Outlook | None = None, pools: Mapping[str, Pool] | None = None) -> None:
        self.leases: dict[str, Lease] = {}
        self.workspaces: dict[str, Workspace] = {}
        self.nodes: dict[str, Node] = {}
        self.images: dict[str, Image] = {}
        self.image_tags: dict[str, ImageTag] = {}
        self.signers: dict[str, Signer] = {}  # the revoked ones too: what they signed is refused in their name
        self.revocations: dict[str, Revocation] = {}  # by digest
        self.subscriptions: dict[str, Subscription] = {}
        self.judge: Judge = everything_allowed
        self.boot_refusal: Callable[[Workspace], str] = _none  # why it may not boot any more
        self.tokens: dict[str, Token] = {}
        self.maintenances: dict[str, Maintenance] = {}
        self.clusters: dict[str, Cluster] = {}
        self.addresses: dict[str, Address] = {}
        self.saves: dict[str, Save] = {}
        self.caches: dict[str, NodeCache] = {}
        self.prefetches = Prefetches(self.images)
        self.pools = pools or {}
        self.outlook = outlook or Outlook()
        self._members: dict[str, dict[str, Workspace]] = {}
        self._on_node: dict[str, dict[str, Workspace]] = {}
        self._addresses: dict[str, set[str]] = {}
        self._closing: dict[str, dict[str, Maintenance]] = {}
        self._of_cluster: dict[str, dict[str, Lease]] = {}
        self._of_pool: dict[str, dict[str, Address]] = {}
        self._held_by: dict[str, dict[str, Address]] = {}
        self._lease_names: dict[str, str] = {}
        self._listed: dict[str, set[str]] = {}
        self._tagged: dict[tuple[str, str], str] = {}
        self._tags: dict[str, dict[str, ImageTag]] = {}
        self.outstanding = Outstanding()
        self._ends: list[tuple[int, str]] = []  # of hard leases, those that are over by now or soon first

    @classmethod
    def of(cls, changes: Changes) -> Present:
        present = cls()
        present.apply(changes)
        return present

    def plan_anew(self, now: float = 0) -> None:
        """Make the plan from the record: what a decision did to it was not committed."""
        self.outlook = self.outlook.blank()
        changes = Changes(
            leases=tuple(self.leases.values()),
            nodes=tuple(self.nodes.values()),
            maintenances=tuple(self.maintenances.values()),
            caches=tuple(self.caches.values()),
        )
        self.outlook.apply(changes, self, int(now))

    def members(self, lease: str) -> list[Workspace]:
        """The workspaces of a live lease, released ones too, in their order."""
        return sorted(self._members.get(lease, {}).values(), key=lambda w: w.id)

    def leases_of_cluster(self, id: str) -> list[Lease]:
        """The live leases of a cluster, in their order."""
        return sorted(self._of_cluster.get(id, {}).values(), key=lambda lease: lease.id)

    def addresses_of_pool(self, pool: str) -> list[Address]:
        """Those that are reserved or held."""
        return list(self._of_pool.get(pool, {}).values())

    def addresses_of_cluster(self, id: str) -> list[Address]:
        """Those of pools that its members hold."""
        return list(self._held_by.get(id, {}).values())

    def on_node(self, node: str) -> list[Workspace]:
        """The workspaces that a node has not yet released."""
        return list(self._on_node.get(node, {}).values())

    def saves_on(self, node: str) -> list[Save]:
        """Those that a node is to take, in their order."""
        return sorted((save for save in list(self.saves.values()) if save.node == node), key=lambda save: save.id)

    def maintenances_of(self, node: str) -> list[Maintenance]:
        """Those of a node that are not over or removed, by their start."""
        return sorted(self._closing.get(node, {}).values(), key=lambda each: (each.start, each.id))

    def closed(self, node: str, start: int, end: int, *, now: int) -> str:
        """Why a node may run nothing at some instant of [start, end), in words; "" if it may."""
        for window in self.maintenances_of(node):
            if window.meets(start, end):
                begins = f"begins in {show_duration(window.start - now)}" if window.start > now else "is on"
                return f"a maintenance ({window.reason}) {begins}"
        return ""

    def lease_named(self, name: str) -> Lease | None:
        found = self._lease_names.get(name)
        return self.leases.get(found) if found else None

    def tagged(self, name: str, tag: str) -> ImageTag | None:
        found = self._tagged.get((name, tag))
        return self.image_tags.get(found) if found else None

    def tags_of(self, image: str) -> list[ImageTag]:
        """The live tags that point at an image, by name and tag."""
        return sorted(self._tags.get(image, {}).values(), key=lambda tag: (tag.name, tag.tag))

    def over_by(self, now: float) -> list[Lease]:
        """Live leases that were granted for a time which has ended."""
        found: dict[str, Lease] = {}
        while self._ends and self._ends[0][0] <= now:
            end, id = heappop(self._ends)
            lease = self.leases.get(id)
            if lease is not None and lease.end == end:
                found[id] = lease
        for lease in found.values():
            heappush(self._ends, (lease.run[1], lease.id))
        return list(found.values())

    def listing(self, image: str) -> list[Subscription]:
        """The subscriptions to lists that an image was fetched from."""
        return [self.subscriptions[id] for id in self._listed.get(image, ())]

    def _apply_subscription(self, subscription: Subscription) -> None:
        _keep(self.subscriptions, subscription.id, subscription, alive=subscription.removed_at is None)
        for listed in subscription.images:
            if subscription.removed_at is None and listed.image:
                self._listed.setdefault(listed.image, set()).add(subscription.id)
            else:
                self._listed.get(listed.image, set()).discard(subscription.id)

    def addresses_held(self, node: str) -> set[str]:
        return self._addresses.get(node, set())

    def cache_of(self, node: str) -> NodeCache:
        """A node's cache as it was last told; an empty one of a node that has said nothing."""
        return self.caches.get(node) or NodeCache(node)

    def apply(self, changes: Changes, now: float = 0) -> None:
        """Move to the state after `changes`, at `now` (UTC seconds; 0 is long ago). What has ended is forgotten; the
        store keeps it."""
        reordered = [node.id for node in changes.nodes if self._has_new_orders(node)]
        for node in changes.nodes:
            self._apply_node(node)
        for image in changes.images:
            _keep(self.images, image.id, image, alive=image.removed_at is None)
        for tag in changes.image_tags:
            _keep(self.image_tags, tag.id, tag, alive=tag.removed_at is None)
            _keep(self._tags.setdefault(tag.image, {}), tag.id, tag, alive=tag.removed_at is None)
            if tag.removed_at is None:
                self._tagged[tag.name, tag.tag] = tag.id
        for signer in changes.signers:
            self.signers[signer.id] = signer
        for revocation in changes.revocations:
            _keep(self.revocations, revocation.digest, revocation, alive=revocation.lifted_at is None)
        for subscription in changes.subscriptions:
            self._apply_subscription(subscription)
        for token in changes.tokens:
            _keep(self.tokens, token.id, token, alive=token.revoked_at is None)
        for maintenance in changes.maintenances:
            alive = maintenance.removed_at is None
            _keep(self.maintenances, maintenance.id, maintenance, alive=alive)
            _keep(self._closing.setdefault(maintenance.node, {}), maintenance.id, maintenance, alive=alive)
        for cluster in changes.clusters:
            _keep(self.clusters, cluster.id, cluster, alive=cluster.ended_at is None)
            if cluster.ended_at is not None:
                self._of_cluster.pop(cluster.id, None)
        for address in changes.addresses:
            self._apply_address(address)
        for save in changes.saves:
            _keep(self.saves, save.id, save, alive=save.ended_at is None)
        for cache in changes.caches:
            _keep(self.caches, cache.id, cache, alive=cache.removed_at is None)
            self.prefetches.take_cache(cache)
        for lease in changes.leases:
            self._apply_lease(lease)
            self.prefetches.take_lease(lease, now)
        for id in reordered:
            self.prefetches.told(id, now)
        for workspace in changes.workspaces:
            self._apply_workspace(workspace)
        self.outlook.apply(changes, self, int(now))
        # A lease ends in the same batch as its last workspace: forget both together.
        self._forget_ended(changes.leases)

    def _has_new_orders(self, node: Node) -> bool:
        """Since this process knows of it: what a node was told before is not known."""
        before = self.nodes.get(node.id)
        return before is not None and before.generation != node.generation

    def _apply_node(self, node: Node) -> None:
        _keep(self.nodes, node.id, node, alive=node.removed_at is None)

    def _apply_address(self, address: Address) -> None:
        before = self.addresses.get(address.id)
        if before is not None and before.cluster != address.cluster:
            _keep(self._held_by[before.cluster], address.id, address, alive=False) if before.cluster else None
        alive = address.released_at is None
        _keep(self.addresses, address.id, address, alive=alive)
        _keep(self._of_pool.setdefault(address.pool, {}), address.id, address, alive=alive)
        if address.cluster:
            _keep(self._held_by.setdefault(address.cluster, {}), address.id, address, alive=alive)

    def _apply_lease(self, lease: Lease) -> None:
        before = self.leases.get(lease.id)
        self.leases[lease.id] = lease
        self.outstanding.put(lease)
        if lease.end is not None and not lease.kind.soft and (before is None or before.end != lease.end):
            heappush(self._ends, (lease.end, lease.id))
        self._lease_names[lease.name] = lease.id
        if lease.cluster:
            self._of_cluster.setdefault(lease.cluster, {})[lease.id] = lease

    def _apply_workspace(self, workspace: Workspace) -> None:
        self._members.setdefault(workspace.lease, {})[workspace.id] = workspace
        if workspace.released_at is None:
            self._hold(workspace)
        else:
            self._release(workspace)

    def _hold(self, workspace: Workspace) -> None:
        self.workspaces[workspace.id] = workspace
        self._on_node.setdefault(workspace.node, {})[workspace.id] = workspace
        self._addresses.setdefault(workspace.node, set()).update(workspace.own_addresses)

    def _release(self, workspace: Workspace) -> None:
        if self.workspaces.pop(workspace.id, None) is None:
            return
        self._on_node[workspace.node].pop(workspace.id)
        self._addresses[workspace.node].difference_update(workspace.own_addresses)

    def _forget_ended(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            if lease.ended:
                self.leases.pop(lease.id, None)
                self._members.pop(lease.id, None)
                self._of_cluster.get(lease.cluster, {}).pop(lease.id, None)
                if self._lease_names.get(lease.name) == lease.id:
                    del self._lease_names[lease.name]


def _keep(table: dict[str, T], key: str, value: T, *, alive: bool) -> None:
    if alive:
        table[key] = value
    else:
        table.pop(key, None)
