"""What VWS lays over a Debian system whose init is VWS's: without systemd, udev and firmware, it is up in seconds.

It boots from the same kernel and initramfs as an appliance in memory; as its disk holds a whole system
(etc/vws/system), that becomes the machine's root (files/etc/vws/become), and busybox's init runs the same few things
there: DHCP, sshd, the agent of contexts. Its root is on its disk and outlives reboots.
"""

from __future__ import annotations

from pathlib import Path

from vws.guest import rootfs
from vws.guest.cpio import Entry, Tree, file, link
from vws.guest.debs import Unpacked

# What the scripts, the agent and the finding of modules need.
PACKAGES = ("busybox-static", "curl", "iproute2", "kmod")
APPLETS = ("init", "poweroff", "reboot", "halt", "acpid", "udhcpc")
HERE = Path(__file__).parent


def overlay(
    kernel: Unpacked, boot: Tree, system: str, modules: tuple[str, ...] = (), services: tuple[str, ...] = ()
) -> dict[str, Entry]:
    """The scripts of the initramfs, for busybox's shell, the agent, and modules that modprobe is to find.

    system: what the machine says it is. services: names of scripts in etc/vws/services that init is to keep running.
    """
    tree = {path: entry for path, entry in boot.items() if path.startswith(("etc/vws/", "etc/udhcpc/", "etc/acpi/"))}
    for path in sorted((HERE / "debian_files").rglob("*")):
        if path.is_file():
            tree[str(path.relative_to(HERE / "debian_files"))] = file(path.read_bytes(), 0o755)
    # Their commands are busybox's, and its shell prefers those to others.
    tree = {path: _for_busybox(entry) for path, entry in tree.items()}
    lines = "".join(f"null::respawn:/etc/vws/services/{name}\n" for name in services)
    tree["etc/inittab"] = file(boot["etc/inittab"].data + lines.encode())
    tree["etc/vws/system"] = file(f"{system}\n")
    tree["usr/local/sbin/vws-context"] = file((HERE / "agent").read_bytes(), 0o755)
    tree |= {f"usr/sbin/{name}": link("/bin/busybox") for name in APPLETS}
    return tree | _late_modules(boot) | _modules(kernel, modules)


def _for_busybox(entry: Entry) -> Entry:
    if not entry.data.startswith(b"#!/bin/sh\n"):
        return entry
    return file(entry.data.replace(b"#!/bin/sh\n", b"#!/bin/busybox sh\n", 1), 0o755)


def _late_modules(boot: Tree) -> dict[str, Entry]:
    """Those that /etc/vws/late loads by their files."""
    names = boot["lib/modules/late.list"].data.decode().split()
    return {f"usr/lib/modules/{name}": boot[f"lib/modules/{name}"] for name in ("late.list", *names)}


def _modules(kernel: Unpacked, modules: tuple[str, ...]) -> dict[str, Entry]:
    """Where modprobe looks for them, with what depmod reads."""
    found = rootfs.module_order(kernel, modules)
    found += [
        path for name in ("builtin", "order", "builtin.modinfo") for path in kernel.root.glob(f"**/modules.{name}")
    ]
    return {f"usr/{path.relative_to(kernel.root)}": file(path.read_bytes()) for path in found}
