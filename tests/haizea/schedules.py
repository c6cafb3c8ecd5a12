"""The reference schedules: which workload ran under which policy, and what came of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tests.haizea.oracle import Lease, Policy

SHARED = Path(__file__).resolve().parents[3] / "shared" / "haizea"
UNLIMITED = 1 << 30
SHORT = {
    "r150_nosr": ("150requests", "", Policy()),
    "r200_nosr": ("200requests", "", Policy()),
    "r600_nosr": ("600requests", "", Policy()),
    "r1000_off": ("1000requests", "", Policy(bookings=0)),
    "r1000_aggr": ("1000requests", "", Policy()),
    "r1000_inte": ("1000requests", "", Policy(bookings=4)),
    "r1000_cons": ("1000requests", "", Policy(bookings=UNLIMITED)),
}
_15, _30 = "15days_work_10-dur_2h-size_2medium", "30days_work_10-dur_3h-size_2medium"
LONG = {
    "b15_nosr": ("15days", "", Policy()),
    "p15_i10_2h_med_none": ("15days", _15, Policy()),
    "p15_i10_2h_med_serial": ("15days", _15, Policy(suspension="serial", migration=True)),
    "p15_i10_2h_med_all_nomigr": ("15days", _15, Policy(suspension="all")),
    "p15_i10_2h_med_all_migr": ("15days", _15, Policy(suspension="all", migration=True)),
    "p30_nosr": ("30days", "", Policy()),
    "p30_nosr_10_3h_med": ("30days", _30, Policy()),
    "p30_sr_10_3h_med": ("30days", _30, Policy(suspension="all", migration=True)),
}


def workload(trace: str, injected: str) -> list[Lease]:
    """The trace's jobs as best-effort leases, then the injected reservations, numbered from 1."""
    found = [*_jobs(SHARED / f"traces/{trace}.swf")]
    if injected:
        found += _reservations(SHARED / f"traces/{injected}.lwf")
    return [Lease(id, **fields) for id, fields in enumerate(found, start=1)]


def _jobs(path: Path) -> list[dict[str, int]]:
    jobs = []
    for line in path.read_text().splitlines():
        words = [float(word) for word in line.split()[:11]]
        submit, run, allocated, asked, requested, status = (int(words[i]) for i in (1, 3, 4, 7, 8, 10))
        if requested > 0 and not (run < 0 and status == 5):
            runs = max(1, min(run, requested))
            nodes = asked if asked != -1 else allocated
            jobs.append({"submit": submit, "nodes": nodes, "requested": requested, "runs": runs})
    return jobs


def _reservations(path: Path) -> list[dict[str, int]]:
    rows = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return [
        {"submit": int(r[0]), "at": int(r[1]), "requested": int(r[2]), "runs": int(r[3]), "nodes": int(r[4])}
        for r in rows
    ]


def reference(name: str) -> list[tuple[int, Any, Any]]:
    """(id, start, end) of each lease in Haizea's own schedule."""
    with gzip.open(SHARED / f"runs/{name}.leases.json.gz") as file:
        return [(row[0], row[6], row[7]) for row in json.load(file)["rows"]]
