"""Workspaces that become images, as users ask and nodes hand in. The test plays the node."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.frontends.conftest import asked
from tests.service.disk_images import disk, qemu_img
from vws.core.site import Image, Role
from vws.service.access import Caller
from vws.service.saves import Saves

ROOT = Caller("root", Role.ADMIN)


@pytest.fixture
def node(here, tmp_path):
    """A node that runs ann's workspace `box-1` of an image with a disk."""
    (node,) = here.enroll("one")
    upload = here.services.images.begin()
    disk(upload, "qcow2")
    here.services.images.add(ROOT, upload, "base")
    here.lease(name="box", groups=[asked()["groups"][0] | {"image": "base"}])
    node.obey()
    return node


@pytest.fixture
def delta(tmp_path):
    """What a node hands in: changed clusters, and no name of what is under them."""
    path = tmp_path / "delta.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "100M")
    return path.read_bytes()


def ask(here, name="mine", **more):
    return here.ann.post("/v1/workspaces/box-1/saves", json={"name": name} | more)


def place(node, save, *more):
    return "/".join([f"/v1/nodes/{node.id}/captures/{save['id']}", *more])


def send(node, save, content, offset=0):
    kind = {"Content-Type": "application/octet-stream"}
    return node.http.patch(place(node, save), params={"offset": offset}, content=content, headers=kind)


def complete(node, save, content):
    return node.http.post(place(node, save, "complete"), json={"sha256": hashlib.sha256(content).hexdigest()})


def hand_in(node, save, content):
    assert send(node, save, content).status_code == 200
    return complete(node, save, content).json()


def test_a_save_is_ordered_handed_in_and_an_image(here, node, delta):
    answer = ask(here)
    save = answer.json()
    assert (answer.status_code, save["state"], save["owner"]) == (202, "due", "ann")
    (ordered,) = node.pull().json()["orders"]["captures"]
    assert (ordered["id"], ordered["at_end"], ordered["clean"]) == (save["id"], False, True)
    assert [file["role"] for file in ordered["beneath"]] == ["disk"]
    done = hand_in(node, save, delta)
    assert done["state"] == "done"
    assert here.ann.get(f"/v1/saves/{save['id']}").json() == done
    assert node.pull().json()["orders"]["captures"] == []
    image = here.ann.get("/v1/images/mine").json()
    base = here.ann.get("/v1/images/base").json()
    (own, beneath) = image["files"]
    assert (image["id"], image["base"], image["owner"], image["shared"]) == (done["image"], base["id"], "ann", [])
    assert (own["role"], own["base"], beneath["role"]) == ("disk", base["files"][0]["sha256"], "base")
    assert image["size_bytes"] == len(delta)
    assert here.bob.get("/v1/images/mine").status_code == 403


def test_who_saved_what_is_kept_beside_it(here, node, delta):
    hand_in(node, ask(here, "mine:2").json(), delta)
    (document,) = here.ann.get("/v1/images/mine:2/documents").json()["items"]
    content = here.ann.get(f"/v1/images/mine:2/documents/{document['id']}").content
    said = json.loads(content)
    asked_for = said["predicate"]["buildDefinition"]["externalParameters"]
    assert (asked_for["workspace"]["name"], asked_for["user"], asked_for["cleaned"]) == ("box-1", "ann", True)
    image, base = (here.ann.get(f"/v1/images/{name}").json() for name in ("mine:2", "base"))
    assert said["subject"][0]["digest"]["sha256"] == image["digest"]
    assert [(o["how"], o["image"], o["digest"]) for o in image["origins"]] == [("saved", base["id"], base["digest"])]


def test_a_saved_image_is_leased_with_all_that_is_under_it_and_saved_again(here, node, delta):
    first = hand_in(node, ask(here).json(), delta)
    here.lease(name="next", groups=[asked()["groups"][0] | {"image": "mine"}])
    node.obey()
    orders = node.pull().json()["orders"]["workspaces"]
    (mine,) = (order for order in orders if order["image"] == first["image"])
    assert [file["role"] for file in mine["files"]] == ["disk", "base"]
    again = here.ann.post("/v1/workspaces/next-1/saves", json={"name": "more"}).json()
    other = bytes(delta) + bytes(65536)
    assert hand_in(node, again, other)["state"] == "done"
    roles = [(file["role"], bool(file["base"])) for file in here.ann.get("/v1/images/more").json()["files"]]
    assert roles == [("disk", True), ("base", True), ("base", False)]


def test_it_goes_on_where_it_broke_and_nothing_is_listed_before(here, node, delta):
    save = ask(here).json()
    half = len(delta) // 2
    assert send(node, save, delta[:half]).json() == {"offset": half}
    assert node.http.get(place(node, save)).json() == {"offset": half}
    assert send(node, save, delta, 0).status_code == 409
    assert here.ann.get("/v1/images/mine").status_code == 404
    assert send(node, save, delta[half:], half).status_code == 200
    assert complete(node, save, delta).json()["state"] == "done"


def test_what_was_altered_on_its_way_is_sent_anew(here, node, delta):
    save = ask(here).json()
    send(node, save, delta[:-1] + b"!")
    assert complete(node, save, delta).status_code == 422
    assert node.http.get(place(node, save)).json() == {"offset": 0}
    assert hand_in(node, save, delta)["state"] == "done"


def test_what_is_no_disk_or_names_other_files_ends_the_save(here, node, tmp_path):
    reaching = tmp_path / "reaching"
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/shadow", reaching, "3M")
    for content, reason in ((b"no disk", "qcow2"), (Path(reaching).read_bytes(), "backing file")):
        ended = hand_in(node, ask(here).json(), content)
        assert ended["state"] == "failed"
        assert reason in ended["reason"]
    assert here.ann.get("/v1/images/mine").status_code == 404
    assert not list(here.services.saves._directory.glob("*"))
    assert node.pull().json()["orders"]["captures"] == []


def test_a_node_that_cannot_says_why(here, node):
    save = ask(here).json()
    node.http.post(place(node, save, "failed"), json={"reason": "its disk has\nxfs"})
    ended = here.ann.get(f"/v1/saves/{save['id']}").json()
    assert (ended["state"], ended["reason"]) == ("failed", "its disk has xfs")
    assert here.ann.get("/v1/saves", params={"live": True}).json()["items"] == []


def test_only_its_node_hands_it_in_and_only_its_owner_asks(here, node, delta):
    save = ask(here).json()
    (other,) = here.enroll("two")
    assert other.http.get(place(node, save)).status_code == 404
    assert other.http.get(place(other, save)).status_code == 404
    assert here.ann.get(place(node, save)).status_code == 403
    assert here.bob.post("/v1/workspaces/box-1/saves", json={"name": "hers"}).status_code == 403
    assert here.bob.get(f"/v1/saves/{save['id']}").status_code == 403
    assert here.bob.get("/v1/saves").json()["items"] == []


def test_refused_at_once(here, node):
    assert ask(here, "base").json()["code"] == "name-taken"
    ask(here)
    assert ask(here, "mine:2").json()["code"] == "conflict"
    assert ask(here, "mine:2", when="end").status_code == 202
    workspace = here.ann.post("/v1/workspaces/box-1/suspend").json()
    refused = here.ann.post(f"/v1/workspaces/{workspace['id']}/saves", json={"name": "third"})
    assert refused.status_code == 409
    assert "running" in refused.json()["possible"]


def test_of_a_simulated_image_nothing_is_kept(here, node):
    here.lease(name="sim")
    node.obey()
    refused = here.ann.post("/v1/workspaces/sim-1/saves", json={"name": "air"})
    assert "simulated" in refused.json()["detail"]


def test_its_base_stays_until_it_is_done_though_the_workspace_is_gone(here, node, delta):
    save = ask(here, when="end").json()
    base = here.ann.get("/v1/images/base").json()
    here.ann.delete("/v1/leases/box")
    node.report()
    assert here.root.delete("/v1/images/base").json()["removed_at"] is None
    here.services.images.tidy()
    assert base["id"] in here.services.site.present.images
    assert [each["id"] for each in node.pull().json()["orders"]["captures"]] == [save["id"]]
    assert hand_in(node, save, delta)["state"] == "done"
    here.services.images.tidy()
    assert base["id"] in here.services.site.present.images
    here.ann.delete("/v1/images/mine")
    here.services.images.tidy()
    assert here.services.site.store.get(Image, base["id"]).removed_at is not None


def test_a_node_that_is_removed_takes_its_saves_along(here, node):
    save = ask(here).json()
    here.root.delete(f"/v1/nodes/{node.id}", params={"force": True})
    ended = here.ann.get(f"/v1/saves/{save['id']}").json()
    assert (ended["state"], ended["reason"]) == ("failed", "its node one was removed")


def test_a_service_that_was_killed_goes_on_with_what_had_come(here, node, delta):
    save = ask(here).json()
    send(node, save, delta)
    services = here.services
    fresh = Saves(services.site, services.images, services.leases, services.saves._directory)
    fresh.sweep()
    object.__setattr__(services, "saves", fresh)
    assert node.http.get(place(node, save)).json() == {"offset": len(delta)}
    assert send(node, save, b"", len(delta)).status_code == 200
    assert complete(node, save, delta).json()["state"] == "done"
