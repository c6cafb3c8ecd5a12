"""Images made from others are revoked and withdrawn with them: copied, flattened, encrypted, saved, brought again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from tests.core.test_image_lists import LIST
from tests.service.conftest import ADMIN, ANN, BOB
from tests.service.disk_images import disk
from tests.service.encrypting import encrypted_once, made_once  # noqa: F401 - fixtures
from tests.service.test_exports import add, debian, exported, with_delta  # noqa: F401 - fixtures
from tests.service.test_image_lists import DN, ca, endorser, image_of, lists, publisher  # noqa: F401 - fixtures
from vws.core.deployment import orders_for
from vws.core.errors import NotFound
from vws.core.image_origin import made_from, told
from vws.core.image_policy import ImageRefused
from vws.core.manifest import digest
from vws.core.site import Disk, LeaseState, Origin, OriginKind, Role
from vws.core.terms import GroupRequest, LeaseRequest
from vws.frontends.rest.views import Views
from vws.ports import Filter
from vws.service.access import Caller

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


@pytest.fixture
def store(sqlite_store):
    """One is enough: how origins are kept is tests/contract/test_store.py's."""
    return sqlite_store


def named(caller):
    return f"{caller.subject}s"


def copied(rig, source, tmp_path, caller):
    return rig.services.images.copy(caller, source.id, named(caller))


def encrypted(rig, source, tmp_path, caller):
    return rig.services.images.encrypt(caller, source.id, named(caller))


def saved(rig, source, tmp_path, caller):
    delta = with_delta(rig, source, tmp_path)
    of = made_from(rig.site.present, source, OriginKind.SAVED)
    made = replace(delta, origins=of, owner=caller.subject)
    rig.site.change("site", lambda draft: draft.put_image(made))
    return made


def flattened(rig, source, tmp_path, caller):
    delta = saved(rig, source, tmp_path, caller)
    made = rig.services.flattening.copy(caller, delta.id, named(caller))
    rig.services.images.remove(caller, delta.id)
    return made


def brought_again(rig, source, tmp_path, caller):
    exported(rig, source, "qcow2", tmp_path / "out", caller)
    return add(rig, tmp_path / "out", named(caller), caller)


def brought_again_encrypted(rig, source, tmp_path, caller):
    exported(rig, source, "qcow2", tmp_path / "out", caller)
    temporary = rig.services.images.begin()
    shutil.copyfile(tmp_path / "out", temporary)
    return rig.services.images.add(caller, temporary, named(caller), encrypt=True)


def flattened_and_brought_again(rig, source, tmp_path, caller):
    flat = flattened(rig, source, tmp_path, ADMIN)
    exported(rig, flat, "qcow2", tmp_path / "out")
    rig.services.images.remove(ADMIN, flat.id)
    return add(rig, tmp_path / "out", named(caller), caller)


def lease(rig, image, caller=ANN):
    group = GroupRequest(image.id, 1, memory_mib=128, disk_mib=100)
    return rig.leases.request(caller, LeaseRequest((group,), 600))


@pytest.mark.parametrize(
    "make", [copied, saved, flattened, brought_again, brought_again_encrypted, flattened_and_brought_again]
)
def test_with_an_image_all_that_was_made_from_it_is_revoked(rig, debian, tmp_path, make):  # noqa: F811
    rig.enroll("n1")
    made = make(rig, debian, tmp_path, ANN)
    assert debian.id in [origin.image for origin in made.origins]
    running = lease(rig, made)
    rig.obey()
    told = rig.services.trust.revoke_image(ADMIN, debian.id, reason="a bad kernel")
    assert [each.id for each in told.leases] == [running.id], "what runs is listed"
    with pytest.raises(ImageRefused, match=r"was revoked: (with (debian|another image), which .*: )?a bad kernel"):
        lease(rig, made)
    told = rig.services.trust.revoke_image(ADMIN, debian.id, reason="a bad kernel", end=True)
    assert [each.state for each in told.leases] == [LeaseState.ENDING], "and ended if that is asked for"
    rig.services.trust.reinstate_image(ADMIN, debian.id)
    lease(rig, made)


@pytest.mark.parametrize("make", [copied, flattened_and_brought_again])
def test_it_is_remembered_when_the_first_is_gone_and_the_service_was_restarted(rig, debian, tmp_path, make):  # noqa: F811
    rig.enroll("n1")
    made = make(rig, debian, tmp_path, ANN)
    rig.services.images.remove(ADMIN, debian.id)
    rig.restart()
    assert debian.id not in rig.site.present.images
    rig.services.trust.revoke_image(ADMIN, debian.id, reason="a bad kernel")
    with pytest.raises(ImageRefused, match="a bad kernel"):
        lease(rig, made)


def test_what_is_brought_after_it_was_revoked_and_removed_is_revoked_too(rig, debian, tmp_path):  # noqa: F811
    rig.enroll("n1")
    exported(rig, debian, "qcow2", tmp_path / "out")
    rig.services.trust.revoke_image(ADMIN, "debian", reason="a bad kernel")
    rig.services.images.remove(ADMIN, "debian")
    with pytest.raises(ImageRefused, match="a bad kernel"):
        lease(rig, add(rig, tmp_path / "out", "mine", BOB), BOB)


def test_of_a_disk_that_was_converted_nothing_is_known(rig, debian, tmp_path):  # noqa: F811
    rig.enroll("n1")
    exported(rig, debian, "raw", tmp_path / "out")
    made = add(rig, tmp_path / "out", "mine", ANN)
    assert made.origins == ()


def test_another_image_is_not_reached(rig, debian, tmp_path):  # noqa: F811
    rig.enroll("n1")
    other = add(rig, disk(tmp_path / "other.qcow2", "qcow2", size_bytes=4 << 20), "other", ANN)
    rig.services.trust.revoke_image(ADMIN, "debian", reason="a bad kernel")
    assert lease(rig, other)


def variants(rig, tmp_path):
    """The site's appliance, ann's of the same disk with another kernel line, and one that bob made of hers."""
    site = add(rig, disk(tmp_path / "site.qcow2", "qcow2"), "site")
    anns = replace(site, id="img-anns", owner="ann", cmdline="debug", sha256="a" * 64, shared=("public",))
    origin = Origin(OriginKind.SAME_DISK, site.id, digest(site), site.content, "site")
    bobs = replace(
        anns, id="img-bobs", owner="bob", sha256="b" * 64,
        files=(replace(anns.disk, sha256="c" * 64),), origins=made_from(rig.site.present, anns, OriginKind.ENCRYPTED),
    )  # fmt: skip
    late = Origin(OriginKind.SAME_DISK, anns.id, digest(anns), anns.content, "")
    for image in (replace(anns, origins=(origin,)), bobs, replace(site, origins=(late,))):
        rig.site.change("site", lambda draft, image=image: draft.put_image(image))
    return [rig.site.present.images[each.id] for each in (site, anns, bobs)]


@pytest.mark.parametrize(("only", "reached"), [(False, {"site", "bob"}), (True, {"bob"})])
def test_the_images_that_are_revoked_with_another_are_told(rig, tmp_path, only, reached):
    site, anns, bobs = variants(rig, tmp_path)
    names = {"site": site, "bob": bobs}
    told = rig.services.trust.revoke_image(ADMIN, anns.id, reason="a bad line", only=only)
    assert {each.id for each in told.images} == {names[each].id for each in reached}
    events = [e for e in rig.site.events(Filter(), after=0, limit=1000) if e.kind == "image.revoked"]
    assert {e.image for e in events} == {anns.id, *(each.id for each in told.images)}
    assert all("a bad line" in e.data["reason"] for e in events)
    again = rig.services.trust.revoke_image(ADMIN, anns.id, reason="a bad line", only=only)
    assert again.images == told.images
    assert len(events) == sum(e.kind == "image.revoked" for e in rig.site.events(Filter(), after=0, limit=1000))
    may_run = {each.id: rig.services.trust.test(ADMIN, each.id).allowed for each in (site, anns, bobs)}
    assert may_run == {site.id: only, anns.id: False, bobs.id: False}


def test_who_copies_what_he_has_already_has_it_from_there_as_well(rig, tmp_path):
    own = add(rig, disk(tmp_path / "debian.qcow2", "qcow2"), "mine", ANN)
    theirs = add(rig, tmp_path / "debian.qcow2", "debian")
    assert own.origins == ()
    kept = rig.services.images.copy(ANN, theirs.id, "copy")
    assert kept.id == own.id
    assert [(o.how, o.image) for o in kept.origins] == [(OriginKind.COPIED, theirs.id)]
    assert rig.services.images.copy(ANN, theirs.id, "copy") == kept


def test_what_lists_took_back_is_leased_no_more_whatever_was_made_of_it(rig, ca, publisher, lists, tmp_path):  # noqa: F811
    rig.enroll("n1")
    url = publisher.publish(publisher.image("sl6"))
    followed = lists.subscribe(ADMIN, url=url, message=None, dn=DN, ca_pem=ca.pem, shared=("public",))
    source = image_of(rig, lists.fetch(ADMIN, followed.id, "sl6"))
    again = brought_again(rig, source, tmp_path, BOB)
    made = [copied(rig, source, tmp_path, ANN), again]
    from_elsewhere = add(rig, publisher.folder / "sl6", "elsewhere", BOB)
    assert source.id in [origin.image for origin in from_elsewhere.origins], "converted anew, and the same"
    assert all(lease(rig, each, BOB if each is again else ANN) for each in made)
    rig.services.images.remove(ADMIN, source.id)
    publisher.publish(publisher.image("sl7"), version="8", created_at=LIST.created_at + 60)
    lists.refresh(ADMIN, followed.id)
    for each in made:
        with pytest.raises(ImageRefused, match="took it off the image list"):
            lease(rig, each, BOB if each is again else ANN)
    lists.unsubscribe(ADMIN, followed.id)
    assert lease(rig, made[0])


def test_what_was_encrypted_from_a_revoked_image_is_leased_no_more_and_its_key_not_given(rig, debian, tmp_path):  # noqa: F811
    rig.enroll("n1")
    made = encrypted(rig, debian, tmp_path, ANN)
    assert [(origin.how, origin.image) for origin in made.origins] == [(OriginKind.ENCRYPTED, debian.id)]
    running = lease(rig, made)
    (workspace,) = rig.site.present.members(running.id)
    asked = (Caller(workspace.node, Role.NODE), workspace.node, workspace.id)
    assert rig.services.keys.hand_out(*asked).files
    assert rig.services.trust.revoke_image(ADMIN, "debian", reason="a bad kernel").leases
    assert not rig.services.keys.hand_out(*asked).files
    with pytest.raises(ImageRefused, match="with debian, which it was made from: a bad kernel"):
        lease(rig, made)


def test_what_was_removed_since_is_reinstated_by_name_or_digest(rig, debian, tmp_path):  # noqa: F811
    rig.enroll("n1")
    made = copied(rig, debian, tmp_path, ANN)
    for asked in ("debian", f"sha256:{digest(debian)[:12]}"):
        again = add(rig, tmp_path / "debian.qcow2", "debian")
        rig.services.trust.revoke_image(ADMIN, "debian", reason="a bad kernel")
        rig.services.images.remove(ADMIN, again.id)
        with pytest.raises(ImageRefused, match="a bad kernel"):
            lease(rig, made)
        rig.services.trust.reinstate_image(ADMIN, asked)
        assert lease(rig, made)
    with pytest.raises(NotFound, match="is not revoked"):
        rig.services.trust.reinstate_image(ADMIN, "debian")


def test_who_shares_the_disk_of_a_revoked_image_is_listed_and_not_booted_again(rig, debian, tmp_path):  # noqa: F811
    (node,) = rig.enroll("n1")
    made = copied(rig, debian, tmp_path, ANN)
    data = Disk("data", 0, image=made.id)
    group = GroupRequest("demo", 1, memory_mib=128, disk_mib=100, disks=(data,))
    running = rig.leases.request(ANN, LeaseRequest((group,), 600))
    rig.obey()

    def refused():
        present, trust = rig.site.present, rig.services.trust
        args = present.nodes[node.id], present.on_node(node.id), present.leases, present.images
        (order,) = orders_for(*args, now=0, vouched_of=trust.vouched).workspaces
        return order.vouched.refused

    assert refused() == ""
    told = rig.services.trust.revoke_image(ADMIN, "debian", reason="it leaks")
    assert [each.id for each in told.leases] == [running.id]
    assert refused() == f"the image anns (sha256:{digest(made)[:12]}) was revoked: it leaks"


def brought_encrypted(rig, path, caller):
    temporary = rig.services.images.begin()
    shutil.copyfile(path, temporary)
    return rig.services.images.add(caller, temporary, named(caller), encrypt=True)


def test_what_was_encrypted_as_it_came_is_revoked_with_its_twin_that_came_later(rig, tmp_path):
    rig.enroll("n1")
    plain = disk(tmp_path / "plain.qcow2", "qcow2")
    sealed = brought_encrypted(rig, plain, BOB)
    theirs = add(rig, plain, "anns", ANN)
    assert told(sealed) == (), "the sha256 of what is in it is not for its users"
    copy = rig.services.images.copy(ADMIN, sealed.id, "copy:1")
    rig.services.trust.revoke_image(ADMIN, theirs.id, reason="it leaks")
    for each, who in ((sealed, BOB), (copy, ADMIN)):
        with pytest.raises(ImageRefused, match="was revoked: with another image, which it was made from: it leaks"):
            lease(rig, each, who)
    rig.services.trust.reinstate_image(ADMIN, theirs.id)
    assert lease(rig, sealed, BOB)


def test_of_an_image_that_is_not_his_who_brings_the_same_disk_learns_only_that_it_was_revoked(rig, tmp_path):
    rig.enroll("n1")
    plain = disk(tmp_path / "plain.qcow2", "qcow2")
    theirs = add(rig, plain, "secret-project", ANN)
    own = add(rig, plain, "bobs", BOB)
    assert [origin.image for origin in own.origins] == [theirs.id]
    other = replace(theirs, cmdline="quiet")
    rig.site.change("site", lambda draft: draft.put_image(other))
    rig.services.trust.revoke_image(ADMIN, theirs.id, reason="it leaks")
    shown = Views(rig.services).image(own)
    assert shown["origins"] == [{"how": "same-disk", "image": "", "digest": "", "content": "", "name": ""}]
    assert shown["revoked"]["why"] == "with another image, which has the same disk: it leaks"
    with pytest.raises(ImageRefused) as refused:
        lease(rig, own, BOB)
    for text in (json.dumps(shown), refused.value.problem):
        assert not [word for word in (theirs.id, "secret-project", digest(other)[:12]) if word in text]


def test_who_reinstates_is_told_what_else_was_revoked(rig, debian, tmp_path):  # noqa: F811
    rig.enroll("n1")
    made, trust = encrypted(rig, debian, tmp_path, ANN), rig.services.trust
    for image in (debian, made):
        trust.revoke_image(ADMIN, image.id, reason="a bad kernel")
    told = trust.reinstate_image(ADMIN, made.id)
    assert (told.value.digest, told.still.digest) == (digest(made), digest(debian))
    assert told.why == "with debian, which it was made from: a bad kernel"
    with pytest.raises(ImageRefused, match=told.why):
        lease(rig, made)
    assert trust.reinstate_image(ADMIN, debian.id).still is None
    assert lease(rig, made)


def test_what_was_removed_is_revoked_by_its_digest_too_and_what_is_revoked_stays_so(rig, debian, tmp_path):  # noqa: F811
    rig.enroll("n1")
    made, trust = copied(rig, debian, tmp_path, ANN), rig.services.trust
    for each in (debian, made):
        rig.services.images.remove(ADMIN, each.id)
    told = trust.revoke_image(ADMIN, f"sha256:{digest(debian)[:12]}", reason="a bad kernel")
    assert (told.value.content, told.value.name, told.before) == (debian.content, "anns", False)
    with pytest.raises(ImageRefused, match="a bad kernel"):
        lease(rig, add(rig, tmp_path / "debian.qcow2", "again", ANN))
    again = trust.revoke_image(ADMIN, debian.id, reason="another")
    assert (again.before, again.value) == (True, told.value)
    with pytest.raises(NotFound):
        trust.revoke_image(ADMIN, "sha256:" + "0" * 12, reason="none")
