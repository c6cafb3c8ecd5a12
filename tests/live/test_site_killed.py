"""A whole site on real guests: killed at several steps, its clock's promises kept while nobody is watching."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.live.sites import GROUP, RealSite, qemus
from tests.soaking import one_in
from vws import processes

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = RealSite(tmp_path_factory.mktemp("live") / "site")
    try:
        site.start()
        yield site
    finally:
        site.stop()


def kill(site, *which) -> None:
    for process in which:
        pid = processes.running(site.directory, process)
        if pid:
            os.kill(pid, signal.SIGKILL)
            assert processes.wait_gone(site.directory, process, 5)


def left_on_the_node(site) -> list[str]:
    network = site.directory.node / "network"
    found = [p.name for p in (site.directory.node / "workspaces").iterdir()]
    return found + [str(p) for p in network.rglob("wsp-*")]


def end(site, lease) -> None:
    site.ask(lambda c: c.cancel_lease(lease["id"]))
    site.until(lambda c: c.lease(lease["id"])["state"] == "ended", "ended")
    assert not any(qemus(w["id"]) for w in lease["workspaces"])


@pytest.mark.parametrize(
    "point",
    one_in(
        5,
        [
            "agent.domain.started",
            "agent.orders.kept",
            "agent.overlay.made",
            "agent.domain.destroyed",
            "agent.boot.noted",
        ],
    ),
)
def test_the_agent_killed_at_a_step_of_a_real_deployment(site, point, tmp_path, monkeypatch):
    once = tmp_path / "died"
    kill(site, "agent")
    monkeypatch.setenv("VWS_FAULT", point)
    monkeypatch.setenv("VWS_FAULT_ONCE", str(once))
    site.start()
    lease = site.ask(lambda c: c.request_lease([GROUP | {"count": 1}], 600, point.replace(".", "-")))

    def active(client) -> bool:
        if not processes.running(site.directory, "agent"):
            site.start()
        return client.lease(lease["id"])["state"] == "active"

    site.until(active, "active")
    (workspace,) = site.ask(lambda c: c.lease(lease["id"]))["workspaces"]
    assert len(qemus(workspace["id"])) == 1
    site.ask(lambda c: c.cancel_lease(lease["id"]))

    def ended(client) -> bool:
        if not processes.running(site.directory, "agent"):
            site.start()
        return client.lease(lease["id"])["state"] == "ended"

    site.until(ended, "ended")
    assert once.exists(), f"{point} was never reached"
    assert qemus(workspace["id"]) == []
    assert left_on_the_node(site) == []


@pytest.mark.soak
def test_both_killed_while_one_boots_and_a_saved_guest_goes_on_where_it_was(site):
    lease = site.lease(2, "pair")
    first, second = lease["workspaces"]
    before_s = float(site.ssh("pair-1", "cat /proc/uptime").split()[0])
    site.ask(lambda c: c.command(first["id"], "suspend"))
    site.until(lambda c: c.workspace(first["id"])["state"] == "suspended", "suspended")
    assert qemus(first["id"]) == []
    third = site.ask(lambda c: c.request_lease([GROUP | {"count": 1}], 600, "third"))
    time.sleep(0.7)
    kill(site, "service", "agent")
    site.start()
    site.until(lambda c: c.lease(third["id"])["state"] == "active", "the third came up all the same")
    daemon = int((site.directory.node / "libvirt/run/libvirt/libvirtd.pid").read_text())
    os.kill(daemon, signal.SIGKILL)
    site.ask(lambda c: c.command(first["id"], "restore"))
    site.until(lambda c: c.workspace(first["id"])["state"] == "running", "restored")
    after_s = float(site.ssh("pair-1", "cat /proc/uptime").split()[0])
    assert before_s < after_s < before_s + 60, "its uptime went on where it stopped"
    assert site.ssh("pair-2", "hostname") == "pair-2"
    assert len(qemus(second["id"])) == 1
    end(site, site.ask(lambda c: c.lease(lease["id"])))
    end(site, site.ask(lambda c: c.lease(third["id"])))
    assert left_on_the_node(site) == []


def test_a_lease_ends_to_the_second_while_the_service_is_away(site):
    lease = site.lease(1, "short", duration_s=30)
    (workspace,) = lease["workspaces"]
    kill(site, "service")
    try:
        while time.time() < lease["end"] - 0.5:
            assert len(qemus(workspace["id"])) == 1, "not before its time"
            time.sleep(0.1)
        deadline = lease["end"] + 4
        while qemus(workspace["id"]):
            assert time.time() < deadline, "not ended in time"
            time.sleep(0.05)
        late_s = time.time() - lease["end"]
    finally:
        site.start()
    site.until(lambda c: c.lease(lease["id"])["state"] == "ended", "the record knows")
    assert left_on_the_node(site) == []
    assert late_s < 3, "the domain's end itself takes QEMU up to 2 s here"


def test_daemons_that_die_cost_no_lease_and_no_saved_guest(site):
    site.start()
    dnsmasq, libvirtd = "network/dnsmasq.pid", "libvirt/run/libvirt/libvirtd.pid"
    site.until(lambda _: pid_in(site, dnsmasq) is not None, "dnsmasq running")
    died = pid_in(site, dnsmasq)
    os.kill(died, signal.SIGKILL)
    site.until(lambda _: pid_in(site, dnsmasq) not in (None, died), "dnsmasq started again", within_s=15)
    lease = site.lease(1, "served")
    (workspace,) = lease["workspaces"]
    for delay_s in (0.1, 0.5):
        before_s = float(site.ssh(workspace["id"], "cat /proc/uptime").split()[0])
        site.ask(lambda c: c.command(workspace["id"], "suspend"))
        time.sleep(delay_s)
        os.kill(pid_in(site, libvirtd), signal.SIGKILL)
        site.until(lambda c: c.workspace(workspace["id"])["state"] == "suspended", "suspended all the same")
        site.ask(lambda c: c.command(workspace["id"], "restore"))
        site.until(lambda c: c.workspace(workspace["id"])["state"] == "running", "restored")
        assert float(site.ssh(workspace["id"], "cat /proc/uptime").split()[0]) > before_s
    end(site, lease)
    assert left_on_the_node(site) == []


def pid_in(site, file: str) -> int | None:
    try:
        return int((site.directory.node / file).read_text())
    except FileNotFoundError:
        return None
