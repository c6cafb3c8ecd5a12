"""What a process takes, as the kernel counts it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """cpu_s: processor seconds since the process began; peak_mib: the most that rss_mib ever was."""

    cpu_s: float
    rss_mib: float
    pss_mib: float
    peak_mib: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Raises FileNotFoundError if there is no such process. For another user's process it needs root."""
        status, rollup = _kib(pid, "status"), _kib(pid, "smaps_rollup")
        return cls(cpu_s(pid), rollup["Rss"] / 1024, rollup["Pss"] / 1024, status["VmHWM"] / 1024)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _kib(pid: int, file: str) -> dict[str, int]:
    """The lines `Name:   123 kB` of a file in /proc."""
    lines = (line.split() for line in Path(f"/proc/{pid}/{file}").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1:] == ["kB"]}
