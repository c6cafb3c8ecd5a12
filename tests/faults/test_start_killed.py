"""A start or the making of a site that was cut off can be repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from vws import supervisor
from vws.config import SiteDirectory
from vws.core.errors import Conflict


def start(path, count):
    supervisor.start_site(path, fake_nodes=count, detach=True, say=lambda _: None)
    return supervisor.site_status(path)["nodes"]


def test_killed_between_entering_the_nodes_and_keeping_their_tokens(tmp_path, monkeypatch):
    path = tmp_path / "site"
    supervisor.init_site(path)

    def die(path, text, mode):
        raise KeyboardInterrupt

    for kept in (0, 2):
        # First nothing was kept yet, then two nodes are there, to be replaced.
        with monkeypatch.context() as patched:
            patched.setattr(supervisor.processes, "write_file", die)
            with pytest.raises(KeyboardInterrupt):
                start(path, 3)
        try:
            assert start(path, 3 if kept else 2) == {"ready": 3 if kept else 2}
        finally:
            supervisor.stop_site(path, say=lambda _: None)
    assert supervisor.site_status(path)["agent"] is None


def test_init_killed_anywhere_is_done_once_more(tmp_path):
    path = tmp_path / "site"
    command = [sys.executable, "-m", "vws.cli.main", "site", "init", "--dir", str(path)]
    for pause_s in (0.3, 0.6, 0.9):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(pause_s)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if not SiteDirectory(path).url.exists():
        if SiteDirectory(path).config.exists():
            with pytest.raises(Conflict, match="was cut off"):
                start(path, 1)
        supervisor.init_site(path)
    try:
        assert start(path, 1) == {"ready": 1}
    finally:
        supervisor.stop_site(path, say=lambda _: None)
