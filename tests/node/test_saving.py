"""The agent takes what its orders say, hands it in however long the service is away, and drops the rest."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tests.node.builders import FakeLink, Node, in_loop, order, orders, until
from vws.core.deployment import CaptureOrder, Quiesced
from vws.core.lifecycle import Observation as O

NOW = CaptureOrder("sav-1", "wsp-1", at_end=False, clean=True)
LAST = replace(NOW, id="sav-2", at_end=True)
QCOW2 = b"QFI\xfb"


def captures(node: Node) -> list[str]:
    return sorted(path.name for path in (node.fake._directory / "captures").iterdir())


@in_loop
async def test_a_running_workspace_is_handed_in_and_goes_on(tmp_path):
    link = FakeLink()
    link.order(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        link.order(replace(orders(order(), generation=2), captures=(NOW,)))
        await until(lambda: "sav-1" in link.handed_in)
        assert link.handed_in["sav-1"].startswith(QCOW2)
        assert link.quiesced == {"sav-1": Quiesced.PAUSE}
        assert captures(node) == ["sav-1"], "it stays until the service says that it has it"
        link.order(orders(order(), generation=3))
        await until(lambda: captures(node) == [])
        assert link.states()[-1] == "running"
        assert "paused" not in link.states(), "its rest is nobody's affair"


@in_loop
async def test_at_its_end_it_is_taken_before_it_is_removed(tmp_path):
    link = FakeLink()
    link.order(replace(orders(order()), captures=(LAST,)))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        await asyncio.sleep(0.1)
        assert captures(node) == []
        link.order(replace(orders(generation=2), captures=(LAST,)))
        await node.until_reported(None)
        await until(lambda: "sav-2" in link.handed_in)
        assert link.quiesced == {"sav-2": Quiesced.OFF}
        assert node.fake.remains() == {}


@in_loop
async def test_at_an_end_that_the_node_enforces_alone_it_is_handed_in_later(tmp_path):
    link = FakeLink()
    async with Node(tmp_path, link) as node:
        link.order(replace(orders(order(end=link.end_in(1.5))), captures=(LAST,)))
        await node.until_reported(O.RUNNING)
        link.leave()
        await until(lambda: node.fake.remains() == {})
        assert captures(node) == ["sav-2"]
        assert link.handed_in == {}
        link.come_back()
        await until(lambda: "sav-2" in link.handed_in)


@in_loop
async def test_an_agent_killed_after_the_taking_hands_it_in_all_the_same(tmp_path):
    link = FakeLink()
    link.order(orders(order()))
    node = await Node(tmp_path, link).__aenter__()
    await node.until_reported(O.RUNNING)
    hand_in, link.hand_in = link.hand_in, lambda *_: asyncio.Event().wait()
    link.order(replace(orders(order(), generation=2), captures=(NOW,)))
    await until(lambda: "sav-1" in node.agent._saving._tasks and captures(node) == ["sav-1"])
    await node.kill()
    link.hand_in = hand_in
    async with Node(tmp_path, link):
        await until(lambda: "sav-1" in link.handed_in)


@in_loop
async def test_of_what_is_not_there_the_reason_is_told(tmp_path):
    link = FakeLink()
    link.order(replace(orders(), captures=(NOW, LAST)))
    async with Node(tmp_path, link) as node:
        await until(lambda: len(link.given_up) == 2)
        assert "not on the node" in link.given_up["sav-1"]
        assert "gone" in link.given_up["sav-2"]
        assert captures(node) == []


@in_loop
async def test_a_workspace_that_is_saved_before_the_first_look_is_never_left_out_of_a_report(tmp_path):
    link = FakeLink()
    link.order(orders(order()))
    node = await Node(tmp_path, link).__aenter__()
    await node.until_reported(O.RUNNING)
    await node.kill()
    link.reports.clear()
    link.order(replace(orders(order(), generation=2), captures=(NOW,)))
    node = Node(tmp_path, link)
    look, take = node.fake.instances, node.fake.take

    async def late():
        await asyncio.sleep(0.3)
        return await look()

    async def slow(captured):
        await asyncio.sleep(0.5)
        await take(captured)

    node.fake.instances, node.fake.take = late, slow
    async with node:
        await until(lambda: "sav-1" in link.handed_in)
    assert any(report.workspaces for report in link.reports)
    assert not [report for report in link.reports if report.generation and not report.workspaces]
