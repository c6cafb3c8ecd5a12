"""What a lease would cost, before it is asked for: the charge of the usage report for all that it asks to reserve."""

from __future__ import annotations

from vws.core.tariff import Clock, Metered, OffsetAt, Price, Tariff
from vws.core.terms import LeaseRequest, When


def estimate(
    request: LeaseRequest,
    start: float,
    *,
    tariff: Tariff,
    price: Price,
    offset_at: OffsetAt,
    owner: str = "",
    vo: str = "",
) -> float:
    """The charge, in the tariff's unit, of a run from `start` (UTC seconds) to its end. A series: one instance."""
    end = start + request.duration_s
    hours = Clock.over(start, end, offset_at, tariff.bands).hours(start, end)
    kind = When.RESERVATION if request.when is When.PERIODIC else request.when
    members = sum(group.count for group in request.groups)
    cpus = sum(group.count * group.cpus for group in request.groups)
    preemptible = request.preemptible or request.restartable
    metered = Metered(str(kind), preemptible, request.urgent, owner, vo, members * hours, cpus * hours)
    return price(tariff, metered)
