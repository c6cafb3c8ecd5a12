"""Names, sharing, documents and files of images, as the API has them."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from vws.core.frames import HEADER_BYTES, read_header

MIB = 1 << 20
pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


@pytest.fixture
def disk() -> bytes:
    """A raw disk that begins and ends with data and is zero between."""
    return b"\0" * 510 + b"\x55\xaa" + b"\0" * (3 * MIB) + b"end" + b"\0" * 509


def test_a_name_moves_keeps_its_history_and_is_taken_away(here, disk):
    first = here.ann.post("/v1/images?name=site", content=disk).json()
    second = here.ann.post("/v1/images?name=site", content=disk + b"\1" * 512).json()
    assert here.ann.get("/v1/images/site").json()["id"] == second["id"]
    history = here.ann.get("/v1/image-names/site").json()["items"]
    assert [row["image"] for row in history] == [second["id"], first["id"]]
    newest = here.ann.get("/v1/image-names/site", params={"limit": 1}).json()
    older = here.ann.get("/v1/image-names/site", params={"limit": 1, "after": newest["next"]}).json()
    assert [newest["items"], older["items"], older["next"]] == [history[:1], history[1:], None]
    assert here.ann.post(f"/v1/images/{first['id']}/tags", json={"name": "site:old"}).json()["tags"] == ["site:old"]
    assert here.ann.get("/v1/images?name=site").json()["items"][0]["tags"] == ["site:old"]
    assert [i["id"] for i in here.ann.get("/v1/images?name=site:latest").json()["items"]] == [second["id"]]
    assert here.ann.delete("/v1/image-names/site").json()["tags"] == []
    assert here.ann.get("/v1/images/site").status_code == 404
    assert here.ann.get(f"/v1/images/sha256:{second['digest']}").json()["id"] == second["id"]


def test_the_answer_kept_for_a_repeat_says_the_name_too(here, disk):
    key = {"Idempotency-Key": "once"}
    first = here.ann.post("/v1/images?name=site:1", content=disk, headers=key)
    assert first.json()["tags"] == ["site:1"]
    assert here.ann.post("/v1/images?name=site:1", content=disk, headers=key).json() == first.json()


def test_documents_come_back_byte_for_byte(here, disk):
    here.ann.post("/v1/images?name=site", content=disk)
    where = {"kind": "sbom", "media_type": "application/vnd.cyclonedx+json"}
    octets = {"Content-Type": "application/octet-stream"}
    added = here.ann.post("/v1/images/site/documents", params=where, content=b"{\xff}", headers=octets)
    assert added.status_code == 201
    assert added.json()["sha256"] == hashlib.sha256(b"{\xff}").hexdigest()
    assert here.ann.get("/v1/images/site/documents").json()["items"] == [added.json()]
    assert here.ann.get(f"/v1/images/site/documents/{added.json()['id']}").content == b"{\xff}"
    assert here.ann.get("/v1/images/site/documents/doc-none").status_code == 404
    assert here.bob.get("/v1/images/site/documents").status_code == 403
    here.ann.put("/v1/images/site/sharing", json={"shared": ["public"]})
    assert here.bob.get("/v1/images/site/documents").json()["items"] == [added.json()]
    assert here.bob.post("/v1/images/site/documents", params=where, content=b"x", headers=octets).status_code == 403


def unframed(stream: bytes) -> tuple[int, list[tuple[int, bytes]]]:
    """(length of the file, its frames)"""
    frames, at = [], 0
    while True:
        offset, length = read_header(stream[at : at + HEADER_BYTES])
        at += HEADER_BYTES
        if not length:
            assert at == len(stream)
            return offset, frames
        frames.append((offset, stream[at : at + length]))
        at += length


def test_a_users_file_comes_whole_in_part_and_without_its_zeros(here, disk):
    image = here.ann.post("/v1/images?name=site", content=disk).json()
    url = f"/v1/images/site/files/{image['files'][0]['sha256']}"
    assert here.ann.get(url).content == disk
    part = here.ann.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, disk[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(disk)}"
    assert here.ann.get(url, headers={"Range": "bytes=-3"}).content == disk[-3:]
    framed = here.ann.get(url, params={"holes": "skip"})
    assert len(framed.content) == int(framed.headers["content-length"])
    assert len(framed.content) < MIB
    size, frames = unframed(framed.content)
    rebuilt = bytearray(size)
    for offset, data in frames:
        rebuilt[offset : offset + len(data)] = data
    assert bytes(rebuilt) == disk
    size, frames = unframed(here.ann.get(url, params={"holes": "skip", "offset": len(disk) - 5}).content)
    assert (size, frames) == (len(disk), [(len(disk) - 5, disk[-5:])])
    assert unframed(here.ann.get(url, params={"holes": "skip", "offset": len(disk)}).content) == (len(disk), [])
    assert here.ann.get(url, params={"holes": "skip", "offset": len(disk) + 1}).status_code == 416
    assert here.ann.get(url, params={"offset": 5}).status_code == 422
    assert here.bob.get(url).status_code == 403
    assert here.ann.get(f"/v1/images/site/files/{'0' * 64}").status_code == 404
