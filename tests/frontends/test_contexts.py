"""Contexts as people see them, over HTTP."""

from __future__ import annotations

import base64
import json

import pytest

from vws.frontends.rest import context_models as models

MEMBERS = [
    {"name": "head-1", "provides": ["head"], "requires": ["worker"], "networks": ["private"]},
    {"name": "worker-1", "provides": ["worker"], "requires": ["head"]},
]
SIDE = {"hooks": [{"hook": "on-joined", "content_base64": "IyE="}]}
ASKED = {
    "name": "lab",
    "members": MEMBERS,
    "roles": [
        {"name": "head", "provider": SIDE, "publishes": [{"name": "key", "secret": True}]},
        {"name": "worker", "client": SIDE, "provider": SIDE | {"after": ["head"], "uses": ["key"]}},
    ],
    "data": [{"name": "motd", "content_base64": "aGVsbG8="}],
    "within_s": 60,
}


def made(who, **more):
    answer = who.post("/v1/contexts", json=ASKED | more)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_context_is_made_with_what_each_machine_needs(here):
    found = made(here.ann)
    models.NewContext.model_validate(found)
    assert found["state"] == "open"
    assert found["domain"] == "lab.vws.internal"
    assert found["url"] == "https://127.0.0.1:7443"
    assert found["ca_pem"].startswith("-----BEGIN CERTIFICATE")
    assert [each["name"] for each in found["secrets"]] == ["head-1", "worker-1"]
    assert len({each["secret"] for each in found["secrets"]}) == 2


def test_the_same_request_again_gets_the_same_secrets_and_none_are_kept(here):
    headers = {"Idempotency-Key": "once"}
    one, two = (here.ann.post("/v1/contexts", json=ASKED, headers=headers) for _ in range(2))
    assert one.json() == two.json()
    assert one.status_code == two.status_code == 201
    kept = here.services.site.store.answer("ann", "once")
    assert json.loads(kept.body) == {"id": one.json()["id"]}
    other = here.ann.post("/v1/contexts", json=ASKED | {"name": "else"}, headers=headers)
    assert other.json()["code"] == "client-token-reused"
    assert here.ann.post("/v1/contexts", json=ASKED).json()["code"] == "name-taken"


def test_the_status_says_who_waits_for_whom(here):
    id = made(here.ann)["id"]
    found = here.ann.get("/v1/contexts/lab").json()
    models.ContextStatus.model_validate(found)
    assert found["id"] == id
    head = found["members"][0]
    assert (head["state"], head["fqdn"]) == ("expected", "head-1.lab.vws.internal")
    assert {(wait["what"], *wait["members"]) for wait in head["waits"]} == {
        ("role member", "head-1", "worker-1"),
        ("role worker", "worker-1"),
        ("barrier worker", "worker-1"),
    }
    worker = found["members"][1]
    assert {wait["what"] for wait in worker["waits"]} >= {"barrier head", "value key"}
    log = here.ann.get(f"/v1/contexts/{id}/members/head-1/log").json()
    models.MemberLog.model_validate(log)
    assert log == {"items": []}
    assert here.ann.get(f"/v1/contexts/{id}/members/nobody/log").status_code == 404


def test_contexts_are_listed_in_pages_and_to_their_owners(here):
    ids = [made(here.ann, name=f"c-{number}")["id"] for number in range(3)]
    theirs = made(here.bob, name="theirs")["id"]
    first = here.ann.get("/v1/contexts", params={"limit": 2}).json()
    models.ContextPage.model_validate(first)
    second = here.ann.get("/v1/contexts", params={"limit": 2, "after": first["next"]}).json()
    assert [each["id"] for page in (first, second) for each in page["items"]] == ids
    assert second["next"] is None
    assert [each["id"] for each in here.root.get("/v1/contexts").json()["items"]] == [*ids, theirs]
    assert here.ann.get("/v1/contexts", params={"name": "c-1"}).json()["items"][0]["id"] == ids[1]
    assert here.ann.get(f"/v1/contexts/{theirs}").status_code == 403
    assert here.nobody.get("/v1/contexts").status_code == 401
    assert here.ann.get("/v1/contexts", params={"after": "x"}).status_code == 422


def test_a_closed_context_stays_to_be_looked_at_and_frees_its_name(here):
    id = made(here.ann)["id"]
    assert here.bob.delete(f"/v1/contexts/{id}").status_code == 403
    for _ in range(2):
        assert here.ann.delete(f"/v1/contexts/{id}").json()["state"] == "closed"
    assert here.ann.get("/v1/contexts", params={"live": "true"}).json()["items"] == []
    assert here.ann.get(f"/v1/contexts/{id}").json()["state"] == "closed"
    assert made(here.ann)["id"] != id


BIG = base64.b64encode(bytes(2_000_000)).decode()


@pytest.mark.parametrize(
    ("change", "status", "field", "says"),
    [
        ({"members": []}, 422, "members", "has 0 members"),
        ({"name": "../etc"}, 422, "name", "cannot be a name"),
        ({"members": [{"name": "a", "requires": ["x"]}]}, 422, "requires", "a requires x, which no member provides"),
        ({"members": [{"name": "a", "workspace": "wsp-1"}]}, 422, "members[0].workspace", "not known here"),
        ({"roles": [{"name": "head", "provider": {"after": ["head"]}}]}, 422, "roles.head", "head is after head"),
        ({"roles": [{"name": "head", "provider": {"hooks": [{"hook": "rm"}]}}]}, 422, None, ""),
        ({"data": [{"name": "d", "content_base64": BIG}]}, 422, "data.d", "has 2000000 bytes"),
        ({"data": [{"name": "d", "content_base64": BIG * 4}]}, 413, "body", "larger than 8388608 bytes"),
        ({"within_s": 0}, 422, "context.within", "is 0"),
        ({"introduce": "some"}, 422, "introduce", ""),
    ],
)
def test_what_is_wrong_is_said(here, change, status, field, says):
    answer = here.ann.post("/v1/contexts", json=ASKED | change)
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert says in found["detail"]
    assert field is None or found["field"] == field
    assert here.ann.get("/v1/contexts").json()["items"] == []
