"""Files are kept for the images on record and for nothing else, whatever an upload came to."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import threading

import pytest

from tests.service.conftest import ANN, BOB
from tests.service.test_image_check import FILES, bundle
from vws.core.errors import ClientTokenReused, InvalidRequest, NameTaken, Unavailable
from vws.core.site import Answer
from vws.service import tar_stream
from vws.service.once import Once

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


def disk(filling: bytes = b"\0") -> bytes:
    """A raw disk with a boot sector."""
    return filling * 510 + b"\x55\xaa" + filling * 4096


def upload(rig, data: bytes, name: str, once: Once | None = None, caller=ANN, **more):
    temporary = rig.services.images.begin()
    temporary.write_bytes(data)
    return rig.services.images.add(caller, temporary, name, once, **more)


def asked(token: str, fingerprint: str = "first") -> Once:
    return Once(token, fingerprint, 201, lambda image: json.dumps(image.name))


def kept(rig) -> set[str]:
    return set(rig.services.images.files.blobs.all())


def sha256s(*contents: bytes) -> set[str]:
    return {hashlib.sha256(content).hexdigest() for content in contents}


def test_a_refused_name_leaves_nothing(rig):
    upload(rig, disk(), "small")
    with pytest.raises(NameTaken):
        upload(rig, disk(b"x"), "small:2", caller=BOB)
    assert kept(rig) == sha256s(disk())


def test_what_is_sure_to_be_refused_is_refused_before_the_file_is_sent(rig):
    upload(rig, disk(), "small")
    rig.services.images.check_upload(ANN, "small:2", 1 << 40)
    with pytest.raises(NameTaken):
        rig.services.images.check_upload(BOB, "small:2", 1)
    with pytest.raises(InvalidRequest, match="VO"):
        rig.services.images.check_upload(ANN, "small", 1, ["cms"])


def test_a_client_token_used_before_leaves_nothing(rig):
    upload(rig, disk(), "small", asked("t"))
    with pytest.raises(ClientTokenReused):
        upload(rig, disk(b"x"), "other", asked("t", "second"))
    assert kept(rig) == sha256s(disk())


def test_an_answer_given_before_brings_no_removed_image_back(rig):
    image = upload(rig, disk(), "small", asked("t"))
    assert isinstance(upload(rig, disk(), "small", asked("t")), Answer)
    assert kept(rig) == sha256s(disk())
    rig.services.images.remove(ANN, image.id)
    assert isinstance(upload(rig, disk(), "small", asked("t")), Answer)
    assert kept(rig) == set()


def test_a_refusal_leaves_the_files_that_another_image_has(rig, tmp_path):
    upload(rig, bundle(tmp_path / "one", FILES).read_bytes(), "one")
    other = FILES | {"initrd": b"another initrd"}
    with pytest.raises(NameTaken):
        upload(rig, bundle(tmp_path / "two", other).read_bytes(), "one", caller=BOB)
    assert kept(rig) == sha256s(*FILES.values())


def test_a_full_disk_while_unpacking_is_told_and_leaves_nothing(rig, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tar_stream.shutil, "copyfileobj", full)
    data = bundle(tmp_path / "bundle", FILES).read_bytes()
    with pytest.raises(Unavailable, match="No space left on device"):
        upload(rig, data, "small")
    assert kept(rig) == set()
    assert list(rig.services.images._uploads.iterdir()) == []


def test_a_commit_that_failed_leaves_nothing(rig, monkeypatch):
    def commit(changes, *, expected):
        raise Unavailable("the disk is full")

    monkeypatch.setattr(rig.store, "commit", commit)
    with pytest.raises(Unavailable):
        upload(rig, disk(), "small")
    assert kept(rig) == set()


def test_a_commit_whose_answer_was_lost_keeps_its_files(rig, monkeypatch):
    commit = rig.store.commit

    def commit_unheard(changes, *, expected):
        commit(changes, expected=expected)
        raise Unavailable("the connection broke")

    monkeypatch.setattr(rig.store, "commit", commit_unheard)
    with pytest.raises(Unavailable):
        upload(rig, disk(), "small")
    monkeypatch.undo()
    assert rig.services.images.image(ANN, "small").sha256 == hashlib.sha256(disk()).hexdigest()
    assert kept(rig) == sha256s(disk())


def test_while_the_record_cannot_be_read_nothing_is_removed(rig, monkeypatch):
    def silent(*_, **__):
        raise Unavailable("the store is away")

    monkeypatch.setattr(rig.store, "commit", silent)
    monkeypatch.setattr(rig.store, "revision", silent)
    with pytest.raises(Unavailable):
        upload(rig, disk(), "small")
    assert kept(rig) == sha256s(disk())
    monkeypatch.undo()
    rig.services.images.sweep()
    assert kept(rig) == set()


@pytest.mark.parametrize("sweep", ["remove", "sweep"])
def test_no_sweep_takes_a_file_between_its_adoption_and_its_commit(rig, monkeypatch, sweep):
    images = rig.services.images
    upload(rig, disk(), "first")
    adopted, swept = threading.Event(), threading.Event()
    adopt = images.files.blobs.adopt

    def adopt_slowly(temporary, sha256):
        adopt(temporary, sha256)
        adopted.set()
        swept.wait(0.5)  # as long as a sweep that does not wait would need

    def do_sweep():
        assert adopted.wait(5)
        images.remove(ANN, "first")
        if sweep == "sweep":
            images.sweep()
        swept.set()

    monkeypatch.setattr(images.files.blobs, "adopt", adopt_slowly)
    sweeper = threading.Thread(target=do_sweep)
    sweeper.start()
    upload(rig, disk(), "second")
    sweeper.join(5)
    assert swept.is_set()
    assert images.image(ANN, "second").files[0].sha256 in kept(rig)
