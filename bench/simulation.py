"""The planner on real traces: how fast, how like Haizea under Haizea's rules, and how much better under its own.

The traces and the reference schedules lie beside the repository, not in it; without them there is nothing to measure.
Speed is CPU time of processes of their own, the rivals in turn, so that the machine's mood touches all alike.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import hpdc2008
from bench.measure import Number, Section, median, shown, spread
from bench.rivals import BARE, SHARED, Outcome, accasim, bare_easy, vws, why_no_accasim, write_plain
from vws.sim.report import numbers
from vws.sim.workload import Job, SimulatedPolicy, SimulatedSite, read_workload
from vws.sim.world import simulate

NODES = 144
SITE = SimulatedSite(NODES, 1, 1024)
HAIZEA = SHARED / "haizea"
TRACES, RUNS = HAIZEA / "traces", HAIZEA / "runs"
MONTH_S = 30 * 86400
SUSPENDING = ("--suspend", "all", "--migrate", "yes")
# An administrator chooses by simulation, as Haizea's best is chosen.
OURS = {
    "EASY, suspending": SimulatedPolicy("easy", "all", migrate=True),
    "EASY": SimulatedPolicy("easy", "none"),
    "conservative, suspending": SimulatedPolicy("conservative", "all", migrate=True),
}

# Of a workload: its trace, its reservations, Haizea's runs on it.
_15, _30 = "15days_work_10-dur_2h-size_2medium", "30days_work_10-dur_3h-size_2medium"
_SUSPENSIONS = ("none", "serial", "all_nomigr", "all_migr")
WORKLOADS = {
    "150 requests": ("150requests", "", ("r150_nosr",)),
    "200 requests": ("200requests", "", ("r200_nosr",)),
    "600 requests": ("600requests", "", ("r600_nosr",)),
    "1000 requests": ("1000requests", "", ("r1000_off", "r1000_aggr", "r1000_inte", "r1000_cons")),
    "15 days": ("15days", "", ("p15_off", "b15_nosr")),
    "15 days, reserved": (
        "15days",
        _15,
        tuple(f"p15_i10_2h_med_{s}" for s in _SUSPENSIONS),
    ),
    "30 days": ("30days", "", ("p30_nosr",)),
    "30 days, reserved": ("30days", _30, ("p30_nosr_10_3h_med", "p30_sr_10_3h_med")),
}
# What is compared: our key, Haizea's, the unit, and by how much it must not be exceeded.
COMPARED: tuple[tuple[str, str, Callable[[dict[str, Any]], float], str, float | None], ...] = (
    ("makespan", "makespan_s", lambda told: told["all_best_effort_s"], "s", 1.0),
    ("mean wait", "wait_mean_s", lambda told: told["wait_s"]["mean"], "s", 1.0),
    ("slowdown", "bounded_slowdown_mean", lambda told: told["bounded_slowdown_vs_actual"]["mean"], "", 1.0),
    ("longest wait", "wait_max_s", lambda told: told["wait_s"]["max"], "s", None),
)
MUCH_BETTER = {("30 days, reserved", "mean wait"): 0.8}


def run(quick: bool) -> Section:
    how = (
        f"{NODES} nodes of 1 CPU and 1024 MiB, 50 MiB/s to save and restore, 12.5 MiB/s to move. CPU time is of the "
        "replay alone, without reading: medians of processes in turn. Haizea's numbers are of its reference schedules, "
        "its best the least that any of its configurations reached, each number by itself. Ours is one configuration "
        f"for all numbers of a workload, told beside its makespan: of {len(OURS)} ({'; '.join(OURS)}) the one "
        "whose worst number beside Haizea's best is the best. The rows named as in the HPDC 2008 paper's table 1 are "
        "explained in `hpdc2008.py`."
    )
    if not (HAIZEA.exists() and BARE.exists()):
        return Section("simulation", "the planner on real traces", "The traces are not on this machine.", ())
    without = "" if quick else why_no_accasim()
    with tempfile.TemporaryDirectory() as folder:
        found = [*_speed(Path(folder), quick, beside_accasim=not quick and not without), *_same(quick), *_better(quick)]
    if not quick:
        jobs = {name: _jobs("30days", name) for name in ("", _30)}
        reservations = [job for job in jobs[_30] if job.at is not None]
        found += hpdc2008.numbers(jobs[""], reservations, SITE, HAIZEA / "papers.json")
    return Section("simulation", "the planner on real traces", f"{how} {without}".strip(), tuple(found))


def _jobs(trace: str, injected: str = "") -> tuple[Job, ...]:
    lwf = TRACES / f"{injected}.lwf" if injected else None
    return read_workload(SITE, swf=TRACES / f"{trace}.swf", lwf=lwf).jobs


# ---------------------------------------------------------------- speed


def _speed(folder: Path, quick: bool, *, beside_accasim: bool) -> Iterator[Number]:
    swf = TRACES / ("150requests.swf" if quick else "30days.swf")
    lwf = TRACES / f"{_30}.lwf"
    plain = write_plain(read_workload(SITE, swf=swf).jobs, folder / "plain.swf")
    twice_swf, twice_lwf = _twice(swf, folder, (1,)), _twice(lwf, folder, (0, 1))
    site = ("--nodes", str(NODES))
    sides: dict[str, Callable[[], Outcome]] = {
        "bare": lambda: bare_easy(swf, NODES),
        "vws": lambda: vws("--swf", swf, *site),
        "reserved": lambda: vws("--swf", swf, "--lwf", lwf, *site, *SUSPENDING),
        "twice": lambda: vws("--swf", twice_swf, *site),
        "twice reserved": lambda: vws("--swf", twice_swf, "--lwf", twice_lwf, *site, *SUSPENDING),
    }
    if beside_accasim:
        sides["accasim"] = lambda: accasim(plain, NODES)
    took: dict[str, list[Outcome]] = {name: [] for name in sides}
    for _ in range(1 if quick else 5):
        for name, measure in sides.items():
            took[name].append(measure())
    cpu = {name: [outcome["cpu_s"] for outcome in outcomes] for name, outcomes in took.items()}
    jobs = took["vws"][0]["leases"]
    for name, told in (("bare", "a bare loop over node counts"), ("vws", "VWS"), ("accasim", "AccaSim 1.1.3")):
        if name in cpu:
            wait_s = took[name][0]["wait_mean_s"]
            rate = f"{jobs / max(median(cpu[name]), 1e-3):,.0f} leases/CPU s"
            beside = f"{rate}; mean wait {wait_s:,.0f} s; {spread(cpu[name], 's')}"
            yield Number(f"EASY, {jobs} leases: {told}", median(cpu[name]), "s", beside=beside)
    yield Number("VWS by the bare loop", median(cpu["vws"]) / max(median(cpu["bare"]), 1e-3), "×", target=5)
    if "accasim" in cpu:
        yield Number("VWS by AccaSim", median(cpu["vws"]) / median(cpu["accasim"]), "×")
    reserved = took["reserved"][0]
    per_lease_ms = 1000 * median(cpu["reserved"]) / reserved["leases"]
    beside = (
        f"{1000 / per_lease_ms:,.0f} leases/CPU s (Haizea: 16); {reserved['leases']} leases, "
        f"{reserved['suspensions']} suspensions, {reserved['migrations']} migrations, {reserved['rss_mib_max']:.0f} MiB"
    )
    yield Number("reservations, suspension, migration: CPU time of a lease", per_lease_ms, "ms", 0.2, beside)
    yield Number("twice the trace by once, EASY", median(cpu["twice"]) / median(cpu["vws"]), "×", 2.3)
    again = median(cpu["twice reserved"]) / median(cpu["reserved"])
    yield Number("twice the trace by once, reservations and all", again, "×", 2.3)


def _twice(trace: Path, folder: Path, times: tuple[int, ...]) -> Path:
    """`trace`, and after it the same once more. times: the fields that are moments."""
    lines = [line.split() for line in trace.read_text().splitlines() if line.strip() and line[0] not in ";#"]
    later = [[str(int(w) + MONTH_S) if i in times and w != "-1" else w for i, w in enumerate(words)] for words in lines]
    path = folder / f"twice-{trace.name}"
    path.write_text("".join(" ".join(words) + "\n" for words in [*lines, *later]))
    return path


# ---------------------------------------------------------------- answers


def _same(quick: bool) -> Iterator[Number]:
    """Haizea's rules, lease by lease."""
    from tests.haizea.schedules import LONG, SHORT, UNLIMITED, reference

    leases, differing = 0, list[str]()
    runs = SHORT if quick else SHORT | LONG
    for name, (trace, injected, rules) in runs.items():
        backfill = {0: "off", UNLIMITED: "conservative"}.get(rules.bookings, rules.bookings)
        policy = SimulatedPolicy(backfill, rules.suspension, rules.migration, "haizea")
        fates = {fate.job.id: fate for fate in simulate(_jobs(trace, injected), SITE, policy).fates}
        known = reference(name)
        leases += len(known)
        differing += [name for id, start, end in known if (fates[id].start, fates[id].end) != (start, end)]
    beside = f"of {leases} in {len(runs)} schedules {' '.join(sorted(set(differing)))}".strip()
    yield Number("leases that start or end otherwise than Haizea's", len(differing), "", 0, beside)


def _better(quick: bool) -> Iterator[Number]:
    """VWS's own rules beside the best that Haizea reached in any configuration."""
    for workload, (trace, injected, runs) in WORKLOADS.items():
        if quick and trace != "1000requests":
            continue
        told = {name: json.loads((RUNS / f"{name}.json").read_text()) for name in runs}
        configured, ours = _ours(_jobs(trace, injected), told)
        for what, key, theirs, unit, target in COMPARED:
            best = min(told, key=lambda name: theirs(told[name]))
            beside = f"{shown(ours[key])} {unit}; Haizea {shown(theirs(told[best]))} {unit} ({best})".replace(" ;", ";")
            beside += f"; ours: {configured}" if what == "makespan" else ""
            limit = MUCH_BETTER.get((workload, what), target)
            # The same schedules, added up in another order, differ in the last digits of a mean.
            ratio = round(ours[key] / theirs(told[best]), 9)
            yield Number(f"{workload}: {what} by Haizea's best", ratio, "×", limit, beside)
        if injected:
            most = max(run["ar_done"] for run in told.values())
            beside = f"{ours['reservations_granted']} of {ours['reservations']}; Haizea {most}"
            granted = ours["reservations_granted"]
            yield Number(f"{workload}: reservations Haizea granted, by ours", most / granted, "×", 1.0, beside)


def _ours(jobs: tuple[Job, ...], told: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The configuration whose worst number beside Haizea's best is the best, and its numbers."""
    found = {name: numbers(simulate(jobs, SITE, policy), SITE) for name, policy in OURS.items()}

    def worst(ours: dict[str, Any]) -> float:
        return max(ours[key] / min(map(of, told.values())) for _, key, of, _, target in COMPARED if target)

    name = min(found, key=lambda name: worst(found[name]))
    return name, found[name]
