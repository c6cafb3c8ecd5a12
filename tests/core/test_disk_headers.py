"""Headers of other hypervisors' disks: what stands alone tells its size, everything else is refused by its own reason.

The images are qemu-img's, some altered by hand; random alterations of them must do no more than be refused.
"""

from __future__ import annotations

import shutil
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.disk_images import SIZE_BYTES, altered, disk, qemu_img
from vws.core.disk_headers import virtual_size
from vws.core.errors import InvalidRequest
from vws.core.terms import DISK_MIB_MAX

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")

FORMATS = [
    ("qcow2", ()),
    ("raw", ()),
    ("vmdk", ()),
    ("vmdk", ("-o", "subformat=streamOptimized")),
    ("vdi", ()),
    ("vdi", ("-o", "static=on")),
    ("vpc", ("-o", "force_size=on")),
    ("vpc", ("-o", "force_size=on,subformat=fixed")),
    ("vhdx", ()),
]


def told_what_to_do(error: InvalidRequest) -> None:
    assert error.problem
    assert error.possible


def size_of(data: bytes, kind: str) -> int:
    return virtual_size(kind, lambda offset, length: data[offset : offset + length], len(data))


def refused(path, kind) -> str:
    with pytest.raises(InvalidRequest) as error:
        size_of(path.read_bytes(), kind)
    assert error.value.field == "file"
    assert error.value.possible
    return error.value.problem


@pytest.mark.parametrize(("kind", "options"), FORMATS)
def test_an_image_that_stands_alone_tells_its_size(tmp_path, kind, options):
    assert size_of(disk(tmp_path / "disk", kind, *options).read_bytes(), kind) == SIZE_BYTES


def test_a_vmdk_with_a_parent_is_refused(tmp_path):
    disk(tmp_path / "parent", "vmdk")
    qemu_img("create", "-f", "vmdk", "-b", tmp_path / "parent", "-F", "vmdk", tmp_path / "child")
    assert "delta of another" in refused(tmp_path / "child", "vmdk")


def test_a_vmdk_that_hides_its_parents_checksum_is_refused(tmp_path):
    path = disk(tmp_path / "disk", "vmdk")
    text = path.read_bytes().replace(b'createType="', b'parentFileNameHint="/etc/shadow"\ncreateType="')
    path.write_bytes(text)
    assert "delta of another" in refused(path, "vmdk")


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_a_vmdk_whose_data_is_in_other_files_is_refused_by_their_names(tmp_path, subformat):
    path = disk(tmp_path / "disk.vmdk", "vmdk", "-o", f"subformat={subformat}")
    assert "other files (disk-" in refused(path, "vmdk")


def test_a_vmdk_extent_that_names_a_file_of_the_host_is_refused(tmp_path):
    path = tmp_path / "evil"
    path.write_text('# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\nRW 8 FLAT "/etc/shadow" 0\n')
    assert "/etc/shadow" in refused(path, "vmdk")


def test_a_sparse_vmdk_that_only_carries_a_description_of_other_files_is_refused(tmp_path):
    """QEMU follows the description inside a sparse file if the file's own capacity is none."""
    assert "other files" in refused(altered(disk(tmp_path / "disk", "vmdk"), (12, bytes(8))), "vmdk")
    path = disk(tmp_path / "flat", "vmdk")
    path.write_bytes(path.read_bytes().replace(b'SPARSE "', b'FLAT   "'))
    assert "other files" in refused(path, "vmdk")


def test_an_encrypted_vmdk_is_refused(tmp_path):
    path = disk(tmp_path / "disk", "vmdk")
    path.write_bytes(path.read_bytes().replace(b'ddb.adapterType = "ide"', b'encryption.keySafe="vmw'))
    assert "encrypted" in refused(path, "vmdk")


def test_a_vmdk_stream_without_its_end_is_refused(tmp_path):
    path = altered(disk(tmp_path / "disk", "vmdk"), (56, b"\xff" * 8))
    assert "cut short" in refused(path, "vmdk")


@pytest.mark.parametrize("change", [(0x4C, b"\x04"), (0x1A8, b"\x01"), (0x1B8 + 15, b"\x01")])
def test_a_vdi_with_a_parent_is_refused(tmp_path, change):
    assert "delta of another" in refused(altered(disk(tmp_path / "disk", "vdi"), change), "vdi")


@pytest.mark.parametrize("footer", [0, -512])
def test_a_differencing_vhd_is_refused_whichever_footer_says_so(tmp_path, footer):
    path = altered(disk(tmp_path / "disk", "vpc"), (footer + 60, struct.pack(">I", 4)))
    assert "delta of another" in refused(path, "vpc")


def test_a_vhdx_with_a_parent_is_refused(tmp_path):
    path = disk(tmp_path / "disk", "vhdx")
    parameters = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
    entry = path.read_bytes().index(parameters)
    table = entry - 32
    while path.read_bytes()[table : table + 8] != b"metadata":
        table -= 32
    (offset,) = struct.unpack_from("<I", path.read_bytes(), entry + 16)
    assert "delta of another" in refused(altered(path, (table + offset + 4, b"\x02")), "vhdx")


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vdi", "vpc", "vhdx"])
def test_what_is_cut_short_is_refused(tmp_path, kind):
    path = disk(tmp_path / "disk", kind)
    path.write_bytes(path.read_bytes()[:70])
    refused(path, kind)


@pytest.mark.parametrize("size_bytes", [0, (DISK_MIB_MAX << 20) + 512, (1 << 64) - 512])
@pytest.mark.parametrize(
    ("kind", "places", "form"),
    [("qcow2", (24,), ">Q"), ("vdi", (0x170,), "<Q"), ("vpc", (48, -512 + 48), ">Q")],
)
def test_a_virtual_size_that_no_disk_has_is_refused(tmp_path, kind, places, form, size_bytes):
    path = disk(tmp_path / "disk", kind)
    altered(path, *((place, struct.pack(form, size_bytes)) for place in places))
    assert f"virtual size is {size_bytes} bytes" in refused(path, kind)


def test_a_vmdk_of_16_eib_is_refused(tmp_path):
    path = altered(disk(tmp_path / "disk", "vmdk"), (12, struct.pack("<Q", 1 << 55)))
    assert f"virtual size is {1 << 64} bytes" in refused(path, "vmdk")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return [
        (kind, disk(folder / f"{number}", kind, *options).read_bytes())
        for number, (kind, options) in enumerate(FORMATS)
        if kind != "raw"
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_alteration_does_more_than_be_refused(images, data):
    kind, image = data.draw(st.sampled_from(images), label="image")
    # Where the headers are, so that most alterations mean something.
    start = data.draw(st.sampled_from([0, 512, 192 << 10, 2 << 20, len(image) - 1536]), label="near")
    changed = bytearray(image)
    for _ in range(data.draw(st.integers(1, 5))):
        offset = min(start + data.draw(st.integers(0, 1200)), len(image) - 1)
        new = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8)]))
        changed[offset : offset + len(new)] = new
    length = data.draw(st.sampled_from([len(image), len(image), 1 << 18, 1000, 0]))
    try:
        assert 0 < size_of(bytes(changed[:length]), kind) <= DISK_MIB_MAX << 20
    except InvalidRequest as error:
        told_what_to_do(error)


@given(st.sampled_from(["qcow2", "vmdk", "vdi", "vpc", "vhdx"]), st.binary(max_size=3000))
def test_no_bytes_do_more_than_be_refused(kind, data):
    marks = {"vmdk": b"KDMV", "vpc": b"conectix", "qcow2": b"QFI\xfb"}
    for image in (data, marks.get(kind, b"") + data):
        try:
            size_of(image, kind)
        except InvalidRequest:
            pass


@given(st.text(alphabet='RW 0189SPARSEFLAT"/.\n=parentCIDhintf#', max_size=300))
def test_no_description_of_a_vmdk_does_more_than_be_refused(text):
    header = bytearray(512)
    struct.pack_into("<4sIIQQQQ", header, 0, b"KDMV", 1, 3, 8, 128, 1, 20)
    try:
        assert size_of(bytes(header) + b"# Disk DescriptorFile\n" + text.encode(), "vmdk") == 4096
    except InvalidRequest as error:
        told_what_to_do(error)
