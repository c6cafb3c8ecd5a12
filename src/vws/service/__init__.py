"""The shell around the core: find what is asked about, check who asks, decide, commit in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vws.core.errors import Unavailable
from vws.ports import Blobs, Clock, Ids, Store
from vws.service.access import Access
from vws.service.addresses import Addresses
from vws.service.caches import Caches
from vws.service.clusters import Clusters
from vws.service.contexts import Contexts
from vws.service.exports import Exports
from vws.service.flattening import Flattening
from vws.service.housekeeping import Housekeeper
from vws.service.image_lists import ImageLists
from vws.service.image_policy import PolicyBook
from vws.service.images import Images
from vws.service.keys import Keys
from vws.service.leases import Leases
from vws.service.maintenances import Maintenances
from vws.service.nodes import Nodes
from vws.service.plans import Plans
from vws.service.reconcile import Reconciler
from vws.service.saves import Saves
from vws.service.sealing import KeyRing, SiteKey
from vws.service.site import Settings, Site
from vws.service.trust import Trust
from vws.service.uploads import Uploads
from vws.service.usage import Usage


@dataclass(frozen=True)
class Services:
    """Everything that a front end calls."""

    site: Site
    access: Access
    leases: Leases
    images: Images
    nodes: Nodes
    reconciler: Reconciler
    maintenances: Maintenances
    usage: Usage
    plans: Plans
    contexts: Contexts
    exports: Exports
    image_lists: ImageLists
    clusters: Clusters
    addresses: Addresses
    image_policy: PolicyBook
    trust: Trust
    uploads: Uploads
    saves: Saves
    housekeeper: Housekeeper
    flattening: Flattening
    keys: Keys
    caches: Caches

    def health(self) -> dict[str, Any]:
        """{"status": "ok", ...}; raises Unavailable when a part that everything needs does not work."""
        if not self.reconciler.works:
            raise Unavailable("reports of nodes are not taken in: the reconciler ended", possible="restart the service")
        troubled = bool(self.image_policy.in_force.problem)
        warnings = ["the image policy in its file is not in force (vws image policy show)"] if troubled else []
        return self.site.health() | {"warnings": [*warnings, *self.trust.stale_crls(), *self.image_lists.warnings()]}


def build(store: Store, blobs: Blobs, clock: Clock, ids: Ids, settings: Settings, directory: Path) -> Services:
    """The services over a store; `directory` takes uploads and the kept consoles. Nothing runs yet."""
    site = Site(store, clock, ids, settings)
    contexts = Contexts(site, directory, settings.informed)
    ring = KeyRing(site, SiteKey(directory / "secrets" / "image-key", lambda: bool(store.keys_of())))
    images = Images(site, blobs, directory / "uploads", ring)
    vos = tuple(settings.chosen.membership.vos)
    policy = PolicyBook(settings.image_policy, directory / "image-policy.in-force", clock.now, vos)
    trust = Trust(site, policy, images.image)
    nodes = Nodes(site, blobs, directory / "consoles", contexts.order_of, trust.vouched)
    exports = Exports(site, images, directory / "exports")
    keys = Keys(site, ring, images, trust.vouched)
    uploads = Uploads(site, images, directory / "uploads")
    usage = Usage(site)
    image_lists = ImageLists(site, images, directory / "image-lists")
    leases = Leases(site, usage.spent_by_now, trust.recording)
    return Services(
        site,
        Access(site),
        leases,
        images,
        nodes,
        Reconciler(site, nodes, usage, lambda: _tidy(images, uploads, exports, keys)),
        Maintenances(site, nodes),
        usage,
        Plans(site),
        contexts,
        exports,
        image_lists,
        Clusters(site, contexts, usage, trust.recording),
        Addresses(site),
        policy,
        trust,
        uploads,
        Saves(site, images, leases, directory / "saves"),
        Housekeeper(site, images, image_lists),
        Flattening(site, images, exports),
        keys,
        Caches(site, nodes, images),
    )


def _tidy(images: Images, uploads: Uploads, exports: Exports, keys: Keys) -> None:
    images.tidy()
    uploads.expire()
    exports.converted.expire()
    keys.tidy()
