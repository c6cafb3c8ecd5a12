"""The guests' front end as an ASGI app: seven calls, no framework between a guest and its answer.

A thousand machines boot together and each calls a handful of times within a second or two, beside people who want
their own answers quickly. So a call here costs little more than its bytes: no thread, no validator, no dependency
injection; documents are made of pieces that their readers share, and large ones go out a few at a time, because what is
handed to a connection lies in memory until the guest has taken it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from vws.core.errors import InvalidRequest, NotFound, TooLarge, Unauthenticated, Unavailable, VwsError
from vws.core.saying import LOG_BYTES_MAX, VALUE_BYTES_MAX
from vws.frontends.faults import shorten
from vws.frontends.metadata.polls import Polls
from vws.frontends.metadata.text import (
    GZIP_BYTES_MIN,
    Packer,
    error_text,
    read_form,
    read_identity,
    read_ran,
    read_turn,
    size_bytes,
    whole,
)
from vws.service.contexts import Contexts, Here

log = logging.getLogger("vws.guests")

PREFIX = "/context/v1/"
WAIT_S_MAX = 300
BODY_BYTES_MAX = 64 * 1024
TURN_BYTES_MAX = LOG_BYTES_MAX + 2 * 1024
CHUNK_BYTES = 64 * 1024
LARGE_AT_ONCE = 24

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Metadata:
    """`open` in the loop that serves; `close` from anywhere."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._packer = Packer()
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self.polls = Polls(contexts)
        self._calls: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]] = {
            ("POST", "join"): self._join,
            ("PUT", "identity"): self._identity,
            ("GET", "document"): self._document,
            ("POST", "turn"): self._turn,
            ("PUT", "values"): self._value,
            ("POST", "ran"): self._ran,
            ("POST", "certificate"): self._certificate,
        }

    def open(self) -> None:
        self.polls.open()

    def close(self) -> None:
        self.polls.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange, began_at = Exchange(scope, receive, send), time.monotonic()
        try:
            await self._route(exchange)(exchange)
        except VwsError as error:
            status, text = error_text(error)
            await exchange.answer(status, text.encode())
        except Gone:
            exchange.status = 499
        except Exception:
            log.exception("%s %s failed", scope["method"], exchange.path)
            if exchange.status:
                raise
            await exchange.answer(500, b"error internal something went wrong that nobody foresaw; it was logged\n")
        finally:
            level = logging.DEBUG if exchange.status < 400 else logging.INFO
            if log.isEnabledFor(level):
                took_s = time.monotonic() - began_at
                log.log(
                    level, "%s %s %d %.3f s %s", scope["method"], exchange.path, exchange.status, took_s, exchange.who
                )

    def _route(self, exchange: Exchange) -> Callable[[Exchange], Awaitable[None]]:
        word = exchange.path.removeprefix(PREFIX).partition("/")[0]
        call = self._calls.get((exchange.scope["method"], word))
        if call is None or (word != "values" and exchange.path != PREFIX + word):
            raise NotFound(
                f"there is no {exchange.scope['method']} {shorten(exchange.path, 80)}",
                possible=", ".join(f"{method} {word}" for method, word in self._calls),
            )
        return call

    # ------------------------------------------------------------ calls

    async def _join(self, exchange: Exchange) -> None:
        secret = exchange.authorization("Secret")
        token_sha256 = read_form(await exchange.body(1024))
        member, context = await _committed(self._contexts.join(secret, token_sha256))
        exchange.who = f"{context} {member}"
        await exchange.answer(200, f"member\t{member}\t{context}\n".encode())

    def _here(self, exchange: Exchange) -> Here:
        here = self._contexts.authenticate(exchange.authorization("Bearer"))
        exchange.who = f"{here.context} {here.member}"
        return here

    async def _identity(self, exchange: Exchange) -> None:
        here = self._here(exchange)
        await _committed(self._contexts.report(here, read_identity(await exchange.body())))
        await exchange.answer(204)

    async def _value(self, exchange: Exchange) -> None:
        here, name = self._here(exchange), exchange.path.removeprefix(PREFIX + "values/")
        await _committed(self._contexts.publish(here, name, await exchange.body(VALUE_BYTES_MAX)))
        await exchange.answer(204)

    async def _ran(self, exchange: Exchange) -> None:
        here, ran = self._here(exchange), read_ran(exchange.query)
        await _committed(self._contexts.ended(here, ran, await exchange.body(LOG_BYTES_MAX)))
        await exchange.answer(204)

    async def _certificate(self, exchange: Exchange) -> None:
        here, request = self._here(exchange), await exchange.body(16 * 1024)
        await exchange.answer(200, await asyncio.to_thread(self._contexts.certificate, here, request))

    async def _turn(self, exchange: Exchange) -> None:
        """A hook's end and the document in one, all in the body: a guest's curl has the address before it knows."""
        here, (said, printed) = self._here(exchange), read_turn(await exchange.body(TURN_BYTES_MAX))
        if "hook" in said:
            await _committed(self._contexts.ended(here, read_ran(said), printed))
        await self._tell(exchange, here, said)

    async def _document(self, exchange: Exchange) -> None:
        await self._tell(exchange, self._here(exchange), exchange.query)

    async def _tell(self, exchange: Exchange, here: Here, asked: Mapping[str, str]) -> None:
        since, wait_s = whole(asked, "since", "0"), whole(asked, "wait", "0")
        if wait_s > WAIT_S_MAX:
            raise InvalidRequest("wait is out of bounds", field="wait", asked=wait_s, possible=f"0 to {WAIT_S_MAX} s")
        self._contexts.heard(here, since)
        if not await self._news(exchange, here, since, wait_s):
            await exchange.answer(204)
            return
        document = self._contexts.document(here, since)
        if document is None:
            await exchange.answer(204)
            return
        large = size_bytes(document) >= GZIP_BYTES_MIN
        if not large or not exchange.takes_gzip:
            await self._send(exchange, document.text)
        else:
            await self._send(exchange, self._packer.pack(document), [(b"content-encoding", b"gzip")])

    async def _news(self, exchange: Exchange, here: Here, since: int, wait_s: int) -> bool:
        if not since:
            return True
        leaving = asyncio.ensure_future(exchange.gone())
        try:
            found = await self.polls.news(here, since, wait_s, leaving)
            if leaving.done():
                raise Gone
        finally:
            leaving.cancel()
        if self.polls.stopping:
            raise Unavailable("the service is stopping", possible="the same when it is back")
        return found

    async def _send(self, exchange: Exchange, text: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        if len(text) <= CHUNK_BYTES:
            await exchange.answer(200, text, headers)
            return
        async with self._large:
            await exchange.answer(200, text, headers)


async def _committed(done: Any) -> Any:
    return await asyncio.wrap_future(done)


class Gone(Exception):
    """The guest has closed its connection."""


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.path: str = scope["path"]
        self.status = 0
        self.who = "-"
        self._receive = receive
        self._send = send
        self._headers: dict[bytes, str] = {name: value.decode("latin-1") for name, value in scope["headers"]}

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.scope["query_string"].decode("latin-1"), keep_blank_values=True))

    @property
    def takes_gzip(self) -> bool:
        return "gzip" in self._headers.get(b"accept-encoding", "")

    def authorization(self, scheme: str) -> str:
        found, _, said = self._headers.get(b"authorization", "").partition(" ")
        if found.lower() != scheme.lower() or not said.strip():
            raise Unauthenticated(
                f"no {scheme.lower()} was given", field="Authorization", possible=f"Authorization: {scheme} ..."
            )
        return said.strip()

    async def body(self, bytes_max: int = BODY_BYTES_MAX) -> bytes:
        announced = self._headers.get(b"content-length", "0")
        if announced.isdecimal() and int(announced[:19]) > bytes_max:
            raise _too_large(bytes_max)
        parts, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > bytes_max:
                raise _too_large(bytes_max)
            if not message.get("more_body"):
                return b"".join(parts)

    async def gone(self) -> None:
        """Returns when the guest has closed its connection."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, text: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.status = status
        given = [(b"cache-control", b"no-store"), *(headers or [])]
        if status != 204:
            given += [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
        if status == 413:
            given.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": given})
        if len(text) <= CHUNK_BYTES:
            await self._send({"type": "http.response.body", "body": text})
            return
        view = memoryview(text)
        for begin in range(0, len(text), CHUNK_BYTES):
            part = bytes(view[begin : begin + CHUNK_BYTES])
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"the body is larger than {bytes_max} bytes", field="body", possible=f"at most {bytes_max} bytes")
