"""What `make demo` runs once everything is installed: the life of a lease, then of a cluster, by the same commands
that a user types.

    scripts/demo            leases three virtual machines, uses them, gives them back; launches a cluster whose workers
                            share its head's file system, runs a job on it, ends it; stops the site
    KEEP=1 scripts/demo     leaves the site and the cluster running and says how to reach them
    VWS_DIR=DIR             the site's directory (build/demo-site)

It may be run again at any time. What an interrupted run left behind is ended first; what KEEP=1 kept is left
alone, and so is a site that ran already. Ctrl-C gives everything back before it ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from vws.node.namespace import Namespace
from vws.node.naming import tag_of

ROOT = Path(__file__).resolve().parents[1]
VWS = ROOT / ".venv/bin/vws"
APPLIANCE = ROOT / "build/appliance/demo.vws"
CLUSTER = ROOT / "examples/nfs/cluster.yaml"
SITE = Path(os.environ.get("VWS_DIR") or ROOT / "build/demo-site").absolute()
KEEP = os.environ.get("KEEP", "") not in ("", "0", "no")
# Says that the cluster `demo` was left on purpose.
KEPT = SITE / "demo.kept"
# Says that the site was started by this, so that this may stop it.
STARTED = SITE / "demo.started"

COUNT = 3
SIZE = ["--cpus", "1", "--memory", "160MiB", "--disk", "1GiB"]
WORKERS = 3
HELLO = 'echo "I am $(hostname), Linux $(uname -r), $(nproc) CPU, up for $(cut -d. -f1 /proc/uptime) s"'
# In the head. The workers have its /srv/shared as /shared.
JOB = """
for worker in $(/etc/vws/context/bin/vws-members nfs-client | cut -d ' ' -f 1); do
    ssh $worker 'echo "I am $(hostname), and this is a file of $(cut -d : -f 1 /etc/fstab)" >/shared/job.$(hostname)' &
done
wait
cat /srv/shared/job.*
"""


class Stop(Exception):
    """A step failed; the command has said why on stderr."""


# ---------------------------------------------------------------- telling and timing


def paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def heading(text: str) -> None:
    print("\n" + paint(f"== {text}", "1"), flush=True)


class Times:
    """The seconds that each step took, in order."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.steps: list[tuple[str, float]] = []

    def measure(self, step: str, arguments: list[str], show: bool = True) -> str:
        begun = time.monotonic()
        output = vws(*arguments, show=show)
        self.steps.append((step, time.monotonic() - begun))
        return output

    @property
    def total_s(self) -> float:
        return time.monotonic() - self.start


# ---------------------------------------------------------------- running vws


def vws(*arguments: str, show: bool = True) -> str:
    """Run `vws ARGUMENTS`. show: let it write to the screen (and return nothing); else return what it printed."""
    if show:
        print(paint(f"$ vws {shlex.join(arguments)}", "36"), flush=True)
    done = subprocess.run([str(VWS), *arguments], stdout=None if show else subprocess.PIPE, text=True, check=False)
    if done.returncode < 0 or done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode != 0:
        raise Stop(f"`vws {' '.join(arguments)}` ended with status {done.returncode}")
    return done.stdout or ""


def ask(*arguments: str) -> object:
    return json.loads(vws(*arguments, "--json", show=False))


# ---------------------------------------------------------------- the steps


def prepare() -> None:
    """What must be there; become root, which a real node needs."""
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise Stop("a node that runs virtual machines needs root, and there is no sudo: run this as root")
        print("A node that runs virtual machines needs root: going on with sudo.", flush=True)
        os.execvp(
            "sudo", ["sudo", f"VWS_DIR={SITE}", f"KEEP={int(KEEP)}", sys.executable, str(Path(__file__).resolve())]
        )
    # Everything below finds the site by this, as a user's shell would.
    os.environ["VWS_DIR"] = str(SITE)
    for name in ("VWS_URL", "VWS_TOKEN", "VWS_CA"):
        os.environ.pop(name, None)


def site_runs() -> bool:
    if not (SITE / "site.toml").exists():
        return False
    command = [str(VWS), "site", "status", "--json"]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def start_site(times: Times) -> str:
    """The name of the image."""
    heading("A site: its service, its store, this machine as its node")
    if not (SITE / "site.toml").exists():
        times.measure("make the site", ["site", "init", "--name", "demo"])
    if not site_runs():
        STARTED.touch()
    times.measure("start the site", ["site", "start", "--detach"])
    vws("node", "list")
    with APPLIANCE.open("rb") as bundle:
        sha256 = hashlib.file_digest(bundle, "sha256").hexdigest()
    images = {image["sha256"]: image["name"] for image in ask("image", "list")}  # type: ignore[attr-defined]
    if sha256 not in images:
        # A site of an earlier run has the appliance of that time.
        images[sha256] = f"demo-{sha256[:8]}" if "demo" in images.values() else "demo"
        times.measure("import the image", ["image", "import", str(APPLIANCE), "--name", images[sha256]])
    vws("image", "list")
    return str(images[sha256])


def live_leases() -> list[str]:
    return [lease["name"] for lease in ask("lease", "list")]  # type: ignore[attr-defined]


def choose_name() -> str:
    """`demo`, unless KEEP=1 kept a cluster of that name; what an interrupted run left is ended.

    Of a cluster that is the lease of its launch, with which it ends.
    """
    names = live_leases()
    kept = KEPT.exists() and "demo" in names
    for name in ("demo-again",) if kept else ("demo", "demo-again"):
        if name in names:
            print(f"An interrupted run left the lease {name}; it is ended first.")
            vws("lease", "cancel", name, "--wait")
    if not kept:
        KEPT.unlink(missing_ok=True)
    return "demo-again" if kept else "demo"


def lease_machines(times: Times, name: str, image: str) -> dict[str, object]:
    heading(f"A lease: {COUNT} virtual machines for ten minutes")
    request = ["lease", "request", "--name", name, "--image", image, "-n", str(COUNT), *SIZE, "--for", "10m", "--wait"]
    times.measure(f"lease {COUNT} machines, until all run", request)
    lease = ask("lease", "show", name)
    assert isinstance(lease, dict)
    return lease


def use_machines(times: Times, names: list[str]) -> None:
    heading("A command in each, by ssh through the site")
    begun = time.monotonic()
    for name in names:
        vws("ssh", name, "--", HELLO)
    times.steps.append((f"a command in each of {len(names)} over ssh", time.monotonic() - begun))


def give_back(times: Times, name: str) -> None:
    heading("Give it back")
    times.measure("cancel the lease, until nothing is left", ["lease", "cancel", name, "--wait"])
    vws("workspace", "list")
    check_given_back(name)


def check_given_back(name: str) -> None:
    left = [w["name"] for w in ask("lease", "show", name)["workspaces"] if w["released_at"] is None]  # type: ignore[index]
    if left:
        raise Stop(f"the site still holds {', '.join(left)}")
    if not live_leases():
        show_nothing_left(on_node())


def launch_cluster(times: Times, name: str, image: str) -> list[dict[str, str]]:
    heading(f"A cluster: a head with a file system, {WORKERS} workers that mount it")
    file = str(CLUSTER.relative_to(Path.cwd())) if CLUSTER.is_relative_to(Path.cwd()) else str(CLUSTER)
    request = [
        "cluster",
        "launch",
        file,
        "--name",
        name,
        "--set",
        f"workers={WORKERS}",
        "--set",
        f"image={image}",
        "--for",
        "10m",
        "--wait",
    ]
    times.measure(f"launch a cluster of {1 + WORKERS}, until all hooks have ended", request)
    vws("cluster", "status", name)
    cluster = ask("cluster", "show", name)
    assert isinstance(cluster, dict)
    return list(cluster["members"])


def run_job(times: Times, name: str, workers: list[str]) -> None:
    heading("A job on the workers, by ssh from the head")
    print(paint(f'$ cat job\n{JOB.strip()}\n$ vws cluster ssh {name} head-1 -- "$(cat job)"', "36"), flush=True)
    told = times.measure(f"a job on {len(workers)} workers", ["cluster", "ssh", name, "head-1", "--", JOB], show=False)
    print(told, end="", flush=True)
    missing = [worker for worker in workers if f"I am {worker}, and this is a file of head-1" not in told]
    if missing:
        raise Stop(f"the job says nothing of {', '.join(missing)}")


def end_cluster(times: Times, name: str) -> None:
    heading("End it")
    times.measure("terminate the cluster, until nothing is left", ["cluster", "terminate", name, "--wait"])
    check_given_back(name)


def rooms() -> list[Path]:
    """The namespaces of clusters' networks."""
    return list(Path("/run/netns").glob(f"vws-{tag_of(SITE / 'node')}-*"))


def on_node() -> dict[str, int]:
    """What this machine has of the node's workspaces, counted where it would be, without asking VWS."""
    node = SITE / "node"
    pids = Namespace(f"vws-{tag_of(node)}").processes()
    return {
        "virtual machines (QEMU processes)": sum("qemu" in program_of(pid) for pid in pids),
        "disks and seeds (node/workspaces)": files_in(node / "workspaces"),
        "addresses and names (node/network)": files_in(node / "network/addresses") + files_in(node / "network/names"),
        "networks of clusters (namespaces)": len(rooms()),
    }


def program_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def files_in(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def after_stop() -> dict[str, int]:
    place = Namespace(f"vws-{tag_of(SITE / 'node')}")
    mine = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(SITE) in line]
    return {
        f"the node's network namespace ({place.name})": int(place.exists),
        "networks of clusters (namespaces)": len(rooms()),
        "processes in it": len(place.processes()),
        "mounts": len(mine),
        "process ids of service and agent": sum((SITE / name).exists() for name in ("service.pid", "agent.pid")),
    }


def show_nothing_left(counts: dict[str, int]) -> None:
    print("Left on this machine:")
    for what, count in counts.items():
        print(f"  {count:3}  {what}")
    if any(counts.values()):
        raise Stop("something is left: see the list above and " + str(SITE / "logs"))


# ---------------------------------------------------------------- the end


def closing(times: Times, lines: list[str], ups: list[float]) -> None:
    heading("Done")
    if ups:
        shown = ", ".join(f"{up:.1f}" for up in ups)
        print(f"The machines ran {shown} s after they were asked for.")
    for step, seconds in times.steps:
        print(f"  {seconds:7.1f} s  {step}")
    print(f"  {times.total_s:7.1f} s  in all")
    print()
    for line in lines:
        print(line)


def how_to_go_on(name: str) -> list[str]:
    return [
        f"The site and the cluster {name} are still there. In a shell:",
        f"  export VWS_DIR={SITE} PATH={VWS.parent}:$PATH",
        f"  vws cluster status {name}",
        f"  vws cluster ssh {name} head-1",
        f"  vws cluster grow {name} worker=+1 --wait",
        f"  vws cluster suspend {name} --wait; vws cluster restore {name} --wait",
        f"  vws lease extend {name} --for 1h",
        "To end them:",
        f"  vws cluster terminate {name} --wait; vws site stop",
    ]


def what_to_try() -> list[str]:
    return [
        "Try next:",
        "  make demo KEEP=1                                            the cluster stays for you to log in",
        "  export VWS_DIR=/tmp/trial PATH=$PWD/.venv/bin:$PATH",
        "  vws site init; vws site start --fake-nodes 200 --detach     a site of 200 simulated nodes",
        "  vws --help                                                  all commands; each has examples",
        "  docs/user-guide.md, docs/admin-guide.md",
    ]


def clean_up(name: str | None) -> None:
    """After a failure or Ctrl-C: end the lease, stop the site if this started it. Goes on past what fails."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if name and not site_runs():
            vws("site", "start", "--detach")
        if name and name in live_leases():
            vws("lease", "cancel", name, "--wait", "--timeout", "60s")
    except (Stop, KeyboardInterrupt) as error:
        print(f"demo: {error}", file=sys.stderr)
    try:
        if STARTED.exists() and not (site_runs() and live_leases()):
            vws("site", "stop")
            STARTED.unlink()
    except (Stop, KeyboardInterrupt) as error:
        print(f"demo: {error}; what stays ends with its lease. Again: vws site stop --now", file=sys.stderr)


def run(times: Times, made: dict[str, str]) -> None:
    heading("This machine")
    times.measure("look at this machine", ["doctor"])
    image = start_site(times)
    name = made["lease"] = choose_name()
    lease = lease_machines(times, name, image)
    members = lease["workspaces"]
    names = [w["name"] for w in members]  # type: ignore[attr-defined]
    ups = [w["running_at"] - w["created_at"] for w in members]  # type: ignore[attr-defined]
    use_machines(times, names)
    heading("More time")
    vws("lease", "extend", name, "--for", "10m")
    give_back(times, name)
    cluster = launch_cluster(times, name, image)
    run_job(times, name, [m["name"] for m in cluster if m["name"] != "head-1"])
    if KEEP:
        vws("lease", "extend", name, "--for", "1h")
        KEPT.touch()
        closing(times, how_to_go_on(name), ups)
        return
    end_cluster(times, name)
    del made["lease"]
    finish(times, ups)


def finish(times: Times, ups: list[float]) -> None:
    """Stop the site, unless it was started by somebody else or has other leases."""
    if STARTED.exists() and not live_leases():
        times.measure("stop the site", ["site", "stop"])
        STARTED.unlink()
        show_nothing_left(after_stop())
        closing(times, ["Nothing is left running.", *what_to_try()], ups)
    else:
        why = "has other leases" if STARTED.exists() else "ran before"
        closing(times, [f"The site in {SITE} {why}, so it stays.", *what_to_try()], ups)


def main() -> int:
    times = Times()
    made: dict[str, str] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        prepare()
        if KEEP and KEPT.exists() and site_runs() and "demo" in live_leases():
            print("\n".join(["It was kept already.", *how_to_go_on("demo")]))
            return 0
        run(times, made)
        return 0
    except Stop as stop:
        print(f"\ndemo: {stop}; giving back what was taken.", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; giving back what was taken.", file=sys.stderr)
        status = 130
    clean_up(made.get("lease"))
    return status


if __name__ == "__main__":
    sys.exit(main())
