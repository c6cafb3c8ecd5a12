"""A qcow2 header is taken only if the image stands alone; made here field by field (QEMU, docs/interop/qcow2.txt)."""

from __future__ import annotations

import struct

import pytest

from vws.core.errors import InvalidRequest
from vws.core.qcow2 import HEADER_BYTES, Header, read_header

SIZE_BYTES = 5 << 30


def header(version: int = 3, *, backing: int = 0, encryption: int = 0, incompatible: int = 0) -> bytes:
    begin = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, 16, SIZE_BYTES, encryption)
    return begin.ljust(72, b"\0") + struct.pack(">QQQII", incompatible, 0, 0, 4, 104)


@pytest.mark.parametrize("version", [2, 3])
def test_an_image_that_stands_alone_tells_its_size(version):
    assert read_header(header(version)) == Header(version, SIZE_BYTES)


def test_a_header_of_version_2_ends_before_the_features():
    assert read_header(header(2)[:72]).virtual_size_bytes == SIZE_BYTES
    # what follows it there may be anything, and is no list of features
    assert read_header(header(2, incompatible=4)).virtual_size_bytes == SIZE_BYTES


def test_features_that_refer_to_nothing_are_taken():
    assert read_header(header(incompatible=0b11011)).version == 3


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a qcow2 image"),
        (b"\0" * HEADER_BYTES, "not a qcow2 image"),
        (header()[:6], "cut short"),
        (header(2)[:71], "cut short"),
        (header(3)[:103], "cut short"),
        (header(1), "version 1"),
        (header(4), "version 4"),
        (header(2, backing=1), "backing file"),
        (header(3, backing=1 << 63), "backing file"),
        (header(incompatible=4), "another file"),
        (header(2, encryption=1), "encrypted"),
        (header(3, encryption=2), "encrypted"),
    ],
)
def test_any_other_is_refused_by_its_own_reason(data, said):
    with pytest.raises(InvalidRequest) as error:
        read_header(data)
    assert said in error.value.problem
    assert error.value.field == "file"
    assert error.value.possible
