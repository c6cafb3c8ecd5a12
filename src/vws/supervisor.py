"""Making, starting and stopping a site on this host: what `vws site` does.

Starting is idempotent: what runs already is left alone, what died is started again and adopts what it finds. A host
that joined another site has an agent and nothing else; `joined.py` starts and stops that.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vws
from vws import joined, processes
from vws.config import ServiceConfig, SiteDirectory, host_name, load, render
from vws.core.errors import Conflict, InvalidRequest, Unavailable
from vws.core.terms import check_name
from vws.processes import Say

SERVICE_LIMIT_S = 30.0
# libvirtd's first look at its emulators takes 8 s and more on a slow host.
AGENT_LIMIT_S = 90.0
END_LIMIT_S = 30.0


# ---------------------------------------------------------------- init


def init_site(
    path: Path,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    store: str = "sqlite",
    user: str | None = None,
    isolation: str = "namespace",
) -> dict[str, Any]:
    """Make a site in `path`: configuration, CA, store, admin token. Raises Conflict if there is one.

    What was cut off before its end can be repeated: a site is there once its url is, which is written last.
    """
    directory = SiteDirectory(path.absolute())
    if directory.url.exists() or directory.is_joined:
        raise Conflict(
            f"there is a site in {directory.path} already",
            asked=str(directory.path),
            possible="`vws site start`; or another directory with --dir",
        )
    port = port or _free_port(host)
    config = ServiceConfig(
        name=check_name(name or host_name()),
        host=host,
        port=port,
        # Listening everywhere is no address: others reach it by this host's name.
        url=f"https://{socket.getfqdn()}:{port}" if host in ("0.0.0.0", "::") else "",
        store=store,
        user=user or ("vws" if _has_account("vws") else "nobody"),
    )
    _make_directories(directory, config)
    directory.config.write_text(render(config, isolation))
    # A database's URL may hold its password; only root's part of the service and the agent read this file.
    directory.config.chmod(0o644 if store == "sqlite" else 0o600)
    made = _bootstrap(directory, "--admin", "admin")
    processes.write_file(directory.ca, made["ca"], 0o644)
    processes.write_file(directory.admin_token, made["admin_token"] + "\n", 0o600)
    processes.write_file(directory.url, config.public_url + "\n", 0o644)
    return {"dir": str(directory.path), "name": config.name, "url": config.public_url, "user": config.user}


def _make_directories(directory: SiteDirectory, config: ServiceConfig) -> None:
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.logs.mkdir(exist_ok=True, mode=0o755)
    directory.node.mkdir(exist_ok=True, mode=0o700)
    directory.service.mkdir(exist_ok=True, mode=0o700)
    if os.geteuid() == 0:
        from vws.privilege import CannotDrop, account_of

        try:
            account = account_of(config.user)
        except CannotDrop as error:
            raise InvalidRequest(str(error), field="user", asked=config.user) from None
        os.chown(directory.service, account.pw_uid, account.pw_gid)


def _has_account(name: str) -> bool:
    import pwd

    return any(account.pw_name == name for account in pwd.getpwall())


def _free_port(host: str) -> int:
    """A port that is free now and below those that the kernel hands out by itself, so that it stays free."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise InvalidRequest(
                        f"cannot listen on {host}: {error.strerror}",
                        field="host",
                        asked=host,
                        possible="an own address",
                    ) from None
                continue
            return port
    raise Unavailable("no port is free", possible="name one with --port")


def _bootstrap(directory: SiteDirectory, *arguments: str) -> dict[str, Any]:
    """Run `vws.main bootstrap`, which becomes the service's user, and return its answer."""
    command = [sys.executable, "-m", "vws.main", "bootstrap", "--dir", str(directory.path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise Unavailable(f"the site's store could not be prepared: {lines[-1].removeprefix('vws: ')}")
    return dict(json.loads(done.stdout))


# ---------------------------------------------------------------- start


def start_site(path: Path, *, fake_nodes: int | None = None, detach: bool = False, say: Say = print) -> dict[str, Any]:
    """Start what of the site does not run, and wait until it is ready to take leases.

    fake_nodes: simulated nodes instead of this host; None: as the last time. Without `detach` it returns only when the
    site has been stopped. Raises Unavailable with the end of the log when a process does not come up.
    """
    directory = SiteDirectory(path.absolute())
    if directory.is_joined:
        return joined.start(directory, detach=detach, say=say)
    config = load(directory)
    if not directory.url.exists():
        raise Conflict(f"the making of the site in {directory.path} was cut off", possible="vws site init, once more")
    count = _fake_count(directory, config.fake.nodes, fake_nodes)
    if not count and os.geteuid() != 0:
        raise InvalidRequest(
            "a real node needs root: its agent makes virtual machines and networks",
            field="fake_nodes",
            possible="run it with sudo; or with --fake-nodes N for a simulated site",
        )
    if not processes.running(directory, "service"):
        _follow_url(directory, config.service.public_url, say)
        _enrol(directory, count, say)
        processes.launch(directory, "service", say)
        _await_service(directory, say)
    else:
        _check_same_nodes(directory, count)
        say(f"the service runs already (pid {processes.running(directory, 'service')})")
    if not processes.running(directory, "agent"):
        processes.launch(directory, "agent", say, *_kind(count))
    _await_nodes(directory, say)
    if not count:
        _import_demo(directory, say)
    status = site_status(path)
    say(f"the site {config.service.name} is ready at {config.service.public_url}")
    if not detach:
        _stay(directory, say)
    return status


def _kind(count: int) -> list[str]:
    return ["--fake-nodes", str(count)] if count else []


def _follow_url(directory: SiteDirectory, url: str, say: Say) -> None:
    """The address may have changed in site.toml: this host's agent and command line go by it too."""
    if directory.url.read_text().strip() != url:
        processes.write_file(directory.url, url + "\n", 0o644)
    if directory.credentials.exists():
        said = json.loads(directory.credentials.read_text())
        if said["url"] != url:
            processes.stop(directory, "agent", signal.SIGTERM, say)  # its workspaces go on
            processes.write_file(directory.credentials, json.dumps(said | {"url": url}, indent=1), 0o600)


def _fake_count(directory: SiteDirectory, configured: int, asked: int | None) -> int:
    if asked is not None and not 0 <= asked <= 10_000:
        raise InvalidRequest(
            "that many simulated nodes cannot be", field="fake_nodes", asked=asked, possible="1 to 10000"
        )
    if asked is not None:
        return asked
    names = [node["name"] for node in _credentials(directory)]
    last_time = sum(name.startswith("fake-") for name in names)
    return last_time or configured


def _credentials(directory: SiteDirectory) -> list[dict[str, str]]:
    try:
        return list(json.loads(directory.credentials.read_text())["nodes"])
    except FileNotFoundError:
        return []


def _wanted_names(directory: SiteDirectory, count: int) -> list[str]:
    return [f"fake-{i:04d}" for i in range(1, count + 1)] if count else [host_name()]


def _check_same_nodes(directory: SiteDirectory, count: int) -> None:
    if [n["name"] for n in _credentials(directory)] != _wanted_names(directory, count):
        raise Conflict(
            "the site runs with other nodes", field="fake_nodes", asked=count, possible="stop it first: vws site stop"
        )


def _enrol(directory: SiteDirectory, count: int, say: Say) -> None:
    """Give this host's nodes their identities, once; a change of kind or number replaces them."""
    wanted, present = _wanted_names(directory, count), _credentials(directory)
    if [node["name"] for node in present] == wanted:
        return
    if processes.running(directory, "agent"):
        raise Conflict("the agent of other nodes still runs", possible="stop it first: vws site stop")
    old = ["--replace-nodes", ",".join(n["id"] for n in present)] if present else []
    image = ["--simulate-image", "demo"] if count else []
    say(f"entering {len(wanted)} simulated nodes" if count else f"entering this host as node {wanted[0]}")
    made = _bootstrap(directory, *old, "--nodes", ",".join(wanted), *image)
    url = load(directory).service.public_url
    text = json.dumps({"url": url, "ca": str(directory.ca), "nodes": made["nodes"]}, indent=1)
    processes.write_file(directory.credentials, text, 0o600)


def _await_service(directory: SiteDirectory, say: Say) -> None:
    client = _client(directory)
    _await(directory, "service", lambda: client.healthy(), SERVICE_LIMIT_S, say, "the service")


def _await_nodes(directory: SiteDirectory, say: Say) -> None:
    wanted = {node["id"] for node in _credentials(directory)}
    client = _client(directory)

    def ready() -> bool:
        nodes = [node for node in client.nodes() if node["id"] in wanted]
        return all(node["state"] not in ("joining", "silent", "lost") for node in nodes) and len(nodes) == len(wanted)

    _await(directory, "agent", ready, AGENT_LIMIT_S, say, f"{len(wanted)} nodes" if len(wanted) > 1 else "the node")


def _await(
    directory: SiteDirectory, process: str, ready: Callable[[], bool], limit_s: float, say: Say, what: str
) -> None:
    start = said = time.monotonic()
    while not ready():
        now = time.monotonic()
        if not processes.running(directory, process):
            raise Unavailable(f"the {process} ended while starting: {processes.log_tail(directory, process)}")
        if now - start > limit_s:
            tail = processes.log_tail(directory, process)
            raise Unavailable(f"{what} did not get ready within {limit_s:.0f} s: {tail}")
        if now - said > 2:
            said = now
            say(f"waiting for {what} ({now - start:.0f} s)")
        time.sleep(0.05)


def _client(directory: SiteDirectory) -> Any:
    from vws.client import Client

    return Client.from_dir(directory.path)


def demo_appliance() -> Path | None:
    """The demo appliance that was built with this program or came with it."""
    places = [os.environ.get("VWS_APPLIANCE"), Path(vws.__file__).parents[2] / "build/appliance/demo.vws"]
    places.append("/usr/share/vws/demo.vws")
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def _import_demo(directory: SiteDirectory, say: Say) -> None:
    """A site without any image gets the demo appliance, so that a first lease needs nothing else."""
    client, appliance = _client(directory), demo_appliance()
    if appliance is None or next(iter(client.images()), None) is not None:
        return
    client.upload_image(appliance, "demo")
    say(f"imported the demo appliance as image demo ({appliance.stat().st_size / 1e6:.0f} MB)")


def _stay(directory: SiteDirectory, say: Say) -> None:
    """Stay in the foreground until interrupted, then stop the site; end when its service ends."""
    say("press Ctrl-C to stop it")
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while processes.running(directory, "service") and processes.running(directory, "agent"):
            time.sleep(0.5)
        gone = "service" if not processes.running(directory, "service") else "agent"
        say(f"the {gone} ended; its log is {directory.log_file(gone)}; `vws site start` starts it again")
    except KeyboardInterrupt:
        stop_site(directory.path, say=say)
    finally:
        signal.signal(signal.SIGTERM, previous)


# ---------------------------------------------------------------- stop and status


def stop_site(path: Path, *, now: bool = False, say: Say = print) -> dict[str, Any]:
    """Stop the service; the agent too, unless workspaces are leased: then it stays until their ends.

    now: end all leases of this host first. Raises Unavailable when a process does not stop.
    """
    directory = SiteDirectory(path.absolute())
    if directory.is_joined:
        return joined.stop(directory, now=now, say=say)
    kind = _kind(_fake_count(directory, load(directory).fake.nodes, None))
    if now:
        _end_all_leases(directory, kind, say)
    left = _live_workspaces(directory) if processes.running(directory, "service") else None
    processes.stop(directory, "service", signal.SIGTERM, say)
    limit_s = 0.0 if left else 5.0 if left is None else END_LIMIT_S
    if not processes.retire_agent(directory, limit_s, say, *kind):
        _say_who_stays(directory, left, say)
    return site_status(path)


def _live_workspaces(directory: SiteDirectory) -> list[dict[str, Any]] | None:
    mine = {node["id"] for node in _credentials(directory)}
    try:
        return [w for w in _client(directory).workspaces(live=True) if w["node"] in mine]
    except Exception:
        return None  # a service that does not answer is stopped all the same; the agent then decides by what it sees


def _end_all_leases(directory: SiteDirectory, kind: list[str], say: Say) -> None:
    if not processes.running(directory, "service"):
        raise Conflict(
            "the service does not run, and only it can end leases",
            possible="vws site start first; or without --now: the agent ends each lease in time",
        )
    if not processes.running(directory, "agent"):
        # Nobody else takes down what is leased here.
        processes.launch(directory, "agent", say, *kind)
    client = _client(directory)
    leases = list(client.leases(live=True))
    for lease in leases:
        client.cancel_lease(lease["id"])
    start = time.monotonic()
    while left := [w for w in client.workspaces(live=True) if w["state"] != "lost"]:
        if time.monotonic() - start > END_LIMIT_S:
            names = ", ".join(w["name"] for w in left)
            raise Unavailable(f"{names} could not be ended within {END_LIMIT_S:.0f} s; the site still runs")
        time.sleep(0.1)
    if leases:
        say(f"ended {len(leases)} leases" if len(leases) > 1 else "ended 1 lease")


def _say_who_stays(directory: SiteDirectory, left: list[dict[str, Any]] | None, say: Say) -> None:
    """left: the workspaces that were leased a moment ago; None: nobody could say. A lease may have come since."""
    if not left:
        say("the agent stays until the last of its workspaces has ended")
        return
    last = time.strftime("%H:%M:%S", time.localtime(max(w["end"] for w in left)))
    say(
        f"{len(left)} workspaces are leased until {last}: the agent (pid {processes.running(directory, 'agent')}) "
        "stays to end them in time, then goes; `vws site start` takes up again, "
        "`vws site stop --now` ends them at once"
    )


def site_status(path: Path) -> dict[str, Any]:
    """{"dir", "name", "url", "service": pid or None, "agent": pid or None, "healthy", "counts"}."""
    directory = SiteDirectory(path.absolute())
    if directory.is_joined:
        return joined.status(directory)
    config = load(directory)
    status: dict[str, Any] = {
        "dir": str(directory.path),
        "name": config.service.name,
        "url": config.service.public_url,
        "service": processes.running(directory, "service"),
        "agent": processes.running(directory, "agent"),
        "healthy": False,
    }
    if status["service"]:
        client = _client(directory)
        status["healthy"] = client.healthy()
        if status["healthy"]:
            nodes, leases = list(client.nodes()), list(client.leases(live=True))
            status["nodes"] = _tally(nodes)
            status["leases"] = _tally(leases)
            status["workspaces"] = _tally(w for lease in leases for w in lease["workspaces"])
    return status


def _tally(items: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in items:
        counts[item["state"]] = counts.get(item["state"], 0) + 1
    return counts
