"""A whole service behind a real HTTP server on loopback: real sockets, real services, a real store.

`running` makes one on the store of the test (SQLite and PostgreSQL in turn); `here` does so on SQLite alone, for tests
of what no store can change. Both share one HTTP server, which starting and stopping would cost more than most tests;
`mortal` has a server of its own, which the test may stop. Nodes are played by the test: they enrol, report and pull
like any agent.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from vws.ambient import SystemClock, TimeIds
from vws.core.deployment import NodeReport
from vws.core.site import Capacity, Role
from vws.core.wire import to_json
from vws.frontends.rest.app import close_app, create_app
from vws.service import build
from vws.service.access import SITE
from vws.service.certificates import make_ca
from vws.service.site import Settings
from vws.store.blobs import FileBlobs

CAPACITY = Capacity(8, 8192, 100_000, cpu_ratio=4.0)
INSTANCE = "agent-1"
# Without it each client would read the authorities of the whole web, which costs more than most requests.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
Json = dict[str, Any]


class Server:
    """uvicorn in a thread, as vws.main runs it, serving whatever app is put into `app`."""

    def __init__(self) -> None:
        self.app: Any = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        config = uvicorn.Config(
            self._serve, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=3,
            ws_max_size=1 << 20, lifespan="on", interface="asgi3",
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: self._server.run(sockets=[self._listener]), daemon=True)
        self._thread.start()
        until(lambda: self._server.started)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        self.loop = asyncio.get_running_loop()
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})

    def put(self, app: Any) -> None:
        """Serve this app, beginning with what its lifespan begins with; the one before it has ended."""
        self.app = app
        self._lifespan = app.router.lifespan_context(app)
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(self._lifespan.__aenter__(), self.loop).result(5)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive(), "the server hangs"


class Running:
    """A service behind a server. `root`, `ann`, `bob`, `nobody`: HTTP clients of the people they are."""

    def __init__(self, server: Server, store: Any, directory: Any, **settings: Any) -> None:
        self.services = build(
            store,
            FileBlobs(directory / "blobs"),
            SystemClock(),
            TimeIds(),
            Settings(**{"url": "https://127.0.0.1:7443"} | settings),
            directory,
        )
        self.app = create_app(self.services, ca_pem=_ca_pem())
        self.server = server
        self.url = server.url
        self._clients: list[httpx.Client] = []
        self.services.reconciler.start()
        self.services.contexts.start()
        server.put(self.app)
        self.root_token = self.token("root", Role.ADMIN)
        self.ann_token = self.token("ann")
        self.root = self.client(self.root_token)
        self.ann = self.client(self.ann_token)
        self.bob = self.client(self.token("bob"))
        self.nobody = self.client("")

    def stop(self) -> None:
        """What the process does when it is told to stop."""
        close_app(self.app)
        self.server.stop()
        self.services.contexts.stop()
        self.services.reconciler.stop()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        close_app(self.app)
        self.services.contexts.stop()
        self.services.reconciler.stop()

    def token(self, subject: str, role: Role = Role.USER) -> str:
        made = self.services.access.create_token(SITE, subject, role, None)
        assert isinstance(made, tuple)
        return made[1]

    def client(self, token: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False, verify=NO_TLS)
        self._clients.append(client)
        return client

    # ------------------------------------------------------------ nodes

    def enroll(self, *names: str) -> list[PlayedNode]:
        self.services.images.simulate("demo")
        nodes = [PlayedNode(self, node.id, token) for node, token in self.services.nodes.enroll(names)]
        for node in nodes:
            node.report()
        return nodes

    def lease(self, count: int = 1, **more: Any) -> Json:
        answer = self.ann.post("/v1/leases", json=asked(count, **more))
        assert answer.status_code == 201, answer.text
        return answer.json()


class PlayedNode:
    """A node whose part the test plays."""

    def __init__(self, running: Running, id: str, token: str) -> None:
        self.id = id
        self.token = token
        self.http = running.client(token)
        self._services = running.services
        self._sequence = itertools.count(1)

    def facts(self, *facts: Json, **more: Any) -> Json:
        generation = self._services.nodes.generation(self.id)
        report = NodeReport(
            self.id, INSTANCE, 1, next(self._sequence), generation, time.time(), CAPACITY, "fake", "", "0.1.0"
        )
        return to_json(report) | {"workspaces": list(facts)} | more

    def report(self, *facts: Json, **more: Any) -> httpx.Response:
        body = json.dumps(self.facts(*facts, **more))
        answer = self.http.post(f"/v1/nodes/{self.id}/reports", content=body)
        assert answer.status_code == 200, answer.text
        return answer

    def pull(self, after: int = 0, wait: float = 0, instance: str = INSTANCE) -> httpx.Response:
        query = {"after": after, "wait": wait, "instance": instance}
        return self.http.get(f"/v1/nodes/{self.id}/orders", params=query)

    def obey(self, state: str = "running") -> None:
        """Report all that is ordered as being in this state."""
        orders = self.pull().json()["orders"]
        self.report(*({"id": o["id"], "state": state, "boots": o["boots"]} for o in orders["workspaces"]))


def asked(count: int = 1, **more: Any) -> Json:
    """A lease request that fits."""
    group = {"image": "demo", "count": count, "memory_mib": 128, "disk_mib": 100}
    return {"groups": [group], "duration_s": 600} | more


def until(condition: Callable[[], object], limit_s: float = 5) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def running(server, store, tmp_path) -> Iterator[Running]:
    running = Running(server, store, tmp_path)
    yield running
    running.close()


@pytest.fixture
def here(server, sqlite_store, tmp_path) -> Iterator[Running]:
    running = Running(server, sqlite_store, tmp_path, image_bytes_max=8 << 20)
    yield running
    running.close()


@pytest.fixture
def mortal(sqlite_store, tmp_path) -> Iterator[Running]:
    server = Server()
    running = Running(server, sqlite_store, tmp_path)
    yield running
    running.close()
    server.stop()


@functools.cache
def _ca_pem() -> bytes:
    with tempfile.TemporaryDirectory() as place:
        make_ca(Path(place), "here", time.time())
        return (Path(place) / "ca.crt").read_bytes()
