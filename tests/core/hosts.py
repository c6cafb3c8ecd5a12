"""Machines with guests on them, as nodes of a site are: they follow orders, in their own time, and tell what there is.

A `Host` knows only what it pulled. It ends guests by itself when their time is over, whether or not anybody hears it,
and counts for how long each of them really ran.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from vws.core.deployment import NodeOrders, WorkspaceFact, WorkspaceOrder, orders_for
from vws.core.lifecycle import Desired, Observation
from vws.core.present import Present

O = Observation  # noqa: E741
GOALS = {Desired.RUN: O.RUNNING, Desired.SUSPEND: O.SUSPENDED, Desired.PAUSE: O.PAUSED}


@dataclass
class Guest:
    boots: int
    state: Observation
    end: float
    exit_status: int | None = None


@dataclass(frozen=True)
class Letter:
    """What a host had to say, and when."""

    host: str
    number: int
    generation: int
    facts: tuple[WorkspaceFact, ...]
    overhead_mib: int


class Host:
    """heard_at: when it was last in touch. told: the number of the last letter that arrived."""

    def __init__(self, id: str, now: float) -> None:
        self.id = id
        self.orders: NodeOrders | None = None
        self.guests: dict[str, Guest] = {}
        self.ended: set[str] = set()
        self.ran_s: dict[str, float] = {}
        self.heard_at = now
        self.written = 0
        self.told = 0
        self.overhead_mib = 0

    # ------------------------------------------------------------ time

    def live(self, since: float, now: float) -> None:
        """Guests run on, until their end at most."""
        for id, guest in list(self.guests.items()):
            if guest.state is O.RUNNING:
                self.ran_s[id] = self.ran_s.get(id, 0.0) + max(0.0, min(now, guest.end) - since)
            if guest.end <= now:
                del self.guests[id]
                self.ended.add(id)

    # ------------------------------------------------------------ orders

    def pull(self, present: Present, now: float) -> None:
        node = present.nodes[self.id]
        self.orders = orders_for(node, present.on_node(self.id), present.leases, present.images, now=now)
        for order in self.orders.workspaces:
            if order.id in self.guests:
                self.guests[order.id].end = order.end

    def work(self, now: float, slow: Collection[str] = ()) -> None:
        """Bring every guest to where it should be, but those that take their time."""
        orders = {order.id: order for order in self.orders.workspaces} if self.orders else {}
        for id in list(self.guests):
            if id not in orders and id not in slow:
                del self.guests[id]
        for id, order in orders.items():
            if id not in self.ended:
                self._toward(order, now, id in slow)
        self.ended &= orders.keys()

    def _toward(self, order: WorkspaceOrder, now: float, slow: bool) -> None:
        guest = self.guests.get(order.id)
        if guest is None:
            if order.may_create and order.end > now:
                self.guests[order.id] = Guest(order.boots, O.STAGING if slow else O.RUNNING, order.end)
        elif slow:
            return
        elif guest.boots < order.boots:
            guest.boots, guest.state, guest.exit_status = order.boots, O.RUNNING, None
        elif guest.state not in (O.STOPPED, O.BROKEN):
            guest.state = GOALS[order.desired]

    # ------------------------------------------------------------ telling

    def write(self, now: float) -> Letter:
        self.written += 1
        generation = self.orders.generation if self.orders else 0
        facts = tuple(self._facts(now)) if self.orders else ()
        return Letter(self.id, self.written, generation, facts, self.overhead_mib)

    def _facts(self, now: float):
        assert self.orders is not None
        ordered = {order.id for order in self.orders.workspaces}
        for order in self.orders.workspaces:
            guest = self.guests.get(order.id)
            if order.id in self.ended or (guest is None and order.end <= now):
                yield WorkspaceFact(order.id, O.ENDED)
            elif guest is None:
                yield WorkspaceFact(order.id, O.STAGING if order.may_create else O.BROKEN, reason="its disk is gone")
            else:
                yield WorkspaceFact(order.id, guest.state, boots=guest.boots, exit_status=guest.exit_status)
        for id, guest in self.guests.items():
            if id not in ordered:
                yield WorkspaceFact(id, O.REMOVING, boots=guest.boots)

    # ------------------------------------------------------------ mishaps

    def lose_power(self) -> None:
        """What was saved is still there."""
        for guest in self.guests.values():
            if guest.state is not O.SUSPENDED:
                guest.state = O.BROKEN

    def lose_disks(self) -> None:
        self.guests.clear()
