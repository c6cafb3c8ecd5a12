"""A production node in small: the machine's own libvirtd and network. test_host_mode.py runs it in namespaces.

`host_mode.py DIRECTORY BUNDLE`: DIRECTORY stands for the machine's /etc, /run and /var as far as libvirt goes.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.hypervisors import LibvirtSite, boot, seen, until, until_up
from vws.core.deployment import NetworkOrder, NicOrder, WorkspaceOrder
from vws.core.lifecycle import Observation
from vws.node.config import NodeConfig
from vws.node.daemons import QEMU_USER

QEMU_CONF = 'security_driver = "none"\nnamespaces = []\n'


class HostSite(LibvirtSite):
    def __init__(self, directory: Path, bundle: Path) -> None:
        super().__init__(directory, bundle, NodeConfig(isolation="host"))
        self.enter = ()  # this process is there already

    def pid(self, id: str) -> int:
        return int(Path(f"/run/libvirt/qemu/vws-{id}.pid").read_text())


def become_a_machine(directory: Path) -> list[int]:
    """Give libvirt's fixed paths folders of this test, and start its daemons; their pids."""
    for name, place in (
        ("etc", "/etc/libvirt"),
        ("lib", "/var/lib/libvirt"),
        ("log", "/var/log/libvirt"),
        ("cache", "/var/cache/libvirt"),
        ("run", "/run"),
    ):
        (directory / name).mkdir(mode=0o755)
        subprocess.run(["mount", "--bind", directory / name, place], check=True)
    accounts = directory / "passwd"
    accounts.write_text(Path("/etc/passwd").read_text() + f"{QEMU_USER}:x:64055:64055::/:/usr/sbin/nologin\n")
    groups = directory / "group"
    groups.write_text(Path("/etc/group").read_text() + f"{QEMU_USER}:x:64055:\n")
    subprocess.run(["mount", "--bind", accounts, "/etc/passwd"], check=True)
    subprocess.run(["mount", "--bind", groups, "/etc/group"], check=True)
    if Path("/dev/kvm").exists():  # else libvirt examines, at each definition, a device that QEMU may not open
        os.mknod("/run/kvm", stat.S_IFCHR | 0o666, Path("/dev/kvm").stat().st_rdev)
        os.chmod("/run/kvm", 0o666)
        subprocess.run(["mount", "--bind", "/run/kvm", "/dev/kvm"], check=True)
    Path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF)
    Path("/etc/libvirt/libvirtd.conf").write_text('auth_unix_rw = "none"\n')
    Path("/run/libvirt").mkdir(mode=0o755)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for daemon in ("virtlogd", "libvirtd"):
        subprocess.run([daemon, "-d", "-p", f"/run/libvirt/{daemon}.pid"], check=True)
    return [int(Path(f"/run/libvirt/{daemon}.pid").read_text()) for daemon in ("libvirtd", "virtlogd")]


NETWORK = NetworkOrder("net-1", "10.20.0.0/24", "10.20.0.1", outgoing=True)


def on_two_networks(site: HostSite, boots: int = 1) -> WorkspaceOrder:
    order = site.order("wsp-1", boots=boots)
    private = NicOrder(NETWORK.id, "02:77:14:00:00:02", "10.20.0.2")
    return replace(order, nics=(NicOrder("", order.mac, order.address), private))


async def live(site: HostSite) -> None:
    order = on_two_networks(site)
    async with site.opened() as hypervisor:
        await hypervisor.open(replace(site.orders, networks=(NETWORK,)))
        await boot(hypervisor, site, order)
        await site.run(order, "until ip address show dev eth1 | grep -q 10.20.0.2; do sleep 0.1; done")
        assert "1 packets received" in await site.run(order, f"ping -c 1 -W 5 {NETWORK.gateway}")
        there = await seen(hypervisor, order.id)
        assert there is not None
        assert (await site.run(order, "hostname", there.host_key)).strip() == order.name
        assert Path(f"/proc/{site.pid(order.id)}").stat().st_uid == 64055
        await hypervisor.resize(replace(order, cpus=2))
        await hypervisor.suspend(order.id)
        await until(hypervisor, order.id, Observation.SUSPENDED)
        await hypervisor.restore(order)
        await until_up(hypervisor, order)
        await hypervisor.stop(order.id, grace_s=10)
        await until(hypervisor, order.id, Observation.STOPPED)
        await hypervisor.start(on_two_networks(site, boots=2))
        await hypervisor.remove(order.id)
        assert await hypervisor.instances() == []
        await hypervisor.close(tear_down=True)
    assert [link["ifname"] for link in json.loads(subprocess.check_output(["ip", "-json", "link"]))] == ["lo"]
    assert subprocess.check_output(["nft", "list", "ruleset"]) == b""
    assert site.remains() == set()


def main() -> None:
    directory, bundle = Path(sys.argv[1]), Path(sys.argv[2])
    (directory / "machine").mkdir(mode=0o755)
    daemons = become_a_machine(directory / "machine")
    try:
        asyncio.run(live(HostSite(directory / "site", bundle)))
        print("it lived")
    finally:
        subprocess.run(["kill", *map(str, daemons)], check=False)


if __name__ == "__main__":
    main()
