"""Spans added up over an interval: node-hours, CPU-hours and charges, by user, VO, lease or day.

Spans are clipped at the interval's ends, so the usage of two adjacent intervals adds up to that of both; a lease that
goes on is counted until the interval's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from vws.core.tariff import Clock, Metered, Price, Tariff
from vws.core.usage import Account, Span

BY = ("user", "vo", "lease", "day")


@dataclass(slots=True)
class Amount:
    """How much was reserved, or used."""

    node_hours: float = 0.0
    cpu_hours: float = 0.0
    charge: float = 0.0

    def add(self, node_hours: float, cpu_hours: float, charge: float) -> None:
        self.node_hours += node_hours
        self.cpu_hours += cpu_hours
        self.charge += charge


@dataclass(slots=True)
class Row:
    """What one user, VO, lease or day has. owner, name: of a lease; day: its number within the interval."""

    key: str
    owner: str = ""
    vo: str = ""
    name: str = ""
    day: int = 0
    reserved: Amount = field(default_factory=Amount)
    used: Amount = field(default_factory=Amount)


class Meter:
    """Adds up spans over the interval of `clock`, in rows by one of BY."""

    def __init__(
        self, clock: Clock, tariff: Tariff, price: Price, by: str, vo_of: Callable[[str], str], *, vo: str | None = None
    ) -> None:
        """vo: count only what that VO's users have."""
        self.total = Row("total")
        self.clock = clock
        self._tariff = tariff
        self._price = price
        self._by = by
        self._vo_of = vo_of
        self._vo = vo
        self._rows: dict[str, Row] = {}

    @property
    def rows(self) -> list[Row]:
        return sorted(self._rows.values(), key=lambda row: (row.day, row.key))

    def add(self, spans: Iterable[Span]) -> None:
        for span in spans:
            start, end = max(span.start, self.clock.start), min(span.end, self.clock.end)
            if end <= start:
                continue
            vo = span.account.vo or self._vo_of(span.account.owner)
            if self._vo is not None and vo != self._vo:
                continue
            for row, low, high in self._parts(span.account, vo, start, end):
                self._count(row, span, vo, low, high)

    def _parts(self, account: Account, vo: str, start: float, end: float) -> Iterator[tuple[Row, float, float]]:
        if self._by == "day":
            for day, low, high in self.clock.days(start, end):
                yield self._row(str(day), day=day), low, high
        elif self._by == "vo":
            yield self._row(vo, vo=vo), start, end
        elif self._by == "lease":
            yield self._row(account.lease, owner=account.owner, vo=vo, name=account.name), start, end
        else:
            yield self._row(account.owner, owner=account.owner, vo=vo), start, end

    def _row(self, key: str, *, owner: str = "", vo: str = "", name: str = "", day: int = 0) -> Row:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row(key, owner, vo, name, day)
        return row

    def _count(self, row: Row, span: Span, vo: str, start: float, end: float) -> None:
        hours, priced_hours = (end - start) / 3600, self.clock.hours(start, end)
        account = span.account
        metered = Metered(
            account.kind,
            account.preemptible,
            account.urgent,
            account.owner,
            vo,
            span.nodes * priced_hours,
            span.cpus * priced_hours,
        )
        charge = self._price(self._tariff, metered)
        for counted in (row, self.total):
            amount = counted.used if span.used else counted.reserved
            amount.add(span.nodes * hours, span.cpus * hours, charge)
