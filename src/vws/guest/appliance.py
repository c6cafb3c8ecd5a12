"""Builds the demo appliance: `python -m vws.guest.appliance --out FILE [--cache DIR]`.

An appliance bundle is one uncompressed tar: appliance.json (what it is, what it needs, the sha256 of the rest), kernel,
initrd and disk.qcow2. It boots directly: the hypervisor is given kernel and initrd, so that no firmware, boot loader or
partition table is emulated first.

The same package versions give the same bytes, wherever and whenever it is built: all files come from packages (debs.py)
and this folder, and nothing of the build machine (owners, times, umask, order of folders) is written down. That makes
the bundle's sha256 a name that two sites agree on, and a rebuilt appliance one that nodes already hold.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vws.guest import cpio, ext4, rootfs
from vws.guest.debs import BuildError, Unpacked, look_up, run, unpack, with_dependencies

FORMAT = "vws-appliance/1"
VERSION = "1"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
PACKAGES = ("busybox-static", "ca-certificates", "curl", "dropbear-bin", "e2fsprogs", "nfs-kernel-server")
TOOLS = ("e2fsprogs", "qemu-utils")  # of the build machine; they write the disk's bytes

DISK_MIB = 64
MEMORY_MIB_MIN = 96  # 80 boots, 72 does not; the rest is for the user's first command
# The guest is one user's own, so that mitigations between its users buy nothing; they cost 0.4 s of an emulated boot,
# the crypto self-tests 0.25 s. A busy emulator fails the timer's check by being late. Nothing here is wrong under KVM.
CMDLINE = "console=ttyS0 panic=-1 quiet random.trust_cpu=on mitigations=off cryptomgr.notests no_timer_check"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a bundle says of itself, and the size of its disk."""

    name: str
    version: str
    disk_mib: int
    memory_mib_min: int


DEMO = Kind("demo", VERSION, DISK_MIB, MEMORY_MIB_MIN)


@dataclass(frozen=True, slots=True)
class Parts:
    """What goes into the bundle, and the version of every package it came from."""

    kernel: bytes
    initrd: bytes
    disk: bytes
    packages: Mapping[str, str]
    tools: Mapping[str, str]


def build(out: Path, cache: Path) -> str:
    """Write the bundle to `out` (replaced in one step, kept when this fails) and return its sha256.

    `cache` keeps downloaded and unpacked packages for the next time. Raises BuildError with the next step in it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    return write_bundle(out, _parts(cache), DEMO)


def write_bundle(out: Path, parts: Parts, kind: Kind) -> str:
    """Write the bundle of these parts to `out`, replaced in one step, and return its sha256."""
    out.parent.mkdir(parents=True, exist_ok=True)
    bundle = _bundle(parts, kind)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_bytes(bundle)
    os.chmod(partial, 0o644)
    partial.replace(out)
    return hashlib.sha256(bundle).hexdigest()


def _parts(cache: Path) -> Parts:
    packages, kernel = fetch_packages(cache)
    boot, boot_packages = rootfs.boot_tree(packages, kernel)
    disk, disk_packages = rootfs.disk_tree(packages, kernel)
    sources = {**packages, kernel.deb.name: kernel}
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        image = Path(folder) / "disk.qcow2"
        ext4.make_qcow2(disk, image, DISK_MIB)
        return Parts(
            kernel=kernel_of(kernel),
            initrd=pack_initrd(boot),
            disk=image.read_bytes(),
            packages={name: sources[name].deb.version for name in sorted(boot_packages | disk_packages)},
            tools=tool_versions(TOOLS),
        )


def pack_initrd(tree: cpio.Tree) -> bytes:
    return gzip.compress(cpio.archive(tree), compresslevel=9, mtime=0)


def fetch_packages(cache: Path) -> tuple[dict[str, Unpacked], Unpacked]:
    """All packages but the kernel's, and the kernel's: the one on which the metapackage depends at this time."""
    (image,) = (name for name in look_up([KERNEL_PACKAGE])[KERNEL_PACKAGE].depends if name.startswith("linux-image-"))
    debs = with_dependencies([*PACKAGES, image], follow=_brings_libraries)
    unpacked = unpack(debs.values(), cache)
    return unpacked, unpacked.pop(image)


def _brings_libraries(package: str) -> bool:
    return package.startswith(("lib", "zlib"))


def kernel_of(package: Unpacked) -> bytes:
    (path,) = package.root.glob("boot/vmlinuz-*")
    return path.read_bytes()


def tool_versions(names: Sequence[str]) -> dict[str, str]:
    """Of packages of this machine. Raises BuildError if one is not installed."""
    printed = run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *names])
    return dict(sorted(line.split(" ", 1) for line in printed.splitlines()))


def _manifest(parts: Parts, kind: Kind, files: Mapping[str, bytes]) -> dict[str, Any]:
    described: dict[str, dict[str, Any]] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()
    }
    described["disk.qcow2"]["virtual_size_mib"] = kind.disk_mib
    return {
        "format": FORMAT,
        "name": kind.name,
        "version": kind.version,
        "architecture": "x86_64",
        "boot": "direct",
        "cmdline": CMDLINE,
        "memory_mib_min": kind.memory_mib_min,
        "ready": "ssh",
        "user": "root",
        "packages": dict(parts.packages),
        "tools": dict(parts.tools),
        "files": described,
    }


def _bundle(parts: Parts, kind: Kind) -> bytes:
    files = {"kernel": parts.kernel, "initrd": parts.initrd, "disk.qcow2": parts.disk}
    manifest = json.dumps(_manifest(parts, kind, files), indent=2).encode() + b"\n"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as bundle:
        for name, data in {"appliance.json": manifest, **files}.items():
            member = tarfile.TarInfo(name)  # owner, group and time are 0 unless said
            member.size = len(data)
            bundle.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Build as the command line says; exit status 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m vws.guest.appliance", description="Build the demo appliance.")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the bundle to write")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/cache"), metavar="DIR", help="downloaded packages (build/cache)"
    )
    options = parser.parse_args(arguments)
    try:
        digest = build(options.out.absolute(), options.cache.absolute())
    except (BuildError, OSError) as error:
        print(f"appliance: {error}", file=sys.stderr)
        return 1
    print(f"appliance: {options.out} ({options.out.stat().st_size / 1e6:.1f} MB, sha256 {digest[:12]}…)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
