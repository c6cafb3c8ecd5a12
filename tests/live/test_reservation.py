"""A best-effort lease gives way to a reservation by suspension on real machines, and goes on where it stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.live.sites import RealSite
from vws.client import ApiError

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

# In one step, as who reads between the emptying and the writing of a file sees nothing.
COUNTER = "n=0; while :; do n=$((n + 1)); echo $n >/tmp/next; mv /tmp/next /tmp/count; sleep 1; done"
STARTS_IN_S = 55
LASTS_S = 15


@pytest.fixture
def site(tmp_path: Path):
    # Two CPUs and no more: what the counters have, nobody else has.
    site = RealSite(tmp_path / "site", "cpu_ratio = 1.0")
    try:
        site.start()
        yield site
    finally:
        site.stop()


def counts(site: RealSite) -> list[int]:
    return [int(site.ssh(f"counting-{n}", "cat /tmp/count")) for n in (1, 2)]


def reserved(site: RealSite) -> Any:
    """A reservation that needs all there is, as soon as this machine can have it prepared."""
    group = {"image": "demo", "count": 2, "cpus": 1, "memory_mib": 128, "disk_mib": 128}
    terms = {"when": "reservation", "start": int(time.time()) + STARTS_IN_S}
    try:
        return site.ask(lambda c: c.request_lease([group], LASTS_S, "lecture", **terms))
    except ApiError:
        terms["start"] += STARTS_IN_S
        return site.ask(lambda c: c.request_lease([group], LASTS_S, "lecture", **terms))


def test_counters_are_suspended_in_time_for_a_reservation_and_go_on_after_it(site: RealSite, capsys) -> None:
    soft = site.lease(2, "counting", when="best-effort", preemptible=True, command=COUNTER)
    site.until(lambda c: all(w["state"] == "running" for w in c.lease("counting")["workspaces"]), "counting")
    hard = reserved(site)
    start = hard["start"]
    assert hard["state"] == "planned"
    before, seen_at = counts(site), time.time()

    site.until(lambda c: c.lease("counting")["state"] == "suspended", "suspended", 2 * STARTS_IN_S)
    saved_at = time.time()
    assert saved_at < start
    site.until(lambda c: c.lease("lecture")["state"] == "active", "the reservation active", 2 * STARTS_IN_S)
    lecture = site.ask(lambda c: c.lease("lecture"))
    early_s = start - lecture["active_at"]
    with capsys.disabled():
        print(f"\nthe reservation ran {early_s:.1f} s before its start")
    assert early_s >= 0, "it is running at its start, not starting"

    site.until(lambda c: c.lease("counting")["state"] == "active", "counting again", LASTS_S + STARTS_IN_S)
    resumed_at = time.time()
    assert resumed_at > start + LASTS_S
    after, now = counts(site), time.time()
    for counted_before, counted_after in zip(before, after, strict=True):
        ran_s = (saved_at - seen_at) + (now - resumed_at)
        assert counted_before < counted_after, "it goes on where it stopped, not from the beginning"
        assert counted_after - counted_before <= ran_s + 5, "and did not count while it was suspended"
    events = [e["kind"] for e in site.ask(lambda c: list(c.events(lease=soft["id"])))]
    assert [kind for kind in events if kind in ("lease.suspending", "lease.suspended", "lease.resuming")] == [
        "lease.suspending",
        "lease.suspended",
        "lease.resuming",
    ]
    site.ask(lambda c: c.cancel_lease("counting"))
    site.until(lambda c: c.lease(soft["id"])["state"] == "ended", "ended")
