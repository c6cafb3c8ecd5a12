"""What a node's administrator may set, in site.toml: [node] for this host, [fake] for simulated nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NodeConfig:
    """isolation: `namespace` (network, mount and host name namespaces of the node's own, with its own libvirtd) or
    `host` (the machine's libvirtd and network). builds_at_once: workspaces created or started at the same time.

    accelerator: `kvm`, `tcg`, or `auto`: KVM where a timed loop proves that it works. cpu_ratio: CPUs leased for each
    real one. memory_reserved_mib, disk_reserved_mib: what is kept for the machine itself. bridge: its name.
    namespace: its name, "" for one made from the directory's. libvirt_uri: with `host` only.
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


@dataclass(frozen=True)
class FakeConfig:
    """nodes: how many; cpus, memory_mib, disk_mib, cpu_ratio: what each offers.

    boot_s: until a guest answers, give or take boot_spread_s; the other times are those of the steps they name.
    command_s: how long a lease's command takes beside what it sleeps.
    failures: step to probability (0 to 1): create, start, pause, resume, suspend, restore, stop, resize, remove;
    `guest`: it never answers; `crash`: it dies, on average crash_after_s after it answered. seed: of all chance.
    durable: keep state in files, so that workspaces outlive their agent.
    """

    nodes: int = 0
    cpus: int = 16
    memory_mib: int = 64 * 1024
    disk_mib: int = 1024 * 1024
    cpu_ratio: float = 1.0
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

    @classmethod
    def instant(cls, **settings: Any) -> FakeConfig:
        """Every step in no time."""
        steps = ("create", "start", "boot", "boot_spread", "command", "pause", "suspend", "restore", "stop", "remove")
        return cls(**({f"{step}_s": 0.0 for step in steps} | settings))
