"""What an image was made from, and what is said of that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vws.core.errors import InvalidRequest, NotFound
from vws.core.image_access import ImageUser
from vws.core.image_origin import (
    made_from,
    reaches,
    remembering,
    revocation_meant,
    revocation_of,
    traced,
    why_revoked,
)
from vws.core.manifest import digest
from vws.core.present import Present
from vws.core.site import Changes, Image, ImageFile, ImageTag, OriginKind, Revocation, Subscribed, Subscription
from vws.core.subscriptions import not_listed, why_not_listed

ANN, BOB = ImageUser("ann"), ImageUser("bob")


def image(id: str, disk: str = "a", *, made=None, how=OriginKind.COPIED, present=None, **more) -> Image:
    origins = made_from(present or Present(), made, how) if made else ()
    given = {"files": (ImageFile("disk", disk * 64, 1 << 20, "qcow2", 1),), "origins": origins, "shared": ("public",)}
    given |= {"name": id.removeprefix("img-"), "owner": "ann", "sha256": disk * 64}
    return Image(id, size_bytes=1 << 20, boot="disk", **(given | more))


def revoked(of: Image, **more) -> Revocation:
    return Revocation("rev-1", digest(of), of.name, "bad", "root", 1.0, content=of.content, **more)


FIRST = image("img-first")
SAVED = image("img-saved", "b", made=FIRST, how=OriginKind.SAVED)
FLAT = image("img-flat", "c", made=SAVED, how=OriginKind.FLATTENED)


def test_it_has_what_its_source_was_and_came_from_nearest_first_by_the_name_people_know():
    tags = (ImageTag("tag-1", "debian", "12", "img-saved", "ann", 0.0),)
    flat = image("img-flat", "c", made=SAVED, how=OriginKind.FLATTENED, present=Present.of(Changes(image_tags=tags)))
    assert [(o.how, o.image, o.name, o.digest) for o in flat.origins] == [
        (OriginKind.FLATTENED, "img-saved", "debian:12", digest(SAVED)),
        (OriginKind.SAVED, "img-first", "first", digest(FIRST)),
    ]


def test_origins_change_no_digest():
    assert digest(replace(FLAT, origins=())) == digest(FLAT)


def test_content_is_the_disk_else_the_initrd_and_nothing_of_a_simulated_image():
    files = (ImageFile("kernel", "1" * 64, 1, "kernel"), ImageFile("initrd", "2" * 64, 1, "initrd"))
    assert replace(FIRST, files=files).content == "2" * 64
    assert replace(FIRST, files=(*files, *FIRST.files)).content == "a" * 64
    assert replace(FIRST, files=()).content == ""


@pytest.mark.parametrize("below", [FIRST, SAVED, FLAT], ids=lambda image: image.name)
def test_a_revocation_reaches_what_was_made_from_it_and_not_what_it_was_made_from(below):
    made, order = revoked(below), [FIRST, SAVED, FLAT]
    assert [reaches(made, each) for each in order] == [order.index(each) >= order.index(below) for each in order]
    assert revocation_of(Present.of(Changes(revocations=(made,))), FLAT) == made
    lifted = Present.of(Changes(revocations=(replace(made, lifted_at=2.0),)))
    assert revocation_of(lifted, FLAT) is None
    assert (why_revoked(made, FLAT) == "bad") == (below is FLAT)


def test_it_reaches_the_same_disk_with_another_command_line_but_no_other_disk():
    made = revoked(FIRST)
    other = replace(FIRST, id="img-other", cmdline="quiet")
    assert digest(other) != made.digest
    assert reaches(made, other)
    assert why_revoked(made, other) == "with another image, which has the same disk: bad", "which one, nobody said"
    known = traced(Present(), other, [FIRST], BOB)
    assert why_revoked(made, known) == "with first, which has the same disk: bad"
    hidden = traced(Present(), other, [replace(FIRST, shared=())], BOB)
    assert why_revoked(made, hidden) == "with another image, which has the same disk: bad"
    assert not reaches(made, image("img-new", "d"))
    assert not reaches(replace(made, content=""), other), "as revocations were before"


def test_two_that_have_no_files_are_not_the_same():
    made = Revocation("rev-1", "0" * 64, "sim", "bad", "root", 1.0, content="")
    assert not reaches(made, image("img-sim", files=()))


# ---------------------------------------------------------------- brought again


def test_what_is_brought_with_a_known_disk_has_all_its_origins():
    again = image("img-again", "c")
    found = traced(Present(), again, [replace(FLAT, removed_at=5.0)], ANN)
    assert [(o.how, o.image) for o in found.origins] == [
        (OriginKind.SAME_DISK, "img-flat"),
        (OriginKind.FLATTENED, "img-saved"),
        (OriginKind.SAVED, "img-first"),
    ]
    assert reaches(revoked(FIRST), found)
    assert traced(Present(), again, [], ANN) == again


def test_of_several_with_the_disk_one_is_named_and_the_origins_of_all_count():
    twin = image("img-alone", "c", owner="bob")
    found = traced(Present(), image("img-new", "c"), [FLAT, twin], BOB)
    assert [o.image for o in found.origins] == ["img-alone", "img-saved", "img-first"]


def test_names_of_what_is_not_for_who_brings_it_are_not_told():
    hidden = [replace(FLAT, shared=())]
    found = traced(Present(), image("img-new", "c", owner="bob"), hidden, BOB)
    assert [o.name for o in found.origins] == ["", "", ""]
    assert [o.image for o in found.origins] == ["img-flat", "img-saved", "img-first"]


def test_nothing_is_remembered_twice_nor_is_it_its_own_origin():
    assert remembering(FLAT, FLAT.origins) == FLAT
    assert remembering(FIRST, (replace(FLAT.origins[0], image="img-first"),)).origins == ()


# ---------------------------------------------------------------- lists


def subscription(number: int, image: str, *, dropped: bool) -> Subscription:
    listed = Subscribed("sl6", "1", "sl6", "", 1, "ab" * 64, image=image, dropped_at=1.0 if dropped else None)
    return Subscription(
        f"sub-{number}", f"list-{number}", "", "1", "", "", "", "", (), (listed,), 0.0, 1e10, 0.0, "root", 0.0
    )


@pytest.mark.parametrize("below", [SAVED, FLAT, image("img-copy", made=FIRST)], ids=lambda image: image.name)
def test_what_was_made_from_an_image_needs_its_lists_word(below):
    site = Present.of(Changes(subscriptions=(subscription(1, "img-first", dropped=False),)))
    assert not_listed(site, below, 5.0) is None
    site.apply(Changes(subscriptions=(subscription(1, "img-first", dropped=True),)))
    refused = not_listed(site, below, 5.0)
    assert refused is not None
    assert "took it off the image list list-1" in refused.reason
    assert why_not_listed(site, image("img-new", "d"), 5.0) == ""


def test_a_list_that_vouches_for_the_same_disk_is_enough_and_one_for_what_was_made_is_not():
    copy = image("img-copy", made=FIRST)
    dropped = subscription(1, "img-first", dropped=True)
    assert (
        why_not_listed(
            Present.of(Changes(subscriptions=(dropped, subscription(2, "img-copy", dropped=False)))), copy, 5.0
        )
        == ""
    )
    site = Present.of(Changes(subscriptions=(dropped, subscription(2, "img-flat", dropped=False))))
    assert "list-1" in why_not_listed(site, FLAT, 5.0)


# ---------------------------------------------------------------- reinstated


def test_a_revocation_is_found_by_the_image_or_what_it_was_called_and_its_digest():
    made, other = revoked(FIRST), replace(revoked(image("img-other", "e")), id="rev-2", name="first:2")
    site = Present.of(Changes(revocations=(made, other)))
    assert revocation_meant(site, "img-first", FIRST) == made
    for asked in ("first", "first:latest", f"sha256:{made.digest[:12]}"):
        assert revocation_meant(site, asked, None) == made
    assert revocation_meant(site, "first", image("img-new", "f")) == made, "the name is another's by now"
    for asked in ("second", "sha256:" + "0" * 12):
        with pytest.raises(NotFound, match=r"is not revoked$"):
            revocation_meant(site, asked, None)


def test_what_is_revoked_with_another_is_told_which():
    site = Present.of(Changes(revocations=(revoked(FIRST),)))
    with pytest.raises(NotFound, match="with first, which it was made from: bad") as error:
        revocation_meant(site, "flat", FLAT)
    assert error.value.possible == f"vws image reinstate sha256:{digest(FIRST)[:12]}"


def test_of_several_that_were_called_so_the_digest_is_asked_for():
    again = replace(revoked(SAVED), id="rev-2", name="first")
    site = Present.of(Changes(revocations=(revoked(FIRST), again)))
    with pytest.raises(InvalidRequest, match="several") as error:
        revocation_meant(site, "first", None)
    assert digest(SAVED)[:12] in str(error.value.possible)
