"""Appliances built from their recipes, with packages cached, and mmdebstrap alone beside them.

Each recipe is built once before, so that nothing is downloaded while the time runs, and is then built several times;
all builds must give the same bytes. mmdebstrap alone installs the packages that the recipe names, from the same cache,
into a folder: what a build takes beyond it is the disk, the kernel, the documents and the bundle.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.machine import ROOT
from bench.measure import Number, Section, median, spread
from vws.factory.debian import HOOKS
from vws.factory.recipes import load

# (recipe, seconds that it may take)
RECIPES = (("demo", 20.0), ("debian", 120.0))
CACHE = ROOT / "build" / "cache"


def run(quick: bool) -> Section:
    if os.geteuid() != 0:
        raise SystemExit("bench building needs root: it installs packages into a system of its own")
    times, recipes = (1, RECIPES[:1]) if quick else (3, RECIPES)
    how = (
        f"`vws image build` of the recipes in appliances/, {times} times each after one that fills the cache of "
        "packages; mmdebstrap alone, from the same cache, in turn with the builds."
    )
    with tempfile.TemporaryDirectory(prefix="vws-bench-") as folder:
        numbers = [number for name, limit_s in recipes for number in _numbers(name, limit_s, times, Path(folder))]
    return Section("building", "Building an appliance", how, tuple(numbers))


def _numbers(name: str, limit_s: float, times: int, folder: Path) -> Iterator[Number]:
    rounds, alone_s, seen = [], [], {_build(name, folder)["sha256"]}
    for _ in range(times):
        built = _build(name, folder)
        rounds.append(built["took_s"])
        seen.add(built["sha256"])
        alone_s.extend(_alone(name, folder))
    beside = spread(rounds, "s")
    if alone_s:
        beside += f"; {median(rounds) / median(alone_s):.2f} × mmdebstrap alone ({median(alone_s):.1f} s)"
    yield Number(f"{name}.yaml to a bundle", median(rounds), "s", limit_s, beside)
    yield Number(f"{name}.yaml: results beside the first", len(seen) - 1, "", 0, f"of {times} builds")


def _build(name: str, folder: Path) -> Any:
    command = [sys.executable, "-m", "vws.cli.main", "image", "build", str(_recipe(name)), "--json"]
    command += ["--out", str(folder / f"{name}.vws"), "--cache", str(CACHE)]
    return json.loads(_run(command))


def _alone(name: str, folder: Path) -> Iterator[float]:
    """Nothing for a recipe of programs, which installs no system."""
    debian = load(_recipe(name), None).recipe.debian
    if debian is None or not debian.packages:
        return
    target = folder / "alone"
    command = ["unshare", "--mount", "--propagation", "private", "--", "mmdebstrap", "--mode=root"]
    command += ["--variant=minbase", "--format=directory", "--skip=essential/unlink", "--skip=cleanup/apt/cache"]
    command += [f"--include={','.join(debian.packages)}", "--dpkgopt=force-unsafe-io"]
    command += [f"--setup-hook={HOOKS / 'debs-in'}", f"--customize-hook={HOOKS / 'debs-out'}"]
    command += [debian.suite or "", str(target)]
    began = time.monotonic()
    _run(command, VWS_DEBS=str(CACHE / "archives"))
    yield time.monotonic() - began
    shutil.rmtree(target)


def _recipe(name: str) -> Path:
    return ROOT / "appliances" / f"{name}.yaml"


def _run(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ) | environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])} … failed: {done.stderr[-2000:]}")
    return done.stdout
