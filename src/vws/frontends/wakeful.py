"""What every front end needs in which many wait for news: commits come from any thread, those who wait are in one loop.

A commit leaves what it concerns in a set, and schedules one look for all that gathered there.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress


class Wakeful(ABC):
    """Opened in the loop that serves; closed from anywhere."""

    def __init__(self) -> None:
        self._news: set[str] = set()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unwatch: Callable[[], None] = lambda: None
        self.stopping = False

    def open(self) -> None:
        """Begin to listen. Call it in the loop that serves."""
        self._loop = asyncio.get_running_loop()
        self._unwatch = self._watch()

    def close(self) -> None:
        """Let all who wait go, now and from now on. May be called from any thread and from a signal handler."""
        self.stopping = True
        self._unwatch()
        self._in_loop(self._wake_all)

    def _heard(self, news: Iterable[str]) -> None:
        """There is news of these. From any thread."""
        with self._lock:
            is_first = not self._news
            self._news.update(news)
        if is_first:
            self._in_loop(self._look)

    def _in_loop(self, do: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(do)

    def _look(self) -> None:
        with self._lock:
            news, self._news = self._news, set()
        self._spread(news)

    @abstractmethod
    def _watch(self) -> Callable[[], None]:
        """Have `_heard` called after each commit; returns the function that ends it."""

    @abstractmethod
    def _spread(self, news: set[str]) -> None:
        """Wake those whom the news concerns. In the loop."""

    @abstractmethod
    def _wake_all(self) -> None:
        """In the loop."""
