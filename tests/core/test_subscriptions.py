"""What a list's renewal, end and withdrawals mean for the images that were fetched from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.test_image_lists import ANN, IMAGE, LIST, NOW
from vws.core.errors import InvalidRequest
from vws.core.present import Present
from vws.core.site import Changes, Image, Subscription
from vws.core.subscriptions import fetched, not_listed, renewed, subscribed, why_not_vouched

ONE = Subscription(
    "sub-1", LIST.identifier, "", "0", "", ANN.dn, ANN.ca, "PEM", ("cms",), (), 0.0, 0.0, NOW, "admin", NOW
)
LATER = NOW + 3600
FIRST = renewed(ONE, LIST, NOW)
FETCHED = fetched(FIRST, FIRST.images[0], "img-1")
OTHER = replace(IMAGE, identifier="other", sha512="cd" * 64)


def image(id: str = "img-1") -> Image:
    return Image(id, "sl6", "admin", "ab" * 32, 0, "disk", ())


def present(*subscriptions: Subscription) -> Present:
    return Present.of(Changes(subscriptions=subscriptions))


def test_a_subscription_has_what_the_list_says():
    assert (FIRST.title, FIRST.version, FIRST.created_at, FIRST.expires_at) == (
        LIST.title,
        LIST.version,
        LIST.created_at,
        LIST.expires_at,
    )
    assert FIRST.images == (subscribed(IMAGE),)
    assert (FIRST.images[0].format, FIRST.shared, FIRST.dn) == ("qcow2", ("cms",), ANN.dn)


def test_what_was_fetched_stays_while_its_version_does():
    newer = replace(LIST, created_at=NOW, images=(OTHER, IMAGE), version="8")
    after = renewed(FETCHED, newer, LATER)
    assert [each.image for each in after.images] == ["", "img-1"]
    assert after.refreshed_at == LATER
    assert why_not_vouched(after, "img-1", LATER) == ""


@pytest.mark.parametrize("images", [(), (OTHER,), (replace(IMAGE, version="1.3", sha512="ef" * 64),)])
def test_what_is_on_the_list_no_more_is_dropped_and_stays_so(images):
    after = renewed(FETCHED, replace(LIST, images=images), LATER)
    (dropped,) = [each for each in after.images if each.image]
    assert dropped.dropped_at == LATER
    assert "took it off" in why_not_vouched(after, "img-1", LATER)
    assert renewed(after, replace(LIST, images=images), LATER + 5).images == after.images


def test_what_was_never_fetched_is_forgotten():
    assert renewed(FIRST, replace(LIST, images=()), LATER).images == ()


def test_a_version_that_comes_back_is_vouched_for_again():
    dropped = renewed(FETCHED, replace(LIST, images=()), LATER)
    again = renewed(dropped, LIST, LATER)
    assert again.images == (replace(subscribed(IMAGE), image="img-1"),)


def test_an_older_list_and_another_one_are_refused():
    with pytest.raises(InvalidRequest, match="older than the one on record"):
        renewed(FETCHED, replace(LIST, created_at=LIST.created_at - 1), LATER)
    with pytest.raises(InvalidRequest, match="another list"):
        renewed(FETCHED, replace(LIST, identifier="x"), LATER)


def test_an_image_is_refused_when_its_list_expired_and_not_before():
    site = present(FETCHED)
    assert not_listed(site, image(), LIST.expires_at - 1) is None
    refused = not_listed(site, image(), LIST.expires_at)
    assert refused is not None
    assert not refused.allowed
    assert "expired on" in refused.reason
    assert not_listed(site, image("img-2"), LIST.expires_at) is None


def test_one_list_that_vouches_is_enough():
    second = replace(FETCHED, id="sub-2", name="second", expires_at=LIST.expires_at + 1000)
    assert not_listed(present(FETCHED, second), image(), LIST.expires_at) is None
    assert not_listed(present(FETCHED, second), image(), LIST.expires_at + 1000) is not None


def test_a_list_that_is_followed_no_more_has_no_say():
    site = present(FETCHED)
    site.apply(Changes(subscriptions=(replace(FETCHED, removed_at=LATER),)))
    assert not_listed(site, image(), LIST.expires_at) is None
    assert site.subscriptions == {}
