"""The format of a file is told by marks at fixed places, and must be what its owner says; each mark is set by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vws.core.errors import InvalidRequest
from vws.core.image_formats import ALIASES, IMPORTED, NAMES, told


def file_with(*marks: tuple[int, bytes], size_bytes: int = 0x9000) -> bytes:
    data = bytearray(size_bytes)
    for offset, mark in marks:
        begin = offset % size_bytes
        data[begin : begin + len(mark)] = mark
    return bytes(data)


def told_what_to_do(error: InvalidRequest) -> None:
    assert error.problem
    assert error.possible


def tell(data: bytes, declared: str | None = None) -> str:
    return told(lambda offset, length: data[offset : offset + length], len(data), declared)


BOOT = (510, b"\x55\xaa")
TAR = (257, b"ustar\x0000")


@pytest.mark.parametrize(
    ("marks", "kind"),
    [
        ([(0, b"QFI\xfb")], "qcow2"),
        ([BOOT], "raw"),
        ([(1080, b"\x53\xef")], "raw"),
        ([(0, b"XFSB")], "raw"),
        ([(0, b"KDMV")], "vmdk"),
        ([(0, b"COWD")], "vmdk"),
        ([(0, b"# Disk DescriptorFile")], "vmdk"),
        ([(0, b"conectix")], "vpc"),
        ([BOOT, (-512, b"conectix")], "vpc"),
        ([(0, b"vhdxfile")], "vhdx"),
        ([(0x40, b"\x7f\x10\xda\xbe")], "vdi"),
        ([(0x8001, b"CD001")], "iso"),
        ([BOOT, (0x8001, b"CD001")], "iso"),
        ([(0, b"./etc/"), TAR], "tar"),
        ([(0, b"appliance.json"), TAR], "bundle"),
        ([(0, b"./kernel"), TAR], "bundle"),
        ([(0, b"oci-layout"), TAR], "oci"),
        ([(0, b"blobs/sha256/00"), TAR], "oci"),
        ([(0, b"machine.ovf"), TAR], "ova"),
        ([(0, b"\x1f\x8b")], "tar"),
        ([(0, b"\x28\xb5\x2f\xfd")], "tar"),
        # whatever a guest wrote into its disk, the disk's own mark is first
        ([BOOT, (0, b"QFI\xfb")], "qcow2"),
    ],
)
def test_a_format_is_told_by_its_mark_and_may_be_declared(marks, kind):
    data = file_with(*marks)
    assert tell(data) == kind
    assert tell(data, kind) == kind


def test_every_format_has_a_name_and_an_alias_is_one_of_them():
    assert set(NAMES) == set(IMPORTED)
    assert tell(file_with((0, b"conectix")), "vhd") == "vpc"
    assert set(ALIASES.values()) <= set(IMPORTED)


def test_a_raw_disk_without_a_mark_is_taken_if_its_owner_says_so():
    with pytest.raises(InvalidRequest, match="not a disk image"):
        tell(file_with())
    assert tell(file_with(), "raw") == "raw"


@pytest.mark.parametrize("declared", [kind for kind in IMPORTED if kind != "qcow2"])
def test_a_wrong_declaration_is_refused_and_says_what_it_is(declared):
    with pytest.raises(InvalidRequest) as error:
        tell(file_with((0, b"QFI\xfb")), declared)
    assert error.value.field == "format"
    assert NAMES[declared] in error.value.problem
    assert NAMES["qcow2"] in error.value.problem


def test_a_format_that_there_is_not_is_refused():
    with pytest.raises(InvalidRequest) as error:
        tell(file_with(BOOT), "qcow3")
    assert (error.value.field, error.value.asked) == ("format", "qcow3")


@pytest.mark.parametrize(
    ("mark", "said"), [(b"LUKS\xba\xbe", "encrypted"), (b"QED\0", "QED"), (b"WithoutFreeSpace", "Parallels")]
)
def test_what_is_not_taken_is_refused_by_name_even_if_declared_raw(mark, said):
    for declared in (None, "raw"):
        with pytest.raises(InvalidRequest, match=said):
            tell(file_with((0, mark)), declared)


@given(st.binary(max_size=2000), st.sampled_from([None, *IMPORTED, *ALIASES, "", "x" * 100]))
def test_no_bytes_are_more_than_refused(data, declared):
    try:
        assert tell(data, declared) in IMPORTED
    except InvalidRequest as error:
        told_what_to_do(error)
