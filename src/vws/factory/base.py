"""An image that a recipe builds on: its tree of files, how it boots, and of what it was made.

An image may be a stranger's. It is not mounted, as the kernel's file systems are not made for hostile ones: qemu-img
makes it raw, after a look at its header for other files that it names, and debugfs, an ordinary program, copies its
files out. On the way the set-user-ID bits and the capabilities of programs are lost; both are asked for and restored.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vws.core import qcow2
from vws.core.disks import Disk, declared_disks
from vws.core.errors import InvalidRequest
from vws.core.recipe import Boot, By, DiskEntry, FurtherDisk, Init, Recipe, joined
from vws.core.site import data_role
from vws.factory import bundle
from vws.factory.debian import Package
from vws.factory.disk import CAPABILITY, PART_START
from vws.factory.documents import packages_in
from vws.factory.log import Log
from vws.guest.debs import run

SUPERBLOCK = 1024
MAGIC = b"\x53\xef"
MARK = "etc/vws/system"


@dataclass(frozen=True, slots=True)
class Base:
    """recipe: what the image says of itself, as far as a recipe would."""

    recipe: Recipe
    packages: tuple[Package, ...]


def take_out(image: Path, tree: Path, folder: Path, log: Log) -> Base:
    """The image's files into the new folder `tree`. Raises InvalidRequest for what cannot be built on."""
    said: dict[str, object] = {}
    disk = image
    packages: tuple[Package, ...] = ()
    if image.suffix == ".vws":
        try:
            said = bundle.unpack(image, folder)
            bill = folder / bundle.SBOM
            packages = packages_in(bill.read_bytes()) if bill.exists() else ()
        except ValueError as error:
            raise _wrong(image, f"is no appliance bundle: {error}") from None
        disk = folder / "disk.qcow2"
        if not disk.exists():
            raise _wrong(image, "has no disk")
    _copy_tree(image, disk, tree, folder, log)
    beside = _disks_of(image, said)
    for each in beside:
        if each.brought:
            file = folder / f"{data_role(each.name)}.qcow2"
            _copy_tree(image, file, _below(image, tree, each, file), folder, log)
    if not (tree / "var/lib/dpkg/status").exists():
        raise _wrong(image, "holds no Debian system")
    return Base(_recipe_of(said, disk, tree, beside), packages)


def _disks_of(image: Path, said: dict[str, object]) -> tuple[Disk, ...]:
    try:
        return declared_disks(said.get("disks", []), "disks")
    except InvalidRequest as error:
        raise _wrong(image, f"declares disks that cannot be had: {error.problem}") from None


def _below(image: Path, tree: Path, disk: Disk, file: Path) -> Path:
    """Where in the tree its files go: a folder in which nothing is yet, no link on the way to it."""
    place = tree / disk.mount.lstrip("/")
    way = [each for each in (place, *place.parents) if each != tree and each.is_relative_to(tree)]
    taken = any(each.is_symlink() or (each.exists() and not each.is_dir()) for each in way)
    if not (disk.mount and file.exists()) or taken or (place.exists() and any(place.iterdir())):
        raise _wrong(image, f"has a disk {disk.name} with files, and no empty folder to have them in")
    return place


def _wrong(image: Path, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"from: {image.name} {problem}", field="from", possible="an image of a Debian system on an ext4 disk"
    )


def _copy_tree(image: Path, disk: Path, tree: Path, folder: Path, log: Log) -> None:
    with disk.open("rb") as stream:
        try:
            qcow2.read_header(stream.read(qcow2.HEADER_BYTES))
        except InvalidRequest as error:
            raise _wrong(image, f"cannot be taken: {error.problem}") from None
    raw = folder / "base.raw"
    log.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw])
    try:
        offset = _offset(image, raw)
        place = f"{raw}?offset={offset}" if offset else str(raw)
        tree.mkdir(parents=True, exist_ok=True)
        log.run(["debugfs", "-R", f'rdump / "{tree}"', place])
        _restore_modes(place, tree, folder)
        _restore_capabilities(place, tree, folder)
    finally:
        raw.unlink()


def _offset(image: Path, raw: Path) -> int:
    """Where the file system begins: at once, or at the beginning of a partition of the MBR."""
    with raw.open("rb") as stream:
        table = stream.read(512)[446:510]
        starts = [int.from_bytes(table[at + 8 : at + 12], "little") * 512 for at in range(0, 64, 16)]
        for start in (0, *starts, PART_START):
            stream.seek(start + SUPERBLOCK + 56)
            if stream.read(2) == MAGIC:
                return start
    raise _wrong(image, "has no ext4 file system, on the whole disk or in one of its partitions")


def _restore_modes(place: str, tree: Path, folder: Path) -> None:
    """Of files that run as their owner or group. debugfs lists them so: /INODE/MODE/UID/GID/NAME/SIZE/"""
    files = _files(tree)
    folders = sorted({os.path.dirname(path) for path in files})
    inside = ""
    for line in _asked(place, [f'ls -p "/{path}"' for path in folders], folder):
        heading = re.fullmatch(r'debugfs: ls -p "/(.*)"', line)
        entry = re.fullmatch(r"/\d+/10(\d{4})/\d+/\d+/(.+)/\d*/", line)
        if heading:
            inside = heading[1]
        elif entry and int(entry[1], 8) & 0o6000:
            path = os.path.join(inside, entry[2])
            if path in files:
                os.chmod(tree / path, int(entry[1], 8))


def _asked(place: str, questions: Sequence[str], folder: Path) -> list[str]:
    commands = folder / "debugfs-commands"
    commands.write_text("".join(f"{question}\n" for question in questions))
    return run(["debugfs", "-f", str(commands), place], with_stderr=True).splitlines()


def _restore_capabilities(place: str, tree: Path, folder: Path) -> None:
    programs = [path for path in sorted(_files(tree)) if os.lstat(tree / path).st_mode & 0o111]
    said = "\n".join(_asked(place, [f'ea_get -x "/{path}" {CAPABILITY}' for path in programs], folder))
    for path, value in re.findall(
        r'^debugfs: ea_get -x "/(.+)" \S+\n.*?([0-9a-f]{2}(?: ?[0-9a-f]{2})+)\s*$', said, re.M
    ):
        os.setxattr(tree / path, CAPABILITY, bytes.fromhex(value), follow_symlinks=False)


def _files(tree: Path) -> set[str]:
    found: list[str] = []
    for folder, _, names in os.walk(tree):
        inside = os.path.relpath(folder, tree)
        paths = [os.path.normpath(os.path.join(inside, name)) for name in names]
        found += [path for path in paths if '"' not in path and path.isprintable()]
    return {path for path in found if stat.S_ISREG(os.lstat(tree / path).st_mode)}


def _recipe_of(said: dict[str, object], disk: Path, tree: Path, beside: Sequence[Disk]) -> Recipe:
    info = json.loads(run(["qemu-img", "info", "--output=json", "-f", "qcow2", str(disk)]))
    vws_init = os.path.lexists(tree / MARK)
    direct = said.get("boot") == "direct"
    boot = Boot(
        By.KERNEL if direct or vws_init else By.LOADER,
        Init.VWS if vws_init else Init.SYSTEM,
        str(said["cmdline"]) if direct and said.get("cmdline") else None,
    )
    memory_mib = said.get("memory_mib_min")
    roles = said.get("roles")
    return Recipe(
        boot=boot,
        disk=DiskEntry(-(-int(info["virtual-size"]) // (1 << 20))),
        disks={each.name: FurtherDisk(each.size_mib, each.filesystem, each.label, each.mount) for each in beside},
        memory_mib=memory_mib if isinstance(memory_mib, int) else None,
        user=str(said["user"]) if "user" in said else None,
        ready=str(said["ready"]) if "ready" in said else None,
        roles={str(name): str(text) for name, text in roles.items()} if isinstance(roles, dict) else {},
    )


def built_on(base: Base, recipe: Recipe) -> Recipe:
    """The recipe, with what it does not say taken from the image."""
    both: Recipe = joined(base.recipe, recipe)
    return replace(both, name=recipe.name, version=recipe.version)
