"""The pure core alone: how many lease requests a second it decides, and how many nodes' reports it takes in.

No clock, disk or network is in it, so that a slower core shows here before it drowns in what a commit costs. A question
to the planner walks the nodes once, in compiled code, and does not walk the leases: hence the same requests on 200 and
on 2,000 nodes, and on nodes that are empty and half full.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from bench.measure import Number, Section, median, spread
from vws.core import agreement
from vws.core.deployment import NodeReport, WorkspaceFact, orders_for
from vws.core.draft import Draft
from vws.core.lifecycle import Observation
from vws.core.present import Present
from vws.core.site import Capacity, Changes, Image, Node
from vws.core.standing import absorb
from vws.core.terms import GroupRequest, LeaseRequest

NOW = 1_800_000_000.0
MEMBERS = 10
# A site of 200 nodes holds 3,200 workspaces of one CPU each: half full is 160 leases of ten.
CAPACITY = Capacity(16, 64 * 1024, 1024 * 1024)


class Core:
    """A site's memory without the site: decisions are applied as they are made."""

    def __init__(self, nodes: int) -> None:
        self.ids = _ids()
        self.present = Present.of(
            Changes(
                nodes=tuple(_node(number) for number in range(nodes)),
                images=(
                    Image("img-demo", "demo", "admin", "00" * 32, 1, "direct", (), simulated=True, shared=("public",)),
                ),
            )
        )

    def grant(self, members: int = MEMBERS) -> float:
        """Seconds that one lease takes to decide and apply."""
        request = LeaseRequest((GroupRequest("img-demo", members, 1, 160, 1024),), 3600)
        begin = time.perf_counter()
        draft = Draft(self.present, actor="ann", now=NOW)
        agreement.grant(draft, request, owner="ann", ids=self.ids)
        self.present.apply(draft.changes)
        return time.perf_counter() - begin

    def obey(self, node: Node) -> float:
        """Seconds to number a node's orders and to take in its report that all of it runs."""
        begin = time.perf_counter()
        orders = orders_for(node, self.present.on_node(node.id), self.present.leases, self.present.images, now=NOW)
        facts = tuple(WorkspaceFact(w.id, Observation.RUNNING, boots=w.boots) for w in orders.workspaces)
        report = NodeReport(node.id, "inst", 1, 2, orders.generation, NOW, node.capacity, workspaces=facts)
        draft = Draft(self.present, actor=node.id, now=NOW)
        absorb(draft, report)
        self.present.apply(draft.changes)
        return time.perf_counter() - begin


def run(quick: bool) -> Section:
    small, large, leases = (20, 40, 4) if quick else (200, 2000, 50)
    cores = {nodes: Core(nodes) for nodes in (small, large)}
    empty = _grant_side_by_side(cores, leases)
    reports = {n: [core.obey(node) for node in list(core.present.nodes.values())[:small]] for n, core in cores.items()}
    for nodes, core in cores.items():
        while len(core.present.workspaces) < nodes * CAPACITY.cpus // 2:
            core.grant(10 * MEMBERS)
    half_full = _grant_side_by_side(cores, leases)
    numbers = [
        *_rates("lease requests, {} nodes, empty", empty, MEMBERS),
        *_rates("lease requests, {} nodes, half full", half_full, MEMBERS),
        *(Number(f"orders and reports, {n} nodes", 1 / median(took), "/s") for n, took in reports.items()),
        Number(f"a request on {large} nodes, by one on {small}", median(empty[large]) / median(empty[small]), "×"),
        Number("a request at half full, by one at empty", median(half_full[large]) / median(empty[large]), "×"),
    ]
    how = (
        f"Leases of {MEMBERS} workspaces decided and applied by `core` alone, no I/O, {leases} each, the two sites in "
        "turn. Rates are of medians. No target: watched for regressions, and to be read beside the rates of `scale`."
    )
    return Section("planner", "the pure core alone", how, tuple(numbers))


def _grant_side_by_side(cores: dict[int, Core], leases: int) -> dict[int, list[float]]:
    took: dict[int, list[float]] = {nodes: [] for nodes in cores}
    for _ in range(leases):
        for nodes, core in cores.items():
            took[nodes].append(core.grant())
    return took


def _rates(what: str, took: dict[int, list[float]], members: int) -> list[Number]:
    return [
        Number(
            what.format(nodes),
            1 / median(seconds),
            "/s",
            beside=f"{members / median(seconds):.0f} workspaces/s; {spread([1000 * s for s in seconds], 'ms')}",
        )
        for nodes, seconds in took.items()
    ]


def _node(number: int) -> Node:
    subnet = f"10.{64 + number // 256}.{number % 256}.0/24"
    return Node(f"nod-{number:05d}", f"n{number}", subnet, NOW, CAPACITY, sequence=1)


def _ids() -> Callable[[str], str]:
    counter = itertools.count(1)
    return lambda prefix: f"{prefix}-{next(counter):08d}"
