"""Real agent processes, killed at every step by the fault points, over real TLS and simulated hypervisors on disk.

One life (made, paused, saved, restored, booted anew, moved end, removed) is led once for each point. Whatever the
point, the site ends up with what was ordered, each boot was begun once, and nothing is left.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.node.builders import NODE, order, orders
from tests.node.tiny_service import TOKEN, TinyService
from vws.core.caches import CacheContents, FileState
from vws.core.deployment import ClearOrder, NodeReport, WorkspaceFact
from vws.core.lifecycle import Desired, Observation
from vws.core.site import ImageFile
from vws.faultpoints import POINTS
from vws.node.config import FakeConfig
from vws.node.fake import FakeHypervisor

O, D = Observation, Desired  # noqa: E741
ELSEWHERE = ("agent.capture.", "agent.sealed.", "agent.cache.")
AGENT_POINTS = sorted(n for n, process in POINTS.items() if process == "agent" and not n.startswith(ELSEWHERE))
# A process that has everything imported and forks in milliseconds.
FORKS = multiprocessing.get_context("forkserver")


def agent_process(directory: str, fault: str, once: str, count: int, fake: dict[str, int]) -> None:
    """What `python -m vws.main agent --fake-nodes N` does, with the fault armed as by VWS_FAULT."""
    import asyncio
    import sys

    from vws import faultpoints
    from vws.node.run import run_fake_agents

    faultpoints._armed, faultpoints._once = fault, once
    os.dup2(os.open(f"{directory}/../log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    sys.exit(asyncio.run(run_fake_agents(Path(directory), count, FakeConfig.instant(**fake))))


class Host:
    """A node's directory and the agent process that runs there, restarted whenever it was killed."""

    def __init__(
        self, directory: Path, service: TinyService, fault: str = "", nodes: int = 1, fake: dict[str, int] | None = None
    ) -> None:
        self.fake = fake or {}
        self.directory = directory / "node"
        self.once = directory / "died"
        self.service = service
        self.fault = fault
        self.nodes = nodes
        self.deaths = 0
        self.directory.mkdir(parents=True)
        ids = [NODE] if nodes == 1 else [f"nod-{i}" for i in range(1, nodes + 1)]
        said = [{"id": id, "name": id, "token": TOKEN} for id in ids]
        text = json.dumps({"url": service.url, "ca": str(service.ca), "nodes": said})
        (self.directory / "credentials.json").write_text(text)
        self.start()

    def start(self) -> None:
        arguments = (str(self.directory), self.fault, str(self.once), self.nodes, self.fake)
        self.process = FORKS.Process(target=agent_process, args=arguments)
        self.process.start()

    def until(self, so: Callable[[], bool], within_s: float = 10) -> None:
        deadline = time.monotonic() + within_s
        while not so():
            assert time.monotonic() < deadline, (self.directory.parent / "log").read_text()[-3000:]
            if not self.process.is_alive():
                assert self.process.exitcode == -signal.SIGKILL
                self.deaths += 1
                self.start()
            time.sleep(0.005)

    def stop(self) -> None:
        if self.process.is_alive():
            assert self.process.pid is not None
            os.kill(self.process.pid, signal.SIGTERM)
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError("the agent did not stop when told to")

    def hypervisor(self, node: str = NODE) -> FakeHypervisor:
        return FakeHypervisor(self.directory / "fake" / node)

    def fact(self, id: str = "wsp-1") -> WorkspaceFact | None:
        said = self.service.reports[-1].workspaces if self.service.reports else ()
        return next((fact for fact in said if fact.id == id), None)

    def contents(self) -> CacheContents:
        """The last word on the cache."""
        said = (report.cache for report in reversed(self.service.reports))
        return next((cache for cache in said if cache is not None), CacheContents())

    def cached(self) -> set[str]:
        return {file.sha256 for file in self.contents().files if file.state is FileState.COMPLETE}

    def reported_once(self, state: Observation) -> bool:
        return any(fact.state is state for report in self.service.reports for fact in report.workspaces)

    def reported(self, state: Observation, boots: int = 1) -> Callable[[], bool]:
        def so() -> bool:
            fact = self.fact()
            return fact is not None and fact.state is state and fact.boots == boots

        return so


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyService]:
    FORKS.set_forkserver_preload(["tests.node.test_kill", "vws.node.run"])
    service = TinyService(tmp_path_factory.mktemp("tiny")).start()
    yield service
    service.stop()


@pytest.fixture
def service(tiny: TinyService) -> TinyService:
    tiny.reports.clear()
    tiny.ordered.clear()
    tiny.consoles.clear()
    return tiny


def live(host: Host, service: TinyService) -> None:
    """Lead one workspace through its whole life, and see that nothing is left."""
    steps = [
        (order(), host.reported(O.RUNNING)),
        (order(desired=D.PAUSE), host.reported(O.PAUSED)),
        (order(desired=D.SUSPEND), host.reported(O.SUSPENDED)),
        (order(may_create=False), host.reported(O.RUNNING)),
        (order(may_create=False, boots=2), host.reported(O.RUNNING, boots=2)),
        (order(may_create=False, boots=2, end=2_000_000_000), host.reported(O.RUNNING, boots=2)),
    ]
    for generation, (ordered, so) in enumerate(steps, start=1):
        service.order(orders(ordered, generation=generation))
        host.until(lambda g=generation: bool(service.reports) and service.reports[-1].generation == g)
        host.until(so)
    service.order(orders(generation=len(steps) + 1))
    host.until(lambda: service.reports[-1].generation == len(steps) + 1 and not service.reports[-1].workspaces)


@pytest.mark.parametrize("point", AGENT_POINTS)
def test_killed_at_any_step_it_ends_up_as_ordered(tmp_path, service, point):
    host = Host(tmp_path, service, point)
    try:
        live(host, service)
    finally:
        host.stop()
    assert host.once.exists(), "the point was never reached"
    assert host.deaths == 1
    assert host.hypervisor().remains() == {}
    log = (host.directory / "fake" / NODE / "consoles" / "wsp-1").read_text()
    assert (log.count("boot 1 of"), log.count("boot 2 of")) == (1, 1), "each boot was begun once"
    assert b"boot 2 of" in service.consoles["wsp-1"]
    assert not any(f.state is O.BROKEN for report in service.reports for f in report.workspaces)
    assert list((host.directory / "fake" / NODE).rglob("*.new")) == []


CACHE_POINTS = sorted(name for name in POINTS if name.startswith("agent.cache."))


@pytest.mark.parametrize("point", CACHE_POINTS)
def test_killed_while_it_fetches_drops_or_clears_the_cache_is_whole(tmp_path, service, point):
    """Prefetched; pushed out by what a workspace needs; cleared. Whatever the point, no half file counts as whole."""
    soon, now = (stored(service) for _ in range(2))
    host = Host(tmp_path, service, point, fake={"disk_mib": 4})
    steps = [
        (replace(orders(generation=1), prefetch=(soon,)), {soon.sha256}),
        (orders(order(files=(now,)), generation=2), {now.sha256}),
        (orders(generation=3), {now.sha256}),
        (replace(orders(generation=4), clears=(ClearOrder("cac-1"),)), set()),
    ]
    try:
        for ordered, expected in steps:
            service.order(ordered)
            host.until(lambda g=ordered.generation: bool(service.reports) and service.reports[-1].generation >= g)
            host.until(lambda held=expected: host.cached() == held, within_s=20)
            if ordered.workspaces:
                host.until(host.reported(O.RUNNING))
            else:
                host.until(lambda: not service.reports[-1].workspaces)
        host.until(lambda: any(each.id == "cac-1" for each in host.contents().cleared))
    finally:
        host.stop()
    assert host.once.exists(), "the point was never reached"
    images = host.directory / "fake" / NODE / "images"
    assert list(images.iterdir()) == []
    assert not any(f.state is O.BROKEN for report in service.reports for f in report.workspaces)


@pytest.mark.parametrize("ahead", [False, True])
def test_killed_in_the_middle_of_a_transfer_it_goes_on_from_there(tmp_path, service, ahead):
    file = stored(service)
    ordered = replace(orders(), prefetch=(file,)) if ahead else orders(order(files=(file,)))
    service.order(ordered)
    service.stall_after = 400_000
    host = Host(tmp_path, service)
    partial = host.directory / "fake" / NODE / "images" / f"{file.sha256}.part"
    try:
        host.until(lambda: partial.exists() and partial.stat().st_size > 100_000)
        os.kill(host.process.pid, signal.SIGKILL)
        host.process.join(5)
        came = partial.stat().st_size
        service.stall_after = None
        host.until(lambda: host.cached() == {file.sha256})
    finally:
        service.stall_after = None
        host.stop()
    assert service.offsets[-1] == came, "only the rest was sent"


def stored(service: TinyService) -> ImageFile:
    """A file that the service has, of which a cache of 1 MiB holds one."""
    data = os.urandom(600_000)
    sha256 = hashlib.sha256(data).hexdigest()
    service.blobs[sha256] = data
    return ImageFile("disk", sha256, len(data), "raw")


def test_two_agents_never_share_a_directory_and_signals_are_obeyed(tmp_path, service):
    service.order(orders(order(end=int(time.time()) + 2)))
    host = Host(tmp_path, service)
    try:
        host.until(host.reported(O.RUNNING))
        second = FORKS.Process(target=agent_process, args=(str(host.directory), "", str(host.once), 1, {}))
        second.start()
        second.join(5)
        assert second.exitcode == 1
        assert f"pid {host.process.pid}) already runs" in (tmp_path / "log").read_text()
        host.stop()
        assert host.process.exitcode == 0
        assert set(host.hypervisor().remains()) == {"wsp-1"}, "workspaces outlive their agent"
        host.start()
        host.until(lambda: bool(service.reports) and service.reports[-1].incarnation > service.reports[0].incarnation)
        service.stop()
        os.kill(host.process.pid, signal.SIGUSR1)
        host.process.join(5)
        assert host.process.exitcode == 0, "it retired when the lease had ended"
        assert host.hypervisor().remains() == {}
    finally:
        host.stop()
        if service._thread is not None and not service._thread.is_alive():
            service.start()


def test_the_service_may_die_and_return_while_a_guest_boots(tmp_path, service):
    host = Host(tmp_path, service)
    try:
        service.order(orders(order()))
        host.until(lambda: bool(service.reports))
        service.stop()
        service.order(orders(order(), order("wsp-2"), generation=2))
        time.sleep(0.3)
        service.start()
        back = time.monotonic()
        host.until(lambda: service.reports[-1].generation == 2)
        assert time.monotonic() - back < 1
        host.until(lambda: host.fact("wsp-2") is not None and host.fact("wsp-2").state is O.RUNNING)
    finally:
        host.stop()


def runs(report: NodeReport) -> bool:
    return bool(report.workspaces) and all(fact.state is O.RUNNING for fact in report.workspaces)


def test_many_nodes_share_a_process(tmp_path, service):
    nodes = [f"nod-{i}" for i in range(1, 21)]
    for node in nodes:
        service.order(orders(order(f"wsp-{node}"), node=node))
    host = Host(tmp_path, service, nodes=20)
    try:
        host.until(
            lambda: (
                {r.node for r in service.reports if r.workspaces and r.workspaces[0].state is O.RUNNING} == set(nodes)
            )
        )
    finally:
        host.stop()
    assert all(set(host.hypervisor(node).remains()) == {f"wsp-{node}"} for node in nodes)


def test_nodes_that_share_a_process_retire_together(tmp_path, service):
    """Only one of them has a workspace; the others must be there if the service returns before its end."""
    end = int(time.time()) + 3
    service.order(orders(order(end=end), node="nod-1"))
    service.order(orders(node="nod-2"))
    host = Host(tmp_path, service, nodes=2)
    try:
        host.until(lambda: {r.node for r in service.reports} == {"nod-1", "nod-2"} and host.reported_once(O.RUNNING))
        service.stop()
        assert host.process.pid is not None
        os.kill(host.process.pid, signal.SIGUSR1)
        time.sleep(0.3)
        heard = len(service.reports)
        service.start()
        service.order(orders(order("wsp-2"), node="nod-2", generation=2))
        host.until(lambda: any(r.node == "nod-2" and runs(r) for r in service.reports[heard:]))
        assert host.process.is_alive()
    finally:
        host.stop()
