"""What the numbers were measured on: without it they mean nothing to anybody else."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def stamp() -> str:
    """When, on what, and of which version, in one line."""
    day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return f"Measured {day} at {_version()} on {describe()}."


def describe() -> str:
    facts = [
        f"{os.cpu_count()} × {_cpu_model()}",
        f"{_memory_gib():.0f} GiB of memory",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
        f"{_flush_ms():.1f} ms for a disk flush",
        f"load {os.getloadavg()[0]:.1f} at the start",
    ]
    return ", ".join(facts)


def _version() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "an unknown version"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)


def _flush_ms(times: int = 20) -> float:
    """What the disk under the temporary folder takes to keep 4 KiB: every commit of a site costs at least this."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(times):
            begin = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            took.append(1000 * (time.perf_counter() - begin))
    return statistics.median(took)
