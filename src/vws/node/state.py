"""What an agent keeps on disk, in one directory that is its own.

    lock            held while an agent runs, with its pid inside
    identity.json   made once: a random id; the last incarnation
    orders.json     the last orders, exactly as they came, and to which installation
    memory.json     what is remembered of each workspace (see converge.Memory)
    clock.json      how far the service's clock is ahead of this machine's
    consoles/ID     ends of consoles that the service has not yet got

Each file is replaced whole (write, fsync, rename, fsync of the directory), so a
kill leaves the old one or the new one. Nothing is readable by anyone else.
A file that cannot be read counts as absent, is set aside and logged: an agent
without memory asks the service again, an agent that does not start ends no lease.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vws.core.deployment import NodeOrders
from vws.core.errors import DuplicateNode, InvalidRequest
from vws.core.wire import from_json
from vws.node.converge import Memory

log = logging.getLogger(__name__)

_KEPT = ("boot", "booted_at", "up", "ended")


class Lock:
    """Holds `directory` against a second agent until released, or until the process dies in whatever way."""

    def __init__(self, directory: Path) -> None:
        """Raises DuplicateNode, naming the other's pid."""
        make_private(directory)
        path = directory / "lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.read(self._fd, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise DuplicateNode(
                f"an agent (pid {pid}) already runs for {directory}; nothing was changed",
                asked=str(directory),
                possible="stop that agent first, or give this one a directory of its own",
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)


class AgentState:
    """The directory of one node's agent. `durable` False leaves out the fsyncs, for many simulated nodes."""

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        self.directory = directory
        self._durable = durable
        self._consoles = directory / "consoles"
        make_private(directory)
        make_private(self._consoles)
        self._spooled = {path.name for path in self._consoles.iterdir() if not path.name.endswith(".new")}

    # -------------------------------------------------------- identity

    def instance(self) -> str:
        """Names this installation: a copied directory, another host or another boot gives another name."""
        return _digest(self._place(), _machine_boot())

    def _place(self) -> str:
        return _digest(str(self._identity()["id"]), socket.gethostname(), str(self.directory.resolve()))

    def next_incarnation(self) -> int:
        """The start of this process in ns; later than any before, even if the clock was set back."""
        identity = self._identity()
        incarnation = max(time.time_ns(), int(identity["incarnation"]) + 1)
        self._write("identity.json", identity | {"incarnation": incarnation})
        return incarnation

    def _identity(self) -> dict[str, Any]:
        kept: dict[str, Any] | None = self._read("identity.json")
        if kept is None or not {"id", "incarnation"} <= kept.keys():
            kept = {"id": secrets.token_hex(16), "incarnation": 0}
            self._write("identity.json", kept)
        return kept

    # -------------------------------------------------------- orders, memories, clock

    def keep_orders(self, orders: Any) -> None:
        """`orders`: as JSON. Returns once they would survive a power cut."""
        self._write("orders.json", {"place": self._place(), "orders": orders})

    def orders(self) -> NodeOrders | None:
        """Those kept in this place: in a copy of the directory they would start everything a second time."""
        kept = self._read("orders.json")
        if kept is None or kept.get("place") != self._place():
            return None
        try:
            return from_json(NodeOrders, kept.get("orders"))
        except InvalidRequest as error:
            self._set_aside("orders.json", error.problem)
            return None

    def keep_memories(self, memories: Mapping[str, Memory], *, durable: bool) -> None:
        """`durable`: worth an fsync; without, a power cut may bring back what was kept before."""
        kept = {id: {name: getattr(memory, name) for name in _KEPT} for id, memory in memories.items()}
        self._write("memory.json", kept, durable=durable)

    def memories(self) -> dict[str, Memory]:
        try:
            return {id: replace(Memory(), **kept) for id, kept in (self._read("memory.json") or {}).items()}
        except (TypeError, AttributeError) as error:
            self._set_aside("memory.json", str(error))
            return {}

    def keep_clock(self, ahead_s: float) -> None:
        self._write("clock.json", {"ahead_s": ahead_s}, durable=False)

    def clock_ahead_s(self) -> float:
        kept = self._read("clock.json") or {}
        ahead_s = kept.get("ahead_s", 0.0)
        return float(ahead_s) if isinstance(ahead_s, (int, float)) else 0.0

    # -------------------------------------------------------- ends of consoles

    def spool_console(self, workspace: str, data: bytes) -> None:
        write_whole(self._consoles / workspace, data, durable=False)
        self._spooled.add(workspace)

    def spooled_consoles(self) -> list[str]:
        return sorted(self._spooled)

    def spooled_console(self, workspace: str) -> bytes:
        return (self._consoles / workspace).read_bytes()

    def drop_console(self, workspace: str) -> None:
        (self._consoles / workspace).unlink(missing_ok=True)
        self._spooled.discard(workspace)

    # -------------------------------------------------------- files

    def _write(self, name: str, value: Any, *, durable: bool = True) -> None:
        data = json.dumps(value, separators=(",", ":")).encode()
        write_whole(self.directory / name, data, durable=durable and self._durable)

    def _read(self, name: str) -> Any:
        try:
            value = json.loads((self.directory / name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._set_aside(name, str(error))
            return None
        if not isinstance(value, dict):
            self._set_aside(name, "it holds no object")
            return None
        return value

    def _set_aside(self, name: str, why: str) -> None:
        log.error(
            "%s cannot be read (%s); going on without it, kept as %s.unreadable", self.directory / name, why, name
        )
        try:
            os.replace(self.directory / name, self.directory / f"{name}.unreadable")
        except OSError:
            pass


def make_private(directory: Path) -> None:
    """Make `directory` with its parents; itself for this user only."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by rename, mode 0600; `durable`: it would survive a power cut."""
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(fd)
    os.replace(new, path)
    if durable:
        fsync_directory(path.parent)


def fsync_directory(directory: Path) -> None:
    """What was made, renamed or removed in it outlives a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _machine_boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
