"""Maintenance windows of nodes: planned by administrators, seen by everybody."""

from __future__ import annotations

from vws.core.draft import Draft
from vws.core.errors import NotFound
from vws.core.maintenance import in_the_way, plan_maintenance, remove_maintenance
from vws.core.site import Answer, Lease, Maintenance, Role
from vws.ports import Filter, Page
from vws.service.access import Caller
from vws.service.nodes import Nodes
from vws.service.once import Once
from vws.service.site import Site


class Maintenances:
    def __init__(self, site: Site, nodes: Nodes) -> None:
        self._site = site
        self._nodes = nodes

    def plan(
        self,
        caller: Caller,
        node: str,
        *,
        start: int | None,
        duration_s: int,
        reason: str,
        once: Once | None = None,
    ) -> Maintenance | Answer:
        """A new window of a node (its id or name), from `start` (UTC seconds; None: now). Raises InvalidRequest."""
        caller.must_be(Role.ADMIN)
        found = self._nodes.node(caller, node)

        def decide(draft: Draft) -> Maintenance:
            alive = draft.present.nodes.get(found.id)
            if alive is None:
                raise NotFound("the node was removed", field="id", asked=node[:60], possible="vws node list")
            begins = int(draft.now) if start is None else start
            id = self._site.ids.new("mnt")
            return plan_maintenance(draft, alive, id=id, start=begins, duration_s=duration_s, reason=reason)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def remove(self, caller: Caller, id: str, once: Once | None = None) -> Maintenance | Answer:
        """Call a window off, or end it early."""
        caller.must_be(Role.ADMIN)
        return self._site.change(
            caller.subject, lambda draft: remove_maintenance(draft, id), once=once, subject=caller.subject
        )

    def maintenance(self, caller: Caller, id: str) -> Maintenance:
        caller.must_be(Role.ADMIN, Role.USER)
        found: Maintenance | None = self._site.store.get(Maintenance, id)
        if found is None:
            raise NotFound(
                f"there is no maintenance {id[:60]!r}", field="id", asked=id[:60], possible="vws node maintenance list"
            )
        return found

    def maintenances(self, caller: Caller, where: Filter, *, after: str | None, limit: int) -> Page:
        caller.must_be(Role.ADMIN, Role.USER)
        return self._site.store.page(Maintenance, where, after=after, limit=limit)

    def in_the_way(self, caller: Caller, window: Maintenance) -> list[Lease]:
        """The leases that are on the node during a window, as far as they are the caller's business."""
        if window.removed_at is not None:
            return []
        with self._site.lock:
            found = in_the_way(self._site.present, window)
        return [lease for lease in found if caller.is_admin or lease.owner == caller.subject]
