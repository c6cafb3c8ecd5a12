"""A client token makes a change happen once, and its repeat gets the first answer word for word."""

from __future__ import annotations

import pytest

from tests.frontends.conftest import asked

KEY = {"Idempotency-Key": "1f0c5a52-6b1e-4f0e-9d43-6a1fb0c0f9aa"}


def test_a_repeated_request_makes_one_lease(running):
    (node,) = running.enroll("one")
    first = running.ann.post("/v1/leases", json=asked(2), headers=KEY)
    assert first.status_code == 201
    assert "idempotency-replayed" not in first.headers
    node.obey()
    again = running.ann.post("/v1/leases", json=asked(2), headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert len(first.json()["workspaces"]) == 2
    assert len(running.ann.get("/v1/leases").json()["items"]) == 1


def test_every_change_of_a_lease_is_kept_as_it_was_answered(running):
    (node,) = running.enroll("one")
    lease = running.lease(2)
    node.obey()
    workspace = lease["workspaces"][0]["id"]
    for method, path, body in [
        ("POST", f"/v1/leases/{lease['id']}/extend", {"duration_s": 60}),
        ("POST", f"/v1/leases/{lease['id']}/resize", {"memory_mib": 256}),
        ("POST", f"/v1/workspaces/{workspace}/suspend", None),
        ("DELETE", f"/v1/workspaces/{workspace}", None),
        ("DELETE", f"/v1/leases/{lease['id']}", None),
    ]:
        key = {"Idempotency-Key": path[:100] + method}
        first = running.ann.request(method, path, json=body, headers=key)
        assert first.status_code in (200, 202), first.text
        again = running.ann.request(method, path, json=body, headers=key)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert "idempotency-replayed" in again.headers
    extended = [e for e in running.ann.get("/v1/events").json()["items"] if e["kind"] == "lease.extended"]
    assert len(extended) == 1


def test_another_request_under_the_same_token_is_refused(running):
    running.enroll("one")
    running.ann.post("/v1/leases", json=asked(1), headers=KEY)
    for answer in (
        running.ann.post("/v1/leases", json=asked(2), headers=KEY),
        running.ann.post("/v1/leases/x/extend", json={"duration_s": 5}, headers=KEY),
    ):
        assert answer.status_code in (404, 409)
    assert running.ann.post("/v1/leases", json=asked(2), headers=KEY).json()["code"] == "client-token-reused"
    other = running.bob.post("/v1/leases", json=asked(1), headers=KEY)
    assert other.status_code == 201, "another user's client tokens are his own"


def test_a_refusal_is_not_kept(running):
    refused = running.ann.post("/v1/leases", json=asked(1), headers=KEY)
    assert refused.status_code in (409, 422)
    running.enroll("one")
    assert running.ann.post("/v1/leases", json=asked(1), headers=KEY).status_code == 201


def test_a_secret_is_told_once_and_kept_nowhere(running):
    for path, body, kind in [
        ("/v1/tokens", {"subject": "carol", "role": "user"}, "vws.tok-"),
        ("/v1/nodes/invitations", {"lifetime_s": 60}, "vwsj."),
    ]:
        key = {"Idempotency-Key": path}
        first = running.root.post(path, json=body, headers=key).json()
        again = running.root.post(path, json=body, headers=key)
        assert first["token"].startswith(kind)
        assert again.json() == first | {"token": None}
        kept = running.services.site.store.answer("root", path)
        assert first["token"].rpartition(".")[2] not in kept.body
    assert len(running.root.get("/v1/tokens").json()["items"]) == 3 + 2


@pytest.mark.parametrize("key", ["x" * 129, "caf\xe9", ""])
def test_what_cannot_be_a_client_token_is_refused(here, key):
    here.enroll("one")
    answer = here.ann.post("/v1/leases", json=asked(1), headers={"Idempotency-Key": key.encode("latin-1")})
    assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")
    assert here.ann.get("/v1/leases").json()["items"] == []
