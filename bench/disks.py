"""Workspaces of an image that their node has: how long until all of them could boot, and what one overlay takes.

A node of its own makes them, without a service: it checks the cached files, makes overlay and NoCloud disk (with a host
key) and enters the address, for all of them at the same time, as an agent does. Nothing is booted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.machine import ROOT
from bench.measure import Number, Section, median, spread
from vws.core.deployment import NodeOrders, WorkspaceOrder
from vws.core.lifecycle import Desired
from vws.core.site import ImageFile
from vws.node.commands import Commands
from vws.node.config import NodeConfig
from vws.node.disks import hand_over, make_overlay
from vws.node.libvirt import LibvirtHypervisor

BUNDLE = ROOT / "build/appliance/demo.vws"
ALL_READY_S_MAX = 1.0
OVERLAY_MS_MAX = 50.0
LASTS_S = 3600
FORMATS = {"kernel": "kernel", "initrd": "initrd", "disk": "qcow2"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl bench"


def run(quick: bool) -> Section:
    if os.geteuid() != 0:
        raise SystemExit("bench disks needs root: it makes a node")
    count, times = (4, 1) if quick else (16, 5)
    with tempfile.TemporaryDirectory(prefix="vws-bench-") as folder:
        ready_s, overlays_ms = asyncio.run(_measure(Path(folder), count, times))
    how = (
        f"{count} workspaces of the demo appliance, which the node has already, made at the same time, {times} times, "
        f"on {os.cpu_count()} processors; overlays by `qemu-img create` and fsync, one after the other, in the same "
        "run."
    )
    numbers = tuple(_numbers(ready_s, overlays_ms, count))
    return Section("disks", "Workspaces of a cached image, ready to boot", how, numbers)


def _numbers(ready_s: list[float], overlays_ms: list[float], count: int) -> Iterator[Number]:
    yield Number(f"{count} workspaces ready to boot", median(ready_s), "s", ALL_READY_S_MAX, spread(ready_s, "s"))
    yield Number("one overlay", median(overlays_ms), "ms", OVERLAY_MS_MAX, spread(overlays_ms, "ms"))


async def _measure(folder: Path, count: int, times: int) -> tuple[list[float], list[float]]:
    """(seconds until all were ready, of each turn; milliseconds of each overlay)"""
    parts = folder / "parts"
    files, cmdline = _unpacked(parts)

    async def fetch(sha256: str, size_bytes: int, target: Path) -> str:
        target.write_bytes((parts / sha256).read_bytes())
        return sha256

    node = LibvirtHypervisor(folder / "node", "nod-1", NodeConfig())
    node.directory.mkdir()
    await node.open(NodeOrders("nod-1", 1, "10.77.9.0/24", "10.77.9.1", (), time.time()))
    try:
        orders = [_order(number, files, cmdline) for number in range(count)]
        await _make(node, orders[:1], fetch)  # the files are fetched once
        ready_s = [await _make(node, orders, fetch) for _ in range(times)]
        disk = next(file for file in files if file.role == "disk")
        return ready_s, [_overlay_ms(folder / "node", disk) for _ in range(count * times)]
    finally:
        await node.close(tear_down=True)


async def _make(node: LibvirtHypervisor, orders: list[WorkspaceOrder], fetch: Any) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(node.create(order, fetch, lambda step: None) for order in orders))
    took_s = time.perf_counter() - began
    for order in orders:
        await node.remove(order.id)
    return took_s


def _overlay_ms(node: Path, disk: ImageFile) -> float:
    new, path = node / "workspaces/bench.new", node / "workspaces/bench.qcow2"
    began = time.perf_counter()
    make_overlay(Commands(), new, node / "images" / disk.sha256, disk, 1024)
    hand_over(new, path)
    took_ms = 1000 * (time.perf_counter() - began)
    path.unlink()
    return took_ms


def _unpacked(folder: Path) -> tuple[tuple[ImageFile, ...], str]:
    """The demo appliance's files, by their sha256 in a new folder, and its kernel line."""
    if not BUNDLE.exists():
        raise SystemExit("bench disks needs the demo appliance: make appliance")
    folder.mkdir()
    files, cmdline = [], ""
    with tarfile.open(BUNDLE) as bundle:
        for member in bundle:
            content = bundle.extractfile(member)
            data = content.read() if content is not None else b""
            if member.name == "appliance.json":
                cmdline = str(json.loads(data)["cmdline"])
            role = member.name.partition(".")[0]
            if role in FORMATS:
                sha256 = hashlib.sha256(data).hexdigest()
                (folder / sha256).write_bytes(data)
                files.append(ImageFile(role, sha256, len(data), FORMATS[role]))
    return tuple(files), cmdline


def _order(number: int, files: tuple[ImageFile, ...], cmdline: str) -> WorkspaceOrder:
    address = 2 + number
    first = WorkspaceOrder(
        id=f"wsp-{number}", name=f"bench-{number}", lease="lse-1", desired=Desired.RUN, boots=1, may_create=True,
        end=int(time.time()) + LASTS_S, image="img-1", files=files, boot="direct", cmdline=cmdline, user="root",
        ready="ssh", boot_limit_s=300, cpus=1, cpus_defined=1, memory_mib=128, memory_defined_mib=128, disk_mib=1024,
        mac="", address="", ssh_keys=(KEY,),
    )  # fmt: skip
    return replace(first, mac=f"02:77:0a:4d:09:{address:02x}", address=f"10.77.9.{address}")
