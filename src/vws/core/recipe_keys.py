"""The keys of a recipe: what each may be, and what it is for.

One table, by which recipes are read and from which the JSON Schema is written, as for cluster files
(core/cluster_keys.py). Recipes have no parameters: "${HOME}" in a command is the shell's.
"""

from __future__ import annotations

from typing import Any, Final

from vws.core.disks import DISKS_MAX, FILESYSTEMS, Disk, clashes, faults_of_declared
from vws.core.disks import NAME_LENGTH_MAX as DISK_NAME_LENGTH_MAX
from vws.core.recipe import (
    Boot,
    By,
    CommandEntry,
    Debian,
    DiskEntry,
    FileEntry,
    FurtherDisk,
    Init,
    Kernel,
    Recipe,
    Services,
    UserEntry,
    disk_of,
)
from vws.core.shapes import (
    VERBATIM,
    Choice,
    Flag,
    Json,
    Key,
    ListOf,
    Record,
    Spot,
    TableOf,
    Text,
    Whole,
    duration,
    size,
    without_parameters,
)
from vws.core.terms import DISK_MIB_MAX, MEMORY_MIB_MAX, MEMORY_MIB_MIN, NAME_LENGTH_MAX, NAME_PATTERN
from vws.core.yaml_tree import Scalar, Table, fault, parse, place_of, show_path

VERSION: Final = "recipe/1"
DISK_MIB_MIN: Final = 16
ENTRIES_MAX: Final = 1000
COMMAND_S_MAX: Final = 6 * 3600
_NO_WAY_OUT: Final = r"(?:^|/)\.\.?(?:/|$)"

_NAME: Final = Text(
    f"a name: lower-case letters, digits and inner hyphens, at most {NAME_LENGTH_MAX} characters",
    NAME_PATTERN,
    length_max=NAME_LENGTH_MAX,
)
_DISK_NAME: Final = Text(
    f"a disk's name: lower-case letters, digits and inner hyphens, at most {DISK_NAME_LENGTH_MAX} characters",
    r"[a-z0-9](?:[a-z0-9-]{0,14}[a-z0-9])?",
    length_max=DISK_NAME_LENGTH_MAX,
)
_SOURCE: Final = Text(
    "the path of a file beside the recipe or in a folder below, such as files/motd",
    r"[A-Za-z0-9._@+=-][A-Za-z0-9 ._@+=-]*(?:/[A-Za-z0-9 ._@+=-]+)*",
    _NO_WAY_OUT,
    length_max=255,
)
_PATH: Final = Text(
    "an absolute path without . and .., such as /etc/motd",
    r"(?:/[A-Za-z0-9._@+:=-]+)+",
    _NO_WAY_OUT,
    length_max=255,
)
_PACKAGE: Final = Text(
    "a Debian package such as curl, or curl=7.88.1-10+deb12u5",
    r"[a-z0-9][a-z0-9+.-]+(?:=[A-Za-z0-9.+:~-]+)?",
    length_max=200,
)
_PROGRAM: Final = Text(
    "the package that has it, such as curl; if its path there is another, that too: e2fsprogs:/sbin/mke2fs",
    r"[a-z0-9][a-z0-9+.-]+(?::(?:/[A-Za-z0-9._@+=-]+)+)?",
    _NO_WAY_OUT,
    length_max=255,
)
_MODULE: Final = Text("a kernel module such as nfsd", r"[A-Za-z0-9_-]+", length_max=64)
_ACCOUNT: Final = Text("a name such as ann: lower-case letters, digits, _ and -", r"[a-z_][a-z0-9_-]{0,30}")
_UNIT: Final = Text("a unit of systemd such as ssh or fstrim.timer", r"[A-Za-z0-9@_.:\\-]+", length_max=200)
_LINE: Final = Text("one line of text", r"[^\x00-\x1f\x7f]*", length_max=2048)
_WORDS: Final = Text("a text", length_max=65_536)

DEBIAN: Final = Record(
    "a Debian system",
    Debian,
    {
        "suite": Key(Text("a suite such as bookworm", "[a-z][a-z-]+", length_max=40), "Of which the packages are."),
        "packages": Key(ListOf(_PACKAGE, ENTRIES_MAX), "Installed with what they depend on, and nothing beside."),
        "without": Key(
            ListOf(Text("a pattern of paths such as /usr/share/doc/*", r"/[!-~]*", length_max=255)),
            "What packages bring and is left out.",
        ),
    },
)
FILE: Final = Record(
    "a file",
    FileEntry,
    {
        "path": Key(_PATH, "Where the appliance has it.", required=True),
        "from": Key(_SOURCE, "The file or folder, beside the recipe.", field="source"),
        "text": Key(_WORDS, "The text itself."),
        "link": Key(Text("where the link points", "[!-~]+", length_max=255), "A symbolic link, to there."),
        "mode": Key(Text('octal digits in quotes, such as "0600"', "[0-7]{3,4}"), "Its permissions."),
        "owner": Key(
            Text("USER or USER:GROUP", r"[a-z_][a-z0-9_-]*(?::[a-z_][a-z0-9_-]*)?", length_max=64),
            "Of the appliance's users. Default: root:root.",
        ),
    },
    one_of=("from", "text", "link"),
)
USER: Final = Record(
    "a user",
    UserEntry,
    {
        "uid": Key(Whole(1, 60_000), "The number. Default: the next that is free."),
        "groups": Key(ListOf(_ACCOUNT), "Further groups, which are made if they are not there."),
        "shell": Key(_PATH, "Default: /bin/bash."),
        "home": Key(_PATH, "Default: /home/NAME."),
        "keys": Key(ListOf(_LINE), "Public ssh keys by which he may log in."),
        "system": Key(Flag(), "Of a program and not of a person: no home is made."),
    },
)
SERVICES: Final = Record(
    "services",
    Services,
    {
        "enable": Key(ListOf(_UNIT), "Units of systemd that are started."),
        "disable": Key(ListOf(_UNIT), "Units that are not."),
        "run": Key(TableOf(_LINE, _NAME), "Commands that run as long as the machine does, started again if they end."),
    },
)
COMMAND: Final = Record(
    "a command",
    CommandEntry,
    {
        "run": Key(_WORDS, "Lines for /bin/sh -e, in the appliance, without any network.", required=True),
        "within": Key(duration(1, COMMAND_S_MAX), "How long it may take. Default: 10m.", field="within_s"),
    },
)
KERNEL: Final = Record(
    "the kernel",
    Kernel,
    {
        "package": Key(_PACKAGE, "Debian's package of it. Default: linux-image-cloud-amd64."),
        "modules": Key(ListOf(_MODULE), "With init vws: further modules, for modprobe to find."),
    },
)
BOOT: Final = Record(
    "how it boots",
    Boot,
    {
        "by": Key(Choice(tuple(By)), "The hypervisor starts the kernel, or a boot loader on the disk does."),
        "init": Key(Choice(tuple(Init)), "VWS's own scripts (up in seconds), or what the system has (systemd)."),
        "cmdline": Key(_LINE, "The kernel's command line."),
    },
)
DISK: Final = Record(
    "the disk",
    DiskEntry,
    {
        "size": Key(size(DISK_MIB_MIN, DISK_MIB_MAX), "Leases may have a larger one. Default: 1GiB.", field="size_mib"),
        "label": Key(Text("letters, digits, _ and -", "[A-Za-z0-9_-]+", length_max=16), "Of its file system."),
    },
)
FURTHER_DISK: Final = Record(
    "a disk beside the root's",
    FurtherDisk,
    {
        "size": Key(size(1, DISK_MIB_MAX), "How large it is.", required=True, field="size_mib"),
        "filesystem": Key(
            Choice(tuple(FILESYSTEMS)),
            "Made on it if there is none; swap is used. Default: ext4 if it is to be mounted or has a label.",
        ),
        "label": Key(Text("letters, digits, _ and -", "[A-Za-z0-9_-]+", length_max=16), "Of its file system."),
        "mount": Key(_PATH, "Where it is mounted; what the build leaves below that is on it."),
    },
)
RECIPE: Final = Record(
    "a recipe",
    Recipe,
    {
        "vws": Key(Choice((VERSION,)), "The form of this file.", required=True),
        "name": Key(_NAME, "Of the appliance.", required=True),
        "version": Key(Text('a version in quotes, such as "1.2"', r"[A-Za-z0-9.+~-]+", length_max=40), 'Default: "1".'),
        "about": Key(_WORDS, "What it is for, in a sentence."),
        "from": Key(_SOURCE, "A recipe (.yaml) or an image (.vws, .qcow2) that this one builds on.", field="base"),
        "debian": Key(DEBIAN, "A Debian system on the disk."),
        "programs": Key(
            TableOf(_PROGRAM, _PATH, ENTRIES_MAX),
            "Instead: a system in memory, and these programs with their libraries on its disk.",
        ),
        "files": Key(ListOf(FILE, ENTRIES_MAX), "Files, folders and links that are added."),
        "users": Key(TableOf(USER, _ACCOUNT), "Users that are added."),
        "services": Key(SERVICES, "What runs."),
        "commands": Key(ListOf(COMMAND), "Run in the appliance once all else is there, one after the other."),
        "kernel": Key(KERNEL, "The kernel."),
        "boot": Key(BOOT, "How it boots."),
        "disk": Key(DISK, "Its root disk."),
        "disks": Key(
            TableOf(FURTHER_DISK, _DISK_NAME, DISKS_MAX),
            "Disks beside the root's, by name, that a lease gets unless it asks for others.",
        ),
        "memory": Key(size(MEMORY_MIB_MIN, MEMORY_MIB_MAX), "The least that it runs in.", field="memory_mib"),
        "user": Key(_ACCOUNT, "As whom one logs in. Default: root."),
        "ready": Key(Choice(("ssh", "boot")), "Up when its ssh server answers, or when it runs. Default: ssh."),
        "roles": Key(TableOf(_LINE, _NAME), "Roles of contexts for which it has what is needed, each with a sentence."),
    },
)  # fmt: skip


def read_recipe(text: str) -> Recipe:
    """What `text` says. Raises InvalidRequest: its sentence begins with the line and column."""
    tree = parse(text, VERSION)
    said = tree.entries.get("vws")
    if not isinstance(said, Scalar) or said.text != VERSION:
        place = tree.place if said is None else said.place
        fault(place, "the file does not say that it is a recipe", path=("vws",), possible=f"vws: {VERSION}")
    recipe: Recipe = RECIPE.read(Spot(tree, (), VERBATIM))
    _check_disks(recipe, tree)
    return recipe


def _check_disks(recipe: Recipe, tree: Table) -> None:
    """What is said of each disk goes together, and with those before it."""
    before: list[Disk] = []
    for name, said in recipe.disks.items():
        disk = disk_of(name, said)
        for field, problem, possible in (*faults_of_declared(disk), *clashes(before, disk)):
            path = ("disks", name, "size" if field == "size_mib" else field)
            fault(place_of(tree, path), f"{show_path(path)}: {problem}", path=path, possible=possible)
        before.append(disk)


def schema() -> dict[str, Any]:
    """The JSON Schema of recipes."""
    head: Json = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "VWS recipe",
        "description": f"How an appliance is made, {VERSION}.",
    }
    plain: Json = without_parameters(RECIPE.schema())
    return head | plain
