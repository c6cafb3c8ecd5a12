"""Small sites to decide about, in as few words as a test wants to read."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

from vws.core import agreement
from vws.core.caches import CacheContents, CachedFile, FileState
from vws.core.chosen import Chosen
from vws.core.deployment import NodeReport, WorkspaceFact
from vws.core.draft import Draft
from vws.core.enactment import advance, settle_plan
from vws.core.lifecycle import UNORDERED, Observation
from vws.core.outlook import Outlook
from vws.core.present import Present
from vws.core.site import Capacity, Changes, Image, ImageFile, ImageTag, Lease, Node
from vws.core.standing import absorb, expire
from vws.core.terms import GroupRequest, LeaseRequest

NOW = 1_800_000_000.0


def image(name: str = "demo", **fields: object) -> Image:
    given = {"size_bytes": 1, "boot": "direct", "files": (), "shared": ("public",)} | fields
    return Image(f"img-{name}", name, "admin", "00" * 32, **given)


def file(name: str, mib: int = 100, role: str = "disk", **fields: object) -> ImageFile:
    return ImageFile(role, hashlib.sha256(name.encode()).hexdigest(), mib << 20, "qcow2", **fields)


def cached(*files: ImageFile, state: FileState = FileState.COMPLETE, **fields: object) -> CacheContents:
    """What a node says that has all of these."""
    held = tuple(CachedFile(each.sha256, state, each.role, each.size_bytes) for each in files)
    return CacheContents(files=held, **fields)


def node(number: int, cpus: int = 4, memory_mib: int = 4096, disk_mib: int = 100_000, **fields: object) -> Node:
    given = {"sequence": 1} | fields
    capacity = Capacity(
        cpus, memory_mib, disk_mib, cpu_ratio=given.pop("cpu_ratio", 1.0), overhead_mib=given.pop("overhead_mib", 0)
    )
    return Node(f"nod-{number:03d}", f"n{number}", f"10.64.{number}.0/24", NOW, capacity, **given)


def ids() -> Callable[[str], str]:
    counter = itertools.count(1)
    return lambda prefix: f"{prefix}-{next(counter):06d}"


def tag(image: Image) -> ImageTag:
    """Its name, as latest."""
    return ImageTag(f"tag-{image.id[4:]}", image.name, "latest", image.id, image.owner, NOW)


class World:
    """A present that decisions are applied to at once, with a clock that the test turns."""

    def __init__(self, *nodes: Node, images: tuple[Image, ...] = (), chosen: Chosen | None = None) -> None:
        self.now = NOW
        self.ids = ids()
        images = images or (image(),)
        self.history = Changes(nodes=nodes, images=images, image_tags=tuple(map(tag, images)))
        self.present = Present(Outlook(chosen=chosen))
        self.present.apply(self.history)

    def decide(
        self, decision: Callable[..., object], *arguments: object, actor: str = "ann", **options: object
    ) -> object:
        draft = Draft(self.present, actor=actor, now=self.now)
        try:
            result = decision(draft, *arguments, **options)
            settle_plan(draft, self.ids)
        except BaseException:
            self.present.plan_anew(self.now)
            raise
        self.apply(draft.changes)
        return result

    def apply(self, changes: Changes) -> None:
        self.history += changes
        self.present.apply(changes, self.now)

    def tick(self, seconds: float = 0) -> None:
        """Time passes, and the plan goes on."""
        self.now += seconds
        self.decide(expire)
        self.decide(advance, self.ids)

    def cpus_held(self, node_id: str) -> int:
        return sum(w.cpus for w in self.present.on_node(node_id))

    def grant(
        self,
        *groups: GroupRequest,
        duration_s: int = 600,
        name: str | None = None,
        owner: str = "ann",
        **terms: object,
    ) -> Lease:
        lease = self.decide_grant(*groups, duration_s=duration_s, name=name, owner=owner, **terms)
        assert isinstance(lease, Lease)
        return lease

    def decide_grant(
        self,
        *groups: GroupRequest,
        duration_s: int = 600,
        name: str | None = None,
        owner: str = "ann",
        **terms: object,
    ) -> Lease | agreement.Series:
        request = LeaseRequest(groups or (GroupRequest("demo"),), duration_s, name, **terms)
        return self.decide(agreement.grant, request, owner=owner, ids=self.ids)

    def lease(self, id: str) -> Lease:
        return {lease.id: lease for lease in self.history.leases}[id]

    def members(self, lease: Lease):
        return [w for w in self.history.workspaces if w.lease == lease.id]

    def report(
        self,
        node_id: str,
        *facts: WorkspaceFact,
        generation: int | None = None,
        cache: CacheContents | None = None,
    ) -> None:
        node = self.present.nodes[node_id]
        number = node.generation if generation is None else generation
        report = NodeReport(
            node_id, "inst", 1, 2, number, self.now, node.capacity, node.hypervisor, workspaces=facts, cache=cache
        )
        self.decide(absorb, report, actor=node_id)

    def obey(self, state: Observation = Observation.RUNNING) -> None:
        """Every node does what it is told, at once, and reports `state` of all that it should have."""
        for node in list(self.present.nodes.values()):
            ordered = [w for w in self.present.on_node(node.id) if w.state not in UNORDERED]
            self.report(node.id, *(WorkspaceFact(w.id, state, boots=w.boots) for w in ordered))
