"""The service's clock, as a node knows it.

Leases end by the service's clock, whatever the node's own says. Each answer of
the service names its time; it was read somewhere between the moments at which
the node asked and was answered, so each answer bounds the difference between
the service's clock and the node's steady one. The estimate is kept within the
latest bounds: it follows every answer and needs no averaging.

The steady clock cannot be set, so between answers nothing that happens to the
node's wall clock matters. After a restart without a service there is only the
wall clock and the difference kept on disk.
"""

from __future__ import annotations

import time

WORTH_KEEPING_S = 0.05


class NodeClock:
    """This machine's clocks, in seconds; tests pass others."""

    def wall(self) -> float:
        """UTC."""
        return time.time()

    def steady(self) -> float:
        """Since the boot, sleep included; nobody can set it."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class ServiceClock:
    """`now` is the service's UTC time. `kept_offset_s`: service minus wall, as found in an earlier life."""

    def __init__(self, own: NodeClock, kept_offset_s: float = 0.0) -> None:
        self.own = own
        self._offset_s = own.wall() + kept_offset_s - own.steady()
        self._learned = False

    def now(self) -> float:
        return self.own.steady() + self._offset_s

    def ahead_s(self) -> float:
        """How far the service's clock is ahead of this machine's wall clock; negative when behind."""
        return self.now() - self.own.wall()

    def learn(self, service_time: float, asked_at: float, answered_at: float) -> bool:
        """Take in an answer, between two readings of the steady clock; True if the estimate moved."""
        lowest, highest = service_time - answered_at, service_time - asked_at
        if self._learned:
            offset_s = min(max(self._offset_s, lowest), highest)
        else:
            # An answer that was held back long (a long poll) was made shortly before it arrived.
            offset_s = lowest + min(highest - lowest, 0.1) / 2
        moved = abs(offset_s - self._offset_s) > WORTH_KEEPING_S
        self._offset_s, self._learned = offset_s, True
        return moved
