"""The demo appliance, booted: what a user and the node agent rely on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.machine import Machine, copy_parts, make_key, make_seed

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU: make setup"),
]


def prepare(parts: Path, folder: Path, *, rock_ridge: bool = True, host_key: str | None = None) -> Path:
    """The appliance, keys and a NoCloud disk in `folder`."""
    copy_parts(parts, folder)
    make_key(folder / "host")
    files = {
        "meta-data": "instance-id: wsp-1\nlocal-hostname: from-meta-data\n",
        "vws/hostname": "worker-1\n",
        "vws/authorized_keys": make_key(folder / "user"),
        "vws/ssh_host_ed25519_key": host_key or (folder / "host").read_text(),
        "vws/env": "VWS_LEASE=lse-1\nVWS_QUOTED='two words'\nVWS_BASE64=YQ==\n$(touch /tmp/run)=x\n",
    }
    make_seed(folder / "seed.iso", files, rock_ridge=rock_ridge)
    return folder


@pytest.fixture(scope="module")
def machine(parts, tmp_path_factory) -> Iterator[Machine]:
    with Machine(prepare(parts, tmp_path_factory.mktemp("machine"))) as machine:
        machine.wait_for("VWS: up in")
        yield machine


def test_root_logs_in_with_the_injected_key_to_the_injected_identity(machine):
    # Strict checking against the injected host key alone: another key would refuse the connection.
    assert machine.output("id -un; hostname").split() == ["root", "worker-1"]


def test_another_key_or_a_password_is_refused(machine):
    make_key(machine.folder / "stranger")
    refused = machine.ssh("id", key="stranger")
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr


def test_another_identity_would_be_noticed(machine):
    make_key(machine.folder / "other")
    public = (machine.folder / "other.pub").read_text()
    refused = machine.ssh("id", known_hosts=f"[127.0.0.1]:2222 {public}")
    assert refused.returncode == 255


def test_the_data_disk_is_grown_to_the_overlay(machine):
    deadline = time.monotonic() + 20
    size_mib = 0
    while size_mib < 220 and time.monotonic() < deadline:
        size_mib = int(machine.output("df -m /data | tail -1 | awk '{print $2}'"))
        time.sleep(0.2)
    assert 220 <= size_mib <= 256
    assert machine.output("echo kept >/data/file && cat /data/file") == "kept\n"


def test_tools_are_there_and_read_only(machine):
    assert machine.output("curl --version").startswith("curl ")
    certificates = machine.output("grep -c BEGIN /etc/ssl/certs/ca-certificates.crt")
    assert int(certificates) > 100
    assert machine.ssh("touch /usr/bin/x").returncode != 0


def test_login_shells_know_the_lease(machine):
    shown = machine.output("sh -lc 'echo \"$VWS_LEASE|$VWS_QUOTED|$VWS_BASE64\"'; ls /tmp")
    assert shown == "lse-1|two words|YQ==\n"


def test_network_comes_from_dhcp(machine):
    assert "default via 10.0.2.2 dev eth0" in machine.output("ip route")
    assert "nameserver 10.0.2.3" in machine.output("cat /etc/resolv.conf")


def test_drivers_of_later_promises_are_loaded(machine):
    deadline = time.monotonic() + 20
    wanted = {"virtio_balloon", "virtio_rng", "virtio_console", "virtio_net", "virtio_blk", "button", "pvpanic_mmio"}
    loaded: set[str] = set()
    while not wanted <= loaded and time.monotonic() < deadline:
        loaded = set(machine.output("cut -d' ' -f1 /proc/modules").split())
    assert wanted <= loaded


NFS = """
set -e
mkdir -p /srv/shared /etc/exports.d /shared
mount -t tmpfs shared /srv/shared
echo '/srv/shared 127.0.0.1(rw,fsid=7,no_subtree_check,no_root_squash)' >/etc/exports.d/own.exports
modprobe nfsd
mount -t nfsd nfsd /proc/fs/nfsd
rpc.mountd --no-nfs-version 3
rpc.nfsd --no-nfs-version 3 2
echo Y >/proc/fs/nfsd/v4_end_grace
exportfs -ra
mount -t nfs4 -o vers=4.2 127.0.0.1:/srv/shared /shared
echo one >/shared/file && cat /srv/shared/file && grep -o vers=4.2 /proc/mounts
umount /shared && rpc.nfsd 0 && killall rpc.mountd
"""


def test_it_serves_and_mounts_nfs(machine):
    """By the drivers of its disk, which the kernel asks modprobe for."""
    assert machine.output(NFS) == "one\nvers=4.2\n"


def test_daemons_that_die_are_started_again_and_orphans_reaped(machine):
    before = machine.output("pidof udhcpc")
    machine.output("killall udhcpc; sh -c 'sleep 0.1 &' ; sleep 3")
    assert machine.output("pidof udhcpc") not in ("", before)
    assert "default via" in machine.output("ip route")
    assert "Z" not in machine.output("awk '{print $3}' /proc/[0-9]*/stat 2>/dev/null").split()


@pytest.mark.soak
def test_a_machine_suspended_to_disk_goes_on_and_gets_its_time_right(parts, tmp_path):
    state = tmp_path / "state"
    with Machine(prepare(parts, tmp_path)) as machine:
        machine.wait_for("VWS: up in")
        machine.output("sleep 1000 >/dev/null 2>&1 </dev/null & echo kept >/data/file; while ! pidof clock; do :; done")
        uptime_s = float(machine.output("cut -d' ' -f1 /proc/uptime"))
        machine.suspend_to(state)
    time.sleep(4)
    with Machine(tmp_path, resume_from=state) as machine:
        machine.wait_for_ssh()
        assert uptime_s < float(machine.output("cut -d' ' -f1 /proc/uptime")) < uptime_s + 20
        assert machine.output("cat /data/file; pidof sleep").startswith("kept\n")
        deadline = time.monotonic() + 25
        behind_s = 99.0
        while behind_s > 2.5 and time.monotonic() < deadline:
            behind_s = abs(time.time() - int(machine.output("date +%s")))
            time.sleep(0.5)
    assert behind_s <= 2.5


def test_the_power_button_powers_off_soon(parts, tmp_path):
    with Machine(prepare(parts, tmp_path)) as machine:
        machine.wait_for("VWS: up in")
        machine.output("echo mine >/data/file; while ! pidof acpid; do usleep 50000; done")
        pressed = time.monotonic()
        events = machine.events_until_end("system_powerdown")
        assert machine.process.wait(10) == 0
        took_s = time.monotonic() - pressed
    assert "SHUTDOWN" in events
    assert took_s < 5, f"{took_s:.1f} s"  # 0.4 s on an idle machine


@pytest.mark.soak
def test_reboot_and_poweroff_inside_and_data_outlives_a_reboot(parts, tmp_path):
    with Machine(prepare(parts, tmp_path)) as machine:
        machine.wait_for("VWS: up in")
        machine.output("echo kept >/data/file")
        machine.ssh("reboot")
        deadline = time.monotonic() + 40
        while machine.said().count("VWS: up in") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert machine.output("cat /data/file; hostname") == "kept\nworker-1\n"
        machine.ssh("poweroff")
        assert machine.process.wait(20) == 0


@pytest.mark.soak
def test_a_panic_is_seen_outside(parts, tmp_path):
    with Machine(prepare(parts, tmp_path)) as machine:
        machine.wait_for("VWS: up in")
        machine.output("while ! [ -d /sys/module/pvpanic_mmio ]; do usleep 50000; done")
        machine.ssh("(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &")
        events = machine.events_until_end()
    assert "GUEST_PANICKED" in events


@pytest.mark.soak
def test_a_seed_in_a_cd_drive_with_joliet_names(parts, tmp_path):
    with Machine(prepare(parts, tmp_path, rock_ridge=False), seed_as="cdrom", machine="pc") as machine:
        machine.wait_for("VWS: up in")
        assert machine.output("hostname") == "worker-1\n"


def test_without_a_seed_the_console_says_why_nobody_can_log_in(parts, tmp_path):
    prepare(parts, tmp_path)
    (tmp_path / "seed.iso").write_bytes(bytes(1 << 16))
    with Machine(tmp_path) as machine:
        machine.wait_for("there is no NoCloud disk")
        machine.wait_for("VWS: up in")


@pytest.mark.soak
def test_it_boots_in_the_memory_that_it_asks_for(parts, tmp_path):
    manifest = json.loads((parts / "appliance.json").read_text())
    with Machine(prepare(parts, tmp_path), memory_mib=manifest["memory_mib_min"]) as machine:
        machine.wait_for("VWS: up in")
        assert machine.output("curl --version").startswith("curl ")


def test_a_broken_host_key_is_said_and_replaced(parts, tmp_path):
    prepare(parts, tmp_path, host_key="not a key\n")
    with Machine(tmp_path) as machine:
        machine.wait_for("the ssh host key on the NoCloud disk cannot be read")
        machine.wait_for("VWS: up in")
        assert machine.ssh("id").returncode == 255  # it is not the identity that was promised
