"""Files by their sha256: whole or absent, never changed, and never outside of the folder."""

from __future__ import annotations

import errno
import hashlib
import os
import stat

import pytest

from vws.core.errors import InvalidRequest, Unavailable
from vws.store.blobs import FileBlobs


@pytest.fixture
def blobs(tmp_path):
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture
def upload(tmp_path):
    """Make a complete temporary file; returns it and its sha256."""

    def make(data=b"kernel", name="upl-1"):
        path = tmp_path / name
        path.write_bytes(data)
        return path, hashlib.sha256(data).hexdigest()

    return make


def test_a_file_is_found_by_its_sha256(blobs, upload, tmp_path):
    path, sha256 = upload(b"kernel")
    assert blobs.path(sha256) is None
    blobs.adopt(path, sha256)
    kept = blobs.path(sha256)
    assert kept == tmp_path / "blobs" / sha256[:2] / sha256
    assert kept.read_bytes() == b"kernel"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o444
    assert not path.exists()


def test_adopting_the_same_again_is_harmless(blobs, upload):
    for name in ("upl-1", "upl-2"):
        path, sha256 = upload(name=name)
        blobs.adopt(path, sha256)
        assert not path.exists()
    # As after a kill between the rename and what follows it: the temporary file has gone already.
    blobs.adopt(path, sha256)
    assert blobs.path(sha256).read_bytes() == b"kernel"


def test_all_and_remove(blobs, upload, tmp_path):
    kept = []
    for number in range(3):
        path, sha256 = upload(bytes([number]), f"upl-{number}")
        blobs.adopt(path, sha256)
        kept.append(sha256)
    (tmp_path / "blobs" / kept[0][:2] / "notes.txt").write_text("not a blob")
    assert blobs.all() == sorted(kept)
    blobs.remove(kept[1])
    blobs.remove(kept[1])
    assert blobs.all() == sorted({kept[0], kept[2]})
    assert FileBlobs(tmp_path / "blobs").path(kept[2]).read_bytes() == b"\2"


@pytest.mark.parametrize(
    "name",
    ["", "..", "../upl-1", "/etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "a" * 63 + "/", "\0" * 64],
)
def test_a_name_that_is_no_sha256_reaches_no_file(blobs, upload, name):
    path, _ = upload()
    assert blobs.path(name) is None
    blobs.remove(name)
    with pytest.raises(InvalidRequest, match="not a sha256"):
        blobs.adopt(path, name)
    assert path.read_bytes() == b"kernel"
    assert blobs.all() == []


def test_the_bytes_are_on_the_disk_before_the_name_is(blobs, upload, monkeypatch):
    path, sha256 = upload()
    synced = []
    sync = os.fsync

    def note(handle):
        where = os.readlink(f"/proc/self/fd/{handle}")
        synced.append((where, blobs.path(sha256) is not None))
        sync(handle)

    monkeypatch.setattr(os, "fsync", note)
    blobs.adopt(path, sha256)
    root = str(blobs.path(sha256).parents[1])
    assert synced == [(str(path), False), (f"{root}/{sha256[:2]}", True), (root, True)]


@pytest.mark.parametrize(("number", "hint"), [(errno.ENOSPC, "full disk"), (errno.EXDEV, "same file system")])
def test_a_disk_that_refuses_leaves_no_half_file(blobs, upload, monkeypatch, number, hint):
    path, sha256 = upload()

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    with pytest.raises(Unavailable, match="nothing was changed") as refused:
        blobs.adopt(path, sha256)
    assert hint in refused.value.possible
    assert blobs.path(sha256) is None
    assert blobs.all() == []
