"""The header of a qcow2 image: what a disk says of itself before any program opens it.

A disk image comes from strangers and names other files if it likes (a backing file, a data file), which whoever opens
the image opens too. The service asks here before it takes an image in, and each node again before it keeps one: a node
that runs as root does not lean on another machine's look. Layout: QEMU, docs/interop/qcow2.txt.
"""

from __future__ import annotations

from dataclasses import dataclass

from vws.core.errors import InvalidRequest

MAGIC = b"QFI\xfb"
# How much of a file `read_header` wants to see.
HEADER_BYTES = 104
_HEADER_BYTES = {2: 72, 3: 104}
_EXTERNAL_DATA = 1 << 2
_LUKS = 2


@dataclass(frozen=True, slots=True)
class Header:
    """encryption: `luks`, or "" for none."""

    version: int
    virtual_size_bytes: int
    encryption: str = ""


def read_header(data: bytes, *, luks: bool = False) -> Header:
    """The header of an image that stands alone. `data`: the file's first HEADER_BYTES, or all of a shorter file. luks:
    it may be encrypted that way.

    Raises InvalidRequest with field "file" if it refers to another file, is encrypted otherwise, cut short, of an
    unknown version or no qcow2 at all.
    """
    if data[:4] != MAGIC:
        raise _wrong("this is not a qcow2 image", "a qcow2 image")
    version = _number(data, 4, 4)
    if len(data) < _HEADER_BYTES.get(version, 72):
        raise _wrong("this qcow2 image is cut short", "the whole file")
    if version not in _HEADER_BYTES:
        raise _wrong(f"this is qcow2 version {version}", "qcow2 version 2 or 3")
    _must_stand_alone(data, incompatible=_number(data, 72, 8) if version == 3 else 0)
    return Header(version, _number(data, 24, 8), _encryption(_number(data, 32, 4), luks))


def _encryption(method: int, luks: bool) -> str:
    if method == _LUKS and luks:
        return "luks"
    if method == _LUKS:
        raise _wrong("this qcow2 image is encrypted", "its passphrase (--key-file), or an image that is not encrypted")
    if method:
        raise _wrong("this qcow2 image is encrypted in qcow2's old way, which is not safe", "one encrypted with LUKS")
    return ""


def _must_stand_alone(data: bytes, incompatible: int) -> None:
    if _number(data, 8, 8):
        raise _wrong(
            "this qcow2 image has a backing file, which would make a node read one of its own files",
            "flatten it first: qemu-img convert -O qcow2 FILE NEW.qcow2",
        )
    if incompatible & _EXTERNAL_DATA:
        raise _wrong("this qcow2 image keeps its data in another file", "a qcow2 image that stands alone")


def _number(data: bytes, offset: int, length: int) -> int:
    return int.from_bytes(data[offset : offset + length], "big")


def _wrong(problem: str, possible: str) -> InvalidRequest:
    return InvalidRequest(problem, field="file", possible=possible)
