"""Uploads: streamed to disk, counted, looked at, and nothing left of what was refused."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import socket
import subprocess
import tarfile
import time
from collections import namedtuple

import pytest

from tests.frontends.conftest import Running, until
from tests.service.test_image_check import FILES, bundle, sparse_member, with_member

MIB = 1 << 20


def qcow2(path, *options: str) -> bytes:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "1M"]
    subprocess.run(command, check=True, cwd=path.parent)
    return path.read_bytes()


@pytest.fixture
def disk(tmp_path) -> bytes:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    return qcow2(tmp_path / "disk.qcow2")


def uploads(running: Running) -> list:
    return list(running.services.images._uploads.glob("*"))


def test_an_image_is_taken_in_listed_and_removed(running, disk):
    made = running.ann.post("/v1/images", params={"name": "small"}, content=disk)
    assert made.status_code == 201, made.text
    image = made.json()
    assert (image["name"], image["owner"], image["boot"]) == ("small", "ann", "disk")
    assert image["sha256"] == hashlib.sha256(disk).hexdigest()
    assert image["tags"] == ["small"]
    assert running.bob.get("/v1/images/small").status_code == 403
    shared = running.ann.put("/v1/images/small/sharing", json={"shared": ["public"]}).json()
    assert shared == image | {"shared": ["public"]}
    image = shared
    assert running.bob.get("/v1/images/small").json() == image
    assert running.ann.get("/v1/images").json()["items"] == [image]
    assert running.bob.delete("/v1/images/small").status_code == 403
    assert running.ann.delete(f"/v1/images/{image['id']}").json()["removed_at"]
    assert running.ann.get("/v1/images").json()["items"] == []
    assert uploads(running) == []


def test_what_a_file_is_said_to_be_must_be_so(here, disk):
    wrong = here.ann.post("/v1/images", params={"name": "small", "format": "vmdk"}, content=disk)
    assert (wrong.status_code, wrong.json()["field"]) == (422, "format")
    assert "a vmdk image, but its bytes are those of a qcow2 image" in wrong.json()["detail"]
    assert here.ann.post("/v1/images", params={"name": "small", "format": "qcow2"}, content=disk).status_code == 201
    assert uploads(here) == []


def test_an_upload_is_repeated_harmlessly(running, disk):
    key = {"Idempotency-Key": "upload-1"}
    first = running.ann.post("/v1/images?name=small", content=disk, headers=key)
    again = running.ann.post("/v1/images?name=small", content=iter([disk]), headers=key)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    other = running.ann.post("/v1/images?name=small", content=disk + b"\0" * 512, headers=key)
    assert other.json()["code"] == "client-token-reused"
    assert uploads(running) == []


def test_what_is_no_image_is_refused(here):
    for name, content, status in [
        ("words", b"this is no disk image", 422),
        ("nothing", b"", 422),
        ("Bad/Name", b"x" * 512, 422),
    ]:
        answer = here.ann.post("/v1/images", params={"name": name}, content=content)
        assert answer.status_code == status, answer.text
        assert answer.json()["code"] == "invalid-request"
        assert answer.json()["detail"]
    assert here.ann.post("/v1/images", content=b"x").json()["field"] == "name"
    assert uploads(here) == []


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("name=A%2FB", 422, "invalid-request"),
        ("name=small", 409, "name-taken"),
        ("name=demo", 409, "name-taken"),
        ("name=x&size=1", 422, "invalid-request"),
    ],
)
def test_a_name_is_judged_before_the_file_is_sent(here: Running, disk, query, status, code):
    """The answer reaches even one who listens only when all is sent."""
    here.services.images.simulate("demo")
    here.bob.post("/v1/images?name=small", content=disk)
    host, port = here.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(
            f"POST /v1/images?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {here.ann_token}\r\n"
            f"Content-Length: {10**12}\r\n\r\n".encode()
        )
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert json.loads(answer.read())["code"] == code
    answer = here.ann.post(
        f"/v1/images?{query}", content=iter([b"x" * MIB] * 6), headers={"Content-Length": f"{6 * MIB}"}
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert uploads(here) == []


def test_a_refusal_after_the_whole_body_keeps_the_connection(here):
    assert "connection" not in here.ann.post("/v1/images?name=words", content=b"no disk image").headers
    assert "connection" not in here.ann.get("/v1/images/none").headers


def test_the_same_file_under_the_same_name_is_the_same_image(here, disk):
    first = here.ann.post("/v1/images?name=small", content=disk)
    again = here.ann.post("/v1/images?name=small", content=disk)
    assert (again.status_code, again.json()) == (201, first.json())


HOSTILE = {
    "backing file": lambda path: qcow2(path, "-u", "-b", "/etc/shadow", "-F", "raw"),
    "in another file": lambda path: qcow2(path, "-o", "data_file=data"),
    "not a disk image": lambda path: b"\x7fELF" + b"\0" * 5000,
    "'disk.qcow2' is not a plain file": lambda path: with_member(
        bundle(path, FILES), sparse_member("disk.qcow2", 64 * MIB)
    ).read_bytes(),
    "holds 'kernel' twice": lambda path: bundle(path, FILES, extra=[tarfile.TarInfo("kernel")]).read_bytes(),
}


@pytest.mark.parametrize("said", HOSTILE)
@pytest.mark.usefixtures("disk")
def test_a_hostile_image_is_refused_with_its_reason_and_leaves_nothing(here, tmp_path, said):
    answer = here.ann.post("/v1/images?name=evil", content=HOSTILE[said](tmp_path / "evil"))
    assert answer.status_code == 422, answer.text
    told = answer.json()
    assert (told["code"], told["field"]) == ("invalid-request", "file")
    assert said in told["detail"]
    assert told["possible"]
    assert uploads(here) == []
    assert here.services.images.files.blobs.all() == []


def test_a_broken_upload_leaves_nothing(here: Running):
    host, port = here.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(
            f"POST /v1/images?name=cut HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {here.ann_token}\r\n"
            f"Content-Length: {4 * MIB}\r\n\r\n".encode()
            + b"x" * MIB
        )
        until(lambda: uploads(here))
    until(lambda: uploads(here) == [], 3)
    assert here.ann.get("/v1/images").json()["items"] == []


def test_a_full_disk_is_told_before_it_is_full(here, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("vws.service.uploads.shutil.disk_usage", lambda _: usage(10**9, 10**9, MIB))
    answer = here.ann.post("/v1/images?name=big", content=b"x" * MIB)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "no room" in answer.json()["detail"]
    assert uploads(here) == []


def test_an_upload_leaves_the_service_responsive(here: Running):
    """Six megabytes in small pieces, while others ask."""
    import threading

    worst, over = 0.0, threading.Event()

    def ask() -> None:
        nonlocal worst
        while not over.is_set():
            started = time.monotonic()
            here.bob.get("/v1/site")
            worst = max(worst, time.monotonic() - started)

    asker = threading.Thread(target=ask)
    asker.start()
    here.ann.post("/v1/images?name=x", content=iter([b"x" * 4096] * 1500))
    over.set()
    asker.join()
    assert worst < 1.5  # of an upload that takes seconds, on a machine that may be busy
