"""The disk of a guest that runs, taken: its file systems frozen by its agent, a large one mirrored while it writes on.

The guest is Debian's, with QEMU's guest agent. Agents that die in the middle are processes of their own, killed there.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hypervisors import NODE, LibvirtSite, machine_network, until_up
from vws.core.deployment import CaptureOrder, Quiesced, WorkspaceOrder
from vws.core.lifecycle import Observation
from vws.core.site import chain_of
from vws.core.wire import to_json
from vws.node import captures, resting

BUNDLE = Path(__file__).parents[2] / "build/appliance/debian.vws"
pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not BUNDLE.exists(), reason="there is no debian appliance; run 'make debian'"),
]
# An agent that takes, as if all disks were large and copied byte by byte; VWS_FAULT says where it dies.
TAKER = """
import asyncio, json, sys
from pathlib import Path
from vws.core.deployment import CaptureOrder
from vws.core.wire import from_json
from vws.node import captures
from vws.node.config import NodeConfig
from vws.node.libvirt import LibvirtHypervisor

captures.COPIED_AT_ONCE_BYTES, captures._cloned = int(sys.argv[3]), lambda *_: False

async def take():
    hypervisor = LibvirtHypervisor(Path(sys.argv[1]), sys.argv[4], NodeConfig())
    await hypervisor.open(None)
    await hypervisor.take(from_json(CaptureOrder, json.loads(sys.argv[2])))

asyncio.run(take())
"""
ALL_ARE_LARGE, NONE_IS = 1 << 20, 1 << 60


class Guest:
    """One that runs in a site of its own."""

    def __init__(self, site: LibvirtSite) -> None:
        self.site = site
        self.order: WorkspaceOrder = site.order("wsp-1", memory_mib=256, memory_defined_mib=256, disk_mib=1100)
        self._number = 0

    def capture(self) -> CaptureOrder:
        self._number += 1
        return CaptureOrder(f"sav-{self._number}", "wsp-1", False, True, chain_of(self.order.files))

    def do(self, work: Any) -> Any:
        """With a fresh agent."""

        async def opened() -> Any:
            async with self.site.opened() as hypervisor:
                return await work(hypervisor)

        return asyncio.run(opened())

    def run(self, command: str) -> str:
        return asyncio.run(self.site.run(self.order, command)).strip()

    def take(self, order: CaptureOrder) -> tuple[Quiesced, Path]:
        async def taken(hypervisor: Any) -> tuple[Quiesced, Path]:
            await hypervisor.take(order)
            return await hypervisor.quiesced(order.id), await hypervisor.delta(order)

        found: tuple[Quiesced, Path] = self.do(taken)
        return found

    def take_and_die(self, order: CaptureOrder, point: str, large: int) -> None:
        command = [sys.executable, "-c", TAKER, self.site.directory, json.dumps(to_json(order)), str(large), NODE]
        done = subprocess.run(
            command, env=os.environ | {"VWS_FAULT": point}, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == -9, done.stderr.decode()

    def goes_on(self) -> None:
        """It writes to its disk, all of it, and nothing is left of a mirror."""
        self.run("date > /root/goes-on; sync")
        assert self.do(lambda h: asyncio.to_thread(_jobs, h)) == {}
        assert self.do(lambda h: _state(h)) is Observation.RUNNING

    def drop(self, order: CaptureOrder) -> None:
        self.do(lambda h: h.drop_capture(order.id))


def _jobs(hypervisor: Any) -> dict[str, Any]:
    """What libvirt says of a job on its disk; and it writes where it always did."""
    domain = hypervisor._open_domains.find("wsp-1")
    assert "workspaces/wsp-1/disk.qcow2" in domain.XMLDesc()
    assert "<mirror" not in domain.XMLDesc()
    found: dict[str, Any] = domain.blockJobInfo("vda", 0)
    return found


async def _state(hypervisor: Any) -> Observation:
    (instance,) = await hypervisor.instances()
    return Observation(instance.state)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    before = machine_network()
    site = LibvirtSite(tmp_path_factory.mktemp("taking"), BUNDLE)
    guest = Guest(site)

    async def up(hypervisor: Any) -> None:
        await hypervisor.create(guest.order, site.appliance.fetch, lambda text: None)
        await hypervisor.start(guest.order)
        await until_up(hypervisor, guest.order)

    try:
        guest.do(up)
        guest.run("until pidof qemu-ga >/dev/null; do sleep 0.2; done; sleep 1")
        yield guest
    finally:
        site.tear_down()
    assert machine_network() == before


def word_of(guest: Guest, delta: Path, name: str, folder: Path) -> str:
    """What a file holds in what was taken, with all that is under it."""
    top: dict[str, Any] = {"driver": "qcow2", "file": {"driver": "file", "filename": str(delta)}}
    node = top
    for file in chain_of(guest.order.files):
        below = {"driver": file.format, "file": {"driver": "file", "filename": str(guest.site.cached(file.sha256))}}
        node["backing"] = below
        node = below
    if node["driver"] == "qcow2":
        node["backing"] = None
    flat = folder / "flat"
    subprocess.run(["qemu-img", "convert", "-O", "raw", f"json:{json.dumps(top)}", flat], check=True)
    subprocess.run(["e2fsck", "-fn", flat], check=True, capture_output=True)
    return subprocess.run(["debugfs", "-R", f"cat {name}", flat], capture_output=True, text=True, check=True).stdout


def test_it_has_a_machine_id_of_its_own(guest: Guest) -> None:
    id = guest.run("cat /etc/machine-id")
    assert (len(id), set(id) - set("0123456789abcdef")) == (32, set())


def test_its_agent_freezes_what_it_wrote_without_a_sync(guest: Guest, tmp_path: Path) -> None:
    order = guest.capture()
    guest.run("echo mine > /root/word")
    by, delta = guest.take(order)
    assert by is Quiesced.AGENT
    assert word_of(guest, delta, "/root/word", tmp_path) == "mine\n"
    guest.goes_on()
    guest.drop(order)


@pytest.mark.soak
def test_an_agent_that_does_not_answer_delays_it_for_seconds_and_no_longer(guest: Guest, monkeypatch: Any) -> None:
    monkeypatch.setattr(resting, "FREEZE_WITHIN_S", 1)
    order = guest.capture()
    guest.run("sync; kill -STOP $(pidof qemu-ga)")
    try:
        assert guest.take(order)[0] is Quiesced.PAUSE
    finally:
        guest.run("kill -CONT $(pidof qemu-ga)")
    # Now it does what it was told before, perhaps; the next look at what may be frozen sets that right.
    guest.do(lambda h: asyncio.to_thread(h._resting.thaw_all))
    guest.goes_on()
    guest.drop(order)


def test_what_is_large_is_mirrored_while_it_writes_on(
    guest: Guest, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(captures, "COPIED_AT_ONCE_BYTES", ALL_ARE_LARGE)
    monkeypatch.setattr(captures, "_cloned", lambda *_: False)
    guest.run("dd if=/dev/urandom of=/root/much bs=1M count=16 2>/dev/null; echo large > /root/word; sync")
    much = guest.run("md5sum </root/much")
    guest.run("(while :; do date >> /root/dates; done) >/dev/null 2>&1 & echo $! > /run/writer")
    order = guest.capture()
    with caplog.at_level("INFO"):
        by, delta = guest.take(order)
    guest.run("kill $(cat /run/writer)")
    rested_ms = [float(record.args[1]) for record in caplog.records if "rested" in record.msg]  # type: ignore[index, arg-type]
    assert (by, len(rested_ms)) == (Quiesced.AGENT, 1)
    assert word_of(guest, delta, "/root/word", tmp_path) == "large\n"
    subprocess.run(["debugfs", "-R", f"dump /root/much {tmp_path / 'much'}", tmp_path / "flat"], check=True)
    assert subprocess.check_output(["md5sum"], stdin=(tmp_path / "much").open()).split()[0].decode() == much.split()[0]
    guest.goes_on()
    guest.drop(order)


@pytest.mark.parametrize(
    ("point", "large"),
    [
        ("agent.capture.frozen", NONE_IS),
        pytest.param("agent.capture.mirrored", ALL_ARE_LARGE, marks=pytest.mark.soak),
        pytest.param("agent.capture.paused", ALL_ARE_LARGE, marks=pytest.mark.soak),
        pytest.param("agent.capture.copied", ALL_ARE_LARGE, marks=pytest.mark.soak),
        pytest.param("agent.capture.kept", ALL_ARE_LARGE, marks=pytest.mark.soak),
    ],
)
def test_an_agent_killed_in_the_middle_leaves_a_guest_that_the_next_one_sets_going(
    guest: Guest, tmp_path: Path, point: str, large: int
) -> None:
    order = guest.capture()
    guest.run(f"echo {point} > /root/word; sync")
    guest.take_and_die(order, point, large)

    async def resumed(hypervisor: Any) -> None:
        """As the agent's next look has it where the machine was left paused."""
        if await _state(hypervisor) is Observation.PAUSED:
            await hypervisor.resume("wsp-1")

    guest.do(resumed)
    guest.goes_on()
    _, delta = guest.take(order)
    assert word_of(guest, delta, "/root/word", tmp_path) == f"{point}\n"
    guest.drop(order)
