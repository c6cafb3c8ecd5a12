"""A second host: it joins a site elsewhere by a token, and runs an agent and nothing else.

Only the service can end leases, so stopping here never does: an agent that still has workspaces is left at work.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from vws import processes
from vws.config import SiteDirectory, host_name, load, render_joined
from vws.core.errors import Conflict, InvalidRequest, Unavailable
from vws.processes import Say

# An agent that has nothing leaves sooner: what is there was looked at within this time.
LEAVE_LIMIT_S = 5.0
FREE_BYTES_MIN = 1 << 30


def join_node(
    path: Path,
    token: str,
    *,
    name: str | None = None,
    isolation: str = "namespace",
    detach: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """Make this host a node of the site that gave out `token`, and start its agent.

    Returns {"id", "name", "url", "subnet"}. Raises Conflict if `path` is in use or the site refuses, Unavailable if it
    cannot be reached, InvalidRequest for a token that is none.
    """
    _must_be_root()
    directory = SiteDirectory(path.absolute())
    if directory.config.exists():
        raise Conflict(
            f"{directory.path} belongs to a site or a node already; nothing was changed",
            possible="another --dir; or, if it joined before, `vws site start` starts its agent",
        )
    from vws.node.run import join

    _make_directory(directory, isolation)
    try:
        said = join(directory.node, token, name or host_name())
    except Exception:
        directory.config.unlink(missing_ok=True)
        raise
    say(f"joined as node {said['name']}")
    start(directory, detach=detach, say=say)
    return dict(said)


def _must_be_root() -> None:
    if os.geteuid() != 0:
        raise InvalidRequest(
            "a node needs root: its agent makes virtual machines and networks", possible="run it with sudo"
        )


def _make_directory(directory: SiteDirectory, isolation: str) -> None:
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.logs.mkdir(exist_ok=True, mode=0o755)
    directory.node.mkdir(exist_ok=True, mode=0o700)
    if shutil.disk_usage(directory.path).free < FREE_BYTES_MIN:
        raise Unavailable(f"less than 1 GiB is free in {directory.path}", possible="another --dir with more room")
    directory.config.write_text(render_joined(isolation))


def start(directory: SiteDirectory, *, detach: bool, say: Say) -> dict[str, Any]:
    """Start the agent if it does not run. Raises Unavailable with the end of its log if it ends at once."""
    _must_be_root()
    load(directory)
    pid = processes.running(directory, "agent")
    if pid:
        say(f"the agent runs already (pid {pid})")
    else:
        processes.launch(directory, "agent", say)
        time.sleep(0.5)
        if not processes.running(directory, "agent"):
            raise Unavailable(f"the agent ended while starting: {processes.log_tail(directory, 'agent')}")
    if not detach:
        _stay(directory, say)
    return status(directory)


def _stay(directory: SiteDirectory, say: Say) -> None:
    say("press Ctrl-C to stop the agent")
    try:
        while processes.running(directory, "agent"):
            time.sleep(0.5)
        say(f"the agent ended; its log is {directory.log_file('agent')}; `vws site start` starts it again")
    except KeyboardInterrupt:
        stop(directory, now=False, say=say)


def stop(directory: SiteDirectory, *, now: bool, say: Say) -> dict[str, Any]:
    """Stop the agent if it has no workspaces; raises Conflict if it has some, and leaves it at work."""
    load(directory)
    if now:
        raise Conflict(
            "this host joined a site elsewhere, and only that site can end leases; nothing was changed",
            possible="there: vws node drain, and end or wait for what is leased here; then here: vws site stop",
        )
    if not processes.retire_agent(directory, LEAVE_LIMIT_S, say):
        raise Conflict(
            "workspaces are leased on this host: its agent stays, to serve them and to end them in time",
            possible="vws node drain at the site, and `vws site stop` again when they have ended",
        )
    return status(directory)


def status(directory: SiteDirectory) -> dict[str, Any]:
    """{"dir", "node", "url", "agent": pid or None, "healthy": whether the agent runs}"""
    said = json.loads(directory.credentials.read_text())
    pid = processes.running(directory, "agent")
    return {
        "dir": str(directory.path),
        "node": said["nodes"][0]["name"],
        "url": said["url"],
        "agent": pid,
        "healthy": pid is not None,
    }
