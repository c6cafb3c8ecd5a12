"""Exports over the wire: the client has the whole file or none, and refusals come before the first byte."""

from __future__ import annotations

import shutil
from functools import partial

import pytest

from tests.frontends.conftest import Running
from tests.service.disk_images import disk, same_content
from vws.client import Client, transfers
from vws.client.errors import ApiError, ConnectionFailed
from vws.core.image_formats import EXPORTED
from vws.service import converted, image_files
from vws.service.converted import Kept
from vws.service.image_files import ImageFiles

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


class Breaking:
    """Streams that break off after `pieces` pieces, as often as it is said."""

    def __init__(self, monkeypatch, times, pieces=1):
        self.left, self.asked = times, []
        for place, name in ((Kept, "read"), (ImageFiles, "whole")):
            monkeypatch.setattr(place, name, self.breaking(getattr(place, name), pieces))
        for module in (converted, image_files):
            monkeypatch.setattr(module, "PIECE_BYTES", 256 << 10)

    def breaking(self, true, pieces):
        def read(*arguments):
            self.asked.append(arguments[-1] if isinstance(arguments[-1], int) else 0)
            for number, piece in enumerate(true(*arguments)):
                if number == pieces and self.left:
                    self.left -= 1
                    raise OSError("the disk is gone")
                yield piece

        return read


def beside(tmp_path):
    return [path.name for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize("kind", ["vdi", "qcow2", "oci"])
def test_what_breaks_goes_on_where_it_broke(here, debian, client, tmp_path, monkeypatch, kind):
    client.export_image("debian", kind, tmp_path / "whole")
    breaks = Breaking(monkeypatch, times=1 if kind == "qcow2" else 2)
    client.export_image("debian", kind, tmp_path / "out")
    assert breaks.left == 0
    if kind != "oci":  # of which each member is read from its beginning
        assert breaks.asked == [0, 256 << 10, 512 << 10][: 2 if kind == "qcow2" else 3]
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert beside(tmp_path) == ["out"]


def test_a_killed_program_goes_on_and_never_with_other_bytes(here, debian, client, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "GIVE_UP_S", -1)
    breaks = Breaking(monkeypatch, times=1)
    with pytest.raises(ConnectionFailed):
        client.export_image("debian", "vdi", tmp_path / "out")
    (part,) = beside(tmp_path)
    assert (tmp_path / part).stat().st_size == 256 << 10
    for path in (here.services.exports.converted._folder).iterdir():
        path.unlink()  # as after an hour: it is converted anew, to other bytes
    client.export_image("debian", "vdi", tmp_path / "out")
    assert breaks.asked == [0, 0]
    assert same_content(debian, "qcow2", tmp_path / "out", "vdi")
    assert beside(tmp_path) == ["out"]


def test_only_the_rest_of_the_same_file_is_sent(here, debian):
    ask = partial(here.ann.get, "/v1/images/debian/export", params={"format": "vdi"})
    whole = ask()
    tag, size = whole.headers["etag"], len(whole.content)
    rest = ask(headers={"Range": "bytes=1000-", "If-Range": tag})
    assert (rest.status_code, rest.content) == (206, whole.content[1000:])
    assert rest.headers["content-range"] == f"bytes 1000-{size - 1}/{size}"
    for headers in (
        {"Range": "bytes=1000-"},
        {"Range": "bytes=1000-", "If-Range": '"another"'},
        {"Range": f"bytes={size}-", "If-Range": tag},
        {"Range": "bytes=-5", "If-Range": tag},
        {"Range": "nonsense", "If-Range": tag},
    ):
        assert ask(headers=headers).status_code == 200
