"""What images were made from, so that what is said of one reaches all that is in it made anew.

A copy, a flattened delta, an encrypted disk, a saved workspace: each is another image, mostly of another digest, and
most of what boots is still the first one's. Who takes that back means all of them. So an image keeps what it was made
from, and what that was made from, as it was then: id, digest and content. It needs no record of those images any more.

Who exports an image and brings it again says nothing of it. Where its disk is the same to the bit (exports as qcow2 of
what is kept so, bundles, OCI layouts), that is seen, and it has the origins of all that had this disk. A disk that was
converted, or written to elsewhere, is another one: nothing can be known of it.

What is encrypted as it comes was never here in the clear, but its twin may be, or come later: the disk that it was made
from is an origin without an id. Whose sha256 is known, is told nobody: it says what is in the encrypted one. Nor is
anything told of images that were not for who brought the same disk, but that there are such.

What is revoked is revoked with its disk: the same disk with another kernel or command line is the same system. Unless
it is that line alone which is bad: then the image is revoked by its digest only, with what was made from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

from vws.core.errors import InvalidRequest, NotFound
from vws.core.image_access import ImageUser, called, may_use
from vws.core.image_names import read_reference
from vws.core.manifest import digest
from vws.core.present import Present
from vws.core.site import Image, Origin, OriginKind, Revocation


def made_from(present: Present, source: Image, how: OriginKind) -> tuple[Origin, ...]:
    """The origins of what is made from `source`."""
    return (_origin(present, source, how), *source.origins)


def _origin(present: Present, image: Image, how: OriginKind) -> Origin:
    name = called(present, image) if present.tags_of(image.id) else image.name
    return Origin(how, image.id, digest(image), image.content, name)


def traced(present: Present, image: Image, twins: Iterable[Image], user: ImageUser) -> Image:
    """An image that `user` brings, with what is known of it by the images on record, removed ones too, that have or had
    the same disk. Of those that are not for this user no name is told."""
    found = list[Origin]()
    for twin in sorted(twins, key=lambda twin: (not may_use(twin, user), twin.id)):
        of_twin = twin.origins if found else (_origin(present, twin, OriginKind.SAME_DISK), *twin.origins)
        found += of_twin if may_use(twin, user) else (replace(each, name="") for each in of_twin)
    return remembering(image, found)


def from_the_clear(image: Image, clear: Image) -> Image:
    """An image whose disk was encrypted as it came, with what it was before."""
    return remembering(image, [Origin(OriginKind.ENCRYPTED, "", digest(clear), clear.content, "")])


def told(image: Image) -> tuple[Origin, ...]:
    """The origins as its users may know them."""
    return tuple(each if each.name else Origin(each.how, "", "", "", "") for each in image.origins if each.image)


def remembering(image: Image, origins: Iterable[Origin]) -> Image:
    """The image with these origins beside its own, each once."""
    known = {image.id: None} | {each.image or each.content: each for each in image.origins}
    for each in origins:
        known.setdefault(each.image or each.content, each)
    return replace(image, origins=tuple(filter(None, known.values())))


# ---------------------------------------------------------------- revoked


def revocation_of(present: Present, image: Image, besides: Revocation | None = None) -> Revocation | None:
    """Why nobody may run an image: it was revoked, or one that it was made from. besides: what does not count."""
    of, within, made_of = digest(image), _within(image), _made_of(image)
    revoked = [made for made in list(present.revocations.values()) if made is not besides]
    reaching = [made for made in revoked if made.digest == of or _is_of(made, within, made_of)]
    return min(reaching, key=lambda made: made.digest != of, default=None)


def reaches(made: Revocation, image: Image) -> bool:
    return _is_of(made, _within(image), _made_of(image))


def _is_of(made: Revocation, within: frozenset[str], made_of: frozenset[str]) -> bool:
    if not made.content:
        return made.digest in made_of
    return made.digest in within or made.content in within


def how_reached(made: Revocation, image: Image) -> str:
    """What an image that is revoked with another has of it, in words."""
    if made.digest == digest(image):
        return "the same image"
    return "the same disk" if made.content and made.content == image.content else "made from it"


def _made_of(image: Image) -> frozenset[str]:
    """Digests of an image and of what it was made from, without those that only had the same disk."""
    same_disk = {image.content} - {""}
    others = (o for o in image.origins if o.how is not OriginKind.SAME_DISK and o.content not in same_disk)
    return frozenset((digest(image), *(o.digest for o in others)))


def _within(image: Image) -> frozenset[str]:
    """Digests and contents of an image and of all that it was made from; both are sha256s, of different things."""
    said = [(digest(image), image.content), *((each.digest, each.content) for each in image.origins)]
    return frozenset(chain.from_iterable(said)) - {""}


def why_revoked(made: Revocation, image: Image) -> str:
    """In words."""
    if made.digest == digest(image):
        return made.reason
    name = made.name if is_told(made, image) else "another image"
    if made.content and made.content == image.content:
        return f"with {name}, which has the same disk: {made.reason}"
    return f"with {name}, which it was made from: {made.reason}"


def is_told(made: Revocation, image: Image) -> bool:
    """Whether users of an image may know which one was revoked with it."""
    of = {made.digest, made.content} - {""}
    return made.digest == digest(image) or any({each.digest, each.content} & of for each in told(image))


def revocation_meant(present: Present, asked: str, image: Image | None) -> Revocation:
    """The one of an image that is called so, or was when it was revoked. image: what is called so now. Raises NotFound,
    InvalidRequest if it may be several."""
    own = present.revocations.get(digest(image)) if image is not None else None
    if own is not None:
        return own
    reference = read_reference(asked, "id")
    digits = reference.digest or "none"
    revoked = list(present.revocations.values())
    found = [made for made in revoked if made.digest.startswith(digits) or made.name == str(reference)]
    if len(found) > 1:
        digests = ", ".join(f"sha256:{made.digest[:12]}" for made in found[:5])
        raise InvalidRequest(
            f"several revoked images were called {asked[:60]}", field="id", asked=asked[:60], possible=digests
        )
    if not found:
        raise _not_revoked(present, asked, image)
    return found[0]


def _not_revoked(present: Present, asked: str, image: Image | None) -> NotFound:
    problem, possible = "is not revoked", "vws image trust list --images shows what is"
    made = revocation_of(present, image) if image is not None else None
    if image is not None and made is not None:
        problem = f"is not revoked itself, but {why_revoked(made, image)}"
        possible = f"vws image reinstate sha256:{made.digest[:12]}"
    return NotFound(f"the image {asked[:60]} {problem}", field="id", asked=asked[:60], possible=possible)
