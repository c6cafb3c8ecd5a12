"""What a lease would cost."""

from __future__ import annotations

import pytest

from vws.core.estimate import estimate
from vws.core.tariff import Band, Tariff, per_cpu_hour, per_node_hour
from vws.core.terms import GroupRequest, LeaseRequest, When

MIDNIGHT = 1_800_057_600  # a Saturday, 0:00 UTC
GROUPS = (GroupRequest("demo", 1, name="head"), GroupRequest("demo", 3, cpus=2, name="worker"))
NIGHTS = Tariff(base=2.0, preemptible=0.5, kinds={"best-effort": 0.1}, bands=(Band(0.5, begin="20:00", end="08:00"),))


def cost(start: float = MIDNIGHT + 9 * 3600, price=per_node_hour, **said) -> float:
    request = LeaseRequest(GROUPS, **({"duration_s": 7200} | said))
    return estimate(request, start, tariff=NIGHTS, price=price, offset_at=lambda at: 0)


def test_every_member_and_hour_counts():
    assert cost() == pytest.approx(4 * 2 * 2.0)
    assert cost(price=per_cpu_hour) == pytest.approx(7 * 2 * 2.0)
    assert cost(duration_s=1800) == pytest.approx(4 * 0.5 * 2.0)


def test_the_time_of_day_and_the_kind_count():
    assert cost(MIDNIGHT) == pytest.approx(cost() / 2)
    assert cost(MIDNIGHT + 19 * 3600) == pytest.approx(cost() * 0.75)
    assert cost(preemptible=True) == pytest.approx(cost() / 2)
    assert cost(when=When.BEST_EFFORT) == pytest.approx(cost() / 10)
    assert cost(when=When.PERIODIC) == cost()
