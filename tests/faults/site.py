"""A whole site of real processes that are killed and started again, and a user who does not give up."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vws import processes, supervisor
from vws.client import ApiError, Client, ConnectionFailed
from vws.config import SiteDirectory
from vws.core.errors import Unavailable
from vws.node.fake import FakeHypervisor

FAKE = """
[fake]
boot_s = 0.1
boot_spread_s = 0.05
create_s = 0.01
start_s = 0.01
suspend_s = 0.02
restore_s = 0.02
stop_s = 0.02
remove_s = 0.01
"""


class SiteUnderFire:
    """`keep_up` starts whatever died; `fault` arms one fault point for the processes that start from then on."""

    def __init__(self, path: Path, nodes: int = 2, config: str = "") -> None:
        """config: what else its site.toml shall have."""
        self.nodes = nodes
        supervisor.init_site(path)
        self.directory = SiteDirectory(path)
        text = self.directory.config.read_text().partition("[fake]")[0]
        self.directory.config.write_text(text + FAKE + config)
        # Where both may write, the service after it gave root up.
        self.once = self.directory.service / "died"
        self.deaths = 0
        self.said: list[str] = []

    def arm(self, point: str) -> None:
        self.once.unlink(missing_ok=True)
        os.environ["VWS_FAULT"], os.environ["VWS_FAULT_ONCE"] = point, str(self.once)

    def disarm(self) -> None:
        os.environ.pop("VWS_FAULT", None)
        os.environ.pop("VWS_FAULT_ONCE", None)

    def keep_up(self) -> None:
        """Start what does not run. Dying while being started is part of it."""
        for _ in range(5):
            if all(processes.running(self.directory, p) for p in ("service", "agent")):
                return
            try:
                supervisor.start_site(self.directory.path, fake_nodes=self.nodes, detach=True, say=self.said.append)
            except (Unavailable, ApiError, ConnectionFailed) as error:
                self.said.append(str(error))
        raise AssertionError("the site does not come up: " + "\n".join(self.said[-10:]))

    def kill(self, *which: str) -> None:
        for process in which or ("service", "agent"):
            pid = processes.running(self.directory, process)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                processes.wait_gone(self.directory, process, 5)

    def client(self) -> Client:
        return Client.from_dir(self.directory.path)

    def insist(self, ask: Callable[[Client], Any]) -> Any:
        """Ask until answered, under one client token, as a user's tool does; the site is started again meanwhile."""
        token, deadline = str(uuid.uuid4()), time.monotonic() + 30
        while True:
            self.keep_up()
            try:
                with self.client() as client:
                    client.new_client_token = lambda: token
                    return ask(client)
            except ConnectionFailed:
                assert time.monotonic() < deadline, "no answer in 30 s"
            except ApiError as error:
                if error.status != 503 or time.monotonic() > deadline:
                    raise

    def until(self, so: Callable[[Client], bool], what: str, within_s: float = 30) -> None:
        deadline = time.monotonic() + within_s
        while not self.insist(so):
            assert time.monotonic() < deadline, f"not {what} within {within_s} s\n{self.story()}"
            time.sleep(0.05)

    def story(self) -> str:
        """What happened, for whoever reads a failure."""
        with self.client() as client:
            events = [f"{e['at']:.2f} {e['actor']} {e['kind']} {e['data']}" for e in client.events()]
        logs = [
            self.directory.log_file(p).read_text()[-3000:]
            for p in ("service", "agent")
            if self.directory.log_file(p).exists()
        ]
        return "\n".join([*self.said[-10:], *events[-40:], *logs])

    def remains(self) -> dict[str, Any]:
        """What the simulated nodes still have on disk, by node."""
        places = sorted((self.directory.node / "fake").iterdir())
        found = {place.name: FakeHypervisor(place).remains() for place in places}
        return {name: left for name, left in found.items() if left}

    def stop(self) -> None:
        self.disarm()
        self.kill()
