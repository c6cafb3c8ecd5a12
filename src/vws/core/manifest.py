"""What of an image boots, in one form of bytes, so that it can be signed, granted and checked.

A signature over the file that was uploaded would be worth nothing on a node, which never sees that file: a bundle is
unpacked and a foreign format converted before. The manifest binds instead what a node is given: the files by their
sha256 and everything by which they are started. Whatever could change what runs is in it; what cannot (names, owner,
who may use it, when it came) is not, so that a copy on another site has the same digest.

The form is RFC 8785's: keys sorted, no spaces, UTF-8. There are strings and whole numbers only, of which JSON has one
spelling each. A file that is a delta names the disk under it by its sha256; nothing a header says of it counts. What is
in the clear says nothing of encryption, so that its digest is what it was before there was any; nor is anything said
of disks beside the root's where none is declared. One that is may hide what the root's has at its mount point.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from vws.core.disks import Disk, described
from vws.core.site import ImageFile

FORMAT = "vws-manifest/1"
MEDIA_TYPE = "application/vnd.vws.manifest.v1+json"


class Bootable(Protocol):
    """An `Image`, or a `WorkspaceOrder`, which carries the same for a node."""

    @property
    def boot(self) -> str: ...
    @property
    def cmdline(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def ready(self) -> str: ...
    @property
    def files(self) -> tuple[ImageFile, ...]: ...
    @property
    def beside(self) -> tuple[Disk, ...]: ...


def manifest(image: Bootable) -> bytes:
    """Canonical JSON of all that decides what boots. The order in which the files are on record does not matter."""
    return _manifest(image.boot, image.cmdline, image.user, image.ready, image.files, image.beside)


def digest(image: Bootable) -> str:
    """The sha256 of the manifest, 64 hexadecimal digits."""
    return _digest(image.boot, image.cmdline, image.user, image.ready, image.files, image.beside)


def made_sha256(image: Bootable) -> str:
    """What stands for the upload of an image that the site made itself (`Image.sha256`): its file's if it has but one,
    as that file brought again is the same image; else its digest, which is no file's."""
    return image.files[0].sha256 if len(image.files) == 1 and not image.beside else digest(image)


@lru_cache(4096)
def _digest(
    boot: str, cmdline: str, user: str, ready: str, files: tuple[ImageFile, ...], beside: tuple[Disk, ...]
) -> str:
    return hashlib.sha256(_manifest(boot, cmdline, user, ready, files, beside)).hexdigest()


def _manifest(
    boot: str, cmdline: str, user: str, ready: str, files: Sequence[ImageFile], beside: Sequence[Disk]
) -> bytes:
    entries = [
        {
            "base": file.base,
            "format": file.format,
            "role": file.role,
            "sha256": file.sha256,
            "size_bytes": file.size_bytes,
            "virtual_size_mib": file.virtual_size_mib,
            **({"encryption": file.encryption} if file.encryption else {}),
        }
        for file in sorted(files, key=lambda file: (file.role, file.sha256))
    ]
    said = {"boot": boot, "cmdline": cmdline, "files": entries, "format": FORMAT, "ready": ready, "user": user}
    said |= {"disks": described(beside)} if beside else {}
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
