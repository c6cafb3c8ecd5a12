"""scripts/setup, on this machine (where it has nothing to do) and on made-up ones, by stand-ins for apt and its kin."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def setup(*steps: str, cwd: Path = ROOT, path: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **env}
    if path:
        variables["PATH"] = f"{path}:{variables['PATH']}"
    command = [str(cwd / "scripts" / "setup"), *steps]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)


class Elsewhere:
    """A copy of the script in an empty folder, with programs of our own first in PATH; each call is written down."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin, self.log = folder / "tree", folder / "bin", folder / "calls"
        (self.root / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup", self.root / "scripts" / "setup")
        self.bin.mkdir()
        self.log.touch()
        self.stand_in("sleep")
        self.stand_in("mkdir")
        self.stand_in("tee")
        self.stand_in("rm")

    def stand_in(self, name: str, body: str = "") -> None:
        program = self.bin / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.log}\n{body}\n')
        program.chmod(0o755)

    def run(self, *steps: str) -> subprocess.CompletedProcess[str]:
        return setup(*steps, cwd=self.root, path=self.bin)

    def calls(self, name: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(f"{name} ")]


@pytest.fixture
def elsewhere(tmp_path) -> Elsewhere:
    return Elsewhere(tmp_path)


@pytest.mark.skipif(not (ROOT / ".venv" / ".vws-installed").exists(), reason="make setup has not run here")
def test_nothing_to_do_is_quick_and_silent():
    assert setup().returncode == 0  # what has changed since the last time, perhaps
    best_s = 99.0
    for _ in range(3):  # the machine may be busy
        started = time.monotonic()
        done = setup()
        best_s = min(best_s, time.monotonic() - started)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert best_s < 1


def test_only_what_is_missing_is_installed_after_an_update(elsewhere):
    elsewhere.stand_in(
        "dpkg-query",
        'shift 3; for name; do [ "$name" = nftables ] || [ "$name" = procps ] || echo "ii  $name"; done',
    )
    elsewhere.stand_in("apt-get")
    done = elsewhere.run("packages")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "setup: updating Debian's package lists",
        "setup: installing nftables procps",
    ]
    update, install = elsewhere.calls("apt-get")
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends nftables procps")
    assert "DPkg::Lock::Timeout=120" in install


def test_a_removed_package_counts_as_missing(elsewhere):
    elsewhere.stand_in("dpkg-query", 'shift 3; for name; do echo "rc  $name"; done')
    elsewhere.stand_in("apt-get")
    assert "libvirt-daemon" in elsewhere.run("packages").stdout


def test_a_failing_mirror_is_tried_again_then_told_with_the_next_step(elsewhere):
    elsewhere.stand_in("dpkg-query")
    elsewhere.stand_in("apt-get", 'echo "Reading"; echo "E: Temporary failure resolving the mirror" >&2; exit 100')
    done = elsewhere.run("packages")
    assert done.returncode == 1
    assert len(elsewhere.calls("apt-get")) == 3
    assert "trying again" in done.stdout
    assert "E: Temporary failure resolving the mirror" in done.stderr
    assert "Reading" not in done.stderr
    assert "Next: check the network" in done.stderr


def test_the_databases_own_start_is_declined_for_the_installation_only(elsewhere):
    elsewhere.stand_in("dpkg-query")
    elsewhere.stand_in("apt-get", 'case "$*" in *install*) echo "E: broken" >&2; exit 100 ;; esac')
    done = elsewhere.run("packages")
    setting = "/etc/postgresql-common/createcluster.d/vws-setup.conf"
    assert elsewhere.calls("tee") == [f"tee {setting}"]
    assert elsewhere.calls("rm")[-1].endswith(setting)  # even though the installation failed
    assert "what it had finished is kept" in done.stderr


def test_no_usable_python_is_told(elsewhere):
    elsewhere.stand_in("old-python", "exit 1")
    done = setup("python", cwd=elsewhere.root, path=elsewhere.bin, PYTHON=str(elsewhere.bin / "old-python"))
    assert done.returncode == 1
    assert "found no Python 3.11 or later with venv" in done.stderr
    assert "Next: apt-get install python3-venv" in done.stderr


def test_an_unknown_step_is_told(elsewhere):
    done = elsewhere.run("pakcages")
    assert done.returncode == 1
    assert "there is no step 'pakcages'" in done.stderr


def test_the_appliance_is_built_when_its_inputs_changed(elsewhere):
    for folder in ("src/vws/guest", "src/vws/factory", "appliances"):
        (elsewhere.root / folder).mkdir(parents=True)
    recipe = elsewhere.root / "appliances/demo.yaml"
    recipe.touch()
    venv = elsewhere.root / ".venv/bin"
    venv.mkdir(parents=True)
    elsewhere.stand_in("apt-cache")
    program = venv / "vws"
    program.write_text('#!/bin/sh\n/bin/mkdir -p build/appliance; : >build/appliance/demo.vws; echo "built by $*"\n')
    program.chmod(0o755)
    assert "built by image build appliances/demo.yaml --out" in elsewhere.run("appliance").stdout
    os.utime(recipe, (1, 1))
    assert elsewhere.run("appliance").stdout == ""
    later = time.time() + 60
    os.utime(recipe, (later, later))
    assert "built" in elsewhere.run("appliance").stdout


def test_make_lists_its_targets():
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("setup", "appliance", "demo", "test", "bench", "lint", "docs", "openapi", "clean"):
        assert f"make {target} " in done.stdout
