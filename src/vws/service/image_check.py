"""What an uploaded file really is, told from its bytes; see service/images.py for why so little is believed.

Disks that nodes are given as they are (qcow2, raw) are kept as they came. Everything else is taken apart or converted
first, confined (service/conversion.py): other formats of disks to qcow2, a root file system's tar to a disk with its
kernel beside it. Which of them a file is, core/image_formats.py tells.
"""

from __future__ import annotations

import os
from pathlib import Path

from vws.core import image_formats
from vws.core.image_formats import wrong
from vws.core.site import ImageFile
from vws.service import bundles, conversion, oci_layout, root_disk, tar_stream
from vws.service.disk_check import BYTES_MAX, Found, check_whole, digest, examine_disk, look, reader

__all__ = ("Found", "examine")


def examine(
    path: Path, parts: Path, declared: str | None = None, bytes_max: int = BYTES_MAX, passphrase: str | None = None
) -> Found:
    """Look at a complete file; what it is unpacked or converted to is put into the new folder `parts`.

    declared: the format that its owner says it has, one of image_formats.IMPORTED; bytes_max: of what it comes to,
    unpacked; passphrase: of the disk in it, if that is encrypted. Raises InvalidRequest with field "file",
    "passphrase", or "format" if it has another one.
    """
    with reader(path) as read:
        kind = image_formats.told(read, path.stat().st_size, declared)
    if kind in ("qcow2", "raw"):
        return _of_disk(examine_disk(path, "disk", kind, bytes_max, passphrase), path)
    if kind == "iso":
        return _iso(path, declared is not None)
    os.mkdir(parts, 0o700)
    if kind == "bundle":
        return bundles.unpack(path, parts, bytes_max, passphrase)
    if kind == "oci":
        return oci_layout.unpack(path, parts, bytes_max, passphrase)
    if kind == "ova":
        return _appliance(path, parts, bytes_max)
    if kind == "tar":
        return _root(path, parts, bytes_max)
    return _converted(path, kind, parts, bytes_max)


def _of_disk(disk: ImageFile, path: Path) -> Found:
    return Found("disk", ((disk, path),), disk_mib_min=disk.virtual_size_mib)


def _appliance(path: Path, parts: Path, bytes_max: int) -> Found:
    """Of an OVA its one disk. What its description asks of a machine is for other hypervisors; a lease says it here."""
    tar_stream.unpack(path, parts, lambda name: "disk.vmdk" if name.endswith(".vmdk") else None, "the OVA")
    disk = parts / "disk.vmdk"
    if not disk.exists():
        raise wrong("this OVA holds no disk (.vmdk)", "an OVA with one disk")
    found = _converted(disk, "vmdk", parts, bytes_max)
    disk.unlink()
    return found


def _converted(path: Path, kind: str, parts: Path, bytes_max: int) -> Found:
    look(path, kind)
    check_whole(path, kind)
    disk = parts / "disk.qcow2"
    conversion.convert(path, kind, disk, "qcow2", bytes_max)
    return _of_disk(examine_disk(disk, "disk", "qcow2", bytes_max), disk)


def _iso(path: Path, declared: bool) -> Found:
    """Workspaces have disks and no CD drives: an ISO image is a raw disk, which boots if it has a boot sector."""
    with reader(path) as read:
        boots = read(510, 2) == b"\x55\xaa"
    if not boots and not declared:
        raise wrong(
            "this ISO image can boot from a CD drive only, and workspaces have none",
            "give it a boot sector (isohybrid FILE), or --format iso to take it as a disk of data",
        )
    return _of_disk(examine_disk(path, "disk", "raw"), path)


def _root(path: Path, parts: Path, bytes_max: int) -> Found:
    made = root_disk.make(path, digest(path), parts, bytes_max)
    disk = examine_disk(made.disk, "disk", "qcow2", bytes_max)
    booting = [
        (ImageFile(role, digest(at), at.stat().st_size, role), at)
        for role, at in (("kernel", made.kernel), ("initrd", made.initrd))
    ]
    files = (*booting, (disk, made.disk))
    return Found("direct", files, made.cmdline, ready=made.ready, disk_mib_min=disk.virtual_size_mib)
