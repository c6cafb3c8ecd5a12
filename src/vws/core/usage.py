"""What was agreed and what ran, from the record of events alone.

A `Ledger` is moved by events in their order and gives out spans: stretches of time during which one lease had so much.
Two sorts of them answer two questions:

    reserved   room that the site kept for a lease: of a hard lease from its start to its end as agreed, until it is
               given back; of a soft one while it has nodes, not while it waits or is suspended by the plan
    used       workspaces that really ran: not those that boot, are paused or suspended, have stopped or are lost; until
               they are told to go or their time is over, however long their node takes for it

Both are added up when something changes and for the present moment (`going`), so nothing has to be known beforehand
about what a lease becomes. A ledger holds what is alive, never the past: reading a year takes no more memory than a
day. A copy of it is a place from which reading can begin again.

What events have to say for this is in `terms_of` (leases) and `member_of` (workspaces).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from vws.core.lifecycle import State
from vws.core.site import Event, Lease, LeaseKind, LeaseState, Workspace

# A guest goes on running while these are on their way to something else.
_STILL_RUNNING = frozenset({State.PAUSING, State.SUSPENDING, State.REBOOTING})
_MOVES = {f"workspace.{state}" for state in State if state not in _STILL_RUNNING and state is not State.RUNNING}
_RELEASED = "workspace.released"
_MOVES.add(_RELEASED)
_TAKES = {f"lease.{state}" for state in (LeaseState.PENDING, LeaseState.ACTIVE, LeaseState.DEGRADED)}
# Of a soft lease its members say it first: a lease is active again only when all of them run.
_MEMBER_TAKES = frozenset({"workspace.planned", "workspace.restoring"})
_GIVES_BACK = {f"lease.{state}" for state in (LeaseState.WAITING, LeaseState.SUSPENDED, LeaseState.ENDING)}
_OVER = {f"lease.{state}" for state in (LeaseState.ENDED, LeaseState.FAILED)}
_SOFT = frozenset({str(LeaseKind.BEST_EFFORT), str(LeaseKind.DEADLINE)})


def terms_of(lease: Lease) -> dict[str, Any]:
    """What `lease.granted`, and each event that changes the terms, says of them. start and end: None while a soft lease
    waits."""
    return {
        "lease_kind": str(lease.kind),
        "start": lease.start,
        "end": lease.end,
        "workspaces": sum(group.count for group in lease.groups),
        "cpus_in_all": sum(group.count * group.cpus for group in lease.groups),
        "preemptible": lease.preemptible,
        "urgent": lease.urgent,
    }


def member_of(workspace: Workspace) -> dict[str, Any]:
    """What `workspace.planned` says of a workspace's size."""
    return {"group": workspace.group, "cpus": workspace.cpus}


@dataclass(frozen=True, slots=True)
class Account:
    """One lease as far as its events tell. Times are UTC seconds. since: up to when its reserved time was given out;
    holds: the site keeps room for it. vo: as the event said, "" if it did not."""

    lease: str
    name: str
    owner: str
    vo: str
    kind: str
    preemptible: bool
    urgent: bool
    nodes: int
    cpus: int
    start: float
    end: float | None
    since: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One workspace: its CPUs, and since when it runs (None: it does not)."""

    group: str
    cpus: int
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """`nodes` workspaces with `cpus` CPUs in all, over [start, end)."""

    used: bool
    account: Account
    nodes: int
    cpus: int
    start: float
    end: float


class Ledger:
    """The leases that are alive after the last event taken in."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._runs: dict[str, dict[str, Run]] = {}
        self._leases_of: dict[str, set[str]] = {}
        self.seq = 0
        self.at = 0.0

    def copy(self) -> Ledger:
        other = Ledger()
        other._accounts = dict(self._accounts)
        other._runs = {lease: dict(runs) for lease, runs in self._runs.items()}
        other._leases_of = {owner: set(leases) for owner, leases in self._leases_of.items()}
        other.seq, other.at = self.seq, self.at
        return other

    def __len__(self) -> int:
        return len(self._accounts)

    def going(self, now: float) -> Iterator[Span]:
        """What is not given out yet, up to now."""
        for lease in self._accounts:
            yield from self._reserved(self._accounts[lease], now)
            for run in self._runs.get(lease, {}).values():
                yield from self._used(self._accounts[lease], run, now)

    def reserved(self, now: float, owner: str | None = None) -> Iterator[Span]:
        """Of what is not given out yet, what is reserved: everybody's, or one user's."""
        for lease in self._accounts if owner is None else self._leases_of.get(owner, ()):
            yield from self._reserved(self._accounts[lease], now)

    def take(self, event: Event) -> Iterator[Span]:
        """The spans that end with an event. To be drawn to their end before the next one; what is no lease's or
        workspace's event gives none."""
        self.seq = event.seq
        self.at = max(self.at, event.at)
        account = self._accounts.get(event.lease)
        if account is None:
            if event.kind == "lease.granted" or "lease_kind" in event.data:
                self._accounts[event.lease] = _opened(event)
                self._leases_of.setdefault(event.owner, set()).add(event.lease)
        elif event.workspace:
            yield from self._take_workspace(event, account)
        elif event.kind.startswith("lease."):
            yield from self._take_lease(event, account)

    # ------------------------------------------------------------ leases

    def _take_lease(self, event: Event, account: Account) -> Iterator[Span]:
        yield from self._reserved(account, event.at)
        if event.kind == "lease.resized":
            yield from self._resize_runs(event, account)
        if event.kind in _OVER:
            yield from self._close(event, account)
            return
        holds = event.kind in _TAKES or (account.holds and event.kind not in _GIVES_BACK)
        self._put(_changed(account, event.data), event.at, holds)

    def _put(self, account: Account, at: float, holds: bool) -> None:
        since = max(account.since, at)
        if (holds, since) != (account.holds, account.since):
            account = replace(account, holds=holds, since=since)
        self._accounts[account.lease] = account

    def _close(self, event: Event, account: Account) -> Iterator[Span]:
        for run in self._runs.pop(event.lease, {}).values():
            yield from self._used(account, run, event.at)
        del self._accounts[event.lease]
        leases = self._leases_of[account.owner]
        leases.discard(event.lease)
        if not leases:
            del self._leases_of[account.owner]

    def _resize_runs(self, event: Event, account: Account) -> Iterator[Span]:
        cpus, group = event.data.get("cpus"), event.data.get("group")
        runs = self._runs.get(event.lease, {})
        for id, run in list(runs.items()):
            if cpus and group in (None, run.group):
                yield from self._used(account, run, event.at)
                since = None if run.since is None else max(run.since, event.at)
                runs[id] = Run(run.group, int(cpus), since)

    # ------------------------------------------------------------ workspaces

    def _take_workspace(self, event: Event, account: Account) -> Iterator[Span]:
        runs = self._runs.setdefault(event.lease, {})
        run = runs.get(event.workspace)
        if run is None:
            cpus = int(event.data.get("cpus") or account.cpus // max(account.nodes, 1))
            run = runs[event.workspace] = Run(str(event.data.get("group", "")), cpus)
        if not account.holds and event.kind in _MEMBER_TAKES:
            self._put(account, event.at, True)
        if event.kind == "workspace.running" and run.since is None:
            runs[event.workspace] = replace(run, since=event.at)
        elif event.kind in _MOVES:
            yield from self._used(account, run, event.at)
            runs[event.workspace] = replace(run, since=None) if run.since is not None else run
            if event.kind == _RELEASED:
                del runs[event.workspace]

    # ------------------------------------------------------------ spans

    def _reserved(self, account: Account, until: float) -> Iterator[Span]:
        start = max(account.since, account.start)
        end = until if account.end is None else min(until, account.end)
        if account.holds and end > start:
            yield Span(False, account, account.nodes, account.cpus, start, end)

    def _used(self, account: Account, run: Run, until: float) -> Iterator[Span]:
        end = until if account.end is None else min(until, account.end)
        if run.since is not None and end > run.since:
            yield Span(True, account, 1, run.cpus, run.since, end)


def _opened(event: Event) -> Account:
    """An account as `lease.granted` says it; events from before it said so much are of immediate leases."""
    data = event.data
    kind = str(data.get("lease_kind", LeaseKind.IMMEDIATE))
    start = data.get("start")
    nodes = int(data.get("workspaces", 1))
    begins = event.at if start is None else float(start)
    return Account(
        lease=event.lease,
        name=str(data.get("name", "")),
        owner=event.owner,
        vo=str(data.get("vo", "")),
        kind=kind,
        preemptible=bool(data.get("preemptible")),
        urgent=bool(data.get("urgent")),
        nodes=nodes,
        cpus=int(data.get("cpus_in_all", nodes)),
        start=begins,
        end=_end_of(kind, data),
        since=begins,
        holds=kind not in _SOFT,
    )


def _changed(account: Account, data: dict[str, Any]) -> Account:
    """What an event says anew of the terms."""
    changes: dict[str, Any] = {}
    if data.get("workspaces"):
        changes["nodes"] = int(data["workspaces"])
    if data.get("cpus_in_all"):
        changes["cpus"] = int(data["cpus_in_all"])
    if data.get("end") and account.kind not in _SOFT:
        changes["end"] = float(data["end"])
    return replace(account, **changes) if changes else account


def _end_of(kind: str, data: dict[str, Any]) -> float | None:
    """A soft lease has no end but when it gives its nodes back."""
    return None if kind in _SOFT or data.get("end") is None else float(data["end"])
