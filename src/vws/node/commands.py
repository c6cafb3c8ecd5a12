"""The machine's programs, run by argument lists.

One object knows where a command runs: on the machine, or inside the node's own
network namespace (`prefix`). Nothing passes through a shell, the environment is
fixed, and a program that hangs is ended.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from vws.ports import HypervisorError

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/"}


class CommandFailed(HypervisorError):
    """`output`: what the program said on standard error, one line."""

    def __init__(self, program: str, output: str, status: int) -> None:
        super().__init__(f"{program} failed: {output or f'exit status {status}'}")
        self.output = output
        self.status = status


class Commands:
    def __init__(self, prefix: tuple[str, ...] = ()) -> None:
        self.prefix = prefix

    def run(self, *arguments: str | Path, stdin: bytes = b"", limit_s: float = 30.0, cwd: Path | None = None) -> bytes:
        """Return the standard output. Raises CommandFailed, or HypervisorError if it is missing or took too long."""
        program = str(arguments[0])
        try:
            done = subprocess.run(
                [*self.prefix, *map(str, arguments)],
                input=stdin,
                capture_output=True,
                timeout=limit_s,
                cwd=cwd,
                env=ENVIRONMENT,
                check=False,
            )
        except FileNotFoundError as error:
            raise HypervisorError(
                f"{error.filename} is missing on the node; `vws doctor` tells what to install"
            ) from None
        except subprocess.TimeoutExpired:
            raise HypervisorError(f"{program} was ended because it took longer than {limit_s:g} s") from None
        if done.returncode:
            raise CommandFailed(program, _one_line(done.stderr), done.returncode)
        return done.stdout

    def limited(self, *arguments: str | Path, memory_mib: int, cpu_s: int) -> bytes:
        """As `run`, for a program that reads what strangers made: bounded, and unable to write files."""
        limits = (f"--as={memory_mib << 20}", f"--cpu={cpu_s}", "--fsize=0", "--core=0")
        return self.run("prlimit", *limits, "--", *arguments, limit_s=2.0 * cpu_s)


def _one_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return " ".join(line.strip() for line in lines[-3:])[:500]
