"""Whatever arrived while the last batch was written makes the next: how the loops that write take from their queues."""

from __future__ import annotations

import queue
from typing import TypeVar

T = TypeVar("T")


def next_batch(waiting: queue.SimpleQueue[T | None], most: int, wait_s: float) -> list[T]:
    """What is there, `most` at most; waits so many seconds for the first. None ends a batch: somebody is to look."""
    batch: list[T] = []
    try:
        first = waiting.get(timeout=wait_s)
        while first is not None:
            batch.append(first)
            if len(batch) >= most:
                break
            first = waiting.get_nowait()
    except queue.Empty:
        pass
    return batch
