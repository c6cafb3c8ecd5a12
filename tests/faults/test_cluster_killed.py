"""The service killed while it launches a cluster, whose launch is asked for again: one cluster, one context."""

from __future__ import annotations

import pytest

from tests.faults.site import SiteUnderFire
from vws.faultpoints import POINTS

STEPS = sorted(point for point in POINTS if point.startswith("service.cluster."))
FILE = """
vws: cluster/1
name: pair
networks: {private: {range: 10.20.0.0/24}}
groups:
  node: {image: demo, count: 2, memory: 64MiB, disk: 10MiB, networks: [private], provides: [peer], requires: [peer]}
lease: {for: 10m}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = SiteUnderFire(tmp_path_factory.mktemp("cluster") / "site", nodes=1)
    yield site
    site.stop()


@pytest.mark.parametrize("point", STEPS)
def test_a_launch_that_was_killed_is_made_once(site, point):
    site.kill()
    site.arm(point)
    launched = site.insist(lambda c: c.launch_cluster(FILE))
    assert site.once.exists(), f"{point} was never reached"
    id = launched["id"]
    site.until(lambda c: [m["state"] for m in c.cluster(id)["members"]] == ["running"] * 2, "both run")
    site.until(lambda c: len(c.context(c.cluster(id)["context"])["members"]) == 2, "both are expected")
    with site.client() as client:
        assert [each["id"] for each in client.clusters(live=True)] == [id]
    site.until(lambda c: [each["id"] for each in c.contexts(live=True)] == [c.cluster(id)["context"]], "one context")
    site.insist(lambda c: c.terminate_cluster(id))
    site.until(lambda c: c.cluster(id)["state"] == "ended", "ended")
    site.until(lambda c: not list(c.contexts(live=True)), "its context is closed")
    assert site.remains() == {}
