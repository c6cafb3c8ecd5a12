"""The agent in the demo appliance, booted: joins by the node's door, runs hooks, makes a disk, and is the same after a
reboot, although its root is new then."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.broker import NAME, SECRET, Broker, line
from tests.guest.machine import Machine, copy_parts, make_key, make_seed
from tests.guest.sandbox import hook
from vws.guest import delivery
from vws.guest.delivery import Contact, Disk

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU: make setup"),
]

# QEMU joins each connection to a program's stdin and stdout; sockets of files are the same in all network namespaces.
BRIDGE = """
import os, socket, sys, threading
with socket.socket(socket.AF_UNIX) as broker:
    broker.connect(sys.argv[1])
    def down():
        while data := broker.recv(65536):
            os.write(1, data)
        os._exit(0)
    threading.Thread(target=down, daemon=True).start()
    while data := os.read(0, 65536):
        broker.sendall(data)
"""


def join(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(65536):
            other.sendall(data)
    except OSError:
        pass
    for each in (one, other):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


@pytest.fixture
def door(broker, tmp_path) -> Iterator[str]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "door"))
    listener.listen(64)

    def serve() -> None:
        while True:
            try:
                guest, _ = listener.accept()
            except OSError:
                return
            ahead = socket.create_connection(("127.0.0.1", broker.port))
            for pair in ((guest, ahead), (ahead, guest)):
                threading.Thread(target=join, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    (tmp_path / "bridge.py").write_text(BRIDGE)
    yield f"{sys.executable} {tmp_path}/bridge.py {tmp_path}/door"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def prepare(parts: Path, folder: Path, broker: Broker, mac: str = "52:54:00:12:34:56") -> None:
    copy_parts(parts, folder)
    make_key(folder / "host")
    contact = Contact(
        url=f"https://{NAME}:8443",
        secret=SECRET,
        ca_pem=(broker.certificate / "cert.pem").read_text(),
        networks={mac: "private"},
        disks=(Disk("scratch", "ext4", "scratch", "/scratch"),),
        connect_to="::10.0.2.100:443",
    )
    files = {
        "vws/hostname": "worker-1\n",
        "vws/env": "VWS_WORKSPACE=wsp-1\n",
        "vws/authorized_keys": make_key(folder / "user"),
        "vws/ssh_host_ed25519_key": (folder / "host").read_text(),
        **delivery.seed_files(contact),
    }
    make_seed(folder / "seed.iso", files)
    with (folder / "blank").open("wb") as blank:
        blank.truncate(64 << 20)


def test_a_booted_appliance_joins_runs_its_hooks_and_is_the_same_after_a_reboot(parts, tmp_path, broker, door):
    prepare(parts, tmp_path, broker)
    broker.say(
        line("self", "worker-1", "worker-1.slurm"),
        line("member", "member", "worker-1", "private", "10.0.2.15", "worker-1.slurm"),
        line("member", "member", "head-1", "private", "10.0.2.99", "head-1.slurm"),
        line("host-key", "head-1", (tmp_path / "host.pub").read_text().strip()),
        line("requires", "member"),
        line("role", "member", "1"),
        line("hook", "provider", "worker", "on-joined", hook("vws-members member; df /scratch; id -un")),
    )
    blank = f"file={tmp_path / 'blank'},format=raw,if=none,id=blank"
    more = ["-drive", blank, "-device", "virtio-blk-pci,drive=blank,serial=vws-scratch"]
    with Machine(tmp_path, memory_mib=128, door=door, more=more) as machine:
        up_s = machine.wait_for("VWS: up in")
        ended = broker.wait_for_hook("on-joined", role="worker", limit_s=40)
        took_s = ended.at - machine.started - up_s
        (reported,) = broker.heard("PUT identity")
        said = ended.body.decode()
        assert ended.query["status"] == "0", said
        assert said.splitlines()[0] == "worker-1 10.0.2.15 worker-1.slurm"
        assert "/scratch" in said
        identity = reported.body.decode().splitlines()
        host = " ".join((tmp_path / "host.pub").read_text().split()[:2])
        assert identity[:3] == ["nic\tprivate\t10.0.2.15\t52:54:00:12:34:56", "name\tworker-1", f"host-key\t{host}"]
        assert "10.0.2.99 head-1.slurm head-1" in machine.output("cat /etc/hosts").splitlines()
        assert machine.output("echo kept >/scratch/file; dropbearkey -y -f /root/.ssh/id_dropbear").count(
            identity[3].removeprefix("user-key\t")
        )
        machine.ssh("reboot")
        again = broker.wait_for_hook("on-joined", role="worker", count=2, limit_s=120)
        assert again.query["status"] == "0"
        assert machine.output("cat /scratch/file") == "kept\n"
        assert len(set(broker.tokens)) == 1
        assert {call.body for call in broker.heard("PUT identity")} == {reported.body}
    print(json.dumps({"from_up_to_hook_ended_s": round(took_s, 2)}))
    assert took_s < 15
