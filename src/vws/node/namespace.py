"""Where a node's network lives: in a network namespace of its own, or in the machine's.

With a namespace the machine's interfaces, addresses, routes and firewall stay as
they were, and several nodes live on one machine. It is named in /run/netns, so
that `ip netns exec vws-…` works for an administrator, but made without `ip netns
add`, which would turn /run/netns into a mount that stays.

The agent itself stays outside. A socket belongs to the namespace of the thread
that opens it, whoever uses it later: one thread per node has entered the
namespace for good, opens sockets there, and does nothing else.

A process is known as the node's by the namespace that it lives in, which no
other process can have by chance; pid files alone would not tell a reused pid.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from vws.node.commands import Commands
from vws.ports import HypervisorError

T = TypeVar("T")
log = logging.getLogger(__name__)

_CLONE_NEWNET = 0x40000000
_MNT_DETACH = 2
_NAMES = Path("/run/netns")
_ENDED_WITHIN_S = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


class Machine:
    """The machine's own network. `commands` run there; `name`: that of a namespace, None here."""

    name: str | None = None

    def __init__(self) -> None:
        self.commands = Commands()
        self._thread: ThreadPoolExecutor | None = None
        self._is_inside = False

    def make(self) -> None: ...

    def inode(self) -> int | None:
        """Tells this network from any other, also from one that was made anew in its place; None: it is not there."""
        return _namespace_of(os.getpid())

    def holds(self, pid: int) -> bool:
        """Is `pid` alive and in this network?"""
        inode = self.inode()
        return inode is not None and _namespace_of(pid) == inode

    def inside(self, do: Callable[[], T]) -> Future[T]:
        """Have `do`, which must not block for long, done by a thread that is in this network."""
        if self._thread is None:
            self._thread, self._is_inside = ThreadPoolExecutor(1, "vws-net"), False
        return self._thread.submit(self._do_inside, do)

    def _do_inside(self, do: Callable[[], T]) -> T:
        """In the thread. One that cannot enter says so, and tries again the next time."""
        if not self._is_inside:
            self._enter()
            self._is_inside = True
        return do()

    def _enter(self) -> None: ...

    def let_go(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def destroy(self) -> None:
        self.let_go()


class Namespace(Machine):
    """A network namespace named `name`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.path = _NAMES / name
        self.commands = Commands(("nsenter", f"--net={self.path}", "--"))

    @property
    def exists(self) -> bool:
        """A file of that name that is no namespace is left over from before the machine's last boot."""
        try:
            return self.path.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
        except FileNotFoundError:
            return False

    def make(self) -> None:
        """Make it, unless it is there; its loopback is still down."""
        if self.exists:
            return
        self.let_go()
        _NAMES.mkdir(mode=0o755, exist_ok=True)
        self.path.touch(mode=0o444)
        Commands().run("unshare", f"--net={self.path}", "true")

    def inode(self) -> int | None:
        return self.path.stat().st_ino if self.exists else None

    def processes(self) -> list[int]:
        inode = self.inode()
        if inode is None:
            return []
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
        return [pid for pid in pids if _namespace_of(pid) == inode]

    def _enter(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(fd, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"the namespace {self.name} cannot be entered")
        finally:
            os.close(fd)

    def destroy(self) -> None:
        """End what lives in it and remove it; a repeat is harmless."""
        self.let_go()
        end_processes(self.processes)
        if self.exists and _libc.umount2(os.fsencode(self.path), _MNT_DETACH):
            raise HypervisorError(f"the namespace {self.name} stays: {os.strerror(ctypes.get_errno())}")
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            # `ip netns` mounts the folder over itself when it is first used, and what was there by then is there twice.
            if error.errno != errno.EBUSY:
                raise
            log.warning("%s stays, an empty file: something was mounted over %s", self.path, _NAMES)
        with contextlib.suppress(OSError):  # in use by others, or a mount of `ip netns`
            _NAMES.rmdir()


def end_processes(alive: Callable[[], list[int]]) -> None:
    """Ask what `alive` lists to end, then force it; HypervisorError if something stays."""
    for asked in (signal.SIGTERM, signal.SIGKILL):
        for pid in alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, asked)
        deadline = time.monotonic() + _ENDED_WITHIN_S
        while alive():
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return
    raise HypervisorError(f"processes {alive()} of the node do not end; they are tried again")


def _namespace_of(pid: int) -> int | None:
    """The inode of its network namespace; None for a process that is gone, or a zombie."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None
