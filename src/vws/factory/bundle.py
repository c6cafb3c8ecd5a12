"""The bundle: one uncompressed tar of appliance.json (what it is, what it needs, the sha256 of the rest), the files
that boot, and what is said of them.

The order of its members and what is written of them are fixed, so that the same parts give the same bytes: the
bundle's sha256 is a name on which two sites agree, and a rebuilt appliance one that nodes already hold.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vws.core.disks import described
from vws.core.manifest import digest
from vws.core.recipe import By, Recipe
from vws.core.site import Image, ImageFile, data_role
from vws.guest.debs import sha256_of

FORMAT = "vws-appliance/1"
FORMATS = {"kernel": ("kernel", "kernel"), "initrd": ("initrd", "initrd"), "disk.qcow2": ("disk", "qcow2")}
SBOM, PROVENANCE = "sbom.cdx.json", "provenance.json"


def image_of(recipe: Recipe, parts: Mapping[str, Path]) -> Image:
    """What a site will have on record of these parts, its digest among it."""
    beside = tuple(replace(disk, brought=_member_of(data_role(disk.name)) in parts) for disk in recipe.beside)
    sizes_mib = {data_role(disk.name): disk.size_mib for disk in beside} | {"disk": recipe.disk_mib}
    found = (_role(name, path) for name, path in parts.items())
    files = tuple(ImageFile(*each, virtual_size_mib=sizes_mib.get(each[0], 0)) for each in found)
    by_kernel = recipe.by is By.KERNEL
    return Image(
        *("", recipe.name, "", "", 0),
        boot="direct" if by_kernel else "disk",
        files=files,
        cmdline=recipe.cmdline if by_kernel else "",
        user=recipe.user or "root",
        ready=recipe.ready or "ssh",
        memory_mib_min=recipe.memory_mib or 0,
        beside=beside,
    )


def _role(name: str, path: Path) -> tuple[str, str, int, str]:
    role, kind = FORMATS.get(name) or (name.removesuffix(".qcow2"), "qcow2")
    return role, sha256_of(path), path.stat().st_size, kind


def _member_of(role: str) -> str:
    return next((name for name, (each, _) in FORMATS.items() if each == role), f"{role}.qcow2")


def write(out: Path, recipe: Recipe, image: Image, parts: Mapping[str, Path], documents: Mapping[str, bytes]) -> str:
    """Write the bundle to `out`, and the documents beside it, each replaced in one step; the bundle's sha256."""
    partial = out.with_name(f".{out.name}.partial")
    try:
        with tarfile.open(partial, mode="w", format=tarfile.USTAR_FORMAT) as bundle:
            _add(bundle, "appliance.json", _description(recipe, image))
            for name, path in parts.items():
                with path.open("rb") as stream:
                    bundle.addfile(_member(name, path.stat().st_size), stream)
            for name, content in documents.items():
                _add(bundle, name, content)
        os.chmod(partial, 0o644)
        sha256 = sha256_of(partial)
        for name, content in documents.items():
            _put_beside(out, name, content)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return sha256


def beside(out: Path, document: str) -> Path:
    """demo.vws: demo.sbom.cdx.json"""
    return out.with_name(f"{out.name.removesuffix('.vws')}.{document}")


def _put_beside(out: Path, name: str, content: bytes) -> None:
    target = beside(out, name)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(content)
    os.chmod(partial, 0o644)
    partial.replace(target)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)  # owner, group and time are 0 unless said
    member.size = size
    return member


def _add(bundle: tarfile.TarFile, name: str, content: bytes) -> None:
    bundle.addfile(_member(name, len(content)), io.BytesIO(content))


def _description(recipe: Recipe, image: Image) -> bytes:
    files: dict[str, dict[str, Any]] = {}
    for file in image.files:
        name = _member_of(file.role)
        files[name] = {"sha256": file.sha256, "size": file.size_bytes}
        if file.virtual_size_mib:
            files[name]["virtual_size_mib"] = file.virtual_size_mib
    said = {
        "format": FORMAT,
        "name": recipe.name,
        "version": recipe.version,
        "about": recipe.about or "",
        "architecture": "x86_64",
        "digest": digest(image),
        "boot": image.boot,
        "cmdline": image.cmdline,
        "memory_mib_min": image.memory_mib_min,
        "ready": image.ready,
        "user": image.user,
        "roles": dict(recipe.roles),
        "files": files,
        **({"disks": described(image.beside)} if image.beside else {}),
    }
    return json.dumps(said, indent=2).encode() + b"\n"


def unpack(path: Path, folder: Path) -> dict[str, Any]:
    """The bundle's members into `folder`; what its appliance.json says. Raises ValueError for what is no bundle."""
    known = {"appliance.json", *FORMATS, SBOM, PROVENANCE}
    data = re.compile(r"data-[a-z0-9-]{1,16}\.qcow2")
    try:
        with tarfile.open(path, "r:") as bundle:
            for member in bundle:
                taken = member.isreg() and (member.name in known or data.fullmatch(member.name))
                stream = bundle.extractfile(member) if taken else None
                if stream is None:
                    raise ValueError(f"it holds {member.name[:60]!r}")
                with (folder / member.name).open("wb") as target:
                    shutil.copyfileobj(stream, target)
        said = json.loads((folder / "appliance.json").read_bytes())
    except (tarfile.TarError, FileNotFoundError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise ValueError("its appliance.json is of another kind")
    return said
