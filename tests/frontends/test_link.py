"""The nodes' side: joining, long polls, reports, files. The tests play the agents."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.frontends.conftest import Running, until
from vws.core.deployment import NodeOrders
from vws.core.wire import from_json
from vws.node.run import _read_join_token


def test_a_host_joins_with_a_token_that_works_once(running):
    invited = running.root.post("/v1/nodes/invitations", json={"lifetime_s": 60}).json()
    joiner = running.client(_read_join_token(invited["token"])[2])
    joined = joiner.post("/v1/nodes/join", json={"name": "two", "instance": "i-2", "version": "0.1.0"})
    assert joined.status_code == 201
    node = joined.json()
    assert node["subnet"].endswith("/24")
    member = running.client(node["token"])
    orders = member.get(f"/v1/nodes/{node['node']}/orders", params={"instance": "i-2"}).json()
    assert from_json(NodeOrders, orders["orders"]).subnet == node["subnet"]
    again = joiner.post("/v1/nodes/join", json={"name": "three", "instance": "i-3", "version": "0.1.0"})
    assert (again.status_code, again.json()["detail"]) == (401, "the join token was used")


def test_a_poll_returns_when_there_are_orders(running):
    (node,) = running.enroll("one")
    had = node.pull().json()["orders"]["generation"]
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(node.pull, had, 20)
        until(lambda: running.app.state.api.wakeups.count()[0] == 1)
        lease = running.lease(2)
        granted_at = time.monotonic()
        orders = polled.result(5).json()
        assert time.monotonic() - granted_at < 0.5
    assert [o["id"] for o in orders["orders"]["workspaces"]] == [w["id"] for w in lease["workspaces"]]
    assert orders["orders"]["generation"] > had
    assert abs(orders["time"] - time.time()) < 5
    assert running.app.state.api.wakeups.count() == (0, 0)


def test_a_poll_without_news_ends_in_time(here):
    (node,) = here.enroll("one")
    started = time.monotonic()
    answer = node.pull(after=1000, wait=0.4)
    assert 0.4 <= time.monotonic() - started < 1.5
    assert answer.json()["orders"] is None
    assert answer.json()["tunnels"] == []


def test_a_client_that_leaves_leaves_nothing_behind(here):
    (node,) = here.enroll("one")
    query = {"after": 1000, "wait": 30, "instance": "agent-1"}
    with here.client(node.token) as client, pytest.raises(httpx.ReadTimeout):
        client.get(f"/v1/nodes/{node.id}/orders", params=query, timeout=0.3)
    until(lambda: here.app.state.api.wakeups.count()[0] == 0, 2)


def test_the_stop_ends_all_polls_at_once(mortal: Running):
    nodes = mortal.enroll(*(f"n{i}" for i in range(20)))
    with ThreadPoolExecutor(20) as pool:
        polls = [pool.submit(node.pull, 1000, 30) for node in nodes]
        until(lambda: mortal.app.state.api.wakeups.count()[0] == 20)
        started = time.monotonic()
        mortal.stop()
        for poll in polls:
            assert (poll.result().status_code, poll.result().headers["connection"]) == (503, "close")
    assert time.monotonic() - started < 2


def test_waiting_nodes_hold_no_threads(here: Running):
    (node,) = here.enroll("one")
    before = threading.active_count()
    with ThreadPoolExecutor(60) as pool:
        polls = [pool.submit(node.pull, 1000, 3) for _ in range(60)]
        until(lambda: here.app.state.api.wakeups.count()[0] == 60)
        assert here.ann.get("/v1/leases").status_code == 200
        # 60 threads are this test's own.
        assert threading.active_count() - before < 60 + 15
        for poll in polls:
            poll.result()


def test_a_second_agent_is_refused(running):
    (node,) = running.enroll("one")
    refused = node.pull(instance="another")
    assert (refused.status_code, refused.json()["code"]) == (409, "duplicate-node")
    report = node.http.post(f"/v1/nodes/{node.id}/reports", json=node.facts(instance="another"))
    assert report.json()["code"] == "duplicate-node"


def test_a_report_is_answered_with_the_present_generation(running):
    (node,) = running.enroll("one")
    before = node.report().json()["generation"]
    running.lease()
    after = node.report().json()
    assert after["generation"] > before
    assert abs(after["time"] - time.time()) < 5


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sequence": "7"}, "NodeReport.sequence"), ({"extra": 1}, "NodeReport.extra"),
        ({"workspaces": [{"id": "x", "state": "dancing"}]}, "NodeReport.workspaces[0].state"),
        ({"capacity": None}, "NodeReport.capacity"), ({"node": "nod-else"}, "node"),
    ],
)  # fmt: skip
def test_a_wrong_report_names_its_field(here, change, field):
    (node,) = here.enroll("one")
    answer = node.http.post(f"/v1/nodes/{node.id}/reports", json=node.facts() | change)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_reports_that_are_not_json(here):
    (node,) = here.enroll("one")
    for body in (b"", b"{", b"\xff\xff", b"[" * 100_000, b'{"at": NaN}'):
        answer = node.http.post(f"/v1/nodes/{node.id}/reports", content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request"), body[:20]
    assert node.http.post(f"/v1/nodes/{node.id}/reports", content=b"[]").status_code == 422


def test_a_guests_last_words_may_be_anything(running):
    """What no database keeps as text must not make a node's report fail for ever."""
    (node,) = running.enroll("one")
    workspace = running.lease()["workspaces"][0]["id"]
    node.report({"id": workspace, "state": "broken", "boots": 1, "reason": "panic \x00\x1b[0m \ud800 \U0001f4a9"})
    said = running.ann.get(f"/v1/workspaces/{workspace}").json()
    assert said["state"] == "failed"
    assert said["reason"] == "panic [0m \U0001f4a9"


def test_hundreds_of_reports_at_once(here: Running):
    nodes = here.enroll(*(f"n{i}" for i in range(40)))
    bodies = [json.dumps(node.facts()) for node in nodes]
    started = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = pool.map(
            lambda pair: pair[0].http.post(f"/v1/nodes/{pair[0].id}/reports", content=pair[1]),
            zip(nodes, bodies, strict=True),
        )
        assert {answer.status_code for answer in answers} == {200}
    assert time.monotonic() - started < 5


def test_blobs_are_served_whole_and_in_part(here: Running, tmp_path):
    (node,) = here.enroll("one")
    data = bytes(range(256)) * 1000
    sha256 = hashlib.sha256(data).hexdigest()
    (tmp_path / "blob").write_bytes(data)
    here.services.nodes._blobs.adopt(tmp_path / "blob", sha256)
    whole = node.http.get(f"/v1/blobs/{sha256}")
    assert (whole.status_code, whole.content) == (200, data)
    part = node.http.get(f"/v1/blobs/{sha256}", headers={"Range": "bytes=1000-"})
    assert (part.status_code, part.content) == (206, data[1000:])
    assert node.http.get(f"/v1/blobs/{sha256}", headers={"Range": "bytes=999999-"}).status_code == 416
    assert node.http.get(f"/v1/blobs/{'0' * 64}").status_code == 404
    assert node.http.get("/v1/blobs/..%2f..%2fsite.db").status_code in (404, 422)


def test_a_kept_console_outlives_its_workspace(running):
    node, other = running.enroll("one", "two")
    workspace = running.lease()["workspaces"][0]
    owner, stranger = (node, other) if workspace["node"] == node.id else (other, node)
    log = b"login: \xff\x00 bye\n"
    assert owner.http.put(f"/v1/nodes/{owner.id}/consoles/{workspace['id']}", content=log).status_code == 204
    taken = stranger.http.put(f"/v1/nodes/{stranger.id}/consoles/{workspace['id']}", content=b"false")
    assert taken.status_code == 404
    running.ann.delete(f"/v1/leases/{workspace['lease']}")
    owner.report()
    assert running.ann.get(f"/v1/workspaces/{workspace['id']}").json()["released_at"]
    kept = running.ann.get(f"/v1/workspaces/{workspace['id']}/console")
    assert kept.content == log
    assert kept.headers["content-type"].startswith("text/plain")
    assert running.ann.get(f"/v1/workspaces/{workspace['id']}/console?tail_bytes=4").content == b"bye\n"
    assert running.bob.get(f"/v1/workspaces/{workspace['id']}/console").status_code == 403


def test_nodes_are_shown_drained_and_removed(running):
    (node,) = running.enroll("one")
    shown = running.ann.get("/v1/nodes/one").json()
    assert (shown["state"], shown["capacity"]["cpus"], shown["used"]["cpus"]) == ("ready", 8, 0)
    running.lease(2)
    assert running.ann.get(f"/v1/nodes/{node.id}").json()["used"] == {"cpus": 2, "memory_mib": 256, "disk_mib": 200}
    assert running.root.post("/v1/nodes/one/drain").json()["state"] == "drained"
    assert running.root.post("/v1/nodes/one/undrain").json()["state"] == "ready"
    refused = running.root.delete("/v1/nodes/one")
    assert (refused.status_code, refused.json()["code"]) == (409, "in-use")
    assert running.root.delete("/v1/nodes/one?force=true").json()["removed_at"]
    assert running.ann.get("/v1/nodes").json()["items"] == []
    assert len(running.ann.get("/v1/nodes?all=true").json()["items"]) == 1
    assert node.pull().status_code in (401, 404)
