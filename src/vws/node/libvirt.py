"""The real hypervisor: workspaces as libvirt domains on this machine.

This module is the port's surface: it orders the steps of each call, and moves
everything that blocks into threads. What the steps do is next door: namespace.py
and daemons.py (where the domains live), networks.py, door.py, images.py, creation.py,
domains.py.

A call may be cut off by a kill at any point and is then simply repeated: each
part is made under another name and renamed, or looked for first. What exists
follows from looking (folders, domains, DHCP entries), never from a journal.

In the directory: workspaces/ and consoles/ (records.py), images/ (images.py),
network/ (network.py), networks/ (room.py), libvirt/ (daemons.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import libvirt

from vws.core.deployment import CaptureOrder, NodeOrders, Quiesced, WorkspaceKeys, WorkspaceOrder
from vws.core.site import Capacity
from vws.faultpoints import reach
from vws.node.captures import CaptureFolders
from vws.node.config import NodeConfig
from vws.node.connection import Connection, explain
from vws.node.cpushare import CpuGroups
from vws.node.creation import Creation
from vws.node.daemons import SEEN_IN_RUN, Libvirtd
from vws.node.domain_xml import EMULATOR, TB_CACHE_MIB, Host
from vws.node.domains import Domains, Surroundings
from vws.node.door import Door
from vws.node.eviction import parse_limit
from vws.node.guest_tcp import connect, ssh_answers
from vws.node.images import ImageCache
from vws.node.inventory import bandwidth_mbit, traits
from vws.node.mirror import begin_mirror, end_mirror, finish_mirror
from vws.node.namespace import Machine, Namespace
from vws.node.naming import check_capture, check_id, check_order, is_id, tag_of
from vws.node.networks import Networks
from vws.node.records import Records
from vws.node.resting import Resting
from vws.node.vouching import must_be_vouched, must_be_whole
from vws.ports import Description, Fetch, HypervisorError, Instance, Stream

T = TypeVar("T")
log = logging.getLogger(__name__)

_THREADS = 16
_ANSWER_WITHIN_S = 30.0
_PRESS_AGAIN_S = 1.0
# For a guest to write out what is to be saved at its end.
_LAST_GRACE_S = 10.0
# What QEMU takes beside the guest's memory, measured; under emulation with its cache of translated code.
_QEMU_OWN_MIB = 64
# Reported in steps, or the capacity would change with every block that a guest writes.
_DISK_STEP_MIB = 256


class LibvirtHypervisor:
    """The Hypervisor port for the node `node`, whose files are in `directory`. service: (host, port) to which guests
    are joined at the door; None: there is no door."""

    def __init__(self, directory: Path, node: str, config: NodeConfig, service: tuple[str, int] | None = None) -> None:
        self.config = config
        self.directory = directory.resolve()
        self.tag = tag_of(self.directory)
        if config.isolation not in ("namespace", "host"):
            raise HypervisorError(f"isolation = {config.isolation!r} is neither namespace nor host", final=True)
        self._own = config.isolation == "namespace"
        name = config.namespace or f"vws-{self.tag}"
        self.place: Machine = Namespace(name) if self._own else Machine()
        self._daemons = Libvirtd(self.directory, self.place) if isinstance(self.place, Namespace) else None
        self._records = Records(self.directory)
        self._images = ImageCache(self.directory, limit_bytes=parse_limit(config.cache), in_use=self._images_in_use)
        self._captures = CaptureFolders(self.directory, self._images.directory)
        self._networks = Networks(self.directory, self.place, config.bridge, self.tag)
        self._door = Door(service) if service else None
        self._resting = Resting(lambda id: self._open_domains.find(id), self._records)
        self._creation = Creation(self._records, self._images, self._networks)
        self._groups = CpuGroups(self.tag)
        self._domains: Domains | None = None
        self._kind, self._kind_reason = "", ""
        self._threads = ThreadPoolExecutor(_THREADS, "vws-libvirt")
        self._connecting = threading.Lock()
        self._connection: Connection | None = None
        self._sockets_fd: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: list[asyncio.Queue[str]] = []
        self._ended: dict[str, asyncio.Event] = {}
        self._asked: set[str] = set()

    # -------------------------------------------------------- threads and the connection

    async def _do(self, work: Callable[..., T], *arguments: Any, within_s: float | None = None) -> T:
        """`work` in a thread, its errors in a user's words. `within_s`: give up waiting for libvirt then."""
        try:
            running = asyncio.get_running_loop().run_in_executor(self._threads, self._persist, work, *arguments)
            return await asyncio.wait_for(running, within_s) if within_s else await running
        except TimeoutError:
            raise HypervisorError(f"libvirt did not answer within {within_s:g} s") from None
        except libvirt.libvirtError as error:
            raise explain(error) from None
        except OSError as error:
            raise HypervisorError(_said(error)) from None

    def _persist(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work`, once more if libvirtd died in the middle of it: every step may be repeated."""
        try:
            return work(*arguments)
        except libvirt.libvirtError:
            if self._connection is None or self._connection.usable:
                raise
            return work(*arguments)

    def _api(self) -> libvirt.virConnect:
        """The open connection; libvirtd is started again if it has died."""
        with self._connecting:
            if self._connection is None or not self._connection.usable:
                self._disconnect()
                self._connection = self._connected()
            return self._connection.api

    def _connected(self) -> Connection:
        if self._loop is None:
            raise HypervisorError("the hypervisor is not open")
        if self._daemons is None:
            return Connection(self.config.libvirt_uri, self._loop, self._news)
        self.place.make()
        self._daemons.ensure()
        self._daemons.wait_ready(10.0)
        if self._sockets_fd is None:
            self._sockets_fd = self._daemons.open_sockets()
        return Connection(self._daemons.uri(self._sockets_fd), self._loop, self._news)

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _news(self, id: str) -> None:
        """On the event loop: something happened to workspace `id`; "" : the connection is lost."""
        for key in [id] if id else list(self._ended):
            if key in self._ended:
                self._ended[key].set()
        if id not in self._asked:
            for listener in self._listeners:
                listener.put_nowait(id)

    @contextlib.contextmanager
    def _asking(self, id: str) -> Iterator[None]:
        """What happens to `id` meanwhile was asked for here, and is no news."""
        self._asked.add(check_id(id))
        try:
            yield
        finally:
            self._asked.discard(id)

    @property
    def _open_domains(self) -> Domains:
        if self._domains is None:
            raise HypervisorError("the hypervisor is not open")
        return self._domains

    # -------------------------------------------------------- the node

    @property
    def images(self) -> ImageCache:
        return self._images

    async def open(self, orders: NodeOrders | None) -> None:
        self._loop = asyncio.get_running_loop()
        await self._do(self._open, orders)
        await self._open_door()

    async def _open_door(self) -> None:
        """In all networks that there are now."""
        if self._door:
            await self._door.open(await self._do(self._networks.doorways))

    def _open(self, orders: NodeOrders | None) -> None:
        first = self._domains is None
        self._records.make_folders()
        if first:
            self._images.open()
        os.chmod(self._images.directory, 0o711)
        if not self._own:
            os.chmod(self.directory, 0o711)
            _check_reachable(self.directory)
        if first:
            self._kind, self._kind_reason = _accelerator(self.config.accelerator)
            self._domains = self._new_domains()
        if first:
            self._open_domains.recover()
        api = self._api()
        self._networks.open(orders, self._open_domains.taps())
        if first:
            self._open_domains.end_mirrors()
            self._resting.look()
            self._records.forget_old_consoles()
            self._threads.submit(_learn_capabilities, api)

    async def mend(self) -> None:
        try:
            await self._do(self._mend)
        finally:
            await self._open_door()

    def _mend(self) -> None:
        self._threads.submit(self._resting.thaw_all)
        if self._networks.due():
            self._networks.mend(self._open_domains.taps())

    def _new_domains(self) -> Domains:
        host = Host(self._kind, self._networks.own.bridge, self.tag)
        libvirt_files = self.directory / "libvirt"
        around = (
            Surroundings(
                libvirt_files / "run/libvirt/qemu", libvirt_files / "log/qemu", self._shown_in_namespace, False
            )
            if self._own
            else Surroundings(Path("/run/libvirt/qemu"), Path("/var/log/libvirt/qemu"), str, True)
        )
        return Domains(self._api, host, self._records, self._images.directory, around, self._groups)

    def _shown(self, path: Path) -> str:
        """As QEMU sees it."""
        return self._shown_in_namespace(path) if self._own else str(path)

    def _shown_in_namespace(self, path: Path) -> str:
        return f"{SEEN_IN_RUN}/{path.relative_to(self.directory)}"

    async def close(self, *, tear_down: bool) -> None:
        if tear_down:
            left = await self.instances() if self._domains else []
            if left:
                raise HypervisorError(f"{len(left)} workspaces are still on the node; it stays as it is")
        await self._do(self._close, tear_down)

    def _close(self, tear_down: bool) -> None:
        with self._connecting:
            self._disconnect()
        self._domains = None
        if self._sockets_fd is not None:
            os.close(self._sockets_fd)
            self._sockets_fd = None
        if tear_down:
            self._tear_down()
        self._networks.let_go()
        self.place.let_go()

    def _tear_down(self) -> None:
        self._groups.close()
        self._networks.close()
        if self._daemons:
            self._daemons.end("libvirtd")
            self.place.destroy()
            self._daemons.clear()

    async def describe(self) -> Description:
        return await self._do(self._described)

    def _described(self) -> Description:
        return Description(self._capacity(), self._kind, self._kind_reason, traits(self.config))

    def _capacity(self) -> Capacity:
        overhead_mib = _QEMU_OWN_MIB + (TB_CACHE_MIB if self._kind == "tcg" else 0)
        memory_mib = _memory_total_mib() - self.config.memory_reserved_mib
        disk_mib = self._disk_mib() - self.config.disk_reserved_mib
        disk_mib -= disk_mib % _DISK_STEP_MIB
        cpus = len(os.sched_getaffinity(0))
        memory_mib, disk_mib = max(0, memory_mib), max(0, disk_mib)
        return Capacity(cpus, memory_mib, disk_mib, self.config.cpu_ratio, overhead_mib, bandwidth_mbit(self.config))

    def _disk_mib(self) -> int:
        """What is free, and what overlays have already taken of what they were promised: the service subtracts the
        whole promise."""
        free = shutil.disk_usage(self.directory).free
        for id in filter(is_id, self._records.ids()):
            for disk in self._records.disks(id):
                with contextlib.suppress(OSError):
                    free += disk.stat().st_blocks * 512
        return free >> 20

    async def instances(self) -> Sequence[Instance]:
        return await self._do(self._instances, within_s=_ANSWER_WITHIN_S)

    def _instances(self) -> list[Instance]:
        domains = self._open_domains.all()
        names = domains.keys() | self._records.ids() | self._networks.ids() | self._groups.ids()
        return [self._open_domains.instance(id, domains.get(id)) for id in sorted(names) if is_id(id)]

    async def changes(self) -> AsyncIterator[str]:
        """Ends with HypervisorError when the connection is lost: `open` anew then."""
        news: asyncio.Queue[str] = asyncio.Queue()
        self._listeners.append(news)
        try:
            while True:
                id = await news.get()
                if not id:
                    raise HypervisorError("the connection to libvirt was lost")
                yield id
        finally:
            self._listeners.remove(news)

    # -------------------------------------------------------- creation

    async def create(self, order: WorkspaceOrder, fetch: Fetch, step: Any, keys: WorkspaceKeys | None = None) -> None:
        check_order(order)
        must_be_vouched(order)
        await self._do(self._creation.begin, order)
        await self._images.ensure(order.all_files, fetch, step)
        reach("agent.image.fetched")
        step("making the disk")
        await self._do(self._creation.finish, order, keys)
        reach("agent.created")

    def _images_in_use(self) -> set[str]:
        records = (self._records.read(id) for id in filter(is_id, self._records.ids()))
        mine = {sha256 for record in records if record for sha256 in record.images}
        return mine | self._captures.images()

    # -------------------------------------------------------- life

    async def start(self, order: WorkspaceOrder, keys: WorkspaceKeys | None = None) -> None:
        check_order(order)
        await self._do(must_be_whole, order, self._images)
        await self._do(self._open_domains.start, order, keys)

    async def guest_up(self, order: WorkspaceOrder) -> bool:
        check_order(order)
        if order.ready == "boot":
            return await self._do(self._open_domains.is_active, order.id)
        main = order.interfaces[0]
        return await ssh_answers(self._networks.place_of(main.network), main.address)

    async def pause(self, id: str) -> None:
        with self._asking(id):
            await self._do(self._open_domains.pause, id)

    async def resume(self, id: str) -> None:
        await self._do(self._open_domains.resume, id)
        await self._do(self._resting.thaw_all)  # an agent that was killed may have left it paused and frozen

    async def suspend(self, id: str, keys: WorkspaceKeys | None = None) -> None:
        with self._asking(id):
            await self._do(self._open_domains.suspend, id, keys)

    async def restore(self, order: WorkspaceOrder, keys: WorkspaceKeys | None = None) -> None:
        check_order(order)
        await self._do(must_be_whole, order, self._images)
        await self._do(self._open_domains.restore, order, keys)
        if self._door:
            for nic in order.interfaces:
                self._door.rouse(nic.network, nic.address)

    async def stop(self, id: str, *, grace_s: float) -> None:
        with self._asking(id):
            domains, ended = self._open_domains, self._ended.setdefault(id, asyncio.Event())
            try:
                ended.clear()
                on = await self._do(domains.ask_off, id)
                if on and not await self._off_within(id, grace_s, ended):
                    await self._do(domains.force_off, id)
            finally:
                self._ended.pop(id, None)
            await self._do(domains.forget_saved, id)
        reach("agent.stopped")

    async def _off_within(self, id: str, grace_s: float, ended: asyncio.Event) -> bool:
        """A guest that has just booted may not have heard the button yet: it is pressed again and again."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        while (left_s := deadline - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), min(left_s, _PRESS_AGAIN_S))
            ended.clear()
            if not await self._do(self._open_domains.ask_off, id):
                return True
        return not await self._do(self._open_domains.is_active, id)

    async def resize(self, order: WorkspaceOrder) -> None:
        check_order(order)
        await self._do(self._open_domains.resize, order)

    async def update(self, order: WorkspaceOrder) -> None:
        check_order(order)
        await self._do(self._keep_end, order)

    def _keep_end(self, order: WorkspaceOrder) -> None:
        record = self._records.need(order.id)
        if record.end != order.end:
            self._records.write(replace(record, end=order.end))

    async def remove(self, id: str) -> None:
        with self._asking(id):
            await self._do(self._remove, id)
        await self._open_door()  # a network may have gone with it
        reach("agent.removed")

    def _remove(self, id: str) -> None:
        record = self._records.read(check_id(id))
        self._open_domains.remove(id)
        self._records.disk(id).unlink(missing_ok=True)
        reach("agent.overlay.removed")
        self._networks.leave(id)
        reach("agent.address.removed")
        self._records.remove(id)
        self._images.touch(record.images if record else ())

    # -------------------------------------------------------- saving

    async def take(self, order: CaptureOrder) -> None:
        check_capture(order)
        if order.at_end:
            await self.stop(order.workspace, grace_s=_LAST_GRACE_S)
        with self._asking(order.workspace):
            await self._do(self._take, order)

    def _take(self, order: CaptureOrder) -> None:
        if self._captures.is_taken(order.id):
            return None
        disk = self._records.disk(order.workspace)
        if not disk.exists():
            raise HypervisorError("its disk is not on the node any more", final=True)
        if order.at_end:
            self._captures.move(order, disk)
            return None
        domain = self._open_domains.find(order.workspace)
        if domain is not None and domain.isActive():
            end_mirror(domain)
            if domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING and self._captures.takes_long(order, disk):
                return self._mirror(order, domain, disk)
        return self._rest(order, lambda: self._captures.copy(order, disk))

    def _mirror(self, order: CaptureOrder, domain: libvirt.virDomain, disk: Path) -> None:
        twin = self._records.twin(order.workspace)
        if self._records.need(order.workspace).encrypted:  # the service orders no such thing
            raise HypervisorError("it is encrypted, and a copy of its disk would not be", final=True)

        def take() -> None:
            finish_mirror(domain)
            self._captures.adopt(order, twin)

        try:
            self._captures.prepare(order, disk, twin)
            begin_mirror(domain, twin, self._shown(twin), self._open_domains.chain(order.beneath))
            self._rest(order, take)
        finally:
            end_mirror(domain)
            twin.unlink(missing_ok=True)

    def _rest(self, order: CaptureOrder, take: Callable[[], None]) -> None:
        with self._resting.rest(order.workspace) as by:
            take()
        self._captures.keep(order, by)

    async def quiesced(self, id: str) -> Quiesced:
        return await self._do(self._captures.quiesced, check_id(id))

    async def delta(self, order: CaptureOrder) -> Path:
        check_capture(order)
        return await self._do(self._captures.delta, order)

    async def captures(self, *, taken: bool = False) -> set[str]:
        ids = await self._do(self._captures.ids)
        return {id for id in ids if not taken or self._captures.is_taken(id)}

    async def drop_capture(self, id: str) -> None:
        await self._do(self._captures.drop, id)

    # -------------------------------------------------------- consoles and connections

    async def console(self, id: str, *, tail_bytes: int) -> bytes:
        return await self._do(self._records.console_tail, id, tail_bytes)

    async def connect(self, order: WorkspaceOrder, port: int) -> Stream:
        check_order(order)
        if not 0 < port < 65536:
            raise HypervisorError(f"{port} is no port", final=True)
        main = order.interfaces[0]
        return await connect(self._networks.place_of(main.network), main.address, port)


def _check_reachable(directory: Path) -> None:
    """The machine's libvirtd opens the node's files by their own paths, as a user without rights."""
    for folder in directory.parents:
        if not folder.stat().st_mode & 0o001:
            raise HypervisorError(
                f"QEMU, which runs without root, cannot pass through {folder}: move the site's directory "
                f"(such as to /var/lib/vws), or allow it (chmod o+x {folder})",
                final=True,
            )


def _accelerator(wanted: str) -> tuple[str, str]:
    """(kvm or tcg, why)"""
    if wanted in ("kvm", "tcg"):
        return wanted, "set by the node's configuration"
    if wanted != "auto":
        raise HypervisorError(f"accelerator = {wanted!r} is none of auto, kvm, tcg", final=True)
    from vws.node.probe import probe_kvm

    found = probe_kvm()
    return ("kvm" if found.works else "tcg"), found.reason


def _learn_capabilities(api: libvirt.virConnect) -> None:
    """libvirtd's first look at QEMU takes seconds; better now than when a user waits for it."""
    with contextlib.suppress(libvirt.libvirtError):
        api.getDomainCapabilities(EMULATOR, "x86_64", "pc", "qemu", 0)


def _memory_total_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) >> 10
    return 0


def _said(error: OSError) -> str:
    if error.errno == 28:
        return "the node's disk is full"
    return f"the node says: {error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
