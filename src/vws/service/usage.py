"""Usage, for those who ask, and for the policy: who used how much, and who comes first for it.

Everything is read from the record of events, page by page. One user's usage is read from his events alone. For all
users, places where reading may begin again are kept on the way (`_MARK_EVENTS` apart, thinned out when they become
many), so that a report about a month reads that month and little more. They are in memory only: after a restart the
first report about everybody reads the record from its beginning.

The same reading, kept up to the present, is what fair share and limits of node-hours go by.
"""

from __future__ import annotations

import datetime as dt
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any
from zoneinfo import ZoneInfo

from vws.core.errors import Forbidden, InvalidRequest
from vws.core.estimate import estimate
from vws.core.meter import BY, Amount, Meter, Row
from vws.core.shares import FairShare, Shares
from vws.core.site import Event, Role
from vws.core.tariff import Clock, OffsetAt
from vws.core.terms import LeaseRequest
from vws.core.usage import Ledger, Span
from vws.ports import Filter
from vws.service.access import Caller
from vws.service.site import Site

PAGE_EVENTS = 2000
DAY_S = 86400.0
# Clocks of several service processes may differ by so much: events are in the order of commits, not quite of time.
SKEW_S = 60.0
DIGITS = 6
_MARK_EVENTS = 20_000
_MARKS_MAX = 64
_YEARS = (1970, 9999)

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Asked:
    """What a report is about. since, until: UTC seconds or a date of the site's clock ("2026-10", "2026-10-03",
    "2026-10-03T12:00"); by default this month until now. by: one of core.meter.BY."""

    by: str = "user"
    user: str | None = None
    vo: str | None = None
    lease: str | None = None
    since: str | None = None
    until: str | None = None


class Usage:
    """Reports, shares and spent node-hours of one site. Thread-safe."""

    def __init__(self, site: Site) -> None:
        settings = site.settings
        self._site = site
        self._chosen = settings.chosen
        self._tariff = settings.tariff
        self._price = settings.price
        self._zone = ZoneInfo(settings.tariff.time_zone)
        self._offset_at = offset_in(self._zone)
        # One reads at a time; what was read is taken in page by page, so that nobody waits for a long reading.
        self._reading, self._lock = threading.Lock(), threading.Lock()
        self._present = Ledger()
        self._marks: list[Ledger] = [Ledger()]
        self._mark_events = _MARK_EVENTS
        self._fair = FairShare(self._chosen.membership, self._chosen.half_life_s)
        self._spent: dict[str, deque[tuple[float, float, int]]] = {}
        self._remember_s = DAY_S * self._chosen.membership.days_max

    def estimate(self, request: LeaseRequest, start: float | None, owner: str) -> dict[str, Any]:
        """What a lease would be charged that runs from `start` (UTC seconds; None: now) for as long as it asks for."""
        amount = estimate(
            request, self._site.clock.now() if start is None else start, tariff=self._tariff, price=self._price,
            offset_at=self._offset_at, owner=owner, vo=self._chosen.membership.vo_of(owner),
        )  # fmt: skip
        return {"amount": round(amount, 4), "unit": self._tariff.unit}

    # ------------------------------------------------------------ reports

    def report(self, caller: Caller, asked: Asked, progress: Progress | None = None) -> dict[str, Any]:
        """Node-hours, CPU-hours and charges, reserved and used, in rows by `asked.by`, and their total.

        A user gets his own, an administrator everybody's. progress: called with (events read, events in all). Raises
        Forbidden and InvalidRequest.
        """
        caller.must_be(Role.ADMIN, Role.USER)
        user = self._may_ask_for(caller, asked.user)
        now = self._site.clock.now()
        start, end = self._interval(asked, now)
        _one_of("by", asked.by, BY)
        if asked.vo is not None:
            _one_of("vo", asked.vo, ("", *self._chosen.membership.vos))
        clock = Clock.over(start, end, self._offset_at, self._tariff.bands)
        vo_of = self._chosen.membership.vo_of
        meter = Meter(clock, self._tariff, self._price, asked.by, vo_of, vo=asked.vo)
        read = self._measure(meter, Filter(owner=user, lease=asked.lease), start, end, progress)
        return self._shown(asked.by, meter, now, read)

    def _may_ask_for(self, caller: Caller, user: str | None) -> str | None:
        if caller.is_admin:
            return user
        if user not in (None, caller.subject):
            raise Forbidden(
                "the usage of other users is shown to administrators only",
                field="user",
                asked=user,
                possible=f"your own: {caller.subject}",
            )
        return caller.subject

    def _interval(self, asked: Asked, now: float) -> tuple[float, float]:
        local = dt.datetime.fromtimestamp(now, self._zone)
        month = dt.datetime(local.year, local.month, 1, tzinfo=self._zone).timestamp()
        start = month if asked.since is None else instant(asked.since, self._zone, "from")
        end = now if asked.until is None else instant(asked.until, self._zone, "to")
        if start >= end or start >= now:
            when = "before now" if start >= now else "before the end"
            raise InvalidRequest(
                "the interval is empty", field="from", asked=asked.since, possible=f"a beginning that is {when}"
            )
        return start, min(end, now)

    def _measure(self, meter: Meter, where: Filter, start: float, end: float, progress: Progress | None) -> int:
        """Add up what events say of [start, end); return how many were read."""
        everybody = where.owner is None and where.lease is None
        if everybody:
            self.catch_up(progress)
        with self._lock:
            at = [mark.at for mark in self._marks]
            ledger = self._marks[max(0, bisect_right(at, start - SKEW_S) - 1)].copy() if everybody else Ledger()
        first, last, read = ledger.seq, self._site.store.last_seq(), 0
        for page in self._pages(where, after=ledger.seq):
            within = [event for event in page if event.at < end + SKEW_S]
            for event in within:
                meter.add(ledger.take(event))
            read += len(within)
            if len(within) < len(page):
                break
            if progress:
                progress(page[-1].seq - first, max(last, page[-1].seq) - first)
        meter.add(ledger.going(end))
        return read

    def _pages(self, where: Filter, *, after: int) -> Iterator[tuple[Event, ...]]:
        while page := self._site.store.events(where, after=after, limit=PAGE_EVENTS):
            yield page
            if len(page) < PAGE_EVENTS:
                return
            after = page[-1].seq

    # ------------------------------------------------------------ for the policy

    def catch_up(self, progress: Progress | None = None) -> None:
        """Take in what happened since; the first time, all that ever did. Reads nothing if nothing did."""
        with self._reading:
            first, last = self._present.seq, self._site.store.last_seq()
            for page in self._pages(Filter(), after=first):
                with self._lock:
                    self._take_in(page)
                if progress:
                    progress(page[-1].seq - first, max(last, page[-1].seq) - first)

    def _take_in(self, events: tuple[Event, ...]) -> None:
        for event in events:
            for span in self._present.take(event):
                self._charge(span)
            if event.seq - self._marks[-1].seq >= self._mark_events:
                self._mark()

    def shares(self, now: float) -> Shares:
        """Fair-share factors at `now`, by what was caught up with."""
        with self._lock:
            going = [(s.account.owner, float(s.nodes), s.start) for s in self._present.reserved(now)]
            return self._fair.shares(now, going)

    def spent(self, user: str, since: float) -> float:
        """Node-hours that a user's leases held from `since` until now (core.admission.HeldBefore)."""
        now = self._site.clock.now()
        with self._lock:
            held = list(self._spent.get(user, ()))
            held += [(s.start, s.end, s.nodes) for s in self._present.reserved(now, user)]
        return sum(nodes * max(0.0, end - max(start, since)) for start, end, nodes in held) / 3600

    def spent_by_now(self, user: str, since: float) -> float:
        """The same, after everything that has been recorded."""
        self.catch_up()
        return self.spent(user, since)

    def _charge(self, span: Span) -> None:
        """What was reserved counts, used or not: nobody else could have it."""
        if span.used:
            return
        self._fair.charge(span.account.owner, span.nodes, span.start, span.end)
        spent = self._spent.setdefault(span.account.owner, deque())
        spent.append((span.start, span.end, span.nodes))
        while spent and spent[0][1] < span.end - self._remember_s:
            spent.popleft()

    def _mark(self) -> None:
        self._marks.append(self._present.copy())
        if len(self._marks) > _MARKS_MAX:
            self._marks = self._marks[::2]
            self._mark_events *= 2

    # ------------------------------------------------------------ answers

    def _shown(self, by: str, meter: Meter, now: float, read: int) -> dict[str, Any]:
        clock = meter.clock
        return {
            "by": by,
            "from": clock.start,
            "to": clock.end,
            "time": now,
            "time_zone": self._tariff.time_zone,
            "unit": self._tariff.unit,
            "events": read,
            "rows": [self._row(row, clock, by) for row in meter.rows],
            "total": {"reserved": _amount(meter.total.reserved), "used": _amount(meter.total.used)},
        }

    def _row(self, row: Row, clock: Clock, by: str) -> dict[str, Any]:
        day = clock.midnights[row.day - 1] if row.day else clock.start
        date = dt.datetime.fromtimestamp(day, self._zone).date().isoformat()
        return {
            "user": row.owner,
            "vo": row.vo,
            "lease": row.key if by == "lease" else "",
            "name": row.name,
            "day": date if by == "day" else "",
            "reserved": _amount(row.reserved),
            "used": _amount(row.used),
        }


def _amount(amount: Amount) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in asdict(amount).items()}


def _one_of(field: str, asked: str, known: tuple[str, ...]) -> None:
    if asked not in known:
        possible = ", ".join(name for name in known if name) or "none: this site has no VOs"
        raise InvalidRequest(f"{field} is {asked[:60]!r}", field=field, asked=asked[:60], possible=possible)


# ---------------------------------------------------------------- the site's clock


def offset_in(zone: ZoneInfo) -> OffsetAt:
    def offset_at(at: float) -> int:
        offset = dt.datetime.fromtimestamp(at, zone).utcoffset()
        assert offset is not None
        return int(offset.total_seconds())

    return offset_at


def instant(text: str, zone: ZoneInfo, field: str) -> float:
    """UTC seconds of a number of them, or of a date or time: of the site's clock unless it says its own offset."""
    try:
        if text.isascii() and text.isdecimal():
            at = float(text)
            dt.datetime.fromtimestamp(at, zone)
            return at
        found = dt.datetime.fromisoformat(f"{text}-01" if len(text) == 7 else text)
        if not _YEARS[0] < found.year < _YEARS[1]:
            raise ValueError
        return (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(
            f"{text[:60]!r} is no time",
            field=field,
            asked=text[:60],
            possible="2026-10, 2026-10-03, 2026-10-03T12:00, 2026-10-03T12:00Z, or UTC seconds",
        ) from None
