"""What Prometheus reads, and what an administrator does."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def samples(answer) -> dict:
    return {
        (s.name, *sorted(s.labels.values())): s.value
        for family in text_string_to_metric_families(answer.text)
        for s in family.samples
    }


def test_counts_follow_the_site(running):
    (node,) = running.enroll("one")
    running.lease(3)
    before = samples(running.root.get("/metrics"))
    assert before["vws_workspaces", "planned"] == 3
    assert before["vws_leases", "pending"] == 1
    assert before["vws_nodes", "ready"] == 1
    assert before["vws_lease_active_seconds_count",] == 0
    node.obey()
    node.pull()
    after = samples(running.root.get("/metrics"))
    assert after["vws_workspaces", "running"] == 3
    assert after["vws_leases", "active"] == 1
    assert after["vws_lease_active_seconds_count",] == 1
    assert 0 < after["vws_lease_active_seconds_sum",] < 30
    assert after["vws_reports_total",] == 2
    assert after["vws_orders_total",] == 2
    assert after["vws_long_polls",] == 0
    assert after["vws_tunnels",] == 0
    assert after["vws_request_seconds_count", "201", "request_lease"] == 1
    assert after["vws_build_info", "0.1.0"] == 1


def test_only_administrators_read_them(here):
    assert here.root.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    assert here.ann.get("/metrics").status_code == 403
    assert here.nobody.get("/metrics").status_code == 401


def test_rates_are_shown_to_administrators(here):
    answer = here.root.get("/v1/rates")
    assert answer.status_code == 200
    boot = next(rate for rate in answer.json()["items"] if rate["step"] == "boot")
    assert boot == {
        "step": "boot", "hypervisor": "", "image": "", "unit": "s", "configured": 20.0, "expected": 20.0,
        "promised": 24.0, "count": 0,
    }  # fmt: skip
    assert here.ann.get("/v1/rates").status_code == 403
