"""Images on their way out, in the format that somebody else's hypervisor or registry reads.

What is stored in that format goes out as it lies there. Bundles and OCI layouts are tars of files that are there: they
are written while they are sent. Only a disk that must be converted takes room: it is made by a confined program like
what comes in (service/conversion.py), and kept for a while (service/converted.py). So each can be sent from any place
on, and one that broke goes on, as long as its tag is the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vws.core import image_formats
from vws.core.errors import Conflict, InvalidRequest
from vws.core.manifest import digest
from vws.core.site import Document, Image, ImageFile
from vws.service import bundles, conversion, oci_layout, tar_stream
from vws.service.access import Caller
from vws.service.converted import Converted, Kept
from vws.service.images import Images
from vws.service.site import Site

MARGIN_BYTES = 64 << 20

Content = Callable[[ImageFile], Iterable[bytes]]


@dataclass(frozen=True)
class Export:
    """A file on its way out. read: its bytes from an offset on, once. tag: the same tag, the same bytes. left_out: what
    of the image is not in it, in words; "": nothing."""

    length_bytes: int
    read: Callable[[int], Iterable[bytes]]
    tag: str
    left_out: str = ""


class Exports:
    def __init__(self, site: Site, images: Images, folder: Path) -> None:
        self._site = site
        self._images = images
        self._files = images.files
        self.converted = Converted(folder, site.clock.now)

    def export(self, caller: Caller, id_or_name: str, kind: str) -> Export:
        """The image in a format of image_formats.EXPORTED. Blocks while a disk is converted.

        Raises InvalidRequest for another format or one that cannot hold this image, NotFound, Conflict for
        one that is damaged, Unavailable. What is found damaged on its way out breaks off.
        """
        kind = check_format(kind)
        image = self._images.image(caller, id_or_name)
        if image.simulated:
            raise Conflict(f"the image {image.name} is simulated: it has no files", asked=image.name)
        self._files.check(image)
        if kind in image_formats.DISKS:
            return self._disk(image, kind)
        return self._tar(image, kind, self._images.documents(caller, image.id))

    # ------------------------------------------------------------ disks

    def _disk(self, image: Image, kind: str) -> Export:
        disk = next((file for file in image.files if file.role == "disk"), None)
        if disk is None:
            raise InvalidRequest(
                f"the image {image.name} has no disk", field="format", asked=kind, possible="--format bundle or oci"
            )
        left_out = _beside_the_disk(image)
        if disk.format == kind and not disk.base:
            left_out = ", and ".join(filter(None, (left_out, _key_of(image))))
            return Export(disk.size_bytes, partial(self._files.whole, image, disk), disk.sha256, left_out)
        if image.encrypted:
            raise InvalidRequest(
                f"the image {image.name} is encrypted, and goes out as it is kept: no other format is, with its key",
                field="format", asked=kind, possible="--format qcow2, bundle or oci",
            )  # fmt: skip
        made = self._converted(image, disk, kind)
        return Export(made.size_bytes, made.read, made.tag, left_out)

    def _converted(self, image: Image, disk: ImageFile, kind: str) -> Kept:
        """The disk, standing alone, in another format."""

        def make(target: Path, work: Path) -> None:
            self._convert(image, disk, kind, target, work)

        return self.converted.open(f"{digest(image)}.{kind}", make)

    def write_flat(self, image: Image, target: Path) -> None:
        """A delta's disk as a qcow2 that stands alone, into a new file beside which there is room for links. Blocks.
        Raises Conflict, Unavailable."""
        self._files.check(image)
        work = target.with_suffix(".work")
        work.mkdir(mode=0o700)
        try:
            self._convert(image, next(file for file in image.files if file.role == "disk"), "qcow2", target, work)
        finally:
            shutil.rmtree(work)

    def _convert(self, image: Image, disk: ImageFile, kind: str, target: Path, work: Path) -> None:
        """work: a folder for what it is made from."""
        chain = (disk, *self._beneath(image, disk))
        (top, _), *beneath = [(self._placed(image, file, work), file.format) for file in chain]
        # Formats come to more than the disk itself by what they say of it.
        bytes_max = max(self._site.settings.image_bytes_max, 2 * (disk.virtual_size_mib << 20)) + MARGIN_BYTES
        conversion.convert(top, disk.format, target, kind, bytes_max, beneath=beneath)

    def _placed(self, image: Image, file: ImageFile, work: Path) -> Path:
        path = work / file.sha256
        self._files.place(image, file, path)
        return path

    def _beneath(self, image: Image, disk: ImageFile) -> list[ImageFile]:
        """The disks that a delta lies on, the nearest first, by the record."""
        found: list[ImageFile] = []
        while disk.base:
            lower = next((f for f in image.files if f.sha256 == disk.base and f.role == "base"), None)
            if lower is None:
                raise Conflict(f"the disk that {image.name} is a delta of is not on record", asked=image.name)
            found.append(lower)
            disk = lower
        return found

    # ------------------------------------------------------------ tars

    def _tar(self, image: Image, kind: str, documents: Iterable[Document]) -> Export:
        flat, left_out = image, ""
        content: Content = partial(self._files.whole, image)
        if any(file.base for file in image.files):
            flat, content = self._flattened(image)
            documents, left_out = (), "what is said of it (vws image documents): flattened it is another image"
        if kind == "bundle" and any(file.role == "disk" and file.format != "qcow2" for file in flat.files):
            raise InvalidRequest(
                "a bundle holds a qcow2 disk only", field="format", asked=kind, possible="--format oci, or raw"
            )
        members = (bundles if kind == "bundle" else oci_layout).members(flat, content, tuple(documents))
        left_out = ", and ".join(filter(None, (left_out, _key_of(image))))
        read = partial(tar_stream.written, members)
        return Export(tar_stream.length_bytes(members), read, _tag_of(kind, flat, documents), left_out)

    def _flattened(self, image: Image) -> tuple[Image, Content]:
        """The image with a disk that stands alone, and where the bytes of its files are."""
        delta = next(file for file in image.files if file.base and file.role == "disk")
        made = self._converted(image, delta, "qcow2")
        disk = replace(delta, sha256=made.sha256(), size_bytes=made.size_bytes, base="")
        files = (disk if file is delta else file for file in image.files if file.role != "base")
        flat = replace(image, files=tuple(files), base="")
        return flat, lambda file: made.read() if file is disk else self._files.whole(image, file)


def _tag_of(kind: str, image: Image, documents: Iterable[Document]) -> str:
    """Of a tar: from all that its bytes come from."""
    said = [kind, image.id, image.name, digest(image), image.memory_mib_min, *(each.id for each in documents)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _beside_the_disk(image: Image) -> str:
    """What of an image its disk alone has not."""
    kernel = [] if image.boot == "disk" else ["the kernel that it boots with"]
    said = ", and ".join(kernel + (["its further disks"] if image.beside else []))
    return f"{said} (--format bundle or oci has {'it' if len(said.split(', and ')) == 1 else 'both'})" if said else ""


def _key_of(image: Image) -> str:
    return "the key of its disk (--with-key FILE, for its owner)" if image.encrypted else ""


def check_format(kind: str) -> str:
    kind = image_formats.ALIASES.get(kind, kind)
    if kind not in image_formats.EXPORTED:
        raise InvalidRequest(
            f"images are not exported as {kind[:40]!r}",
            field="format",
            asked=kind[:40],
            possible=image_formats.listed(image_formats.EXPORTED),
        )
    return kind
