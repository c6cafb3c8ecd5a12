"""The planner is compiled where a compiler is at hand; without one it plans the same, more slowly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vws
from tests.compiled import stale
from tests.core.plan.plans import page
from vws.core.plan import planner

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(planner.__file__.endswith(".py"), reason="the planner is not compiled here (scripts/setup planner)")
def test_compiled_or_not_it_plans_the_same(tmp_path):
    without = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(Path(vws.__file__).parent, tmp_path / "vws", ignore=without)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.run(
        [sys.executable, "-m", "tests.core.plan.plans"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110, check=True,
    )  # fmt: skip
    where, plans = child.stdout.rstrip("\n").split("\n", 1)
    assert where == str(tmp_path / "vws/core/plan/planner.py")
    assert plans == page()


def test_a_compiled_module_that_is_older_than_its_source_is_named(tmp_path):
    source, library = tmp_path / "planner.py", tmp_path / "planner.cpython-311-x86_64-linux-gnu.so"
    source.touch()
    library.touch()
    os.utime(source, (1000, 1000))
    os.utime(library, (1000, 1000))
    assert stale(tmp_path) == []
    os.utime(source, (1001, 1001))
    assert stale(tmp_path) == [source]
