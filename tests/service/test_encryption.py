"""Encrypted images: made, taken in, copied, sent out; their keys sealed, and given to nobody but whose they are."""

from __future__ import annotations

import base64
import shutil
import stat
from dataclasses import replace

import pytest

from tests.service.conftest import ADMIN, ANN
from tests.service.disk_images import disk, qemu_img
from tests.service.encrypting import encrypted_once, made_once  # noqa: F401 - fixtures
from tests.service.test_exports import add, appliance, debian, exported, two_disks  # noqa: F401 - fixtures
from vws.core.deployment import WorkspaceFact, orders_for
from vws.core.errors import CommandRefused, Conflict, Forbidden, InvalidRequest, NotFound
from vws.core.lifecycle import Observation
from vws.core.manifest import digest, manifest
from vws.core.site import DocumentKind, Image, Role
from vws.core.terms import GroupRequest, LeaseRequest
from vws.core.wire import to_json
from vws.ports import Filter
from vws.service import conversion
from vws.service.access import Caller
from vws.service.image_check import examine

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


@pytest.fixture
def store(sqlite_store):
    """One is enough: what is in it is looked at here, not how it is kept (tests/contract/test_store.py)."""
    return sqlite_store


def encrypted(rig, source, name="sealed", caller=ADMIN, **more) -> Image:
    made = rig.services.images.encrypt(caller, source.id, name, **more)
    assert isinstance(made, Image)
    return made


def disk_of(rig, image):
    return next((rig.directory / "blobs").rglob(image.disk.sha256))


def opens(path, passphrase) -> bool:
    try:
        conversion.qemu_img("check", "qcow2", path, passphrase)
    except InvalidRequest:
        return False
    return True


def running(rig, image, count=1):
    """A lease of the image whose workspaces are ordered; (lease, a workspace of it)"""
    rig.enroll("alpha", "beta")
    group = GroupRequest(image.name, count, memory_mib=128, disk_mib=1000)
    lease = rig.leases.request(ANN, LeaseRequest((group,), 600))
    rig.services.reconciler._tick() if hasattr(rig.services.reconciler, "_tick") else rig.obey()
    return lease, next(iter(rig.site.present.members(lease.id)))


def node_of(workspace) -> Caller:
    return Caller(workspace.node, Role.NODE)


def events(rig, kind):
    return [event for event in rig.site.events(Filter(), after=0, limit=1000) if event.kind == kind]


def test_an_image_becomes_an_encrypted_one_with_the_same_content(rig, debian, tmp_path):  # noqa: F811
    rig.services.images.add_document(ADMIN, debian.id, DocumentKind.SBOM, "application/json", b'{"bill": 1}')
    made = encrypted(rig, debian, "debian:sealed")
    key = rig.services.keys.export(ADMIN, made.id)
    assert made.encrypted
    assert not debian.encrypted
    assert made.disk.encryption == "luks"
    assert b'"encryption":"luks"' in manifest(made)
    assert b"encryption" not in manifest(debian), "what was signed before stays signed"
    assert digest(made) != digest(replace(made, files=(replace(made.disk, encryption=""),)))
    assert made.disk_mib_min == debian.disk_mib_min
    assert [document.content for document in rig.store.documents(made.id)] == [b'{"bill": 1}']
    assert opens(disk_of(rig, made), key)
    assert not opens(disk_of(rig, made), "another")
    content = tmp_path / "debian.raw"
    qemu_img("convert", "-f", "qcow2", "-O", "raw", tmp_path / "debian.qcow2", content)
    piece = next(block for at in range(0, 1 << 30, 512) if (block := content.read_bytes()[at : at + 512]).strip(b"\0"))
    assert piece not in disk_of(rig, made).read_bytes()
    assert not list((rig.directory / "uploads").iterdir())
    with pytest.raises(Conflict, match="encrypted already"):
        encrypted(rig, made, "twice")


def test_an_appliance_keeps_its_kernel_and_one_without_a_disk_is_refused(rig, appliance, tmp_path):  # noqa: F811
    made = encrypted(rig, appliance)
    assert {file.role: bool(file.encryption) for file in made.files} == {"kernel": False, "initrd": False, "disk": True}
    rig.services.images.remove(ADMIN, appliance.id)
    assert all(rig.services.images.files.blobs.size(file.sha256) for file in made.files)
    bare = rig.site.change(
        "site", lambda draft: draft.put_image(replace(made, id="img-0", sha256="0", files=made.files[1:]))
    )
    assert bare.disk is None
    with pytest.raises(Conflict, match="no disk"):
        encrypted(rig, bare, "none")


def test_what_further_disks_bring_is_encrypted_too(rig, two_disks):  # noqa: F811
    made = encrypted(rig, two_disks)
    assert made.beside == two_disks.beside
    sealed = {file.role: file for file in made.files if file.encryption}
    assert set(sealed) == {"disk", "data-words"}
    key = rig.services.keys.export(ADMIN, made.id)
    for file in sealed.values():
        assert opens(next((rig.directory / "blobs").rglob(file.sha256)), key)
    _, workspace = running(rig, made)
    given = rig.services.keys.hand_out(node_of(workspace), workspace.node, workspace.id)
    assert {each.sha256 for each in given.files} == {file.sha256 for file in sealed.values()}


def test_the_disk_of_an_encrypted_appliance_brought_alone_is_another_image(rig, appliance):  # noqa: F811
    made = encrypted(rig, appliance)
    temporary = rig.services.images.begin()
    shutil.copyfile(disk_of(rig, made), temporary)
    key = rig.services.keys.export(ADMIN, made.id)
    alone = rig.services.images.add(Caller(made.owner, Role.ADMIN), temporary, "alone", passphrase=key)
    assert (alone.disk.sha256, alone.boot, len(alone.files)) == (made.disk.sha256, "disk", 1)
    assert alone.id != made.id


def test_what_comes_in_is_encrypted_before_it_is_kept(rig, tmp_path):
    source = disk(tmp_path / "plain.qcow2", "qcow2")
    temporary = rig.services.images.begin()
    shutil.copyfile(source, temporary)
    made = rig.services.images.add(ANN, temporary, "mine", encrypt=True)
    assert made.encrypted
    assert made.sha256 == made.disk.sha256, "the plain file's sha256 would tell what is in it"
    assert [path.name for path in (rig.directory / "blobs").rglob("*") if path.is_file()] == [made.disk.sha256]
    assert not list((rig.directory / "uploads").iterdir())
    plain = add(rig, source, "plain", ANN)
    assert plain.id != made.id


def test_an_encrypted_file_is_taken_with_the_passphrase_that_opens_it(rig, debian, tmp_path):  # noqa: F811
    out = tmp_path / "out.qcow2"
    assert "key" in exported(rig, encrypted(rig, debian, "first"), "qcow2", out).left_out
    key = rig.services.keys.export(ADMIN, "first")

    def take(passphrase, source=out):
        temporary = rig.services.images.begin()
        shutil.copyfile(source, temporary)
        return rig.services.images.add(ANN, temporary, "again", passphrase=passphrase)

    with pytest.raises(InvalidRequest, match="this qcow2 image is encrypted"):
        take(None)
    with pytest.raises(InvalidRequest, match="does not open") as wrong:
        take("a wrong passphrase")
    assert "a wrong passphrase" not in str(vars(wrong.value))
    with pytest.raises(InvalidRequest, match="not encrypted"):
        take(key, tmp_path / "debian.qcow2")
    again = take(key)
    assert again.encrypted
    assert again.disk.sha256 == rig.services.images.image(ADMIN, "first").disk.sha256
    assert rig.services.keys.export(ANN, "again") == key


@pytest.mark.parametrize("kind", ["bundle", "oci"])
def test_an_appliance_goes_out_and_comes_in_encrypted(rig, appliance, tmp_path, kind):  # noqa: F811
    made = encrypted(rig, appliance)
    key = rig.services.keys.export(ADMIN, made.id)
    out = tmp_path / "out"
    assert "key" in exported(rig, made, kind, out).left_out
    assert key.encode() not in out.read_bytes()
    found = examine(out, tmp_path / "parts", passphrase=key)
    assert sorted(file.encryption for file, _ in found.files) == ["", "", "luks"]
    with pytest.raises(InvalidRequest, match="goes out as it is kept"):
        rig.services.exports.export(ADMIN, made.id, "raw")


def test_keys_are_sealed_and_the_store_alone_opens_nothing(rig, debian):  # noqa: F811
    made = encrypted(rig, debian)
    key = rig.services.keys.export(ADMIN, made.id)
    secret = rig.directory / "secrets" / "image-key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    (row,) = rig.store.keys(made.id)
    assert key not in row.sealed
    assert key.encode() not in base64.urlsafe_b64decode(row.sealed.rpartition(".")[2])
    other = encrypted(rig, debian, "other")
    ring = rig.services.images._ring
    with pytest.raises(Conflict, match="altered"):
        ring._site_key.open(row.sealed, f"{other.id} {row.file}")
    kept = secret.read_bytes()
    secret.write_bytes(base64.b64encode(bytes(32)))
    with pytest.raises(Conflict, match="cannot be opened"):
        rig.services.keys.export(ADMIN, made.id)
    secret.unlink()
    rig.restart()
    with pytest.raises(Conflict, match=r"missing .*image-key"):
        rig.services.keys.export(ADMIN, made.id)
    with pytest.raises(Conflict, match="missing"):
        encrypted(rig, debian, "third")
    assert not secret.exists(), "no new one hides that the old one is missed"
    secret.write_bytes(kept)
    assert rig.services.keys.export(ADMIN, made.id) == key


def test_a_key_is_for_the_owner_and_goes_with_a_copy(rig, debian):  # noqa: F811
    made = encrypted(rig, debian, shared=["public"])
    with pytest.raises(Forbidden, match="owner"):
        rig.services.keys.export(ANN, made.id)
    with pytest.raises(Conflict, match="not encrypted"):
        rig.services.keys.export(ADMIN, debian.id)
    mine = rig.services.images.copy(ANN, made.id, "mine")
    assert rig.services.keys.export(ANN, mine.id) == rig.services.keys.export(ADMIN, made.id)
    rig.services.images.remove(ADMIN, made.id)
    rig.services.keys.tidy()
    assert rig.store.keys(made.id) == ()
    assert len(rig.store.keys(mine.id)) == 1
    assert len(events(rig, "image.key-exported")) == 2


def test_a_node_gets_the_keys_of_what_it_is_to_run_and_of_nothing_else(rig, debian):  # noqa: F811
    made = encrypted(rig, debian, shared=["public"])
    image_key = rig.services.keys.export(ADMIN, made.id)
    lease, workspace = running(rig, made)
    mine = node_of(workspace)
    other = next(node for node in rig.site.present.nodes if node != workspace.node)
    given = rig.services.keys.hand_out(mine, workspace.node, workspace.id)
    assert given.of(made.disk) == image_key
    assert given.own not in (image_key, "")
    assert image_key not in repr(given)
    assert given.own not in repr(given)
    assert rig.services.keys.hand_out(mine, workspace.node, workspace.id) == given, "asked again, it is the same"
    for caller, node in ((Caller(other, Role.NODE), other), (Caller(other, Role.NODE), workspace.node)):
        with pytest.raises(NotFound):
            rig.services.keys.hand_out(caller, node, workspace.id)
    with pytest.raises(Forbidden):
        rig.services.keys.hand_out(ADMIN, workspace.node, workspace.id)
    told = events(rig, "image.key-given")
    assert [(e.lease, e.node, e.workspace, e.image, e.owner) for e in told] == [
        (lease.id, workspace.node, workspace.id, made.id, "ann")
    ] * 2
    present = rig.site.present
    node = present.nodes[workspace.node]
    orders = orders_for(node, present.on_node(node.id), present.leases, present.images, now=0)
    said = str(to_json(orders)) + str([e.data for e in rig.site.events(Filter(), after=0, limit=1000)])
    assert orders.workspaces[0].encrypted
    assert image_key not in said
    assert given.own not in said


def test_a_revoked_image_is_opened_to_nobody_and_a_workspace_s_key_ends_with_it(rig, debian):  # noqa: F811
    made = encrypted(rig, debian, shared=["public"])
    lease, workspace = running(rig, made)
    mine = node_of(workspace)
    own = rig.services.keys.hand_out(mine, workspace.node, workspace.id).own
    rig.services.trust.revoke_image(ADMIN, made.id, reason="it leaks")
    given = rig.services.keys.hand_out(mine, workspace.node, workspace.id)
    assert (given.own, given.files) == (own, ()), "it may be suspended, and boots no more"
    assert rig.store.keys(workspace.id)
    rig.leases.cancel(ANN, lease.id)
    with pytest.raises(NotFound):
        rig.services.keys.hand_out(mine, workspace.node, workspace.id)
    rig.obey()
    rig.services.keys.tidy()
    assert rig.store.keys(workspace.id) == ()


def test_an_encrypted_workspace_is_not_saved_in_the_clear(rig, debian):  # noqa: F811
    made = encrypted(rig, debian, shared=["public"])
    _, workspace = running(rig, made)
    rig.report(workspace.node, WorkspaceFact(workspace.id, Observation.RUNNING, boots=1))
    with pytest.raises(Conflict, match="is encrypted") as refused:
        rig.services.saves.ask(ANN, workspace.id, "mine", at_end=False, clean=True)
    assert not isinstance(refused.value, CommandRefused)
    assert refused.value.possible
