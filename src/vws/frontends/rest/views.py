"""Values as the REST API shows them: plain dicts, written once here for answers, listings and kept answers.

A workspace shows its node's and its image's names too. Both never change and ids are never reused, so what was
looked up once is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from vws.core.agreement import Series
from vws.core.draft import Draft
from vws.core.image_names import show_tag
from vws.core.image_origin import is_told, revocation_of, told, why_revoked
from vws.core.manifest import digest
from vws.core.present import Present
from vws.core.site import Document, Event, Image, ImageTag, Lease, Maintenance, Node, PlanPhase, Token, Workspace
from vws.core.subscriptions import why_not_listed
from vws.core.wire import to_json
from vws.service import Services
from vws.service.access import Caller

Json = dict[str, Any]


def _image(image: Image, tags: Iterable[ImageTag], present: Present, now: float) -> Json:
    shown: Json = to_json(image)
    names = [show_tag(tag.name, tag.tag) for tag in tags]
    shown |= {"digest": digest(image), "encrypted": image.encrypted, "tags": names}
    shown["origins"] = [to_json(origin) for origin in told(image)]
    return shown | {"revoked": _revoked(image, present), "withdrawn": why_not_listed(present, image, now)}


def _revoked(image: Image, present: Present) -> Json | None:
    made = revocation_of(present, image)
    if made is None:
        return None
    shown = {name: getattr(made, name) for name in ("reason", "by", "name", "digest")}
    hidden = {} if is_told(made, image) else {"name": "", "digest": ""}
    return shown | hidden | {"since": made.made_at, "why": why_revoked(made, image)}


def json_text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


class Views:
    def __init__(self, services: Services) -> None:
        self._services = services
        self.node_name = lru_cache(4096)(self._find_node_name)
        self._login = lru_cache(4096)(self._find_login)

    def _find_node_name(self, id: str) -> str:
        site = self._services.site
        node = site.present.nodes.get(id) or site.store.get(Node, id)
        return node.name if node else ""

    def _find_login(self, id: str) -> str:
        site = self._services.site
        image = site.present.images.get(id) or site.store.get(Image, id)
        return image.user if image else ""

    # ------------------------------------------------------------ leases

    def lease(self, lease: Lease) -> Json:
        return self._lease(lease, self._services.leases.members(lease.id))

    def granted(self, granted: Lease | Series) -> Json:
        if isinstance(granted, Lease):
            return self.lease(granted)
        return self._series(granted, [self.lease(lease) for lease in granted.leases])

    def granted_in(self, granted: Lease | Series, draft: Draft) -> Json:
        """The same as it will be once the draft is committed."""
        if isinstance(granted, Lease):
            return self.lease_in(granted, draft)
        return self._series(granted, [self.lease_in(lease, draft) for lease in granted.leases])

    def _series(self, series: Series, leases: list[Json]) -> Json:
        return {"series": series.id, "leases": leases, "skipped": [asdict(each) for each in series.skipped]}

    def _planned_nodes(self, lease: Lease) -> list[str]:
        if lease.plan is None or lease.plan.phase is not PlanPhase.BOOKED:
            return []
        return [self.node_name(node) for node in lease.plan.hosts]

    def lease_in(self, lease: Lease, draft: Draft) -> Json:
        """The lease as it will be once the draft is committed."""
        return self._lease(lease, draft.members(lease.id) or self._services.leases.members(lease.id))

    def _lease(self, lease: Lease, members: Iterable[Workspace]) -> Json:
        return {
            "id": lease.id,
            "name": lease.name,
            "owner": lease.owner,
            "kind": str(lease.kind),
            "state": str(lease.state),
            "reason": lease.reason,
            "start": lease.start,
            "end": lease.end,
            "duration_s": lease.duration_s,
            "deadline": lease.deadline,
            "urgent": lease.urgent,
            "preemptible": lease.preemptible,
            "restartable": lease.restartable,
            "command": lease.command,
            "series": lease.series,
            "created_at": lease.created_at,
            "submitted_at": lease.submitted_at,
            "begun_at": lease.begun_at,
            "active_at": lease.active_at,
            "ended_at": lease.ended_at,
            "worked_s": lease.worked_s,
            "suspensions": lease.suspensions,
            "migrations": lease.migrations,
            "restarts": lease.restarts,
            "planned_start": lease.planned_start,
            "planned_end": lease.planned_end,
            "gives_way_at": lease.gives_way_at,
            "planned_nodes": self._planned_nodes(lease),
            "groups": [asdict(group) for group in lease.groups],
            "workspaces": [self.workspace(w) for w in members],
        }

    def workspace(self, w: Workspace) -> Json:
        return {
            "id": w.id,
            "name": w.name,
            "lease": w.lease,
            "owner": w.owner,
            "group": w.group,
            "state": str(w.state),
            "reason": w.reason,
            "step": w.step,
            "node": w.node,
            "node_name": self.node_name(w.node),
            "addresses": [w.address] if w.address else [],
            "hostname": w.name,
            "image": w.image,
            "user": self._login(w.image),
            "cpus": w.cpus,
            "cpus_defined": w.cpus_defined,
            "memory_mib": w.memory_mib,
            "memory_defined_mib": w.memory_defined_mib,
            "disk_mib": w.disk_mib,
            "end": w.end,
            "host_key": w.host_key,
            "created_at": w.created_at,
            "changed_at": w.changed_at,
            "running_at": w.running_at,
            "released_at": w.released_at,
            "boots": w.boots,
            "boot_refused": self._services.trust.boot_refusal(w),
            "exit_status": w.exit_status,
        }

    # ------------------------------------------------------------ the rest

    def node(self, node: Node) -> Json:
        used = self._services.nodes.usage(node)
        return {
            "id": node.id,
            "name": node.name,
            "state": str(node.state),
            "hypervisor": node.hypervisor,
            "hypervisor_reason": node.hypervisor_reason,
            "capacity": asdict(node.capacity),
            "used": {name: used[name] for name in ("cpus", "memory_mib", "disk_mib")},
            "workspaces": used["workspaces"],
            "subnet": node.subnet,
            "drained": node.drained,
            "heard_at": self._services.nodes.heard_at(node.id),
            "joined_at": node.joined_at,
            "removed_at": node.removed_at,
            "generation": node.generation,
            "applied_generation": node.applied_generation,
            "problem": node.problem,
            "version": node.version,
            "traits": to_json(node.traits) | {"attributes": {a.name: a.value for a in node.traits.attributes}},
            "labels": node.every_label,
            "attributes": node.every_attribute,
            "maintenances": [
                {"id": m.id, "state": str(m.state), "start": m.start, "end": m.end, "reason": m.reason}
                for m in self._services.site.present.maintenances_of(node.id)
            ],
        }

    def maintenance(self, window: Maintenance, caller: Caller) -> Json:
        return {
            "id": window.id,
            "node": window.node,
            "node_name": self.node_name(window.node),
            "state": str(window.state),
            "start": window.start,
            "end": window.end,
            "reason": window.reason,
            "created_at": window.created_at,
            "begun_at": window.begun_at,
            "removed_at": window.removed_at,
            "leases": [lease.name for lease in self._services.maintenances.in_the_way(caller, window)],
        }

    def image(self, image: Image) -> Json:
        site = self._services.site
        return _image(image, site.present.tags_of(image.id), site.present, site.clock.now())

    def image_in(self, image: Image, draft: Draft) -> Json:
        """The image as it will be called once the draft is committed."""
        return _image(image, draft.tags_of(image.id), draft.present, draft.now)

    @staticmethod
    def image_tag(tag: ImageTag) -> Json:
        shown: Json = to_json(tag)
        return shown

    @staticmethod
    def document(document: Document) -> Json:
        """Without its content."""
        return {
            "id": document.id,
            "image": document.image,
            "kind": str(document.kind),
            "media_type": document.media_type,
            "sha256": hashlib.sha256(document.content).hexdigest(),
            "size_bytes": len(document.content),
            "added_at": document.added_at,
            "by": document.by,
        }

    @staticmethod
    def token(token: Token) -> Json:
        return {
            "id": token.id,
            "subject": token.subject,
            "role": str(token.role),
            "created_at": token.created_at,
            "expires_at": token.expires_at,
            "revoked_at": token.revoked_at,
        }

    @staticmethod
    def event(event: Event) -> Json:
        return {"seq": event.seq} | {name: value for name, value in asdict(event).items() if name != "seq"}
