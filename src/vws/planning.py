"""[planning] in site.toml: how a site's planner backfills and suspends, as the rules that the planner takes.

`vws simulate` reads the same section (--config) and uses the same words, so that what was tried on last month's log is
what is configured.
"""

from __future__ import annotations

from dataclasses import dataclass

from vws.core.errors import InvalidRequest
from vws.core.plan.rules import ANYBODYS, NOBODYS, SINGLES, UNLIMITED, Rules

BACKFILL = {"off": 0, "easy": 1, "conservative": UNLIMITED}
SUSPEND = {"none": NOBODYS, "serial": SINGLES, "all": ANYBODYS}
BOOKINGS_MAX = 1_000_000
HOUR_S = 3600


@dataclass(frozen=True)
class PlanningConfig:
    """backfill: `off`, `easy`, `conservative`, or how many waiting leases are promised a start. suspend: whose memory
    may be saved for others, `none`, `serial` (leases of one workspace) or `all`; only preemptible leases ever are.

    smallest_first: who goes ahead of the queue is chosen by size, who has waited longer than patience_h in turn.
    useful: a run that is cut short is worth having if it lasts so many times as long as saving and restoring take.
    setbacks_max: how often a lease is suspended, or restarted, before it is left to run. spared_after_h: how long one
    has to wait until nobody may take its promised start.
    """

    backfill: str = "easy"
    suspend: str = "all"
    smallest_first: bool = True
    patience_h: float = 24.0
    useful: float = 2.0
    setbacks_max: int = 10
    spared_after_h: float = 96.0


def bookings_of(backfill: str) -> int:
    """How many waiting leases are promised a start; 0, as `off`, lets nobody overtake. Raises InvalidRequest."""
    if backfill in BACKFILL:
        return BACKFILL[backfill]
    digits = backfill.isascii() and backfill.isdecimal()  # isdecimal alone takes the digits of every script
    if digits and len(backfill) <= len(str(BOOKINGS_MAX)) and int(backfill) <= BOOKINGS_MAX:
        return int(backfill)
    raise InvalidRequest(
        f"planning.backfill is {backfill[:40]!r}",
        field="planning.backfill",
        asked=backfill[:40],
        possible=f"{', '.join(BACKFILL)}, or a whole number to {BOOKINGS_MAX}",
    )


def rules_of(config: PlanningConfig) -> Rules:
    """The planner's rules; rates are learned beside. Raises InvalidRequest naming the key that is wrong."""
    if config.suspend not in SUSPEND:
        raise InvalidRequest(
            f"planning.suspend is {config.suspend[:40]!r}",
            field="planning.suspend",
            asked=config.suspend[:40],
            possible=", ".join(SUSPEND),
        )
    for name, low, high in (
        ("patience_h", 0, 1e5),
        ("useful", 0, 1e3),
        ("setbacks_max", 0, 1e6),
        ("spared_after_h", 0, 1e5),
    ):
        value = getattr(config, name)
        if not low <= value <= high:
            raise InvalidRequest(
                f"planning.{name} is {value}", field=f"planning.{name}", asked=value, possible=f"{low:g} to {high:g}"
            )
    bookings = bookings_of(config.backfill)
    return Rules(
        bookings=bookings,
        backfill=bookings > 0,
        suspend=SUSPEND[config.suspend],
        migrate=False,
        useful=config.useful,
        patience_s=int(config.patience_h * HOUR_S),
        smallest_first=config.smallest_first,
        setbacks_max=config.setbacks_max,
        spared_after_s=int(config.spared_after_h * HOUR_S),
    )
