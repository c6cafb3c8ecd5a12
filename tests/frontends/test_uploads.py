"""Uploads in parts by who is mistaken, malicious or gone: over-long, another user's, twice, out of place."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading

import pytest

from tests.frontends.conftest import Running, until
from vws.core.frames import MEDIA_TYPE, header
from vws.core.image_quota import ImageRules
from vws.frontends.rest import uploads as rest_uploads
from vws.service.uploads import KEPT_S, OPEN_MAX, Uploads

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")
KIB = 1 << 10
DISK = b"\1" * 510 + b"\x55\xaa" + b"\2" * (64 * KIB - 512)


def begin(here: Running, content: bytes = DISK, name: str = "mine", **more):
    answer = here.ann.post("/v1/uploads", json={"name": name, "size_bytes": len(content), **more})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def patch(here: Running, id: str, content, offset: int = 0, by=None, **headers):
    return (by or here.ann).patch(f"/v1/uploads/{id}", params={"offset": offset}, content=content, headers=headers)


def complete(here: Running, id: str, sha256: str = "", by=None):
    return (by or here.ann).post(f"/v1/uploads/{id}/complete", json={"sha256": sha256})


def offset_of(here: Running, id: str) -> int:
    return here.ann.get(f"/v1/uploads/{id}").json()["offset"]


def nothing_is_listed(here: Running) -> None:
    assert here.ann.get("/v1/images").json()["items"] == []
    assert here.services.images.files.blobs.all() == []


def test_in_parts_and_then_it_is_an_image(here):
    id = begin(here)
    assert patch(here, id, DISK[:1000]).json()["offset"] == 1000
    assert patch(here, id, DISK[1000:], 1000).json()["offset"] == len(DISK)
    nothing_is_listed(here)
    done = complete(here, id, hashlib.sha256(DISK).hexdigest())
    assert (done.status_code, done.json()["name"]) == (201, "mine")
    assert here.ann.get(f"/v1/uploads/{id}").status_code == 404


def test_a_part_that_is_sent_again_or_out_of_place_is_told_where_it_goes_on(here):
    id = begin(here)
    patch(here, id, DISK[:1000])
    for offset in (0, 999, 1001, len(DISK), 2**62):
        again = patch(here, id, DISK[:1000], offset)
        assert (again.status_code, again.json()["field"]) == (409, "offset")
        assert again.json()["offset"] == 1000
        assert again.json()["possible"] == "offset=1000"
    assert patch(here, id, b"", -1).status_code == 422
    patch(here, id, DISK[1000:], 1000)
    assert complete(here, id).json()["sha256"] == hashlib.sha256(DISK).hexdigest()


@pytest.mark.parametrize("framed", [False, True])
def test_what_is_longer_than_announced_is_refused_and_what_fits_can_still_be_made(here, framed):
    id = begin(here)
    long = DISK + b"x"
    body = header(0, len(long)) + long if framed else long
    refused = patch(here, id, body, **({"Content-Type": MEDIA_TYPE} if framed else {}))
    assert (refused.status_code, refused.json()["field"]) == (422, "body")
    at = offset_of(here, id)
    assert at <= len(DISK)
    patch(here, id, DISK[at:], at)
    assert complete(here, id, hashlib.sha256(DISK).hexdigest()).status_code == 201


def test_what_is_larger_than_the_site_takes_is_refused_before_it_is_sent(here):
    answer = here.ann.post("/v1/uploads", json={"name": "mine", "size_bytes": (8 << 20) + 1})
    assert answer.status_code == 413
    assert "at most 8388608 bytes" in answer.json()["possible"]


def test_too_little_or_something_else_makes_no_image(here):
    id = begin(here)
    patch(here, id, DISK[:1000])
    early = complete(here, id)
    assert (early.status_code, early.json()["offset"]) == (409, 1000)
    patch(here, id, DISK[1000:], 1000)
    other = complete(here, id, "0" * 64)
    assert (other.status_code, other.json()["field"]) == (422, "sha256")
    assert "nothing was kept" in other.json()["possible"]
    assert here.ann.get(f"/v1/uploads/{id}").status_code == 404
    nothing_is_listed(here)


def test_anothers_upload_is_not_there(here):
    id = begin(here)
    patch(here, id, DISK)
    for stranger in (here.bob, here.root):
        assert stranger.get(f"/v1/uploads/{id}").status_code == 404
        assert patch(here, id, b"x", len(DISK), by=stranger).status_code == 404
        assert complete(here, id, by=stranger).status_code == 404
        assert stranger.delete(f"/v1/uploads/{id}").status_code == 404
    assert patch(here, id, b"x", by=here.nobody).status_code == 401
    for strange in ("upl-", "upl-..", "..", "upl-%2F..%2Fupl-1", "x" * 100):
        assert here.ann.get(f"/v1/uploads/{strange}").status_code == 404
    assert offset_of(here, id) == len(DISK)


def test_the_same_key_finds_ones_own_upload_and_nobody_elses(here):
    id = begin(here, key="k")
    assert begin(here, key="k") == id
    assert begin(here, DISK + b"x", key="k") != id, "it is another file"
    for otherwise in ({"shared": ["public"]}, {"format": "raw"}, {"encrypt": True}, {"name": "other"}):
        assert begin(here, **{"key": "k"} | otherwise) != id, f"it would become an image without {otherwise}"
    asked = {"name": "mine", "size_bytes": len(DISK), "key": "k"}
    assert here.bob.post("/v1/uploads", json=asked).json()["id"] != id


def test_of_one_user_so_many_are_open_and_they_end_after_a_day(here, monkeypatch):
    ids = [begin(here, name=f"i{number}") for number in range(OPEN_MAX)]
    many = here.ann.post("/v1/uploads", json={"name": "more", "size_bytes": 5})
    assert (many.status_code, many.json()["field"]) == (409, "uploads")
    assert here.bob.post("/v1/uploads", json={"name": "other", "size_bytes": 5}).status_code == 201
    assert here.ann.delete(f"/v1/uploads/{ids[0]}").status_code == 204
    begin(here, name="more")
    now = here.services.site.clock.now()
    monkeypatch.setattr(here.services.site.clock, "now", lambda: now + KEPT_S + 60)
    here.services.uploads.expire()
    assert here.services.uploads._all() == []
    assert list(here.services.images._uploads.glob("upl-*")) == []


def test_a_quota_that_others_filled_meanwhile_is_told_and_what_came_is_kept(server, sqlite_store, tmp_path):
    here = Running(server, sqlite_store, tmp_path, images=ImageRules(quota_mib=1))
    large = DISK + b"\3" * (600 * KIB)
    try:
        id = begin(here, large)
        patch(here, id, large)
        other = begin(here, large + b"\4", name="other")
        patch(here, other, large + b"\4")
        assert complete(here, other).status_code == 201
        full = complete(here, id)
        assert (full.status_code, full.json()["field"]) == (409, "images")
        assert "vws image remove makes room" in full.json()["possible"]
        assert [image["name"] for image in here.ann.get("/v1/images").json()["items"]] == ["other"]
        assert here.ann.delete("/v1/images/other").status_code == 200
        assert complete(here, id).json()["name"] == "mine", "without being sent again"
    finally:
        here.close()


def slow(here: Running, id: str, content: bytes, announced: int) -> socket.socket:
    """Somebody who says that he sends more than he does, and keeps the line."""
    host, port = here.url.removeprefix("http://").split(":")
    line = socket.create_connection((host, int(port)), timeout=30)
    line.sendall(
        f"PATCH /v1/uploads/{id}?offset=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {here.ann_token}\r\n"
        f"Content-Length: {announced}\r\n\r\n".encode()
        + content
    )
    until(lambda: id in here.services.uploads._busy)
    return line


def test_while_one_writes_no_other_does_and_it_is_not_dropped(here):
    id = begin(here)
    with slow(here, id, DISK[:1000], len(DISK)) as line:
        for refused in (patch(here, id, DISK), complete(here, id), here.ann.delete(f"/v1/uploads/{id}")):
            assert refused.status_code == 409
            assert "written to by another request" in refused.json()["detail"]
        line.sendall(DISK[1000:])
        assert line.recv(100).startswith(b"HTTP/1.1 200")
    assert complete(here, id).status_code == 201


def test_who_is_gone_without_a_word_keeps_nobody_from_going_on(here, monkeypatch):
    """His power failed: the connection never ends by itself."""
    monkeypatch.setattr(rest_uploads, "SILENCE_S", 0.3)
    id = begin(here)
    with slow(here, id, DISK[:1000], len(DISK)) as line:
        until(lambda: id not in here.services.uploads._busy)
        assert line.recv(100).startswith(b"HTTP/1.1 503")
        assert offset_of(here, id) == 1000, "what came is kept"
        assert patch(here, id, DISK[1000:], 1000).status_code == 200
    assert complete(here, id).status_code == 201


def test_a_service_that_was_killed_before_the_commit_completes_what_it_has(here, tmp_path):
    id = begin(here)
    patch(here, id, DISK)
    services = here.services
    again = Uploads(services.site, services.images, services.images._uploads)  # as in a process started anew
    services.images.sweep()
    from tests.service.conftest import ANN

    assert again.upload(ANN, id).offset == len(DISK)
    assert again.complete(ANN, id, hashlib.sha256(DISK).hexdigest()).name == "mine"
    assert here.ann.get("/v1/images/mine").json()["damaged"] == ""


def test_many_who_complete_the_same_make_one_image(here):
    id = begin(here)
    patch(here, id, DISK)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(complete(here, id).status_code)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers)[0] == 201
    assert set(answers[:]) <= {201, 404, 409}
    assert answers.count(201) == 1
    assert len(here.ann.get("/v1/images").json()["items"]) == 1
