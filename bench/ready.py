"""A cluster of real machines: from its last member's boot until it is ready, without what its own hooks take.

What is left is VWS: members that join, hear of each other and write it down, hooks that are told to begin, and their
ends. A member's boot ends when the machine says on its console that it is up: it has its address, and its ssh server
listens. The agent starts a little earlier, with the rest of the machine's programs, but leaves the processor to them;
how long it was from the last agent's start is told too.

The hooks tell the machine's own clock when they begin and end. Which of them lie behind one another is known from the
example: the head exports its file system, then all workers mount it at once.
"""

from __future__ import annotations

import base64
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import ROOT
from bench.measure import Number, Section, median, spread
from bench.sites import Api, real_site, wait_while
from vws.cli.cluster_folder import bundle

LIMIT_S = 300.0
TARGET_S = 1.5
LOOK_AGAIN_S = 0.01
UP = re.compile(rb"VWS: up in ([\d.]+) s")
# In each hook: when it began and ended, and when the agent that runs it was started, in seconds since the boot.
TIMED = b"""#!/bin/sh
read -r began _ </proc/uptime
read -r agent </proc/$PPID/stat
trap 'read -r ended _ </proc/uptime; echo "bench $began $ended ${agent##*) }"' EXIT
"""
STARTED_FIELD = 19  # of what follows the name in /proc/PID/stat
TICKS_PER_S = 100


def run(quick: bool) -> Section:
    if os.geteuid() != 0:
        raise SystemExit("bench ready needs root: it makes virtual machines")
    times, workers = (1, 1) if quick else (7, 3)
    with real_site() as site, Api(site.path) as api:
        consoles = Consoles((site.path / "node" / "consoles").resolve())
        with consoles:
            rounds = [one_round(api, consoles, workers) for _ in range(times)]
        node = next(api.all("/nodes"))
    how = (
        f"The example nfs with {workers} workers on the demo appliance, {times} times on a fresh site, by "
        f"{node['hypervisor']} ({node['hypervisor_reason']}), all members on {os.cpu_count()} processors; `"
        f"{Path(__file__).name}` says what a boot and the hooks are."
    )
    return Section("ready", "From the last boot to a cluster that is ready", how, tuple(_numbers(rounds)))


@dataclass(frozen=True)
class Round:
    """after_up_s: from the last member's boot to ready; after_start_s: from its agent's start; hooks_s: of both, the
    hooks; after_launch_s: from the request to ready."""

    after_up_s: float
    after_start_s: float
    hooks_s: float
    after_launch_s: float


def _numbers(rounds: list[Round]) -> Iterator[Number]:
    up = [r.after_up_s - r.hooks_s for r in rounds]
    start = [r.after_start_s - r.hooks_s for r in rounds]
    hooks, whole = [r.hooks_s for r in rounds], [r.after_launch_s for r in rounds]
    yield Number("last boot to ready, beyond hooks", median(up), "s", TARGET_S, spread(up, "s"))
    yield Number("last agent's start to ready, beyond hooks", median(start), "s", None, spread(start, "s"))
    yield Number("hooks", median(hooks), "s", None, spread(hooks, "s"))
    yield Number("launch to ready, all of it", median(whole), "s", None, spread(whole, "s"))


def one_round(api: Api, consoles: Consoles, workers: int) -> Round:
    launched = api.call("POST", "/clusters", timed_example(workers))
    shown: dict[str, Any] = {}

    def is_not_ready() -> bool:
        shown.update(api.call("GET", f"/clusters/{launched['id']}"))
        return shown["ready_at"] is None

    wait_while(is_not_ready, LIMIT_S, "the cluster is not ready")
    up_at, started_at, took_s = 0.0, 0.0, {}
    for member in shown["members"]:
        log = api.call("GET", f"/contexts/{shown['name']}/members/{member['name']}/log")["items"]
        began, ended, started = _timed("".join(entry["log"] for entry in log))
        took_s[member["name"]] = ended - began
        seen_at, seen_uptime = consoles.up[member["id"]]
        up_at, started_at = max(up_at, seen_at), max(started_at, seen_at - seen_uptime + started)
    hooks_s = took_s.pop("head-1") + max(took_s.values())
    api.call("DELETE", f"/clusters/{launched['id']}")
    wait_while(lambda: bool(list(api.all("/workspaces", live="true"))), LIMIT_S, "members are left")
    ready_at = shown["ready_at"]
    return Round(ready_at - up_at, ready_at - started_at, hooks_s, ready_at - shown["created_at"])


def timed_example(workers: int) -> dict[str, Any]:
    """What launching examples/nfs sends, with hooks that tell their times."""
    asked = bundle(ROOT / "examples/nfs/cluster.yaml", {"workers": str(workers)}).body()
    for path, content in asked["files"].items():
        script = base64.b64decode(content)
        asked["files"][path] = base64.b64encode(script.replace(b"#!/bin/sh\n", TIMED, 1)).decode()
    return asked | {"duration_s": 1200, "ssh_keys": []}


def _timed(log: str) -> tuple[float, float, float]:
    """(began, ended, the agent's start) of the one hook that ran, seconds since the boot."""
    (line,) = (line for line in log.splitlines() if line.startswith("bench "))
    _, began, ended, *stat = line.split()
    return float(began), float(ended), int(stat[STARTED_FIELD]) / TICKS_PER_S


class Consoles:
    """Sees when each machine says that it is up. up: by workspace, (UTC seconds, its clock)."""

    def __init__(self, folder: Path) -> None:
        self.up: dict[str, tuple[float, float]] = {}
        self._folder = folder
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Consoles:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_AGAIN_S):
            for path in self._folder.glob("*.log"):
                if path.stem not in self.up and (said := UP.search(path.read_bytes())):
                    self.up[path.stem] = time.time(), float(said[1])
