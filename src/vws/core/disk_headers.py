"""What disk images of other hypervisors say of themselves, before any program opens them.

Each of these formats can name other files: a parent that the image is a delta of, extents that hold its data. Whoever
opens such an image opens those files too, on the machine where it is opened. So their headers are read here, and only
what stands alone passes, as for qcow2 (core/qcow2.py). Nothing else is checked: whether an image is whole and readable
is seen when it is converted. Layouts: VMware, "Virtual Disk Format 5.0"; Microsoft, "Virtual Hard Disk Image Format
Specification" and [MS-VHDX]; VirtualBox's VDICore.h.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from vws.core import qcow2
from vws.core.image_formats import FOOTER_BYTES, Read, wrong
from vws.core.terms import DISK_MIB_MAX

_SECTOR_BYTES = 512
_FLATTEN = "an image without a parent: merge it on the machine that has the parent"


def virtual_size(kind: str, read: Read, size_bytes: int, *, luks: bool = False) -> int:
    """The size in bytes of the disk that an image of this format (one of image_formats.DISKS) is. luks: a qcow2 may be
    encrypted that way.

    Raises InvalidRequest with field "file" if it refers to another file, is encrypted, damaged, or larger than a disk
    may be.
    """
    if kind == "qcow2":
        found = qcow2.read_header(read(0, qcow2.HEADER_BYTES), luks=luks).virtual_size_bytes
    else:
        found = size_bytes if kind == "raw" else _READERS[kind](read, size_bytes)
    if not 0 < found <= DISK_MIB_MAX << 20:
        raise wrong(f"its virtual size is {found} bytes", f"1 byte to {DISK_MIB_MAX} MiB")
    return found


def _number(data: bytes, offset: int, length: int, order: Literal["little", "big"] = "little") -> int:
    return int.from_bytes(data[offset : offset + length], order)


def _whole(data: bytes, length: int, name: str) -> bytes:
    if len(data) < length:
        raise wrong(f"this {name} image is cut short", "the whole file")
    return data


# ---------------------------------------------------------------- vmdk

_AT_END = (1 << 64) - 1
# QEMU reads that much of a description, whatever the header says of its length.
_DESCRIPTION_BYTES = 20 * _SECTOR_BYTES
_EXTENT = re.compile(rb'^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\w+)(?:\s+"([^"\n]*)")?', re.M)


def _vmdk(read: Read, size_bytes: int) -> int:
    if read(0, 4) != b"KDMV":
        _refuse_parts(read(0, _DESCRIPTION_BYTES))
    header = _whole(read(0, 79), 79, "vmdk")
    if _number(header, 56, 8) == _AT_END:  # written as a stream: the true header comes last
        _vmdk_header(read, _whole(read(max(0, size_bytes - 1024), 79), 79, "vmdk"))
    return _vmdk_header(read, header)


def _vmdk_header(read: Read, header: bytes) -> int:
    if header[:4] != b"KDMV":
        raise wrong("this vmdk image is cut short: its last sectors are missing", "the whole file")
    capacity, place = _number(header, 12, 8), _number(header, 28, 8)
    if not capacity:
        raise wrong(
            "this vmdk image keeps its data in other files", "one file: a monolithicSparse or streamOptimized vmdk"
        )
    if place:
        _check_description(read(min(place * _SECTOR_BYTES, 1 << 62), _DESCRIPTION_BYTES).split(b"\0")[0])
    return capacity * _SECTOR_BYTES


def _check_description(text: bytes) -> None:
    settings = {
        key.strip().lower(): value.strip() for key, _, value in (line.partition(b"=") for line in text.splitlines())
    }
    parent = settings.get(b"parentcid", b"ffffffff").lower()
    if parent != b"ffffffff" or b"parentfilenamehint" in text.lower():
        raise wrong("this vmdk image is a delta of another one (its parent)", _FLATTEN)
    if b"encryption." in text.lower():
        raise wrong("this vmdk image is encrypted", "an image that is not encrypted")
    extents = _EXTENT.findall(text)
    if len(extents) > 1 or any(kind.upper() != b"SPARSE" for kind, _ in extents):
        _refuse_parts(text)


def _refuse_parts(text: bytes) -> None:
    names = [name.decode(errors="replace") for _, name in _EXTENT.findall(text) if name]
    named = f" ({', '.join(names[:3])[:120]})" if names else ""
    raise wrong(
        f"this vmdk image keeps its data in other files{named}",
        "one file: qemu-img convert -f vmdk -O qcow2 FILE NEW.qcow2, where all its files are",
    )


# ---------------------------------------------------------------- vdi


def _vdi(read: Read, size_bytes: int) -> int:
    header = _whole(read(0, 512), 512, "vdi")
    # Of its links: to the snapshot before, and to the parent.
    if _number(header, 0x4C, 4) not in (1, 2) or any(header[0x1A8:0x1C8]):
        raise wrong("this vdi image is a delta of another one (its parent)", _FLATTEN)
    data_at, block_bytes, allocated = (_number(header, place, 4) for place in (0x158, 0x178, 0x184))
    if data_at + block_bytes * allocated > size_bytes:
        raise wrong("this vdi image is cut short", "the whole file")
    return _number(header, 0x170, 8)


# ---------------------------------------------------------------- vhd, in QEMU's words vpc

_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4


def _vpc(read: Read, size_bytes: int) -> int:
    # A copy of the footer stands first in images that grow; which one is read depends on who reads.
    ends = (read(0, FOOTER_BYTES), read(max(0, size_bytes - FOOTER_BYTES), FOOTER_BYTES))
    footers = [end for end in ends if end.startswith(b"conectix") and len(end) == FOOTER_BYTES]
    if not footers:
        raise wrong("this VHD image is cut short", "the whole file")
    for footer in footers:
        kind = _number(footer, 60, 4, "big")
        if kind == _DIFFERENCING:
            raise wrong("this VHD image is a delta of another one (its parent)", _FLATTEN)
        if kind not in (_FIXED, _DYNAMIC):
            raise wrong(f"this VHD image is of an unknown type ({kind})", "a VHD of fixed or dynamic size")
    return max(_number(footer, 48, 8, "big") for footer in footers)


# ---------------------------------------------------------------- vhdx

_REGIONS_AT = 192 << 10
_TABLE_BYTES = 64 << 10
_ENTRY_BYTES = 32
_ENTRIES_MAX = 2047
_METADATA = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
_DISK_SIZE = bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")
_HAS_PARENT = 1 << 1


def _vhdx(read: Read, size_bytes: int) -> int:
    regions = read(_REGIONS_AT, _TABLE_BYTES)
    place = _number(_vhdx_entry(regions, b"regi", _number(regions, 8, 4), 16, _METADATA), 16, 8)
    table = read(min(place, 1 << 62), _TABLE_BYTES)
    count = _number(table, 10, 2)

    def item(guid: bytes, length: int) -> bytes:
        entry = _vhdx_entry(table, b"metadata", count, 32, guid)
        return _whole(read(min(place, 1 << 62) + _number(entry, 16, 4), length), length, "vhdx")

    if _number(item(_PARAMETERS, 8), 4, 4) & _HAS_PARENT:
        raise wrong("this vhdx image is a delta of another one (its parent)", _FLATTEN)
    return _number(item(_DISK_SIZE, 8), 0, 8)


def _vhdx_entry(table: bytes, signature: bytes, count: int, begin: int, guid: bytes) -> bytes:
    if table.startswith(signature):
        for number in range(min(count, _ENTRIES_MAX)):
            entry = table[begin + number * _ENTRY_BYTES : begin + (number + 1) * _ENTRY_BYTES]
            if entry.startswith(guid) and len(entry) == _ENTRY_BYTES:
                return entry
    raise wrong("this vhdx image is damaged: its tables do not say what it is", "an undamaged copy of it")


_READERS: dict[str, Callable[[Read, int], int]] = {
    "vmdk": _vmdk,
    "vdi": _vdi,
    "vpc": _vpc,
    "vhdx": _vhdx,
}
