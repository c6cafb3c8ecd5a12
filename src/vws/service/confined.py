"""Programs that read strangers' files, run so that a hole in one of them is not a hole in the site.

Such a program gets bounds on memory, CPU time, wall time and on the size of what it writes; it runs in a process group
of its own, all of which is ended when its time is over; it sees no file but its input, its output and the system's
programs and libraries, and no network (service/confine.py, as far as the host's kernel can). What it does wrong is told
as the file's fault, as it is run on nothing else: it was too slow, grew too large, wrote too much, or said what it
found.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vws.core.errors import InvalidRequest, Unavailable

_CONFINE = Path(__file__).with_name("confine.py")
# Where programs and their libraries are, and the few files of /etc and /dev that these look into.
_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/mke2fs.conf",
    "/etc/ssl/openssl.cnf",
    "/dev/urandom",
    "/dev/zero",
)
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MALLOC_ARENA_MAX": "2"}
# Of programs that let no signal end them.
_TOO_LARGE = os.strerror(errno.EFBIG)
_SAID_BYTES_MAX = 1 << 20
_ENDING_S = 10


class TooMuchOutput(InvalidRequest):
    """More was to be written than `Bounds.output_bytes`."""


@dataclass(frozen=True)
class Bounds:
    """cpu_s, wall_s: seconds. output_bytes: the length to which any one file may be written; 0: none."""

    memory_mib: int = 1024
    cpu_s: int = 60
    wall_s: int = 120
    output_bytes: int = 0


@dataclass(frozen=True)
class Outcome:
    """status: 0 if all went well. said, complained: the beginnings of what it wrote to stdout and stderr."""

    status: int
    said: bytes
    complained: bytes

    @property
    def reason(self) -> str:
        lines = self.complained.decode(errors="replace").strip().splitlines()
        # Programs repeat the path, which is the service's own business.
        return lines[-1].rsplit(": ", 1)[-1][:200] if lines else "it says nothing"


def program(name: str, package: str) -> str:
    """The path of a program. Raises Unavailable, naming the package that brings it."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise Unavailable(f"{name} is missing on the service's host", possible=f"install {package} (vws doctor)")
    return found


def run(
    command: Sequence[str | Path],
    doing: str,
    bounds: Bounds,
    *,
    read: Iterable[Path] = (),
    write: Iterable[Path] = (),
    environment: Mapping[str, str] = {},
    listen: bool = True,
    secret: str = "",
) -> Outcome:
    """Run a program (its path comes first) that may read and write nothing but these files and folders.

    `doing`: what it does, for the error's sentence: "looking at this image". `listen`: to its stdout too. secret: what
    it reads from its stdin, as others can see arguments and environment.
    Raises InvalidRequest with field "file" if it goes beyond a bound.
    """
    wanted = {
        "parent": os.getpid(),
        "read": [*_SYSTEM, str(command[0]), *_paths(read)],
        "write": _paths(write),
        "limits": {
            "AS": bounds.memory_mib << 20,
            "CPU": bounds.cpu_s,
            "FSIZE": bounds.output_bytes,
            "CORE": 0,
            # Of each thread too, of which qemu-img has dozens.
            "STACK": 2 << 20,
        },
    }
    confined = [sys.executable, "-I", "-S", str(_CONFINE), json.dumps(wanted), *map(str, command)]
    outcome = _run(confined, doing, bounds, {**_ENVIRONMENT, **environment}, listen, secret.encode())
    if outcome.status in (-signal.SIGXCPU, -signal.SIGKILL):
        raise _beyond(doing, f"took more than {bounds.cpu_s} s of computing")
    if outcome.status == -signal.SIGXFSZ or (outcome.status and outcome.reason == _TOO_LARGE):
        raise _beyond(doing, f"came to more than {bounds.output_bytes} bytes", TooMuchOutput)
    return outcome


def _paths(paths: Iterable[Path]) -> list[str]:
    return [str(path.resolve()) for path in paths]


def _run(
    command: list[str], doing: str, bounds: Bounds, environment: dict[str, str], listen: bool, stdin: bytes
) -> Outcome:
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE if listen else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    ) as child:
        try:
            said, complained = child.communicate(stdin or None, timeout=bounds.wall_s)
        except subprocess.TimeoutExpired:
            raise _beyond(doing, f"took longer than {bounds.wall_s} s") from None
        finally:
            _end(child)
    return Outcome(child.returncode, (said or b"")[:_SAID_BYTES_MAX], complained[:_SAID_BYTES_MAX])


def _end(child: subprocess.Popen[bytes]) -> None:
    """Its whole group: also whom it left behind, with our pipes closed.

    The group has the child's number, which is nobody else's just after the child was waited for, as numbers are given
    in turn. Who is killed is gone a moment later, and holds our pipes until then.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    if child.returncode is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=_ENDING_S)
        child.wait()


def _beyond(doing: str, what: str, kind: type[InvalidRequest] = InvalidRequest) -> InvalidRequest:
    return kind(
        f"{doing} {what}; it was ended, nothing is kept",
        field="file",
        possible="an image that unpacks within the bounds of the site",
    )
