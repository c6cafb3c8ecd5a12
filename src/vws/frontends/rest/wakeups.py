"""Requests that wait for news: a node's long poll for its orders, a follower's stream for events.

Thousands may wait at once, so none holds a thread: each waits on an event of the loop's. A commit, in whatever
thread, leaves the ids of its nodes in a set and schedules one wake-up for all that gathered there; those who were
woken look at the record by themselves, so that a wake-up too many is harmless and one too few cannot happen (a
waiter registers before it looks).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Receive

from vws.frontends.wakeful import Wakeful
from vws.service.site import Site

# The key under which followers of events wait; no node has this id.
EVENTS = ""


class Wakeups(Wakeful):
    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site
        self._waiting: dict[str, set[asyncio.Event]] = {}

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

    def _watch(self) -> Callable[[], None]:
        return self._site.watch(lambda nodes, seq: self._heard({*nodes, EVENTS}))

    def _spread(self, news: set[str]) -> None:
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
