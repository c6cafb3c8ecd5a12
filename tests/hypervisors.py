"""Nodes to test hypervisors on: a simulated one, and a real one in namespaces that end with it.

A `Site` is one node's place with its image; `site.opened()` is an agent's life on it. What a real node leaves behind
is looked for in the machine itself (`remains_on_machine`), not by asking the code under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from tests.guest.machine import unpack
from vws.core.deployment import NodeOrders, WorkspaceOrder
from vws.core.lifecycle import Desired, Observation
from vws.core.site import ImageFile
from vws.factory.apart import build_apart
from vws.node.config import FakeConfig, NodeConfig
from vws.node.fake import FakeHypervisor
from vws.node.libvirt import LibvirtHypervisor
from vws.node.naming import tag_of
from vws.ports import Hypervisor, Instance

NODE = "nod-1"
GUEST_UP_WITHIN_S = 60.0
MODULES = (
    "fake", "libvirt", "creation", "domains", "disk_secrets", "dnsmasq", "records", "captures", "mirror", "resting",
)  # fmt: skip
REACHES = tuple(f"vws.node.{module}.reach" for module in MODULES)


class Appliance:
    """An image's files in a folder, and a Fetch that counts."""

    def __init__(self, folder: Path, files: tuple[ImageFile, ...], cmdline: str = "") -> None:
        self.folder = folder
        self.files = files
        self.cmdline = cmdline
        self.fetched: list[str] = []
        self.wrong = False

    @classmethod
    def of_bundle(cls, bundle: Path, folder: Path) -> Appliance:
        manifest = unpack(bundle, folder)
        roles = (("kernel", "kernel", "kernel"), ("initrd", "initrd", "initrd"), ("disk", "disk.qcow2", "qcow2"))
        return cls(folder, tuple(image_file(folder, *role) for role in roles), str(manifest["cmdline"]))

    @classmethod
    def of_bytes(cls, folder: Path, data: bytes) -> Appliance:
        """One that only a simulated node can run."""
        (folder / "kernel").write_bytes(data)
        return cls(folder, (image_file(folder, "kernel", "kernel", "kernel"),))

    async def fetch(self, sha256: str, size_bytes: int, target: Path) -> str:
        self.fetched.append(sha256)
        await asyncio.sleep(0.01)
        data = self.by_sha256()[sha256]
        target.write_bytes(data[:-1] + b"?" if self.wrong else data)
        return hashlib.sha256(target.read_bytes()).hexdigest()

    def by_sha256(self) -> dict[str, bytes]:
        return {hashlib.sha256(data).hexdigest(): data for data in self._all()}

    def _all(self) -> list[bytes]:
        return [path.read_bytes() for path in self.folder.iterdir() if path.is_file()]


def image_file(folder: Path, role: str, name: str, format: str) -> ImageFile:
    data = (folder / name).read_bytes()
    return ImageFile(role, hashlib.sha256(data).hexdigest(), len(data), format)


def demo_bundle(folder: Path) -> Path:
    """The demo appliance: the one that is built, if it is of these sources, else built now."""
    root = Path(__file__).parents[1]
    built, recipe = root / "build/appliance/demo.vws", root / "appliances/demo.yaml"
    made_by = [path for room in ("guest", "factory") for path in (root / "src/vws" / room).rglob("*")]
    sources = [recipe, *(path for path in made_by if "__pycache__" not in path.parts)]
    if built.exists() and built.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return built
    build_apart(recipe, folder / "demo.vws", root / "build/cache", lambda at_s, step: None)
    return folder / "demo.vws"


class Site(Protocol):
    """`real`: guests boot, which takes seconds."""

    real: bool
    appliance: Appliance

    def agent(self) -> Hypervisor:
        """The hypervisor as a fresh agent process has it, not open yet."""
        ...

    def order(self, id: str, **settings: Any) -> WorkspaceOrder: ...

    def kill(self, id: str) -> None:
        """End the virtual machine's process, whether an agent watches or not."""
        ...

    def cached(self, sha256: str) -> Path:
        """The node's copy of an image's file."""
        ...

    async def power_off(self, order: WorkspaceOrder) -> None:
        """As its own root would."""
        ...

    def disks(self, id: str) -> dict[str, int]:
        """The disks that are the workspace's own, by name, and how large each may become, MiB; "": the root's."""
        ...

    def remains(self) -> set[str]:
        """Ids of which anything is left."""
        ...

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Hypervisor]:
        hypervisor = self.agent()
        await hypervisor.open(self.orders)
        try:
            yield hypervisor
        finally:
            await hypervisor.close(tear_down=False)

    @property
    def orders(self) -> NodeOrders:
        return NodeOrders(NODE, 1, "10.77.1.0/24", "10.77.1.1", (), time.time())


def _order(appliance: Appliance, id: str, ssh_keys: tuple[str, ...], settings: dict[str, Any]) -> WorkspaceOrder:
    number = 2 + int(id.split("-")[1])
    base = WorkspaceOrder(
        id=id,
        name=id.replace("wsp", "ws"),
        lease="lse-1",
        desired=Desired.RUN,
        boots=1,
        may_create=True,
        end=int(time.time()) + 3600,
        image="img-1",
        files=appliance.files,
        boot="direct",
        cmdline=appliance.cmdline,
        user="root",
        ready="ssh",
        boot_limit_s=300,
        cpus=1,
        cpus_defined=1,
        memory_mib=96,
        memory_defined_mib=128,
        disk_mib=64,
        mac=f"02:77:0a:4d:01:{number:02x}",
        address=f"10.77.1.{number}",
        ssh_keys=ssh_keys,
    )
    return replace(base, **settings)


class FakeSite(Site):
    real = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "node"
        (directory / "image").mkdir()
        self.appliance = Appliance.of_bytes(directory / "image", b"a kernel of sorts")
        self._agents: list[FakeHypervisor] = []

    def agent(self) -> FakeHypervisor:
        self._agents.append(FakeHypervisor(self._directory, FakeConfig.instant()))
        return self._agents[-1]

    def order(self, id: str, **settings: Any) -> WorkspaceOrder:
        return _order(self.appliance, id, ("ssh-ed25519 AAAA test",), settings)

    def cached(self, sha256: str) -> Path:
        return self._directory / "images" / sha256

    def disks(self, id: str) -> dict[str, int]:
        kept = self.agent()._shelf.get("overlay", id)
        return {"": kept["disk_mib"], **kept["beside"]}

    def kill(self, id: str) -> None:
        self._agents[-1].crash(id, "the virtual machine's process ended unexpectedly")

    async def power_off(self, order: WorkspaceOrder) -> None:
        self._agents[-1].power_off(order.id)

    def remains(self) -> set[str]:
        return set(self.agent().remains())


class LibvirtSite(Site):
    """A real node in `directory`; `bundle` is the demo appliance's."""

    real = True

    def __init__(self, directory: Path, bundle: Path, config: NodeConfig | None = None) -> None:
        self.directory = directory / "node"
        self.directory.mkdir(mode=0o700, parents=True)
        self.config = config or NodeConfig()
        (directory / "image").mkdir()
        self.appliance = Appliance.of_bundle(bundle, directory / "image")
        self.tag = tag_of(self.directory)
        self.namespace = Path(f"/run/netns/vws-{self.tag}")
        self.enter: tuple[str, ...] = ("nsenter", f"--net={self.namespace}")
        self._key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(self._key)], check=True)

    def agent(self) -> LibvirtHypervisor:
        return LibvirtHypervisor(self.directory, NODE, self.config)

    def order(self, id: str, **settings: Any) -> WorkspaceOrder:
        return _order(self.appliance, id, (self._key.with_suffix(".pub").read_text().strip(),), settings)

    def pid(self, id: str) -> int:
        return int((self.directory / f"libvirt/run/libvirt/qemu/vws-{id}.pid").read_text())

    def daemon_pid(self, daemon: str) -> int:
        folder = "network" if daemon == "dnsmasq" else "libvirt/run/libvirt"
        return int((self.directory / folder / f"{daemon}.pid").read_text())

    def cached(self, sha256: str) -> Path:
        return self.directory / "images" / sha256

    def disks(self, id: str) -> dict[str, int]:
        found = {}
        for path in (self.directory / "workspaces" / id).glob("*.qcow2"):
            told = subprocess.check_output(["qemu-img", "info", "-U", "--output=json", path])
            found[path.stem.partition("-")[2]] = json.loads(told)["virtual-size"] >> 20
        return found

    def kill(self, id: str) -> None:
        os.kill(self.pid(id), signal.SIGKILL)

    async def power_off(self, order: WorkspaceOrder) -> None:
        await self.run(order, "(sleep 0.2; poweroff) >/dev/null 2>&1 &")

    async def run(self, order: WorkspaceOrder, command: str, host_key: str = "") -> str:
        """What a command in the guest prints; its host key must be `host_key` if that is given."""
        known = self._key.with_name("known_hosts")
        known.write_text(f"{order.address} {host_key}\n")
        checking = "yes" if host_key else "no"
        return await asyncio.to_thread(
            subprocess.check_output,
            [
                *(*self.enter, "ssh", "-i", str(self._key), "-o", "ConnectTimeout=10"),
                *("-o", f"StrictHostKeyChecking={checking}", "-o", f"UserKnownHostsFile={known}"),
                *("-o", "LogLevel=ERROR", f"root@{order.address}", command),
            ],
            timeout=30,
            text=True,
        )

    def remains(self) -> set[str]:
        """By looking at files, processes, taps and CPU groups."""
        names = [path.name for path in self.directory.glob("workspaces/*")]
        names += [path.name for path in self.directory.glob("network/[an]*s/*")]
        names += [path.name for path in self.directory.glob("networks/*/[an]*s/*")]
        names += [path.name for path in Path("/sys/fs/cgroup").glob(f"*/vws-{self.tag}/wsp-*")]
        names += [path.stem for path in self.directory.glob("libvirt/etc/qemu/*.xml")]
        names += [path.stem for path in self.directory.glob("libvirt/log/qemu/vws-*.log")]
        names += [f"tap {name}" for name in self._taps()]
        with contextlib.suppress(FileNotFoundError):
            names += (self.directory / "network/leases").read_text().splitlines()
        return {name.removeprefix("vws-") for name in names}

    def _taps(self) -> list[str]:
        if self.enter and not self.namespace.exists():
            return []
        links = subprocess.check_output([*self.enter, "ip", "-json", "link"])
        return [link["ifname"] for link in json.loads(links) if link["ifname"].startswith("vnet")]

    def tear_down(self) -> None:
        """As an agent that retires: remove what is there, then the node; nothing may be left on the machine.

        What cannot be removed that way is a failure, and removed by force: the machine goes on."""

        async def retire() -> None:
            hypervisor = self.agent()
            await hypervisor.open(None)
            for instance in await hypervisor.instances():
                await hypervisor.remove(instance.id)
            await hypervisor.close(tear_down=True)

        before = self.processes()
        try:
            asyncio.run(retire())
            # This module's assertions are not rewritten: what is wrong must be said.
            left = remains_on_machine(self.tag, self.directory)
            assert left == [], left
            alive = [process for process in before if process.alive]
            assert alive == [], alive
            assert self.remains() == set(), self.remains()
        finally:
            self._clear_away()

    def processes(self) -> list[Process]:
        """All that live in the node's network namespaces; once those are gone, another may get their inodes."""
        inodes, found = {path.stat().st_ino for path in self._namespaces()}, []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (folder / "ns/net").stat().st_ino in inodes:
                    found.append(Process.of(int(folder.name)))
        return found

    def _namespaces(self) -> list[Path]:
        return list(self.namespace.parent.glob(f"{self.namespace.name}*"))

    def lose_power(self) -> None:
        """Everything that runs is gone at once; files stay."""
        self._clear_away()

    def _clear_away(self) -> None:
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        for namespace in self._namespaces():
            subprocess.run(["umount", "--lazy", namespace], check=False)
            namespace.unlink(missing_ok=True)
        for group in sorted(Path("/sys/fs/cgroup").glob(f"*/vws-{self.tag}/**/"), reverse=True):
            with contextlib.suppress(OSError):
                group.rmdir()


@dataclass(frozen=True)
class Process:
    pid: int
    command: str
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        return cls(pid, command, _stat(pid)[19])

    @property
    def alive(self) -> bool:
        """A zombie is not: it waits for a parent that is none of ours."""
        with contextlib.suppress(OSError):
            state, *rest = _stat(self.pid)
            return state != "Z" and rest[18] == self.started
        return False


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on (proc(5): field 3), which is past the name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def remains_on_machine(tag: str, directory: Path) -> list[str]:
    """Namespaces, mounts, sockets and CPU groups of a node that should be gone."""
    found = [str(path) for path in Path("/run/netns").glob(f"vws-{tag}*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/vws-{tag}")]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found += [line for line in mounts if tag in line or str(directory) in line]
    found += [str(path) for path in directory.rglob("*") if path.is_socket()]
    found += [str(path) for path in directory.glob("networks/*")]
    return found


def machine_network() -> list[Any]:
    """The machine's own interfaces, addresses, routes and firewall."""
    questions = (("ip", "-json", "address"), ("ip", "-json", "route"), ("nft", "-j", "list", "ruleset"))
    answers = [json.loads(subprocess.check_output(question) or b"[]") for question in questions]
    for link in answers[0]:
        for address in link["addr_info"]:
            address.pop("valid_life_time", None), address.pop("preferred_life_time", None)
    return answers


async def seen(hypervisor: Hypervisor, id: str) -> Instance | None:
    return next((i for i in await hypervisor.instances() if i.id == id), None)


async def until(hypervisor: Hypervisor, id: str, state: Observation, within_s: float = 10.0) -> Instance:
    deadline = time.monotonic() + within_s
    while True:
        instance = await seen(hypervisor, id)
        if instance and instance.state is state:
            return instance
        assert time.monotonic() < deadline, f"not {state} within {within_s} s: {instance}"
        await asyncio.sleep(0.05)


async def until_up(hypervisor: Hypervisor, order: WorkspaceOrder) -> None:
    deadline = time.monotonic() + GUEST_UP_WITHIN_S
    while not await hypervisor.guest_up(order):
        tail = await hypervisor.console(order.id, tail_bytes=400)
        assert time.monotonic() < deadline, f"the guest does not answer; its console: {tail!r}"
        await asyncio.sleep(0.1)


async def boot(hypervisor: Hypervisor, site: Site, order: WorkspaceOrder) -> None:
    await hypervisor.create(order, site.appliance.fetch, lambda text: None)
    await hypervisor.start(order)
    await until_up(hypervisor, order)


class Cut(Exception):
    """The agent died here."""


def cut_at(monkeypatch: Any, point: str) -> None:
    """Have the next call of whichever hypervisor end at a fault point, as by a kill."""

    def reach(name: str) -> None:
        if name == point:
            raise Cut(name)

    for place in REACHES:
        monkeypatch.setattr(place, reach)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run
