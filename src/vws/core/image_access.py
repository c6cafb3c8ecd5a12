"""Who may use an image, which image a name means, and what still needs one.

An image is its owner's and the administrators'; beside them it is for those it is shared with. A refusal says so
plainly: names are given to who came first, so that there is one is no secret. What an image holds is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from vws.core.draft import Draft
from vws.core.errors import Conflict, Forbidden, InvalidRequest, NameTaken, NotFound
from vws.core.image_names import PUBLIC, ImageReference, read_reference, show_tag
from vws.core.manifest import digest
from vws.core.present import Present
from vws.core.site import Group, Image, ImageTag, Role, Save


@dataclass(frozen=True, slots=True)
class ImageUser:
    """vo: "" for none. is_admin: may use every image."""

    name: str
    vo: str = ""
    is_admin: bool = False


def user_of(present: Present, name: str, now: float) -> ImageUser:
    """Somebody who is known by name alone. An administrator is who has a token that says so."""
    return ImageUser(name, present.outlook.chosen.membership.vo_of(name), _is_admin(present, name, now))


def _is_admin(present: Present, name: str, now: float) -> bool:
    return any(
        token.subject == name and token.role is Role.ADMIN and (token.expires_at is None or token.expires_at > now)
        for token in list(present.tokens.values())
    )


def may_use(image: Image, user: ImageUser) -> bool:
    if user.is_admin or image.owner == user.name or PUBLIC in image.shared:
        return True
    return bool(user.vo) and user.vo in image.shared


def may_change(image: Image, user: ImageUser) -> bool:
    return user.is_admin or image.owner == user.name


# ---------------------------------------------------------------- finding


def look_up(present: Present, reference: ImageReference, user: ImageUser) -> Image | None:
    """The live image that is meant. Of several with one digest: the user's own, else one that he may use."""
    if reference.id:
        return present.images.get(reference.id)
    if reference.name:
        tag = present.tagged(reference.name, reference.tag)
        return present.images.get(tag.image) if tag else None
    return _by_digest(present, reference.digest, user)


def _by_digest(present: Present, prefix: str, user: ImageUser) -> Image | None:
    images = list(present.images.values())
    found = [image for image in images if not image.simulated and digest(image).startswith(prefix)]
    if len({digest(image) for image in found}) > 1:
        raise InvalidRequest(
            f"several images' digests begin with {prefix}", field="image", asked=prefix, possible="more digits"
        )
    found.sort(key=lambda image: (image.owner != user.name, not may_use(image, user), image.id))
    return found[0] if found else None


def find_image(present: Present, asked: str, user: ImageUser, field: str) -> Image:
    """The image that a lease asks for. Raises InvalidRequest if there is none of that name, Forbidden if it is not for
    this user, Conflict if it is granted to nobody."""
    image = look_up(present, read_reference(asked, field), user)
    if image is None:
        names = sorted(usable_names(present, user))
        raise InvalidRequest(
            f"there is no image {asked[:60]!r}",
            field=field,
            asked=asked[:60],
            possible=f"one of: {', '.join(names[:20])}" if names else "import one first (vws image import)",
        )
    must_be_usable(image, user, asked, field)
    _must_be_granted(image, asked, field)
    return image


def must_be_usable(image: Image, user: ImageUser, asked: str, field: str) -> None:
    if not may_use(image, user):
        belongs = f"{user.name} (of the VO {user.vo})" if user.vo else user.name
        raise Forbidden(
            f"the image {asked[:60]} is private, and not shared with {belongs}",
            field=field,
            asked=asked[:60],
            possible="its owner may share it: vws image share; vws image list shows what you may use",
        )


def _must_be_granted(image: Image, asked: str, field: str) -> None:
    if image.damaged:
        raise Conflict(
            f"the image {asked[:60]} is damaged: {image.damaged}; nothing new is granted with it",
            field=field,
            asked=asked[:60],
            possible="its owner may import the same file again, which mends it",
        )
    if image.retired_at is not None:
        raise Conflict(
            f"the image {asked[:60]} is being removed: it stays only for the leases that use it",
            field=field,
            asked=asked[:60],
            possible="another image (vws image list), or have its owner import it again",
        )


def usable_names(present: Present, user: ImageUser) -> Iterator[str]:
    for tag in list(present.image_tags.values()):
        image = present.images.get(tag.image)
        if image is not None and may_use(image, user):
            yield show_tag(tag.name, tag.tag)


def called(present: Present, image: Image) -> str:
    """What people call it: one of its names, else its id."""
    tags = present.tags_of(image.id)
    return show_tag(tags[0].name, tags[0].tag) if tags else image.id


def called_by(present: Present, image: Image, asked: str) -> str:
    """What it was asked by, if that is a name; else what people call it: an id or a digest tells them nothing."""
    reference = read_reference(asked)
    return str(reference) if reference.name else called(present, image)


# ---------------------------------------------------------------- names


def name_owner(present: Present, name: str) -> str:
    """Whose a name is; "" while it is nobody's."""
    return next((tag.owner for tag in list(present.image_tags.values()) if tag.name == name), "")


def must_own_name(present: Present, name: str, user: ImageUser) -> None:
    owner = name_owner(present, name)
    if owner and owner != user.name and not user.is_admin:
        raise NameTaken(
            f"the name {name} belongs to another user, who pushed an image under it first",
            field="name",
            asked=name,
            possible="another name",
        )


def put_tag(draft: Draft, new_id: str, image: Image, name: str, tag: str, user: ImageUser) -> ImageTag:
    """Let NAME:TAG point at `image` from now on; what it pointed at before stays on record. Raises NameTaken."""
    must_own_name(draft.present, name, user)
    before = draft.present.tagged(name, tag)
    if before is not None and before.image == image.id:
        return before
    if before is not None:
        draft.put_image_tag(replace(before, removed_at=draft.now))
    owner = name_owner(draft.present, name) or user.name
    after = ImageTag(new_id, name, tag, image.id, owner, draft.now)
    said = {"name": name, "tag": tag, "digest": digest(image), "before": before.image if before else ""}
    draft.say("image.tagged", owner=owner, image=image.id, **said)
    return draft.put_image_tag(after)


def remove_tag(draft: Draft, tag: ImageTag) -> None:
    draft.say("image.untagged", owner=tag.owner, image=tag.image, name=tag.name, tag=tag.tag)
    draft.put_image_tag(replace(tag, removed_at=draft.now))


# ---------------------------------------------------------------- use


def leases_using(present: Present, image: str) -> list[str]:
    """The names of the leases that have it or are to have it, waiting and planned ones too, sorted."""
    found = {w.lease for w in list(present.workspaces.values()) if w.image == image}
    leases = list(present.leases.values())
    return sorted(lease.name for lease in leases if lease.id in found or any(has(g, {image}) for g in lease.groups))


def has(group: Group, images: Collection[str]) -> bool:
    """One of the images to boot, or as a disk that is shared."""
    return group.image in images or any(disk.image in images for disk in group.disks)


def deltas_on(present: Present, image: str) -> list[Image]:
    """The images whose disk is a delta on that image's."""
    return [each for each in list(present.images.values()) if each.base == image]


def due_saves(present: Present, image: str) -> list[Save]:
    """Workspaces on their way to become deltas on that image."""
    return [save for save in list(present.saves.values()) if save.base == image]


def is_needed(present: Present, image: str) -> bool:
    return bool(deltas_on(present, image)) or bool(due_saves(present, image)) or bool(leases_using(present, image))


def must_exist(present: Present, image: Image | None, asked: str, user: ImageUser) -> Image:
    if image is None:
        name = asked.partition(":")[0]
        tags = sorted(each.tag for each in _tags_called(present, name, user))
        raise NotFound(
            f"there is no image {asked[:60]!r}" + (f", though there is a {name[:60]}" if tags else ""),
            field="id",
            asked=asked[:60],
            possible=", ".join(f"{name}:{tag}" for tag in tags[:20]) if tags else "vws image list shows yours",
        )
    return image


def _tags_called(present: Present, name: str, user: ImageUser) -> Iterator[ImageTag]:
    """The tags that a name has, of images that the user may use."""
    for tag in list(present.image_tags.values()):
        image = present.images.get(tag.image)
        if tag.name == name and image is not None and may_use(image, user):
            yield tag
