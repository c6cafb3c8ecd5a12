"""The site's rates, kept in step with its record.

They are derived and never stored: a service that starts reads the last events again, and from then on hears each
commit's, its own as it makes them, those of other processes when it takes them in. All under the site's lock, so that
a decision sees rates that stand still.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vws.core.rates import BY_MIB, Configured, Key, Rates, Step, learn
from vws.core.site import Event
from vws.core.stopwatch import Stopwatch
from vws.ports import Filter, Store

# Enough for thousands of boots, read in a second or two.
EVENTS_READ = 20_000
PAGE = 2_000


class SiteRates:
    """`now`: what is known at this moment, a value."""

    def __init__(self, configured: Configured) -> None:
        self.now = Rates(configured)
        self._stopwatch = Stopwatch()
        self._heard = 0

    def load(self, store: Store) -> None:
        """Learn from the site's last events. What is under way has gone on while nobody listened."""
        self._heard = max(0, store.last_seq() - EVENTS_READ)
        self.follow(store)
        self._stopwatch.interrupt()

    def follow(self, store: Store) -> None:
        """Learn from all events that were not heard yet."""
        while events := store.events(Filter(), after=self._heard, limit=PAGE):
            self.hear(events, events[-1].seq)

    def hear(self, events: Iterable[Event], seq: int) -> None:
        """Learn from the next events; `seq`: of the last."""
        for observation in self._stopwatch.hear(events):
            self.now = learn(self.now, observation)
        self._heard = seq


@dataclass(frozen=True, slots=True)
class Line:
    """One step's figures, in `unit`. hypervisor and image "" mean any; count 0: nothing was learned yet."""

    step: str
    hypervisor: str
    image: str
    unit: str
    configured: float
    expected: float
    promised: float
    count: int


def lines(rates: Rates) -> list[Line]:
    """All that is known, and what is configured for the rest, in the order of a workspace's life."""
    known = {step: [key for key in rates.learned if key.step is step] for step in Step}
    keys = [key for step in Step for key in sorted(known[step], key=_order) or [Key(step)]]
    return [_line(rates, key) for key in keys]


def _order(key: Key) -> tuple[str, str]:
    return key.hypervisor, key.image


def _line(rates: Rates, key: Key) -> Line:
    found = rates.learned.get(key)
    costs = (
        rates.configured.cost(key.step),
        rates.cost(key.step, key.hypervisor, key.image, sure=False),
        rates.cost(key.step, key.hypervisor, key.image),
    )
    moves = key.step in BY_MIB
    configured, expected, promised = (round(1 / max(cost, 1e-9) if moves else cost, 3) for cost in costs)
    unit = "MiB/s" if moves else "s"
    return Line(
        str(key.step), key.hypervisor, key.image, unit, configured, expected, promised, found.count if found else 0
    )
