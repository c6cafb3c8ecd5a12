"""A simulated hypervisor: the same port, no machine behind it.

For trials, tests and capacity studies, by configuration and not by patching:
boot times, step times and failures come from `FakeConfig`, and everything that
chance decides derives from its seed and the workspace's id, so that a run can be
had again.

What a real node would have of a workspace (domain, overlay, NoCloud disk, DHCP
entry, tap, saved memory) is one small thing each, kept in a file. So simulated
workspaces outlive a killed agent, go on booting meanwhile by the wall clock, and
a test sees what was left behind (`remains`). With `durable` False all of it lives
in memory.

A simulated guest answers on port 22 with the banner of an SSH server and echoes
what it is told; its console shows a plausible boot. Of a lease's command it knows
`sleep SECONDS` and `exit STATUS`, and that all else takes `command_s` together.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import re
import shutil
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from vws.core.deployment import CaptureOrder, NodeOrders, Quiesced, WorkspaceKeys, WorkspaceOrder
from vws.core.lifecycle import Observation
from vws.core.site import Capacity
from vws.core.wire import to_json
from vws.faultpoints import reach
from vws.node.commands import Commands
from vws.node.config import FakeConfig
from vws.node.disk_keys import needed, own_passphrase
from vws.node.images import ImageCache
from vws.node.shelf import KINDS, JournalShelf, MemoryShelf
from vws.node.state import make_private
from vws.node.vouching import must_be_vouched, must_be_whole
from vws.ports import Description, Fetch, HypervisorError, Instance, Stream

RUNNING, PAUSED, SHUT_OFF, CRASHED = "running", "paused", "shut off", "crashed"
_STATES = {
    RUNNING: Observation.RUNNING,
    PAUSED: Observation.PAUSED,
    SHUT_OFF: Observation.STOPPED,
    CRASHED: Observation.BROKEN,
}
_OFF: dict[str, Any] = {"state": SHUT_OFF, "reason": ""}
_CRASH: dict[str, Any] = {"state": CRASHED, "reason": "the guest crashed (simulated)"}
_SLEEP = re.compile(r"\s*sleep\s+(\d+(?:\.\d+)?)\s*")
_EXIT = re.compile(r"\s*exit\s+(\d{1,3})\s*")


def _must_have_keys(order: WorkspaceOrder, keys: WorkspaceKeys | None) -> None:
    """A simulated disk is not encrypted, for it holds nothing; but what a real node would miss is missed."""
    if order.encrypted:
        needed(order, keys)


class FakeHypervisor:
    """The Hypervisor port on `directory`. `now`: UTC seconds, by which guests boot."""

    def __init__(
        self, directory: Path, config: FakeConfig | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self.config = config or FakeConfig()
        self._directory = directory
        self._now = now
        self._shelf = JournalShelf(directory / "things") if self.config.durable else MemoryShelf()
        self._consoles: dict[str, bytes] = {}
        self._news: asyncio.Queue[str] = asyncio.Queue()
        self._tries: dict[tuple[str, str], int] = {}
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._full = False
        self._unreachable = ""
        self._cut = ""
        # What simulated guests boot from is never opened.
        self._images = ImageCache(
            directory, limit_bytes=self.config.cache_bytes, in_use=self._images_in_use, looks=False
        )
        self._images.open()
        make_private(directory / "consoles")
        make_private(directory / "captures")

    # -------------------------------------------------------- the node

    @property
    def images(self) -> ImageCache:
        return self._images

    async def open(self, orders: NodeOrders | None) -> None:
        self._check_reachable()
        if orders:
            self._shelf.put("network", "bridge", {"subnet": orders.subnet, "gateway": orders.gateway})
            for network in orders.networks:
                self._shelf.put("network", network.id, to_json(network))
            for id in self._shelf.ids("network") - {network.id for network in orders.networks} - {"bridge"}:
                self._shelf.drop("network", id)
        for id in self._shelf.ids("domain"):
            self._expect_end(id)

    async def mend(self) -> None:
        if self._cut:
            raise HypervisorError(self._cut)

    async def close(self, *, tear_down: bool) -> None:
        for timer in self._ends.values():
            timer.cancel()
        self._ends.clear()
        if tear_down:
            for id in self._shelf.ids("network"):
                self._shelf.drop("network", id)

    async def describe(self) -> Description:
        self._check_reachable()
        config = self.config
        capacity = Capacity(
            config.cpus, config.memory_mib, config.disk_mib, config.cpu_ratio, bandwidth_mbit=config.bandwidth_mbit
        )
        return Description(capacity, "fake", "simulated, as configured", config.traits())

    async def instances(self) -> Sequence[Instance]:
        self._check_reachable()
        ids = set().union(*(self._shelf.ids(kind) for kind in KINDS))
        return [self._instance(id) for id in sorted(ids)]

    def changes(self) -> AsyncIterator[str]:
        return self._changes()

    async def _changes(self) -> AsyncIterator[str]:
        while True:
            id = await self._news.get()
            self._check_reachable()
            yield id

    def _check_reachable(self) -> None:
        if self._unreachable:
            raise HypervisorError(self._unreachable)

    def _instance(self, id: str) -> Instance:
        note = self._shelf.get("note", id) or {}
        domain, saved = self._domain(id), self._shelf.get("saved", id)
        here = domain or saved or {}
        unrun = Observation.SUSPENDED if saved else Observation.STOPPED
        state = _STATES[domain["state"]] if domain else unrun
        return Instance(
            id=id,
            state=state,
            boots=note.get("boots", 0),
            created=bool(note.get("created")) and self._shelf.get("overlay", id) is not None,
            end=note.get("end", 0),
            reason=here.get("reason", "") if state is Observation.BROKEN else "",
            host_key=note.get("host_key", ""),
            memory_mib=here.get("memory_mib", 0),
            memory_defined_mib=here.get("memory_defined_mib", 0),
            exit_status=self._exit_status(note, domain),
        )

    @staticmethod
    def _exit_status(note: dict[str, Any], domain: dict[str, Any] | None) -> int | None:
        """Of the command that ended in this run or in an earlier one."""
        now = domain.get("exit_status") if domain else None
        return note.get("exit_status") if now is None else now

    def _domain(self, id: str) -> dict[str, Any] | None:
        """The domain as it is by now: a guest whose end was set may have met it while nobody watched."""
        domain = self._shelf.get("domain", id)
        if domain and domain["state"] == RUNNING and 0 < domain["ends_at"] <= self._now():
            ending: dict[str, Any] = domain["ending"]
            return domain | ending
        return domain

    # -------------------------------------------------------- making

    async def create(self, order: WorkspaceOrder, fetch: Fetch, step: Any, keys: WorkspaceKeys | None = None) -> None:
        must_be_vouched(order)
        note = self._shelf.get("note", order.id) or {"boots": 0}
        files = [file.sha256 for file in order.all_files]
        self._shelf.put("note", order.id, note | {"end": order.end, "host_key": host_key(order.id), "images": files})
        await self._images.ensure(order.all_files, fetch, step)
        reach("agent.image.fetched")
        await self._take(self.config.create_s)
        self._fail_by_chance("create", order.id)
        if self._full:
            raise HypervisorError("the disk cannot be made: no space is left on the node")
        step("making the disk")
        _must_have_keys(order, keys)
        beside = {name: size_mib for name, size_mib in _own_disks(order).items() if name}
        overlay = {"image": order.image, "disk_mib": order.disk_mib, "beside": beside, "encrypted": order.encrypted}
        self._shelf.put("overlay", order.id, overlay)
        reach("agent.disks.made")
        reach("agent.overlay.made")
        self._shelf.put("seed", order.id, {"name": order.name, "ssh_keys": list(order.ssh_keys)})
        reach("agent.seed.made")
        self._check_networks(order)
        self._shelf.put("dhcp", order.id, {nic.mac: nic.address for nic in order.interfaces})
        reach("agent.address.entered")
        self._note(order.id, created=True)
        reach("agent.created")

    def _check_networks(self, order: WorkspaceOrder) -> None:
        for nic in order.interfaces:
            if nic.network and self._shelf.get("network", nic.network) is None:
                raise HypervisorError(
                    f"the network {nic.network}: this node's orders do not have it; it is tried again"
                )

    def _images_in_use(self) -> set[str]:
        notes = (self._shelf.get("note", id) or {} for id in self._shelf.ids("note"))
        return {sha256 for note in notes for sha256 in note.get("images", ())}

    async def start(self, order: WorkspaceOrder, keys: WorkspaceKeys | None = None) -> None:
        note = self._present(order.id)
        domain = self._domain(order.id)
        if domain and domain["state"] in (RUNNING, PAUSED) and note["boots"] >= order.boots:
            return
        await asyncio.to_thread(must_be_whole, order, self._images)
        self._check_disks(order)
        _must_have_keys(order, keys)
        self._note(order.id, boots=order.boots, exit_status=self._exit_status(note, domain))
        reach("agent.boot.noted")
        await self._take(self.config.start_s)
        self._fail_by_chance("start", order.id)
        self._shelf.drop("saved", order.id)
        self._shelf.put("tap", order.id, {"macs": [nic.mac for nic in order.interfaces]})
        self._shelf.put("domain", order.id, self._new_domain(order, runs_command=not note.get("command_begun")))
        self._note(order.id, command_begun=True)
        self._write_console(order.id, _boot_lines(order))
        self._expect_end(order.id)
        reach("agent.domain.started")

    def _check_disks(self, order: WorkspaceOrder) -> None:
        kept = self._shelf.get("overlay", order.id) or {}
        found = {"": kept.get("disk_mib"), **kept.get("beside", {})}
        for name, size_mib in _own_disks(order).items():
            if found.get(name) != size_mib:
                said = f"disk {name}" if name else "root disk"
                raise HypervisorError(
                    f"its {said} has {found.get(name, 0)} MiB and not the {size_mib} MiB ordered; it was left as it is",
                    final=True,
                )

    def _new_domain(self, order: WorkspaceOrder, *, runs_command: bool) -> dict[str, Any]:
        config, chance, now = self.config, self._chance("boot", order.id, order.boots), self._now()
        up_at = now + max(0.0, config.boot_s + config.boot_spread_s * (2 * chance.random() - 1))
        if chance.random() < config.failures.get("guest", 0):
            up_at = float(1 << 40)  # it never answers
        ends = []
        if chance.random() < config.failures.get("crash", 0):
            ends.append((up_at + chance.expovariate(1 / config.crash_after_s), _CRASH))
        if order.command and runs_command:
            takes_s, status = _simulated(order.command)
            ends.append((up_at + config.command_s + takes_s, _OFF | {"exit_status": status}))
        ends_at, ending = min(ends, key=lambda end: end[0], default=(0, {}))
        return {
            "state": RUNNING,
            "name": order.name,
            "started_at": now,
            "up_at": up_at,
            "ends_at": ends_at,
            "ending": ending,
            "cpus": order.cpus,
            "memory_mib": min(order.memory_mib, order.memory_defined_mib),
            "memory_defined_mib": order.memory_defined_mib,
        }

    async def guest_up(self, order: WorkspaceOrder) -> bool:
        domain = self._domain(order.id)
        return domain is not None and domain["state"] == RUNNING and self._now() >= domain["up_at"]

    # -------------------------------------------------------- changing

    async def pause(self, id: str) -> None:
        domain = self._live(id, "pause")
        await self._take(self.config.pause_s)
        self._fail_by_chance("pause", id)
        if domain["state"] == RUNNING:
            self._shelf.put("domain", id, domain | {"state": PAUSED, "paused_at": self._now()})
            self._expect_end(id)

    async def resume(self, id: str) -> None:
        domain = self._live(id, "resume")
        await self._take(self.config.pause_s)
        self._fail_by_chance("resume", id)
        if domain["state"] == PAUSED:
            self._put_running(id, domain, since=domain["paused_at"])

    def _put_running(self, id: str, domain: dict[str, Any], *, since: float) -> None:
        """As if no time had passed for the guest since then."""
        slept_s = self._now() - since
        ends_at = domain["ends_at"] + slept_s if domain["ends_at"] else 0
        self._shelf.put(
            "domain", id, domain | {"state": RUNNING, "up_at": domain["up_at"] + slept_s, "ends_at": ends_at}
        )
        self._expect_end(id)

    async def suspend(self, id: str, keys: WorkspaceKeys | None = None) -> None:
        if self._shelf.get("saved", id) and not self._shelf.get("domain", id):
            return
        domain = self._live(id, "suspend")
        own_passphrase(bool((self._shelf.get("overlay", id) or {}).get("encrypted")), keys)
        reach("agent.suspend.begun")
        await self._take(self.config.suspend_s)
        self._fail_by_chance("suspend", id)
        if self._full:
            raise HypervisorError("its memory cannot be saved: no space is left on the node")
        since = domain["paused_at"] if domain["state"] == PAUSED else self._now()
        self._shelf.put("saved", id, domain | {"saved_at": since})
        self._drop_domain(id)
        reach("agent.suspended")

    async def restore(self, order: WorkspaceOrder, keys: WorkspaceKeys | None = None) -> None:
        saved = self._shelf.get("saved", order.id)
        domain = self._domain(order.id)
        if domain and domain["state"] in (RUNNING, PAUSED):
            self._shelf.drop("saved", order.id)
            return
        if saved is None:
            raise HypervisorError("there is no saved memory to restore it from", final=True)
        await asyncio.to_thread(must_be_whole, order, self._images)
        _must_have_keys(order, keys)
        await self._take(self.config.restore_s)
        self._fail_by_chance("restore", order.id)
        self._shelf.put("tap", order.id, {"macs": [nic.mac for nic in order.interfaces]})
        self._put_running(order.id, saved, since=saved["saved_at"])
        self._shelf.drop("saved", order.id)
        reach("agent.restored")

    async def stop(self, id: str, *, grace_s: float) -> None:
        domain = self._domain(id)
        if domain and domain["state"] in (RUNNING, PAUSED):
            await self._take(min(grace_s, self.config.stop_s))
            self._fail_by_chance("stop", id)
            self._end_domain(id, _OFF)
        self._shelf.drop("saved", id)
        reach("agent.stopped")

    async def resize(self, order: WorkspaceOrder) -> None:
        domain = self._live(order.id, "resize")
        self._fail_by_chance("resize", order.id)
        memory_mib = min(order.memory_mib, domain["memory_defined_mib"])
        self._shelf.put("domain", order.id, domain | {"cpus": order.cpus, "memory_mib": memory_mib})

    async def update(self, order: WorkspaceOrder) -> None:
        self._present(order.id)
        self._note(order.id, end=order.end)

    async def remove(self, id: str) -> None:
        await self._take(self.config.remove_s)
        self._fail_by_chance("remove", id)
        self._drop_domain(id)
        reach("agent.domain.destroyed")
        self._shelf.drop("saved", id)
        self._shelf.drop("overlay", id)
        reach("agent.overlay.removed")
        reach("agent.address.released")
        self._shelf.drop("dhcp", id)
        reach("agent.address.removed")
        self._shelf.drop("seed", id)
        reach("agent.seed.removed")
        self._images.touch((self._shelf.get("note", id) or {}).get("images", ()))
        self._shelf.drop("note", id)
        reach("agent.removed")

    # -------------------------------------------------------- saving

    async def take(self, order: CaptureOrder) -> None:
        """What a simulated guest changed is nothing: an empty disk of its size."""
        target = self._captured(order.id)
        if target.exists():
            return
        overlay = self._shelf.get("overlay", order.workspace)
        if overlay is None:
            raise HypervisorError("its disk is not on the node any more", final=True)
        target.parent.mkdir(exist_ok=True)
        new = target.with_suffix(".new")
        size = f"{overlay['disk_mib']}M"
        await asyncio.to_thread(Commands().run, "qemu-img", "create", "-q", "-f", "qcow2", new, size)
        reach("agent.capture.copied")
        runs = (self._domain(order.workspace) or {}).get("state") in (RUNNING, PAUSED)
        target.with_name("quiesced").write_text(Quiesced.PAUSE if runs and not order.at_end else Quiesced.OFF)
        new.rename(target)
        reach("agent.capture.kept")

    async def delta(self, order: CaptureOrder) -> Path:
        return self._captured(order.id)

    async def quiesced(self, id: str) -> Quiesced:
        return Quiesced((self._captured(id).with_name("quiesced")).read_text())

    async def captures(self, *, taken: bool = False) -> set[str]:
        found = (path.name for path in (self._directory / "captures").iterdir())
        return {id for id in found if not taken or self._captured(id).exists()}

    async def drop_capture(self, id: str) -> None:
        shutil.rmtree(self._captured(id).parent, ignore_errors=True)

    def _captured(self, id: str) -> Path:
        return self._directory / "captures" / id / "delta.qcow2"

    # -------------------------------------------------------- consoles and connections

    async def console(self, id: str, *, tail_bytes: int) -> bytes:
        domain = self._shelf.get("domain", id)
        if domain and not domain.get("greeted") and self._now() >= domain["up_at"]:
            self._shelf.put("domain", id, domain | {"greeted": True})
            self._write_console(id, f"\r\nSimulated Linux on ttyS0\r\n\r\n{domain['name']} login: ".encode())
        return self._read_console(id)[-tail_bytes:] if tail_bytes > 0 else b""

    async def connect(self, order: WorkspaceOrder, port: int) -> Stream:
        if not await self.guest_up(order):
            raise HypervisorError(f"the guest of {order.name} is not up")
        if port != 22:
            raise HypervisorError(f"nothing listens on port {port} of {order.name}")
        return FakeGuestStream()

    def _write_console(self, id: str, data: bytes) -> None:
        if not self.config.durable:
            self._consoles[id] = self._consoles.get(id, b"") + data
            return
        with (self._directory / "consoles" / id).open("ab") as file:
            file.write(data)

    def _read_console(self, id: str) -> bytes:
        if not self.config.durable:
            return self._consoles.get(id, b"")
        try:
            return (self._directory / "consoles" / id).read_bytes()
        except FileNotFoundError:
            return b""

    # -------------------------------------------------------- things

    def _present(self, id: str) -> dict[str, Any]:
        note = self._shelf.get("note", id)
        if note is None or self._shelf.get("overlay", id) is None:
            raise HypervisorError("its disk has vanished from the node", final=True)
        return note

    def _live(self, id: str, to: str) -> dict[str, Any]:
        domain = self._domain(id)
        if domain is None or domain["state"] not in (RUNNING, PAUSED):
            raise HypervisorError(f"cannot {to} it: it does not run")
        return domain

    def _note(self, id: str, **changes: Any) -> None:
        self._shelf.put("note", id, (self._shelf.get("note", id) or {}) | changes)

    def _drop_domain(self, id: str) -> None:
        self._shelf.drop("domain", id)
        self._shelf.drop("tap", id)
        self._expect_end(id)

    def _end_domain(self, id: str, ending: dict[str, Any]) -> None:
        """The domain ends and its tap goes, as with QEMU; why is remembered."""
        domain = self._shelf.get("domain", id)
        if domain:
            self._shelf.put("domain", id, domain | ending | {"ends_at": 0})
            self._shelf.drop("tap", id)
        self._expect_end(id)

    def _expect_end(self, id: str) -> None:
        """Have the news of an end ready when it comes."""
        timer = self._ends.pop(id, None)
        if timer:
            timer.cancel()
        domain = self._shelf.get("domain", id)
        if domain and domain["state"] == RUNNING and domain["ends_at"]:
            delay_s = max(0.0, domain["ends_at"] - self._now())
            loop = asyncio.get_running_loop()
            self._ends[id] = loop.call_later(delay_s, self._end_by_itself, id, domain["ending"])

    def _end_by_itself(self, id: str, ending: dict[str, Any]) -> None:
        self._end_domain(id, ending)
        self._news.put_nowait(id)

    async def _take(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(seconds)

    def _chance(self, step: str, id: str, nth: int) -> random.Random:
        return random.Random(f"{self.config.seed}/{id}/{step}/{nth}")

    def _fail_by_chance(self, step: str, id: str) -> None:
        probability = self.config.failures.get(step, 0)
        if not probability:
            return
        nth = self._tries[step, id] = self._tries.get((step, id), 0) + 1
        if self._chance(step, id, nth).random() < probability:
            raise HypervisorError(f"{step} failed (simulated)")

    # -------------------------------------------------------- what befalls a node, for tests and trials

    def crash(self, id: str, reason: str = _CRASH["reason"]) -> None:
        self._end_by_itself(id, _CRASH | {"reason": reason})

    def power_off(self, id: str) -> None:
        """By the guest itself."""
        self._end_by_itself(id, _OFF)

    def lose_disk(self, id: str) -> None:
        for kind in ("domain", "tap", "overlay"):
            self._shelf.drop(kind, id)
        self._news.put_nowait(id)

    def fill_disk(self, full: bool = True) -> None:
        """No disk can be made and no memory saved until it is emptied again."""
        self._full = full

    def break_down(self, reason: str) -> None:
        """The hypervisor's daemon cannot be reached until `reason` is ""."""
        self._unreachable = reason
        self._news.put_nowait("")

    def cut_network(self, reason: str) -> None:
        """The guests' network cannot be put right until `reason` is ""."""
        self._cut = reason

    def remains(self) -> dict[str, set[str]]:
        """What is there of each workspace, by kind; empty when nothing leaked."""
        ids = {id for kind in KINDS for id in self._shelf.ids(kind)}
        return {id: {kind for kind in KINDS if id in self._shelf.ids(kind)} for id in ids}


class FakeGuestStream:
    """An SSH server's banner, then an echo."""

    def __init__(self) -> None:
        self._data: asyncio.Queue[bytes] = asyncio.Queue(maxsize=16)
        self._data.put_nowait(b"SSH-2.0-fake\r\n")
        self._rest = b""

    async def read(self, size: int = 65536) -> bytes:
        data = self._rest or await self._data.get()
        self._rest = data[size:]
        return data[:size]

    async def write(self, data: bytes) -> None:
        if data:
            await self._data.put(data)

    async def close(self) -> None:
        while self._data.full():
            self._data.get_nowait()
        self._data.put_nowait(b"")


def _own_disks(order: WorkspaceOrder) -> dict[str, int]:
    """How large each may become, MiB; "": the root's."""
    return {"": order.disk_mib} | {disk.name: disk.size_mib for disk in order.disks if not disk.shared}


def host_key(id: str) -> str:
    """A public key in OpenSSH's form, of which nobody has the private half."""
    kind = b"ssh-ed25519"
    blob = struct.pack(">I", len(kind)) + kind + struct.pack(">I", 32) + hashlib.sha256(id.encode()).digest()
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def _simulated(command: str) -> tuple[float, int]:
    """(how many seconds it sleeps, the exit status)"""
    takes_s = 0.0
    for line in command.splitlines():
        if found := _EXIT.fullmatch(line):
            return takes_s, int(found[1]) & 255
        if found := _SLEEP.fullmatch(line):
            takes_s += float(found[1])
    return takes_s, 0


def _boot_lines(order: WorkspaceOrder) -> bytes:
    lines = [
        f"[    0.000000] Linux version 6.1.0 (simulated), boot {order.boots} of {order.name}",
        f"[    0.000000] Command line: console=ttyS0 {order.cmdline}".rstrip(),
        f"[    0.004000] Memory: {order.memory_defined_mib}M available, {order.cpus_defined} CPUs",
        *(
            f"[    0.41200{n % 10}] virtio_net virtio{n} eth{n}: {nic.mac}, address {nic.address}"
            for n, nic in enumerate(order.interfaces)
        ),
        "[    0.530000] init: starting",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()
