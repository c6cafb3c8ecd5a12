"""The plan as a picture: what is there, what is meant to be, and of the past as much as is asked for.

The past is in the record of events, which are in the order of commits and hence, nearly, of time: where a time begins
is found by halving, and only the events from there on are read. The picture itself is made outside the site's lock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vws.core.calendar import Calendar
from vws.core.errors import InvalidRequest
from vws.core.picture import HOUR_S, calendar_of, last_end, veiled
from vws.core.site import Changes, Event, Lease, Role, Workspace
from vws.core.terms import AHEAD_S_MAX
from vws.ports import Filter
from vws.service.access import Caller
from vws.service.site import Site

PAGE = 2000
PAST_S_MAX = 7 * 86_400


class Plans:
    def __init__(self, site: Site) -> None:
        self._site = site

    def calendar(self, caller: Caller, *, start: int | None = None, end: int | None = None) -> Calendar:
        """Who has which node when over [start, end), UTC seconds: from an hour ago to the last planned end, a week
        ahead at most, if nothing else is said. Of others' leases a user learns neither owner nor name.

        Raises InvalidRequest for an interval that is empty or reaches too far.
        """
        caller.must_be(Role.ADMIN, Role.USER)
        now = int(self._site.clock.now())
        start = now - HOUR_S if start is None else start
        record = self._present()
        end = max(last_end(record, now), start + HOUR_S) if end is None else end
        _check(start, end, now)
        record = self._with_past(record, start, now)
        rates = self._site.rates.now
        calendar = calendar_of(record, self._site.settings.name, start=start, end=end, now=now, rates=rates)
        return calendar if caller.is_admin else veiled(calendar, caller.subject)

    def _present(self) -> Changes:
        with self._site.lock:
            present = self._site.present
            workspaces = [w for lease in present.leases for w in present.members(lease)]
            return Changes(
                leases=tuple(present.leases.values()),
                workspaces=tuple(workspaces),
                nodes=tuple(sorted(present.nodes.values(), key=lambda node: node.id)),
                maintenances=tuple(present.maintenances.values()),
            )

    def _with_past(self, record: Changes, start: int, now: int) -> Changes:
        """The same with what happened since `start`, and with the leases that have ended since then."""
        if start >= now:
            return record
        events = self._events_since(start)
        known = {lease.id for lease in record.leases}
        leases = [self._site.store.get(Lease, id) for id in dict.fromkeys(e.lease for e in events) if id not in known]
        ended = [lease for lease in leases if lease is not None and lease.ended]
        workspaces = [w for lease in ended for w in self._all_of(lease)]
        return replace(record, events=events) + Changes(leases=tuple(ended), workspaces=tuple(workspaces))

    def _events_since(self, start: int) -> tuple[Event, ...]:
        store = self._site.store
        low, high = 0, store.last_seq()
        while low < high:
            middle = (low + high) // 2
            found = store.events(Filter(), after=middle, limit=1)
            low, high = (middle + 1, high) if found and found[0].at < start else (low, middle)
        events: list[Event] = []
        page = store.events(Filter(), after=low, limit=PAGE)
        while page:
            events += [event for event in page if event.workspace]
            page = store.events(Filter(), after=page[-1].seq, limit=PAGE)
        return tuple(events)

    def _all_of(self, lease: Lease) -> list[Workspace]:
        items: list[Any] = []
        after: str | None = None
        while True:
            page = self._site.store.page(Workspace, Filter(lease=lease.id), after=after, limit=PAGE)
            items += page.items
            after = page.next
            if after is None:
                return items


def _check(start: int, end: int, now: int) -> None:
    if end <= start:
        raise InvalidRequest("the interval is empty", field="end", asked=end, possible=f"after {start}")
    if start < now - PAST_S_MAX:
        raise InvalidRequest(
            "the plan is shown from a week ago at most", field="start", asked=start, possible=f"{now - PAST_S_MAX}"
        )
    if end > now + AHEAD_S_MAX:
        raise InvalidRequest(
            "nothing is planned so far ahead", field="end", asked=end, possible=f"{now + AHEAD_S_MAX} at most"
        )
