"""Lives by chance: orders change, steps fail, agents are killed. Found troubles stay as named seeds.

Two things must hold at every moment, and one at the end:

- a report that leaves a workspace out is proof that nothing of it is left, if it was made under orders that knew it;
- no boot is begun twice;
- at the end there is what was ordered last, and nothing else.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.node.builders import FakeLink, Node, in_loop, order, orders, until
from vws.core.deployment import NodeReport, WorkspaceOrder
from vws.core.lifecycle import Desired, Observation
from vws.node import converge
from vws.node.config import FakeConfig
from vws.node.fake import FakeHypervisor

O, D = Observation, Desired  # noqa: E741
WANTED = {D.RUN: O.RUNNING, D.PAUSE: O.PAUSED, D.SUSPEND: O.SUSPENDED}
STEPS = ("pause", "resume", "suspend", "restore", "stop", "resize", "remove")


class Watching(FakeLink):
    """Checks every report against what is really there."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.first: dict[str, int] = {}
        self.wrong: list[str] = []

    async def report(self, report: NodeReport):
        left = FakeHypervisor(self.directory).remains()
        named = {fact.id for fact in report.workspaces}
        for id in left.keys() - named:
            if report.generation >= self.first[id]:
                self.wrong.append(f"{id} was called gone under {report.generation}, but {left[id]} is there")
        return await super().report(report)


class Site:
    """Orders at random, as a service might give them: ids never return, boots only grow."""

    def __init__(self, chance: random.Random, link: Watching) -> None:
        self.chance = chance
        self.link = link
        self.made = 0
        self.generation = 0
        self.live: dict[str, WorkspaceOrder] = {}

    def change(self) -> None:
        chance, kind = self.chance, self.chance.choice(["new", "end", "desire", "desire", "boot", "size"])
        id = chance.choice(sorted(self.live)) if self.live else ""
        self.generation += 1
        if kind == "new" or not id:
            self.made += 1
            id = f"wsp-{self.made}"
            self.live[id] = order(id)
            self.link.first[id] = self.generation
        elif kind == "end":
            del self.live[id]
        else:
            self.live[id] = self.changed(self.live[id], kind)
        self.link.order(orders(*self.live.values(), generation=self.generation))

    def changed(self, old: WorkspaceOrder, kind: str) -> WorkspaceOrder:
        fields = {slot: getattr(old, slot) for slot in old.__slots__}
        if kind == "desire":
            fields["desired"] = self.chance.choice([D.RUN, D.PAUSE, D.SUSPEND])
        elif kind == "boot":
            fields |= {"boots": old.boots + 1, "desired": D.RUN}
        else:
            fields["memory_mib"] = self.chance.choice([64, 128, 200])
        return WorkspaceOrder(**fields)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_reports_are_true_and_the_end_is_as_ordered(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(converge, "LONGEST_PAUSE_S", 0.02)

    @in_loop
    async def run():
        chance = random.Random(seed)
        link = Watching(tmp_path / "fake")
        site = Site(chance, link)
        few_ms = dict.fromkeys(("create_s", "start_s", "suspend_s", "restore_s", "stop_s", "remove_s"), 0.004)
        fake = FakeConfig.instant(**few_ms, boot_s=0.01, failures=dict.fromkeys(STEPS, 0.2), seed=seed)
        site.change()
        for _ in range(4):
            node = await Node(tmp_path, link, fake=fake).__aenter__()
            for _ in range(chance.randrange(4, 12)):
                await asyncio.sleep(chance.random() * 0.02)
                site.change()
            await asyncio.sleep(chance.random() * 0.05)
            await node.kill()
        async with Node(tmp_path, link, fake=fake, look_every_s=0.1) as node:
            await until(lambda: link.reports[-1].generation == site.generation and settled(site, link), 10)
            assert set(node.fake.remains()) == set(site.live)
        assert link.wrong == []
        boots = Counter(line for path in (tmp_path / "fake" / "consoles").iterdir() for line in boot_lines(path))
        assert max(boots.values(), default=1) == 1, boots

    start = time.monotonic()
    run()
    assert time.monotonic() - start < 15


def settled(site: Site, link: Watching) -> bool:
    said = {fact.id: fact for fact in link.reports[-1].workspaces}
    return said.keys() == site.live.keys() and all(
        said[id].state is WANTED[wanted.desired] and said[id].boots == wanted.boots for id, wanted in site.live.items()
    )


def boot_lines(path: Path) -> list[str]:
    return [f"{path.name} {line}" for line in path.read_text().splitlines() if ", boot " in line]
