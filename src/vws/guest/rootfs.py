"""What is inside the demo appliance: the initramfs it boots from, and the disk beside it.

Unpacking an initramfs costs emulated CPU time and then memory for good, so it holds only what brings a machine up:
the drivers, busybox, dropbear and the scripts of files/. Larger tools (curl with its libraries and the certificate
authorities, the agent of contexts, whatever programs a recipe names) lie on the data disk, of which only what is used
is ever read. So do the drivers that few machines need: the kernel has modprobe load them, when somebody mounts what
needs them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vws.guest.cpio import Entry, Tree, file, folder, link
from vws.guest.debs import BuildError, Unpacked, run

SCRIPTS = Path(__file__).parent
LIBRARIES = "lib/x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"

# path in the guest -> (package, path in the package)
BOOT_PROGRAMS = {
    "bin/busybox": ("busybox-static", "bin/busybox"),
    "sbin/dropbear": ("dropbear-bin", "usr/sbin/dropbear"),
    "bin/dropbearkey": ("dropbear-bin", "usr/bin/dropbearkey"),
    "bin/dropbearconvert": ("dropbear-bin", "usr/bin/dropbearconvert"),
}
AUTHORITIES = "share/ca-certificates.crt"

# Before sshd answers: the NoCloud disk and the network. CD drives only when no disk is a NoCloud disk. After: the rest.
EARLY_MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "isofs")
CDROM_MODULES = ("ata_piix", "virtio_scsi", "sr_mod")
LATE_MODULES = ("button", "evdev", "virtio_balloon", "virtio-rng", "virtio_console", "pvpanic-mmio", "pvpanic-pci")
FOLDERS = (
    "dev",
    "proc",
    "sys",
    "usr",
    "data",
    "mnt",
    "var/log",
    "run/seed",
    "run/disk",
    "etc/dropbear",
    "var/lib/nfs/v4recovery",
)


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a package that a program or library is taken from."""

    package: str
    path: Path


def boot_tree(packages: Mapping[str, Unpacked], kernel: Unpacked) -> tuple[dict[str, Entry], set[str]]:
    """The initramfs, and the names of the packages that went into it. Raises BuildError for a missing file."""
    programs = _programs(BOOT_PROGRAMS, packages)
    libraries = _libraries(programs.values(), packages)
    tree = {path: folder() for path in FOLDERS}
    tree |= {"root": folder(0o700), "root/.ssh": folder(0o700), "tmp": folder(0o1777)}
    tree |= _applets(programs["bin/busybox"].path)
    tree |= {path: file(source.path.read_bytes(), 0o755) for path, source in programs.items()}
    tree |= _library_files(libraries)
    tree[f"lib64/{LOADER}"] = link(f"/{LIBRARIES}/{LOADER}")
    tree |= _modules(kernel)
    tree |= _scripts()
    tree[f"lib/modules/{_release(kernel)}"] = link(f"/usr/lib/modules/{_release(kernel)}")
    tree["etc/ssl/certs/ca-certificates.crt"] = link(f"/usr/{AUTHORITIES}")
    used = {source.package for source in (*programs.values(), *libraries.values())}
    return tree, used | {kernel.deb.name}


def disk_tree(
    packages: Mapping[str, Unpacked],
    kernel: Unpacked,
    wanted: Mapping[str, tuple[str, str]],
    modules: Iterable[str],
) -> tuple[dict[str, Entry], set[str]]:
    """The data disk: `usr`, mounted read-only on /usr, and an empty `data`; and the packages that went into it.

    wanted: programs, as (package, path in the package) by path; modules: kernel modules that modprobe is to find.
    """
    programs = _programs(wanted, packages)
    booted = _libraries(_programs(BOOT_PROGRAMS, packages).values(), packages)
    libraries = _libraries(programs.values(), packages)
    beside = {name: source for name, source in libraries.items() if name not in booted}
    tree = {path.lstrip("/"): file(source.path.read_bytes(), 0o755) for path, source in programs.items()}
    tree |= {f"usr/{path}": entry for path, entry in _library_files(beside).items()}
    tree[f"usr/{AUTHORITIES}"] = file(_authorities(packages["ca-certificates"]))
    tree |= _disk_modules(kernel, modules)
    tree["usr/local/bin"] = folder()
    tree["usr/local/sbin/vws-context"] = file((SCRIPTS / "agent").read_bytes(), 0o755)
    tree["data"] = folder()
    used = {source.package for source in (*programs.values(), *beside.values())}
    return tree, used | {"ca-certificates", kernel.deb.name}


def module_order(kernel: Unpacked, wanted: Iterable[str]) -> list[Path]:
    """The modules and what they depend on, each after its dependencies, so that insmod can take them one by one."""
    files = {_module_name(path.stem): path for path in sorted(kernel.root.glob("lib/modules/*/kernel/**/*.ko"))}
    order: dict[str, Path] = {}

    def visit(name: str) -> None:
        if name in order:
            return
        if name not in files:
            raise BuildError(f"{kernel.deb.name} has no module {name}. Next: adapt the lists in vws/guest/rootfs.py.")
        for dependency in _module_says(files[name], "depends"):
            visit(dependency)
        order[name] = files[name]

    for name in wanted:
        visit(_module_name(name))
    return list(order.values())


def _module_says(module: Path, field: str) -> list[str]:
    """`depends`: modules by name; `alias`: what the kernel may ask for in its place."""
    words = run(["modinfo", "-F", field, str(module)]).replace(",", " ").split()
    return [_module_name(word) for word in words]


def _release(kernel: Unpacked) -> str:
    (folder,) = kernel.root.glob("lib/modules/*")
    return folder.name


def _module_name(name: str) -> str:
    return name.replace("-", "_")


def _modules(kernel: Unpacked) -> dict[str, Entry]:
    tree: dict[str, Entry] = {}
    loaded: set[Path] = set()
    for phase, wanted in (("early", EARLY_MODULES), ("cdrom", CDROM_MODULES), ("late", LATE_MODULES)):
        new = [path for path in module_order(kernel, wanted) if path not in loaded]
        tree |= {f"lib/modules/{path.name}": file(path.read_bytes()) for path in new}
        tree[f"lib/modules/{phase}.list"] = file("".join(f"{path.name}\n" for path in new))
        if phase != "cdrom":  # those may never be loaded, so that a later phase cannot rely on them
            loaded.update(new)
    return tree


def _disk_modules(kernel: Unpacked, modules: Iterable[str]) -> dict[str, Entry]:
    """Modules where modprobe looks for them, and the two lists by which it finds them."""
    place = f"usr/lib/modules/{_release(kernel)}"
    paths = module_order(kernel, modules)
    tree = {f"{place}/{path.name}": file(path.read_bytes()) for path in paths}
    needs = {path: [needed.name for needed in module_order(kernel, [path.stem])[-2::-1]] for path in paths}
    tree[f"{place}/modules.dep"] = file("".join(f"{path.name}: {' '.join(needs[path])}\n" for path in paths))
    aliases = [(alias, _module_name(path.stem)) for path in paths for alias in _module_says(path, "alias")]
    tree[f"{place}/modules.alias"] = file("".join(f"alias {alias} {name}\n" for alias, name in sorted(aliases)))
    return tree


def _programs(table: Mapping[str, tuple[str, str]], packages: Mapping[str, Unpacked]) -> dict[str, Source]:
    found = {path: Source(name, packages[name].root / inner) for path, (name, inner) in table.items()}
    for path, (name, inner) in table.items():
        if not found[path].path.is_file():
            raise BuildError(
                f"programs: the package {name} has no file /{inner}, which is to be {path}. Next: its path there after "
                f"a colon ({name}:/usr/...; dpkg -L {name} or apt-file list {name} tells it)."
            )
    return found


def _libraries(programs: Iterable[Source], packages: Mapping[str, Unpacked]) -> dict[str, Source]:
    """Every shared library the programs need, through all levels, by the name they ask for."""
    available = _available_libraries(packages)
    found: dict[str, Source] = {}
    level = {source.path for source in programs}
    while level:
        names = _needed(level) - found.keys()
        missing = sorted(names - available.keys())
        if missing:
            raise BuildError(f"no package brings {', '.join(missing)}. Next: adapt the package lists of vws/guest.")
        found |= {name: available[name] for name in sorted(names)}
        level = {available[name].path for name in names}
    return found


def _available_libraries(packages: Mapping[str, Unpacked]) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for name, package in sorted(packages.items()):
        for path in sorted(package.root.glob("**/x86_64-linux-gnu/*.so*")):
            found.setdefault(path.name, Source(name, path))
    return found


def _needed(paths: Iterable[Path]) -> set[str]:
    lines = run(["readelf", "--dynamic", "--wide", *sorted(map(str, paths))], env=_plain_environment()).splitlines()
    return {line.partition("[")[2].rstrip("]") for line in lines if "(NEEDED)" in line}


def _library_files(libraries: Mapping[str, Source]) -> dict[str, Entry]:
    return {f"{LIBRARIES}/{name}": file(source.path.read_bytes(), 0o755) for name, source in libraries.items()}


def _applets(busybox: Path) -> Tree:
    """A link for every program that busybox is, made now rather than at each boot."""
    names = run([str(busybox), "--list"]).split()
    links = {f"bin/{name}": link("busybox") for name in names if name != "busybox"}
    return links | {
        f"sbin/{name}": link("/bin/busybox") for name in ("init", "acpid", "modprobe", "poweroff", "reboot")
    }


def _scripts() -> dict[str, Entry]:
    paths = {"init": SCRIPTS / "init"}
    paths |= {str(path.relative_to(SCRIPTS / "files")): path for path in (SCRIPTS / "files").rglob("*")}
    tree = {}
    for name, path in sorted(paths.items()):
        if path.is_file():
            data = path.read_bytes()
            mode = 0o755 if data.startswith(b"#!") else 0o600 if name == "etc/shadow" else 0o644
            tree[name] = file(data, mode)
    return tree


def _authorities(package: Unpacked) -> bytes:
    certificates = sorted(package.root.glob("usr/share/ca-certificates/mozilla/*.crt"))
    if not certificates:
        raise BuildError("ca-certificates holds no certificates. Next: adapt vws/guest/rootfs.py.")
    return b"".join(path.read_bytes().rstrip() + b"\n" for path in certificates)


def _plain_environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}
