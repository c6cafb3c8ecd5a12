"""Pools of addresses over REST: what there is, reserved by users, held by members of clusters."""

from __future__ import annotations

import pytest

from tests.frontends.conftest import Running
from vws.core.pools import PoolConfig, pools_of

POOLS = pools_of(
    {"campus": PoolConfig("192.0.2.0/24", addresses=("192.0.2.16-192.0.2.18",), reserved_max=1)},
    guest_network="10.64.0.0/10",
)
FILE = """
vws: cluster/1
name: shop
networks: {private: {range: 10.20.0.0/24}, outside: {public: true}}
groups:
  front: {image: demo, networks: [private, outside], count: COUNT}
lease: {for: 1h}
"""


@pytest.fixture
def site(server, sqlite_store, tmp_path):
    here = Running(server, sqlite_store, tmp_path, pools=POOLS)
    here.enroll("n1")
    yield here
    here.close()


def test_an_address_is_reserved_used_and_given_back(site):
    (pool,) = site.ann.get("/v1/pools").json()["items"]
    assert pool == {
        "name": "campus", "range": "192.0.2.0/24", "gateway": "192.0.2.1", "default": True, "require": "", "size": 3,
        "free": 3, "held": 0, "reserved": 0, "reserved_max": 1,
    }  # fmt: skip
    asked = {"name": "front", "address": "192.0.2.18"}
    answer = site.ann.post("/v1/addresses", json=asked, headers={"Idempotency-Key": "a1"})
    assert answer.status_code == 201, answer.text
    reserved = answer.json()
    assert (reserved["pool"], reserved["owner"], reserved["cluster"]) == ("campus", "ann", "")
    assert site.ann.post("/v1/addresses", json=asked, headers={"Idempotency-Key": "a1"}).json() == reserved
    file = FILE.replace("count: COUNT", "address: front")
    launched = site.ann.post("/v1/clusters", json={"file": file}).json()
    (network,) = [n for n in launched["networks"] if n["pool"]]
    assert (network["name"], network["pool"], network["outgoing"]) == ("outside", "campus", True)
    assert launched["members"][0]["addresses"]["outside"] == "192.0.2.18"
    held = site.ann.get("/v1/addresses/front").json()
    assert (held["cluster_name"], held["member"]) == ("shop", "front-1")
    refused = site.ann.delete("/v1/addresses/front")
    assert (refused.status_code, refused.json()["code"]) == (409, "in-use")
    assert "vws cluster terminate shop" in refused.json()["possible"]
    (pool,) = site.ann.get("/v1/pools").json()["items"]
    assert (pool["free"], pool["held"], pool["reserved"]) == (2, 1, 1)


def test_who_may_what(site):
    reserved = site.ann.post("/v1/addresses", json={"name": "front"}).json()
    assert reserved["address"] == "192.0.2.16"
    second = site.ann.post("/v1/addresses", json={"name": "second"})
    assert (second.status_code, second.json()["code"]) == (409, "limit-reached")
    assert site.ann.post("/v1/addresses", json={"name": "x", "owner": "bob"}).status_code == 403
    for_ann = site.root.post("/v1/addresses", json={"name": "second", "owner": "ann"}).json()
    assert (for_ann["owner"], for_ann["address"]) == ("ann", "192.0.2.17")
    assert site.bob.get("/v1/addresses").json()["items"] == []
    assert site.bob.delete("/v1/addresses/front").status_code == 403
    assert site.nobody.get("/v1/pools").status_code == 401
    assert [a["name"] for a in site.root.get("/v1/addresses?pool=campus").json()["items"]] == ["front", "second"]
    released = site.ann.delete("/v1/addresses/192.0.2.16").json()
    assert released["released_at"] is not None
    assert site.ann.delete(f"/v1/addresses/{released['id']}").json() == released, "a repeat is harmless"
    assert site.ann.delete("/v1/addresses/front").status_code == 404
    assert [a["name"] for a in site.ann.get("/v1/addresses?live=true").json()["items"]] == ["second"]


def test_an_exhausted_pool_is_told_before_and_at_the_launch(site):
    file = FILE.replace("COUNT", "4")
    fit = site.ann.post("/v1/clusters/explain", json={"file": file}).json()
    assert not fit["fits"]
    assert fit["reason"] == "the pool campus has 3 free of its 3 addresses, front would take 4"
    assert fit["offers"][0]["text"] == "3 members with an address of campus"
    refused = site.ann.post("/v1/clusters", json={"file": file})
    assert (refused.status_code, refused.json()["code"]) == (409, "cannot-fit")
    assert refused.json()["possible"].startswith("3 members with an address of campus, or")
    assert site.ann.get("/v1/clusters").json()["items"] == []
    assert site.ann.get("/v1/addresses").json()["items"] == []
    fits = site.ann.post("/v1/clusters/explain", json={"file": FILE.replace("COUNT", "3")}).json()
    assert fits["fits"], fits
    assert site.ann.get("/v1/addresses").json()["items"] == [], "asking takes nothing"


def test_an_automatic_address_is_not_released_by_hand(site):
    site.ann.post("/v1/clusters", json={"file": FILE.replace("COUNT", "1")})
    refused = site.ann.delete("/v1/addresses/192.0.2.16")
    assert (refused.status_code, refused.json()["field"]) == (422, "id")
