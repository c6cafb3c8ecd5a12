"""A lease's command in a real guest: it runs once, tells its exit status, and the guest powers itself off.

Each workspace has an id of its own: the console's log of one outlives it, and with it the word of its command.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hypervisors import GUEST_UP_WITHIN_S, LibvirtSite, boot, in_loop, seen, until, until_up
from tests.node.builders import FakeLink, Node
from vws.core.deployment import WorkspaceOrder
from vws.core.lifecycle import Observation as O
from vws.ports import Hypervisor

pytestmark = pytest.mark.live

ENDED_WITHIN_S = 40.0
# What it leaves running holds its output open for ever.
SPEAKS = """#!/bin/sh
echo said by $(id -un) of $VWS_LEASE in $PWD
sleep 1000 &
exit 3
"""
COUNTS = "for n in 1 2 3 4 5 6; do echo $n; sleep 1; done"
LASTS = "echo once >>/data/ran; sleep 999"


@in_loop
async def test_an_agent_reports_how_a_command_ended_however_soon(site: LibvirtSite, tmp_path: Path) -> None:
    order = site.order("wsp-11", command=SPEAKS)
    link = FakeLink(replace(site.orders, workspaces=(order,)))
    link.blobs = site.appliance.by_sha256()
    async with Node(tmp_path, link, hypervisor=site.agent()) as node:
        await node.until_reported(O.STOPPED, order.id, within_s=GUEST_UP_WITHIN_S)
        fact = link.fact(order.id)
        assert fact is not None
        assert (fact.exit_status, fact.boots) == (3, 1)
    async with site.opened() as hypervisor:
        assert b"said by root of lse-1 in /root" in await hypervisor.console(order.id, tail_bytes=65536)
        assert (await until(hypervisor, order.id, O.STOPPED)).exit_status == 3
        await hypervisor.remove(order.id)


@in_loop
async def test_a_suspended_command_goes_on_and_a_reboot_does_not_begin_it_anew(site: LibvirtSite) -> None:
    counting, cut_off = site.order("wsp-12", command=COUNTS), site.order("wsp-13", command=LASTS)
    async with site.opened() as hypervisor:
        await asyncio.gather(_suspend_and_count(hypervisor, site, counting), _reboot(hypervisor, site, cut_off))
        await hypervisor.remove(counting.id)
        await hypervisor.remove(cut_off.id)


async def _suspend_and_count(hypervisor: Hypervisor, site: LibvirtSite, order: WorkspaceOrder) -> None:
    await boot(hypervisor, site, order)
    await hypervisor.suspend(order.id)
    await asyncio.sleep(1)
    await hypervisor.restore(order)
    assert (await until(hypervisor, order.id, O.STOPPED, within_s=ENDED_WITHIN_S)).exit_status == 0
    assert b"1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n" in await hypervisor.console(order.id, tail_bytes=65536)


async def _reboot(hypervisor: Hypervisor, site: LibvirtSite, order: WorkspaceOrder) -> None:
    await boot(hypervisor, site, order)
    await site.run(order, "until [ -s /data/ran ]; do sleep 0.1; done; (sleep 0.2; reboot) >/dev/null 2>&1 &")
    await _until_booted(hypervisor, order.id, 2)
    await until_up(hypervisor, order)
    await site.run(order, "while pidof late; do sleep 0.1; done; sleep 1")
    left = await site.run(order, "cat /data/ran; ls /var/lib/vws; pidof tee || echo idle")
    assert left.split() == ["once", "begun", "command", "output", "pipe", "idle"]
    there = await seen(hypervisor, order.id)
    assert there is not None
    assert (there.state, there.exit_status) == (O.RUNNING, None)


async def _until_booted(hypervisor: Hypervisor, id: str, times: int) -> None:
    for _ in range(300):
        said = await hypervisor.console(id, tail_bytes=65536)
        if said.count(b"VWS: up in") >= times:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(said[-2000:])
