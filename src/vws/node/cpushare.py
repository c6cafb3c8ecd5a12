"""CPU by share: how much of the CPU's time a workspace gets when they all want it.

A share of 1 is what one leased CPU counts. Where libvirt manages cgroups (on a
production node) it is told; the node's own libvirtd does not, for cgroups know no
namespaces here and two libvirtds would meet in one hierarchy. There the agent
keeps a group for each workspace itself, in the cgroup version that the machine
has, and moves the whole QEMU process into it. The kernel forgets nothing by
itself: a group is removed with its workspace.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from vws.node.naming import check_id
from vws.ports import HypervisorError

CGROUPS = Path("/sys/fs/cgroup")
_V1_SHARES_MAX = 262144
_V2_WEIGHT_MAX = 10000
_GONE_WITHIN_S = 2.0


class CpuGroups:
    """The CPU groups of the node `tag` under `root`."""

    def __init__(self, tag: str, root: Path = CGROUPS) -> None:
        self._root = root
        self._version = _version(root)
        hierarchy = root / "cpu" if self._version == 1 else root
        self.group = hierarchy / f"vws-{tag}"

    @property
    def usable(self) -> bool:
        return self._version != 0

    def give(self, id: str, pid: int, cpus: int) -> None:
        """Put process `pid` into the workspace's group with a share of `cpus`."""
        if not self.usable:
            raise HypervisorError("CPU cannot be shared out on this node: it has no cgroup controller for it")
        group = self._make(id)
        try:
            self._set_share(group, cpus)
            (group / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:
            raise HypervisorError("its CPU share was not set: the virtual machine has just ended") from None
        except OSError as error:
            raise HypervisorError(f"its CPU share cannot be set: {error.strerror or error}") from None

    def _make(self, id: str) -> Path:
        group = self.group / check_id(id)
        try:
            if self._version == 2:
                _enable_cpu(self._root)
            self.group.mkdir(exist_ok=True)
            if self._version == 2:
                _enable_cpu(self.group)
            group.mkdir(exist_ok=True)
        except OSError as error:
            raise HypervisorError(f"CPU cannot be shared out on this node: {error.strerror or error}") from None
        return group

    def _set_share(self, group: Path, cpus: int) -> None:
        if self._version == 1:
            (group / "cpu.shares").write_text(str(min(1024 * cpus, _V1_SHARES_MAX)))
        else:
            (group / "cpu.weight").write_text(str(min(100 * cpus, _V2_WEIGHT_MAX)))

    def ids(self) -> set[str]:
        try:
            return {entry.name for entry in os.scandir(self.group) if entry.is_dir()}
        except FileNotFoundError:
            return set()

    def remove(self, id: str) -> None:
        """Remove the workspace's group once its process is gone from it."""
        deadline = time.monotonic() + _GONE_WITHIN_S
        while True:
            try:
                (self.group / check_id(id)).rmdir()
                return
            except FileNotFoundError:
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise HypervisorError(f"its CPU group stays: {error.strerror or error}") from None
                time.sleep(0.01)

    def close(self) -> None:
        for id in self.ids():
            self.remove(id)
        with contextlib.suppress(FileNotFoundError):
            self.group.rmdir()


def _version(root: Path) -> int:
    """1 or 2, wherever the cpu controller is; 0 if nowhere."""
    if (root / "cpu" / "cpu.shares").exists():
        return 1
    try:
        return 2 if "cpu" in (root / "cgroup.controllers").read_text().split() else 0
    except FileNotFoundError:
        return 0


def _enable_cpu(group: Path) -> None:
    control = group / "cgroup.subtree_control"
    if "cpu" not in control.read_text().split():
        control.write_text("+cpu")
