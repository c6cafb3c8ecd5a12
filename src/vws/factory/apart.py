"""A build in a process of its own, in namespaces of its own for processes and mounts.

A build starts programs that start programs, and some of them mount. When it is over, by itself, by Ctrl-C or by kill
-9 of whoever asked for it, nothing of that may stay. So the kernel is made responsible: the build is the first process
of a process namespace, which ends with the process that asked for it (PR_SET_PDEATHSIG), and with that all in it and
every mount of its mount namespace.

The two talk by lines of JSON: {"step": ..., "at_s": ...} as often as there is something to say, then {"built": ...} or
{"failed": ...}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vws.core.errors import InvalidRequest, VwsError
from vws.factory.recipes import Plan, load

NAMESPACES = ("--pid", "--mount", "--fork", "--kill-child=KILL", "--propagation", "private", "--mount-proc")
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HOME", "PYTHONPATH")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Tell = Callable[[float, str], None]


class BuildFailed(VwsError):
    """The build came to nothing. details: the log, if there is one."""

    code = "build-failed"


def build_apart(recipe: Path, out: Path, cache: Path, tell: Tell, *, image: Path | None = None) -> dict[str, Any]:
    """Build the recipe's appliance into the bundle `out`; what is said of it (build.Built).

    tell: called at each step, with the seconds since the start. Raises InvalidRequest for what is wrong in the recipe,
    BuildFailed for what fails later, or without the rights that it takes.
    """
    plan = load(recipe, image)
    command = [*_namespaces(plan), sys.executable, "-m", "vws.factory"]
    asked = {"recipe": str(recipe.absolute()), "out": str(out.absolute()), "cache": str(cache.absolute())}
    asked |= {"image": str(image.absolute())} if image else {}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment(), umask=0o022
    )
    with process:
        try:
            return _answer(process, asked, tell)
        except BaseException:
            process.kill()
            raise


def _answer(process: subprocess.Popen[bytes], asked: Mapping[str, str], tell: Tell) -> dict[str, Any]:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write(json.dumps(asked).encode())
    process.stdin.close()
    for line in process.stdout:
        said = json.loads(line)
        if "step" in said:
            tell(said["at_s"], said["step"])
        elif "failed" in said:
            raise _failure(said["failed"])
        else:
            built: dict[str, Any] = said["built"]
            return built
    words = process.stderr.read().decode(errors="replace").strip().splitlines()
    raise BuildFailed(
        f"the build ended without a word: {words[-1] if words else f'exit status {process.wait()}'}",
        possible="build again; as root, if it may not make namespaces",
    )


def _failure(said: Mapping[str, Any]) -> VwsError:
    make = InvalidRequest if said["code"] == InvalidRequest.code else BuildFailed
    return make(
        said["problem"],
        field=said.get("field"),
        asked=said.get("asked"),
        possible=said.get("possible"),
        details={"log": said["log"]} if said.get("log") else None,
    )


def _namespaces(plan: Plan) -> list[str]:
    """The words before the build's own. Programs for a system in memory are only unpacked, as any user may."""
    dies_with_us = ["setpriv", "--pdeathsig", "KILL", "--"]
    if os.geteuid() == 0:
        return [*dies_with_us, "unshare", *NAMESPACES, "--"]
    if plan.recipe.programs:
        return dies_with_us
    raise BuildFailed(
        "packages are installed as root, and you are not", possible="the same as root: sudo vws image build"
    )


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed, "PATH": PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0"}
