"""An agent whose hypervisor cannot be asked: it decides nothing, and nothing follows from what it leaves unsaid."""

from __future__ import annotations

import asyncio

from tests.node.builders import FakeLink, Node, in_loop, order, orders, until
from vws.core.lifecycle import Observation
from vws.node.config import FakeConfig
from vws.node.fake import FakeHypervisor

O = Observation  # noqa: E741


@in_loop
async def test_a_hypervisor_that_breaks_down_is_a_problem_and_facts_stand_until_it_is_back(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        node.fake.break_down("libvirtd does not answer")
        await until(lambda: "libvirtd does not answer" in link.reports[-1].problem)
        assert link.fact().state is O.RUNNING
        link.order(orders(order("wsp-2"), generation=2))
        await until_taken(node, 2)
        assert {fact.id: fact.state for fact in link.reports[-1].workspaces} == {"wsp-1": O.RUNNING}
        assert link.reports[-1].generation == 0, "these facts are of orders that are no longer"
        node.fake.break_down("")
        await node.until_reported(O.RUNNING, "wsp-2")
        await node.until_reported(None)
        assert link.reports[-1].problem == ""


async def until_taken(node: Node, generation: int) -> None:
    """Orders were taken, and a report made since has been heard."""
    await until(lambda: node.agent.workspaces.orders.generation == generation)
    heard = len(node.link.reports)
    await until(lambda: len(node.link.reports) > heard + 1)


class Blinding(FakeHypervisor):
    """Its daemon dies in the middle of each creation, so that no look shows what that made."""

    async def create(self, ordered, fetch, step, keys=None):
        await super().create(ordered, fetch, step, keys)
        self.break_down("libvirtd has died")


@in_loop
async def test_what_is_cancelled_while_nothing_can_be_seen_is_not_called_gone_before_it_is(tmp_path):
    link = FakeLink(orders(order()))
    blinding = Blinding(tmp_path / "blinding", FakeConfig.instant())
    async with Node(tmp_path, link, hypervisor=blinding) as node:
        await until(lambda: bool(link.reports) and "libvirtd has died" in link.reports[-1].problem)
        link.order(orders(generation=2))
        await until_taken(node, 2)
        assert set(blinding.remains()) == {"wsp-1"}
        assert link.reports[-1].generation == 0, "nothing follows from what such a report leaves out"
        assert link.fact().state is O.STAGING
        blinding.break_down("")
        await node.until_reported(None)
        assert link.reports[-1].generation == 2
        assert blinding.remains() == {}


@in_loop
async def test_an_end_that_comes_while_nothing_can_be_seen_is_told_once_it_is_enforced(tmp_path):
    link = FakeLink()
    end = link.end_in(0.7)
    link.order(orders(order(end=end)))
    blinding = Blinding(tmp_path / "blinding", FakeConfig.instant())
    async with Node(tmp_path, link, hypervisor=blinding, report_every_s=0.1) as node:
        await until(lambda: bool(link.reports) and "libvirtd has died" in link.reports[-1].problem)
        await asyncio.sleep(end + 0.3 - link.now())
        assert set(blinding.remains()) == {"wsp-1"}
        assert "ended" not in link.states()
        blinding.break_down("")
        await node.until_reported(O.ENDED)
        assert blinding.remains() == {}


@in_loop
async def test_a_turn_that_comes_while_nothing_can_be_seen_is_let_pass(tmp_path):
    link = FakeLink(orders(order(), order("wsp-2")))
    blinding = Blinding(tmp_path / "blinding", FakeConfig.instant(create_s=0.1))
    async with Node(tmp_path, link, hypervisor=blinding, builds_at_once=1) as node:
        await until(lambda: bool(link.reports) and "libvirtd has died" in link.reports[-1].problem)
        await asyncio.sleep(0.3)
        assert len(blinding.remains()) == 1, "the other one waited for its turn, and goes on waiting"
        blinding.create = super(Blinding, blinding).create
        blinding.break_down("")
        await node.until_reported(O.RUNNING)
        await node.until_reported(O.RUNNING, "wsp-2")


@in_loop
async def test_a_node_that_cannot_look_claims_nothing(tmp_path):
    link = FakeLink(orders(order()))
    node = Node(tmp_path, link)
    node.fake.break_down("no daemon")
    async with node:
        await until(lambda: bool(link.reports))
        await asyncio.sleep(0.2)
        assert {(r.generation, r.workspaces) for r in link.reports} == {(0, ())}
        assert "no daemon" in link.reports[-1].problem


@in_loop
async def test_a_network_that_cannot_be_put_right_is_a_problem_but_blinds_nobody(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        node.fake.cut_network("dnsmasq does not start")
        await until(lambda: link.reports[-1].problem == "the guests' network is down: dnsmasq does not start")
        link.order(orders(generation=2))
        await node.until_reported(None)
        node.fake.cut_network("")
        await until(lambda: link.reports[-1].problem == "")
