"""Where files of images are kept: one suite for a directory and for a bucket of S3 (moto's server, on loopback)."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading

import pytest

from vws.core.errors import InvalidRequest, NotFound, Unavailable
from vws.ports import Blobs, Extent
from vws.store.blobs import FileBlobs
from vws.store.s3_blobs import S3Blobs

MIB = 1 << 20
SPARSE = b"begin" + bytes(3 * MIB - 5) + os.urandom(MIB) + bytes(2 * MIB) + b"end"


@pytest.fixture(scope="module")
def bucket_server():
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def s3(url: str, prefix: str, monkeypatch) -> S3Blobs:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-that-is-told-nobody")
    blobs = S3Blobs.connect("images", prefix, url, "eu-central-1")
    where = {"LocationConstraint": "eu-central-1"}
    if prefix not in s3.made:
        s3.made.add(prefix)
        if len(s3.made) == 1:
            blobs._client.create_bucket(Bucket="images", CreateBucketConfiguration=where)
    return blobs


s3.made = set()


@pytest.fixture(params=["directory", "bucket"])
def blobs(request, tmp_path, monkeypatch) -> Blobs:
    if request.param == "directory":
        return FileBlobs(tmp_path / "blobs")
    return s3(request.getfixturevalue("bucket_server"), tmp_path.name, monkeypatch)


@pytest.fixture
def keep(tmp_path, blobs):
    """Have a file kept that was written sparsely; returns its sha256."""

    def keep(data: bytes, sha256: str | None = None) -> str:
        path = tmp_path / f"upl-{len(data)}"
        with path.open("wb") as file:
            file.truncate(len(data))
            for at in range(0, len(data), 65536):
                if any(piece := data[at : at + 65536]):
                    os.pwrite(file.fileno(), piece, at)
        sha256 = sha256 or hashlib.sha256(data).hexdigest()
        blobs.adopt(path, sha256)
        assert not path.exists()
        return sha256

    return keep


@pytest.mark.parametrize("data", [b"", b"kernel", bytes(MIB), SPARSE, os.urandom(20 * MIB)], ids=len)
def test_what_is_kept_comes_back(blobs, keep, data, tmp_path):
    sha256 = keep(data)
    assert blobs.size(sha256) == len(data)
    for offset in {0, len(data) // 3, max(0, len(data) - 3), len(data)}:
        with blobs.open(sha256, offset) as stream:
            assert stream.read() == data[offset:]
    blobs.place(sha256, tmp_path / "placed")
    assert (tmp_path / "placed").read_bytes() == data


def test_zeros_are_no_extents(blobs, keep):
    sha256 = keep(SPARSE)
    extents = blobs.extents(sha256)
    assert sum(extent.length for extent in extents) < 2 * MIB
    rebuilt = bytearray(len(SPARSE))
    for extent in extents:
        with blobs.open(sha256, extent.offset) as stream:
            rebuilt[extent.offset : extent.offset + extent.length] = stream.read(extent.length)
    assert bytes(rebuilt) == SPARSE
    assert list(extents) == sorted(extents, key=lambda e: e.offset)
    assert all(a.offset + a.length < b.offset for a, b in itertools.pairwise(extents))
    assert blobs.extents(keep(b"x")) == (Extent(0, 1),)


def test_a_repeat_is_harmless_and_what_is_removed_is_gone(blobs, keep):
    sha256 = keep(SPARSE)
    assert keep(SPARSE) == sha256
    other = keep(b"other")
    assert blobs.all() == sorted([sha256, other])
    blobs.remove(sha256)
    blobs.remove(sha256)
    assert blobs.all() == [other]
    assert blobs.size(sha256) is None
    for look in (blobs.open, blobs.extents):
        with pytest.raises(NotFound):
            look(sha256)
    assert keep(SPARSE) == sha256
    assert blobs.size(sha256) == len(SPARSE)


@pytest.mark.parametrize("name", ["", "../etc/passwd", "A" * 64, "a" * 63])
def test_what_is_no_sha256_is_neither_kept_nor_found(blobs, keep, name):
    if name:
        with pytest.raises(InvalidRequest):
            keep(b"x", name)
    assert blobs.size(name) is None
    with pytest.raises(NotFound):
        blobs.open(name)
    blobs.remove(name)


def test_several_may_keep_the_same_at_a_time(blobs, tmp_path):
    sha256, failed = hashlib.sha256(SPARSE).hexdigest(), []

    def adopt(number: int) -> None:
        path = tmp_path / f"same-{number}"
        path.write_bytes(SPARSE)
        try:
            blobs.adopt(path, sha256)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=adopt, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with blobs.open(sha256) as stream:
        assert stream.read() == SPARSE


def test_a_place_that_works_says_nothing(blobs):
    blobs.check()


# ---------------------------------------------------------------- a bucket alone


@pytest.fixture
def bucket(bucket_server, tmp_path, monkeypatch) -> S3Blobs:
    return s3(bucket_server, tmp_path.name, monkeypatch)


@pytest.mark.parametrize("step", ["put_object", "upload_part", "complete_multipart_upload"])
def test_a_bucket_that_fails_in_the_middle_keeps_nothing_and_tells_no_secret(bucket, tmp_path, monkeypatch, step):
    from botocore.exceptions import ClientError

    data, path = os.urandom(20 * MIB), tmp_path / "file"
    sha256 = hashlib.sha256(data).hexdigest()
    path.write_bytes(data)

    def fail(**_):
        raise ClientError({"Error": {"Code": "SlowDown", "Message": "secret-that-is-told-nobody"}}, step)

    with monkeypatch.context() as patch:
        patch.setattr(bucket._client, step, fail)
        with pytest.raises(Unavailable, match="SlowDown") as told:
            bucket.adopt(path, sha256)
    assert "secret" not in f"{told.value.problem} {told.value.possible}"
    assert bucket.size(sha256) is None
    assert bucket.all() == []
    assert path.exists(), "so that it can be tried again"
    bucket.adopt(path, sha256)
    assert bucket.size(sha256) == len(data)


def test_parts_that_a_killed_process_left_are_let_go(bucket):
    key = bucket._key("a" * 64)
    bucket._client.create_multipart_upload(Bucket="images", Key=key)
    assert bucket._client.list_multipart_uploads(Bucket="images", Prefix=bucket._prefix)["Uploads"]
    bucket.check()
    assert bucket._client.list_multipart_uploads(Bucket="images", Prefix=bucket._prefix)["Uploads"], "a look ends none"
    bucket.sweep()
    assert "Uploads" not in bucket._client.list_multipart_uploads(Bucket="images", Prefix=bucket._prefix)


def test_a_bucket_that_is_not_there_or_closed_is_told_at_the_start(bucket_server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(Unavailable, match="the bucket nowhere could not be reached: 404"):
        S3Blobs.connect("nowhere", "", bucket_server, "eu-central-1").check()
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = me\naws_secret_access_key = secret\n")
    credentials.chmod(0o644)
    with pytest.raises(Unavailable, match="open to other users"):
        S3Blobs.connect("images", "", bucket_server, credentials=str(credentials))
    credentials.chmod(0o600)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = S3Blobs.connect("images", "", bucket_server, "eu-central-1", str(credentials))
    assert found._client._request_signer._credentials.access_key == "me"
