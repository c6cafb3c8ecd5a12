"""A decision in the making: what is present, overlaid with what was decided so far.

A decision may have consequences (a failed member ends its lease, which ends the
other members), each seeing the ones before it. A `Draft` is where they gather;
`changes` gives them as one batch. The present itself is not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vws.core.caches import NodeCache
from vws.core.lifecycle import Desired, State
from vws.core.present import Present
from vws.core.site import (
    Address,
    Changes,
    Cluster,
    Document,
    Event,
    Image,
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


class Draft:
    """`actor`: who asked (a user's name, a node's id, or "site"); `now`: UTC seconds."""

    def __init__(self, present: Present, *, actor: str, now: float) -> None:
        self.present = present
        self.actor = actor
        self.now = now
        self._leases: dict[str, Lease] = {}
        self._workspaces: dict[str, Workspace] = {}
        self._nodes: dict[str, Node] = {}
        self._images: dict[str, Image] = {}
        self._tokens: dict[str, Token] = {}
        self._maintenances: dict[str, Maintenance] = {}
        self._clusters: dict[str, Cluster] = {}
        self._image_tags: dict[str, ImageTag] = {}
        self._documents: list[Document] = []
        self._dropped_documents: list[str] = []
        self._signers: dict[str, Signer] = {}
        self._revocations: dict[str, Revocation] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._addresses: dict[str, Address] = {}
        self._saves: dict[str, Save] = {}
        self._keys: list[SealedKey] = []
        self._caches: dict[str, NodeCache] = {}
        self._events: list[Event] = []
        self._reordered: set[str] = set()

    @property
    def changes(self) -> Changes:
        return Changes(
            tuple(self._leases.values()),
            tuple(self._workspaces.values()),
            tuple(self._nodes.values()),
            tuple(self._images.values()),
            tuple(self._tokens.values()),
            tuple(self._events),
            maintenances=tuple(self._maintenances.values()),
            clusters=tuple(self._clusters.values()),
            image_tags=tuple(self._image_tags.values()),
            documents=tuple(self._documents),
            signers=tuple(self._signers.values()),
            revocations=tuple(self._revocations.values()),
            subscriptions=tuple(self._subscriptions.values()),
            addresses=tuple(self._addresses.values()),
            saves=tuple(self._saves.values()),
            keys=tuple(self._keys),
            caches=tuple(self._caches.values()),
            dropped_documents=tuple(self._dropped_documents),
        )

    # ------------------------------------------------------------ reading

    def lease(self, id: str) -> Lease:
        return self._leases.get(id) or self.present.leases[id]

    def find_lease(self, id: str) -> Lease | None:
        """A lease that has not been forgotten."""
        return self._leases.get(id) or self.present.leases.get(id)

    def leases(self) -> list[Lease]:
        """All that have not been forgotten, as they are by now."""
        return list((self.present.leases | self._leases).values())

    def changed_leases(self) -> list[Lease]:
        """Those that have been decided on so far."""
        return list(self._leases.values())

    def cluster(self, id: str) -> Cluster:
        return self._clusters.get(id) or self.present.clusters[id]

    def find_cluster(self, id: str) -> Cluster | None:
        """One that has not been forgotten."""
        return self._clusters.get(id) or self.present.clusters.get(id)

    def addresses_of_pool(self, pool: str) -> list[Address]:
        """Those that are reserved or held by now."""
        return self._as_by_now(self.present.addresses_of_pool(pool), lambda address: address.pool == pool)

    def addresses_of_cluster(self, id: str) -> list[Address]:
        """Those of pools that its members hold by now."""
        return self._as_by_now(self.present.addresses_of_cluster(id), lambda address: address.cluster == id)

    def _as_by_now(self, present: list[Address], wanted: Callable[[Address], bool]) -> list[Address]:
        found = {address.id: address for address in present} | self._addresses
        return [address for address in found.values() if wanted(address) and address.released_at is None]

    def addresses_in(self, network: str, cluster: str) -> set[str]:
        """Those in a network of a cluster that are held by its workspaces."""
        held: set[str] = set()
        for lease in self.leases_of_cluster(cluster):
            for workspace in self.members(lease.id):
                if workspace.released_at is None:
                    held.update(nic.address for nic in workspace.nics if nic.network == network)
        return held

    def leases_of_cluster(self, id: str) -> list[Lease]:
        """Those that have not been forgotten, the one of its launch first."""
        found = {lease.id: lease for lease in self.present.leases_of_cluster(id)}
        found.update((lease.id, lease) for lease in self._leases.values() if lease.cluster == id)
        return sorted(found.values(), key=lambda lease: lease.id)

    def addresses_held(self, node: str) -> set[str]:
        """Those of all workspaces that the node has not released, and of those it is about to get."""
        mine = (w for w in self._workspaces.values() if w.node == node and w.released_at is None)
        return self.present.addresses_held(node).union(*(w.own_addresses for w in mine))

    def tags_of(self, image: str) -> list[ImageTag]:
        """The tags that will point at an image, by name and tag."""
        tags = (self.present.image_tags | self._image_tags).values()
        found = [tag for tag in tags if tag.image == image and tag.removed_at is None]
        return sorted(found, key=lambda tag: (tag.name, tag.tag))

    def node(self, id: str) -> Node:
        return self._nodes.get(id) or self.present.nodes[id]

    def members(self, lease: str) -> list[Workspace]:
        merged = {w.id: w for w in self.present.members(lease)}
        merged.update((w.id, w) for w in self._workspaces.values() if w.lease == lease)
        return sorted(merged.values(), key=lambda w: w.id)

    @property
    def touched_leases(self) -> list[str]:
        """Ids of the leases that this draft changes or whose workspaces it changes."""
        return sorted({w.lease for w in self._workspaces.values()} | self._leases.keys())

    # ------------------------------------------------------------ deciding

    def put_lease(self, lease: Lease) -> Lease:
        self._leases[lease.id] = lease
        return lease

    def put_node(self, node: Node) -> Node:
        self._nodes[node.id] = node
        return node

    def put_image(self, image: Image) -> Image:
        self._images[image.id] = image
        return image

    def put_image_tag(self, tag: ImageTag) -> ImageTag:
        self._image_tags[tag.id] = tag
        return tag

    def add_document(self, document: Document) -> Document:
        """Keep it beside its image, which is written with it: whoever remembers what is said of an image sees by that
        that there is more."""
        self._documents.append(document)
        self._see_again(document.image)
        return document

    def drop_document(self, document: Document) -> Document:
        self._dropped_documents.append(document.id)
        self._see_again(document.image)
        return document

    def _see_again(self, id: str) -> None:
        image = self.present.images.get(id)
        if image is not None:
            self._images.setdefault(image.id, replace(image))

    def add_key(self, key: SealedKey) -> SealedKey:
        self._keys.append(key)
        return key

    def put_signer(self, signer: Signer) -> Signer:
        self._signers[signer.id] = signer
        return signer

    def put_revocation(self, revocation: Revocation) -> Revocation:
        self._revocations[revocation.id] = revocation
        return revocation

    def put_subscription(self, subscription: Subscription) -> Subscription:
        self._subscriptions[subscription.id] = subscription
        return subscription

    def put_token(self, token: Token) -> Token:
        self._tokens[token.id] = token
        return token

    def put_maintenance(self, maintenance: Maintenance) -> Maintenance:
        self._maintenances[maintenance.id] = maintenance
        return maintenance

    def put_cluster(self, cluster: Cluster) -> Cluster:
        self._clusters[cluster.id] = cluster
        return cluster

    def put_address(self, address: Address) -> Address:
        self._addresses[address.id] = address
        return address

    def put_workspace(self, workspace: Workspace) -> Workspace:
        """Keep what was seen of a workspace; its node is told nothing new."""
        self._workspaces[workspace.id] = workspace
        return workspace

    def order(self, workspace: Workspace) -> Workspace:
        """Keep a workspace whose node is to be told: new, changed or left out. Numbers the node's new orders."""
        return self.put_workspace(replace(workspace, generation=self._renumber(workspace.node).generation))

    def put_save(self, save: Save) -> Save:
        """Keep it; its node is told."""
        if save.node in self.present.nodes:
            self._renumber(save.node)
        self._saves[save.id] = save
        return save

    def cache(self, node: str) -> NodeCache:
        return self._caches.get(node) or self.present.cache_of(node)

    def put_cache(self, cache: NodeCache) -> NodeCache:
        """Keep it; its node is told if there is more, or less, to be done."""
        if cache.due != self.cache(cache.id).due and cache.id in self.present.nodes:
            self._renumber(cache.id)
        self._caches[cache.id] = cache
        return cache

    def renew_orders(self, node: str) -> None:
        """Something changed for a node that is not kept with it."""
        self._renumber(node)

    def _renumber(self, id: str) -> Node:
        """The node, whose orders are new ones."""
        node = self.node(id)
        if node.id not in self._reordered:
            self._reordered.add(node.id)
            node = self.put_node(replace(node, generation=node.generation + 1))
        return node

    def move(
        self, workspace: Workspace, state: State, reason: str, *, desired: Desired | None = None, **data: Any
    ) -> Workspace:
        """The workspace in another state, with the event that says so; the caller keeps it by `order` or `put`.

        The event has all that core/stopwatch.py learns by; `data`: what is known beside.
        """
        after = replace(
            workspace,
            state=state,
            reason=reason,
            step="",
            changed_at=self.now,
            desired=desired or workspace.desired,
        )
        sizes = {"hypervisor": self.node(workspace.node).hypervisor, "memory_mib": workspace.memory_mib}
        self.say_workspace(f"workspace.{state}", after, before=str(workspace.state), reason=reason, **sizes, **data)
        return after

    # ------------------------------------------------------------ recording

    def say(self, kind: str, *, owner: str = "", lease: str = "", node: str = "", image: str = "", **data: Any) -> None:
        self._events.append(Event(self.now, self.actor, kind, owner, lease, node=node, image=image, data=data))

    def say_lease(self, kind: str, lease: Lease, **data: Any) -> None:
        self._events.append(
            Event(self.now, self.actor, kind, lease.owner, lease=lease.id, data={"name": lease.name} | data)
        )

    def say_workspace(self, kind: str, workspace: Workspace, **data: Any) -> None:
        self._events.append(
            Event(
                self.now,
                self.actor,
                kind,
                workspace.owner,
                lease=workspace.lease,
                workspace=workspace.id,
                node=workspace.node,
                image=workspace.image,
                data={"name": workspace.name} | data,
            )
        )
