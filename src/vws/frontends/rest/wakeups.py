"""Requests that wait for news: a node's long poll for its orders, a follower's stream for events.

Thousands may wait at once, so none holds a thread: each waits on an event of the loop's. A commit, in whatever
thread, leaves the ids of its nodes in a set and schedules one wake-up for all that gathered there; those who were
woken look at the record by themselves, so that a wake-up too many is harmless and one too few cannot happen (a
waiter registers before it looks).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.types import Receive

from vws.service.site import Site

# The key under which followers of events wait; no node has this id.
EVENTS = ""


class Wakeups:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._news: set[str] = set()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unwatch: Callable[[], None] = lambda: None
        self.stopping = False

    # ------------------------------------------------------------ life

    def open(self) -> None:
        """Begin to listen to the site. Call it in the loop that serves."""
        self._loop = asyncio.get_running_loop()
        self._unwatch = self._site.watch(self._committed)

    def close(self) -> None:
        """Let all who wait go, now and from now on. May be called from any thread and from a signal handler."""
        self.stopping = True
        self._unwatch()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._wake_all)

    # ------------------------------------------------------------ waiting

    @contextmanager
    def waiting(self, key: str) -> Iterator[asyncio.Event]:
        """An event that is set at each piece of news for `key` (a node's id, or EVENTS) and when the service stops."""
        woken = asyncio.Event()
        self._waiting.setdefault(key, set()).add(woken)
        try:
            yield woken
        finally:
            self._waiting[key].discard(woken)
            if not self._waiting[key]:
                del self._waiting[key]

    def count(self) -> tuple[int, int]:
        """(waiting nodes' polls, followers of events)"""
        followers = len(self._waiting.get(EVENTS, ()))
        return sum(map(len, self._waiting.values())) - followers, followers

    def wake(self, key: str) -> None:
        """From within the loop only."""
        for woken in self._waiting.get(key, ()):
            woken.set()

    # ------------------------------------------------------------ news

    def _committed(self, nodes: frozenset[str], seq: int) -> None:
        with self._lock:
            is_first = not self._news
            self._news |= {*nodes, EVENTS}
        if is_first and self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._spread)

    def _spread(self) -> None:
        with self._lock:
            news, self._news = self._news, set()
        for key in news:
            self.wake(key)

    def _wake_all(self) -> None:
        for key in list(self._waiting):
            self.wake(key)


async def gone(receive: Receive) -> None:
    """Returns when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def first_of(woken: asyncio.Event, leaving: asyncio.Task[None], timeout_s: float) -> None:
    """Wait until `woken` is set or `leaving` is done, at most `timeout_s` seconds."""
    waking = asyncio.ensure_future(woken.wait())
    try:
        await asyncio.wait((waking, leaving), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waking.cancel()
