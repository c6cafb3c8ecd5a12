"""What the site does by itself: what nothing points at is dropped, lists of others are read again."""

from __future__ import annotations

import shutil

import pytest

from tests.core.test_image_lists import LIST
from tests.service.conftest import ADMIN, ANN, Rig
from tests.service.test_image_lists import (  # noqa: F401 - fixtures
    DAY_S,
    ca,
    endorser,
    image_of,
    lists,
    publisher,
    subscribe,
)
from tests.service.test_images import disk, kept, sha256s, upload
from vws.core.errors import Unavailable
from vws.core.image_policy import ImageRefused
from vws.core.image_quota import ImageRules
from vws.ports import Filter
from vws.service import housekeeping
from vws.service.site import Settings

pytestmark = pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("qemu-img")), reason="openssl or qemu-img is not installed"
)
H = 3600


def said(rig, kind):
    return [event for event in rig.site.events(Filter(), after=0, limit=1000) if event.kind == kind]


# ---------------------------------------------------------------- garbage


def test_what_nothing_points_at_is_dropped_daily_and_on_record(rig):
    keeper = rig.services.housekeeper
    old = upload(rig, disk(b"x"), "site")
    upload(rig, disk(), "site")
    assert rig.services.images.untag(ANN, "site").id != old.id
    keeper.step()
    assert len(kept(rig)) == 2, "not at once after the start, and not before it is old"
    rig.clock.time += 29.5 * DAY_S
    keeper.step()
    assert said(rig, "images.collected") == [], "nothing was to be done, and nothing is told"
    rig.services.images.tag(ANN, old.id, "kept")
    rig.clock.time += DAY_S
    keeper.step()
    assert kept(rig) == sha256s(disk(b"x"))
    (told,) = said(rig, "images.collected")
    assert (told.actor, len(told.data["images"]), told.data["files"]) == ("site", 1, 1)


def test_a_site_that_is_restarted_daily_is_cleaned_too(rig):
    image = upload(rig, disk(), "site")
    rig.services.images.untag(ANN, "site")
    rig.clock.time += 31 * DAY_S
    rig.restart()
    rig.services.housekeeper.step()
    assert kept(rig)
    rig.clock.time += housekeeping.FIRST_AFTER_S
    rig.services.housekeeper.step()
    assert kept(rig) == set()
    assert rig.services.images.image(ADMIN, image.id).removed_at == rig.clock.time


def test_off_is_off_and_a_clock_that_was_set_back_puts_nothing_off_for_ever(store, tmp_path):
    rig = Rig(store, tmp_path, Settings(images=ImageRules(keep_untagged_s=0.0, collect_every_s=None)))
    upload(rig, disk(), "site")
    rig.services.images.untag(ANN, "site")
    rig.clock.time += 100 * DAY_S
    rig.services.housekeeper.step()
    assert kept(rig)
    rig.settings = Settings(images=ImageRules(keep_untagged_s=-(10**9), collect_every_s=DAY_S))
    rig.restart()
    rig.clock.time -= 50 * DAY_S
    rig.services.housekeeper.step()
    assert kept(rig) == set()


def test_the_one_that_leads_does_it_in_a_thread_of_its_own(rig, monkeypatch):
    import threading

    done = threading.Event()
    monkeypatch.setattr(housekeeping, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(rig.services.housekeeper, "step", done.set)
    monkeypatch.setattr(rig.store, "lead", lambda: False)
    rig.services.housekeeper.start()
    try:
        assert not done.wait(0.1)
        monkeypatch.setattr(rig.store, "lead", lambda: True)
        assert done.wait(10)
    finally:
        rig.services.housekeeper.stop()


# ---------------------------------------------------------------- lists


def test_a_list_is_read_again_when_it_is_due(rig, ca, publisher, lists):  # noqa: F811
    keeper = rig.services.housekeeper
    made = subscribe(rig, ca, publisher.publish(publisher.image("sl6"), expires_at=LIST.created_at + 60 * DAY_S))
    publisher.publish(publisher.image("sl6"), version="8", expires_at=LIST.created_at + 90 * DAY_S)
    rig.clock.time += 5 * H
    keeper.step()
    assert lists.subscription(ADMIN, made.id).version == made.version
    rig.clock.time += 2 * H
    keeper.step()
    after = lists.subscription(ADMIN, made.id)
    assert (after.version, after.refreshed_at) == ("8", rig.clock.time)
    (told,) = said(rig, "list.renewed")
    assert (told.actor, told.data["version"]) == ("site", "8")


def test_lists_are_not_all_due_at_the_same_time():
    places = {housekeeping._place(f"ils-{number:06d}") for number in range(50)}
    assert len(places) > 30
    assert -0.5 <= min(places) < -0.2 < 0.2 < max(places) <= 0.5


def test_a_list_that_cannot_be_read_stays_in_force_until_it_expires(rig, ca, publisher, lists):  # noqa: F811
    keeper = rig.services.housekeeper
    rig.enroll("n1")
    made = subscribe(rig, ca, publisher.publish(publisher.image("sl6"), expires_at=LIST.created_at + DAY_S))
    image = image_of(rig, lists.fetch(ADMIN, made.id, "sl6"))
    (publisher.folder / "list").unlink()
    rig.clock.time += 7 * H
    keeper.step()
    after = lists.subscription(ADMIN, made.id)
    assert "404" in after.problem
    assert after.images[0].image == image.id, "the list that was in force is as it was"
    (told,) = said(rig, "list.failed")
    assert (told.actor, told.data["list"]) == ("site", made.name)
    assert "404" in told.data["reason"]
    (warning,) = lists.warnings()
    assert "could not be read again" in warning

    def lease():
        from vws.core.terms import GroupRequest, LeaseRequest

        return rig.leases.request(ADMIN, LeaseRequest((GroupRequest(image.id, 1, memory_mib=128, disk_mib=100),), 600))

    assert lease()
    looked_at = after.refreshed_at
    rig.clock.time += 1.2 * H
    keeper.step()
    assert lists.subscription(ADMIN, made.id).refreshed_at > looked_at, "tried again sooner than otherwise"
    assert len(said(rig, "list.failed")) == 1, "and told once"

    rig.clock.time += DAY_S
    keeper.step()
    with pytest.raises(ImageRefused, match="expired"):
        lease()
    (warning,) = lists.warnings()
    assert "has expired" in warning
    publisher.publish(publisher.image("sl6"), version="8", expires_at=LIST.created_at + 90 * DAY_S)
    rig.clock.time += 2 * H
    keeper.step()
    assert lists.warnings() == []


def test_one_list_that_fails_keeps_no_other_waiting(rig, ca, publisher, lists, monkeypatch):  # noqa: F811
    url = publisher.publish(publisher.image("sl6"), expires_at=LIST.created_at + 60 * DAY_S)
    subscribe(rig, ca, url)
    other = publisher.list_of(publisher.image("sl6"), identifier="other", expires_at=LIST.created_at + 60 * DAY_S)
    (publisher.folder / "other").write_bytes(other)
    subscribe(rig, ca, f"{publisher.url}/other")
    asked = []

    def refresh(caller, id):
        asked.append(id)
        raise Unavailable("no answer")

    monkeypatch.setattr(lists, "refresh", refresh)
    rig.clock.time += 7 * H
    rig.services.housekeeper.step()
    assert sorted(asked) == [each.id for each in lists.subscriptions(ADMIN)]
