"""Clusters over REST: every answer shows the cluster as the change has left it, whether it can be repeated or not."""

from __future__ import annotations

import itertools

import pytest

FILE = """
vws: cluster/1
name: pair
networks: {private: {range: 10.20.0.0/24}}
groups:
  node: {image: demo, count: 2, memory: 128MiB, networks: [private]}
lease: {for: 1h}
"""


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_change_is_answered_with_the_cluster_as_it_is_after_it(here, repeatable):
    (node,) = here.enroll("one")
    tokens = itertools.count()

    def changed(method: str, path: str, body=None):
        headers = {"Idempotency-Key": f"token-{next(tokens)}"} if repeatable else {}
        answer = here.ann.request(method, f"/v1/clusters{path}", json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        found = answer.json()
        return found["state"], [member["name"] for member in found["members"]], len(found["leases"])

    assert changed("POST", "", {"file": FILE}) == ("launching", ["node-1", "node-2"], 1)
    node.obey()
    grown = changed("POST", "/pair/grow", {"group": "node", "count": 1})
    assert grown == ("configuring", ["node-1", "node-2", "node-3"], 2)
    node.obey()
    there = {m["name"]: m["state"] for m in here.ann.get("/v1/clusters/pair").json()["members"]}
    assert there == dict.fromkeys(["node-1", "node-2", "node-3"], "running")
    assert changed("POST", "/pair/shrink", {"group": "node", "count": 1})[0] == "configuring"
    node.obey()
    assert changed("POST", "/pair/suspend")[0] == "configuring"
    assert changed("DELETE", "/pair")[0] == "ending"


def test_a_name_that_is_taken_is_a_clusters_and_a_member_that_is_not_there_is_told_who_is(here):
    here.enroll("one")
    first = here.ann.post("/v1/clusters", json={"file": FILE}).json()
    refused = here.ann.post("/v1/clusters", json={"file": FILE}).json()
    assert (refused["code"], refused["detail"]) == (
        "name-taken",
        f"line 3, column 1: the name pair is taken: the cluster {first['id']} has it; nothing was changed",
    )
    lone = {"name": "desks", "members": [{"name": "a"}, {"name": "b"}]}
    assert here.ann.post("/v1/contexts", json=lone).status_code == 201
    nobody = here.ann.get("/v1/contexts/desks/members/c/log").json()
    assert (nobody["code"], nobody["possible"]) == ("not-found", "a, b")
