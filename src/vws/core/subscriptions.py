"""What becomes of the images of a list when the list is renewed, expires or drops them.

An image that was fetched from a list is vouched for by the list alone: while the list is in force and has the image in
that version. Afterwards nothing new is leased with it; what runs, runs to its end. So an endorser who takes an image
off the list, or stops renewing it, is heard at every site within the list's lifetime, whether anybody there looks or
not. What was made from the image (core/image_origin.py) is held to the list's word like the image itself. The check is
made where the site's policy is asked (core/image_gate.py), of the record and the clock alone.

A list never goes back: one that was made before the one on record is refused, since whoever can replay an old list
could bring back an image that was withdrawn.
"""

from __future__ import annotations

from dataclasses import replace

from vws.core.errors import InvalidRequest
from vws.core.image_access import called
from vws.core.image_lists import ImageList, ListedImage, written_time
from vws.core.image_policy import Decision
from vws.core.manifest import digest
from vws.core.present import Present
from vws.core.site import Image, Subscribed, Subscription


def renewed(before: Subscription, found: ImageList, now: float) -> Subscription:
    """The subscription after its list was read again, verified and checked (image_lists.check).

    Images keep what was fetched for them while their version is the same. Those that were fetched and are on the list
    no more stay, as dropped. Raises InvalidRequest with field "list" for another list or an older one.
    """
    if found.identifier != before.name:
        raise InvalidRequest(
            f"this is another list: {found.identifier[:60]}", field="list", possible=f"the list {before.name}"
        )
    if found.created_at < before.created_at:
        raise InvalidRequest(
            f"this list is older than the one on record: of {written_time(found.created_at)}",
            field="list",
            possible=f"one that was made at {written_time(before.created_at)} or later",
        )
    return replace(
        before,
        title=found.title,
        version=found.version,
        images=_merged(before.images, found.images, now),
        created_at=found.created_at,
        expires_at=found.expires_at,
        refreshed_at=now,
        problem="",
    )


def _merged(before: tuple[Subscribed, ...], now_listed: tuple[ListedImage, ...], now: float) -> tuple[Subscribed, ...]:
    had = {_key(each): each for each in before}
    current = [subscribed(image) for image in now_listed]
    kept = [replace(each, image=had[_key(each)].image) if _key(each) in had else each for each in current]
    gone = had.keys() - {_key(each) for each in current}
    dropped = [
        each if each.dropped_at is not None else replace(each, dropped_at=now)
        for key, each in had.items()
        if key in gone and each.image
    ]
    return (*kept, *dropped)


def _key(image: Subscribed) -> tuple[str, str, str]:
    return image.identifier, image.version, image.sha512


def subscribed(image: ListedImage) -> Subscribed:
    return Subscribed(
        image.identifier, image.version, image.title, image.uri, image.size_bytes, image.sha512, image.declared or ""
    )


def fetched(before: Subscription, listed: Subscribed, image: str) -> Subscription:
    """The subscription after `listed`, still as it was, was fetched as `image`."""
    images = tuple(replace(each, image=image) if _key(each) == _key(listed) else each for each in before.images)
    return replace(before, images=images)


def why_not_vouched(subscription: Subscription, image: str, now: float) -> str:
    """Why the list does not vouch for an image that was fetched from it; "": it does."""
    if all(each.dropped_at is not None for each in subscription.images if each.image == image):
        return f"its endorser took it off the image list {subscription.name}"
    if subscription.expires_at <= now:
        return f"the image list {subscription.name} expired on {written_time(subscription.expires_at)}"
    return ""


def why_not_listed(present: Present, image: Image, now: float) -> str:
    """Why no list vouches any more for an image that came from one, or for one that it was made from; "": it is not so.
    One list that does is enough, for the same disk whoever fetched it."""
    same: dict[str, list[str]] = {image.content or image.id: [image.id]}
    for each in image.origins:
        same.setdefault(each.content or each.image, []).append(each.image)
    return next(filter(None, (_why_unlisted(present, ids, now) for ids in same.values())), "")


def _why_unlisted(present: Present, images: list[str], now: float) -> str:
    reasons = [why_not_vouched(each, id, now) for id in images for each in present.listing(id)]
    return reasons[0] if reasons and all(reasons) else ""


def not_listed(present: Present, image: Image, now: float) -> Decision | None:
    """The refusal of an image for which no list vouches any more; None: it is not so."""
    reason = why_not_listed(present, image, now)
    if not reason:
        return None
    possible = "another image; or a newer list from its endorser (vws image list-refresh)"
    return Decision(called(present, image), digest(image), False, "its image list", reason, possible)
