"""The node's own daemons: what killed ones leave behind."""

from __future__ import annotations

import os
import socket

from vws.node.daemons import Libvirtd
from vws.node.namespace import Namespace


def test_no_socket_is_left_wherever_a_killed_libvirtd_had_one(tmp_path, monkeypatch):
    folders = [
        tmp_path / "libvirt/run/libvirt",
        tmp_path / "libvirt/lib/libvirt/qemu/qmp-abc",
        tmp_path / "libvirt/log",
    ]
    for folder in folders:
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)  # a socket's whole path must be short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("monitor.sock")
    (tmp_path / "libvirt/log/libvirtd.log").write_text("kept")
    Libvirtd(tmp_path, Namespace(f"vws-test-{os.getpid()}")).clear()
    left = [path.name for path in tmp_path.rglob("*") if not path.is_dir()]
    assert left == ["libvirtd.log"]
