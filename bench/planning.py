"""A large site in memory: how long it takes to answer when 10,000 nodes hold 100,000 leases.

What is measured is what serves requests: drafts, the planner, the decisions of `core`, the present that they are
applied to; without the store, whose cost does not depend on the size of the site (`scale` has it). The site lives: each
half second of its clock there is a tick, as in the service, leases end and nodes report, and requests of all kinds
arrive in between. It runs in a process of its own, whose memory is told.

    python -m bench.planning NODES LEASES      the measurements as JSON
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from bench import machine
from bench.measure import Number, Section, median, percentile, shown
from bench.processes import Usage
from vws.core import agreement, dry_run, standing
from vws.core.chosen import Chosen
from vws.core.deployment import NodeReport, WorkspaceFact
from vws.core.draft import Draft
from vws.core.enactment import advance, settle_plan
from vws.core.errors import CannotFit
from vws.core.lifecycle import FINAL, UNORDERED, Desired, Observation
from vws.core.maintenance import pass_time
from vws.core.membership import Limits, Membership
from vws.core.outlook import Outlook
from vws.core.plan import planner
from vws.core.present import Present
from vws.core.site import Capacity, Changes, Image, Lease, LeaseKind, LeaseState, Node, NodeState
from vws.core.standing import Patience, absorb
from vws.core.terms import GroupRequest, LeaseRequest, When
from vws.core.traits import UNSAID

HOUR_S = 3600
NOW = 1_800_000_000.0
TICK_S = 0.5
OWNERS = [f"user-{number:02d}" for number in range(40)]
# Of each class: how many in ten, CPUs, memory; the large ones have GPUs.
CLASSES = ((6, 16, 64), (3, 32, 128), (1, 64, 256))
MEMBERS, MEMBER_WEIGHTS = (1, 2, 4, 8, 16, 32, 64), (45, 22, 14, 9, 6, 3, 1)
CPUS, CPU_WEIGHTS = (1, 2, 4, 8), (60, 28, 10, 2)
HOURS, HOUR_WEIGHTS = (0.5, 2, 8, 24, 72), (15, 25, 30, 20, 10)
KINDS = ("immediate", "reservation", "best-effort", "dry run")
FACTS = {Desired.RUN: Observation.RUNNING, Desired.SUSPEND: Observation.SUSPENDED, Desired.PAUSE: Observation.PAUSED}
REQUEST_MS, FAILURE_MS, RSS_MIB = 20, 1000, 2048


@dataclasses.dataclass(frozen=True)
class Size:
    nodes: int
    leases: int
    requests: int
    failures: int

    @property
    def reservations(self) -> int:
        return self.leases // 20


FULL = Size(nodes=10_000, leases=100_000, requests=2000, failures=20)
QUICK = Size(nodes=100, leases=1000, requests=40, failures=2)


def run(quick: bool) -> Section:
    size = QUICK if quick else FULL
    command = [sys.executable, "-m", "bench.planning", str(size.nodes), str(size.leases)]
    command += [str(size.requests), str(size.failures)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=machine.ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"the site failed: {done.stderr.strip()[-400:]}")
    found = json.loads(done.stdout)
    how = (
        f"{size.nodes} nodes of three classes hold {size.leases} leases of 1 to 64 workspaces ({_mix(found)}), asked "
        f"for by {len(OWNERS)} users with limits, and built by the same decisions. Then {size.requests} requests, a "
        f"tick each {TICK_S:g} s of the site's clock, leases that end and nodes that report. No store: `scale` has "
        f"that. The planner ran {found['planner']}."
    )
    return Section("planning", "a large site", how, tuple(_numbers(found)))


def _mix(found: dict[str, Any]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(found["leases"].items()))


def _numbers(found: dict[str, Any]) -> Iterator[Number]:
    each = [took for kind in KINDS for took in found["request_ms"][kind]]
    yield Number("a request, p99", percentile(each, 0.99), "ms", REQUEST_MS, _told(each))
    for kind in KINDS:
        took = found["request_ms"][kind]
        beside = f"{_told(took)}; {found['granted'][kind]} of {len(took)} could be had"
        yield Number(f"{kind}, p99", percentile(took, 0.99), "ms", beside=beside)
    yield Number("a tick, p99", percentile(found["tick_ms"], 0.99), "ms", beside=_told(found["tick_ms"]))
    beside = f"{_told(found['report_ms'])}; {found['ended']} leases ended"
    yield Number("a node's report, p99", percentile(found["report_ms"], 0.99), "ms", beside=beside)
    failure = found["failure_ms"]
    yield Number("a node's failure replanned, longest", max(failure), "ms", FAILURE_MS, _told(failure))
    yield Number("memory of the process", found["rss_mib"], "MiB", RSS_MIB)
    yield Number("the plan made anew, as after a restart", found["rebuild_s"], "s")
    yield Number("a lease granted while the site was filled", found["fill_ms"], "ms")


def _told(took: list[float]) -> str:
    return f"p50 {shown(median(took))}, longest {shown(max(took))} ms in {len(took)}"


# ---------------------------------------------------------------- the site


class LargeSite:
    """A site's memory without its store, and nodes that do at once what they are told."""

    def __init__(self, nodes: int) -> None:
        self.random = random.Random(3)
        self.now = NOW
        counter = itertools.count(1)
        self.ids: Callable[[str], str] = lambda prefix: f"{prefix}-{next(counter):08d}"
        self.present = Present(Outlook(chosen=Chosen(membership=Membership(each_user=Limits(total=1_000_000)))))
        image = Image("img-demo", "demo", "admin", "00" * 32, 1, "direct", (), simulated=True, shared=("public",))
        self.apply(Changes(nodes=tuple(_node(number) for number in range(nodes)), images=(image,)))
        self.told: set[str] = set()

    # ------------------------------------------------------------ what serves

    def decide(self, decision: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """As `Site.change` does, but for the store."""
        draft = Draft(self.present, actor="bench", now=self.now)
        moves = self.present.outlook.planner.moves
        try:
            result = decision(draft, *arguments, **options)
            settle_plan(draft, self.ids)
        except CannotFit:
            assert self.present.outlook.planner.moves == moves, "a refusal has moved the plan"
            raise
        self.apply(draft.changes)
        self.told.update(node.id for node in draft.changes.nodes)
        return result

    def apply(self, changes: Changes) -> None:
        self.present.apply(changes, self.now)

    def tick(self, silent_for_s: dict[str, float] | None = None) -> None:
        self.decide(self._pass, silent_for_s or {})

    def _pass(self, draft: Draft, silent_for_s: dict[str, float]) -> None:
        standing.expire(draft)
        standing.listen(draft, silent_for_s, Patience())
        pass_time(draft)
        advance(draft, self.ids)

    def obey(self) -> list[float]:
        """The nodes that were told something have done it and say so. Gives how many seconds each report took."""
        told, self.told = self.told, set()
        took = []
        for id in sorted(told):
            node = self.present.nodes[id]
            if node.state is not NodeState.READY:
                continue
            there = [w for w in self.present.on_node(id) if w.state not in UNORDERED and w.state not in FINAL]
            facts = tuple(WorkspaceFact(w.id, FACTS[w.desired], boots=w.boots) for w in there)
            report = NodeReport(
                id, "inst", 1, 2, node.generation, self.now, node.capacity, workspaces=facts, traits=node.traits
            )
            begin = time.perf_counter()
            self.decide(absorb, report)
            took.append(time.perf_counter() - begin)
        return took

    # ------------------------------------------------------------ requests

    def ask(self, kind: str) -> bool:
        """Ask for a lease; whether it could be had."""
        owner = self.random.choice(OWNERS)
        if kind == "dry run":
            request = self.request(self.random.choice(KINDS[:3]))
            draft = Draft(self.present, actor=owner, now=self.now)
            return bool(dry_run.consider(draft, request, owner=owner, ids=self.ids)["fits"])
        with contextlib.suppress(CannotFit):
            self.decide(agreement.grant, self.request(kind), owner=owner, ids=self.ids)
            return True
        return False

    def request(self, kind: str) -> LeaseRequest:
        random = self.random
        cpus = random.choices(CPUS, CPU_WEIGHTS)[0]
        group = GroupRequest(
            "img-demo",
            count=random.choices(MEMBERS, MEMBER_WEIGHTS)[0],
            cpus=cpus,
            memory_mib=random.choice((1024, 2048, 3072)) * cpus,
            disk_mib=random.choice((4096, 16_384)),
            requirement='"gpu" in labels' if random.random() < 0.05 else "",
            apart=random.random() < 0.1,
        )
        duration_s = int(random.choices(HOURS, HOUR_WEIGHTS)[0] * HOUR_S * random.uniform(0.01, 1.5))
        start = int(self.now) + random.randrange(HOUR_S, 7 * 24 * HOUR_S) if kind == "reservation" else None
        return LeaseRequest(
            (group,),
            max(60, duration_s),
            when=When(kind),
            start=start,
            urgent=kind == "immediate" and random.random() < 0.1,
            preemptible=kind == "best-effort" and random.random() < 0.75,
        )

    def fill(self, size: Size) -> float:
        """Until so many leases are outstanding: what runs, what is reserved, what waits. Gives seconds for one."""
        begin = time.perf_counter()
        asked = 0
        for kind, until in (("", size.leases * 3 // 10), ("reservation", 0), ("best-effort", size.leases)):
            until = until or len(self.present.leases) + size.reservations
            while len(self.present.leases) < until:
                self.ask(kind or self.random.choice(("immediate", "best-effort", "best-effort")))
                asked += 1
        self.obey()
        self.tick()
        self.obey()
        return (time.perf_counter() - begin) / asked


def _node(number: int) -> Node:
    place = number % 10
    _, cpus, memory_gib = next(c for i, c in enumerate(CLASSES) if place < sum(each[0] for each in CLASSES[: i + 1]))
    labels = ("gpu",) if cpus == CLASSES[-1][1] else ()
    subnet = f"10.{64 + number // 256}.{number % 256}.0/24"
    capacity = Capacity(cpus, memory_gib * 1024, 2 * 1024 * 1024, overhead_mib=64)
    traits = dataclasses.replace(UNSAID, labels=labels)
    return Node(f"nod-{number:05d}", f"n{number}", subnet, NOW, capacity, sequence=1, instance="inst", traits=traits)


# ---------------------------------------------------------------- measuring


def measure(size: Size) -> dict[str, Any]:
    site = LargeSite(size.nodes)
    fill_s = site.fill(size)
    # As the service does once it has read its record.
    gc.collect()
    gc.freeze()
    found: dict[str, Any] = {
        "planner": "uncompiled" if planner.__file__.endswith(".py") else "compiled",
        "leases": _counted(site),
        "fill_ms": 1000 * fill_s,
    }
    found |= _live(site, size.requests)
    found["failure_ms"] = [_fail(site, number) for number in range(size.failures)]
    found["rss_mib"] = Usage.of(os.getpid()).rss_mib
    found["rebuild_s"] = _rebuild(site)
    return found


def _counted(site: LargeSite) -> dict[str, int]:
    states = [str(lease.state) for lease in site.present.leases.values()]
    return {state: states.count(state) for state in sorted(set(states))}


def _live(site: LargeSite, requests: int) -> dict[str, Any]:
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    granted = dict.fromkeys(KINDS, 0)
    ticks: list[float] = []
    reports: list[float] = []
    before = set(site.present.leases)
    for kind in itertools.islice(itertools.cycle(KINDS), requests):
        site.now += TICK_S
        ticks.append(_ms(site.tick))
        begin = time.perf_counter()
        granted[kind] += site.ask(kind)
        took[kind].append(1000 * (time.perf_counter() - begin))
        reports += [1000 * s for s in site.obey()]
    ended = len(before - set(site.present.leases))
    return {"request_ms": took, "granted": granted, "tick_ms": ticks, "report_ms": reports, "ended": ended}


def _ms(do: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    do()
    return 1000 * (time.perf_counter() - begin)


def _fail(site: LargeSite, number: int) -> float:
    """A node on which much is reserved falls silent, and then is lost: until everything is planned anew."""
    site.now += TICK_S
    planned = Counter(host for lease in site.present.leases.values() for host in _ahead(lease))
    ready = {id for id, node in site.present.nodes.items() if node.state is NodeState.READY}
    node = max(sorted(planned.keys() & ready), key=planned.__getitem__)
    silent_ms = _ms(lambda: site.tick({node: 30.0})) + _ms(site.tick)
    lost_ms = _ms(lambda: site.tick({node: 100.0})) + _ms(site.tick)
    site.obey()
    return silent_ms + lost_ms


def _ahead(lease: Lease) -> tuple[str, ...]:
    is_ahead = lease.state is LeaseState.PLANNED and lease.kind is LeaseKind.RESERVATION
    return lease.plan.hosts if is_ahead and lease.plan else ()


def _rebuild(site: LargeSite) -> float:
    present = site.present
    record = Changes(
        leases=tuple(present.leases.values()),
        workspaces=tuple(w for lease in present.leases for w in present.members(lease)),
        nodes=tuple(present.nodes.values()),
        images=tuple(present.images.values()),
    )
    again = Present(present.outlook.blank())
    begin = time.perf_counter()
    again.apply(record, site.now)
    return time.perf_counter() - begin


if __name__ == "__main__":
    json.dump(measure(Size(*map(int, sys.argv[1:]))), sys.stdout)
