"""Leases and workspaces, as users ask for them: find, check who asks, decide in the core, commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, cast

from vws.core import agreement, amendment
from vws.core.admission import HeldBefore, nothing_before
from vws.core.agreement import Series
from vws.core.draft import Draft
from vws.core.dry_run import consider
from vws.core.errors import CommandRefused, NotFound
from vws.core.explaining import explain
from vws.core.lifecycle import Command
from vws.core.site import Answer, Lease, Role, Workspace
from vws.core.terms import LeaseRequest
from vws.faultpoints import reach
from vws.ports import Filter, Page
from vws.service.access import Caller
from vws.service.naming import latest
from vws.service.once import Once
from vws.service.site import Site

# Calls what it is given, and records a refusal by the image policy (service/trust.py).
Recording = Callable[[Caller, Callable[[], Any]], Any]


def unrecorded(caller: Caller, ask: Callable[[], Any]) -> Any:
    return ask()


class Leases:
    def __init__(self, site: Site, held_before: HeldBefore = nothing_before, recording: Recording = unrecorded) -> None:
        self._site = site
        self._held_before = held_before
        self._recording = recording

    # ------------------------------------------------------------ asking

    def request(self, caller: Caller, request: LeaseRequest, once: Once | None = None) -> Lease | Series | Answer:
        """Grant the lease or refuse it: InvalidRequest, NameTaken, LimitReached, ImageRefused, CannotFit (offers)."""
        caller.must_be(Role.ADMIN, Role.USER)

        def decide(draft: Draft) -> Lease | Series:
            granted = agreement.grant(
                draft, request, owner=caller.subject, ids=self._site.ids.new, before=self._held_before
            )
            reach("service.lease.planned")
            return granted

        granted: Lease | Series | Answer = self._recording(
            caller, lambda: self._site.change(caller.subject, decide, once=once, subject=caller.subject)
        )
        reach("service.lease.committed")
        return granted

    def would_fit(self, caller: Caller, request: LeaseRequest) -> dict[str, Any]:
        """{"fits", "reason", "start", "nodes", "offers"}: what `request` would answer now. Changes nothing."""
        caller.must_be(Role.ADMIN, Role.USER)
        with self._site.lock:
            draft = Draft(self._site.present, actor=caller.subject, now=self._site.clock.now())
            return consider(draft, request, owner=caller.subject, ids=self._site.ids.new, before=self._held_before)

    def explain(self, caller: Caller, id: str) -> dict[str, Any]:
        """Why a lease is as it is: by the plan (core/explaining.py), and workspace by workspace."""
        lease = self.lease(caller, id)
        members = [
            {
                "workspace": w.id,
                "name": w.name,
                "state": str(w.state),
                "node": w.node,
                "reason": w.reason,
                "step": w.step,
            }
            for w in self.members(lease.id)
        ]
        with self._site.lock:
            present = self._site.present
            told = explain(
                present,
                lease,
                now=int(self._site.clock.now()),
                knows=lambda owner: caller.is_admin or owner == caller.subject,
            )
            refusals = dict.fromkeys(map(present.boot_refusal, present.members(lease.id)))
        told = replace(told, says=(*told.says, *(f"What stops does not start again: {why}" for why in refusals if why)))
        return {
            "lease": lease.id,
            "name": lease.name,
            "state": str(lease.state),
            "reason": lease.reason,
            **asdict(told),
            "members": members,
        }

    # ------------------------------------------------------------ changing

    def extend(self, caller: Caller, id: str, duration_s: int, once: Once | None = None) -> Lease | Answer:
        def decide(draft: Draft, lease: Lease) -> Lease:
            return amendment.extend(draft, lease, duration_s, self._held_before)

        return self._change(caller, id, decide, once)

    def resize(
        self,
        caller: Caller,
        id: str,
        *,
        group: str | None = None,
        memory_mib: int | None = None,
        cpus: int | None = None,
        once: Once | None = None,
    ) -> Lease | Answer:
        def decide(draft: Draft, lease: Lease) -> Lease:
            return amendment.resize(draft, lease, group=group, memory_mib=memory_mib, cpus=cpus)

        return self._change(caller, id, decide, once)

    def cancel(self, caller: Caller, id: str, once: Once | None = None) -> Lease | Answer:
        return self._change(caller, id, agreement.cancel, once)

    def _change(
        self, caller: Caller, id: str, decide: Callable[[Draft, Lease], Lease], once: Once | None
    ) -> Lease | Answer:
        lease = self.lease(caller, id)

        def decided(draft: Draft) -> Lease:
            present = draft.present.leases.get(lease.id)
            return decide(draft, present or self.lease(caller, lease.id))

        return self._site.change(caller.subject, decided, once=once, subject=caller.subject)

    def command(self, caller: Caller, id: str, command: Command, once: Once | None = None) -> Workspace | Answer:
        """Give a workspace a command; raises CommandRefused when its state does not allow it."""
        workspace = self.workspace(caller, id)

        def decide(draft: Draft) -> Workspace:
            present = draft.present.workspaces.get(workspace.id)
            if present is None:
                return _after_the_end(self.workspace(caller, workspace.id), command)
            return agreement.command(draft, present, command)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    # ------------------------------------------------------------ looking

    def lease(self, caller: Caller, id_or_name: str) -> Lease:
        """By id, ended ones too, or by the name of a live one; NotFound or Forbidden."""
        with self._site.lock:
            named = self._site.present.lease_named(id_or_name)
        lease = named or self._site.store.get(Lease, id_or_name)
        if lease is None:
            lease = latest(self._site.store, Lease, Filter(name=id_or_name))
        if lease is None:
            raise NotFound(
                f"there is no lease {id_or_name[:60]!r}",
                field="id",
                asked=id_or_name[:60],
                possible="vws lease list --all",
            )
        caller.must_own(lease.owner, f"the lease {lease.name}")
        return lease

    def workspace(self, caller: Caller, id_or_name: str) -> Workspace:
        """By id, ended ones too, or by name; NotFound or Forbidden."""
        workspace = self._site.store.get(Workspace, id_or_name) or latest(
            self._site.store, Workspace, Filter(name=id_or_name)
        )
        if workspace is None:
            raise NotFound(
                f"there is no workspace {id_or_name[:60]!r}",
                field="id",
                asked=id_or_name[:60],
                possible="vws workspace list --all",
            )
        caller.must_own(workspace.owner, f"the workspace {workspace.name}")
        return cast(Workspace, workspace)

    def leases(self, caller: Caller, where: Filter, *, after: str | None, limit: int) -> Page:
        return self._site.store.page(Lease, self._own(caller, where), after=after, limit=limit)

    def workspaces(self, caller: Caller, where: Filter, *, after: str | None, limit: int) -> Page:
        return self._site.store.page(Workspace, self._own(caller, where), after=after, limit=limit)

    def members(self, lease_id: str) -> tuple[Workspace, ...]:
        """All workspaces of a lease, in their order."""
        with self._site.lock:
            if lease_id in self._site.present.leases:
                return tuple(self._site.present.members(lease_id))
        return tuple(self._all(Workspace, Filter(lease=lease_id)))

    def _all(self, kind: type[Any], where: Filter) -> list[Any]:
        items: list[Any] = []
        after: str | None = None
        while True:
            page = self._site.store.page(kind, where, after=after, limit=1000)
            items.extend(page.items)
            after = page.next
            if after is None:
                return items

    def _own(self, caller: Caller, where: Filter) -> Filter:
        caller.must_be(Role.ADMIN, Role.USER)
        if caller.is_admin:
            return where
        return replace(where, owner=caller.subject)


def _after_the_end(workspace: Workspace, command: Command) -> Workspace:
    if command is Command.TERMINATE:
        return workspace
    raise CommandRefused(
        f"{workspace.name} has ended: {workspace.state}, {workspace.reason}",
        field="command",
        asked=str(command),
        possible="ask for a new lease",
    )
