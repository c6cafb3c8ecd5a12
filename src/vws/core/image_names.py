"""How an image is called: `NAME`, `NAME:TAG`, `img-…`, `sha256:DIGEST`.

A tag moves when other bytes are pushed under it; an id and a digest never do. What is granted is therefore granted for
an image that was found by its name once, and never looked up by that name again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vws.core.errors import InvalidRequest
from vws.core.terms import NAME_PATTERN, check_name

LATEST = "latest"
DIGEST_DIGITS_MIN = 12
PUBLIC = "public"
TAG_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
POSSIBLE = "NAME, NAME:TAG, an id (img-…) or sha256:DIGEST with at least 12 digits"

# As JSON Schema has them: what an image may be called, and what a new one.
REFERENCE_PATTERN = (
    rf"^(img-[0-9a-z]{{1,40}}|sha256:[0-9a-f]{{{DIGEST_DIGITS_MIN},64}}|{NAME_PATTERN}(:{TAG_PATTERN})?)$"
)
NEW_NAME_PATTERN = rf"^(?!img-){NAME_PATTERN}(:{TAG_PATTERN})?$"

_ID = re.compile(r"img-[0-9a-z]{1,40}\Z")
_DIGEST = re.compile(r"sha256:([0-9a-f]{12,64})\Z")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """What somebody calls an image: exactly one of `id`, `digest` (or a prefix of it) and `name` with `tag`."""

    id: str = ""
    digest: str = ""
    name: str = ""
    tag: str = ""

    def __str__(self) -> str:
        return self.id or (f"sha256:{self.digest}" if self.digest else show_tag(self.name, self.tag))


def read_reference(text: str, field: str = "image") -> ImageReference:
    """What `text` refers to. Raises InvalidRequest, naming `field`, for what no image could be called."""
    if _ID.match(text):
        return ImageReference(id=text)
    if found := _DIGEST.match(text):
        return ImageReference(digest=found[1])
    if text.startswith("sha256:"):
        raise InvalidRequest(f"{text[:80]!r} is no digest", field=field, asked=text[:80], possible=POSSIBLE)
    name, tag = split_name(text, field)
    return ImageReference(name=name, tag=tag)


def split_name(text: str, field: str = "name") -> tuple[str, str]:
    """(name, tag) of `NAME` or `NAME:TAG`; `NAME` alone is `NAME:latest`. Raises InvalidRequest."""
    name, colon, tag = text.partition(":")
    check_name(name, field)
    if colon and not re.fullmatch(TAG_PATTERN, tag):
        raise InvalidRequest(
            f"{tag[:70]!r} cannot be a tag",
            field=field,
            asked=text[:100],
            possible="letters, digits and _ . - , at most 64 characters, the first a letter, digit or _",
        )
    return name, tag if colon else LATEST


def check_new_name(text: str, field: str = "name") -> tuple[str, str]:
    """(name, tag) under which an image may be pushed: not one that reads as an id. Raises InvalidRequest."""
    name, tag = split_name(text, field)
    if name.startswith("img-"):
        raise InvalidRequest(
            f"{name!r} would be taken for an image's id", field=field, asked=name, possible="a name without img-"
        )
    return name, tag


def show_tag(name: str, tag: str) -> str:
    """As people write it: `latest` goes without saying."""
    return name if tag == LATEST else f"{name}:{tag}"


def with_digest(called: str, digest: str) -> str:
    """What people call an image, and which it was then: tags move."""
    return f"{called} (sha256:{digest[:DIGEST_DIGITS_MIN]})" if digest else called
