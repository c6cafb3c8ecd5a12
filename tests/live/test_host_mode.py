"""`isolation = "host"`: the same code on the machine's own libvirtd and network, which for this test are made up."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vws.node.config import NodeConfig
from vws.node.libvirt import LibvirtHypervisor
from vws.ports import HypervisorError

HERE = Path(__file__)
pytestmark = pytest.mark.live


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that QEMU without root may pass through, which pytest's own are not."""
    directory = Path(tempfile.mkdtemp(prefix="vws-host-"))
    os.chmod(directory, 0o755)
    yield directory
    shutil.rmtree(directory)
    for folder in Path("/sys/fs/cgroup").glob("*/machine"):  # libvirt's, where no systemd has made it before
        with contextlib.suppress(OSError):
            folder.rmdir()


def test_a_workspaces_life_on_the_machines_own_libvirtd(open_directory, bundle) -> None:
    apart = ["unshare", "--net", "--mount", "--uts", "--propagation", "private", "--"]
    program = [sys.executable, str(HERE.with_name("host_mode.py")), str(open_directory), str(bundle)]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[2])}
    done = subprocess.run([*apart, *program], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "it lived" in done.stdout


def test_a_directory_that_qemu_cannot_enter_is_named(tmp_path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "node").mkdir()
    hypervisor = LibvirtHypervisor(private / "node", "nod-1", NodeConfig(isolation="host"))
    with pytest.raises(HypervisorError, match=r"cannot pass through .*: move the site's directory"):
        hypervisor._open(None)
