"""Workloads read from traces: who asked for how much, when, and how long it really ran.

Two formats. SWF, the Standard Workload Format of the Parallel Workloads Archive:
one job a line, 18 numbers, `;` begins a comment. LWF, the lease format of the
Globus Workspace line: `submit start requested real nodes cpus memory ...`, `#`
begins a comment, and a start other than -1 makes the lease a reservation.

Logs of years have lines that are cut off or hold rubbish. Such a line is counted,
named and skipped, so that one bad line does not cost a month's replay. That is
another thing than a job that is *dropped* because it never ran and asked for
nothing that could be replayed (no requested time, or cancelled while it waited):
the format allows it, and every comparison with published numbers leaves it out.

A processor of SWF becomes one virtual machine of one CPU. Traces of machines
whose nodes hold several processors are divided before (as the SDSC Blue Horizon
traces are, by 8), or replayed on a site with `cpus` processors to a node.

What a lease asks for and what it does are kept apart: `requested` is for the
planner, `runs` for the simulator alone, which is the one that knows the future.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from vws.core.errors import InvalidRequest
from vws.planning import PlanningConfig, rules_of
from vws.policies import Members, PolicyConfig, choose

SWF_FIELDS = 18
SWF_FIELDS_READ = 11  # up to the status; what follows says who asked, and may be missing
SWF_CANCELLED = 5
LWF_FIELDS = 10
LWF_FIELDS_READ = 7  # up to the memory; disk and image are not simulated
LINE_MAX = 1 << 16
NUMBER_MAX = 10**12  # 30,000 years in seconds: more is rubbish, not a time
NOBODY = Members({}, {}, {})
MISSES_MAX = 1000  # so many bad lines and not one good: the file is something else


@dataclass(frozen=True, slots=True)
class Job:
    """One lease of a workload. Times in seconds from the trace's begin.

    at: when a reservation starts; None is best effort. requested: what the planner
    is told; runs: how long the work takes, at most `requested`, known to the
    simulator alone. cpus, memory_mib: of each of its `nodes` virtual machines.
    """

    id: int
    submit: int
    nodes: int
    requested: int
    runs: int
    at: int | None = None
    cpus: int = 1
    memory_mib: int = 1024
    owner: str = ""


@dataclass(frozen=True, slots=True)
class SimulatedSite:
    """`nodes` equal nodes. Rates are of one node: memory saved, restored, and sent to another node."""

    nodes: int
    cpus: int
    memory_mib: int
    suspend_mib_per_s: float = 50
    resume_mib_per_s: float = 50
    transfer_mib_per_s: float = 12.5

    def holds(self, job: Job) -> bool:
        """Whether the empty site could run `job`."""
        per_node = min(self.cpus // job.cpus, self.memory_mib // job.memory_mib)
        return job.nodes <= per_node * self.nodes

    def node_names(self) -> list[str]:
        """As a calendar's rows call them, in order."""
        return [f"node-{number:03d}" for number in range(1, self.nodes + 1)]


@dataclass(frozen=True, slots=True)
class SimulatedPolicy:
    """backfill: "off", "easy", "conservative", or how many leases are promised a start.

    suspend: "none", "serial" (leases of one machine) or "all". rules: "vws" or "haizea", which has no rules but those
    before it. restartable: whether a best-effort lease that runs may be ended for a reservation, its work lost, when it
    cannot be saved. smallest_first to spared_after_h: as in [planning] of a site; the others as in its [policy], whose
    members are the log's users.
    """

    backfill: str | int = "easy"
    suspend: str = "none"
    migrate: bool = False
    rules: str = "vws"
    restartable: bool = True
    smallest_first: bool = True
    patience_h: float = 24.0
    useful: float = 2.0
    setbacks_max: int = 10
    spared_after_h: float = 96.0
    order: str = "first-come"
    preemption: str = "hard-suspends-soft"
    half_life_days: float = 7.0
    members: Members = NOBODY

    @property
    def planning(self) -> PlanningConfig:
        """As a site's [planning] says it."""
        return PlanningConfig(
            str(self.backfill),
            self.suspend,
            self.smallest_first,
            self.patience_h,
            self.useful,
            self.setbacks_max,
            self.spared_after_h,
        )


def check_simulated(policy: SimulatedPolicy) -> None:
    """Raise InvalidRequest, naming the key, for what no planner can do."""
    rules_of(policy.planning)
    choose(PolicyConfig(order=policy.order, preemption=policy.preemption), policy.members)
    if policy.rules != "haizea":
        return
    plain = SimulatedPolicy(policy.backfill, policy.suspend, policy.migrate, policy.rules)
    for key in (
        "restartable",
        "smallest_first",
        "patience_h",
        "useful",
        "setbacks_max",
        "spared_after_h",
        "order",
        "preemption",
    ):
        if getattr(policy, key) != getattr(plain, key):
            raise InvalidRequest(
                f"{key} is {getattr(policy, key)}, and Haizea has no such rule",
                field=key,
                asked=getattr(policy, key),
                possible='rules "vws", or to leave it out',
            )


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that was skipped, and what was wrong with it."""

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Workload:
    """jobs: by submit time, at the same second by id. oversized: more than the site could ever run."""

    jobs: tuple[Job, ...]
    oversized: tuple[Job, ...] = ()
    dropped: int = 0
    malformed: tuple[Malformed, ...] = ()


def read_workload(
    site: SimulatedSite, *, swf: Path | None = None, lwf: Path | None = None, vm_memory_mib: int | None = None
) -> Workload:
    """The jobs of `swf`, then those of `lwf`, numbered from 1 in that order.

    vm_memory_mib: of the machine that stands for one processor of SWF; None is
    that processor's share of a node. Raises InvalidRequest for a file that holds
    no job, OSError for one that cannot be read.
    """
    share = vm_memory_mib or max(1, site.memory_mib // site.cpus)
    files: list[tuple[Path, str, Callable[[list[str]], Job | None], str]] = []
    if swf:
        files.append((swf, ";", lambda words: _of_memory(swf_job(words), share), "SWF"))
    if lwf:
        files.append((lwf, "#", lwf_job, "LWF"))
    jobs, dropped, malformed = list[Job](), 0, list[Malformed]()
    for path, comment, parse, name in files:
        found, missed, bad = _read(path, comment, parse, name)
        jobs += [replace(job, id=id) for id, job in enumerate(found, start=len(jobs) + 1)]
        dropped += missed
        malformed += bad
    jobs.sort(key=lambda job: job.submit)
    oversized = tuple(job for job in jobs if not site.holds(job))
    return Workload(tuple(job for job in jobs if site.holds(job)), oversized, dropped, tuple(malformed))


def swf_job(words: Sequence[str]) -> Job | None:
    """The job of a line's words; None when it is dropped. Raises ValueError for a malformed line."""
    if len(words) < SWF_FIELDS_READ:
        raise ValueError(f"{len(words)} fields; a line of SWF has {SWF_FIELDS}")
    names = ("job number", "submit time", "wait time", "run time", "allocated processors", "average CPU time",
             "used memory", "requested processors", "requested time", "requested memory", "status")  # fmt: skip
    _, submit, _, run, allocated, _, _, asked, requested, _, status = map(_number, words, names)
    if submit < 0:
        raise ValueError(f"the submit time is {submit}; it counts from the trace's begin")
    if requested <= 0 or (run < 0 and status == SWF_CANCELLED):
        return None
    nodes = asked if asked != -1 else allocated
    if nodes <= 0:
        raise ValueError(f"{nodes} processors; a job has at least 1")
    owner = words[11] if len(words) > 11 and words[11] != "-1" else ""
    return Job(0, submit, nodes, requested, max(1, min(run, requested)), owner=owner)


def lwf_job(words: Sequence[str]) -> Job | None:
    """The lease of a line's words; None when it is dropped. Raises ValueError for a malformed line."""
    if len(words) < LWF_FIELDS_READ:
        raise ValueError(f"{len(words)} fields; a line of LWF has {LWF_FIELDS}")
    names = ("submit time", "start", "requested time", "real time", "number of nodes", "CPUs", "memory")
    submit, start, requested, real, nodes, cpus, memory_mib = map(_number, words, names)
    if submit < 0:
        raise ValueError(f"the submit time is {submit}; it counts from the trace's begin")
    if start != -1 and start < submit:
        raise ValueError(f"it starts at {start}, before it is submitted at {submit}; -1 is best effort")
    if min(nodes, cpus, memory_mib) <= 0:
        raise ValueError(f"{nodes} nodes of {cpus} CPUs and {memory_mib} MiB; each is at least 1")
    if requested <= 0:
        return None
    at = None if start == -1 else start
    return Job(0, submit, nodes, requested, max(1, min(real, requested)), at, cpus, memory_mib)


def _of_memory(job: Job | None, memory_mib: int) -> Job | None:
    return job and replace(job, memory_mib=memory_mib)


def _number(word: str, name: str) -> int:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if abs(number) > NUMBER_MAX:
        raise ValueError(f"the {name} is {word[:20]!r}, which is too large")
    if math.isnan(number):
        raise ValueError(f"the {name} is {word[:20]!r}; a number was expected")
    return int(number)


def _read(
    path: Path, comment: str, parse: Callable[[list[str]], Job | None], name: str
) -> tuple[list[Job], int, list[Malformed]]:
    """(jobs, number of dropped ones, malformed lines) of one file."""
    jobs, dropped, malformed = list[Job](), 0, list[Malformed]()
    for number, line in _lines(path, name):
        words = line.split(comment, 1)[0].split()
        if not words:
            continue
        try:
            job = parse(words)
        except ValueError as problem:
            malformed.append(Malformed(str(path), number, str(problem)))
            if len(malformed) >= MISSES_MAX and not jobs and not dropped:
                break
            continue
        if job:
            jobs.append(job)
        else:
            dropped += 1
    if not jobs:
        raise _nothing(path, name, dropped, malformed)
    return jobs, dropped, malformed


def _nothing(path: Path, name: str, dropped: int, malformed: list[Malformed]) -> InvalidRequest:
    if dropped:
        why = f"all its {dropped} jobs were cancelled before they ran, or say no requested time"
    elif malformed:
        why = f"line {malformed[0].line}: {malformed[0].problem}"
    else:
        why = "it is empty"
    return _not_a_trace(path, name, f"{path} has no job to replay: {why}")


def _not_a_trace(path: Path, name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(problem, field=f"--{name.lower()}", asked=str(path), possible=f"a trace in {name}")


def _lines(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """The numbered lines of a file, which may be compressed with gzip."""
    try:
        with _open(path) as file:
            number = 0
            while line := file.readline(LINE_MAX):
                number += 1
                if len(line) == LINE_MAX and not line.endswith("\n"):
                    raise _not_a_trace(path, name, f"{path}, line {number}, is longer than {LINE_MAX} characters")
                yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _not_a_trace(path, name, f"{path} cannot be decompressed: {error}") from error


def _open(path: Path) -> TextIO:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    if compressed:
        return gzip.open(path, "rt", encoding="utf-8", errors="replace")
    return path.open(encoding="utf-8", errors="replace")
