"""The agent's way to the service: HTTPS requests and WebSockets, all opened by the node.

The service is known by its site's CA and by nothing else, the node by its bearer
token. One `Service` (a connection pool and the knowledge whether anybody answers
there) is shared by all links of a process; a `HttpLink` speaks for one node.

aiohttp, because a node's requests are few but a process of simulated nodes holds
hundreds of long polls: with 100 connections open it takes 0.2 ms a request where
httpx takes 4.8 ms (its pool is searched from end to end each time).

Errors are of two kinds only: `Unreachable` passes by itself, `Refused` does not
until somebody does something.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from vws.core.deployment import NodeReport, Quiesced, WorkspaceKeys
from vws.core.errors import InvalidRequest
from vws.core.wire import BEAT_S, TUNNEL_BEATS, from_json, to_json
from vws.node.transfer import PIECE_BYTES, Known, Landing, Pace, land

log = logging.getLogger(__name__)

# The service answers a report when it is committed, or after 30 s that it could not.
_TRANSFER = aiohttp.ClientTimeout(sock_connect=5, sock_read=30)
# The service looks at a whole image before it answers.
_MADE = aiohttp.ClientTimeout(total=600, sock_connect=5)
_BROKEN_OFF_KEPT = 8
_QUICK = aiohttp.ClientTimeout(total=35, sock_connect=5)


class LinkError(Exception):
    """`reason` is a sentence for the node's administrator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unreachable(LinkError):
    """The service did not answer, or answered that it cannot now. Try again."""


class Refused(LinkError):
    """The service answered no. `code` is the problem's, such as `duplicate-node`."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class TunnelRequest:
    """Somebody waits for a stream to `target` (`tcp:22`, `console`, `console:tail=N`) of a workspace."""

    id: str
    workspace: str
    target: str


@dataclass(frozen=True)
class Pulled:
    """`orders` as JSON, None if nothing is newer; `time`: the service's clock when it answered."""

    orders: Any
    tunnels: tuple[TunnelRequest, ...]
    time: float


@dataclass(frozen=True)
class Acknowledged:
    """A report was committed; `generation` of the node's orders and `time` as the service has them."""

    generation: int
    time: float


class Tunnel(Protocol):
    async def send(self, data: bytes) -> None:
        """Returns when there is room for more. Raises Unreachable once the other end is gone."""
        ...

    async def receive(self) -> bytes | None:
        """None at the end."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None: ...


class Link(Protocol):
    """One node's link. All calls raise LinkError."""

    async def orders(self, after: int, wait_s: float) -> Pulled: ...

    async def report(self, report: NodeReport) -> Acknowledged: ...

    async def keep_console(self, workspace: str, data: bytes) -> None: ...

    async def keys(self, workspace: str) -> WorkspaceKeys:
        """What the node needs to run an encrypted workspace of its orders."""
        ...

    async def hand_in(self, capture: str, delta: Path, quiesced: Quiesced) -> None:
        """Send what was saved, going on where an earlier call broke off."""
        ...

    async def give_up(self, capture: str, reason: str) -> None: ...

    async def fetch(self, sha256: str, size_bytes: int, target: Path, progress: Callable[[int], None]) -> str:
        """Download a blob to `target`, resuming what is there, and tell `progress` the bytes so far. Returns the sha256
        of all that came to be there."""
        ...

    async def tunnel(self, id: str) -> Tunnel: ...

    async def reachable(self) -> None:
        """Returns as soon as somebody listens at the service's address."""
        ...


def address_of(url: str) -> tuple[str, int]:
    """(host, port)"""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 443


class Service:
    """The service's address, its CA, and the connections to it. Made inside a running event loop."""

    def __init__(self, url: str, ca: Path) -> None:
        """`url`: https://host:port; `ca`: the PEM file of the site's CA. OSError, ssl.SSLError if it cannot be read."""
        self.url = url.rstrip("/")
        self._address = address_of(self.url)
        connector = aiohttp.TCPConnector(
            ssl=ssl.create_default_context(cafile=str(ca)), limit=0, keepalive_timeout=60, ttl_dns_cache=10
        )
        self.session = aiohttp.ClientSession(connector=connector)
        self._probe: asyncio.Task[None] | None = None
        self._missed = ""

    def missed(self, reason: str) -> None:
        """A call failed; said once, however many nodes call and however often."""
        if not self._missed:
            log.warning("%s; trying on", reason)
        self._missed = reason

    def met(self) -> None:
        """A call was answered."""
        if self._missed:
            log.info("the service at %s answers again", self.url)
        self._missed = ""

    async def close(self) -> None:
        if self._probe:
            self._probe.cancel()
        await self.session.close()

    async def reachable(self) -> None:
        """One probe serves all who wait; they leave one by one, lest hundreds of nodes arrive at once."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._knock())
        await asyncio.shield(self._probe)
        await asyncio.sleep(random.uniform(0, 0.1))

    async def _knock(self) -> None:
        pause_s = 0.1
        while True:
            try:
                async with asyncio.timeout(5):
                    _, writer = await asyncio.open_connection(*self._address)
                writer.close()
                return
            except socket.gaierror:
                longest_s = 10.0
            except (OSError, TimeoutError):
                longest_s = 0.5
            await asyncio.sleep(pause_s * random.uniform(0.7, 1.0))
            pause_s = min(pause_s * 2, longest_s)


class HttpLink:
    """`Link` over HTTPS for the node `node`. `instance`: see AgentState.instance."""

    def __init__(self, service: Service, node: str, token: str, instance: str, pace: Pace | None = None) -> None:
        """pace: of the files that are fetched."""
        self._pace = pace or Pace()
        self._service = service
        self._session = service.session
        self._node = f"{service.url}/v1/nodes/{node}"
        self._instance = instance
        self._auth = {"Authorization": f"Bearer {token}"}
        self._broken_off: dict[Path, Known] = {}

    async def orders(self, after: int, wait_s: float) -> Pulled:
        query = {"after": str(after), "wait": f"{wait_s:g}", "instance": self._instance}
        timeout = aiohttp.ClientTimeout(total=wait_s + 10, sock_connect=5)
        said = await self._call("GET", "/orders", params=query, timeout=timeout)
        try:
            tunnels = tuple(TunnelRequest(t["id"], t["workspace"], t["target"]) for t in said["tunnels"])
            return Pulled(said["orders"], tunnels, float(said["time"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Unreachable(f"the service's orders make no sense ({error!r})") from None

    async def report(self, report: NodeReport) -> Acknowledged:
        body = json.dumps(to_json(report), separators=(",", ":")).encode()
        said = await self._call("POST", "/reports", data=body, headers={"Content-Type": "application/json"})
        try:
            return Acknowledged(int(said["generation"]), float(said["time"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Unreachable(f"the service's answer to a report makes no sense ({error!r})") from None

    async def keep_console(self, workspace: str, data: bytes) -> None:
        kind = {"Content-Type": "application/octet-stream"}
        await self._call("PUT", f"/consoles/{workspace}", data=data, headers=kind)

    async def keys(self, workspace: str) -> WorkspaceKeys:
        said = await self._call("POST", f"/workspaces/{workspace}/keys")
        try:
            return from_json(WorkspaceKeys, said)
        except InvalidRequest:  # which would repeat what was said
            raise Unreachable("the service's answer about a key makes no sense") from None

    async def hand_in(self, capture: str, delta: Path, quiesced: Quiesced) -> None:
        place = f"/captures/{capture}"
        said = await self._call("GET", place)
        with delta.open("rb") as file:
            sha256 = await asyncio.to_thread(_sha256, file)
            file.seek(said["offset"])
            kind = {"Content-Type": "application/octet-stream"}
            query = {"offset": str(said["offset"])}
            await self._call("PATCH", place, params=query, data=file, headers=kind, timeout=_TRANSFER)
        done = {"sha256": sha256, "quiesced": str(quiesced)}
        await self._call("POST", f"{place}/complete", json=done, timeout=_MADE)

    async def give_up(self, capture: str, reason: str) -> None:
        await self._call("POST", f"/captures/{capture}/failed", json={"reason": reason[:1000]})

    async def reachable(self) -> None:
        await self._service.reachable()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        timeout: aiohttp.ClientTimeout = _QUICK,
        **more: Any,
    ) -> Any:
        try:
            async with self._session.request(
                method, self._node + path, headers=self._auth | (headers or {}), timeout=timeout,
                allow_redirects=False, **more,
            ) as response:  # fmt: skip
                await _check(response)
                said = json.loads(await response.read() or b"{}")
        except Unreachable as error:
            self._service.missed(error.reason)
            raise
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            absence = _unreachable(error)
            self._service.missed(absence.reason)
            raise absence from None
        self._service.met()
        return said

    # -------------------------------------------------------- blobs

    async def fetch(self, sha256: str, size_bytes: int, target: Path, progress: Callable[[int], None]) -> str:
        landing = await asyncio.to_thread(Landing, target, size_bytes, self._broken_off.pop(target, None))
        try:
            if landing.position != size_bytes:
                await self._receive(sha256, landing, target, progress)
            return landing.sha256()
        except InvalidRequest as error:
            target.unlink(missing_ok=True)
            raise Unreachable(f"what the service sends is not the file ({error.problem}); fetching it anew") from None
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            self._break_off(target, landing)
            raise _unreachable(error) from None
        except (Unreachable, asyncio.CancelledError):
            self._break_off(target, landing)
            raise
        finally:
            landing.close()

    def _break_off(self, target: Path, landing: Landing) -> None:
        """Remember what is known of a file that is half here, of a few of them."""
        self._broken_off[target] = landing.known()
        for oldest in list(self._broken_off)[:-_BROKEN_OFF_KEPT]:
            del self._broken_off[oldest]

    async def _receive(self, sha256: str, landing: Landing, target: Path, progress: Callable[[int], None]) -> None:
        url = f"{self._service.url}/v1/blobs/{sha256}"
        query = {"holes": "skip", "offset": str(landing.position)}
        async with self._session.get(
            url, params=query, headers=self._auth, timeout=_TRANSFER, allow_redirects=False, read_bufsize=PIECE_BYTES
        ) as response:
            if response.status == 416:
                target.unlink(missing_ok=True)
                raise Unreachable("the service has another length of this file; fetching it anew")
            await _check(response)
            await land(response.content.iter_any(), landing, progress, self._pace)
        if not landing.whole:
            raise Unreachable("the service's answer was cut short")

    # -------------------------------------------------------- tunnels

    async def tunnel(self, id: str) -> Tunnel:
        try:
            socket = await self._session.ws_connect(
                f"{self._node}/tunnels/{id}",
                headers=self._auth,
                protocols=(TUNNEL_BEATS,),
                compress=0,
                heartbeat=30,
                timeout=_TUNNEL,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise Refused(error.status, "", f"the service refused the tunnel ({error.status})") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from None
        return SocketTunnel(socket)


_TUNNEL = aiohttp.ClientWSTimeout(ws_close=5)


class SocketTunnel:
    """`Tunnel` over a WebSocket of binary messages. With a service that knows of it, an empty one now and then says
    that this end lives: a node that vanished says no farewell, and the user would wait for its guest."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._beating = asyncio.create_task(self._beat()) if socket.protocol == TUNNEL_BEATS else None

    async def _beat(self) -> None:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            while True:
                await asyncio.sleep(BEAT_S)
                await self._socket.send_bytes(b"")

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _unreachable(error) from None

    async def receive(self) -> bytes | None:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is aiohttp.WSMsgType.TEXT:
            return str(message.data).encode()
        return None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self._beating is not None:
            self._beating.cancel()
        # The protocol's limit is 123 bytes of UTF-8; half a character would make the frame invalid.
        short = reason.encode()[:123].decode("utf-8", "ignore").encode()
        await self._socket.close(code=code, message=short)


def _sha256(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raise what an answer other than 2xx means."""
    if response.status < 300:
        return
    body = await response.content.read(8192)
    code, reason = _problem(body)
    reason = reason or f"the service answered {response.status} {response.reason}"
    if response.status >= 500 or response.status in (408, 429):
        raise Unreachable(reason)
    raise Refused(response.status, code, reason)


def _problem(body: bytes) -> tuple[str, str]:
    """(code, detail) of an RFC 9457 problem; empty strings if it is none."""
    try:
        said = json.loads(body)
        return str(said.get("code", "")), str(said.get("detail") or said.get("title") or "")
    except (ValueError, AttributeError):
        return "", ""


def _unreachable(error: Exception) -> Unreachable:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Unreachable(f"the service's certificate is not one of this site's CA ({error.certificate_error})")
    if isinstance(error, TimeoutError):
        return Unreachable("the service did not answer in time")
    if isinstance(error, ValueError):
        return Unreachable("the service's answer is not JSON")
    return Unreachable(f"the service cannot be reached ({error or type(error).__name__})")
