"""How long a user waits for the command line, help and listings of 1,000 workspaces.

The floor is Python itself: `python -c pass`, and with the CLI library imported. Each round runs every command once, so
that what disturbs one disturbs all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.measure import Number, Section, median, spread
from bench.sites import Api, await_active, fake_site, request_leases

VWS = str(Path(sys.executable).with_name("vws"))
FLOORS = {"python -c pass": ("-c", "pass"), "python -c 'import click'": ("-c", "import click")}
COMMANDS = {
    "vws --help": (0.25, ("--help",)),
    "vws workspace list": (0.5, ("workspace", "list")),
    "vws lease list": (0.5, ("lease", "list")),
    "vws workspace list --json": (0.5, ("workspace", "list", "--json")),
    "vws lease list --json": (0.5, ("lease", "list", "--json")),
}


def run(quick: bool) -> Section:
    nodes, leases, members, times = (2, 2, 5, 1) if quick else (200, 100, 10, 11)
    with fake_site(nodes) as site, Api(site.path) as api:
        request_leases(site.path, leases, members, clients=4)
        await_active(api, 60)
        commands = {what: (sys.executable, *arguments) for what, arguments in FLOORS.items()}
        commands |= {what: (VWS, *arguments) for what, (_, arguments) in COMMANDS.items()}
        _check(commands, site.path, leases * members)
        took = _measure(commands, site.path, times)
    floor = median(took["python -c pass"])
    numbers = [
        Number(
            what,
            median(seconds),
            "s",
            COMMANDS[what][0] if what in COMMANDS else None,
            f"{median(seconds) / floor:.1f} × python; {spread(seconds, 's')}",
        )
        for what, seconds in took.items()
    ]
    how = (
        f"Wall time of whole processes, output into a pipe, medians of {times} turns, on a site with "
        f"{leases * members} workspaces in {leases} leases."
    )
    return Section("cli", "the command line", how, tuple(numbers))


def _check(commands: Mapping[str, Sequence[str]], site: Path, workspaces: int) -> None:
    """A command that fails or lists half of it is quick for the wrong reason. Compiles the modules too."""
    for what, command in commands.items():
        listed = _run(command, site).count(b"wsp-")
        if "workspace list" in what and listed < workspaces:
            raise RuntimeError(f"`{what}` shows {listed} workspaces, there are {workspaces}")


def _measure(commands: Mapping[str, Sequence[str]], site: Path, times: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {what: [] for what in commands}
    for _ in range(times):
        for what, command in commands.items():
            begin = time.perf_counter()
            _run(command, site)
            took[what].append(time.perf_counter() - begin)
    return took


def _run(command: Sequence[str], site: Path) -> bytes:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VWS_")} | {"VWS_DIR": str(site)}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.decode(errors='replace')[-500:]}")
    return done.stdout
