"""Images made encrypted: a disk in the clear becomes a qcow2 of the same content in LUKS.

What boots such an image directly, kernel and initrd, stays in the clear: the hypervisor reads them before anything of
the guest runs. The disk is written once, by the confined child that converts, and nothing in the clear is left beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vws.core.errors import Conflict, InvalidRequest
from vws.core.manifest import made_sha256
from vws.core.site import Image, ImageFile
from vws.service import conversion
from vws.service.disk_check import Found, examine_disk
from vws.service.image_files import ImageFiles

# What LUKS takes beside the disk, for its header.
HEADER_BYTES = 8 << 20
IN_THE_CLEAR = ("kernel", "initrd")


def encrypted_disk(
    chain: Sequence[tuple[Path, str]], target: Path, bytes_max: int, passphrase: str
) -> tuple[ImageFile, Path]:
    """The disk that is first in `chain`, with all that it is a delta of, encrypted at `target`: with the role `disk`.
    Blocks. Raises what conversion.convert does."""
    (top, kind), *beneath = chain
    limit = bytes_max + HEADER_BYTES
    conversion.convert(top, kind, target, "qcow2", limit, beneath=beneath, passphrase=passphrase)
    return examine_disk(target, "disk", "qcow2", limit, passphrase), target


def encrypt_found(found: Found, parts: Path, bytes_max: int, passphrase: str) -> Found:
    """What is in an upload, with its disk encrypted. Conflict if it has none."""
    files = [encrypt_one(file, path, parts, bytes_max, passphrase) for file, path in found.files]
    if not any(file.role == "disk" for file, _ in files):
        raise no_disk("this image")
    return replace(found, files=tuple(files))


def encrypt_one(file: ImageFile, path: Path, parts: Path, bytes_max: int, passphrase: str) -> tuple[ImageFile, Path]:
    if file.role in IN_THE_CLEAR or file.encryption:
        return file, path
    parts.mkdir(mode=0o700, exist_ok=True)
    made, path = encrypted_disk([(path, file.format)], parts / f"encrypted-{file.role}", bytes_max, passphrase)
    return replace(made, role=file.role), path


def encrypt_image(
    image: Image, files: ImageFiles, work: Path, bytes_max: int, passphrase: str
) -> tuple[Image, list[tuple[ImageFile, Path]]]:
    """An image on record as an encrypted one, which has no id yet, and its new files. Conflict if it is damaged."""
    if image.disk is None:
        raise no_disk(f"the image {image.name}")
    work.mkdir(mode=0o700, exist_ok=True)
    secret = [file for file in image.files if file.role not in IN_THE_CLEAR]
    files.check_whole(image, (file for file in image.files if file not in secret))
    for file in {file.sha256: file for file in secret}.values():
        files.place(image, file, work / file.sha256)
    chain = [(work / file.sha256, file.format) for file in image.chain]
    new = [encrypted_disk(chain, work / "encrypted-disk", bytes_max, passphrase)]
    data = (file for file in secret if file not in image.chain)
    new += [encrypt_one(file, work / file.sha256, work, bytes_max, passphrase) for file in data]
    kept = (*(file for file, _ in new), *(file for file in image.files if file not in secret))
    made = replace(
        image, id="", files=kept, size_bytes=sum(file.size_bytes for file in kept),
        base="", removed_at=None, retired_at=None, damaged="",
    )  # fmt: skip
    return replace(made, sha256=made_sha256(made)), new


def no_disk(name: str) -> Conflict:
    return Conflict(
        f"{name} has no disk: there is nothing to encrypt, as kernel and initrd stay in the clear", field="file",
        possible="an image with a disk",
    )  # fmt: skip


def check_passphrase(found: Found, passphrase: str | None) -> None:
    """Raise InvalidRequest if one was given for what is not encrypted."""
    if passphrase is not None and not any(file.encryption for file, _ in found.files):
        raise InvalidRequest(
            "a passphrase was given, but the image is not encrypted", field="passphrase",
            possible="without it; or --encrypt, to have it encrypted here",
        )  # fmt: skip
