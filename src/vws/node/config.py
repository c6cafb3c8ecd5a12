"""What a node's administrator may set, in site.toml: [node] for this host, [fake] for simulated nodes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from vws.core.errors import InvalidRequest
from vws.core.traits import Traits, check_label, checked_attributes, checked_labels
from vws.node.eviction import SHARE_DEFAULT, parse_limit


@dataclass(frozen=True)
class NodeConfig:
    """isolation: `namespace` (network, mount and host name namespaces of the node's own, with its own libvirtd) or
    `host` (the machine's libvirtd and network). builds_at_once: workspaces created or started at the same time.

    accelerator: `kvm`, `tcg`, or `auto`: KVM where a timed loop proves that it works. cpu_ratio: CPUs leased for each
    real one. memory_reserved_mib, disk_reserved_mib: what is kept for the machine itself. bridge: its name.
    namespace: its name, "" for one made from the directory's. libvirt_uri: with `host` only.
    labels, attributes: what leases can require of it (core/traits.py). bandwidth_mbit: of its network; 0: as its cards
    say. fetch_limit_mbit: of it, for all images that are fetched together; 0: no limit. cache: what files of images may
    take on its disk ("20GiB"); "": a quarter of the file system.
    """

    isolation: str = "namespace"
    builds_at_once: int = 4
    accelerator: str = "auto"
    cpu_ratio: float = 4.0
    memory_reserved_mib: int = 1024
    disk_reserved_mib: int = 2048
    bridge: str = "vws0"
    namespace: str = ""
    libvirt_uri: str = "qemu:///system"
    labels: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    bandwidth_mbit: int = 0
    fetch_limit_mbit: float = 0.0
    cache: str = ""

    def check(self) -> None:
        """Raise InvalidRequest naming the setting that cannot be."""
        parse_limit(self.cache)
        if not 0 <= self.fetch_limit_mbit <= 1e6:
            raise InvalidRequest(
                f"node.fetch_limit_mbit is {self.fetch_limit_mbit}", field="node.fetch_limit_mbit",
                asked=self.fetch_limit_mbit, possible="Mbit/s up to 1000000; 0 for no limit",
            )  # fmt: skip

    def traits(self) -> Traits:
        """What of the node's traits is configured; InvalidRequest for what cannot be."""
        return Traits(
            labels=checked_labels(self.labels, "node.labels"),
            attributes=checked_attributes(self.attributes, "node.attributes"),
        )


@dataclass(frozen=True)
class FakeKind:
    """So many of the simulated nodes, with what is different about them; None: as for all."""

    nodes: int
    cpus: int | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    cpu_ratio: float | None = None
    bandwidth_mbit: int | None = None
    arch: str | None = None
    accelerators: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    attributes: dict[str, Any] | None = None


@dataclass(frozen=True)
class FakeConfig:
    """nodes: how many; cpus, memory_mib, disk_mib, cpu_ratio, bandwidth_mbit: what each offers; arch, accelerators,
    labels, attributes: what each is like. kinds: what is different about the first so many nodes, the next so many, …

    boot_s: until a guest answers, give or take boot_spread_s; the other times are those of the steps they name.
    command_s: how long a lease's command takes beside what it sleeps.
    failures: step to probability (0 to 1): create, start, pause, resume, suspend, restore, stop, resize, remove;
    `guest`: it never answers; `crash`: it dies, on average crash_after_s after it answered. seed: of all chance.
    durable: keep state in files, so that workspaces outlive their agent. cache: what files of images may take on each;
    "": a quarter of its disk.
    """

    nodes: int = 0
    cpus: int = 16
    memory_mib: int = 64 * 1024
    disk_mib: int = 1024 * 1024
    cpu_ratio: float = 1.0
    bandwidth_mbit: int = 10_000
    arch: str = "x86_64"
    accelerators: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    kinds: tuple[FakeKind, ...] = ()
    boot_s: float = 3.0
    boot_spread_s: float = 1.0
    command_s: float = 1.0
    create_s: float = 0.05
    start_s: float = 0.2
    pause_s: float = 0.01
    suspend_s: float = 0.5
    restore_s: float = 0.3
    stop_s: float = 0.5
    remove_s: float = 0.05
    crash_after_s: float = 60.0
    failures: dict[str, Any] = field(default_factory=dict)
    seed: int = 1
    durable: bool = True
    cache: str = ""

    @property
    def cache_bytes(self) -> int:
        return parse_limit(self.cache) or int((self.disk_mib << 20) * SHARE_DEFAULT)

    def traits(self) -> Traits:
        """InvalidRequest for what cannot be."""
        return Traits(
            check_label(self.arch, "fake.arch"),
            checked_labels(self.accelerators, "fake.accelerators"),
            checked_labels(self.labels, "fake.labels"),
            checked_attributes(self.attributes, "fake.attributes"),
        )

    def of(self, number: int) -> FakeConfig:
        """The configuration of one simulated node, counted from 0."""
        for kind in self.kinds:
            if number < kind.nodes:
                return self.like(kind)
            number -= kind.nodes
        return self

    def like(self, kind: FakeKind) -> FakeConfig:
        said = {each.name: getattr(kind, each.name) for each in fields(kind) if each.name != "nodes"}
        return replace(self, **{name: value for name, value in said.items() if value is not None})

    @classmethod
    def instant(cls, **settings: Any) -> FakeConfig:
        """Every step in no time."""
        steps = ("create", "start", "boot", "boot_spread", "command", "pause", "suspend", "restore", "stop", "remove")
        return cls(**({f"{step}_s": 0.0 for step in steps} | settings))
