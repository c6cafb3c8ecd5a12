"""May this lease be asked for? Limits, of users, of their groups and of their VOs.

A limit is about what was agreed, not about what happens to run: who has sixteen workspaces reserved for Monday has
them, and a lease that waits in the queue counts as outstanding. Of a lease that waits for room nobody knows when it
will run, so `concurrent` refuses it only if it could never run; when it is about to begin, the same limit is looked at
again (`Chosen.held_back`).

A refusal says which limit of whom, what is held, and what that limit would let pass: fewer workspaces, a shorter run,
or the same later. Whether the other limits and the site's room do so too is tried before it is offered
(core/bargain.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from vws.core.errors import LimitReached
from vws.core.membership import Limits, Party
from vws.core.policy import Standing
from vws.core.spans import show_duration, show_exactly

LATER_TRIES_MAX = 200


# Node-hours that a user's leases held from an instant until now.
HeldBefore = Callable[[str, float], float]


def nothing_before(user: str, since: float) -> float:
    return 0.0


class Holdings:
    """What one party has: its leases that have not ended, without the one that is asked for, and what it had before.

    before: (since) -> node-hours that its leases held from then until now, the running ones counted in. nodes: the
    workspaces of all these leases, where they have been counted: only some limits have to look at each lease.
    """

    def __init__(
        self,
        title: str,
        held: Iterable[Standing] = (),
        before: Callable[[float], float] = lambda since: 0.0,
        nodes: int | None = None,
    ) -> None:
        self.title = title
        self.before = before
        self._held = held
        self._nodes = nodes

    @cached_property
    def held(self) -> tuple[Standing, ...]:
        return tuple(self._held)

    @property
    def nodes(self) -> int:
        if self._nodes is None:
            self._nodes = sum(standing.nodes for standing in self.held)
        return self._nodes

    def peak(self, start: float, end: float) -> int:
        """The most workspaces at one instant of [start, end), by what is agreed."""
        return max((count for _, count in self._counts(start, end)), default=0)

    def above(self, room: int, start: float, end: float) -> float | None:
        """The first instant of [start, end) with more than `room` workspaces; None if there is none."""
        return next((moment for moment, count in self._counts(start, end) if count > room), None)

    def _counts(self, start: float, end: float) -> Iterator[tuple[float, int]]:
        """How many workspaces there are from each moment of [start, end) on at which that changes."""
        steps: list[tuple[float, int]] = []
        for held in self.held:
            if held.start is None or held.start >= end:
                continue
            over = held.start + held.left_s
            if over > start:
                steps += [(max(held.start, start), held.nodes), (over, -held.nodes)]
        present = 0
        for moment, step in sorted(steps):  # at one instant, what ends makes room first
            present += step
            yield moment, present


Admit = Callable[[Standing, Holdings, Limits, float], None]


def holdings_of(party: Party, standings: Iterable[Standing], before: HeldBefore) -> Holdings:
    """What a party holds, of what everybody holds."""
    held = [standing for standing in standings if standing.owner in party.users]
    return Holdings(party.title, held, spent_by(party, before))


def spent_by(party: Party, before: HeldBefore) -> Callable[[float], float]:
    """Node-hours that its users' leases held from an instant until now."""
    return lambda since: sum(before(user, since) for user in sorted(party.users))


def everyone(asked: Standing, holdings: Holdings, limits: Limits, now: float) -> None:
    """No limits, whatever the configuration says of them."""


def within_limits(asked: Standing, holdings: Holdings, limits: Limits, now: float) -> None:
    """Raise LimitReached if `asked` would be beyond one of a party's limits."""
    if limits.total is not None and holdings.nodes + asked.nodes > limits.total:
        raise _beyond_total(asked, holdings, limits.total)
    if limits.ahead_s is not None and asked.start is not None and asked.start > now + limits.ahead_s:
        raise _too_far_ahead(asked, holdings, limits.ahead_s, now)
    if limits.concurrent is not None:
        _check_concurrent(asked, holdings, limits.concurrent, now)
    if limits.node_hours is not None:
        _check_node_hours(asked, holdings, limits.node_hours, limits.days, now)


def _beyond_total(asked: Standing, holdings: Holdings, limit: int) -> LimitReached:
    left = max(0, limit - holdings.nodes)
    return _reached(
        f"{holdings.title} may have {_workspaces(limit)} in leases that have not ended, "
        f"has {holdings.nodes} and asks for {asked.nodes}",
        "total", holdings.title, asked.nodes, holdings.nodes, _fewer(left),
        otherwise="the same after a lease has ended",
    )  # fmt: skip


def _too_far_ahead(asked: Standing, holdings: Holdings, limit_s: int, now: float) -> LimitReached:
    assert asked.start is not None
    offer = {"kind": "sooner", "start": int(now + limit_s), "text": f"a start within {show_exactly(limit_s)} from now"}
    return _reached(
        f"{holdings.title} may ask for a start {show_exactly(limit_s)} ahead at most; this one is "
        f"{show_exactly(round(asked.start - now))} ahead",
        "ahead_s", holdings.title, asked.start, limit_s, [offer],
    )  # fmt: skip


def _check_concurrent(asked: Standing, holdings: Holdings, limit: int, now: float) -> None:
    peak, room = 0, limit - asked.nodes
    offers: list[dict[str, Any]] = []
    if asked.start is not None:
        start = max(now, asked.start)
        end = start + asked.left_s - max(0.0, now - asked.start)
        peak = holdings.peak(start, end)
        if peak > room:
            offers = [*_shorter(holdings, room, start, end), *_later(holdings, room, start, end - start, now)]
    if peak <= room:
        return
    held = f"has {peak} then and asks for {asked.nodes}" if peak else f"and asks for {asked.nodes}"
    raise _reached(
        f"{holdings.title} may have {_workspaces(limit)} at a time, {held}",
        "concurrent", holdings.title, asked.nodes, peak,
        [*_fewer(limit - peak, " at that time" if peak else ""), *offers],
        otherwise="the same after a lease has ended" if asked.nodes <= limit else f"{_workspaces(limit)} at most",
    )  # fmt: skip


def _shorter(holdings: Holdings, room: int, start: float, end: float) -> list[dict[str, Any]]:
    """The same until others of the party begin."""
    full = holdings.above(room, start, end) if room >= 0 else None
    length_s = 0 if full is None else int(full - start)
    if length_s < 1:
        return []
    return [{"kind": "shorter", "duration_s": length_s, "text": f"the same for {show_exactly(length_s)}"}]


def _later(holdings: Holdings, room: int, start: float, length_s: float, now: float) -> list[dict[str, Any]]:
    """The first start at which no more than `room` are held throughout. That can only be where a lease ends."""
    if room < 0:
        return []
    ends = sorted({held.end for held in holdings.held if held.end is not None and held.end > start})
    for end in ends[:LATER_TRIES_MAX]:
        if holdings.peak(end, end + length_s) <= room:
            return [
                {"kind": "later", "start": int(-(-end // 1)), "text": f"the same {show_duration(end - now)} from now"}
            ]
    return []


def _check_node_hours(asked: Standing, holdings: Holdings, limit: float, days: int, now: float) -> None:
    held = holdings.before(now - days * 86400) + sum(_ahead_hours(held, now) for held in holdings.held)
    asked_hours = _ahead_hours(asked, now)
    if held + asked_hours <= limit:
        return
    left_s = max(0.0, limit - held) * 3600
    offers: list[dict[str, Any]] = []
    if left_s >= asked.nodes:
        shorter_s = int(left_s // max(asked.nodes, 1))
        offers.append(
            {"kind": "shorter", "duration_s": shorter_s, "text": f"{show_exactly(shorter_s)} for {asked.nodes} of them"}
        )
    raise _reached(
        f"{holdings.title} may have {limit:g} node-hours in {days} days, "
        f"has or had {held:.4g} and asks for {asked_hours:.4g}",
        "node_hours", holdings.title, round(asked_hours, 3), round(held, 3), offers,
        otherwise="the same when what was used is longer ago",
    )  # fmt: skip


def _ahead_hours(standing: Standing, now: float) -> float:
    """Node-hours that are agreed from now on."""
    left_s = standing.left_s
    if standing.start is not None:
        left_s -= max(0.0, now - standing.start)
    return standing.nodes * max(0.0, left_s) / 3600


def _fewer(count: int, when: str = "") -> list[dict[str, Any]]:
    return [{"kind": "fewer", "count": count, "text": f"{_workspaces(count)}{when}"}] if count > 0 else []


def _workspaces(count: int) -> str:
    return "1 workspace" if count == 1 else f"{count} workspaces"


def _reached(
    problem: str,
    limit: str,
    title: str,
    asked: float,
    held: float,
    offers: Sequence[dict[str, Any]],
    *,
    otherwise: str = "",
) -> LimitReached:
    possible = " or ".join(offer["text"] for offer in offers) or otherwise
    details = {"limit": limit, "party": title, "held": held, "offers": list(offers)}
    return LimitReached(problem, field=limit, asked=asked, possible=possible, details=details)
