"""Leases and workspaces over HTTP: what users do all day."""

from __future__ import annotations

import time

import pytest

from tests.frontends.conftest import asked
from vws.frontends.rest import image_models, models


def test_a_lease_is_granted_shown_and_cancelled(running):
    running.enroll("one")
    lease = running.lease(2, name="cluster")
    assert (lease["name"], lease["state"], lease["owner"]) == ("cluster", "pending", "ann")
    assert [w["name"] for w in lease["workspaces"]] == ["cluster-1", "cluster-2"]
    assert {w["node_name"] for w in lease["workspaces"]} == {"one"}
    assert lease["end"] == lease["start"] + 600

    assert running.ann.get(f"/v1/leases/{lease['id']}").json() == lease
    assert running.ann.get("/v1/leases/cluster").json() == lease
    assert running.ann.get("/v1/leases").json() == {"items": [lease], "next": None}

    cancelled = running.ann.delete("/v1/leases/cluster")
    assert cancelled.status_code == 202
    assert cancelled.json()["state"] in ("ending", "ended")


def test_a_lease_becomes_active_when_its_node_says_so(running):
    (node,) = running.enroll("one")
    lease = running.lease(2)
    node.obey()
    seen = running.ann.get(f"/v1/leases/{lease['id']}").json()
    assert seen["state"] == "active"
    assert [w["state"] for w in seen["workspaces"]] == ["running", "running"]
    assert all(w["running_at"] for w in seen["workspaces"])


def test_commands_reach_the_workspace(running):
    (node,) = running.enroll("one")
    workspace = running.lease()["workspaces"][0]
    node.obey()
    paused = running.ann.post(f"/v1/workspaces/{workspace['id']}/pause")
    assert (paused.status_code, paused.json()["state"]) == (200, "pausing")
    refused = running.ann.post(f"/v1/workspaces/{workspace['name']}/restore")
    assert refused.status_code == 409
    assert refused.json()["code"] == "command-refused"
    assert "resume" in refused.json()["possible"]
    assert running.ann.delete(f"/v1/workspaces/{workspace['id']}").status_code == 202


def test_extend_and_resize(running):
    running.enroll("one")
    lease = running.lease()
    longer = running.ann.post(f"/v1/leases/{lease['id']}/extend", json={"duration_s": 60}).json()
    assert longer["end"] == lease["end"] + 60
    assert [w["end"] for w in longer["workspaces"]] == [lease["end"] + 60]
    larger = running.ann.post(f"/v1/leases/{lease['id']}/resize", json={"memory_mib": 256}).json()
    assert larger["groups"][0]["memory_mib"] == 256
    (workspace,) = running.ann.post(f"/v1/leases/{lease['id']}/resize", json={"cpus": 2}).json()["workspaces"]
    assert (workspace["cpus"], workspace["cpus_defined"]) == (2, 1)
    assert (workspace["memory_mib"], workspace["memory_defined_mib"]) == (256, 128)


def test_what_cannot_fit_is_refused_with_reasons_and_offers(running):
    running.enroll("one", "two")
    refused = running.ann.post("/v1/leases", json=asked(1000))
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (409, "cannot-fit")
    assert refused.headers["content-type"] == "application/problem+json"
    assert {node["name"] for node in problem["nodes"]} == {"one", "two"}
    assert problem["offers"][0]["text"] in problem["possible"]
    explained = running.ann.post("/v1/leases/explain", json=asked(1000)).json()
    assert explained["fits"] is False
    assert explained["offers"] == problem["offers"]
    assert running.ann.post("/v1/leases/explain", json=asked(1)).json()["fits"] is True
    assert running.ann.get("/v1/leases").json()["items"] == []


def test_users_see_and_touch_their_own_only(running):
    running.enroll("one")
    lease = running.lease()
    for method, path in [
        ("GET", ""), ("DELETE", ""), ("GET", "/explain"),
    ]:  # fmt: skip
        answer = running.bob.request(method, f"/v1/leases/{lease['id']}{path}")
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    workspace = lease["workspaces"][0]["id"]
    assert running.bob.get(f"/v1/workspaces/{workspace}").status_code == 403
    assert running.bob.post(f"/v1/workspaces/{workspace}/reboot").status_code == 403
    assert running.bob.get("/v1/leases").json()["items"] == []
    assert running.bob.get("/v1/workspaces", params={"owner": "ann"}).json()["items"] == []
    assert [x["id"] for x in running.root.get("/v1/leases").json()["items"]] == [lease["id"]]


def test_lists_are_paged_and_filtered(running):
    (node,) = running.enroll("one")
    lease = running.lease(5, name="five")
    other = running.lease(1, name="other")
    first = running.ann.get("/v1/workspaces", params={"limit": 4}).json()
    second = running.ann.get("/v1/workspaces", params={"limit": 4, "after": first["next"]}).json()
    names = [w["name"] for w in first["items"] + second["items"]]
    assert names == [w["name"] for w in lease["workspaces"] + other["workspaces"]]
    assert second["next"] is None
    for query, expected in [
        ({"lease": "other"}, 1), ({"node": "one"}, 6), ({"state": "running"}, 0), ({"name": names[0]}, 1),
        ({"state": ["planned", "running"]}, 6), ({"live": True}, 6),
    ]:  # fmt: skip
        assert len(running.ann.get("/v1/workspaces", params=query).json()["items"]) == expected, query
    node.obey()
    assert len(running.ann.get("/v1/workspaces", params={"state": "running"}).json()["items"]) == 6


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"stat": "running"}, "stat"), ({"limit": 0}, "limit"), ({"limit": "many"}, "limit"),
        ({"state": "runing"}, "state[0]"), ({"after": "\x00"}, "after"), ({"after": "nonsense"}, "after"),
        ({"name": ["a", "b"]}, "name"),
    ],
)  # fmt: skip
def test_a_mistaken_query_is_refused(running, query, field):
    answer = running.ann.get("/v1/workspaces", params=query)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert answer.json()["detail"]


def test_explain_lease_tells_of_each_member(running):
    (node,) = running.enroll("one")
    lease = running.lease(2)
    doing = [{"id": w["id"], "state": "staging", "boots": 0, "step": "fetching the image"} for w in lease["workspaces"]]
    node.report(*doing)
    node.report(*doing)
    explained = running.ann.get(f"/v1/leases/{lease['id']}/explain").json()
    assert [m["step"] for m in explained["members"]] == ["fetching the image"] * 2
    models.Explanation.model_validate(explained)


def test_answers_are_what_the_document_says(running):
    (node,) = running.enroll("one")
    lease = running.lease(2)
    node.obey()
    show = lambda path: running.root.get(path).json()  # noqa: E731
    for kind, path in [
        (models.Lease, f"/v1/leases/{lease['id']}"),
        (models.LeasePage, "/v1/leases"),
        (models.WorkspacePage, "/v1/workspaces"),
        (models.NodePage, "/v1/nodes"),
        (image_models.ImagePage, "/v1/images"),
        (models.TokenPage, "/v1/tokens"),
        (models.EventPage, "/v1/events"),
        (models.Health, "/v1/health"),
        (models.SiteView, "/v1/site"),
    ]:
        answer = show(path)
        # Dumped again it must be the same: nothing is missing from the model, nothing from the answer.
        assert kind.model_validate(answer).model_dump(mode="json") == answer, path


def test_explain_lease_tells_why_it_waits_and_of_others_how_many_they_are(here):
    (node,) = here.enroll("one")
    here.lease(1, groups=[{"image": "demo", "cpus": 8, "count": 4}], name="hidden")
    node.obey()
    asked_for = asked(1, groups=[{"image": "demo"}], when="best-effort", name="waits")
    waits = here.bob.post("/v1/leases", json=asked_for).json()
    assert waits["state"] == "waiting", waits
    explained = here.bob.get("/v1/leases/waits/explain").json()
    models.Explanation.model_validate(explained)
    assert explained["place"] == 0
    assert explained["start"] == waits["planned_start"]
    assert [(other["role"], other["lease"]) for other in explained["others"]] == [("holds", "")]
    assert explained["nodes"][0]["reason"] == "0 CPUs free, 1 needed"
    assert "hidden" not in str(explained)
    assert "hidden" in str(here.root.get("/v1/leases/waits/explain").json())


def test_a_series_is_listed_by_its_id(here):
    here.enroll("one")
    start = int(time.time()) + 7200
    body = asked(1, when="periodic", rule="FREQ=DAILY;COUNT=3", start=start)
    series = here.ann.post("/v1/leases", json=body).json()
    here.lease()
    listed = here.ann.get("/v1/leases", params={"series": series["series"]}).json()["items"]
    assert [lease["id"] for lease in listed] == [lease["id"] for lease in series["leases"]]
    assert here.bob.get("/v1/leases", params={"series": series["series"]}).json()["items"] == []
