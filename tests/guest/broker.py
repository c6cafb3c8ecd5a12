"""A broker for tests of the guest agent: the protocol over real HTTPS, and nothing of a context's rules.

A test says line by line what members are told, sees every call that came in, and can have any of them fail.
"""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

SECRET = "one-time_secret.1"
NAME = "broker.test"


@dataclass(frozen=True, slots=True)
class Call:
    """One that came in; `query` without repeated names."""

    method: str
    path: str
    query: dict[str, str]
    authorization: str
    body: bytes
    at: float

    @property
    def what(self) -> str:
        return f"{self.method} {self.path}"


Answer = tuple[int, bytes] | None  # None: the connection is cut


def line(*fields: str) -> str:
    return "\t".join(fields)


def make_certificate(folder: Path) -> None:
    """cert.pem and key.pem in `folder`: an authority that is its own server, for NAME."""
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
            *("-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"),
        ],
        check=True,
        capture_output=True,
    )


class Broker:
    """Serves until `close`. `fail` is asked first what to answer a call; "proceed" lets it be answered as usual."""

    def __init__(self, certificate: Path) -> None:
        self.calls: list[Call] = []
        self.tokens: list[str] = []
        self.lines: list[tuple[int, str]] = []
        self.version, self.state = 0, "open"
        self.fail: Callable[[Call], Answer | str] = lambda call: "proceed"
        self.news = threading.Condition()
        self.certificate = certificate
        self.server = self._serve(0)
        self.port = self.server.server_address[1]

    def _serve(self, port: int) -> ThreadingHTTPServer:
        broker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (OSError, ssl.SSLError):
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                broker._answer(self)

            do_POST = do_PUT = do_GET

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate / "cert.pem", self.certificate / "key.pem")

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that does not trust us

            def finish_request(self, request: object, client_address: object) -> None:
                secured = context.wrap_socket(request, server_side=True)  # type: ignore[arg-type]
                try:
                    self.RequestHandlerClass(secured, client_address, self)
                finally:
                    secured.close()

        server = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        with self.news:
            self.news.notify_all()

    def restart(self) -> None:
        self.server = self._serve(self.port)
        with self.news:
            self.news.notify_all()

    # What members are told.

    def say(self, *lines: str, state: str | None = None) -> int:
        """All of `lines` in one version, which it returns."""
        with self.news:
            self.version += 1
            self.lines += [(self.version, text) for text in lines]
            self.state = state or self.state
            self.news.notify_all()
            return self.version

    def document(self, since: int) -> bytes:
        told = [text for version, text in self.lines if version > since]
        return "\n".join([line("vws-context", "1", str(self.version), self.state), *told, "end", ""]).encode()

    # What they said.

    def heard(self, what: str) -> list[Call]:
        """The calls by the beginning of their method and path."""
        return [call for call in list(self.calls) if call.what.startswith(what)]

    def wait_for(self, what: str, count: int = 1, limit_s: float = 60) -> list[Call]:
        deadline = time.monotonic() + limit_s
        while len(found := self.heard(what)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} {what}: {[c.what for c in self.calls]}"
            time.sleep(0.02)
        return found

    def wait_for_hook(self, hook: str, *, role: str, count: int = 1, limit_s: float = 60) -> Call:
        """The last of `count` reports of a hook's end."""
        deadline = time.monotonic() + limit_s
        wanted = {"hook": hook, "role": role}
        while True:
            found = [call for call in self.heard("POST ran") if wanted.items() <= call.query.items()]
            if len(found) >= count:
                return found[count - 1]
            assert time.monotonic() < deadline, [call.query for call in self.heard("POST ran")]
            time.sleep(0.02)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = _body(handler)
        parts = urlsplit(handler.path)
        assert parts.path.startswith("/context/v1/"), parts.path
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = parts.path.removeprefix("/context/v1/")
        call = Call(handler.command, path, query, handler.headers.get("Authorization", ""), body, time.monotonic())
        answer: Answer = None
        for each in _parts(call):
            answer = self._hear(each)
            if answer is None or answer[0] >= 300:
                break
        if answer is None:
            handler.close_connection = True
            return
        status, content = answer
        handler.send_response(status)
        handler.send_header("Content-Length", str(0 if status == 204 else len(content)))
        handler.end_headers()
        handler.wfile.write(content if status != 204 else b"")

    def _hear(self, call: Call) -> Answer:
        self.calls.append(call)
        answer = self.fail(call)
        if isinstance(answer, str):
            return self._usual(call) if answer == "proceed" else self._usual(call) and None
        return answer

    def _usual(self, call: Call) -> tuple[int, bytes]:
        if call.path == "join":
            return self._join(call)
        if call.authorization.removeprefix("Bearer ") not in self._bearers():
            return 401, b"error unauthenticated no member has this token\n"
        if call.path == "document":
            return self._news(int(call.query["since"]), float(call.query["wait"]))
        return 204, b""

    def _join(self, call: Call) -> tuple[int, bytes]:
        if call.authorization != f"Secret {SECRET}":
            return 403, b"error forbidden there is no such secret\n"
        self.tokens.append(call.body.decode().removeprefix("token_sha256="))
        if len(set(self.tokens)) > 1:
            return 403, b"error secret-used the secret was traded already\n"
        return 200, b"member\tworker-1\tctx-1\n"

    def _bearers(self) -> set[str]:
        """The tokens whose hashes joined, of those that were ever shown."""
        shown = {call.authorization.removeprefix("Bearer ") for call in list(self.calls)}
        return {token for token in shown if hashlib.sha256(token.encode()).hexdigest() in self.tokens}

    def _news(self, since: int, wait_s: float) -> tuple[int, bytes]:
        server = self.server
        with self.news:
            self.news.wait_for(lambda: self.version > since or server is not self.server, wait_s)
            if self.version == since:
                return 204, b""
            return 200, self.document(since)


def _parts(call: Call) -> list[Call]:
    """A turn is a hook's end, if there is one, and asking for the document, and is heard as these."""
    if call.path != "turn":
        return [call]
    first, _, printed = call.body.partition(b"\n")
    said = dict(parse_qsl(first.decode()))
    asked = {name: said.pop(name) for name in ("since", "wait")}
    ask = replace(call, method="GET", path="document", query=asked, body=b"")
    return [replace(call, path="ran", query=said, body=printed), ask] if said else [ask]


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    """Of a length that was said, or in chunks."""
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body
