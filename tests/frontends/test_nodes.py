"""Nodes over REST: what they are like, and when they are in maintenance."""

from __future__ import annotations

import time

import pytest

from vws.core.traits import Attribute, Traits
from vws.core.wire import to_json

TRAITS = Traits("x86_64", ("nvidia",), ("ssd",), (Attribute("rack", "r1"), Attribute("gpus", 2)))


def test_a_node_shows_what_it_reports_and_what_is_said_of_it(running):
    (node,) = running.enroll("n1")
    node.report(traits=to_json(TRAITS))
    body = {"labels": ["gpu"], "attributes": {"rack": "r2", "row": 3}, "remove": []}
    answer = running.root.post("/v1/nodes/n1/label", json=body)
    assert answer.status_code == 200
    for shown in (answer.json(), running.ann.get("/v1/nodes/n1").json()):
        assert shown["labels"] == ["ssd", "gpu"]
        assert shown["attributes"] == {"rack": "r2", "gpus": 2, "row": 3}
        assert shown["traits"] == {
            "arch": "x86_64",
            "accelerators": ["nvidia"],
            "labels": ["ssd"],
            "attributes": {"rack": "r1", "gpus": 2},
        }
    after = running.root.post("/v1/nodes/n1/label", json={"remove": ["gpu", "rack"]}).json()
    assert (after["labels"], after["attributes"]) == (["ssd"], {"rack": "r1", "gpus": 2, "row": 3})
    refused = running.root.post("/v1/nodes/n1/label", json={"remove": ["ssd"]})
    assert (refused.status_code, refused.json()["asked"]) == (409, "ssd")
    assert running.ann.post("/v1/nodes/n1/label", json={"labels": ["mine"]}).status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"labels": ["a b"]}, "labels"),
        ({"labels": "gpu"}, "labels"),
        ({"attributes": {"cpus": 3}}, "attributes"),
        ({"attributes": {"rack": None}}, "attributes.rack"),
        ({"attributes": {"rack": True}}, "attributes.rack"),
        ({"attributes": {"rack": 1.5}}, "attributes.rack"),
        ({"remove": [""]}, "remove"),
        ({"label": ["gpu"]}, "label"),
    ],
)
def test_what_cannot_be_said_of_a_node(here, body, field):
    here.enroll("n1")
    answer = here.root.post("/v1/nodes/n1/label", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"].startswith(field)
    assert here.root.get("/v1/nodes/n1").json()["attributes"] == {}


def test_a_maintenance_is_planned_seen_and_called_off(running):
    running.enroll("n1", "n2")
    lease = running.lease(2, duration_s=7200)
    begins = int(time.time()) + 3600
    body = {"start": begins, "duration_s": 600, "reason": "new disks"}
    answer = running.root.post("/v1/nodes/n1/maintenances", json=body, headers={"Idempotency-Key": "m1"})
    assert answer.status_code == 201
    planned = answer.json()
    assert (planned["node_name"], planned["state"], planned["end"]) == ("n1", "planned", begins + 600)
    assert planned["leases"] == [lease["name"]]
    again = running.root.post("/v1/nodes/n1/maintenances", json=body, headers={"Idempotency-Key": "m1"})
    assert again.json() == planned
    running.root.post("/v1/nodes/n2/maintenances", json={"duration_s": 60, "reason": "now"})
    assert [m["state"] for m in running.bob.get("/v1/maintenances").json()["items"]] == ["planned", "on"]
    (of_n1,) = running.bob.get("/v1/maintenances?node=n1").json()["items"]
    assert of_n1 == planned | {"leases": []}, "it is not bob's lease"
    (window,) = running.ann.get("/v1/nodes/n1").json()["maintenances"]
    assert window == {
        "id": planned["id"],
        "state": "planned",
        "start": begins,
        "end": begins + 600,
        "reason": "new disks",
    }
    removed = running.root.delete(f"/v1/maintenances/{planned['id']}").json()
    assert (removed["state"], removed["leases"]) == ("removed", [])
    assert running.ann.get(f"/v1/maintenances/{planned['id']}").json() == removed
    assert running.ann.get("/v1/maintenances?node=n1").json()["items"] == []
    assert running.ann.get("/v1/maintenances?node=n1&all=true").json()["items"] == [removed]
    assert running.root.delete(f"/v1/maintenances/{planned['id']}").status_code == 404
    assert running.ann.post("/v1/nodes/n1/maintenances", json=body).status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"duration_s": 60}, "reason"),
        ({"duration_s": 0, "reason": "so"}, "duration_s"),
        ({"duration_s": 60, "reason": "so", "start": "soon"}, "start"),
        ({"duration_s": 60, "reason": "so", "start": 5}, "start"),
        ({"duration_s": 60, "reason": "so", "begin": 5}, "begin"),
    ],
)
def test_a_maintenance_that_cannot_be(here, body, field):
    here.enroll("n1")
    answer = here.root.post("/v1/nodes/n1/maintenances", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert here.root.post("/v1/nodes/n9/maintenances", json=body | {"reason": "so"}).status_code in (404, 422)
    assert here.root.get("/v1/maintenances").json()["items"] == []
