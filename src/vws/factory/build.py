"""One build, from a plan to a bundle, in a folder of its own that is gone afterwards, however it ended.

A build that was killed leaves that folder and nothing else: its programs and mounts have gone with its namespaces
(apart.py). Each folder has a lock that its build holds; the next build removes those that nobody holds.

Where there is memory enough, the folder is in memory: dpkg waits for the disk at every step, and without that a system
is installed in two thirds of the time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vws.core.disks import Disk
from vws.core.errors import InvalidRequest
from vws.core.manifest import digest
from vws.core.recipe import FILLED_MIB_MIN, By, Init, Recipe, check_whole
from vws.core.site import data_role
from vws.factory import additions, base, boot, bundle, debian, disk, documents, loader
from vws.factory.debian import DATE_S, Package
from vws.factory.disk import Inode, Layout
from vws.factory.log import Log
from vws.factory.recipes import Plan
from vws.factory.sandbox import Sandbox
from vws.guest import overlay, rootfs
from vws.guest.debs import run

TOOLS = ("e2fsprogs", "qemu-utils")
LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Built:
    """sha256: of the bundle. digest: of what boots. took_s: how long the build took."""

    path: str
    sha256: str
    digest: str
    size_bytes: int
    packages: int
    took_s: float


@dataclass(frozen=True)
class _System:
    """A system that is ready to be put on its disk."""

    recipe: Recipe
    inodes: Sequence[Inode]
    contents: Path
    newest_s: int
    parts: Mapping[str, Path]
    packages: Sequence[Package]


def build(plan: Plan, out: Path, cache: Path, log: Log) -> Built:
    """Write the bundle to `out` and its documents beside it. What was there is kept when this fails.

    `cache` keeps what is downloaded for the next time. Raises BuildError or InvalidRequest.
    """
    started = time.monotonic()
    with _folder(cache / "work", plan.recipe.mounted_mib) as folder:
        make = _of_programs if plan.recipe.programs else _of_packages
        system = make(plan, cache, folder, log)
        recipe = system.recipe
        parts = dict(system.parts) | _disks(system, cache, folder, log)
        image = bundle.image_of(recipe, parts)
        log.step("writing the bundle")
        tools = _tools(TOOLS if recipe.programs else (*TOOLS, "bubblewrap", "mmdebstrap"))
        said = {
            bundle.SBOM: documents.bill_of_materials(recipe, image, system.packages),
            bundle.PROVENANCE: documents.provenance(recipe, image, system.packages, plan.sources, tools),
        }
        sha256 = bundle.write(out, recipe, image, parts, said)
    took_s = round(time.monotonic() - started, 1)
    return Built(str(out), sha256, digest(image), out.stat().st_size, len(system.packages), took_s)


def _of_programs(plan: Plan, cache: Path, folder: Path, log: Log) -> _System:
    recipe = plan.recipe
    log.step(f"packages of {len(recipe.programs)} programs")
    wanted = {path: _program(path, said) for path, said in recipe.programs.items()}
    made = boot.fetch(recipe.kernel_package, (package for package, _ in wanted.values()), cache)
    log.step("putting the system together")
    tree, used = rootfs.disk_tree(made.packages, made.kernel, wanted, recipe.kernel.modules)
    tree |= {each.path: each.entry for each in additions.added_by(recipe.files)}
    contents = folder / "contents"
    contents.mkdir()
    inodes = disk.inodes_of_tree(tree, contents, now_s=1)
    return _System(recipe, inodes, contents, 1, made.write(folder), made.packages_of(made.used | used))


def _program(path: str, said: str) -> tuple[str, str]:
    """curl: the package, and the path in it, which is the program's own if not said."""
    package, _, inner = said.partition(":")
    return package, (inner or path).lstrip("/")


def _of_packages(plan: Plan, cache: Path, folder: Path, log: Log) -> _System:
    tree, debs, recipe = folder / "tree", cache / "archives", plan.recipe
    box = Sandbox(tree, log, DATE_S)
    started_s = time.time()
    if plan.image is not None:
        log.step(f"taking out the files of {plan.image.name}")
        base_image = base.take_out(plan.image, tree, folder, log)
        known = {each.name: each for each in base_image.packages}
        recipe = base.built_on(base_image, recipe)
        check_whole(recipe, on_image=True)
        names = recipe.debian.packages if recipe.debian else ()
        log.step(f"installing {len(names)} packages and what they need")
        debian.add_packages(names, box, debs)
    else:
        assert recipe.debian is not None, "check_whole lets no other recipe pass"
        known = {}
        names = _packages(recipe)
        log.step(f"installing {len(names)} packages of {recipe.debian.suite} and what they need")
        debian.make_system(recipe.debian, names, tree, debs, log)
    if recipe.init is Init.SYSTEM:
        additions.add_all(recipe, (), box)
        parts = boot.of_system(tree, folder)
        packages = debian.installed(tree, debs, known)
    else:
        made = boot.fetch(recipe.kernel_package, (), cache)
        system = f"{recipe.name} {recipe.version}"
        laid = overlay.overlay(made.kernel, made.tree, system, recipe.kernel.modules, tuple(recipe.services.run))
        additions.add_all(recipe, (additions.Added(path, entry) for path, entry in laid.items()), box)
        box.run(["depmod", made.release])
        parts = made.write(folder)
        packages = _merged(debian.installed(tree, debs, known), made.packages_of(made.used))
    inodes, newest_s = disk.inodes_of_folder(tree, started_s)
    if recipe.by is By.LOADER:
        parts = {}
    return _System(recipe, inodes, tree, newest_s, parts, packages)


def _packages(recipe: Recipe) -> tuple[str, ...]:
    assert recipe.debian is not None
    ours = overlay.PACKAGES if recipe.init is Init.VWS else (recipe.kernel_package,)
    return tuple(dict.fromkeys((*recipe.debian.packages, *ours)))


def _merged(*packages: Sequence[Package]) -> tuple[Package, ...]:
    """Each once, those with a sha256 before those without."""
    found: dict[tuple[str, str, str], Package] = {}
    for each in (each for group in packages for each in group):
        key = (each.name, each.version, each.architecture)
        if not (key in found and found[key].sha256):
            found[key] = each
    return tuple(found[key] for key in sorted(found))


def _disks(system: _System, cache: Path, folder: Path, log: Log) -> dict[str, Path]:
    """The root disk, and of the others those that something is on, each by the name of its member."""
    recipe = system.recipe
    on = disk.split(system.inodes, (each.mount for each in recipe.beside if each.mount))
    log.step(f"writing the disk: {len(on[''])} files on {recipe.disk_mib} MiB")
    made = {"disk.qcow2": _root_disk(replace(system, inodes=on[""]), cache, folder)}
    for each in recipe.beside:
        if each.mount in on and each.mount:
            log.step(f"writing the disk {each.name}: {len(on[each.mount]) - 1} files on {each.size_mib} MiB")
            made[f"{data_role(each.name)}.qcow2"] = _further_disk(system, each, on[each.mount], folder)
    return made


def _further_disk(system: _System, each: Disk, inodes: Sequence[Inode], folder: Path) -> Path:
    called = f"disks.{each.name}"
    if each.filesystem != "ext4" or each.size_mib < FILLED_MIB_MIN:
        field = "filesystem" if each.filesystem != "ext4" else "size"
        raise InvalidRequest(
            f"{called}.{field}: the build left {len(inodes) - 1} files below {each.mount}, which are to be on it",
            field=f"{called}.{field}", possible=f"ext4, at least {FILLED_MIB_MIN}MiB; or another mount",
        )  # fmt: skip
    target = folder / f"{data_role(each.name)}.qcow2"
    ours = disk.identity(system.recipe.name, f"{system.recipe.version} {each.name}")
    layout = Layout(each.size_mib, ours, each.label or each.name, system.newest_s, called=called)
    disk.make_qcow2(inodes, system.contents, target, layout)
    return target


def _root_disk(system: _System, cache: Path, folder: Path) -> Path:
    recipe, target = system.recipe, folder / "disk.qcow2"
    ours = disk.identity(recipe.name, recipe.version)
    layout = Layout(recipe.disk_mib, ours, recipe.disk.label or disk.LABEL, system.newest_s)
    start = b""
    if recipe.by is By.LOADER:
        layout = replace(layout, offset=disk.PART_START)
        start = loader.start_of_disk(recipe.disk_mib, ours, recipe.cmdline, cache, folder)
    disk.make_qcow2(system.inodes, system.contents, target, layout, start)
    return target


def _tools(names: Sequence[str]) -> dict[str, str]:
    """The versions of packages of this machine. Raises BuildError if one is not installed."""
    printed = run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *names])
    return dict(sorted(line.split(" ", 1) for line in printed.splitlines()))


@contextmanager
def _folder(top: Path, disk_mib: int) -> Iterator[Path]:
    """A new folder in `top`, held for as long as this lasts; those that nobody holds are removed."""
    top.mkdir(parents=True, exist_ok=True)
    with (top / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        _sweep(top)
        folder = Path(tempfile.mkdtemp(prefix="build-", dir=top))
        os.chmod(folder, 0o755)
        lock = (folder / LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    inside = _in_memory_if_it_fits(folder / "inside", disk_mib)
    try:
        yield inside
    finally:
        if inside.is_mount():
            run(["umount", str(inside)])
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _in_memory_if_it_fits(folder: Path, disk_mib: int) -> Path:
    """The new folder. In memory if half of what is free holds a tree and a disk of that size twice over."""
    folder.mkdir()
    lines = Path("/proc/meminfo").read_text().splitlines()
    free_mib = next(int(line.split()[1]) >> 10 for line in lines if line.startswith("MemAvailable:"))
    # Only the first process of a build's own namespaces may mount: there the kernel unmounts, whatever happens.
    if os.getpid() == 1 and os.geteuid() == 0 and free_mib // 2 >= 4 * disk_mib:
        run(["mount", "-t", "tmpfs", "-o", f"mode=755,size={free_mib // 2}M", "vws-build", str(folder)])
    return folder


def _sweep(top: Path) -> None:
    for folder in top.glob("build-*"):
        try:
            with (folder / LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        except FileNotFoundError:
            shutil.rmtree(folder, ignore_errors=True)


def as_json(built: Built) -> dict[str, object]:
    return asdict(built)
