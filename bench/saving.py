"""A workspace that becomes an image: what is stored of it, how long it takes, and how long the guest rests.

A real guest on a disk of 2 GiB writes 20 MB that cannot be compressed, and is saved while it runs, several times: each
time it writes over what it wrote before. How long it rests is in the agent's log, from the order to the hypervisor to
its answer. The disk is grown from the image's size at the first boot, and what that changes is stored too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from bench.measure import Number, Section, median, spread
from bench.sites import Api, BenchSite, real_site, wait_while

MB = 1_000_000
CHANGED_MB = 20
STORED_MB_MAX = 25
SECONDS_MAX = 3.0
REST_S_MAX = 1.0
LIMIT_S = 120.0
RESTED = re.compile(r"rested for ([\d.]+) ms")


def run(quick: bool) -> Section:
    if os.geteuid() != 0:
        raise SystemExit("bench saving needs root: it makes virtual machines")
    times, disk_mib = (1, 256) if quick else (3, 2048)
    with real_site() as site, Api(site.path) as api:
        _vws(
            site,
            "lease",
            "request",
            "--image",
            "demo",
            "--disk",
            f"{disk_mib}M",
            "--name",
            "bench",
            "--for",
            "1h",
            "--wait",
        )
        _settle(site)
        rounds = [_one_round(site, api, number) for number in range(times)]
        rests_ms = [float(found) for found in RESTED.findall((site.path / "logs" / "agent.log").read_text())]
        node = next(api.all("/nodes"))
    how = (
        f"A guest of the demo appliance with a disk of {disk_mib} MiB wrote {CHANGED_MB} MB of random bytes and is "
        f"saved while it runs, {times} times, by {node['hypervisor']} on {os.cpu_count()} processors, service and node "
        "beside it."
    )
    return Section("saving", "Saving a workspace", how, tuple(_numbers(rounds, rests_ms)))


def _numbers(rounds: list[tuple[float, int]], rests_ms: list[float]) -> Iterator[Number]:
    stored, seconds = [size / MB for _, size in rounds], [took for took, _ in rounds]
    yield Number(f"stored of {CHANGED_MB} MB changed, at most", max(stored), "MB", STORED_MB_MAX)
    yield Number("from the request to the image", median(seconds), "s", SECONDS_MAX, spread(seconds, "s"))
    yield Number("the guest rests, at most", max(rests_ms) / 1000, "s", REST_S_MAX)


def _settle(site: BenchSite) -> None:
    """What the guest does once after its boot, such as growing its disk, is no change of its user's."""
    _vws(site, "ssh", "bench-1", "--", "while pidof resize2fs >/dev/null; do sleep 1; done; sync")


def _one_round(site: BenchSite, api: Api, number: int) -> tuple[float, int]:
    """(seconds, bytes of the delta)"""
    write = f"dd if=/dev/urandom of=/data/bench bs={MB} count={CHANGED_MB} conv=notrunc 2>/dev/null && sync"
    _vws(site, "ssh", "bench-1", "--", write)
    workspace = next(api.all("/workspaces"))
    began = time.monotonic()
    save = api.call("POST", f"/workspaces/{workspace['id']}/saves", {"name": f"bench-{number}"})
    wait_while(lambda: _due(api, save), LIMIT_S, "the workspace was not saved")
    took = time.monotonic() - began
    image = api.call("GET", f"/images/bench-{number}")
    return took, next(file["size_bytes"] for file in image["files"] if file["role"] == "disk")


def _due(api: Api, save: dict[str, Any]) -> bool:
    seen = api.call("GET", f"/saves/{save['id']}")
    if seen["state"] == "failed":
        raise SystemExit(f"the workspace was not saved: {seen['reason']}")
    return bool(seen["state"] == "due")


def _vws(site: BenchSite, *arguments: str) -> Any:
    command = [sys.executable, "-m", "vws.cli.main", "--dir", str(site.path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(f"vws {arguments[0]} failed: {done.stderr}")
    return done.stdout
