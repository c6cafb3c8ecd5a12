"""The cluster file, read: everything that a launch needs, with parameters filled in and the contents of files in it.

What one place alone tells is checked by core/cluster_keys.py; here is what needs two of them: that a network is
declared, that a range has room, that somebody provides what is required. Every refusal names line and column.

Files are read by whoever calls, from beside the cluster file: paths that lead elsewhere are refused, because a cluster
file may come from a stranger, and what it names is sent to the machines of its cluster.

Scripts with Windows line ends are what an editor or git made of them on a Windows machine, and no guest could run them
(`/bin/sh^M: not found`). Their ends are changed and the user is told; other files are left as they are, and he is told
too.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Final, NoReturn

from vws.core.cluster import NetworkRequest, check_cluster
from vws.core.cluster_keys import (
    CLUSTER,
    VERSION,
    Content,
    DiskEntry,
    Entries,
    FileEntry,
    GroupEntry,
    NetworkEntry,
    SideEntry,
)
from vws.core.cluster_parameters import choose
from vws.core.cluster_spec import ClusterFile, ClusterGroup, cluster_request, lease_request
from vws.core.context import (
    INFORMATION,
    MEMBER,
    ContextSpec,
    DataSpec,
    FileSpec,
    Hook,
    HookSpec,
    Introduce,
    RoleSpec,
    SideSpec,
    Ssh,
    ValueSpec,
)
from vws.core.disks import Disk, completed, faults, granted_mib
from vws.core.errors import InvalidRequest
from vws.core.shapes import Spot, listed, meant, shorten
from vws.core.site import GroupRoles, OnFailure
from vws.core.terms import COUNT_MAX, GroupRequest
from vws.core.waits import CONTENT_BYTES_MAX, CONTENTS_BYTES_MAX, check_context
from vws.core.yaml_tree import Path, Scalar, Table, fault, parse, path_of, place_of

IDLE: Final = "nothing that is said of it is done"
WINDOWS: Final = "has Windows line ends (CR LF)"

# The bytes of a file by its path as written; OSError or LookupError if there is none.
Reader = Callable[[str], bytes]


def read_cluster_file(text: str, read: Reader, given: Mapping[str, str] | None = None) -> ClusterFile:
    """The cluster that `text` describes. given: values of its parameters.

    Raises InvalidRequest: its sentence begins with the line and column, its details have both.
    """
    tree = parse(text)
    _check_version(tree)
    chosen = choose(tree, given or {})
    entries: Entries = CLUSTER.read(Spot(tree, (), {each.name: each.value for each in chosen}))
    return replace(_Resolution(tree, entries, read).cluster(), parameters=chosen)


def files_wanted(text: str, given: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The paths that reading `text` would ask for, in its order. Raises InvalidRequest as reading does."""
    wanted: dict[str, None] = {}

    def note(path: str) -> bytes:
        wanted[path] = None
        return b"#!\n"

    read_cluster_file(text, note, given)
    return tuple(wanted)


def _check_version(tree: Table) -> None:
    """Before anything else: of another form's keys nothing is known."""
    said = tree.entries.get("vws")
    if said is None:
        fault(
            tree.place, "the file does not say what it is", path=("vws",), possible=f"vws: {VERSION}, as its first line"
        )
    if not isinstance(said, Scalar) or said.text != VERSION:
        fault(said.place, "this form of cluster files is not known", path=("vws",), possible=f"vws: {VERSION}")


class _Resolution:
    """Entries made into a cluster: names looked up, files read."""

    def __init__(self, tree: Table, entries: Entries, read: Reader) -> None:
        self.tree = tree
        self.entries = entries
        self.read = read
        self.notes: dict[str, None] = {}
        self.bytes_read: dict[str, bytes] = {}
        groups = entries.groups.values()
        self.provided = {role for group in groups for role in group.provides}
        self.required = {role for group in groups for role in group.requires}

    def wrong(self, path: Path, problem: str, possible: str | None = None) -> NoReturn:
        fault(place_of(self.tree, path), problem, path=path, possible=possible)

    def cluster(self) -> ClusterFile:
        networks = self.networks()
        groups = tuple(self.group(name, entry) for name, entry in self.entries.groups.items())
        self.check_room(networks, groups)
        self.check_roles()
        self.note_unused()
        file = ClusterFile(self.entries.name, groups, self.context(), networks, self.entries.lease)
        self.check_whole(file)
        return replace(file, notes=tuple(self.notes))

    # ------------------------------------------------------------ networks

    def networks(self) -> tuple[NetworkRequest, ...]:
        found = []
        for name, entry in self.entries.networks.items():
            self.check_network(name, entry)
            found.append(NetworkRequest(name, entry.range, entry.outgoing, entry.public, entry.pool))
        self.check_apart([network for network in found if network.cidr])
        return tuple(found)

    def check_network(self, name: str, entry: NetworkEntry) -> None:
        said = [key for key in ("public", "pool", "range", "outgoing") if getattr(entry, key)]
        if said[:1] in (["public"], ["pool"]) and len(said) > 1:
            self.wrong(
                ("networks", name, said[1]),
                f"networks.{name} has {said[0]} and {said[1]} too",
                "public: true or pool: NAME alone (the site has the addresses), or range and outgoing",
            )
        if not said or said == ["outgoing"]:
            possible = "range: 10.20.0.0/24, or public: true, or pool: NAME"
            self.wrong(("networks", name), f"networks.{name} says no range", possible)

    def check_apart(self, private: list[NetworkRequest]) -> None:
        for one, other in combinations(private, 2):
            if ipaddress.IPv4Network(one.cidr).overlaps(ipaddress.IPv4Network(other.cidr)):
                self.wrong(
                    ("networks", other.name, "range"),
                    f"the ranges of {one.name} and {other.name} overlap: {one.cidr} and {other.cidr}",
                    "ranges that have no address in common",
                )

    def check_room(self, networks: tuple[NetworkRequest, ...], groups: tuple[ClusterGroup, ...]) -> None:
        members = sum(group.request.count for group in groups)
        if members > COUNT_MAX:
            self.wrong(("groups",), f"the cluster has {members} members", f"at most {COUNT_MAX}")
        for network in networks:
            if not network.cidr:
                continue
            on_it = sum(group.request.count for group in groups if network.name in group.request.networks)
            # Neither the network's own address nor that of broadcasts, and the gateway has one.
            room = ipaddress.IPv4Network(network.cidr).num_addresses - 3
            if on_it > room:
                self.wrong(
                    ("networks", network.name, "range"),
                    f"{network.cidr} has addresses for {room} member{'s' if room != 1 else ''}, {on_it} are on it",
                    "a larger range, such as one of /16",
                )

    # ------------------------------------------------------------ groups

    def group(self, name: str, entry: GroupEntry) -> ClusterGroup:
        path: Path = ("groups", name)
        if entry.apart and entry.together:
            self.wrong((*path, "together"), f"{name} is to be both apart and together", "one of them, or neither")
        disks = self.disks(path, entry)
        request = GroupRequest(
            image=entry.image,
            count=entry.count,
            cpus=entry.cpus,
            memory_mib=entry.memory_mib,
            disk_mib=entry.disk_mib + granted_mib(disks),
            name=name,
            requirement=entry.requirement,
            apart=entry.apart,
            together=entry.together,
            bandwidth_mbit=entry.bandwidth_mbit,
            networks=self.networks_of(path, entry),
            disks=disks,
            address=entry.address,
        )
        self.check_required(path, entry)
        roles = GroupRoles(name, entry.provides, entry.requires, OnFailure(entry.on_failure))
        return ClusterGroup(request, roles)

    def networks_of(self, path: Path, entry: GroupEntry) -> tuple[str, ...]:
        declared = self.entries.networks
        if entry.networks is None:
            if len(declared) > 1:
                self.wrong(path, f"{path[1]} says no networks", f"networks: [...], of {listed(declared)}")
            return tuple(declared)
        for number, name in enumerate(entry.networks):
            if name not in declared:
                problem = f"there is no network {name!r}{meant(name, declared)}"
                self.wrong((*path, "networks", number), problem, f"a key of networks: {listed(declared)}")
        return entry.networks

    def disks(self, path: Path, entry: GroupEntry) -> tuple[Disk, ...]:
        for key in ("name", "mount", "label"):
            seen: set[str] = set()
            for number, disk in enumerate(entry.disks):
                said = getattr(disk, key)
                if said and said in seen:
                    problem = f"two disks of {path[1]} have the {key} {said}"
                    self.wrong((*path, "disks", number, key), problem, "each its own")
                seen.add(said)
        return tuple(self.disk((*path, "disks", number), disk) for number, disk in enumerate(entry.disks))

    def disk(self, path: Path, entry: DiskEntry) -> Disk:
        self.check_kind(path, entry)
        private = bool(entry.image) and entry.read_only is False
        disk = completed(
            Disk(entry.name, entry.size_mib, entry.filesystem, entry.label, entry.mount, entry.image, private)
        )
        for field, problem, possible in faults(disk):
            self.wrong((*path, "size" if field == "size_mib" else field), problem, possible)
        return disk

    def check_kind(self, path: Path, disk: DiskEntry) -> None:
        """What is said of an image's disk, or of a blank one, is possible for such a disk."""
        if disk.image and disk.size_mib and disk.read_only is not False:
            self.wrong(
                (*path, "size"),
                f"the disk {disk.name} is an image's, which others read too: it is as large as that",
                "no size; or read-only: false, and each member has a copy of its own of that size",
            )
        if not disk.image and disk.read_only:
            self.wrong((*path, "read-only"), f"the disk {disk.name} is blank", "image: NAME, or without read-only")

    # ------------------------------------------------------------ roles

    def check_required(self, path: Path, entry: GroupEntry) -> None:
        for number, role in enumerate(entry.provides):
            if role == MEMBER:
                self.wrong((*path, "provides", number), f"every member provides {MEMBER} already", "leave it out")
        for number, role in enumerate(entry.requires):
            if role not in self.provided and role != MEMBER and role not in INFORMATION:
                self.wrong(
                    (*path, "requires", number),
                    f"{path[1]} requires the role {role}, which no group provides{meant(role, self.provided)}",
                    f"provides: [{role}] of some group; provided are: {listed(self.provided)}",
                )

    def check_roles(self) -> None:
        published: dict[str, str] = {}
        for role, entry in self.entries.roles.items():
            for name in entry.provider.publishes:
                if name in published:
                    self.wrong(
                        ("roles", role, "provider", "publishes", name),
                        f"the value {name} is published by {published[name]} and by {role}",
                        "another name for one of them",
                    )
                published[name] = role
        for role, entry in self.entries.roles.items():
            self.check_files(("roles", role, "provider", "files"), entry.provider)
            self.check_files(("roles", role, "client", "files"), entry.client)
            if role in self.provided:
                self.check_side(("roles", role, "provider"), entry.provider, published)
            if role in self.required:
                self.check_side(("roles", role, "client"), entry.client, published)

    def check_files(self, path: Path, side: SideEntry) -> None:
        seen: set[str] = set()
        for number, file in enumerate(side.files):
            if file.path in seen:
                self.wrong((*path, number, "path"), f"{file.path} is written twice", "each path once")
            seen.add(file.path)

    def check_side(self, path: Path, side: SideEntry, published: Mapping[str, str]) -> None:
        known = {*self.provided, MEMBER}
        for number, role in enumerate(side.after):
            if role not in known:
                self.wrong(
                    (*path, "after", number),
                    f"{path[1]} waits for the role {role}, which no group provides{meant(role, known)}",
                    f"provided are: {listed(known)}",
                )
        for number, name in enumerate(side.uses):
            publisher = published.get(name)
            if publisher is None or publisher not in known:
                by = (
                    "nobody publishes" if publisher is None else f"{publisher} publishes, a role that no group provides"
                )
                self.wrong(
                    (*path, "uses", number),
                    f"{path[1]} uses the value {name}, which {by}{meant(name, published)}",
                    f"published are: {listed(published)}"
                    if published
                    else f"publishes: {{{name}: {{}}}} on the provider side of a role",
                )

    def note_unused(self) -> None:
        for role in self.entries.roles:
            if role not in self.provided and role != MEMBER:
                self.notes[f"no group provides the role {role}: {IDLE}{meant(role, self.provided)}"] = None

    # ------------------------------------------------------------ the context

    def context(self) -> ContextSpec:
        said = self.entries.context
        return ContextSpec(
            name=self.entries.name,
            roles=tuple(map(self.role, self.entries.roles)),
            data=tuple(
                DataSpec(name, self.content(("data", name), content)) for name, content in self.entries.data.items()
            ),
            introduce=Introduce(said.introduce),
            ssh=Ssh(said.ssh),
            within_s=said.within_s,
        )

    def role(self, name: str) -> RoleSpec:
        entry = self.entries.roles[name]
        return RoleSpec(
            name,
            self.side(("roles", name, "provider"), entry.provider),
            self.side(("roles", name, "client"), entry.client),
            tuple(ValueSpec(value, said.secret) for value, said in entry.provider.publishes.items()),
        )

    def side(self, path: Path, entry: SideEntry) -> SideSpec:
        files = [
            FileSpec(file.path, self.content((*path, "files", number), file), file.mode)
            for number, file in enumerate(entry.files)
        ]
        hooks = [HookSpec(Hook(hook), self.script((*path, "hooks", hook), entry.hooks[hook])) for hook in entry.hooks]
        return SideSpec(tuple(files), tuple(hooks), entry.after, entry.uses)

    def content(self, path: Path, entry: Content | FileEntry) -> str:
        if not entry.source:
            return _base64(entry.text.encode())
        content = self.file((*path, "from"), entry.source)
        if b"\r\n" in content and b"\0" not in content:
            self.notes[f"{entry.source} {WINDOWS}; it is handed on as it is"] = None
        return _base64(content)

    def script(self, path: Path, source: str) -> str:
        """A hook: a program that a guest can run."""
        content = self.file(path, source)
        if content.startswith(b"\x7fELF"):
            return _base64(content)
        text = content.removeprefix(b"\xef\xbb\xbf")
        if b"\r\n" in text:
            text = text.replace(b"\r\n", b"\n")
            self.notes[f"{source} {WINDOWS}, which no guest runs; they were changed to LF"] = None
        if not text.startswith(b"#!"):
            self.wrong(
                path,
                f"{source} is no program that a guest could run: it does not begin with #!",
                "a script whose first line is #!/bin/sh, or names another interpreter",
            )
        return _base64(text)

    def file(self, path: Path, source: str) -> bytes:
        if source not in self.bytes_read:
            self.bytes_read[source] = self.read_file(path, source)
        return self.bytes_read[source]

    def read_file(self, path: Path, source: str) -> bytes:
        try:
            content = self.read(source)
        except (OSError, LookupError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or "there is no such file"
            self.wrong(path, f"{shorten(source)} cannot be read: {why}", "a file beside the cluster file")
        if len(content) > CONTENT_BYTES_MAX:
            # Who reads may have stopped after one byte too many.
            problem = f"{source} has more than {CONTENT_BYTES_MAX} bytes"
            self.wrong(path, problem, "a smaller file; what is large belongs into an image or on a disk")
        total = sum(map(len, self.bytes_read.values())) + len(content)
        if total > CONTENTS_BYTES_MAX:
            self.wrong(
                path, f"with {source} the files have {total} bytes", f"at most {CONTENTS_BYTES_MAX} bytes in all"
            )
        return content

    def check_whole(self, file: ClusterFile) -> None:
        """What is refused of any context and any cluster is refused here with its place in the file."""
        try:
            check_context(file.context, file.expected())
            check_cluster(cluster_request(file, lease_request(file, duration_s=1)))
        except InvalidRequest as error:
            self.wrong(path_of(error.field or ""), error.problem, error.possible)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
