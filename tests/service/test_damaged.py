"""A file that was altered where it is kept goes no further: nothing is made of it, and nobody gets all of it."""

from __future__ import annotations

import shutil

import pytest

from tests.service.conftest import ADMIN, ANN, BOB
from tests.service.encrypting import encrypted_once, made_once  # noqa: F401 - fixtures
from tests.service.test_exports import add, appliance, debian, exported, with_delta  # noqa: F401 - fixtures
from vws.core.errors import Conflict
from vws.core.saves import saved_image
from vws.core.site import Image, Save

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


@pytest.fixture
def store(sqlite_store):
    """One is enough: what is looked at here is files."""
    return sqlite_store


def alter(rig, file) -> None:
    """One byte of it, as a bad disk would."""
    path = rig.services.images.files.blobs.path(file.sha256)
    path.chmod(0o644)
    with path.open("r+b") as kept:
        kept.seek(path.stat().st_size // 2)
        byte = kept.read(1)
        kept.seek(-1, 1)
        kept.write(bytes([byte[0] ^ 1]))


def encrypt(rig, image, tmp_path):
    return rig.services.images.encrypt(ADMIN, image.id, "sealed")


def flatten(rig, image, tmp_path):
    delta = rig.site.present.images.get("img-delta") or with_delta(rig, image, tmp_path)
    return rig.services.flattening.copy(ADMIN, delta.id, "flat")


def export(kind):
    def go(rig, image, tmp_path):
        exported(rig, image, kind, tmp_path / "out")

    return go


MAKING = {"encrypt": encrypt, "flatten": flatten, "qcow2": export("qcow2"), "raw": export("raw"), "oci": export("oci")}


@pytest.mark.parametrize("how", MAKING)
def test_nothing_is_made_of_what_is_damaged(rig, debian, tmp_path, how):  # noqa: F811
    images = rig.services.images
    alter(rig, debian.disk)
    for _ in range(2):  # found by this, and known from then on
        with pytest.raises(Conflict, match=r"damaged: its (disk|base) .* was altered"):
            MAKING[how](rig, debian, tmp_path)
        assert "was altered" in images.image(ADMIN, debian.id).damaged, "it is on record, whoever found it"
    assert not [image for image in rig.site.present.images.values() if not image.damaged]
    assert not list((rig.directory / "uploads").iterdir())


def test_nor_of_one_whose_kernel_is(rig, appliance, tmp_path):  # noqa: F811
    alter(rig, next(file for file in appliance.files if file.role == "kernel"))
    with pytest.raises(Conflict, match="damaged: its kernel"):
        encrypt(rig, appliance, tmp_path)
    with pytest.raises(Conflict, match="damaged: its kernel"):
        export("bundle")(rig, appliance, tmp_path)


def test_what_was_sent_before_it_was_found_is_never_whole(rig, debian):  # noqa: F811
    made = rig.services.exports.export(ADMIN, debian.id, "qcow2")
    alter(rig, debian.disk)
    came = []
    with pytest.raises(Conflict):
        came.extend(made.read(0))
    assert sum(map(len, came)) < debian.disk.size_bytes
    with pytest.raises(Conflict):
        rig.services.exports.export(ADMIN, debian.id, "qcow2")


def test_the_end_alone_is_sent_of_a_whole_file_only(rig, debian, tmp_path):  # noqa: F811
    whole = (tmp_path / "debian.qcow2").read_bytes()
    for offset in (1, len(whole) // 2, len(whole) - 1):
        assert b"".join(rig.services.exports.export(ADMIN, debian.id, "qcow2").read(offset)) == whole[offset:]
    alter(rig, debian.disk)
    with pytest.raises(Conflict):
        b"".join(rig.services.exports.export(ADMIN, debian.id, "qcow2").read(len(whole) - 1))


def test_all_images_of_a_file_are_damaged_and_mended_with_it(rig, debian, tmp_path):  # noqa: F811
    images = rig.services.images
    copy = images.copy(ANN, debian.id, "anns")
    delta = with_delta(rig, debian, tmp_path)
    alter(rig, debian.disk)
    images.verify(ANN, copy.id)
    damaged = {image.id: image.damaged for image in rig.site.present.images.values() if image.damaged}
    assert set(damaged) == {debian.id, copy.id, delta.id}
    assert damaged[delta.id].startswith("its base")
    save = Save("sav-1", "", "", "ann", "", debian.id, "more", "latest", at_end=False, clean=True, asked_at=0)
    assert saved_image(images.image(ADMIN, debian.id), save, delta.disk).damaged, "and what is saved on it meanwhile"
    add(rig, tmp_path / "debian.qcow2", "bobs", BOB)
    assert not [image for image in rig.site.present.images.values() if image.damaged]
    assert isinstance(images.verify(ANN, copy.id), Image)
