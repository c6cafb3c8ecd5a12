"""Programs run inside an appliance that is being built.

What they are is the recipe's business, and may be a stranger's: bubblewrap gives them the appliance's tree as their
whole world, with a network that reaches nothing, processes and mounts of their own that end with them, of devices only
null, zero, full, random, urandom and tty, an environment of a few words, and of root's powers those that installing
software needs: no mounts, no devices, no modules, no other namespaces.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vws.factory.log import Log

APART = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
POWERS = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETFCAP"),
    *("SYS_CHROOT", "AUDIT_WRITE", "NET_BIND_SERVICE"),
)
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "DEBIAN_FRONTEND": "noninteractive",
    "PYTHONHASHSEED": "0",
}
INSTALL_S = 1800


class SandboxError(Exception):
    """A program in the appliance failed. `status`: its exit status, None if its time was over."""

    def __init__(self, status: int | None) -> None:
        super().__init__("it took too long" if status is None else f"it ended with status {status}")
        self.status = status


@dataclass(frozen=True)
class Sandbox:
    """tree: the appliance's root folder. date_s: what programs are to take for the time (SOURCE_DATE_EPOCH)."""

    tree: Path
    log: Log
    date_s: int

    def run(
        self,
        arguments: Sequence[str],
        *,
        given: bytes = b"",
        limit_s: float = INSTALL_S,
        reads: Mapping[str, Path] | None = None,
    ) -> None:
        """Run a program as root in the appliance, what it prints into the log. given: its standard input.

        reads: further folders, by where it sees them, which it cannot change. Raises SandboxError.
        """
        command = ["bwrap", *APART, "--die-with-parent", "--new-session", "--clearenv", "--hostname", "vws-build"]
        command += [
            "--bind",
            str(self.tree),
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--tmpfs",
            "/tmp",
            "--chdir",
            "/",
        ]
        command += ["--tmpfs", "/run", "--cap-drop", "ALL"]
        for power in POWERS:
            command += ["--cap-add", f"CAP_{power}"]
        for name, value in {**ENVIRONMENT, "SOURCE_DATE_EPOCH": str(self.date_s)}.items():
            command += ["--setenv", name, value]
        for place, path in (reads or {}).items():
            command += ["--ro-bind", str(path), place]
        with self.log.stream() as log:
            try:
                done = subprocess.run(
                    [*command, "--", *arguments],
                    input=given,
                    stdout=log,
                    stderr=log,
                    timeout=limit_s,
                    check=False,
                    env={"PATH": ENVIRONMENT["PATH"]},
                )
            except subprocess.TimeoutExpired:
                raise SandboxError(None) from None
        if done.returncode:
            raise SandboxError(done.returncode)
