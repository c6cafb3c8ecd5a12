"""All networks of a node: its own, on which a workspace is by default (network.py), and one room for each network of a
cluster or of a pool (room.py).

What there is to be comes with the orders. A network that they no longer name goes
with the last workspace that has an address in it: a guest that is being shut down
still talks to its neighbours. A network that cannot be made does no harm to the
others: it is tried again, and whoever is to be created in it hears why.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from vws.core.deployment import NetworkOrder, NodeOrders, WorkspaceOrder
from vws.node.door import Doorway
from vws.node.namespace import Machine
from vws.node.naming import is_id
from vws.node.network import Network
from vws.node.room import Room
from vws.ports import HypervisorError

log = logging.getLogger(__name__)

Taps = Mapping[str, Iterable[str]]  # by their bridge


class Networks:
    """Those of the node `tag`, with files in `directory`; the guests' taps are in `place`. All of it blocks."""

    def __init__(self, directory: Path, place: Machine, bridge: str, tag: str) -> None:
        self.own = Network(directory, place, bridge, tag)
        self._directory = directory / "networks"
        self._place = place
        self._tag = tag
        self._rooms: dict[str, Room] = {}
        self._wanted: dict[str, NetworkOrder] = {}
        self._problems: dict[str, str] = {}
        # A workspace enters a room or a room is removed, never both at once.
        self._lock = threading.RLock()

    # -------------------------------------------------------- open

    def open(self, orders: NodeOrders | None, taps: Taps) -> None:
        """As the orders say; without any, as they said last. Raises HypervisorError for the node's own network only."""
        if orders:
            self.own.open(orders.subnet, orders.gateway)
        else:
            self.own.reopen()
        self.own.attach(taps.get(self.own.bridge, ()))
        with self._lock:
            self._find()
            kept = {id: order for id, room in self._rooms.items() if (order := room.kept())}
            wanted = {order.id: order for order in orders.networks if is_id(order.id)} if orders else kept
            in_use = {id: order for id, order in kept.items() if self._rooms[id].dnsmasq.ids()}
            self._wanted = wanted
            for order in (in_use | wanted).values():
                if not self._room(order.id).is_open(order):
                    self._open_room(order, taps)
            self.sweep()

    def mend(self, taps: Taps) -> None:
        """Put right what befell them since. Raises HypervisorError for what cannot be."""
        if self.own.due():
            self.own.reopen()
            self.own.attach(taps.get(self.own.bridge, ()))
        with self._lock:
            for order in self._wanted.values():
                if order.id in self._problems or self._rooms[order.id].due():
                    self._open_room(order, taps)
            self.sweep()
            for id, problem in self._problems.items():
                raise HypervisorError(f"the network {id}: {problem}")

    def due(self) -> bool:
        """Is there anything to mend? Costs next to nothing while there is not."""
        with self._lock:
            stale = self._rooms.keys() - self._wanted.keys()
            return self.own.due() or bool(self._problems or stale) or any(room.due() for room in self._rooms.values())

    def _find(self) -> None:
        """The rooms of an agent before this one."""
        with contextlib.suppress(FileNotFoundError):
            for name in filter(is_id, os.listdir(self._directory)):
                self._room(name)

    def _room(self, id: str) -> Room:
        if id not in self._rooms:
            self._rooms[id] = Room(self._directory, self._place, self.own.bridge, self._tag, id)
        return self._rooms[id]

    def _open_room(self, order: NetworkOrder, taps: Taps) -> None:
        room = self._room(order.id)
        try:
            room.open(order, self._way(room), self.own.gateway)
            room.attach(taps.get(room.bridge, ()))
        except (HypervisorError, OSError) as error:
            self._problems[order.id] = str(error)
            log.error("the network %s cannot be opened: %s", order.id, error)
        else:
            self._problems.pop(order.id, None)

    def _way(self, room: Room) -> int:
        mine = room.way()
        taken = {other.way() for other in self._rooms.values() if other is not room}
        return mine if mine is not None else next(n for n in itertools.count() if n not in taken)

    # -------------------------------------------------------- workspaces

    def enter(self, order: WorkspaceOrder) -> None:
        """Give a workspace its addresses and names; a repeat is harmless. HypervisorError if a network is not there.
        On the node's own network and on public ones it has the name that nobody else at the site has."""
        with self._lock:
            own = {nic.network for nic in order.interfaces}
            has_public = any(self._wanted[network].public for network in own & self._wanted.keys())
            for network in dict.fromkeys(nic.network for nic in order.interfaces):
                nics = [(nic.mac, nic.address) for nic in order.interfaces if nic.network == network]
                if network:
                    self._check_open(network)
                    # Members of several clusters may be on a public one.
                    public = self._wanted[network].public
                    names = (order.name,) if public else (order.hostname, order.name)
                    # Who called it by its public address is answered the same way.
                    self._rooms[network].enter(order.id, nics, *names, elsewhere=has_public and not public)
                else:
                    self._check_isolation(order)
                    self.own.dnsmasq.enter(order.id, nics, order.name)

    def _check_isolation(self, order: WorkspaceOrder) -> None:
        if order.isolated and self.own.cannot_isolate:
            raise HypervisorError(f"this node cannot keep it from the network: {self.own.cannot_isolate}", final=True)

    def _check_open(self, network: str) -> None:
        problem = self._problems.get(network, "")
        if network not in self._wanted:
            problem = "this node's orders do not have it"
        if problem:
            raise HypervisorError(f"the network {network}: {problem}; it is tried again")

    def ids(self) -> set[str]:
        """The workspaces that have an entry anywhere."""
        with self._lock:
            return self.own.dnsmasq.ids().union(*(room.dnsmasq.ids() for room in self._rooms.values()))

    def leave(self, id: str) -> None:
        """Take all that it was given back, and networks that nobody needs any more away."""
        if id in self.own.dnsmasq.ids():
            self.own.dnsmasq.leave(id)
        with self._lock:
            for room in self._rooms.values():
                if id in room.dnsmasq.ids():
                    room.leave(id)
            self.sweep()

    def place_of(self, network: str) -> Machine:
        """Where streams to guests in it are opened. HypervisorError if it is not there."""
        if not network:
            return self._place
        self._check_open(network)
        return self._rooms[network].place

    # -------------------------------------------------------- the door

    def doorways(self) -> dict[str, Doorway]:
        """By network, "" for the node's own."""
        with self._lock:
            found = {id: room.doorway for id, room in self._rooms.items() if id not in self._problems}
        own = self.own.doorway
        return ({"": own} if own else {}) | found

    # -------------------------------------------------------- end

    def sweep(self) -> None:
        """Remove the networks that are neither ordered nor in use. What cannot be removed is tried again."""
        with self._lock:
            for id in self._rooms.keys() - self._wanted.keys():
                if not self._rooms[id].dnsmasq.ids():
                    self._problems.pop(id, None)
                    self._remove(id)

    def _remove(self, id: str) -> None:
        try:
            self._rooms[id].close()
        except HypervisorError as error:
            log.error("the network %s cannot be removed: %s; it is tried again", id, error.reason)
        else:
            del self._rooms[id]

    def close(self) -> None:
        """Remove all of them, when no workspace is left."""
        with self._lock:
            self._find()
            self._wanted = {}
            for room in list(self._rooms.values()):
                room.close()
                del self._rooms[room.id]
        if self._place.inode() is not None:
            self.own.close()

    def let_go(self) -> None:
        """What is left of them stays."""
        for room in self._rooms.values():
            room.place.let_go()
