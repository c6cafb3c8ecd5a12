"""Bad input, bad tokens, bad bodies: each gets its own clear answer, and never a 500."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import time

import httpx
import pytest

from tests.frontends.conftest import Running, asked, until
from vws.core.site import Role
from vws.node.run import _read_join_token
from vws.service.access import SITE

JSON = {"Content-Type": "application/json"}


def refused(answer: httpx.Response, status: int, code: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert problem["type"] == f"urn:vws:problem:{code}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem


def group(**fields):
    return {"groups": [{"image": "demo", **fields}]}


@pytest.mark.parametrize(
    ("change", "field", "shown"),
    [
        (group(cpus=0), "groups[0].cpus", 0),
        (group(count=-3), "groups[0].count", -3),
        (group(cpus="2"), "groups[0].cpus", "2"),
        (group(cpus=1.5), "groups[0].cpus", 1.5),
        (group(cpus=True), "groups[0].cpus", True),
        (group(memory_mib=10**12), "groups[0].memory_mib", 10**12),
        (group(memory_mib=10**400), "groups[0].memory_mib", "a number of 1329 bits"),
        (group(disk_mib=None), "groups[0].disk_mib", None),
        (group(memory=512), "groups[0].memory", 512),
        (group(name="a/b"), "groups[0].name", "a/b"),
        (group(image="\x00"), "groups[0].image", "\x00"),
        (group(image=["demo"]), "groups[0].image", '["demo"]'),
        ({"groups": []}, "groups", 0),
        ({"groups": "demo"}, "groups", "demo"),
        ({"groups": [7]}, "groups[0]", 7),
        ({"duration_s": 0}, "duration_s", 0),
        ({"duration_s": 10**9}, "duration_s", 10**9),
        ({"name": "with/slash"}, "name", "with/slash"),
        ({"name": "x" * 300}, "name", "x" * 57 + "..."),
        ({"name": "\ud800"}, "name", "?"),
        ({"ssh_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "ssh_keys[0]", None),
        ({"ssh_keys": "ssh-ed25519 AAAA"}, "ssh_keys", "ssh-ed25519 AAAA"),
        ({"begin": 5}, "begin", 5),
    ],
)
def test_a_wrong_value_is_named(here, change, field, shown):
    here.enroll("one")
    body = json.dumps(asked() | change)
    problem = refused(here.ann.post("/v1/leases", content=body, headers=JSON), 422, "invalid-request")
    assert problem["field"] == field
    assert problem.get("asked") == shown
    assert problem["possible"]
    assert len(problem["detail"]) < 700


def test_what_is_missing_is_named_and_so_is_what_else_is_wrong(here):
    problem = refused(here.ann.post("/v1/leases", json={"groups": [{"cpus": "x"}]}), 422, "invalid-request")
    assert {e["field"] for e in problem["errors"]} == {"groups[0].image", "groups[0].cpus", "duration_s"}
    assert refused(here.ann.post("/v1/leases", json=[1]), 422, "invalid-request")["field"] == "body"
    assert refused(here.ann.post("/v1/leases", headers=JSON), 422, "invalid-request")["field"] == "body"


@pytest.mark.parametrize(
    "body",
    [b"{", b"not json", b"\xff\xfe\xfa", b'{"groups": NaN', b"[" * 200_000, b'{"a":' * 50_000, b"1" * 5000, b'"\xed"'],
    ids=["cut", "words", "latin", "nan", "deep", "deeper", "digits", "utf8"],
)
def test_json_that_is_not_json(here, body):
    answer = here.ann.post("/v1/leases", content=body, headers=JSON)
    assert "not JSON" in refused(answer, 400, "invalid-request")["detail"]


def test_an_unknown_image_is_not_found(here):
    problem = refused(here.ann.post("/v1/leases", json=asked() | group()), 422, "invalid-request")
    assert problem["field"] == "groups[0].image"


def test_the_wrong_content_type_is_415(here):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = here.ann.post("/v1/leases", content=b"{}", headers={"Content-Type": kind})
        assert refused(answer, 415, "unsupported-media-type")["possible"] == "application/json"
    assert (
        here.ann.post("/v1/leases", content=b"{}", headers={"Content-Type": "Application/JSON; x=y"}).status_code == 422
    )


def test_paths_and_methods_that_are_not_there(here):
    refused(here.ann.get("/v1/leasess"), 404, "not-found")
    refused(here.ann.get("/"), 404, "not-found")
    refused(here.ann.get("/v1/leases/"), 404, "not-found")
    refused(here.ann.get("/docs"), 404, "not-found")
    answer = here.ann.put("/v1/leases")
    refused(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, POST"
    refused(here.ann.get("/v1/leases/" + "x" * 3000), 404, "not-found")
    for name in ("%00", "%ff%fe", "a%0Ab", "%F0%9F%92%A9", "..%2f..%2fetc"):
        refused(here.ann.get(f"/v1/leases/{name}"), 404, "not-found")


def test_every_token_that_is_not_good_says_why(here):
    expired = here.services.access.create_token(SITE, "eve", Role.USER, 1)
    revoked = here.services.access.create_token(SITE, "eve", Role.USER, None)
    assert isinstance(expired, tuple)
    assert isinstance(revoked, tuple)
    here.services.access.revoke_token(SITE, revoked[0].id)
    time.sleep(1.1)
    said = set()
    for header in (
        None, "Bearer", "Basic dXNlcjpwdw==", "Bearer nonsense", f"Bearer {here.ann_token}x", f"Bearer {expired[1]}",
        f"Bearer {revoked[1]}", f"Bearer vws.tok-0.{'a' * 43}", "Bearer " + "x" * 10_000,
    ):  # fmt: skip
        answer = here.nobody.get("/v1/leases", headers={"Authorization": header} if header else {})
        said.add(refused(answer, 401, "unauthenticated")["detail"])
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert len(said) == 5
    assert "the token has expired" in said
    assert "the token was revoked" in said


def test_roles_stay_in_their_rooms(here):
    node, other = here.enroll("one", "two")
    invited = here.root.post("/v1/nodes/invitations", json={}).json()
    joiner = here.client(_read_join_token(invited["token"])[2])
    for method, path in [
        ("POST", "/v1/tokens"), ("POST", "/v1/nodes/invitations"), ("POST", f"/v1/nodes/{node.id}/drain"),
    ]:  # fmt: skip
        body = {"subject": "eve", "role": "admin"} if path == "/v1/tokens" else {}
        for who in (here.ann, node.http, joiner):
            refused(who.request(method, path, json=body), 403, "forbidden")
    for who in (node.http, joiner):
        for path in ("/v1/leases", "/v1/workspaces", "/v1/nodes", "/v1/images", "/v1/events", "/metrics", "/v1/tokens"):
            refused(who.get(path), 403, "forbidden")
        refused(who.post("/v1/leases", json=asked()), 403, "forbidden")
    for who in (here.root, here.ann, joiner, other.http):
        orders = who.get(f"/v1/nodes/{node.id}/orders", params={"instance": "x"})
        refused(orders, 403, "forbidden")
        refused(who.post(f"/v1/nodes/{node.id}/reports", json=node.facts()), 403, "forbidden")
    for who in (here.ann, joiner):
        refused(who.get(f"/v1/blobs/{'a' * 64}"), 403, "forbidden")
    refused(here.ann.get("/metrics"), 403, "forbidden")
    refused(here.ann.post("/v1/nodes/join", json={"name": "x", "instance": "i", "version": "1"}), 403, "forbidden")


# ---------------------------------------------------------------- bodies


def memory_mib() -> int:
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) // 1024


def test_a_hundred_megabytes_are_refused_without_being_read(here):
    answer = here.ann.post("/v1/leases", content=b"x" * (100 << 20), headers=JSON)
    assert refused(answer, 413, "too-large")["possible"] == "at most 1048576 bytes"
    assert here.ann.get("/v1/site").status_code == 200


def test_what_is_not_announced_is_counted(here):
    piece, before = b"x" * (1 << 20), memory_mib()
    answer = here.ann.post("/v1/leases", content=iter([piece] * 100), headers=JSON)
    assert refused(answer, 413, "too-large")
    assert memory_mib() - before < 20


def test_the_refusal_comes_before_the_body(here):
    """A client that announces too much is answered at once; one that goes on sending is cut off in the end."""
    host, port = here.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/leases HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {here.ann_token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {10**12}\r\n\r\n".encode()
        )
        started = time.monotonic()
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 413
        assert time.monotonic() - started < 1
        with pytest.raises(OSError, match=r"reset|pipe"):
            _send_for(connection, 8)
    assert 1 < time.monotonic() - started < 5


def _send_for(connection: socket.socket, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(b"x" * 65536)
        time.sleep(0.01)


def test_each_operation_has_its_own_limit(here):
    (node,) = here.enroll("one")
    workspace = here.lease()["workspaces"][0]["id"]
    console = f"/v1/nodes/{node.id}/consoles/{workspace}"
    assert node.http.put(console, content=b"x" * (128 << 10)).status_code == 204
    refused(node.http.put(console, content=b"x" * ((128 << 10) + 1)), 413, "too-large")
    report = json.dumps(node.facts()).encode()
    assert node.http.post(f"/v1/nodes/{node.id}/reports", content=report + b" " * (2 << 20)).status_code == 200
    refused(node.http.post(f"/v1/nodes/{node.id}/reports", content=report + b" " * (5 << 20)), 413, "too-large")
    refused(here.ann.post("/v1/images?name=big", content=b"x" * (9 << 20)), 413, "too-large")
    refused(here.ann.post("/v1/images?name=big", content=iter([b"x" * (1 << 20)] * 9)), 413, "too-large")
    refused(here.ann.post("/v1/leases/x/extend", content=b" " * (2 << 20), headers=JSON), 413, "too-large")
    refused(here.ann.post("/v1/workspaces/x/pause", content=b" " * (2 << 20)), 413, "too-large")


# ---------------------------------------------------------------- what nobody foresaw


def test_the_unforeseen_is_a_reference_not_a_trace(here: Running, monkeypatch, caplog):
    def fail(*_, **__):
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr(here.services.leases, "leases", fail)
    with caplog.at_level(logging.INFO, "vws.access"):
        answer = here.ann.get("/v1/leases?name=hidden")
        problem = refused(answer, 500, "internal")
        assert "secret" not in answer.text
        assert problem["reference"] == answer.headers["x-request-id"]
        until(lambda: "500" in caplog.text)
    assert problem["reference"] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "hidden" not in caplog.text
    assert here.ann_token.rpartition(".")[2] not in caplog.text


def test_answers_tell_little_about_the_server(here):
    answer = here.nobody.get("/v1/site")
    assert "server" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert here.nobody.get("/v1/health").json()["status"] == "ok"
    assert here.nobody.get("/v1/ca").text.startswith("-----BEGIN CERTIFICATE")
    assert here.nobody.get("/v1/openapi.json").json()["openapi"] == "3.1.0"


def test_a_line_of_the_log_cannot_be_forged(here, caplog):
    with caplog.at_level(logging.INFO, "vws.access"):
        here.ann.get("/v1/leases/x%0A2026-01-01 INFO forged")
        until(lambda: caplog.records)
    (record,) = [r for r in caplog.records if "leases" in r.getMessage()]
    assert "\n" not in record.getMessage()
    assert "%0A" in record.getMessage()
