"""Two service processes of one site, with one PostgreSQL and one repository: neither sweeps what the other brings.

The other process brings an image and stops between the adoption of its file and the commit, or is killed there.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.service.conftest import ADMIN, ANN, TurnedClock
from tests.service.test_images import disk, sha256s, upload
from vws.ambient import TimeIds
from vws.service import build
from vws.service.site import Settings
from vws.store.blobs import FileBlobs
from vws.store.sql import SqlStore

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")
WAIT_S = 60


class Process:
    """One process of the site: directories of its own, the store and the repository of all."""

    def __init__(self, url: str, blobs: Path, own: Path) -> None:
        own.mkdir()
        self.store = SqlStore.open(url)
        self.services = build(self.store, FileBlobs(blobs), TurnedClock(), TimeIds(), Settings(), own)


def until(there: Path) -> None:
    end = time.monotonic() + WAIT_S
    while not there.exists():
        assert time.monotonic() < end, f"{there.name} never came"
        time.sleep(0.01)


def bring(url: str, blobs: Path, own: Path, adopted: Path, go_on: Path) -> None:
    """What the other process does."""
    from vws.service import images

    def wait(point: str) -> None:
        if point == "service.image.adopted":
            adopted.touch()
            until(go_on)

    images.reach = wait
    other = Process(url, blobs, own)
    print(upload(other, disk(b"x"), "brought").id)
    other.store.close()


@pytest.fixture
def mine(postgres_url, tmp_path):
    process = Process(postgres_url, tmp_path / "blobs", tmp_path / "mine")
    yield process
    process.store.close()


@pytest.fixture
def other(mine, postgres_url, tmp_path):
    """Another process, which has adopted a file and not committed yet; go_on lets it."""
    paths = [str(tmp_path / name) for name in ("blobs", "other", "adopted", "go-on")]
    script = "import json, sys; from pathlib import Path; from tests.service.test_two_processes import bring\n"
    script += "url, *paths = json.loads(sys.argv[1]); bring(url, *map(Path, paths))"
    child = subprocess.Popen(
        [sys.executable, "-c", script, json.dumps([postgres_url, *paths])],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2], env=os.environ | {"PYTHONPATH": "src"},
    )  # fmt: skip
    try:
        until(tmp_path / "adopted")
        child.go_on = tmp_path / "go-on"
        yield child
    finally:
        child.kill()
        child.communicate()


def test_what_another_process_is_bringing_is_not_swept(mine, other, tmp_path):
    images = mine.services.images
    assert images.files.blobs.all() == sorted(sha256s(disk(b"x"))), "it is there, and of no image"
    images.sweep()
    assert images.collect(ADMIN) == ([], [])
    upload(mine, disk(), "mine")
    images.remove(ANN, "mine")
    other.go_on.touch()
    said, _ = other.communicate(timeout=WAIT_S)
    assert other.returncode == 0
    mine.services.site.catch_up()
    image = images.image(ANN, "brought")
    assert image.id == said.strip()
    assert images.verify(ANN, "brought").damaged == ""
    assert images.collect(ADMIN)[1] == sorted(sha256s(disk())), "what could not be swept before is now"
    assert images.files.blobs.all() == sorted(sha256s(disk(b"x")))


def test_what_a_killed_process_was_bringing_is_swept(mine, other):
    other.send_signal(signal.SIGKILL)
    other.wait(WAIT_S)
    end = time.monotonic() + WAIT_S
    while mine.services.images.files.blobs.all():  # until the database has noticed, too
        assert time.monotonic() < end
        mine.services.images.sweep()
        time.sleep(0.05)


def test_one_brings_while_others_bring(mine, other):
    """Only dropping waits."""
    assert upload(mine, disk(), "mine").files[0].sha256 in mine.services.images.files.blobs.all()


def test_a_second_process_in_the_same_directory_ends_before_it_sweeps_anything(tmp_path):
    site = tmp_path / "site"
    upload = site / "service" / "uploads" / "upl-000001"
    converted = site / "service" / "exports" / "work" / "export"
    for path in (upload, converted):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
    (site / "site.toml").write_text('[service]\nuser = ""\nport = 0\n')
    with (site / ".service.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the first one has it
        command = [sys.executable, "-m", "vws.main", "service", "--dir", str(site)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
    assert second.returncode == 1
    assert "already runs" in second.stderr
    assert upload.read_bytes() == converted.read_bytes() == b"half"
