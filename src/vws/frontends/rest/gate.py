"""The outermost layer of every request: its reference, its line in the log, its time, and the last safety net.

What nobody foresaw is logged with its trace under the request's reference; the caller gets the reference. A line of
the log holds the path but neither query nor headers, so no secret can be in it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vws.frontends.faults import Fault
from vws.frontends.rest.metrics import Metrics
from vws.frontends.rest.problems import problem
from vws.frontends.rest.wakeups import Wakeups

log = logging.getLogger("vws.access")

# After a refusal that did not wait for the body, the rest of it is read and dropped for a while: a client that sends
# before it listens would otherwise meet a reset connection instead of the answer.
LINGER_S = 2.0
# Their duration is the news's, not ours.
_WAITING = {"pull_orders", "list_events"}
_LINK = {"pull_orders", "send_report"}
_CLIENT_LEFT = 499


class Gate:
    def __init__(self, app: ASGIApp, metrics: Metrics, wakeups: Wakeups) -> None:
        self._app = app
        self._metrics = metrics
        self._wakeups = wakeups

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(self._app, self._metrics, self._wakeups, scope, receive, send).run()
        elif scope["type"] == "websocket":
            await self._carry(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _carry(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_at = time.monotonic()
        try:
            await self._app(scope, receive, send)
        except Exception:
            log.exception("the tunnel %s failed", _path(scope))
            raise
        finally:
            log.info("TUNNEL %s %.1f s %s", _path(scope), time.monotonic() - started_at, _subject(scope))


class _Exchange:
    def __init__(
        self, app: ASGIApp, metrics: Metrics, wakeups: Wakeups, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._wakeups = wakeups
        self._scope = scope
        self._receive = receive
        self._send = send
        self._status = 0
        self._is_unread = _has_body(scope)
        self._cuts_off = False
        self._reference = secrets.token_hex(8)

    async def run(self) -> None:
        started_at = time.monotonic()
        try:
            await self._app(self._scope, self._listen, self._answer)
        except ClientDisconnect:
            self._status = self._status or _CLIENT_LEFT
        except Exception:
            log.exception("request %s failed: %s %s", self._reference, self._scope["method"], _path(self._scope))
            if self._status:
                raise
            await self._give_reference()
        finally:
            self._note(time.monotonic() - started_at)

    async def _give_reference(self) -> None:
        fault = Fault(
            500, "internal", "An unforeseen error", "something went wrong that nobody foresaw; it was logged",
            possible=f"tell the site's administrator the reference {self._reference}",
            details={"reference": self._reference},
        )  # fmt: skip
        await problem(fault)(self._scope, self._receive, self._answer)

    async def _listen(self) -> Message:
        message = await self._receive()
        self._is_unread = bool(message.get("more_body"))
        return message

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._reference
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
            self._cuts_off = self._status >= 400 and self._is_unread
            if self._cuts_off or self._wakeups.stopping:
                headers["Connection"] = "close"
        if self._cuts_off and message["type"] == "http.response.body" and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self._is_unread:
                    await self._listen()

    def _note(self, seconds: float) -> None:
        operation = getattr(self._scope.get("route"), "operation_id", None) or "none"
        if operation not in _WAITING:
            self._metrics.requests.labels(operation, self._status).observe(seconds)
        level = logging.DEBUG if operation in _LINK and self._status in (200, 503) else logging.INFO
        if log.isEnabledFor(level):
            log.log(
                level, "%s %s %d %.1f ms %s %s", self._scope["method"], _path(self._scope), self._status,
                seconds * 1000, _subject(self._scope), self._reference,
            )  # fmt: skip


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _path(scope: Scope) -> str:
    """As it was sent, still percent-encoded: a line feed in it cannot begin a line of the log."""
    return bytes(scope.get("raw_path") or b"").decode("ascii", "replace")[:200]


def _subject(scope: Scope) -> str:
    caller = scope.get("vws.caller")
    return caller.subject if caller else "-"
