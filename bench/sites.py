"""Sites to measure on: made in a temporary folder, started as a user would start them, gone afterwards.

The API is called over one kept connection by a client of twenty lines, so that what is measured is the service and not
a client library. What the library and the command line add is told by the bench `cli`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import ssl
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from bench.processes import Usage
from vws import processes, supervisor
from vws.config import SiteDirectory
from vws.node.config import FakeConfig

DURATION_S = 3600


class Refused(Exception):
    """The service answered with a problem."""


class StillRuns(Exception):
    """A site could not be stopped."""


class Api:
    """One connection to a site's REST API; for one thread."""

    def __init__(self, path: Path) -> None:
        directory = SiteDirectory(path)
        parts = urlsplit(directory.url.read_text().strip())
        trust = ssl.create_default_context(cafile=str(directory.ca))
        assert parts.hostname
        self._connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=trust, timeout=60)
        self._headers = {
            "Authorization": f"Bearer {directory.admin_token.read_text().strip()}",
            "Content-Type": "application/json",
        }

    def __enter__(self) -> Api:
        self._connection.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        target = f"/v1{path}?{urlencode(query)}" if query else f"/v1{path}"
        # As the client library does: the answer is kept, so that a repeat changes nothing.
        headers = self._headers | ({} if method == "GET" else {"Idempotency-Key": str(uuid.uuid4())})
        self._connection.request(method, target, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        said = json.loads(response.read() or b"null")
        if response.status >= 300:
            raise Refused(f"{method} {target}: {response.status} {said}")
        return said

    def all(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            page = self.call("GET", path, limit=1000, **query, **after)
            yield from page["items"]
            if page["next"] is None:
                return
            after = {"after": page["next"]}


@dataclass
class BenchSite:
    """A running site. `path` is its directory."""

    path: Path

    def usage(self, process: str) -> Usage:
        """Of `service` or `agent`."""
        return Usage.of(self._pid(process))

    def _pid(self, process: str) -> int:
        pid = processes.running(SiteDirectory(self.path), process)
        if pid is None:
            log = SiteDirectory(self.path).log_file(process)
            raise RuntimeError(f"the {process} has ended: {log.read_text()[-2000:]}")
        return pid

    def kill(self) -> None:
        for process in ("agent", "service"):
            pid = processes.running(SiteDirectory(self.path), process)
            if pid:
                os.kill(pid, signal.SIGKILL)
                while processes.running(SiteDirectory(self.path), process):
                    time.sleep(0.01)


@contextlib.contextmanager
def fake_site(
    nodes: int, *, store: str = "sqlite", instant: bool = True, later: contextlib.ExitStack | None = None
) -> Iterator[BenchSite]:
    """A site of simulated nodes; `instant`: whose every step takes no time. later: removes its folder, not before.

    ext4 makes new files ten times as slowly while many were deleted a moment ago, so a round that tidied up would slow
    down the next.
    """
    with _directory(later) as path:
        supervisor.init_site(path, store=store)
        if instant:
            with (path / "site.toml").open("a") as config:
                config.writelines(f"{name} = 0.0\n" for name in _STEPS)
        site = BenchSite(path)
        try:
            supervisor.start_site(path, fake_nodes=nodes, detach=True, say=_quiet)
            yield site
        finally:
            # Nothing is behind simulated nodes that would have to be put back.
            site.kill()


@contextlib.contextmanager
def real_site() -> Iterator[BenchSite]:
    """A site with this host as its node, and the demo appliance as the image `demo`. Needs root."""
    with _directory() as path:
        supervisor.init_site(path)
        try:
            supervisor.start_site(path, detach=True, say=_quiet)
            yield BenchSite(path)
        finally:
            _stop(path)


def _stop(path: Path) -> None:
    try:
        supervisor.stop_site(path, now=True, say=_quiet)
    except Exception as error:
        raise StillRuns(f"{error}; its folder stays: vws site stop --now --dir {path}") from error


_STEPS = [f.name for f in fields(FakeConfig) if f.name.endswith("_s") and f.name != "crash_after_s"]


@contextlib.contextmanager
def _directory(later: contextlib.ExitStack | None = None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="vws-bench-"))
    folder.chmod(0o755)  # the service's user has to reach its part
    with contextlib.ExitStack() as now:
        (later or now).callback(shutil.rmtree, folder)
        try:
            yield folder / "site"
        except StillRuns:
            now.pop_all()
            raise


def _quiet(_: str) -> None:
    pass


# ---------------------------------------------------------------- load


def lease_request(members: int) -> dict[str, Any]:
    group = {"image": "demo", "count": members, "cpus": 1, "memory_mib": 160, "disk_mib": 1024}
    return {"groups": [group], "duration_s": DURATION_S}


def request_leases(path: Path, leases: int, members: int, clients: int) -> list[tuple[float, float]]:
    """(asked at, answered at) of `leases` requests by so many connections, opened before; UTC seconds."""
    numbers, lock = iter(range(leases)), threading.Lock()
    ready = threading.Barrier(clients)

    def client(_: int) -> list[tuple[float, float]]:
        with Api(path) as api:
            ready.wait()
            return [_timed(api, members) for _ in _shared(numbers, lock)]

    with ThreadPoolExecutor(clients) as pool:
        return [span for spans in pool.map(client, range(clients)) for span in spans]


def _timed(api: Api, members: int) -> tuple[float, float]:
    begin = time.time()
    api.call("POST", "/leases", lease_request(members))
    return begin, time.time()


def _shared(numbers: Iterator[int], lock: threading.Lock) -> Iterable[int]:
    while True:
        with lock:
            number = next(numbers, None)
        if number is None:
            return
        yield number


def await_active(api: Api, limit_s: float, lease: str | None = None) -> float:
    """When the last of all live leases (or this one) became active, by the service's clock, once none is pending.

    Asks a small question ten times a second: a listing of everything would be a load of its own.
    """

    def pending() -> bool:
        if lease:
            return bool(api.call("GET", f"/leases/{lease}")["state"] == "pending")
        return bool(api.call("GET", "/leases", live="true", state="pending", limit=1)["items"])

    wait_while(pending, limit_s, "leases are still pending")
    leases = [api.call("GET", f"/leases/{lease}")] if lease else list(api.all("/leases", live="true"))
    wrong = [each for each in leases if each["state"] != "active"]
    if wrong:
        raise RuntimeError(f"{len(wrong)} leases are not active: {wrong[0]['state']}, {wrong[0]['reason']}")
    return float(max(each["active_at"] for each in leases))


def await_ended(api: Api, limit_s: float, lease: str) -> None:
    """Until nothing is left of a cancelled lease."""
    wait_while(lambda: api.call("GET", f"/leases/{lease}")["state"] == "ending", limit_s, f"{lease} has not ended")


def wait_while(so: Callable[[], bool], limit_s: float, otherwise: str) -> None:
    until = time.monotonic() + limit_s
    while so():
        if time.monotonic() > until:
            raise TimeoutError(f"{otherwise} after {limit_s:.0f} s")
        time.sleep(0.1)
