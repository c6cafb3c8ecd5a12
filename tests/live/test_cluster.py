"""The nfs example on real machines: launched, used, grown, shrunk, put to sleep and woken, ended without a trace."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.sites import RealSite, Shell
from vws.node.naming import tag_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]

POOL = '\n[pools.campus]\nrange = "198.51.100.0/24"\naddresses = ["198.51.100.16-198.51.100.17"]\n'
NFS = Path(__file__).parents[2] / "examples/nfs"
# Each hook says when it began and ended, in seconds since its machine's boot.
TIMED = """#!/bin/sh
read -r began _ </proc/uptime
trap 'read -r ended _ </proc/uptime; echo "began $began ended $ended"' EXIT
"""
# A member answers by its name, to whom knows it by its key and is known to it; its name in the cluster too.
ANSWERS = """for name in {others}; do
ssh -T root@$name hostname </dev/null && ping -c 1 $name.nfs.vws.internal >/dev/null || exit 1
grep -q "$name.nfs.vws.internal" /etc/ssh/ssh_known_hosts || exit 2
done"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[RealSite]:
    site = RealSite(tmp_path / "site")
    with site.directory.config.open("a") as config:
        config.write(POOL)
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The example, whose hooks say how long they took, with a head that can be reached."""
    folder = tmp_path / "nfs"
    shutil.copytree(NFS, folder)
    for script in (folder / "scripts").iterdir():
        script.write_text(script.read_text().replace("#!/bin/sh\n", TIMED, 1))
    file = folder / "cluster.yaml"
    text = file.read_text().replace("networks:\n", "networks:\n  outside: {public: true}\n", 1)
    text = text.replace("  head:\n", "  head:\n    networks: [private, outside]\n    address: front\n")
    file.write_text(text.replace("  worker:\n", "  worker:\n    networks: [private]\n"))
    return file


def test_the_life_of_a_cluster_with_a_file_system(
    site: RealSite, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vws = Shell(site, "nfs")
    vws("address", "reserve", "front", "--address", "198.51.100.17")
    vws("cluster", "launch", str(file), "--set", "workers=2", "--for", "20m", "--wait")
    launched = vws.ask("cluster", "show", "nfs")
    told = [overhead(vws, launched)]
    members = [member["workspace"] for member in launched["members"]]
    all_know_all(vws, ["head-1", "worker-1", "worker-2"])
    the_file_system_is_shared(vws)
    the_head_is_reached(site, vws)
    told.append(timed("grown by one", lambda: grows(vws)))
    told.append(timed("shrunk again", lambda: shrinks(vws)))
    told.append(timed("suspended and restored", lambda: sleeps_and_wakes(vws)))
    the_head_is_reached(site, vws)
    told.append(timed("ended", lambda: vws("cluster", "terminate", "nfs", "--wait")))
    assert [address["cluster"] for address in vws.ask("address", "list")] == [""], "it is reserved, and nobody's"
    assert [pool["free"] for pool in vws.ask("address", "pools")] == [1]
    site.check_nothing_is_left(len(members) + 1)
    with capsys.disabled():
        print("\nthe nfs cluster:", "; ".join(told))


def timed(what: str, step: Any) -> str:
    began = time.monotonic()
    step()
    return f"{what} in {time.monotonic() - began:.1f} s"


def overhead(vws: Shell, cluster: dict[str, Any]) -> str:
    """From the last member's boot to ready, without the hooks: the head's, then the slower worker's."""
    running = max(vws.ask("workspace", "show", m["workspace"])["running_at"] for m in cluster["members"])
    hooks = {m["name"]: took(vws.log(m["name"], "on-joined")) for m in cluster["members"]}
    hooks_s = hooks.pop("head-1") + max(hooks.values())
    ready_s = cluster["ready_at"] - cluster["created_at"]
    after_s = cluster["ready_at"] - running
    assert after_s > hooks_s > 0
    return f"ready after {ready_s:.1f} s, {after_s:.1f} s after the last boot, of which hooks {hooks_s:.1f} s"


def took(log: str) -> float:
    words = log.split()
    return float(words[words.index("ended") + 1]) - float(words[words.index("began") + 1])


def all_know_all(vws: Shell, names: list[str]) -> None:
    for member in names:
        others = [name for name in names if name != member]
        assert vws.inside(member, ANSWERS.format(others=" ".join(others))) == others


def the_file_system_is_shared(vws: Shell) -> None:
    vws.inside("head-1", "echo from the head >/srv/shared/down")
    assert vws.inside("worker-1", "cat /shared/down; echo from a worker >/shared/up") == ["from the head"]
    assert vws.inside("head-1", "cat /srv/shared/up") == ["from a worker"]
    assert vws.inside("worker-2", "cat /shared/up; grep -c 'vers=4.2' /proc/mounts") == ["from a worker", "1"]


def the_head_is_reached(site: RealSite, vws: Shell) -> None:
    """By its reserved address, from the node's namespace as from anywhere outside."""
    (address,) = vws.ask("address", "list")
    assert (address["name"], address["cluster_name"], address["member"]) == ("front", "nfs", "head-1")
    place = f"--net=/run/netns/vws-{tag_of(site.directory.node)}"
    greet = f"import socket; print(socket.create_connection(('{address['address']}', 22), 10).recv(4))"
    said = subprocess.run(["nsenter", place, sys.executable, "-c", greet], capture_output=True, text=True, check=True)
    assert said.stdout == "b'SSH-'\n"


def grows(vws: Shell) -> None:
    vws("cluster", "grow", "nfs", "worker=+1", "--wait")
    assert vws.ask("cluster", "show", "nfs")["state"] == "ready"
    assert "exported to 3 members" in vws.log("head-1", "on-changed")
    assert "mounted head-1:/srv/shared" in vws.log("worker-1", "on-changed")
    all_know_all(vws, ["head-1", "worker-3"])
    assert vws.inside("worker-3", "cat /shared/up; echo 3 >/shared/third") == ["from a worker"]
    assert vws.inside("worker-1", "cat /shared/third; cat /shared/worker-3") == ["3", "worker-3"]


def shrinks(vws: Shell) -> None:
    vws("cluster", "shrink", "nfs", "worker=-1", "--wait")
    members = vws.ask("cluster", "show", "nfs")["members"]
    assert [member["name"] for member in members] == ["head-1", "worker-1", "worker-2"]
    assert "exported to 2 members" in vws.log("head-1", "on-changed")
    assert vws.inside("worker-1", "grep -c worker-3 /etc/hosts /etc/ssh/ssh_known_hosts | cut -d : -f 2") == ["0", "0"]


def sleeps_and_wakes(vws: Shell) -> None:
    vws.inside("worker-1", "sleep 1000 >/dev/null 2>&1 </dev/null & exec 3>/shared/open; echo kept >&3")
    vws("cluster", "suspend", "nfs", "--wait")
    assert vws.ask("cluster", "show", "nfs")["state"] == "suspended"
    vws("cluster", "restore", "nfs", "--wait")
    restored = vws.ask("cluster", "show", "nfs")
    assert {member["state"] for member in restored["members"]} == {"running"}
    assert len(vws.inside("worker-1", "pidof sleep")) == 1
    assert vws.inside("worker-2", "cat /shared/open; echo awake >/shared/awake") == ["kept"]
    assert vws.inside("head-1", "cat /srv/shared/awake") == ["awake"]
    all_know_all(vws, ["head-1", "worker-2"])
