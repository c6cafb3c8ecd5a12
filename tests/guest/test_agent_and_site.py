"""Agents before a real site: the service in a process of its own, which is killed while they are at work."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.site import SiteUnderFire
from tests.guest.sandbox import Sandbox, encoded, hook
from vws.guest.delivery import DIRECT, Contact, told

pytestmark = pytest.mark.live

NAMES = ("head-1", "worker-1", "worker-2")
HEAD = """
test -e $VWS_ROOT/slow && sleep 2
echo $(vws-members worker | cut -d' ' -f1) >$VWS_ROOT/workers
printf 'a key' | vws-publish munge-key
printf 'noise \\000\\377'
"""
WORKER = 'cmp "$VWS_CONTEXT/values/munge-key" "$VWS_CONTEXT/data/expected" && echo same'
CLIENT = "vws-members head >$VWS_ROOT/head; cat $VWS_ROOT/etc/slurm.conf"


def hooks(**by_name: str) -> list[dict[str, str]]:
    return [{"hook": name.replace("_", "-"), "content_base64": hook(script)} for name, script in by_name.items()]


CONTEXT = {
    "name": "lab",
    "within_s": 60,
    "roles": [
        {
            "name": "head",
            "provider": {"hooks": hooks(on_joined=HEAD)},
            "client": {
                "hooks": hooks(on_joined=CLIENT),
                "files": [{"path": "/etc/slurm.conf", "content_base64": encoded(b"Name=x\n"), "mode": "0644"}],
            },
            "publishes": [{"name": "munge-key", "secret": True}],
        },
        {"name": "worker", "provider": {"hooks": hooks(on_joined=WORKER), "after": ["head"], "uses": ["munge-key"]}},
    ],
    "data": [{"name": "expected", "content_base64": encoded(b"a key")}],
    "members": [
        {"name": "head-1", "provides": ["head"], "requires": ["worker"]},
        {"name": "worker-1", "provides": ["worker"], "requires": ["head"]},
        {"name": "worker-2", "provides": ["worker"], "requires": ["head"]},
    ],
}


class Lab:
    """A context of three machines that the site did not boot, under both shells."""

    def __init__(self, folder: Path) -> None:
        self.site = SiteUnderFire(folder / "site", nodes=1)
        self.site.keep_up()
        directory = self.site.directory.path
        self.http = httpx.Client(
            base_url=(directory / "url").read_text().strip(),
            headers={"Authorization": f"Bearer {(directory / 'admin.token').read_text().strip()}"},
            verify=ssl.create_default_context(cafile=str(directory / "ca.crt")),
            trust_env=False,
        )
        answer = self.http.post("/v1/contexts", json=CONTEXT)
        assert answer.status_code == 201, answer.text
        self.made = answer.json()
        self.machines = {name: self.machine(folder / name, name, at) for at, name in enumerate(NAMES)}

    def machine(self, folder: Path, name: str, at: int) -> Sandbox:
        folder.mkdir()
        machine = Sandbox(folder, "busybox" if at % 2 else "dash", None)
        machine.pretend(f"uname() {{ echo {name}; }}\n")
        machine.addresses(eth0=f"10.0.0.{at + 1}")
        key = machine.root / "etc/ssh/ssh_host_ed25519_key"
        key.with_suffix(".pub").unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        secret = next(each["secret"] for each in self.made["secrets"] if each["name"] == name)
        contact = Contact(self.made["url"], secret, self.made["ca_pem"], {"*": "lab"}, connect_to=DIRECT)
        machine.give(told(contact))
        return machine

    def status(self) -> dict[str, Any]:
        answer = self.http.get("/v1/contexts/lab")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def until(self, so: Callable[[dict[str, Any]], bool], limit_s: float = 60) -> dict[str, Any]:
        deadline = time.monotonic() + limit_s
        while not so(status := self.status()):
            assert time.monotonic() < deadline, [status, *(m.said.read_text() for m in self.machines.values())]
            time.sleep(0.05)
        return status

    def close(self) -> None:
        for machine in self.machines.values():
            machine.power_off()
        self.http.close()
        self.site.stop()


@pytest.fixture
def lab(tmp_path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def test_three_machines_become_a_cluster_although_the_service_is_killed_at_work(lab):
    head = lab.machines["head-1"]
    (head.root / "slow").touch()
    began = [machine.start() for machine in lab.machines.values()]
    deadline = time.monotonic() + 30
    while not (head.root / "run/vws-context/hook").exists():
        assert time.monotonic() < deadline, head.said.read_text()
        time.sleep(0.02)
    lab.site.kill("service")
    time.sleep(2.5)
    lab.site.keep_up()
    status = lab.until(lambda status: status["state"] == "ready")
    assert {member["name"]: member["state"] for member in status["members"]} == dict.fromkeys(NAMES, "ready")
    assert head.read("workers") == "worker-1 worker-2\n"
    worker = lab.machines["worker-1"]
    assert worker.read("head").split()[:2] == ["head-1", "10.0.0.1"]
    assert worker.read("etc/hosts").splitlines()[1].startswith("10.0.0.1 head-1.")
    for machine in lab.machines.values():
        for other in NAMES:
            assert machine.read("root/.ssh/known_hosts").count(f"\n{other} ssh-ed25519 ") == 1
            key = " ".join(lab.machines[other].read("root/.ssh/id_ed25519.pub").split()[:2])
            assert key in machine.read("root/.ssh/authorized_keys")
    logs = lab.http.get("/v1/contexts/lab/members/worker-1/log").json()["items"]
    assert {(each["role"], each["side"], each["log"]) for each in logs} == {
        ("head", "client", "Name=x\n"),
        ("worker", "provider", "same\n"),
    }
    assert lab.http.delete(f"/v1/contexts/{status['id']}").status_code < 300
    assert [process.wait(20) for process in began] == [0, 0, 0]


def test_a_secret_that_was_used_makes_no_second_member(lab):
    first = lab.machines["head-1"]
    first.start()
    lab.until(lambda status: any(member["joined_at"] for member in status["members"]))
    thief = lab.machines["worker-1"]
    (thief.seed / "secret").write_text((first.seed / "secret").read_text())
    thief.start()
    deadline = time.monotonic() + 20
    while "secret-used" not in (thief.said.read_text() if thief.said.exists() else ""):
        assert time.monotonic() < deadline, thief.said.read_text()
        time.sleep(0.05)
    assert not (thief.state / "known").exists()
    assert "secret" not in thief.said.read_text().replace("secret-used", "").replace("the secret of head-1", "")
