"""How much of the repository is whose.

A file is kept once, however many images have it, and counts for who brought it first: who pushes what is there already
pays nothing, and nobody pays for another's copy. It is counted by its length, zeros included, since that is what its
owner can know beforehand. What is said of an image and kept beside it counts for who added it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vws.core.errors import LimitReached
from vws.core.membership import User
from vws.core.site import Image, ImageFile


@dataclass(frozen=True, slots=True)
class ImageRules:
    """quota_mib: what each user may keep; None: no limit. keep_untagged_s: how long an image without a name stays.
    collect_every_s, lists_every_s: how often what nothing points at is dropped, and lists of others are read again;
    None: when somebody asks."""

    quota_mib: int | None = None
    keep_untagged_s: float = 30 * 86400.0
    collect_every_s: float | None = 86400.0
    lists_every_s: float | None = 6 * 3600.0


def quota_of(rules: ImageRules, users: Mapping[str, User], user: str) -> int | None:
    own = users.get(user)
    return rules.quota_mib if own is None or own.image_quota_mib is None else own.image_quota_mib


def held_bytes(images: Iterable[Image], owner: str) -> int:
    """Of the files that are this user's first, by the images that are on record now."""
    first: dict[str, tuple[str, int]] = {}
    for image in sorted(images, key=lambda image: image.id):
        for file in image.files:
            first.setdefault(file.sha256, (image.owner, file.size_bytes))
    return sum(size for who, size in first.values() if who == owner)


def check_quota(
    images: Iterable[Image], owner: str, files: Iterable[ImageFile], quota_mib: int | None, documents_bytes: int = 0
) -> None:
    """Raise LimitReached if these files were one too many for a user. quota_mib: None for no limit; documents_bytes: of
    what the user keeps beside images."""
    if quota_mib is None:
        return
    images = list(images)
    there = {file.sha256 for image in images for file in image.files}
    held = held_bytes(images, owner) + documents_bytes
    more = sum({file.sha256: file.size_bytes for file in files if file.sha256 not in there}.values())
    if more and held + more > quota_mib << 20:
        raise quota_reached(owner, held, more, quota_mib)


def quota_reached(owner: str, held: int, more: int, quota_mib: int) -> LimitReached:
    left_mib = max(0, (quota_mib << 20) - held) >> 20
    return LimitReached(
        f"the user {owner} may keep {quota_mib} MiB of images and documents, has {held >> 20} MiB and brings "
        f"{-(-more >> 20)} MiB",
        field="images",
        asked=more,
        possible=f"at most {left_mib} MiB more; vws image remove makes room",
        details={"limit": "images", "party": f"the user {owner}", "held": held >> 20, "offers": []},
    )
