"""The service killed when a reservation is granted, when others are suspended for it, and when they go on.

What can be saved fills the site, somebody reserves all of it, and at each of the three moments the service dies by
SIGKILL: before it commits what it has decided, just after, or as soon as anybody can see it. Whichever it is, the
reservation runs at its start and the others go on where they were.
"""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from tests.faults.site import SiteUnderFire

# A service that dies is back within the time that a suspension may take.
RATES = """
[rates]
suspend_mib_per_s = 12.0
resume_mib_per_s = 64.0
boot_s = 0.5
create_s = 0.1
enact_s = 0.1
shutdown_s = 1.0
learn = false
"""
GROUP = {"image": "demo", "count": 2, "cpus": 16, "memory_mib": 48, "disk_mib": 10}
SOFT_S, HARD_S, AHEAD_S = 26, 5, 24
RESTART_S = 8.0
# Where it dies when granting, suspending and resuming (the second that happens after the reservation has begun: the
# first is its end); "": whenever that is seen.
MOMENTS = {
    "before": ("service.lease.planned", "service.tick.planned", "service.tick.planned:2"),
    "after": ("service.lease.committed", "service.end.committed", "service.end.committed:2"),
    "seen": ("", "", ""),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = SiteUnderFire(tmp_path_factory.mktemp("plan") / "site", config=RATES)
    yield site
    site.stop()


class Story:
    def __init__(self, site: SiteUnderFire, name: str) -> None:
        self.site = site
        self.name = name
        self.soft = site.insist(
            lambda c: c.request_lease([GROUP], SOFT_S, f"{name}-soft", when="best-effort", preemptible=True)
        )
        self.reaches(self.soft, "active")
        self.start = int(time.time()) + AHEAD_S
        self.deaths: list[float] = []

    def lease(self, lease):
        return self.site.insist(lambda c: c.lease(lease["id"]))

    def reaches(self, lease, state: str) -> None:
        self.site.until(lambda c: c.lease(lease["id"])["state"] == state, f"{lease['name']} {state}")

    def events(self, lease, kind: str):
        return [e for e in self.site.insist(lambda c: list(c.events(lease=lease["id"]))) if e["kind"] == kind]

    def reserve(self, point: str) -> None:
        self._arm(point)
        self.hard = self.site.insist(
            lambda c: c.request_lease([GROUP], HARD_S, f"{self.name}-hard", when="reservation", start=self.start)
        )
        self._has_died(point)

    def until(self, lease, kind: str, point: str) -> None:
        """Die at that event of a lease."""
        self._arm(point)
        self.site.until(lambda c: any(e["kind"] == kind for e in c.events(lease=lease["id"])), kind)
        self._has_died(point)
        (event,) = self.events(lease, kind)
        assert abs(event["at"] - self.deaths[-1]) < RESTART_S

    def _arm(self, point: str) -> None:
        """The next one to start dies there; the plan it goes by is that of the one before."""
        before = self.promises()
        self.site.kill("service")
        self.site.arm(point)
        assert self.promises() == before

    def _has_died(self, point: str) -> None:
        if point:
            assert self.site.once.exists(), f"{point} was not reached"
            self.deaths.append(self.site.once.stat().st_mtime)
        else:
            self.site.kill("service")
            self.deaths.append(time.time())

    def promises(self):
        """What users are told of the plan."""
        asked = ("start", "end", "planned_start", "planned_end", "planned_nodes", "gives_way_at", "worked_s")
        return [{key: lease[key] for key in asked} for lease in self.site.insist(lambda c: list(c.leases(live=True)))]


@pytest.mark.parametrize(
    "when", ["before", *(pytest.param(when, marks=pytest.mark.soak) for when in ("after", "seen"))]
)
def test_killed_at_a_turn_of_the_plan_the_site_keeps_to_it(site, when):
    site.kill("service")
    site.disarm()
    at_grant, at_suspension, at_resumption = MOMENTS[when]
    story = Story(site, when)
    story.reserve(at_grant)
    story.until(story.soft, "lease.suspending", at_suspension)
    story.reaches(story.hard, "active")
    story.until(story.soft, "lease.resuming", at_resumption)
    for lease in (story.hard, story.soft):
        story.reaches(lease, "ended")
    check_that_it_went_as_planned(story)
    assert site.remains() == {}


def check_that_it_went_as_planned(story: Story) -> None:
    hard, soft = story.lease(story.hard), story.lease(story.soft)
    assert (hard["start"], hard["end"]) == (story.start, story.start + HARD_S)
    assert hard["active_at"] <= hard["start"]
    assert (soft["worked_s"], soft["suspensions"], soft["restarts"]) == (SOFT_S, 1, 0)
    for lease, kinds in ((hard, ("granted", "active")), (soft, ("granted", "suspending", "suspended", "resuming"))):
        assert [len(story.events(lease, f"lease.{kind}")) for kind in kinds] == [1] * len(kinds), "nothing twice"
        assert len(lease["workspaces"]) == GROUP["count"]
    assert len(story.events(soft, "lease.active")) == 2
    steps = [
        story.events(soft, "lease.suspended")[0],
        story.events(hard, "lease.active")[0],
        story.events(hard, "lease.ended")[0],
        story.events(soft, "lease.active")[1],
    ]
    assert all(one["seq"] < other["seq"] for one, other in pairwise(steps)), "no two had the nodes at a time"
    saved = [story.events(soft, f"workspace.{state}") for state in ("suspended", "restoring")]
    assert all(len({e["workspace"] for e in each}) == len(each) == GROUP["count"] for each in saved)
