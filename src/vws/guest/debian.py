"""Builds the Debian appliance: `python -m vws.guest.debian --out FILE [--cache DIR]`.

Debian with what clusters want, openssh, NFS and Slurm among it, and without what takes an emulated machine half a
minute to boot: no systemd, no udev, no firmware. It boots from the same kernel and initramfs as the demo appliance; as
its disk holds a whole system (etc/vws/system), that becomes the machine's root (files/etc/vws/become), and busybox's
init runs the same few things there: DHCP, sshd, the agent of contexts. Its root is on its disk and outlives reboots.

mmdebstrap makes it from the sources of packages that this machine's apt has. Two builds are not the same bytes, as
packages' own scripts write what they like; so it is built once, and again only when something here has changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from vws.guest import appliance, rootfs
from vws.guest.appliance import Kind, Parts
from vws.guest.cpio import Entry, Tree, file, link
from vws.guest.debs import BuildError, Unpacked, run

SUITE = "bookworm"
DEBIAN = Kind("debian", "12", disk_mib=1024, memory_mib_min=192)
PACKAGES = (
    *("busybox-static", "ca-certificates", "curl", "iproute2", "iputils-ping", "kmod", "openssl"),
    *("openssh-client", "openssh-server"),
    *("nfs-common", "nfs-kernel-server"),
    *("munge", "slurm-client", "slurmctld", "slurmd"),
)
NOT_WANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# modprobe finds these; what the first seconds need is in the initramfs.
MODULES = ("nfs", "nfsv4", "nfsd", "overlay", "fuse", "loop")
TOOLS = ("e2fsprogs", "mmdebstrap", "qemu-utils")
APPLETS = ("init", "poweroff", "reboot", "halt", "acpid", "udhcpc")
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
HERE = Path(__file__).parent


def build(out: Path, cache: Path) -> str:
    """Write the bundle to `out`, replaced in one step, and return its sha256. Raises BuildError with the next step."""
    cache.mkdir(parents=True, exist_ok=True)
    packages, kernel = appliance.fetch_packages(cache)
    boot, _ = rootfs.boot_tree(packages, kernel)
    with tempfile.TemporaryDirectory(dir=cache) as place:
        folder = Path(place)
        _write_tree(overlay(kernel, boot), folder / "overlay")
        versions = _make_disk(folder, _release(kernel))
        parts = Parts(
            kernel=appliance.kernel_of(kernel),
            initrd=appliance.pack_initrd(boot),
            disk=(folder / "disk.qcow2").read_bytes(),
            packages=versions,
            tools=appliance.tool_versions(TOOLS),
        )
    return appliance.write_bundle(out, parts, DEBIAN)


def is_current(out: Path) -> bool:
    """Whether nothing that it is made by is newer than the bundle."""
    made_by = [path for path in HERE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return out.exists() and all(path.stat().st_mtime <= out.stat().st_mtime for path in made_by)


def overlay(kernel: Unpacked, boot: Tree) -> dict[str, Entry]:
    """What is laid over Debian's files: the scripts of the demo appliance, for busybox's shell, the agent, modules."""
    tree = {path: entry for path, entry in boot.items() if path.startswith(("etc/vws/", "etc/udhcpc/", "etc/acpi/"))}
    tree["etc/inittab"] = boot["etc/inittab"]
    for path in sorted((HERE / "debian_files").rglob("*")):
        if path.is_file():
            tree[str(path.relative_to(HERE / "debian_files"))] = file(path.read_bytes(), 0o755)
    # Their commands are busybox's, and its shell prefers those to others.
    tree = {path: _for_busybox(entry) for path, entry in tree.items()}
    tree["etc/vws/system"] = file(f"{DEBIAN.name} {DEBIAN.version}\n")
    tree["etc/motd"] = file("A VWS workspace, running the Debian appliance.\n")
    tree["usr/local/sbin/vws-context"] = file((HERE / "agent").read_bytes(), 0o755)
    tree |= {f"usr/sbin/{name}": link("/bin/busybox") for name in APPLETS}
    return tree | _late_modules(boot) | _modules(kernel)


def _for_busybox(entry: Entry) -> Entry:
    if not entry.data.startswith(b"#!/bin/sh\n"):
        return entry
    return file(entry.data.replace(b"#!/bin/sh\n", b"#!/bin/busybox sh\n", 1), 0o755)


def _late_modules(boot: Tree) -> dict[str, Entry]:
    """Those that /etc/vws/late loads by their files."""
    names = boot["lib/modules/late.list"].data.decode().split()
    return {f"usr/lib/modules/{name}": boot[f"lib/modules/{name}"] for name in ("late.list", *names)}


def _modules(kernel: Unpacked) -> dict[str, Entry]:
    """Where modprobe looks for them, with what depmod reads."""
    found = rootfs.module_order(kernel, MODULES)
    found += [
        path for name in ("builtin", "order", "builtin.modinfo") for path in kernel.root.glob(f"**/modules.{name}")
    ]
    return {f"usr/{path.relative_to(kernel.root)}": file(path.read_bytes()) for path in found}


def _release(kernel: Unpacked) -> str:
    (path,) = kernel.root.glob("lib/modules/*")
    return path.name


def _write_tree(tree: Mapping[str, Entry], folder: Path) -> None:
    for name, entry in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.is_link:
            path.symlink_to(entry.data.decode())
        elif not entry.is_folder:
            path.write_bytes(entry.data)
            path.chmod(entry.mode & 0o777)
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def _make_disk(folder: Path, release: str) -> dict[str, str]:
    """disk.qcow2 in `folder`, from its overlay; the versions of all packages on it."""
    raw, listed = folder / "disk.raw", folder / "packages"
    with raw.open("wb") as stream:
        stream.truncate(DEBIAN.disk_mib << 20)
    told = {"VWS_OVERLAY": folder / "overlay", "VWS_KERNEL": release, "VWS_DISK": raw, "VWS_PACKAGES": listed}
    fill = folder / "fill-disk"
    shutil.copy(HERE / "fill-disk", fill)
    fill.chmod(0o755)
    command = ["mmdebstrap", "--variant=minbase", "--format=null", f"--include={','.join(PACKAGES)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in NOT_WANTED]
    command += [f"--customize-hook={fill}", SUITE, "/dev/null", *(str(path) for path in SOURCES if path.exists())]
    run(command, env={**os.environ, **{name: str(value) for name, value in told.items()}, "LC_ALL": "C"})
    run(["qemu-img", "convert", "-c", "-m", "2", "-f", "raw", "-O", "qcow2", str(raw), str(folder / "disk.qcow2")])
    return dict(sorted(line.split(" ", 1) for line in listed.read_text().splitlines()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Build as the command line says, unless it is there already; exit status 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m vws.guest.debian", description="Build the Debian appliance.")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the bundle to write")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"), metavar="DIR", help="build/cache")
    options = parser.parse_args(arguments)
    if is_current(options.out):
        return 0
    print(f"{DEBIAN.name}: building, which takes some minutes", file=sys.stderr)
    try:
        digest = build(options.out.absolute(), options.cache.absolute())
    except (BuildError, OSError) as error:
        print(f"{DEBIAN.name}: {error}", file=sys.stderr)
        return 1
    print(f"{DEBIAN.name}: {options.out} ({options.out.stat().st_size / 1e6:.1f} MB, sha256 {digest[:12]}…)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
