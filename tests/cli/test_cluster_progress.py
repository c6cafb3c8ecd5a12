"""Waiting for clusters, and what is shown of them, against a client that talks to nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import FakeClient, Refused
from vws.cli import cluster_progress

Run = Callable[..., Result]
Json = dict[str, Any]

FILE = """
vws: cluster/1
name: slurm
parameters: {workers: {default: 8, min: 2, max: 64}}
networks: {private: {range: 10.20.0.0/24}}
groups:
  head: {image: demo, memory: 512MiB}
  worker: {image: demo, count: "${workers}", memory: 512MiB}
lease: {for: 1h}
"""
FEWER = {"kind": "fewer", "count": 3, "group": "worker", "text": "3 of worker and all others would fit now"}
LATER = {"kind": "later", "start": 3802831205, "text": "all of it would run 2h from now"}


def seen(state: str, reason: str = "") -> Json:
    context = "failed" if state == "failed" else "expected"
    members = [{"name": "head-1", "state": "running", "reason": "", "context": context}]
    return {"id": "cls-1", "name": "slurm", "state": state, "reason": reason, "members": members, "context": "ctx-1"}


class Clusters(FakeClient):
    """lives: the states that it is seen in, the last for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = [seen("configuring")]
        self.ran: list[Json] = []
        self.logs: list[Json] = []

    def cluster(self, id: str) -> Json:
        return self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]

    def _changing(self, *what: Any) -> Json:
        self._change(*what)
        return self.seen[0]

    def launch_cluster(self, **asked: Any) -> Json:
        return self._changing("launch", asked["parameters"])

    def explain_cluster(self, **asked: Any) -> Json:
        return {"fits": False, "reason": "no room", "start": None, "nodes": [], "offers": [FEWER, LATER]}

    def grow_cluster(self, *what: Any) -> Json:
        return self._changing("grow", *what)

    def shrink_cluster(self, *what: Any) -> Json:
        return self._changing("shrink", *what)

    def suspend_cluster(self, name: str) -> Json:
        return self._changing("suspend", name)

    def restore_cluster(self, name: str) -> Json:
        return self._changing("restore", name)

    def terminate_cluster(self, name: str) -> Json:
        return self._changing("terminate", name)

    def context(self, id: str) -> Json:
        return {"members": [{"name": "head-1", "state": "failed", "late": "", "waits": [], "ran": self.ran}]}

    def context_log(self, id: str, member: str) -> Json:
        return {"items": self.logs}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Clusters:
    monkeypatch.setattr(cluster_progress, "LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(cluster_progress, "MENDED_WITHIN_S", 0.05)
    monkeypatch.setattr("vws.cli.cluster.MENDED_WITHIN_S", 0.05)
    return Clusters()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE)
    return path


# ---------------------------------------------------------------- offers


def test_a_refused_launch_offers_what_the_launch_takes(vws: Run, client: Clusters, file: Path) -> None:
    nodes = [{"node": "nod-1", "name": "host-1", "reason": "it has room for some of them, not for all"}]
    client.refusal = Refused("no room", code="cannot-fit", field="groups", nodes=nodes, offers=[FEWER, LATER])
    told = vws("cluster", "launch", str(file)).stderr
    assert "would fit: 3 of worker and all others would fit now (--set workers=3)\n" in told
    assert "would fit: all of it would run 2h from now (--at 2090-" in told
    client.refusal = None
    assert vws("cluster", "launch", str(file), "--set", "workers=3", "--json").exit_code == 0
    assert client.asked[-1] == ("launch", {"workers": "3"})
    dry = vws("cluster", "launch", str(file), "--dry-run").stdout
    assert "(--set workers=3)" in dry


def test_what_no_option_changes_is_to_be_changed_in_the_file(vws: Run, client: Clusters, file: Path) -> None:
    file.write_text(FILE.replace('"${workers}"', "8"))
    client.refusal = Refused("no room", code="cannot-fit", offers=[FEWER])
    assert "(count: 3 of groups.worker in the file)" in vws("cluster", "launch", str(file)).stderr
    file.write_text(FILE.replace("min: 2", "min: 4"))
    assert "would fit now\n" in vws("cluster", "launch", str(file)).stderr, "the file does not allow so few"


def test_a_refused_growth_offers_what_growing_takes(vws: Run, client: Clusters) -> None:
    client.refusal = Refused("no room", code="cannot-fit", field="count", offers=[FEWER | {"count": 1}, LATER])
    told = vws("cluster", "grow", "slurm", "worker=+4").stderr
    assert "(vws cluster grow slurm worker=+1)" in told
    assert "run 2h from now (the same again then)" in told
    assert "kept: the cluster is as it was" in told


# ---------------------------------------------------------------- waiting


@pytest.mark.parametrize(
    "change", [["grow", "worker=+1"], ["shrink", "worker=-1"], ["suspend"], ["restore"], ["terminate"]]
)
def test_a_wait_that_runs_out_says_what_goes_on(vws: Run, client: Clusters, change: list[str]) -> None:
    command, *more = change
    done = vws("cluster", command, "slurm", *more, "--wait", "--timeout", "1s")
    assert done.exit_code == 1
    assert client.asked[0][0] == command, "it was done nevertheless"
    assert "slurm is configuring; 1 of 1 running, 0 configured still after 1s" in done.stderr
    assert "kept: it goes on without this command" in done.stderr
    assert "next: vws cluster status slurm --follow" in done.stderr


@pytest.mark.parametrize(("command", "state"), [("suspend", "suspended"), ("restore", "ready"), ("terminate", "ended")])
def test_a_wait_ends_when_it_is_so(vws: Run, client: Clusters, command: str, state: str) -> None:
    client.seen = [seen("configuring"), seen("configuring"), seen(state)]
    done = vws("cluster", command, "slurm", "--wait")
    assert done.exit_code == 0
    assert done.stdout == f"slurm is {state}; 1 of 1 running, 0 configured\n"


def test_what_was_wrong_before_a_change_is_no_failure_of_it(vws: Run, client: Clusters) -> None:
    client.seen = [seen("failed", "worker-2 is late"), seen("failed"), seen("configuring"), seen("ready")]
    assert vws("cluster", "shrink", "slurm", "worker=-1", "--wait").exit_code == 0
    client.seen = [seen("failed", "worker-2 is late")]
    done = vws("cluster", "shrink", "slurm", "worker=-1", "--wait")
    assert done.exit_code == 1
    assert "slurm is failed: worker-2 is late" in done.stderr


# ---------------------------------------------------------------- looking


def test_the_status_of_a_failed_hook_has_the_end_of_its_log(vws: Run, client: Clusters) -> None:
    hook = {"role": "head", "side": "provider", "hook": "on-joined", "status": 3, "message": "boom", "at": 1000.0}
    client.seen = [seen("configuring"), seen("failed", "head-1: on-joined of head ended with status 3")]
    client.ran = [hook, hook | {"role": "nfs", "status": 0}]
    client.logs = [
        {"role": "head", "side": "provider", "hook": "on-joined", "log": "".join(f"line\t{n}\n" for n in range(1, 31))},
        {"role": "nfs", "side": "provider", "hook": "on-joined", "log": "all well\n"},
    ]
    told = vws("cluster", "status", "slurm", "--follow").stdout.splitlines()
    tail = [line.strip() for line in told if "|" in line]
    assert tail == [f"| line    {number}" for number in range(21, 31)]
    assert told[-1].strip() == "the whole log: vws cluster log slurm head-1"
    (member,) = json.loads(vws("cluster", "status", "slurm", "--json").stdout)["context_members"]
    assert member["ran"][0]["log_tail"][-1] == "line\t30"
    assert "log_tail" not in member["ran"][1]


# ---------------------------------------------------------------- from Nimbus


def test_an_import_for_programs_has_the_file_and_what_to_know_of_it(vws: Run, client: Clusters, tmp_path: Path) -> None:
    document, out = tmp_path / "old.xml", tmp_path / "new.yaml"
    document.write_text(
        '<cluster xmlns="http://www.globus.org/2008/12/nimbus/ctxdescription"><workspace><name>one</name>'
        "<image>demo.gz</image><quantity>2</quantity><nic>private</nic><ctx><provides><identity/></provides>"
        "<requires><identity/></requires></ctx></workspace></cluster>"
    )
    done = vws("cluster", "import", str(document), "--out", str(out), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["file"] == out.read_text()
    assert "count: 2" in told["file"]
    assert told["out"] == str(out)
    assert told["notes"]
    assert vws("cluster", "import", str(document)).stdout == told["file"].replace("name: new", "name: old")


def test_what_is_wrong_with_a_member_that_runs_is_told_with_the_status():
    found = seen("ready")
    found["members"][0]["reason"] = "the disk data could not be prepared: this machine has no mkfs.xfs"
    assert list(cluster_progress.members_progress(found, [])) == [
        "  head-1: the disk data could not be prepared: this machine has no mkfs.xfs"
    ]
