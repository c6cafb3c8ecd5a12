"""Exports over the wire: the client has the whole file or none, and refusals come before the first byte."""

from __future__ import annotations

import shutil

import pytest

from tests.frontends.conftest import Running
from tests.service.disk_images import disk, same_content
from vws.client import Client
from vws.client.errors import ApiError, ConnectionFailed
from vws.core.image_formats import EXPORTED

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


@pytest.fixture
def debian(here: Running, tmp_path):
    path = disk(tmp_path / "debian.qcow2", "qcow2")
    assert here.ann.post("/v1/images", params={"name": "debian"}, content=path.read_bytes()).status_code == 201
    return path


@pytest.fixture
def client(here: Running):
    with Client(str(here.ann.base_url), here.ann.headers["authorization"].removeprefix("Bearer ")) as client:
        yield client


@pytest.mark.parametrize("kind", EXPORTED)
def test_an_image_is_received_whole(here, debian, client, tmp_path, kind):
    seen = []
    left_out = client.export_image("debian", kind, tmp_path / "out", progress=lambda *now: seen.append(now))
    assert left_out == ""
    size = (tmp_path / "out").stat().st_size
    assert seen[-1] == (size, size)
    if kind not in ("bundle", "oci"):
        assert same_content(debian, "qcow2", tmp_path / "out", kind)
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == ["out"]


def test_a_refusal_leaves_what_was_there(here, debian, client, tmp_path):
    (tmp_path / "out").write_text("before")
    with pytest.raises(ApiError) as error:
        client.export_image("debian", "iso", tmp_path / "out")
    assert (error.value.status, error.value.field) == (422, "format")
    with pytest.raises(ApiError):
        client.export_image("no-such", "raw", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "before"
    assert here.ann.get("/v1/images/debian/export").json()["field"] == "format"


def test_what_breaks_off_is_no_file(here, debian, client, tmp_path, monkeypatch):
    def broken(stream):
        yield b"half"
        raise OSError("the disk is gone")

    monkeypatch.setattr("vws.service.exports._pieces", broken)
    with pytest.raises(ConnectionFailed):
        client.export_image("debian", "qcow2", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.part").exists()
