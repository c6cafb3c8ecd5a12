"""What an uploaded file really is, told from its bytes; see service/images.py for why so little is believed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vws.core import qcow2
from vws.core.errors import InvalidRequest, Unavailable
from vws.core.site import DocumentKind, ImageFile
from vws.core.terms import DISK_MIB_MAX

ACCEPTED = "a qcow2 or raw disk image, or a VWS appliance bundle (make appliance)"
FORMAT = "vws-appliance/1"
MANIFEST = "appliance.json"
MANIFEST_BYTES_MAX = 1 << 20
CMDLINE_LENGTH_MAX = 2048
CHECK_S = 60
LIMITS = (f"--as={1 << 30}", f"--cpu={CHECK_S}", "--fsize=0", "--core=0")

# Formats that are disk images, but not ones that a hypervisor here is given: (offset, magic, name).
OTHER_FORMATS = (
    (0, b"KDMV", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"conectix", "vhd"),
    (0, b"vhdxfile", "vhdx"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0x8001, b"CD001", "iso"),
)
COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"))


@dataclass(frozen=True)
class Found:
    """What is in an image: its files, each with the path of its bytes, and how it boots (core/site.py: Image).

    documents: what a bundle says of itself, each with its media type.
    """

    boot: str
    files: tuple[tuple[ImageFile, Path], ...]
    cmdline: str = ""
    user: str = "root"
    ready: str = "ssh"
    memory_mib_min: int = 0
    disk_mib_min: int = 0
    documents: tuple[tuple[DocumentKind, str, bytes], ...] = ()


def examine(path: Path, parts: Path) -> Found:
    """Look at a complete file; the members of a bundle are unpacked into the new folder `parts`.

    Raises InvalidRequest with field "file".
    """
    with path.open("rb") as file:
        head = file.read(0x9000)
    if head[257:262] == b"ustar":
        return _examine_bundle(path, parts)
    kind = "qcow2" if head.startswith(qcow2.MAGIC) else "raw"
    if kind == "raw":
        _must_be_raw_disk(head)
    disk = _examine_disk(path, "disk", kind)
    return Found("disk", ((disk, path),), disk_mib_min=disk.virtual_size_mib)


def _wrong(problem: str, possible: str = ACCEPTED) -> InvalidRequest:
    return InvalidRequest(problem, field="file", possible=possible)


# ---------------------------------------------------------------- disks


def _must_be_raw_disk(head: bytes) -> None:
    for offset, magic, name in OTHER_FORMATS:
        if head[offset : offset + len(magic)] == magic:
            raise _wrong(f"this is a {name} image", "convert it first: qemu-img convert -O qcow2 FILE NEW.qcow2")
    for magic, name in COMPRESSED:
        if head.startswith(magic):
            raise _wrong(f"this file is compressed ({name})", "unpack it first")
    boots = head[510:512] == b"\x55\xaa"
    ext = head[1024 + 56 : 1024 + 58] == b"\x53\xef"
    if not (boots or ext or head[:4] == b"XFSB"):
        raise _wrong("this is not a disk image: it has no boot sector, partition table or file system that is known")


def _examine_disk(path: Path, role: str, kind: str) -> ImageFile:
    if kind == "qcow2":
        with path.open("rb") as file:
            qcow2.read_header(file.read(qcow2.HEADER_BYTES))
    info = _qemu_img("info", "-f", kind, path)
    size_bytes = info.get("virtual-size")
    if not isinstance(size_bytes, int) or not 0 < size_bytes <= DISK_MIB_MAX << 20:
        raise _wrong(f"its virtual size is {size_bytes} bytes", f"1 byte to {DISK_MIB_MAX} MiB")
    if kind == "qcow2":
        checked = _qemu_img("check", "-f", kind, path)
        if checked.get("corruptions") or checked.get("check-errors"):
            raise _wrong("this qcow2 image is damaged (qemu-img check)", "an undamaged copy of it")
    return ImageFile(role, _digest(path), path.stat().st_size, kind, -(-size_bytes // (1 << 20)))


def _qemu_img(command: str, *arguments: str | Path) -> dict[str, Any]:
    # A program that sets the limits and becomes qemu-img, as no Python may run between fork and exec beside threads.
    limited = [_program("prlimit", "util-linux"), *LIMITS, "--", _program("qemu-img", "qemu-utils")]
    try:
        done = subprocess.run(
            [*limited, command, "--output=json", *map(str, arguments)],
            capture_output=True,
            timeout=CHECK_S,
            check=False,
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise _wrong(f"looking at this image took longer than {CHECK_S} s") from None
    except ValueError:
        raise _wrong("qemu-img cannot read this image: " + _last_line(done.stderr)) from None
    return answer if isinstance(answer, dict) else {}


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"{name} is missing on the service's host", possible=f"install {package} (vws doctor)")
    return found


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    # qemu-img repeats the path, which is the service's own business.
    return lines[-1].rsplit(": ", 1)[-1][:200] if lines else "it says nothing"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- bundles

# member of the tar -> (role, format)
MEMBERS = {"kernel": ("kernel", "kernel"), "initrd": ("initrd", "initrd"), "disk.qcow2": ("disk", "qcow2")}
# How it boots -> the members that it must have.
NEEDED = {"direct": {"kernel", "initrd"}, "disk": {"disk.qcow2"}}
# member -> what it is; kept as it came, and never read.
DOCUMENTS = {
    "sbom.cdx.json": (DocumentKind.SBOM, "application/vnd.cyclonedx+json"),
    "provenance.json": (DocumentKind.PROVENANCE, "application/vnd.in-toto+json"),
}
DOCUMENT_BYTES_MAX = 16 << 20


class _PlainMember(tarfile.TarInfo):
    """A member that is its own bytes and nothing else, told from its header alone.

    A sparse member is as long as it says, however few bytes came; extended headers are read into memory, however many
    came. Both are refused before tarfile follows them.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise _wrong(
                f"the bundle's {member.name[:60]!r} is not a plain file (sparse, a link, or with an extended header)",
                "a tar of plain files: tar --format=ustar",
            )
        return member


def _examine_bundle(path: Path, parts: Path) -> Found:
    os.mkdir(parts, 0o700)
    try:
        _unpack(path, parts)
    except (tarfile.TarError, EOFError) as error:
        raise _wrong(f"this tar file cannot be read: {error}") from None
    return _found(_manifest(parts / MANIFEST), parts)


def _unpack(path: Path, parts: Path) -> None:
    bytes_max = path.stat().st_size
    with tarfile.open(path, "r:", tarinfo=_PlainMember) as bundle:
        for member in bundle:
            _check_member(member, parts, bytes_max)
            stream = bundle.extractfile(member)
            assert stream is not None
            with (parts / member.name).open("xb") as target:
                shutil.copyfileobj(stream, target, 1 << 20)


def _check_member(member: tarfile.TarInfo, parts: Path, bytes_max: int) -> None:
    known = (MANIFEST, *MEMBERS, *DOCUMENTS)
    if member.name not in known:
        raise _wrong(f"an appliance bundle does not hold {member.name[:60]!r}", f"only {', '.join(known)}")
    if (parts / member.name).exists():
        raise _wrong(f"the bundle holds {member.name} twice", "each member once")
    if not 0 <= member.size <= bytes_max:
        raise _wrong(f"the bundle's {member.name} says it has {member.size} bytes, more than came", "the whole bundle")
    if member.name in DOCUMENTS and member.size > DOCUMENT_BYTES_MAX:
        raise _wrong(f"the bundle's {member.name} is too long", f"at most {DOCUMENT_BYTES_MAX >> 20} MiB")


def _manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise _wrong("this tar file is no appliance bundle: appliance.json is missing")
    if path.stat().st_size > MANIFEST_BYTES_MAX:
        raise _wrong("the bundle's appliance.json is too long", f"at most {MANIFEST_BYTES_MAX} bytes")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise _wrong("the bundle's appliance.json is not JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("boot") not in NEEDED:
        boots = " or ".join(f'"{boot}"' for boot in NEEDED)
        raise _wrong("the bundle's appliance.json is of another kind", f'"format": "{FORMAT}", "boot": {boots}')
    return manifest


def _found(manifest: dict[str, Any], parts: Path) -> Found:
    present = {name for name in MEMBERS if (parts / name).exists()}
    declared = manifest.get("files")
    boot = str(manifest["boot"])
    allowed = set(MEMBERS) if boot == "direct" else NEEDED[boot]
    if not isinstance(declared, dict) or set(declared) != present or not NEEDED[boot] <= present <= allowed:
        raise _wrong(
            "the bundle's files are not those that appliance.json names",
            "kernel, initrd and maybe disk.qcow2; of one that boots from its disk, disk.qcow2",
        )
    files = tuple((_member(name, declared[name], parts / name), parts / name) for name in MEMBERS if name in present)
    disk = next((file.virtual_size_mib for file, _ in files if file.role == "disk"), 0)
    return Found(
        boot=boot,
        files=files,
        cmdline=_text(manifest, "cmdline", CMDLINE_LENGTH_MAX),
        user=_text(manifest, "user", 32) or "root",
        ready=_choice(manifest, "ready", ("ssh", "boot")),
        memory_mib_min=_whole(manifest, "memory_mib_min"),
        disk_mib_min=disk,
        documents=tuple(
            (*DOCUMENTS[name], (parts / name).read_bytes()) for name in DOCUMENTS if (parts / name).exists()
        ),
    )


def _member(name: str, declared: Any, path: Path) -> ImageFile:
    role, kind = MEMBERS[name]
    sha256 = _digest(path)
    if not isinstance(declared, dict) or declared.get("sha256") != sha256:
        raise _wrong(f"the bundle's {name} is not the one that appliance.json describes", "an undamaged copy of it")
    if kind == "qcow2":
        return _examine_disk(path, role, kind)
    return ImageFile(role, sha256, path.stat().st_size, kind)


def _text(manifest: dict[str, Any], key: str, length_max: int) -> str:
    value = manifest.get(key, "")
    if not isinstance(value, str) or len(value) > length_max or not value.isprintable():
        raise _wrong(f"{key} in appliance.json is no plain text", f"at most {length_max} printable characters")
    return value


def _choice(manifest: dict[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    value = manifest.get(key, allowed[0])
    if value not in allowed:
        raise _wrong(f"{key} in appliance.json is {value!r:.60}", " or ".join(allowed))
    return str(value)


def _whole(manifest: dict[str, Any], key: str) -> int:
    value = manifest.get(key, 0)
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise _wrong(f"{key} in appliance.json is {value!r:.60}", "a whole number of MiB")
    return value
