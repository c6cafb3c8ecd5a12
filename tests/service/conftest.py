"""The services over a real store (SQLite and PostgreSQL in turn), with a clock and nodes that the test moves."""

from __future__ import annotations

import itertools

import pytest

from vws.ambient import TimeIds
from vws.core.deployment import NodeReport, WorkspaceFact, orders_for
from vws.core.lifecycle import Observation
from vws.core.site import Capacity, Role
from vws.core.terms import GroupRequest, LeaseRequest
from vws.service import build
from vws.service.access import Caller
from vws.service.site import Settings
from vws.store.blobs import FileBlobs

ADMIN = Caller("admin", Role.ADMIN)
ANN = Caller("ann", Role.USER)
BOB = Caller("bob", Role.USER)
CAPACITY = Capacity(8, 8192, 100_000, cpu_ratio=2.0, overhead_mib=64)


class TurnedClock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def now(self) -> float:
        return self.time


class Rig:
    """A service process and obedient nodes; `restart` is what a kill and a new start are to the store."""

    def __init__(self, store, directory, settings: Settings) -> None:
        self.store, self.directory, self.settings = store, directory, settings
        self.clock = TurnedClock()
        self._sequence = itertools.count(1)
        self.start()

    def start(self) -> None:
        blobs = FileBlobs(self.directory / "blobs")
        self.services = build(self.store, blobs, self.clock, TimeIds(), self.settings, self.directory)
        self.site, self.leases, self.nodes = self.services.site, self.services.leases, self.services.nodes

    restart = start

    def enroll(self, *names: str) -> list:
        enrolled = [node for node, _ in self.nodes.enroll(names)]
        self.services.images.simulate("demo")
        for node in enrolled:
            self.report(node.id)
        return enrolled

    def request(self, count: int = 1, *, caller: Caller = ANN, once=None, duration_s: int = 600, **fields):
        group = GroupRequest("demo", count, **{"memory_mib": 128, "disk_mib": 100} | fields)
        return self.leases.request(caller, LeaseRequest((group,), duration_s), once)

    def report(self, node_id: str, *facts: WorkspaceFact, generation: int | None = None, **fields) -> None:
        """One report, taken in at once by the reconciler's own step, without its thread."""
        number = self.nodes.generation(node_id) if generation is None else generation
        report = NodeReport(
            node_id, "inst", 1, next(self._sequence), number, self.clock.now(), CAPACITY, workspaces=facts, **fields
        )
        caller = Caller(node_id, Role.NODE)
        self.nodes.heard(caller, node_id, report.instance)
        if self.nodes.is_news(report):
            self.services.reconciler._absorb([report])

    def obey(self, state: Observation = Observation.RUNNING) -> None:
        present = self.site.present
        for node in list(present.nodes.values()):
            orders = orders_for(node, present.on_node(node.id), present.leases, present.images, now=0)
            self.report(node.id, *(WorkspaceFact(o.id, state, boots=o.boots) for o in orders.workspaces))

    def states(self, lease) -> list[str]:
        return [str(w.state) for w in self.leases.members(lease.id)]


@pytest.fixture
def rig(store, tmp_path):
    return Rig(store, tmp_path, Settings())
