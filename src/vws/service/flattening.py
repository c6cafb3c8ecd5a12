"""Deltas made into images that stand alone: when somebody asks for it, not before, as it takes time and room.

The disk is written by a confined program, like every conversion, from the files that the record names as its chain, and
looked at like a stranger's. The image is another one than the delta: other bytes, so another digest, and nothing that
was said of the delta (signatures, a bill of materials) is said of it. What it was made from is on record, and in its
provenance.

How far it is can be asked meanwhile. A service that is killed in between leaves nothing but a file that it sweeps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vws import __version__
from vws.core.errors import NotFound
from vws.core.image_names import check_new_name, show_tag
from vws.core.image_origin import made_from
from vws.core.manifest import digest, made_sha256
from vws.core.site import Answer, Document, DocumentKind, Image, ImageFile, OriginKind
from vws.service.access import Caller
from vws.service.disk_check import examine_disk
from vws.service.exports import Exports
from vws.service.images import Images
from vws.service.once import Once
from vws.service.site import Site

STATEMENT_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:vws:build:flatten:1"
BUILDER = "urn:vws:builder:image-copy"


@dataclass(frozen=True)
class Progress:
    """most_bytes: what it may come to; it is often less, as what a delta replaces is not kept."""

    done_bytes: int
    most_bytes: int


class Flattening:
    def __init__(self, site: Site, images: Images, exports: Exports) -> None:
        self._site = site
        self._images = images
        self._exports = exports
        self._under_way: dict[tuple[str, str], tuple[Path, int]] = {}

    def copy(self, caller: Caller, asked: str, name: str, once: Once | None = None) -> Image | Answer:
        """An image of one's own with the content of another and a disk that stands alone; what does already is copied
        as it is. Blocks while a disk is written. Raises what Images.copy and Exports.export raise."""
        image = self._images.image(caller, asked)
        if not image.base:
            return self._images.copy(caller, asked, name, once)
        self._images.check_upload(caller, name, None)
        tag = check_new_name(name)
        path = self._images.begin()
        try:
            with self._told(caller, image, path):
                self._images.files.check_whole(image, (file for file in image.files if file not in image.chain))
                self._exports.write_flat(image, path)
                disk = examine_disk(path, "disk", "qcow2", self._site.settings.image_bytes_max)
            origins = made_from(self._site.present, image, OriginKind.FLATTENED)
            flat = replace(flat_image(image, disk, tag[0], caller.subject), origins=origins)
            return self._images.enter_made(
                caller, tag, flat, (disk, path),
                lambda kept: [self._provenance(image, kept, show_tag(*tag), caller)],
                lambda draft, kept: kept, once,
            )  # fmt: skip
        finally:
            path.unlink(missing_ok=True)

    def progress(self, caller: Caller, asked: str) -> Progress:
        """How far a caller's own flattening of an image is. NotFound if there is none under way."""
        image = self._images.image(caller, asked)
        found = self._under_way.get((caller.subject, image.id))
        if found is None:
            raise NotFound(f"the image {asked[:60]} is not being flattened", field="id", asked=asked[:60])
        path, most_bytes = found
        done_bytes = path.stat().st_size if path.exists() else 0
        return Progress(min(done_bytes, most_bytes), most_bytes)

    @contextmanager
    def _told(self, caller: Caller, image: Image, path: Path) -> Iterator[None]:
        most_bytes = sum(file.size_bytes for file in image.chain)
        self._under_way[caller.subject, image.id] = (path, most_bytes)
        try:
            yield
        finally:
            self._under_way.pop((caller.subject, image.id), None)

    def _provenance(self, source: Image, image: Image, name: str, caller: Caller) -> Document:
        beneath = {"name": source.name, "uri": f"vws:{source.id}", "digest": {"sha256": digest(source)}}
        statement: dict[str, Any] = {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": digest(image)}}],
            "predicateType": PROVENANCE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {"image": source.id, "user": caller.subject},
                    "resolvedDependencies": [beneath],
                },
                "runDetails": {"builder": {"id": BUILDER, "version": {"vws": __version__}}},
            },
        }
        content = json.dumps(statement, indent=1).encode() + b"\n"
        now = self._site.clock.now()
        return Document("", image.id, DocumentKind.PROVENANCE, STATEMENT_TYPE, content, now, caller.subject)


def flat_image(image: Image, disk: ImageFile, name: str, owner: str) -> Image:
    """The image with a disk that stands alone. It has no id yet."""
    files = (disk, *(file for file in image.files if file.role not in ("disk", "base")))
    made = replace(
        image, id="", name=name, owner=owner, size_bytes=sum(file.size_bytes for file in files),
        files=files, disk_mib_min=disk.virtual_size_mib, base="", created_at=0.0, removed_at=None, shared=(),
        retired_at=None, damaged="",
    )  # fmt: skip
    return replace(made, sha256=made_sha256(made))
