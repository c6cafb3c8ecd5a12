"""Names that move, who may use what, and images that go only when nothing needs them any more."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from tests.core.attesting import attestation
from tests.service.conftest import ADMIN, ANN, BOB, Rig
from tests.service.test_images import disk, kept, sha256s, upload
from vws.core.chosen import Chosen
from vws.core.errors import Conflict, Forbidden, InUse, InvalidRequest, LimitReached, NameTaken, NotFound
from vws.core.image_quota import ImageRules
from vws.core.manifest import digest
from vws.core.membership import VO, Membership, User
from vws.core.site import DocumentKind, Image
from vws.core.terms import GroupRequest, LeaseRequest, When
from vws.ports import Filter
from vws.service.site import Settings

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


@pytest.fixture
def rig(store, tmp_path):
    """bob is of the VO cms; ann may keep a megabyte."""
    members = Membership({"cms": VO(users=("bob",))}, users={"ann": User(image_quota_mib=1)})
    return Rig(store, tmp_path, Settings(chosen=Chosen(membership=members)))


def names(rig, caller) -> set[str]:
    return {image.name for image in rig.services.images.images(caller, Filter(live=True), after=None, limit=10).items}


def lease(rig, image: str, caller=ANN, **terms):
    return rig.leases.request(
        caller, LeaseRequest((GroupRequest(image, 1, memory_mib=128, disk_mib=100),), 600, **terms)
    )


def test_a_tag_that_there_is_not_is_told_with_those_that_there_are(rig):
    images = rig.services.images
    upload(rig, disk(), "site:1")
    upload(rig, disk(b"x"), "site:2")
    for asked in (lambda: images.image(ANN, "site:3"), lambda: images.share(ADMIN, "site:3", ())):
        with pytest.raises(NotFound, match="there is no image 'site:3', though there is a site") as refused:
            asked()
        assert refused.value.possible == "site:1, site:2"
    images.share(ADMIN, "site:1", ("public",))
    images.share(ADMIN, "site:2", ())
    with pytest.raises(NotFound) as refused:
        images.image(BOB, "site:3")
    assert refused.value.possible == "site:1", "of what is not his nothing is told"
    with pytest.raises(NotFound) as refused:
        images.image(ANN, "other")
    assert refused.value.possible == "vws image list shows yours"


def test_pushing_other_bytes_moves_the_tag_and_what_was_granted_stays(rig):
    images = rig.services.images
    rig.enroll("n1")
    first = upload(rig, disk(), "site:1")
    granted = lease(rig, "site:1")
    second = upload(rig, disk(b"x"), "site:1")
    assert images.image(ANN, "site:1").id == second.id
    assert granted.groups[0].image == first.id
    assert images.image(ANN, first.id).id == first.id
    history = [(row.image, row.removed_at is None) for row in past(rig, "site:1")]
    assert history == [(second.id, True), (first.id, False)]


def past(rig, name, caller=ANN, limit=100):
    """All of a name's history, page by page."""
    found, after = [], None
    while True:
        page = rig.services.images.history(caller, name, after=after, limit=limit)
        found += page.items
        after = page.next
        if after is None:
            return found


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_a_long_history_is_told_in_pages_the_newest_first_of_what_one_may_use(rig, limit):
    images = rig.services.images
    mine = upload(rig, disk(), "site:1")
    shared = upload(rig, disk(b"x"), "other", shared=["public"])
    for _ in range(3):
        for image in (shared, mine):
            images.tag(ANN, image.id, "site:1")
            images.tag(ANN, image.id, "site:2")
    assert [row.image for row in past(rig, "site:1", limit=limit)] == [mine.id, shared.id] * 3 + [mine.id]
    assert len(past(rig, "site", limit=limit)) == 13
    assert [row.image for row in past(rig, "site:1", BOB, limit)] == [shared.id] * 3
    assert past(rig, "site:1", limit=limit)[0].removed_at is None
    images.remove(ANN, mine.id)
    assert len(past(rig, "site:1", limit=limit)) == 7, "of what was removed, too"
    for never in ("none", "site:none"):
        with pytest.raises(NotFound, match="ever called"):
            past(rig, never)


def test_the_same_bytes_are_the_same_image_whatever_it_is_called(rig):
    images = rig.services.images
    first = upload(rig, disk(), "site")
    assert upload(rig, disk(), "site:stable").id == first.id
    for name in (
        "site",
        "site:latest",
        "site:stable",
        first.id,
        f"sha256:{digest(first)}",
        f"sha256:{digest(first)[:12]}",
    ):
        assert images.image(ANN, name).id == first.id
    other = upload(rig, disk(), "bobs", caller=BOB)
    assert other.id != first.id
    assert images.image(BOB, f"sha256:{digest(first)}").id == other.id
    assert kept(rig) == sha256s(disk())


def test_a_private_image_is_seen_and_used_by_nobody_else(rig):
    images = rig.services.images
    rig.enroll("n1")
    upload(rig, disk(), "mine")
    assert names(rig, BOB) == {"demo"}
    assert names(rig, ANN) == names(rig, ADMIN) == {"demo", "mine"}
    for act in (images.image, images.documents, lambda c, i: lease(rig, i, c), lambda c, i: images.copy(c, i, "copy")):
        with pytest.raises(Forbidden, match="not shared with bob"):
            act(BOB, "mine")
    with pytest.raises(Forbidden, match="private"):
        images.image(BOB, f"sha256:{digest(images.image(ANN, 'mine'))}")
    images.share(ANN, "mine", ["cms"])
    assert names(rig, BOB) == {"demo", "mine"}
    assert lease(rig, "mine", BOB).groups[0].image == images.image(ANN, "mine").id
    with pytest.raises(Forbidden):
        images.share(BOB, "mine", ["public"])
    with pytest.raises(InvalidRequest, match="no VO 'atlas'"):
        images.share(ANN, "mine", ["atlas"])
    images.share(ANN, "mine", [])
    assert names(rig, BOB) == {"demo"}


def test_what_an_administrator_brings_is_for_all_unless_he_says_otherwise(rig):
    assert upload(rig, disk(), "a", caller=ADMIN).shared == ("public",)
    assert upload(rig, disk(b"x"), "b", caller=ADMIN, shared=["cms"]).shared == ("cms",)
    assert upload(rig, disk(b"y"), "c", caller=ADMIN, shared=[""]).shared == ()
    assert upload(rig, disk(b"z"), "d").shared == ()


def test_a_name_belongs_to_who_pushed_it_first_until_all_its_tags_are_gone(rig):
    images = rig.services.images
    upload(rig, disk(), "site")
    upload(rig, disk(b"x"), "bobs", caller=BOB)
    with pytest.raises(NameTaken, match="belongs to another user"):
        images.tag(BOB, "bobs", "site:2")
    with pytest.raises(Forbidden):
        images.untag(BOB, "site")
    images.untag(ANN, "site")
    assert images.tag(BOB, "bobs", "site:2").name == "bobs"
    assert images.image(BOB, "site:2").owner == "bob"
    with pytest.raises(NotFound):
        images.image(ANN, "site")


@pytest.mark.parametrize("when", [When.IMMEDIATE, When.RESERVATION])
def test_an_image_that_a_lease_needs_is_retired_and_goes_with_its_end(rig, when):
    images = rig.services.images
    rig.enroll("n1")
    image = upload(rig, disk(), "site")
    start = int(rig.clock.time) + 1000 if when is When.RESERVATION else None
    granted = lease(rig, "site", when=when, start=start)
    with pytest.raises(InUse, match=granted.name):
        images.remove(ANN, "site", now=True)
    assert images.remove(ANN, "site").retired_at == rig.clock.time
    with pytest.raises(Conflict, match="being removed"):
        lease(rig, image.id)
    images.tidy()
    assert images.image(ANN, image.id).removed_at is None
    assert kept(rig) == sha256s(disk())
    rig.leases.cancel(ANN, granted.id)
    rig.obey()
    images.tidy()
    assert images.image(ANN, image.id).removed_at == rig.clock.time
    assert kept(rig) == set()


def test_the_base_of_a_delta_stays_as_long_as_the_delta(rig):
    images = rig.services.images
    base = upload(rig, disk(), "base")
    delta = upload(rig, disk(b"x"), "delta")
    rig.site.change("ann", lambda draft: draft.put_image(replace(delta, base=base.id)))
    with pytest.raises(InUse, match="delta"):
        images.remove(ANN, "base", now=True)
    images.untag(ANN, "base")
    rig.clock.time += 10 * 365 * 86400
    assert images.collect(ADMIN) == ([], [])
    images.remove(ANN, base.id)
    images.tidy()
    assert images.image(ANN, base.id).removed_at is None
    images.remove(ANN, "delta")
    images.tidy()
    assert kept(rig) == set()


def test_what_is_collected_is_what_nothing_points_at(rig, tmp_path):
    images = rig.services.images
    rig.enroll("n1")
    planned, idle, young = (upload(rig, disk(bytes([n])), "site") for n in (1, 2, 3))
    lease(rig, planned.id, when=When.RESERVATION, start=int(rig.clock.time) + 40 * 86400)
    images.untag(ANN, "site")
    rig.clock.time += 31 * 86400
    rig.site.change("ann", lambda draft: draft.put_image(replace(young, created_at=draft.now)))
    (tmp_path / "stray").write_bytes(b"stray")
    stray = sha256s(b"stray").pop()
    images.files.blobs.adopt(tmp_path / "stray", stray)
    with pytest.raises(Forbidden):
        images.collect(ANN)
    going = sorted([stray, idle.files[0].sha256])
    would, files = images.collect(ADMIN, dry_run=True)
    assert ([image.id for image in would], files) == ([idle.id], going)
    assert stray in kept(rig)
    gone, files = images.collect(ADMIN)
    assert ([image.id for image in gone], sorted(files)) == ([idle.id], going)
    assert kept(rig) == {planned.files[0].sha256, young.files[0].sha256}


def test_what_lies_under_a_planned_leases_image_is_never_collected(rig):
    """A saved image: a delta, with the disks under it among its files, and its base on record."""
    images = rig.services.images
    rig.enroll("n1")
    base, saved = upload(rig, disk(), "base"), upload(rig, disk(b"x"), "saved")
    under = replace(base.files[0], role="base")
    files = (replace(saved.files[0], base=under.sha256), under)
    rig.site.change("ann", lambda draft: draft.put_image(replace(saved, base=base.id, files=files)))
    planned = lease(rig, "saved", when=When.RESERVATION, start=int(rig.clock.time) + 90 * 86400)
    for name in ("base", "saved"):
        images.untag(ANN, name)
    rig.clock.time += 60 * 86400
    assert images.collect(ADMIN) == ([], [])
    assert images.remove(ANN, base.id).removed_at is None, "retired, and there while it is needed"
    images.tidy()
    images.sweep()
    assert kept(rig) == {file.sha256 for file in files}
    rig.leases.cancel(ANN, planned.id)
    gone, dropped = images.collect(ADMIN)
    assert [image.id for image in gone] == [saved.id]
    images.tidy()
    assert kept(rig) == set()
    assert dropped


def test_a_flipped_bit_is_found_and_nothing_new_is_granted_until_it_is_mended(rig):
    images = rig.services.images
    rig.enroll("n1")
    image = upload(rig, disk(), "site")
    assert images.verify(ANN, "site").damaged == ""
    path = images.files.blobs.path(image.files[0].sha256)
    path.chmod(0o644)
    path.write_bytes(disk()[:-1] + b"\1")
    assert "disk" in images.verify(ANN, "site").damaged
    with pytest.raises(Conflict, match="damaged: its disk"):
        lease(rig, "site")
    assert upload(rig, disk(), "site").id == image.id
    assert images.image(ANN, "site").damaged == ""
    assert lease(rig, "site").groups[0].image == image.id
    path.unlink()
    assert "missing" in images.verify(ANN, "site").damaged


def test_a_quota_counts_what_is_a_users_first(rig):
    images = rig.services.images
    large = disk() + b"\0" * (600 << 10)
    upload(rig, large, "one")
    with pytest.raises(LimitReached, match="1 MiB"):
        upload(rig, large + b"\0" * 512, "two")
    upload(rig, large + b"\1" * 512, "bobs", caller=BOB, shared=["public"])
    assert upload(rig, large + b"\1" * 512, "three").owner == "ann"
    with pytest.raises(LimitReached):
        images.check_upload(ANN, "four", 2 << 20)
    images.remove(ANN, "one")
    upload(rig, large + b"\0" * 512, "two")


def test_a_sites_quota_is_for_each_user(store, tmp_path):
    rig = Rig(store, tmp_path, Settings(images=ImageRules(quota_mib=0)))
    with pytest.raises(LimitReached):
        upload(rig, disk(), "one")


def test_a_copy_is_ones_own_and_stays(rig):
    images = rig.services.images
    image = upload(rig, disk(), "site", shared=["cms"])
    images.add_document(ANN, "site", DocumentKind.SBOM, "application/json", b"{}")
    copy = images.copy(BOB, "site", "mine:1")
    assert (copy.owner, copy.files, digest(copy)) == ("bob", image.files, digest(image))
    assert [d.content for d in images.documents(BOB, "mine:1")] == [b"{}"]
    with pytest.raises(Conflict, match="mine:1 is yours already") as refused:
        images.copy(BOB, copy.id, "another")
    assert refused.value.possible.endswith("vws image tag mine:1 another")
    assert rig.site.present.tagged("another", "latest") is None
    with pytest.raises(Forbidden, match="the image site belongs to another user"):
        images.remove(BOB, image.id)
    images.remove(ANN, "site")
    assert kept(rig) == sha256s(disk())
    assert isinstance(images.image(BOB, "mine:1"), Image)


def test_documents_are_kept_as_they_came_once(rig):
    images = rig.services.images
    upload(rig, disk(), "site", shared=["cms"])
    first = images.add_document(ANN, "site", DocumentKind.SBOM, "application/vnd.cyclonedx+json", b"\0\xff{}")
    assert images.add_document(ANN, "site", DocumentKind.SBOM, "application/json", b"\0\xff{}") == first
    with pytest.raises(Forbidden):
        images.add_document(BOB, "site", DocumentKind.PROVENANCE, "application/json", b"{}")
    vouching = attestation(images.image(ANN, "site"))
    attested = images.add_document(BOB, "site", DocumentKind.ATTESTATION, "application/json", vouching)
    assert images.documents(BOB, "site") == (first, attested)
    assert (attested.by, first.content) == ("bob", b"\0\xff{}")
    for media_type, content in (("", b"x"), ("a\n", b"x"), ("a/b", b""), ("a/b", b"x" * (33 << 20))):
        with pytest.raises(InvalidRequest):
            images.add_document(ANN, "site", DocumentKind.SBOM, media_type, content)
