"""What `make lint` looks for, beside the other tests: it takes as long as they do one after the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("words", ["ruff check .", "ruff format --check .", "mypy"])
def test_nothing_is_found(words: str) -> None:
    done = subprocess.run([sys.executable, "-m", *words.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
