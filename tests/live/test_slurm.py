"""The slurm example on real machines: launched, used, grown; put to sleep with a job, woken by a service and an agent
that were killed meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.sites import RealSite, Shell

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "build/appliance/debian.vws"
HEAD, WORKERS = "head-1", ["worker-1", "worker-2", "worker-3"]
# It begins before the cluster sleeps, and ends after.
JOB = "sbatch -D /root -o job -N{nodes} -t10 --wrap 'srun sleep 15; srun hostname'"

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not BUNDLE.exists(), reason="no Debian appliance: scripts/setup debian"),
]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[RealSite]:
    site = RealSite(tmp_path / "site")
    try:
        site.start()
        yield site
    finally:
        site.stop()


STEPS: dict[str, Callable[[Shell, RealSite], None]] = {
    "launched": lambda vws, site: launch(vws),
    "run on three": lambda vws, site: runs_on(vws, WORKERS[:2]),
    "grown": lambda vws, site: grow(vws),
    "run on four": lambda vws, site: runs_on(vws, WORKERS),
    "suspended": lambda vws, site: sleep(vws),
    "service and agent killed and started": lambda vws, site: start_anew(vws, site),
    "restored": lambda vws, site: wake(vws, site),
    "run on four again": lambda vws, site: runs_on(vws, WORKERS),
    "the job's end": lambda vws, site: the_job_has_ended(vws),
    "terminated": lambda vws, site: terminate(vws),
}
SLEEP = ("suspended", "service and agent killed and started", "restored", "run on four again", "the job's end")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([step for step in STEPS if step not in SLEEP], id="awake"),
        pytest.param(list(STEPS), id="all", marks=pytest.mark.soak),
    ],
)
def test_the_life_of_a_batch_system(site: RealSite, steps: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    vws, told = Shell(site, "slurm"), list[str]()
    vws("image", "import", str(BUNDLE), "--name", "debian")
    for step in steps:
        began = time.monotonic()
        STEPS[step](vws, site)
        told.append(f"{step} in {time.monotonic() - began:.1f} s")
    site.check_nothing_is_left(4)
    with capsys.disabled():
        print("\nthe slurm cluster:", "; ".join(told))


def launch(vws: Shell) -> None:
    file = ROOT / "examples/slurm/cluster.yaml"
    vws("cluster", "launch", str(file), "--set", "workers=2", "--for", "30m", "--wait")
    assert vws.ask("cluster", "show", "slurm")["state"] == "ready"


def runs_on(vws: Shell, workers: list[str]) -> None:
    nodes = [HEAD, *workers]
    assert sorted(vws.inside(HEAD, f"srun -t1 -N{len(nodes)} hostname")) == nodes
    states = dict(line.split() for line in vws.inside(HEAD, "sinfo -h -N -o '%N %T'"))
    assert states.keys() == set(nodes)
    assert set(states.values()) <= {"idle", "mixed", "allocated", "completing"}


def grow(vws: Shell) -> None:
    vws("cluster", "grow", "slurm", "worker=+1", "--wait")
    assert "4 nodes" in vws.log(HEAD, "on-changed")


def sleep(vws: Shell) -> None:
    vws.inside(HEAD, JOB.format(nodes=4) + "; until squeue -h -t R | grep -q .; do sleep 0.3; done")
    vws("cluster", "suspend", "slurm", "--wait")


def start_anew(vws: Shell, site: RealSite) -> None:
    site.kill()
    site.start()
    assert vws.ask("cluster", "show", "slurm")["state"] == "suspended"


def wake(vws: Shell, site: RealSite) -> None:
    """All say anew who they are, and by then have the time of day: munge knows no credential from the past."""
    time.sleep(3)
    before = joined_and_ready(site)
    vws("cluster", "restore", "slurm", "--wait")
    assert joined_and_ready(site) == before + 1
    for member in (HEAD, *WORKERS):
        (now,) = vws.inside(member, "date +%s")
        assert abs(int(now) - time.time()) < 5, member


def joined_and_ready(site: RealSite) -> int:
    with site.client() as client:
        return sum(event["kind"] == "context.ready" for event in client.events())


def the_job_has_ended(vws: Shell) -> None:
    told = vws.inside(HEAD, "while squeue -h | grep -q .; do sleep 1; done; cat /root/job")
    assert sorted(told) == [HEAD, *WORKERS]


def terminate(vws: Shell) -> None:
    vws("cluster", "terminate", "slurm", "--wait")
