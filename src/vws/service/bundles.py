"""Appliance bundles: a tar of appliance.json, kernel, initrd and perhaps disk.qcow2, in and out. Of each disk NAME that
it declares and has something on there is a data-NAME.qcow2.

One file that holds all that boots, and of which each part is bound by its sha256. What does not belong into it is
refused by its header alone: nothing is unpacked that was not asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vws.core.disks import Disk, declared_disks, described
from vws.core.errors import InvalidRequest
from vws.core.image_formats import wrong as _wrong
from vws.core.site import Document, DocumentKind, Image, ImageFile, data_role
from vws.service import tar_stream
from vws.service.disk_check import BYTES_MAX, Found, digest, examine_disk
from vws.service.tar_stream import Member, in_memory

FORMAT = "vws-appliance/1"
MANIFEST = "appliance.json"
MANIFEST_BYTES_MAX = 1 << 20
CMDLINE_LENGTH_MAX = 2048

# member of the tar -> (role, format)
MEMBERS = {"kernel": ("kernel", "kernel"), "initrd": ("initrd", "initrd"), "disk.qcow2": ("disk", "qcow2")}
_DATA = re.compile(r"(data-[a-z0-9-]{1,16})\.qcow2")
# How it boots -> the members that it must have.
NEEDED = {"direct": {"kernel", "initrd"}, "disk": {"disk.qcow2"}}
# member -> what it is; kept as it came, and never read.
DOCUMENTS = {
    "sbom.cdx.json": (DocumentKind.SBOM, "application/vnd.cyclonedx+json"),
    "provenance.json": (DocumentKind.PROVENANCE, "application/vnd.in-toto+json"),
}
DOCUMENTS_NAMES = {kind: name for name, (kind, _) in DOCUMENTS.items()}
DOCUMENT_BYTES_MAX = 16 << 20


def unpack(path: Path, parts: Path, bytes_max: int = BYTES_MAX, passphrase: str | None = None) -> Found:
    """What is in a bundle, its members in the folder `parts`. bytes_max: of what a disk comes to, unpacked; passphrase:
    of one that is encrypted. Raises InvalidRequest with field "file", or "passphrase"."""
    tar_stream.unpack(path, parts, _place, "the bundle")
    look = partial(examine_disk, bytes_max=bytes_max, passphrase=passphrase)
    return _found(_manifest(parts / MANIFEST), parts, look)


def _place(name: str) -> str:
    known = (MANIFEST, *MEMBERS, *DOCUMENTS)
    if name not in known and not _DATA.fullmatch(name):
        raise _wrong(f"an appliance bundle does not hold {name[:60]!r}", f"only {', '.join(known)}")
    return name


def _manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise _wrong("this tar file is no appliance bundle: appliance.json is missing")
    if path.stat().st_size > MANIFEST_BYTES_MAX:
        raise _wrong("the bundle's appliance.json is too long", f"at most {MANIFEST_BYTES_MAX} bytes")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise _wrong("the bundle's appliance.json is not JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("boot") not in tuple(NEEDED):
        boots = " or ".join(f'"{boot}"' for boot in NEEDED)
        raise _wrong("the bundle's appliance.json is of another kind", f'"format": "{FORMAT}", "boot": {boots}')
    return manifest


def _found(manifest: dict[str, Any], parts: Path, look: Callable[..., ImageFile]) -> Found:
    beside = _disks(manifest.get("disks", []))
    data = [f"{data_role(disk.name)}.qcow2" for disk in beside if disk.brought]
    present = {path.name for path in parts.iterdir()} - {MANIFEST, *DOCUMENTS}
    declared = manifest.get("files")
    boot = str(manifest["boot"])
    needed, allowed = NEEDED[boot] | set(data), (set(MEMBERS) if boot == "direct" else NEEDED[boot]) | set(data)
    if not isinstance(declared, dict) or set(declared) != present or not needed <= present <= allowed:
        raise _wrong(
            "the bundle's files are not those that appliance.json names",
            "kernel, initrd and maybe disk.qcow2; of one that boots from its disk, disk.qcow2; and data-NAME.qcow2 of "
            "each disk that it brings",
        )
    names = [name for name in (*MEMBERS, *data) if name in present]
    files = tuple((_member(name, declared[name], parts / name, look), parts / name) for name in names)
    check_sizes(beside, [file for file, _ in files])
    disk = next((file.virtual_size_mib for file, _ in files if file.role == "disk"), 0)
    return Found(
        boot=boot,
        files=files,
        cmdline=_text(manifest, "cmdline", CMDLINE_LENGTH_MAX),
        user=_text(manifest, "user", 32) or "root",
        ready=_choice(manifest, "ready", ("ssh", "boot")),
        memory_mib_min=_whole(manifest, "memory_mib_min"),
        disk_mib_min=disk,
        documents=tuple((*DOCUMENTS[name], _document(parts / name)) for name in DOCUMENTS if (parts / name).exists()),
        beside=beside,
    )


def _disks(said: Any) -> tuple[Disk, ...]:
    try:
        return declared_disks(said, "disks")
    except InvalidRequest as error:
        raise _wrong(f"disks in appliance.json cannot be had: {error.problem}", error.possible or "") from None


def check_sizes(beside: Iterable[Disk], files: Iterable[ImageFile]) -> None:
    """Raise InvalidRequest if a disk that is brought has another size than is declared."""
    sizes_mib = {file.role: file.virtual_size_mib for file in files}
    for disk in beside:
        found_mib = sizes_mib.get(data_role(disk.name), disk.size_mib)
        if disk.brought and found_mib != disk.size_mib:
            raise _wrong(f"the disk {disk.name} has {found_mib} MiB, declared are {disk.size_mib}", "its own size")


def _document(path: Path) -> bytes:
    if path.stat().st_size > DOCUMENT_BYTES_MAX:
        raise _wrong(f"the bundle's {path.name} is too long", f"at most {DOCUMENT_BYTES_MAX >> 20} MiB")
    return path.read_bytes()


def _member(name: str, declared: Any, path: Path, look: Callable[..., ImageFile]) -> ImageFile:
    data = _DATA.fullmatch(name)
    role, kind = (data[1], "qcow2") if data else MEMBERS[name]
    sha256 = digest(path)
    if not isinstance(declared, dict) or declared.get("sha256") != sha256:
        raise _wrong(f"the bundle's {name} is not the one that appliance.json describes", "an undamaged copy of it")
    if kind == "qcow2":
        return look(path, role, kind)
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


# ---------------------------------------------------------------- out


def members(
    image: Image, content: Callable[[ImageFile], Iterable[bytes]], documents: Iterable[Document] = ()
) -> list[Member]:
    """The members of the bundle of an image whose disk, if any, is one qcow2 that stands alone."""
    files = dict(sorted(((member_of(file.role), file) for file in image.files), key=lambda each: _place_in(each[0])))
    said = {DOCUMENTS_NAMES[each.kind]: each.content for each in documents if each.kind in DOCUMENTS_NAMES}
    return [
        in_memory(MANIFEST, _described(image, files)),
        *(Member(name, file.size_bytes, partial(content, file)) for name, file in files.items()),
        *(in_memory(name, data) for name, data in sorted(said.items())),
    ]


def member_of(role: str) -> str:
    """The member that holds the file of this role."""
    return next((name for name, (each, _) in MEMBERS.items() if each == role), f"{role}.qcow2")


def _place_in(member: str) -> tuple[int, str]:
    names = list(MEMBERS)
    return names.index(member) if member in names else len(names), member


def _described(image: Image, files: Mapping[str, ImageFile]) -> bytes:
    manifest = {
        "format": FORMAT,
        "name": image.name,
        "boot": image.boot,
        "cmdline": image.cmdline,
        "memory_mib_min": image.memory_mib_min,
        "ready": image.ready,
        "user": image.user,
        "files": {name: {"sha256": file.sha256, "size": file.size_bytes} for name, file in files.items()},
        **({"disks": described(image.beside)} if image.beside else {}),
    }
    return json.dumps(manifest, indent=2).encode() + b"\n"
