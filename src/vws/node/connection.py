"""The connection to libvirtd, and its news.

libvirt-python has one event loop per process; a thread of its own runs it and
sleeps in poll(2) until libvirtd says something. What it says is handed to the
agent's event loop as workspace ids. The end of the connection is news too.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import libvirt

from vws.node.naming import id_of
from vws.ports import HypervisorError

# What may befall a domain. The rest (defined, started, resumed) is only ever asked for.
_ENDS = frozenset(
    {
        libvirt.VIR_DOMAIN_EVENT_STOPPED,
        libvirt.VIR_DOMAIN_EVENT_CRASHED,
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED,
        libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED,
    }
)

_started = threading.Lock()
_thread: threading.Thread | None = None


def _run_events() -> None:
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


def start_events() -> None:
    """Once per process, before the first connection."""
    global _thread
    with _started:
        if _thread is None:
            libvirt.virEventRegisterDefaultImpl()
            libvirt.registerErrorHandler(lambda *_: None, None)  # else each error is printed too
            _thread = threading.Thread(target=_run_events, name="libvirt-events", daemon=True)
            _thread.start()


class Connection:
    """One open connection. `news` is called on `loop` with the id of a workspace something happened to, or with ""
    when the connection is lost."""

    def __init__(self, uri: str, loop: asyncio.AbstractEventLoop, news: Callable[[str], None]) -> None:
        """Blocks while it connects. Raises libvirtError."""
        start_events()
        self._loop = loop
        self._news = news
        self.lost = False
        self.api = libvirt.open(uri)
        self._callbacks = [
            self.api.domainEventRegisterAny(None, event, callback, None)
            for event, callback in (
                (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
                (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR, self._io_error),
            )
        ]
        self.api.registerCloseCallback(self._closed, None)

    def _lifecycle(self, _: Any, domain: libvirt.virDomain, event: int, detail: int, __: Any) -> None:
        if event in _ENDS:
            self._tell(domain)

    def _io_error(self, _: Any, domain: libvirt.virDomain, path: str, alias: str, action: int, __: Any) -> None:
        self._tell(domain)

    def _tell(self, domain: libvirt.virDomain) -> None:
        id = id_of(domain.name())
        if id:
            self._later(id)

    def _closed(self, _: Any, reason: int, __: Any) -> None:
        self.lost = True
        self._later("")

    def _later(self, id: str) -> None:
        with contextlib.suppress(RuntimeError):  # the agent's loop has ended
            self._loop.call_soon_threadsafe(self._news, id)

    @property
    def usable(self) -> bool:
        try:
            return not self.lost and bool(self.api.isAlive())
        except libvirt.libvirtError:
            return False

    def close(self) -> None:
        """Blocks shortly. A repeat is harmless."""
        for callback in self._callbacks:
            with contextlib.suppress(libvirt.libvirtError):
                self.api.domainEventDeregisterAny(callback)
        self._callbacks = []
        with contextlib.suppress(libvirt.libvirtError):
            self.api.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            self.api.close()


def explain(error: libvirt.libvirtError) -> HypervisorError:
    """What libvirt said, for a user."""
    text = str(error.get_error_message() or error)
    if "No space left on device" in text:
        return HypervisorError("the node's disk is full")
    if "Cannot allocate memory" in text:
        return HypervisorError("the node has not enough memory left to start it")
    return HypervisorError(f"libvirt: {' '.join(text.split())[:300]}")


def no_domain(error: libvirt.libvirtError) -> bool:
    return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)
