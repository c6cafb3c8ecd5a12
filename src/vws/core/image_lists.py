"""HEPiX image lists: what images an endorser vouches for, as VMcaster writes them and VMcatcher reads them.

A list is a JSON document which its endorser signs (S/MIME; service/smime.py) and publishes beside the images. It says
of each image where its bytes are and their sha512, so that whoever holds the list can take the bytes from anywhere. A
list is worth nothing by itself: its reader names the endorser beforehand, by the subject of the certificate and of the
authority that issued it, and the document must name the same. It ends at a date, and with it what it vouched for.

Unknown keys are passed over, as lists carry those of other sites; a key that we read must be well formed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vws.core.errors import InvalidRequest

LIST_BYTES_MAX = 4 << 20
IMAGES_MAX = 10_000
TEXT_LENGTH_MAX = 10_000
SIZE_BYTES_MAX = 1 << 50
# How far an endorser's clock may be ahead.
AHEAD_S_MAX = 3600

_SHA512 = re.compile(r"[0-9a-f]{128}\Z")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:?\d\d)?\Z")
# hv:format, as written on lists -> what we call it; of any other the bytes tell.
_FORMATS = {"qcow2": "qcow2", "raw": "raw", "vmdk": "vmdk", "vhd": "vpc", "vhdx": "vhdx", "vdi": "vdi", "ova": "ova"}


@dataclass(frozen=True, slots=True)
class Endorser:
    """dn, ca: subjects of the certificate and of its authority, written /C=.../CN=..."""

    dn: str
    ca: str
    email: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ListedImage:
    """identifier: stays when its version changes. uri: where its bytes are. format: as on the list, "" if not said."""

    identifier: str
    version: str
    uri: str
    size_bytes: int
    sha512: str
    title: str = ""
    description: str = ""
    hypervisor: str = "QEMU,KVM"
    arch: str = "x86_64"
    os: str = "Linux"
    os_version: str = ""
    comments: str = ""
    format: str = ""

    @property
    def declared(self) -> str | None:
        """Its format as `vws image import --format` calls it; None if the list does not say, or in other words."""
        return _FORMATS.get(self.format.lower())


@dataclass(frozen=True, slots=True)
class ImageList:
    """created_at, expires_at: UTC seconds. uri: where the list itself is published."""

    identifier: str
    version: str
    title: str
    created_at: int
    expires_at: int
    endorser: Endorser
    images: tuple[ListedImage, ...]
    description: str = ""
    source: str = ""
    uri: str = ""


# ---------------------------------------------------------------- reading


def read(payload: bytes) -> ImageList:
    """What a list says. Raises InvalidRequest with field "list" for what is none, naming the key."""
    if len(payload) > LIST_BYTES_MAX:
        raise _wrong(f"it has {len(payload)} bytes", f"at most {LIST_BYTES_MAX}")
    said = _object(_json(payload), "hv:imagelist")
    images = said.get("hv:images")
    if not isinstance(images, list) or len(images) > IMAGES_MAX:
        raise _wrong("hv:images is no list of images", f"at most {IMAGES_MAX} images")
    found = ImageList(
        identifier=_text(said, "dc:identifier", must=True),
        version=_text(said, "hv:version", must=True),
        title=_text(said, "dc:title"),
        created_at=_time(said, "dc:date:created"),
        expires_at=_time(said, "dc:date:expires"),
        endorser=_endorser(_object(_object(said, "hv:endorser"), "hv:x509")),
        images=tuple(_image(_object(each, "hv:image")) for each in images),
        description=_text(said, "dc:description"),
        source=_text(said, "dc:source"),
        uri=_text(said, "hv:uri"),
    )
    identifiers = [image.identifier for image in found.images]
    if len(set(identifiers)) != len(identifiers):
        raise _wrong("two of its images have the same dc:identifier", "each image once")
    return found


def check(found: ImageList, endorser: Endorser, now: float) -> None:
    """Raise InvalidRequest unless it is that endorser's, and of this time. `endorser`: of the certificate that signed
    it, which is the one on record."""
    for key, named, signed in (("hv:dn", found.endorser.dn, endorser.dn), ("hv:ca", found.endorser.ca, endorser.ca)):
        if not same_name(named, signed):
            raise _wrong(f"its {key} is {named[:200]!r}, but it is signed by {signed[:200]!r}", "a list of one's own")
    if found.created_at > now + AHEAD_S_MAX:
        raise _wrong("it was made in the future", "the right time on both machines")
    if found.expires_at <= now:
        raise _wrong(f"it expired on {written_time(found.expires_at)}", "a newer list from its endorser")


def same_name(first: str, second: str) -> bool:
    """Whether two subjects are one. Written with slashes; that e-mail addresses have three names is the field's
    heritage."""

    def plain(name: str) -> str:
        return re.sub(r"/(?:emailAddress|Email|E)=", "/emailAddress=", name.strip())

    return plain(first) == plain(second)


def _json(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        raise _wrong("it is no JSON", "the list as its endorser published it") from None


def _object(said: Any, key: str) -> dict[str, Any]:
    value = said.get(key) if isinstance(said, dict) else None
    if not isinstance(value, dict):
        raise _wrong(f"{key} is missing, or no object", "a HEPiX image list")
    return value


def _text(said: Mapping[str, Any], key: str, *, must: bool = False) -> str:
    value = said.get(key)
    if value is None and not must:
        return ""
    if not isinstance(value, str) or (must and not value) or len(value) > TEXT_LENGTH_MAX:
        raise _wrong(f"{key} is no text", f"at most {TEXT_LENGTH_MAX} characters")
    return value


def _time(said: Mapping[str, Any], key: str) -> int:
    text = _text(said, key, must=True)
    found = _TIME.match(text)
    try:
        moment = datetime.fromisoformat(found[1] + (found[2] or "Z")) if found else None
    except ValueError:
        moment = None
    if moment is None:
        raise _wrong(f"{key} is {text[:40]!r}", "a time such as 2026-12-31T12:00:00Z")
    return int(moment.timestamp())


def _endorser(said: Mapping[str, Any]) -> Endorser:
    return Endorser(
        dn=_text(said, "hv:dn", must=True),
        ca=_text(said, "hv:ca", must=True),
        email=_text(said, "hv:email"),
        name=_text(said, "dc:creator"),
    )


def _image(said: Mapping[str, Any]) -> ListedImage:
    sha512 = _text(said, "sl:checksum:sha512", must=True).lower()
    if not _SHA512.match(sha512):
        raise _wrong("sl:checksum:sha512 is no sha512", "128 hexadecimal digits")
    return ListedImage(
        identifier=_text(said, "dc:identifier", must=True),
        version=_text(said, "hv:version", must=True),
        uri=_text(said, "hv:uri", must=True),
        size_bytes=_size(said.get("hv:size")),
        sha512=sha512,
        title=_text(said, "dc:title"),
        description=_text(said, "dc:description"),
        hypervisor=_text(said, "hv:hypervisor"),
        arch=_text(said, "sl:arch"),
        os=_text(said, "sl:os"),
        os_version=_text(said, "sl:osversion"),
        comments=_text(said, "sl:comments"),
        format=_text(said, "hv:format"),
    )


def _size(value: Any) -> int:
    """Written as a number by some and as text by others."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        value = int(value)
    if type(value) is not int or not 0 < value <= SIZE_BYTES_MAX:
        raise _wrong(f"hv:size is {value!r:.40}", f"a whole number of bytes, at most {SIZE_BYTES_MAX}")
    return value


def _wrong(problem: str, possible: str) -> InvalidRequest:
    return InvalidRequest(f"this image list cannot be taken: {problem}", field="list", possible=possible)


# ---------------------------------------------------------------- writing


def written(made: ImageList) -> bytes:
    """The JSON of a list; `read` gives the same list again. Raises InvalidRequest if it could not be read."""
    said = {
        "dc:date:created": written_time(made.created_at),
        "dc:date:expires": written_time(made.expires_at),
        "dc:description": made.description,
        "dc:identifier": made.identifier,
        "dc:source": made.source,
        "dc:title": made.title,
        "hv:endorser": {
            "hv:x509": {
                "dc:creator": made.endorser.name,
                "hv:ca": made.endorser.ca,
                "hv:dn": made.endorser.dn,
                "hv:email": made.endorser.email,
            }
        },
        "hv:images": [{"hv:image": _written_image(image)} for image in made.images],
        "hv:uri": made.uri,
        "hv:version": made.version,
    }
    payload = json.dumps({"hv:imagelist": said}, indent=2, sort_keys=True).encode() + b"\n"
    read(payload)
    return payload


def _written_image(image: ListedImage) -> dict[str, Any]:
    said = {
        "dc:description": image.description,
        "dc:identifier": image.identifier,
        "dc:title": image.title,
        "hv:hypervisor": image.hypervisor,
        "hv:size": image.size_bytes,
        "hv:uri": image.uri,
        "hv:version": image.version,
        "sl:arch": image.arch,
        "sl:checksum:sha512": image.sha512,
        "sl:comments": image.comments,
        "sl:os": image.os,
        "sl:osversion": image.os_version,
    }
    return said | ({"hv:format": image.format} if image.format else {})


def written_time(moment: float) -> str:
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
