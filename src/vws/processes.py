"""The processes of a directory: a site's service and agent, or a joined host's agent.

Processes are known by their pid files and by what /proc says of them, so that a pid taken over by a stranger is
never signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vws.config import SiteDirectory
from vws.core.errors import Unavailable

Say = Callable[[str], None]

STOP_LIMIT_S = 30.0
# libvirtd has to start too.
REVIVED_LIMIT_S = 30.0

# Processes started by this one, so that their exit is noticed and they leave no zombie.
_children: dict[tuple[Path, str], subprocess.Popen[bytes]] = {}


def launch(directory: SiteDirectory, process: str, say: Say, *arguments: str) -> None:
    log = directory.log_file(process)
    command = [sys.executable, "-m", "vws.main", process, "--dir", str(directory.path), *arguments]
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
    _children[(directory.path, process)] = child
    # The child writes the file too; written here, it is there as soon as this returns.
    write_file(directory.pid_file(process), f"{child.pid}\n", 0o644)
    say(f"started the {process} (pid {child.pid}, log {log})")


def running(directory: SiteDirectory, process: str) -> int | None:
    """The pid of a site's process if it lives, by its pid file and what /proc says of that pid."""
    child = _children.get((directory.path, process))
    # poll() reaps it if it has ended. While it is just being executed, /proc does not show its words yet.
    if child is not None and child.poll() is None:
        return child.pid
    try:
        pid = int(directory.pid_file(process).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    ours = b"vws.main" in words and process.encode() in words and os.fsencode(directory.path) in words
    return pid if ours and state not in "ZX" else None


def stop(directory: SiteDirectory, process: str, number: int, say: Say) -> None:
    pid = running(directory, process)
    if pid is None:
        directory.pid_file(process).unlink(missing_ok=True)
        return
    os.kill(pid, number)
    if not wait_gone(directory, process, STOP_LIMIT_S):
        raise Unavailable(
            f"the {process} (pid {pid}) did not stop within {STOP_LIMIT_S:.0f} s",
            possible=f"look at {directory.log_file(process)}; `kill -9 {pid}` is safe, the next start tidies up",
        )
    directory.pid_file(process).unlink(missing_ok=True)
    say(f"stopped the {process}")


def has_died(directory: SiteDirectory, process: str) -> bool:
    """Whether it ended without being stopped: then its pid file is still there."""
    return running(directory, process) is None and directory.pid_file(process).exists()


def retire_agent(directory: SiteDirectory, limit_s: float, say: Say, *arguments: str) -> bool:
    """Let the agent go if it has nothing to do any more; False if it stays on duty, which only it can know.

    An agent that died left its guests to themselves: it is started once more, with its `arguments`, to see to them.
    """
    pid = running(directory, "agent")
    if pid is not None:
        os.kill(pid, signal.SIGUSR1)
    elif has_died(directory, "agent"):
        say("the agent had died; it is started again, to end in time what is leased and to tidy up")
        launch(directory, "agent", say, "--retire", *arguments)
        limit_s = limit_s and max(limit_s, REVIVED_LIMIT_S)
    else:
        return True
    if not wait_gone(directory, "agent", limit_s):
        return False
    directory.pid_file("agent").unlink(missing_ok=True)
    say("stopped the agent")
    return True


def wait_gone(directory: SiteDirectory, process: str, limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while running(directory, process):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def log_tail(directory: SiteDirectory, process: str) -> str:
    path = directory.log_file(process)
    lines = path.read_text(errors="replace").strip().splitlines()[-5:] if path.exists() else []
    return "\n  ".join([f"the end of {path}:", *lines])


def write_file(path: Path, text: str, mode: int) -> None:
    """Whole at any instant: who looked into an empty pid file would take the process for dead."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise Unavailable(
            f"{path} cannot be written: {error.strerror}",
            possible="the same when there is room on that disk; what runs goes on, and what is leased ends in time",
        ) from None
