"""The real clock and the real source of ids; only vws.main and tests hand them out."""

from __future__ import annotations

import secrets
import threading
import time

# Crockford's base 32, lower case: sorts like the numbers it spells, no i, l, o, u to misread.
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"


class SystemClock:
    def now(self) -> float:
        return time.time()


class TimeIds:
    """Ids as ULIDs are made (github.com/ulid/spec), 48 bits of milliseconds then randomness, but shorter: 30 random
    bits, which only ever grow within a millisecond, so that ids sort by their making and never repeat in a process.
    Across processes a clash is a broken unique rule in the store, never an overwritten row."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = (0, 0)

    def new(self, prefix: str) -> str:
        with self._lock:
            now_ms = time.time_ns() // 1_000_000
            last_ms, last_tail = self._last
            if now_ms > last_ms:
                self._last = (now_ms, secrets.randbits(29))
            else:
                self._last = (last_ms, last_tail + 1 + secrets.randbelow(64))
            millis, tail = self._last
        return f"{prefix}-{_spell(millis, 9)}{_spell(tail, 6)}"


def _spell(number: int, width: int) -> str:
    return "".join(_DIGITS[(number >> (5 * i)) & 31] for i in reversed(range(width)))
