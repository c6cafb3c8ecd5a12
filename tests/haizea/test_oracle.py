"""The oracle against Haizea's own schedules: every lease starts and ends when it did there."""

from __future__ import annotations

import pytest

from tests.haizea.oracle import Oracle
from tests.haizea.schedules import LONG, SHARED, SHORT, reference, workload

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the reference schedules are not here")
NODES = 144


def compare(name, trace, injected, policy):
    leases = Oracle(workload(trace, injected), NODES, policy).simulate()
    assert [(lease.id, lease.start, lease.end) for lease in leases] == reference(name)


@pytest.mark.parametrize("name", SHORT)
def test_a_short_schedule_is_haizeas(name):
    compare(name, *SHORT[name])


@pytest.mark.soak
@pytest.mark.parametrize("name", LONG)
def test_a_long_schedule_is_haizeas(name):
    compare(name, *LONG[name])
