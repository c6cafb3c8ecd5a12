"""What VWS's planner is measured beside: a bare loop over node counts, and AccaSim, each in a process of its own.

AccaSim lives in a virtual environment of its own under build/: it wants other packages than VWS, and VWS never
imports it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.machine import ROOT
from vws.sim.workload import Job

SHARED = ROOT.parent / "shared"
BARE = SHARED / "tools" / "bare_easy.py"
ACCASIM = ROOT / "build" / "accasim"
ACCASIM_VERSION = "1.1.3"

Outcome = dict[str, Any]  # cpu_s and wait_mean_s at least


def vws(*options: str | Path) -> Outcome:
    """`vws simulate` with these options, in a process of its own, as JSON."""
    found: Outcome = json.loads(_run([sys.executable, "-m", "vws.cli.main", "simulate", *map(str, options), "--json"]))
    return found


def bare_easy(trace: Path, nodes: int) -> Outcome:
    said = _run([sys.executable, str(BARE), str(trace), str(nodes)])
    found = re.search(r"([\d.]+) CPU s, .* mean wait ([\d.]+) s", said)
    assert found, said
    return {"cpu_s": float(found[1]), "wait_mean_s": float(found[2])}


def why_no_accasim() -> str:
    """Why AccaSim cannot be measured; "" if it can. It is installed when it is first wanted."""
    try:
        _accasim_python()
    except (RuntimeError, OSError) as error:
        return f"AccaSim is not beside it, for it could not be installed: {str(error).strip().splitlines()[-1]}"
    return ""


def accasim(trace: Path, nodes: int) -> Outcome:
    """trace: as `write_plain` wrote it."""
    script = ROOT / "bench" / "accasim_easy.py"
    found: Outcome = json.loads(_run([str(_accasim_python()), str(script), str(trace), str(nodes)]))
    return found


def write_plain(jobs: Iterable[Job], path: Path) -> Path:
    """The jobs as SWF without anything that readers understand in different ways."""
    lines = (
        f"{j.id} {j.submit} -1 {j.runs} {j.nodes} -1 -1 {j.nodes} {j.requested} -1 1 1 1 1 1 1 -1 -1\n" for j in jobs
    )
    path.write_text("".join(lines))
    return path


def _accasim_python() -> Path:
    """AccaSim's own Python, made when it is first wanted."""
    python, ready = ACCASIM / "bin" / "python", ACCASIM / f"has-{ACCASIM_VERSION}"
    if not ready.exists():
        venv.create(ACCASIM, clear=True, with_pip=True)
        _run([str(python), "-m", "pip", "install", "--quiet", f"accasim=={ACCASIM_VERSION}"])
        ready.touch()
    return python


def _run(command: list[str]) -> str:
    """What `command` prints; what it says when it fails is the reason that is raised."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ... failed: {done.stderr.strip()[-400:]}")
    return done.stdout
