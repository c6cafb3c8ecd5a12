"""A boot loader on a disk: GRUB for BIOS, put there without mounting and without GRUB's own installer.

A disk begins with GRUB's boot sector, which loads what follows it at once: core.img, with GRUB's modules and a few
lines of configuration in it. Behind, from 1 MiB on, is the one partition. The kernel is found by Debian's own links in
/, so that an upgrade of it in the guest needs nothing of GRUB. `boot.img` expects core.img in the next sector, and
grub-mkimage writes into that how long it is, so that both only have to be laid one after the other.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from uuid import UUID

from vws.factory.disk import PART_START
from vws.guest.debs import BuildError, run, unpack, with_dependencies

PACKAGES = ("grub-common", "grub-pc-bin")
MODULES = (
    *("biosdisk", "part_msdos", "ext2", "linux", "normal", "echo", "serial", "terminal", "search_fs_uuid", "sleep"),
    *("reboot", "halt", "configfile", "test"),
)
SECTOR = 512
CODE_BYTES = 440
LINUX = 0x83
# Not named by what cannot be known before: it boots the disk's one partition, and shows what it does on the console.
_CONFIGURATION = """\
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
search.fs_uuid {identity} root
linux ($root)/vmlinuz root=UUID={identity} ro {cmdline}
initrd ($root)/initrd.img
boot
"""


def start_of_disk(size_mib: int, identity: UUID, cmdline: str, cache: Path, folder: Path) -> bytes:
    """The first PART_START bytes of a disk whose one partition holds the file system of that id."""
    debs = with_dependencies(PACKAGES, follow=lambda name: name.startswith(("lib", "grub")))
    unpacked = unpack(debs.values(), cache)
    place = unpacked["grub-pc-bin"].root / "usr/lib/grub/i386-pc"
    configuration, core = folder / "grub.cfg", folder / "core.img"
    configuration.write_text(_CONFIGURATION.format(identity=identity, cmdline=cmdline))
    libraries = ":".join(str(each.root / "lib/x86_64-linux-gnu") for each in unpacked.values())
    make = [str(unpacked["grub-common"].root / "usr/bin/grub-mkimage"), "--directory", str(place)]
    make += ["--format=i386-pc", "--prefix=/boot/grub", "--config", str(configuration), "--output", str(core), *MODULES]
    run(make, env={**os.environ, "LD_LIBRARY_PATH": libraries, "LC_ALL": "C"})
    return _laid_out((place / "boot.img").read_bytes(), core.read_bytes(), size_mib, identity)


def _laid_out(boot: bytes, core: bytes, size_mib: int, identity: UUID) -> bytes:
    if SECTOR + len(core) > PART_START:
        raise BuildError(f"GRUB's core image has {len(core)} bytes, more than there is room for before the partition")
    sectors = (size_mib << 20) // SECTOR
    first = PART_START // SECTOR
    # Addresses in cylinders, heads and sectors mean nothing any more: the largest there are.
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", LINUX, b"\xfe\xff\xff", first, sectors - first)
    head = boot[:CODE_BYTES] + identity.bytes[:4] + bytes(2) + entry + bytes(48) + b"\x55\xaa"
    return (head + core).ljust(PART_START, b"\0")
