"""Encrypted images over HTTP: keys go to those who may have them, and stay nowhere on the way."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3

import pytest

from tests.frontends.conftest import asked
from tests.service.disk_images import disk
from vws.client import ApiError, Client
from vws.core.site import Role
from vws.service.access import Caller

ROOT = Caller("root", Role.ADMIN)


@pytest.fixture
def ann(here):
    with Client(here.url, bearer(here.ann)) as client:
        yield client


@pytest.fixture
def root(here):
    with Client(here.url, bearer(here.root)) as client:
        yield client


def bearer(http):
    return http.headers["authorization"].removeprefix("Bearer ")


def kept_text(here) -> str:
    """All that the store holds, as text."""
    path = next(here.services.images._uploads.parent.parent.rglob("*.db"), None)
    if path is None:
        return ""
    with sqlite3.connect(path) as database:
        return "\n".join(database.iterdump())


def test_what_a_user_sends_is_kept_encrypted_and_its_key_is_his(here, ann, tmp_path):
    made = ann.upload_image(disk(tmp_path / "plain.qcow2", "qcow2"), "mine", encrypt=True)
    assert made["encrypted"]
    (file,) = made["files"]
    assert (file["encryption"], made["sha256"]) == ("luks", file["sha256"])
    assert [image["encrypted"] for image in ann.images()] == [True]
    key = ann.image_passphrase("mine")
    answer = here.ann.post("/v1/images/mine/key")
    assert answer.json() == {"passphrase": key}
    assert answer.headers["cache-control"] == "no-store"
    assert here.bob.post("/v1/images/mine/key").status_code == 403
    assert here.root.post("/v1/images/mine/key").json() == {"passphrase": key}
    out = tmp_path / "out.qcow2"
    assert "--with-key" in ann.export_image("mine", "qcow2", out)
    again = ann.upload_image(out, "again", passphrase=key)
    assert again["encrypted"]
    with pytest.raises(ApiError) as refused:
        ann.upload_image(out, "third", passphrase="a wrong passphrase")
    assert refused.value.code == "invalid-request"
    assert "a wrong passphrase" not in str(vars(refused.value))
    with pytest.raises(ApiError, match="encrypted"):
        ann.upload_image(out, "fourth")
    kept = kept_text(here)
    assert kept
    assert key not in kept
    assert "a wrong passphrase" not in kept


def test_a_passphrase_that_cannot_be_is_refused_without_being_repeated(here):
    for said in ("not base64!", base64.b64encode(b"\xff\xfe").decode(), "", base64.b64encode(bytes(600)).decode()):
        answer = here.ann.post("/v1/uploads/upl-1/complete", json={}, headers={"Image-Passphrase": said})
        assert answer.status_code == 400 or answer.status_code == 422
        assert answer.json()["field"] == "passphrase"
        assert not said or said not in answer.text


def test_an_encrypted_image_is_for_no_more_people_than_what_it_was_made_of(here, ann, root, tmp_path):
    mine = ann.upload_image(disk(tmp_path / "one.qcow2", "qcow2"), "mine")
    assert root.encrypt_image(mine["id"], "sealed")["shared"] == []
    public = root.upload_image(disk(tmp_path / "two.qcow2", "qcow2"), "public")
    assert public["shared"] == ["public"]
    assert root.encrypt_image(public["id"], "open")["shared"] == ["public"]
    assert root.encrypt_image(public["id"], "closed", shared=[])["shared"] == []
    assert ann.encrypt_image(public["id"], "anns")["shared"] == []
    third = disk(tmp_path / "three.qcow2", "qcow2", size_bytes=4 << 20)
    assert root.upload_image(third, "private", shared=[])["shared"] == []


def test_a_node_asks_for_the_keys_of_its_own_workspace(here, ann, tmp_path):
    (node,) = here.enroll("one")
    here.services.images.add(ROOT, disk(here.services.images.begin(), "qcow2"), "plain")
    sealed = ann.encrypt_image("plain", "sealed:1")
    assert sealed["encrypted"]
    assert sealed["owner"] == "ann"
    here.lease(name="box", groups=[asked()["groups"][0] | {"image": "sealed:1"}])
    node.obey()
    workspace = here.ann.get("/v1/workspaces/box-1").json()["id"]
    place = f"/v1/nodes/{node.id}/workspaces/{workspace}/keys"
    answer = node.http.post(place)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    given = answer.json()
    assert given["files"] == [{"sha256": sealed["files"][0]["sha256"], "passphrase": ann.image_passphrase("sealed:1")}]
    assert given["own"] not in ("", given["files"][0]["passphrase"])
    assert node.http.post(place).json() == given
    assert here.ann.post(place).status_code == 403
    assert here.root.post(place).status_code == 403
    assert node.http.post(f"/v1/nodes/{node.id}/workspaces/wsp-none/keys").status_code == 404
    orders = node.http.get(f"/v1/nodes/{node.id}/orders", params={"instance": "agent-1"}).text
    told = here.root.get("/v1/events", params={"limit": 1000}).text
    assert hashlib.sha256(given["own"].encode()).hexdigest() not in told
    for secret in (given["own"], given["files"][0]["passphrase"]):
        assert secret not in orders
        assert secret not in told
        assert secret not in kept_text(here)
    kinds = [event["kind"] for event in json.loads(told)["items"]]
    assert kinds.count("image.key-given") == 2
