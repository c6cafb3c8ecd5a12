"""What boots: VWS's own initramfs with its kernel, or those that a Debian system brings on its disk.

VWS's initramfs (guest/rootfs.py) is the whole system of an appliance of programs, and hands over to the disk of one
whose init is VWS's. A system with an init of its own, such as systemd, brings kernel and initramfs by its packages;
Debian keeps links to the newest of them in /, by which its boot loader finds them after an upgrade too.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vws.factory.debian import Package, built_from
from vws.guest import cpio, rootfs
from vws.guest.debs import BuildError, Deb, Unpacked, look_up, unpack, with_dependencies

OF_INITRAMFS = ("busybox-static", "ca-certificates", "dropbear-bin")
LINKS = {"kernel": "vmlinuz", "initrd": "initrd.img"}


@dataclass(frozen=True, slots=True)
class Parts:
    """What VWS's initramfs is made of. used: the packages of which something went into it."""

    packages: dict[str, Unpacked]
    kernel: Unpacked
    tree: dict[str, cpio.Entry]
    used: frozenset[str]

    @property
    def release(self) -> str:
        (path,) = self.kernel.root.glob("lib/modules/*")
        return path.name

    def packages_of(self, names: Iterable[str]) -> tuple[Package, ...]:
        debs = {**{name: each.deb for name, each in self.packages.items()}, self.kernel.deb.name: self.kernel.deb}
        return tuple(_package(debs[name]) for name in sorted(names))

    def write(self, folder: Path) -> dict[str, Path]:
        """kernel and initrd, in `folder`."""
        (path,) = self.kernel.root.glob("boot/vmlinuz-*")
        (folder / "kernel").write_bytes(path.read_bytes())
        packed = gzip.compress(cpio.archive(self.tree), compresslevel=9, mtime=0)
        (folder / "initrd").write_bytes(packed)
        return {"kernel": folder / "kernel", "initrd": folder / "initrd"}


def fetch(kernel_package: str, names: Iterable[str], cache: Path) -> Parts:
    """The kernel on which the metapackage depends at this time, and these packages beside the initramfs's own.

    `cache` keeps what is downloaded and unpacked. Raises BuildError with the next step in it.
    """
    name, _, version = kernel_package.partition("=")
    found = look_up([name])[name]
    image = next((each for each in found.depends if each.startswith("linux-image-")), name)
    if version and found.version != version:
        raise BuildError(f"apt's {name} is {found.version}, not {version}. Next: apt-get update, or another version")
    debs = with_dependencies([*OF_INITRAMFS, *names, image], follow=_brings_libraries)
    packages = unpack(debs.values(), cache)
    kernel = packages.pop(image)
    tree, used = rootfs.boot_tree(packages, kernel)
    return Parts(packages, kernel, tree, frozenset(used))


def _brings_libraries(package: str) -> bool:
    return package.startswith(("lib", "zlib"))


def _package(deb: Deb) -> Package:
    # Source: openssl, or, if its version is another: openssl (3.0.11-1)
    source, _, version = (deb.source or deb.name).partition(" ")
    made_of = built_from(deb.name, deb.version, source, version.strip("()") or deb.version)
    return Package(deb.name, deb.version, deb.architecture, deb.sha256, made_of)


def of_system(tree: Path, folder: Path) -> dict[str, Path]:
    """The kernel and initrd that the system in `tree` brings, copied into `folder`. Raises BuildError without them."""
    return {name: _copied(tree, link, folder / name) for name, link in LINKS.items()}


def _copied(tree: Path, link: str, target: Path) -> Path:
    path = tree / link
    if not path.is_symlink():
        raise BuildError(f"the system has no /{link}, to which Debian's kernel packages link what boots")
    name = os.path.normpath(f"/{os.readlink(path)}").lstrip("/")
    source = tree / name
    # A link of a stranger's image must not lead to a file of this machine.
    if any(each.is_symlink() for each in (source, *source.parents) if each != tree and each.is_relative_to(tree)):
        raise BuildError(f"/{link} does not lead to an ordinary file")
    if not source.is_file():
        raise BuildError(f"/{link} points at /{name}, which is not there")
    target.write_bytes(source.read_bytes())
    return target
