"""A service small enough to break on purpose: the link's calls over real TLS, orders by hand, troubles at will."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from vws.core.deployment import NodeOrders, NodeReport
from vws.core.frames import header
from vws.core.wire import from_json, to_json
from vws.service.certificates import make_ca, make_server

TOKEN = "node-token"


BLOCK_BYTES = 4096


def _frames(data: bytes, start: int) -> bytes:
    """What is not zero of it, from `start` on, a frame for each block."""
    frames = b""
    for at in range(start, len(data), BLOCK_BYTES):
        block = data[at : at + BLOCK_BYTES]
        if any(block):
            frames += header(at, len(block)) + block
    return frames + header(len(data), 0)


class TinyService:
    """One node's service on loopback, in a thread. Orders are given by `order`; what was heard is in the attributes."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        make_ca(directory, "tiny", time.time())
        make_server(directory, ["127.0.0.1"], time.time())
        self.directory = directory
        self.ca = directory / "ca.crt"
        self.port = 0
        self.ordered: dict[str, NodeOrders] = {}
        self.reports: list[NodeReport] = []
        self.consoles: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.offsets: list[int] = []
        self.joined: list[dict[str, Any]] = []
        self.cut_after: int | None = None  # bytes of a blob after which the connection breaks, once
        self.stall_after: int | None = None  # bytes of a blob after which nothing more comes, until it is None
        self.problem: tuple[int, str, str] | None = None  # (status, code, detail) for every call
        self.waiting: list[dict[str, str]] = []
        self.frames: list[bytes] = []  # of the tunnel
        self.to_guest: list[bytes] = []
        self.close_code: tuple[int, str] | None = None
        self.beats = False
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> TinyService:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(512)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app(),
            ssl_certfile=str(self.directory / "server.crt"),
            ssl_keyfile=str(self.directory / "server.key"),
            log_level="critical",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=0,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(5)

    def order(self, orders: NodeOrders) -> None:
        self.ordered[orders.node] = orders

    def _app(self) -> Starlette:
        node = "/v1/nodes/{node}"
        return Starlette(
            routes=[
                Route("/v1/ca", lambda _: PlainTextResponse(self.ca.read_text())),
                Route("/v1/nodes/join", self._join, methods=["POST"]),
                Route(f"{node}/orders", self._orders),
                Route(f"{node}/reports", self._reports, methods=["POST"]),
                Route(f"{node}/consoles/{{workspace}}", self._console, methods=["PUT"]),
                Route("/v1/blobs/{sha256}", self._blob),
                WebSocketRoute(f"{node}/tunnels/{{tunnel}}", self._tunnel),
            ]
        )

    def _refused(self, request: Request) -> Response | None:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"code": "unauthenticated", "detail": "this token is unknown"}, 401)
        if self.problem:
            status, code, detail = self.problem
            return JSONResponse({"code": code, "detail": detail}, status)
        return None

    async def _orders(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        after, until = int(request.query_params["after"]), time.monotonic() + float(request.query_params["wait"])
        assert request.query_params["instance"]
        node = request.path_params["node"]
        while time.monotonic() < until:
            orders = self.ordered.get(node)
            if (orders and orders.generation > after) or self.waiting or self._server.should_exit:
                break
            await asyncio.sleep(0.005)
        fresh = orders if orders and orders.generation > after else None
        return JSONResponse({"orders": to_json(fresh), "tunnels": self.waiting, "time": time.time()})

    async def _reports(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        report = from_json(NodeReport, await request.json())
        self.reports.append(report)
        return JSONResponse({"generation": self.ordered[report.node].generation, "time": time.time()})

    async def _console(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        self.consoles[request.path_params["workspace"]] = await request.body()
        return Response(status_code=204)

    async def _blob(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        data = self.blobs.get(request.path_params["sha256"])
        if data is None:
            return JSONResponse({"code": "not-found", "detail": "there is no such file"}, 404)
        start = int(request.query_params["offset"])
        assert request.query_params["holes"] == "skip"
        self.offsets.append(start)
        if start > len(data):
            return Response(status_code=416)
        return StreamingResponse(self._pieces(_frames(data, start)))

    async def _pieces(self, data: bytes) -> Any:
        cut, self.cut_after = self.cut_after, None
        for at in range(0, len(data), 65536):
            if cut is not None and at >= cut:
                raise ConnectionResetError("cut on purpose")
            while self.stall_after is not None and at >= self.stall_after:
                await asyncio.sleep(0.01)
            yield data[at : at + 65536]
            await asyncio.sleep(0)

    async def _tunnel(self, socket: WebSocket) -> None:
        if socket.headers.get("authorization") != f"Bearer {TOKEN}" or not self.waiting:
            await socket.close(4403)
            return
        self.waiting.clear()
        assert socket.scope["subprotocols"] == ["vws-beats"]
        await socket.accept(subprotocol="vws-beats" if self.beats else None)
        for data in self.to_guest:
            await socket.send_bytes(data)
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    self.close_code = (message["code"], message.get("reason") or "")
                    return
                self.frames.append(message["bytes"])
                if self.frames[-1].endswith(b"bye"):
                    await socket.close(1000)
                    self.close_code = (1000, "")
                    return

    async def _join(self, request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer join-token":
            return JSONResponse({"code": "unauthenticated", "detail": "this token was used already"}, 401)
        self.joined.append(json.loads(await request.body()))
        return JSONResponse({"node": "nod-9", "token": TOKEN, "subnet": "10.64.9.0/24"}, 201)
