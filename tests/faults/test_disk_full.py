"""The disk is full, at each step of an image's way: clear words, nothing half done, and on it goes with room."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.full_disk import STEPS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("qemu-img")),
    reason="a small disk of one's own takes root, unshare and qemu-img",
)


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, str]:
    """What went wrong at each step, all of them in one process with its own mounts."""
    folder = tmp_path_factory.mktemp("full")
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.faults.full_disk"]
    done = subprocess.run([*command, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(list((folder / step).iterdir()) == [] for step in STEPS), "nothing is mounted here"
    return json.loads(done.stdout)


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_is_told_and_nothing_half_done_is_left(told, step):
    assert told[step] == ""
