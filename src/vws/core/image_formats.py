"""What a file is, told from its bytes: the formats in which images come, and what the user said against what they are.

A hypervisor or qemu-img that is left to guess a format can be fooled: a raw disk whose guest wrote a qcow2 header into
its first sector is opened as qcow2, and then reads whatever file the header names. So a format is told here, once, from
marks that stand at fixed places, before any other program sees the file, and is said to every program from then on.
What the user says it is must agree. A raw disk has no mark of its own: it is what bears no other mark and could boot or
be mounted, or what the user says is one.
"""

from __future__ import annotations

from collections.abc import Callable

from vws.core.errors import InvalidRequest

# (offset, length) -> the bytes there, fewer at the end of the file.
Read = Callable[[int, int], bytes]

# As `vws image import --format` and `export --format` call them; VHD is vpc in QEMU's words.
DISKS = ("qcow2", "raw", "vmdk", "vpc", "vhdx", "vdi")
IMPORTED = (*DISKS, "iso", "tar", "bundle", "oci", "ova")
EXPORTED = (*DISKS, "bundle", "oci")
ALIASES = {"vhd": "vpc"}
NAMES = {
    "qcow2": "a qcow2 image",
    "raw": "a raw disk",
    "vmdk": "a vmdk image",
    "vpc": "a VHD image (vpc)",
    "vhdx": "a vhdx image",
    "vdi": "a vdi image",
    "iso": "an ISO 9660 image",
    "tar": "a tar, as of a root file system",
    "bundle": "a VWS appliance bundle",
    "oci": "a tar of an OCI image layout",
    "ova": "an OVA appliance",
}
BUNDLE_MEMBERS = (b"appliance.json", b"kernel", b"initrd", b"disk.qcow2")
OCI_MEMBERS = (b"oci-layout", b"index.json", b"blobs", b"blobs/", b"blobs/sha256", b"blobs/sha256/")
FOOTER_BYTES = 512

_MARKS = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"conectix", "vpc"),
    (0x8001, b"CD001", "iso"),
)
# gzip, xz, zstd, bzip2
_COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"BZh")
# Marks of what is a disk image, but of none that is taken: (offset, mark, what it is, what to do).
_REFUSED = (
    (0, b"LUKS\xba\xbe", "this disk is encrypted (LUKS)", "an image that is not encrypted"),
    (0, b"QED\0", "this is a QED image", "convert it first: qemu-img convert -f qed -O qcow2 FILE NEW.qcow2"),
    (
        0,
        b"WithoutFreeSpace",
        "this is a Parallels image",
        "convert it first: qemu-img convert -f parallels -O qcow2 FILE NEW.qcow2",
    ),
    (
        0,
        b"WithouFreSpacExt",
        "this is a Parallels image",
        "convert it first: qemu-img convert -f parallels -O qcow2 FILE NEW.qcow2",
    ),
)
ACCEPTED = (
    "a disk image (qcow2, raw, vmdk, vhd, vhdx, vdi, iso), an OVA, a root file system's tar, a VWS appliance bundle "
    "(make appliance) or an OCI layout as `vws image export` writes it"
)


def told(read: Read, size_bytes: int, declared: str | None = None) -> str:
    """The format of a file, one of IMPORTED. `declared`: what its owner says it is, which must be true.

    A compressed tar is a tar. Raises InvalidRequest with field "file", or "format" when the declaration is wrong.
    """
    said = _known(declared)
    found = _marked(read, size_bytes)
    if said == "raw" and found is None:
        return "raw"
    if found is None and _could_be_raw(read):
        found = "raw"
    if found is None:
        raise wrong("this is not a disk image: it has no boot sector, partition table or file system that is known")
    if said and said != found and {said, found} != {"tar", "bundle"}:
        raise _not_as_said(said, found)
    return said or found


def _known(declared: str | None) -> str | None:
    if declared is None:
        return None
    said = ALIASES.get(declared, declared)
    if said not in IMPORTED:
        raise InvalidRequest(
            f"{declared[:40]!r} is no format of images", field="format", asked=declared[:40], possible=listed(IMPORTED)
        )
    return said


def listed(formats: tuple[str, ...]) -> str:
    return f"{', '.join(formats[:-1])} or {formats[-1]}"


def _marked(read: Read, size_bytes: int) -> str | None:
    for offset, mark, name in _MARKS:
        if read(offset, len(mark)) == mark:
            return name
    for offset, mark, problem, possible in _REFUSED:
        if read(offset, len(mark)) == mark:
            raise wrong(problem, possible)
    for mark in _COMPRESSED:
        if read(0, len(mark)) == mark:
            return "tar"  # what is in it shows when it is unpacked; see service/root_tree.py
    if read(257, 5) == b"ustar":
        return _kind_of_tar(read(0, 100))
    # A VHD of fixed size is a raw disk with a footer.
    if size_bytes >= FOOTER_BYTES and read(size_bytes - FOOTER_BYTES, 8) == b"conectix":
        return "vpc"
    return None


def _kind_of_tar(name: bytes) -> str:
    """By its first member: bundles and layouts are written by programs, in an order."""
    first = name.split(b"\0")[0].removeprefix(b"./")
    if first in BUNDLE_MEMBERS:
        return "bundle"
    if first.endswith(b".ovf"):  # which the standard wants first
        return "ova"
    return "oci" if first in OCI_MEMBERS or first.startswith(b"blobs/sha256/") else "tar"


def _could_be_raw(read: Read) -> bool:
    boots = read(510, 2) == b"\x55\xaa"
    ext = read(1024 + 56, 2) == b"\x53\xef"
    return boots or ext or read(0, 4) == b"XFSB"


def _not_as_said(said: str, found: str) -> InvalidRequest:
    return InvalidRequest(
        f"this is said to be {NAMES[said]}, but its bytes are those of {NAMES[found]}",
        field="format",
        asked=said,
        possible=f"--format {found}, or no --format",
    )


def wrong(problem: str, possible: str = ACCEPTED) -> InvalidRequest:
    return InvalidRequest(problem, field="file", possible=possible)
