"""A recipe: how an appliance is made, as values; core/recipe_keys.py reads them.

A recipe says what is in an appliance and how that boots, never how it is to be built: the same recipe and the same
versions of packages are to give the same bytes, wherever they are put together. Hence no variables, no conditions, no
time of day.

What a build leaves below the mount point of a further disk is on that disk, as it would be seen nowhere else; where
there is nothing, the disk is blank, and costs nothing until somebody writes to it.

Recipes build on each other (`from:`). A chain of them is one recipe: tables and lists are added up, the base's first,
and what the last one says of anything else stands. So packages of the whole chain are installed first, then files,
users, services and commands follow, each in the chain's order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, NoReturn

from vws.core.disks import DISKS_MAX, Disk, completed
from vws.core.errors import InvalidRequest

DISK_MIB_DEFAULT = 1024
KERNEL_DEFAULT = "linux-image-cloud-amd64"
# The guest is one user's own, so that mitigations between its users buy nothing; they cost 0.4 s of an emulated boot,
# the crypto self-tests 0.25 s. A busy emulator fails the timer's check by being late. Nothing here is wrong under KVM.
CMDLINE_DEFAULT = "console=ttyS0 panic=-1 quiet random.trust_cpu=on mitigations=off cryptomgr.notests no_timer_check"
# Where the programs of a system in memory may be: the rest of its disk is not seen.
ON_THE_DISK = ("/usr/", "/data/")
FILLED_MIB_MIN = 16


class By(StrEnum):
    """What starts the kernel: the hypervisor, which is given kernel and initramfs, or a boot loader on the disk."""

    KERNEL = "kernel"
    LOADER = "loader"


class Init(StrEnum):
    """Who runs the machine: VWS's own few scripts under busybox, or what the system has, such as systemd."""

    VWS = "vws"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Debian:
    """A whole Debian system, on the disk."""

    suite: str | None = None
    packages: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileEntry:
    """source: a file or folder beside the recipe; text: the contents; link: where a symbolic link points.

    owner: USER or USER:GROUP of the appliance. mode: octal; "": 0755 for programs and folders, 0644 for the rest.
    """

    path: str
    source: str = ""
    text: str | None = None
    link: str = ""
    mode: str = ""
    owner: str = "root:root"


@dataclass(frozen=True, slots=True)
class UserEntry:
    uid: int | None = None
    groups: tuple[str, ...] = ()
    shell: str = "/bin/bash"
    home: str = ""
    keys: tuple[str, ...] = ()
    system: bool = False


@dataclass(frozen=True, slots=True)
class Services:
    """enable, disable: units of systemd. run: commands that are kept running, by name."""

    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    run: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommandEntry:
    run: str
    within_s: int = 600


@dataclass(frozen=True, slots=True)
class Kernel:
    """modules: what modprobe finds beside what booting needs, where the system brings no kernel of its own."""

    package: str | None = None
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Boot:
    by: str | None = None
    init: str | None = None
    cmdline: str | None = None


@dataclass(frozen=True, slots=True)
class DiskEntry:
    size_mib: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class FurtherDisk:
    """A disk beside the root's, that a workspace has unless its lease asks for another."""

    size_mib: int
    filesystem: str = ""
    label: str = ""
    mount: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """None: it does not say, so that the base's word stands. programs: PACKAGE or PACKAGE:PATH by path."""

    vws: str = ""
    name: str = ""
    version: str = "1"
    about: str | None = None
    base: str = ""
    debian: Debian | None = None
    programs: Mapping[str, str] = field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()
    users: Mapping[str, UserEntry] = field(default_factory=dict)
    services: Services = Services()
    commands: tuple[CommandEntry, ...] = ()
    kernel: Kernel = Kernel()
    boot: Boot = Boot()
    disk: DiskEntry = DiskEntry()
    disks: Mapping[str, FurtherDisk] = field(default_factory=dict)
    memory_mib: int | None = None
    user: str | None = None
    ready: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)

    @property
    def by(self) -> By:
        return By(self.boot.by or By.KERNEL)

    @property
    def init(self) -> Init:
        return Init(self.boot.init or Init.VWS)

    @property
    def kernel_package(self) -> str:
        return self.kernel.package or KERNEL_DEFAULT

    @property
    def disk_mib(self) -> int:
        return self.disk.size_mib or DISK_MIB_DEFAULT

    @property
    def mounted_mib(self) -> int:
        """The disks that a build may fill."""
        return self.disk_mib + sum(disk.size_mib for disk in self.beside if disk.mount)

    @property
    def beside(self) -> tuple[Disk, ...]:
        """Its further disks, by name, none of them filled."""
        return tuple(disk_of(name, said) for name, said in sorted(self.disks.items()))

    @property
    def cmdline(self) -> str:
        return CMDLINE_DEFAULT if self.boot.cmdline is None else self.boot.cmdline


def disk_of(name: str, said: FurtherDisk) -> Disk:
    return completed(Disk(name, said.size_mib, said.filesystem, said.label, said.mount))


def joined(base: Any, ours: Any) -> Any:
    """The two as one; of what both say, lists and tables are added up and else ours stands."""
    if base is None or ours is None:
        return base if ours is None else ours
    if isinstance(ours, Mapping):
        return {**base, **ours}
    if isinstance(ours, tuple):
        return (*base, *(each for each in ours if each not in base))
    if is_dataclass(ours) and not isinstance(ours, type):
        return replace(ours, **{f.name: joined(getattr(base, f.name), getattr(ours, f.name)) for f in fields(ours)})
    return ours


def check_whole(recipe: Recipe, *, on_image: bool) -> None:
    """Raise InvalidRequest for what does not go together. recipe: of the whole chain. on_image: it begins with one."""
    if recipe.programs and (recipe.debian or on_image):
        _wrong("programs", "programs are for a system in memory, and this one is on its disk", "debian.packages")
    if not (recipe.programs or recipe.debian or on_image):
        _wrong("debian", "the recipe says no system", "debian: {suite: bookworm}, programs, or from:")
    if recipe.debian and not recipe.debian.suite and not on_image:
        _wrong("debian.suite", "the recipe does not say which Debian", "debian: {suite: bookworm}")
    if recipe.by is By.LOADER and recipe.init is Init.VWS:
        _wrong("boot.by", "a boot loader starts a system with an init of its own", "init: system, or by: kernel")
    if recipe.init is Init.VWS and (recipe.services.enable or recipe.services.disable):
        _wrong("services", "there are no units without systemd", "services.run, or boot: {init: system}")
    _check_disks(recipe)
    if recipe.programs:
        _check_in_memory(recipe)


def _check_disks(recipe: Recipe) -> None:
    if len(recipe.disks) > DISKS_MAX:
        _wrong("disks", f"there are {len(recipe.disks)}", f"at most {DISKS_MAX}")
    for key in ("mount", "label"):
        seen: dict[str, str] = {}
        for disk in recipe.beside:
            said = getattr(disk, key)
            if said and said in seen:
                _wrong(f"disks.{disk.name}.{key}", f"the disk {seen[said]} has the {key} {said} too", "each its own")
            seen[said] = disk.name


def _check_in_memory(recipe: Recipe) -> None:
    for key in ("users", "commands"):
        if getattr(recipe, key):
            _wrong(key, f"a system in memory has no {key} of its own", "a Debian one: debian, instead of programs")
    if recipe.services.run:
        _wrong("services", "a system in memory has no services of its own", "a Debian one: debian, instead of programs")
    if recipe.init is not Init.VWS:
        _wrong("boot.init", "a system in memory is VWS's own", "init: vws")
    for disk in recipe.beside:
        if disk.mount == "/data":
            _wrong(f"disks.{disk.name}.mount", "/data is on the root disk of a system in memory", "/data/..., /srv")
    seen = (*ON_THE_DISK, *(f"{disk.mount}/" for disk in recipe.beside if disk.mount))
    for path in (*recipe.programs, *(each.path for each in recipe.files)):
        if not path.startswith(seen):
            _wrong("files", f"{path} would not be seen: of the disk only /usr and /data are", "/usr/..., /data/...")


def _wrong(field: str, problem: str, possible: str) -> NoReturn:
    raise InvalidRequest(f"{field}: {problem}", field=field, possible=possible)
