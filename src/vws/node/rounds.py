"""Work in rounds, for what answers everybody at once: a look at all that is there, a file written whole.

Who asks needs a round that begins after the asking, since the one under way may
have passed over what was just changed. All who ask meanwhile share that next
one, so a hundred who ask at once cost two rounds and not a hundred.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Rounds:
    """Rounds of `work`, one at a time, all in one event loop."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._current: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    def begin(self) -> asyncio.Task[None]:
        """The round that begins after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._run_after(self._current))
        return self._next

    async def join(self) -> None:
        """Returns when that round is done; raises what it raised. Who gives up waiting leaves it to the others."""
        await asyncio.shield(self.begin())

    async def _run_after(self, current: asyncio.Task[None] | None) -> None:
        if current is not None:
            await asyncio.wait([current])
        self._current, self._next = self._next, None
        await self._work()
