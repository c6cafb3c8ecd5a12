"""Guests that wait for news of their context: thousands at once, none of which holds a thread.

A commit, in whatever thread, leaves the ids of its contexts in a set and schedules one look for all that gathered
there. The look asks once per context who of its waiting members has news, and wakes those; most changes (the 500th of
1,000 members has reported) are news to nobody yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from vws.frontends.wakeful import Wakeful
from vws.service.contexts import Contexts, Here


@dataclass(eq=False, slots=True)
class Waiter:
    here: Here
    since: int
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Polls(Wakeful):
    def __init__(self, contexts: Contexts) -> None:
        super().__init__()
        self._contexts = contexts
        self._waiting: dict[str, set[Waiter]] = {}

    def count(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def news(self, here: Here, since: int, wait_s: float, leaving: asyncio.Future[None]) -> bool:
        """Whether there is news after `since`, at once or within `wait_s` seconds; False too if the guest has left."""
        waiter = Waiter(here, since)
        waiting = self._waiting.setdefault(here.context, set())
        # First in the list, then look: news in between is not lost.
        waiting.add(waiter)
        try:
            if self._contexts.having_news(here.context, [(here.member, since)])[0] or not wait_s or self.stopping:
                return True
            waking = asyncio.ensure_future(waiter.woken.wait())
            await asyncio.wait((waking, leaving), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
            return waiter.woken.is_set()
        finally:
            waiting.discard(waiter)
            if not waiting and self._waiting.get(here.context) is waiting:
                del self._waiting[here.context]

    def _watch(self) -> Callable[[], None]:
        return self._contexts.watch(self._heard)

    def _spread(self, news: set[str]) -> None:
        for id in news:
            waiters = list(self._waiting.get(id, ()))
            found = self._contexts.having_news(id, ((each.here.member, each.since) for each in waiters))
            for waiter, has_news in zip(waiters, found, strict=True):
                if has_news:
                    waiter.woken.set()

    def _wake_all(self) -> None:
        for waiters in list(self._waiting.values()):
            for waiter in waiters:
                waiter.woken.set()
