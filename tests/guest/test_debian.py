"""The Debian appliance: what is laid over Debian's files; and, if it was built (`make debian`), booted."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.guest.broker import line
from tests.guest.conftest import CACHE
from tests.guest.machine import Machine, unpack
from tests.guest.sandbox import hook
from tests.guest.test_agent_live import door, prepare
from vws.core.recipe import KERNEL_DEFAULT
from vws.factory import boot
from vws.guest import overlay

__all__ = ["door"]

BUNDLE = Path(__file__).parents[2] / "build" / "appliance" / "debian.vws"


def test_its_scripts_are_the_demo_appliances_under_the_same_shell(bundle):
    parts = boot.fetch(KERNEL_DEFAULT, (), CACHE)
    tree = overlay.overlay(parts.kernel, parts.tree, "debian 12", ("nfsd", "nfsv4"), ("clock",))
    late = tree["etc/vws/late"].data.decode()
    assert late.splitlines()[0] == "#!/bin/busybox sh"
    assert late.splitlines()[1:] == parts.tree["etc/vws/late"].data.decode().splitlines()[1:]
    assert "/usr/sbin/sshd" in tree["etc/vws/sshd"].data.decode()
    assert tree["etc/vws/sshd"].mode & 0o111
    assert tree["etc/vws/system"].data == b"debian 12\n"
    assert tree["etc/inittab"].data.endswith(b"\nnull::respawn:/etc/vws/services/clock\n")
    assert tree["usr/local/sbin/vws-context"].data.startswith(b"#!/bin/sh\n")
    modules = [Path(path).name for path in tree if path.endswith(".ko")]
    assert {"nfsd.ko", "nfsv4.ko", "sunrpc.ko", "virtio_balloon.ko"} <= set(modules)
    # Debian's own folders are links, which a folder would take the place of.
    assert not [path for path in tree if path.split("/")[0] in ("bin", "sbin", "lib", "lib64")]


@pytest.mark.soak
@pytest.mark.live
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU: make setup")
@pytest.mark.skipif(not BUNDLE.exists(), reason="no Debian appliance: make debian")
def test_it_boots_contextualises_and_outlives_a_reboot(tmp_path, broker, door):
    manifest = unpack_into(tmp_path)
    prepare(tmp_path / "parts", tmp_path, broker)
    script = "slurmd -V; munged --version; modprobe nfsd; grep nfsd /proc/filesystems; pidof sshd; echo ran >>/root/ran"
    broker.say(
        line("self", "worker-1", "worker-1.slurm"),
        line("member", "member", "worker-1", "private", "10.0.2.15", "worker-1.slurm"),
        *(line("requires", "member"), line("role", "member", "1")),
        line("hook", "provider", "worker", "on-joined", hook(script)),
    )
    with Machine(tmp_path, memory_mib=manifest["memory_mib_min"], disk_mib=1500, door=door) as machine:
        machine.wait_for("VWS: up in")
        ended = broker.wait_for_hook("on-joined", role="worker", limit_s=60)
        said = ended.body.decode()
        assert ended.query["status"] == "0", said
        assert all(word in said for word in ("slurm-wlm", "munge-", "nodev\tnfsd"))
        assert machine.output("hostname; cat /root/ran") == "worker-1\nran\n"
        machine.output("echo mine >/etc/mine")
        machine.ssh("reboot")
        deadline = time.monotonic() + 60
        while machine.said().count("VWS: up in") < 2:
            assert time.monotonic() < deadline, machine.said()[-2000:]
            time.sleep(0.1)
        broker.say(line("data", "later", "bGF0ZXI="))
        while machine.ssh("grep later /etc/vws/context/data/later").returncode:
            assert time.monotonic() < deadline, machine.said()[-2000:]
            time.sleep(0.5)
        assert machine.output("cat /etc/mine /root/ran; grep -c worker-1.slurm /etc/hosts") == "mine\nran\n1\n"
    # An answer that the reboot cut off is asked for again; the hook ran once, as the file says.
    assert len({tuple(call.query.items()) for call in broker.heard("POST ran")}) == 1


def unpack_into(folder: Path) -> dict:
    parts = folder / "parts"
    parts.mkdir()
    return unpack(BUNDLE, parts)
