"""What a disk image is, and what is in an image: the part of a look that is the same whatever a disk came in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vws.core import disk_headers
from vws.core.disks import Disk
from vws.core.image_formats import Read, wrong
from vws.core.site import DocumentKind, ImageFile
from vws.service.conversion import qemu_img

CHECKED = ("vmdk", "vdi", "vhdx")
# What may come of a file unpacked, unless the site says otherwise.
BYTES_MAX = 64 << 30


@dataclass(frozen=True)
class Found:
    """What is in an image: its files, each with the path of its bytes, and how it boots (core/site.py: Image).

    documents: what a bundle says of itself, each with its media type. beside: the disks that it declares.
    """

    boot: str
    files: tuple[tuple[ImageFile, Path], ...]
    cmdline: str = ""
    user: str = "root"
    ready: str = "ssh"
    memory_mib_min: int = 0
    disk_mib_min: int = 0
    documents: tuple[tuple[DocumentKind, str, bytes], ...] = ()
    beside: tuple[Disk, ...] = ()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def reader(path: Path) -> Iterator[Read]:
    with path.open("rb") as file:
        yield lambda offset, length: os.pread(file.fileno(), length, offset)


def examine_disk(
    path: Path, role: str, kind: str, bytes_max: int = BYTES_MAX, passphrase: str | None = None
) -> ImageFile:
    """A disk that is kept as it is: qcow2 or raw, which stands alone, is undamaged and unpacks to no more than
    `bytes_max`. passphrase: of one that may be encrypted; it must open it then. Raises InvalidRequest with field
    "file", or "passphrase"."""
    info = look(path, kind, luks=passphrase is not None)
    encryption = "luks" if info.get("encrypted") else ""
    if kind == "qcow2":
        _check_qcow2(path, info, bytes_max, (passphrase or "") if encryption else "")
    size_mib = -(-info["virtual-size"] // (1 << 20))
    return ImageFile(role, digest(path), path.stat().st_size, kind, size_mib, encryption=encryption)


def look(path: Path, kind: str, *, luks: bool = False) -> dict[str, Any]:
    """What qemu-img says of an image whose header says that it stands alone; InvalidRequest otherwise."""
    with reader(path) as read:
        disk_headers.virtual_size(kind, read, path.stat().st_size, luks=luks)
    info = qemu_img("info", kind, path)
    if _names_others(info, path):
        raise wrong(f"this {kind} image refers to another file", "an image that stands alone")
    if not isinstance(info.get("virtual-size"), int):
        raise wrong(f"qemu-img cannot tell the size of this {kind} image", "an undamaged copy of it")
    return info


def _names_others(info: dict[str, Any], path: Path) -> bool:
    """What its header says was read before; this is what qemu-img understood."""
    data = info.get("format-specific", {}).get("data", {})
    extents = {extent.get("filename") for extent in data.get("extents", ())}
    return bool(info.get("backing-filename") or data.get("data-file") or extents - {str(path)})


def check_whole(path: Path, kind: str) -> None:
    """Raise InvalidRequest if data that an image of another hypervisor has on record is not in its file, which
    qemu-img would read as zeros. Formats without a check are held against their headers alone."""
    if kind in CHECKED:
        checked = qemu_img("check", kind, path)
        if checked.get("corruptions") or checked.get("check-errors"):
            raise wrong(f"this {kind} image is damaged or cut short (qemu-img check)", "an undamaged copy of it")


def _check_qcow2(path: Path, info: dict[str, Any], bytes_max: int, passphrase: str = "") -> None:
    checked = qemu_img("check", "qcow2", path, passphrase)
    if checked.get("corruptions") or checked.get("check-errors"):
        raise wrong("this qcow2 image is damaged (qemu-img check)", "an undamaged copy of it")
    size_bytes, cluster_bytes = path.stat().st_size, int(info.get("cluster-size", 0))
    allocated, compressed = (int(checked.get(key, 0)) for key in ("allocated-clusters", "compressed-clusters"))
    if (allocated - compressed - 1) * cluster_bytes > size_bytes:
        raise wrong("this qcow2 image uses the same bytes for many places of its disk", "an image that qemu-img wrote")
    if allocated * cluster_bytes > max(bytes_max, size_bytes):
        raise wrong(
            f"this qcow2 image unpacks to {allocated * cluster_bytes} bytes", f"at most {bytes_max} bytes, unpacked"
        )
