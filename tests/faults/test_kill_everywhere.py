"""The service or the agents killed at every step of a deployment, and the site ends up as agreed.

Real processes over real TLS, on simulated hypervisors that keep their state on disk. For each fault point the same
story is led: a lease of three comes up, one of them is suspended and restored, another rebooted, it is extended and
cancelled, while a second lease ends by its time. Somewhere in it one process dies by SIGKILL and is started again, as
by `vws site start`.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.faults.site import SiteUnderFire
from tests.soaking import one_in
from vws.faultpoints import POINTS

# Reached where the service's own clock has something to do.
BY_THE_CLOCK = {"service.tick.planned", "service.end.committed"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = SiteUnderFire(tmp_path_factory.mktemp("fire") / "site")
    yield site
    site.stop()


def state_of(client, name):
    return client.workspace(name)["state"]


def is_over(short: dict[str, Any]) -> bool:
    """Its few seconds may have passed while its node was dead; nothing else may keep it from coming up."""
    return short["state"] == "ended" or (short["state"] == "failed" and "its time was over" in short["reason"])


def lead_a_life(site: SiteUnderFire, name: str, *, agents_away: bool = False) -> list[str]:
    """The story; returns the ids of the leases in it."""
    group = {"image": "demo", "count": 3, "cpus": 1, "memory_mib": 64, "disk_mib": 10}
    short = site.insist(lambda c: c.request_lease(name=f"{name}-s", groups=[group | {"count": 1}], duration_s=4))
    lease = site.insist(lambda c: c.request_lease(name=name, groups=[group], duration_s=600))
    site.until(lambda c: c.lease(lease["id"])["state"] == "active", "active")
    if agents_away:
        # Nobody else ends it in time: the service's own clock does, and the node learns of it when it is back.
        site.kill("agent")
        time.sleep(max(0.0, short["end"] + 1 - time.time()))
    first, second = f"{name}-1", f"{name}-2"
    site.insist(lambda c: c.command(c.workspace(first)["id"], "suspend"))
    site.insist(lambda c: c.command(c.workspace(second)["id"], "reboot"))
    site.until(lambda c: state_of(c, first) == "suspended", "suspended")
    site.insist(lambda c: c.command(c.workspace(first)["id"], "restore"))
    site.insist(lambda c: c.extend_lease(lease["id"], duration_s=100))
    site.until(lambda c: {state_of(c, first), state_of(c, second)} == {"running"}, "running again")
    assert site.insist(lambda c: c.lease(lease["id"]))["end"] == lease["end"] + 100, "extended once"
    site.insist(lambda c: c.cancel_lease(lease["id"]))
    site.until(lambda c: c.lease(lease["id"])["state"] == "ended", "ended")
    site.until(lambda c: is_over(c.lease(short["id"])), "over")
    return [lease["id"], short["id"]]


# Guests, clusters and images have stories of their own: test_contexts.py, test_cluster_killed.py, test_image_killed.py;
# saves: tests/live/test_save.py; and caches: tests/node/test_kill.py.
IMAGES = (
    "service.upload.", "service.image.", "service.export.", "service.bucket.", "service.save.", "agent.capture.",
    "agent.cache.",
)  # fmt: skip
ELSEWHERE = ("service.context.", "service.cluster.", "agent.sealed.", *IMAGES)
STEPS = sorted(point for point in POINTS if not point.startswith(ELSEWHERE))
# An agent's are many and alike.
AGENTS, SERVICES = ([p for p in STEPS if p.startswith(who)] for who in ("agent.", "service."))


@pytest.mark.parametrize("point", [*one_in(6, AGENTS), *one_in(3, SERVICES)])
def test_killed_at_any_step_the_site_ends_up_as_agreed(site, point):
    site.kill()
    site.arm(point)
    ids = lead_a_life(site, "life-" + point.replace(".", "-"), agents_away=point in BY_THE_CLOCK)
    assert site.once.exists(), f"{point} was never reached"
    assert site.remains() == {}, "something is left on a node"
    with site.client() as client:
        leases = {lease["id"]: lease for lease in client.leases()}
        assert leases[ids[0]]["state"] == "ended"
        assert is_over(leases[ids[1]])
        ours = [w for id in ids for w in leases[id]["workspaces"]]
        assert {w["state"] for w in ours} == {"terminated"}
        assert len({w["addresses"][0] for w in ours}) == 4, "no address was given twice"
        check_audit(client, ours)


def check_audit(client, workspaces) -> None:
    """The events alone tell every state, and each address was released once."""
    told, released = {}, {}
    for event in client.events():
        if event["kind"] == "workspace.released":
            released[event["workspace"]] = released.get(event["workspace"], 0) + 1
        elif event["workspace"]:
            told[event["workspace"]] = event["kind"].removeprefix("workspace.")
    for workspace in workspaces:
        assert told[workspace["id"]] == workspace["state"]
        assert released[workspace["id"]] == 1


def test_kill_both_at_random_moments_while_many_leases_come_and_go(site):
    """No fault points: the plug is pulled whenever."""
    import random

    site.disarm()
    chance = random.Random(7)
    group = {"image": "demo", "count": 2, "cpus": 1, "memory_mib": 64, "disk_mib": 10}
    ids = []
    for number in range(8):
        lease = site.insist(lambda c, n=number: c.request_lease(name=f"storm-{n}", groups=[group], duration_s=600))
        ids.append(lease["id"])
        if chance.random() < 0.7:
            site.kill(*chance.choice([("service",), ("agent",), ("service", "agent")]))
        if number % 2:
            site.insist(lambda c, id=ids[number - 1]: c.cancel_lease(id))
    site.until(
        lambda c: [c.lease(id)["state"] for id in ids] == ["ended", "active"] * 4, "every lease as it was left", 60
    )
    for id in ids[1::2]:
        site.insist(lambda c, id=id: c.cancel_lease(id))
    site.until(lambda c: {c.lease(id)["state"] for id in ids} == {"ended"}, "all ended", 60)
    assert site.remains() == {}
