"""Two real nodes on one machine: one joins by token, dies, returns, and nothing is ever alive twice."""

from __future__ import annotations

import os
import signal

import pytest

from tests.live.sites import RealSite, qemus
from vws import processes, supervisor
from vws.core.errors import VwsError
from vws.joined import join_node

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    # An agent reports every 10 s: sooner than that no node can be called silent.
    site = RealSite(tmp_path_factory.mktemp("live") / "site", silent_after_s=11.5, lost_after_s=12.5)
    try:
        site.start()
        yield site
    finally:
        site.stop()


def states(client, lease) -> dict[str, str]:
    return {w["node_name"]: w["state"] for w in client.lease(lease["id"])["workspaces"]}


def kill_agent(directory) -> None:
    pid = processes.running(directory, "agent")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert processes.wait_gone(directory, "agent", 5)


def start_agent(site, directory) -> None:
    supervisor.start_site(directory.path, detach=True, say=site.said.append)


def test_a_node_joins_dies_and_returns(site, tmp_path):
    second = site.join(tmp_path / "second", "second")
    site.until(lambda c: {n["state"] for n in c.nodes()} == {"ready"}, "both nodes ready")
    first_name = next(n["name"] for n in site.ask(lambda c: list(c.nodes())) if n["name"] != "second")

    lease = site.lease(2, "two")
    assert states(site.client(), lease) == {first_name: "running", "second": "running"}, "spread over both"
    members = {w["node_name"]: w for w in lease["workspaces"]}
    for workspace in members.values():
        assert site.ssh(workspace["name"], "hostname") == workspace["name"]

    # Stopping a host whose guests are leased would break their leases' ends.
    with pytest.raises(VwsError, match="workspaces are leased on this host"):
        supervisor.stop_site(second.path, say=site.said.append)
    assert supervisor.site_status(second.path)["healthy"]

    # Only the agent dies, as when a network is cut: the guest lives on, and is given up for lost.
    kill_agent(second)
    site.until(lambda c: states(c, lease) == {first_name: "running", "second": "lost"}, "lost after the grace time")
    assert site.ask(lambda c: c.lease(lease["id"]))["state"] == "degraded"
    lost = members["second"]["id"]
    assert len(qemus(lost)) == 1

    # Its user gives up and asks anew under the same name: only what is nowhere else may be alive there.
    site.ask(lambda c: c.cancel_lease(lease["id"]))
    site.until(lambda c: states(c, lease)[first_name] == "terminated", "the first one's end")
    assert site.ask(lambda c: c.lease(lease["id"]))["state"] == "ending", "the lost one may still be alive"
    assert states(site.client(), lease)["second"] == "terminating"

    # The node returns and obeys: what was ended meanwhile ends there.
    start_agent(site, second)
    site.until(lambda c: c.lease(lease["id"])["state"] == "ended", "ended when the node said so")
    assert qemus(lost) == []

    # A node that loses power takes its guests along; the record says so when it is back.
    again = site.lease(2, "two")
    crashed = next(w for w in again["workspaces"] if w["node_name"] == "second")
    kill_agent(second)
    for pid in qemus(crashed["id"]):
        os.kill(pid, signal.SIGKILL)
    site.until(lambda c: states(c, again)["second"] == "lost", "lost again")
    start_agent(site, second)
    site.until(lambda c: states(c, again) == {first_name: "running", "second": "failed"}, "failed with its reason")
    reason = site.ask(lambda c: c.workspace(crashed["id"]))["reason"]
    assert "unexpectedly" in reason
    assert qemus(crashed["id"]) == []
    site.ask(lambda c: c.cancel_lease(again["id"]))
    site.until(lambda c: c.lease(again["id"])["state"] == "ended", "ended")

    stopped = supervisor.stop_site(second.path, say=site.said.append)
    assert (stopped["node"], stopped["agent"], stopped["healthy"]) == ("second", None, False)


def test_a_second_host_must_have_a_whole_token(site, tmp_path):
    before = site.ask(lambda c: list(c.nodes()))
    word = site.ask(lambda c: c.invite_node())["token"]
    for wrong, said in [("nonsense", "no join token"), (word[:-40], "no join token")]:
        with pytest.raises(VwsError, match=said):
            join_node(tmp_path / "third", wrong, name="third", detach=True, say=site.said.append)
    assert [n["id"] for n in site.ask(lambda c: list(c.nodes()))] == [n["id"] for n in before]
