"""How a site is reached: where it is, whom it is known by, and what happens when a connection breaks.

Every change is sent under a client token, and again under the same one when no answer came: it happens once however
often it was sent. What cannot be repeated so (a site that is silent for a minute) is not repeated.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vws.client.errors import ApiError, ConnectionFailed, Json, members_of

if TYPE_CHECKING:
    import httpx

TRIES_MAX = 3
PAUSE_S = 0.2
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
# A stream that is silent for longer than two of the service's heartbeats is broken.
FOLLOW_TIMEOUT_S = 40.0
# Of silence: a disk may have to be converted before the first byte comes.
DOWNLOAD_TIMEOUT_S = 900.0
CHUNK_BYTES = 256 * 1024
SILENT_TIMEOUT_S = 60.0
PAGE_ITEMS = 1000
SITE_URL = r"https?://(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d{1,5})?(/\S*)?"


class Connection:
    """The way to one site, as one user. Thread-safe; close it, or use it as a context manager.

    new_client_token: makes the token under which each change is asked for once; a program that was killed and asks
    again under the same token gets the first answer.
    """

    def __init__(self, url: str, token: str = "", ca: str | os.PathLike[str] | None = None) -> None:
        """url: `https://host:port`. ca: the certificate of the site's authority, as PEM text or a file's path;
        without it the system's authorities are trusted."""
        self.url = url.rstrip("/")
        self._token = token
        self._ca = ca
        self._lock = threading.Lock()
        self._session: httpx.Client | None = None
        self._trust: ssl.SSLContext | None = None
        self.new_client_token: Callable[[], str] = lambda: str(uuid.uuid4())

    @classmethod
    def from_dir(cls, directory: str | os.PathLike[str]) -> Self:
        """The site whose directory this is, as its administrator; ConnectionFailed if there is none."""
        path = Path(directory)
        try:
            url, token = (path / "url").read_text().strip(), (path / "admin.token").read_text().strip()
        except FileNotFoundError:
            raise ConnectionFailed(
                f"there is no started site in {path}",
                code="no-site",
                possible="vws site init and vws site start; or name another with --dir, VWS_DIR or VWS_URL",
            ) from None
        except OSError as error:
            raise ConnectionFailed(
                f"{error.filename} cannot be read: {error.strerror}",
                code="no-site",
                possible="the user who made the site may; others set VWS_URL, VWS_TOKEN and VWS_CA",
            ) from None
        return cls(url, token, path / "ca.crt")

    @classmethod
    def from_environment(cls) -> Self:
        """VWS_URL with VWS_TOKEN and VWS_CA; else the directory VWS_DIR; else the default one."""
        if os.environ.get("VWS_URL"):
            return cls(os.environ["VWS_URL"], os.environ.get("VWS_TOKEN", ""), os.environ.get("VWS_CA") or None)
        default = "/var/lib/vws" if os.geteuid() == 0 else Path.home() / ".local/share/vws"
        return cls.from_dir(os.environ.get("VWS_DIR") or default)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    # ------------------------------------------------------------ requests

    def _json(self, method: str, path: str, **more: Any) -> Json:
        return parsed(self._send(method, path, **more))

    def _change(
        self, method: str, path: str, body: Json | None = None, headers: dict[str, str] | None = None, **more: Any
    ) -> Json:
        if body is not None:
            more["json"] = {name: value for name, value in body.items() if value is not None}
        return self._json(method, path, headers=self._client_token() | (headers or {}), **more)

    def _client_token(self) -> dict[str, str]:
        return {"Idempotency-Key": self.new_client_token()}

    def _pages(self, path: str, where: Json) -> Iterator[Json]:
        where = {"limit": PAGE_ITEMS} | where
        while True:
            page = self._json("GET", path, params=given(where))
            yield from page["items"]
            if page["next"] is None:
                return
            where["after"] = page["next"]

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: Callable[[], Iterator[bytes]] | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
        **more: Any,
    ) -> httpx.Response:
        """The answer, at most TRIES_MAX requests later; raises ApiError and ConnectionFailed."""
        import httpx

        session, timeout = self._http(), httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        for attempt in range(1, TRIES_MAX + 1):
            if content:
                more["content"] = content()
            try:
                return _check(session.request(method, path, timeout=timeout, **more))
            except httpx.TransportError as error:
                # Who was silent for the whole time will not answer a repeat sooner.
                if attempt == TRIES_MAX or isinstance(error, httpx.ReadTimeout) or _untrusted(error):
                    raise self.failed(error) from None
                time.sleep(PAUSE_S * attempt)
        raise AssertionError("unreachable")

    def _http(self) -> httpx.Client:
        with self._lock:
            if self._session is None:
                import httpx

                try:
                    trust = self.trust() or _trusting_nobody()
                    self._session = httpx.Client(base_url=self.url, headers=self.headers, verify=trust, trust_env=False)
                except (httpx.InvalidURL, UnicodeError):
                    raise self._no_url() from None
            return self._session

    @property
    def headers(self) -> dict[str, str]:
        token = self._token.strip()
        if not token.isascii() or not token.isprintable():
            raise ConnectionFailed("the token is malformed", code="unauthenticated", possible="check VWS_TOKEN")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def trust(self) -> ssl.SSLContext | None:
        """What the service's certificate must come from; None for a URL without TLS."""
        if not self.url.startswith("https:"):
            return None
        if self._trust is None:
            given = os.fspath(self._ca) if self._ca is not None else None
            try:
                if given is not None and "-----BEGIN" in given:
                    self._trust = ssl.create_default_context(cadata=given)
                else:
                    self._trust = ssl.create_default_context(cafile=given)
            except (OSError, ssl.SSLError) as error:
                raise ConnectionFailed(
                    f"the certificate {str(given)[:100]} cannot be read: {error}",
                    code="untrusted",
                    possible="VWS_CA=FILE names the certificate of the site's authority (ca.crt in its directory)",
                ) from None
        return self._trust

    def failed(self, error: Exception) -> ConnectionFailed:
        if _untrusted(error):
            return ConnectionFailed(
                f"the certificate of {self.url} is not trusted: {error}",
                code="untrusted",
                possible="VWS_CA=FILE names the certificate of the site's authority (ca.crt in its directory)",
            )
        if not re.fullmatch(SITE_URL, self.url):
            return self._no_url()
        why = str(error) or type(error).__name__
        return ConnectionFailed(
            f"{self.url} does not answer: {why}",
            code="unreachable",
            possible="vws site status says what runs, vws site start starts it; VWS_URL names a site elsewhere",
        )

    def _no_url(self) -> ConnectionFailed:
        return ConnectionFailed(f"{self.url!r} is not a URL", code="no-site", possible="VWS_URL=https://HOST:PORT")

    def _stream(self, last_id: str | None, where: Json) -> Iterator[tuple[str | None, Json | None]]:
        import httpx

        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        timeout = httpx.Timeout(FOLLOW_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            with self._http().stream(
                "GET", "/v1/events", params=given(where), headers=headers, timeout=timeout
            ) as answer:
                if answer.status_code != 200:
                    answer.read()
                    _check(answer)
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "id":
                        last_id = value
                    yield last_id, json.loads(value) if name == "data" else None
        except httpx.TransportError as error:
            raise self.failed(error) from None

    def _named_events(self, path: str, where: Json) -> Iterator[tuple[str, Json]]:
        """The server-sent events of one answer, each with its name."""
        import httpx

        timeout = httpx.Timeout(FOLLOW_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        headers = {"Accept": "text/event-stream"}
        try:
            with self._http().stream("GET", path, params=given(where), headers=headers, timeout=timeout) as answer:
                if answer.status_code != 200:
                    answer.read()
                    _check(answer)
                name = ""
                for line in answer.iter_lines():
                    field, _, value = line.partition(": ")
                    if field == "event":
                        name = value
                    elif field == "data":
                        yield name, json.loads(value)
        except httpx.TransportError as error:
            raise self.failed(error) from None

    def get(self, path: str, **where: Any) -> Json:
        return self._json("GET", path, params=given(where))

    def post(
        self, path: str, body: Json, *, timeout_s: float = ANSWER_TIMEOUT_S, headers: dict[str, str] | None = None
    ) -> Json:
        return self._change("POST", path, body, timeout_s=timeout_s, headers=headers)

    def stream_to(self, path: str, pieces: Iterator[bytes], where: Json, kind: str, timeout_s: float) -> None:
        """PATCH a body of that media type as it is made, once: who sends it knows where to go on."""
        import httpx

        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S, write=SILENT_TIMEOUT_S)
        try:
            headers = {"Content-Type": kind}
            _check(self._http().request("PATCH", path, params=where, content=pieces, headers=headers, timeout=timeout))
        except httpx.TransportError as error:
            raise self.failed(error) from None

    def stream_from(self, path: str, where: Json) -> Iterator[bytes]:
        """An answer's body as it comes, once."""
        import httpx

        timeout = httpx.Timeout(SILENT_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            with self._http().stream("GET", path, params=where, timeout=timeout) as answer:
                if answer.status_code != 200:
                    answer.read()
                    _check(answer)
                yield from answer.iter_raw(CHUNK_BYTES)
        except httpx.TransportError as error:
            raise self.failed(error) from None

    @contextmanager
    def receiving(self, path: str, where: Json, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """An answer of which the body is yet to come, 200 or 206. ApiError for a refusal."""
        import httpx

        timeout = httpx.Timeout(DOWNLOAD_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            with self._http().stream("GET", path, params=given(where), headers=headers, timeout=timeout) as answer:
                if answer.status_code not in (200, 206):
                    answer.read()
                    _check(answer)
                yield answer
        except httpx.TransportError as error:
            raise self.failed(error) from None


def given(where: Json) -> Json:
    return {name: value for name, value in where.items() if value is not None}


def _check(answer: httpx.Response) -> httpx.Response:
    if answer.status_code >= 300:
        raise ApiError(answer.status_code, members_of(answer.content))
    return answer


def parsed(answer: httpx.Response) -> Json:
    try:
        parsed: Json = json.loads(answer.content)
    except ValueError:
        raise ApiError(
            answer.status_code, {"code": "error", "detail": "the answer is not JSON: is this the URL of a VWS site?"}
        ) from None
    return parsed


def _trusting_nobody() -> ssl.SSLContext:
    """For a URL without TLS, where httpx would read the authorities of the whole web: longer than a request takes."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _untrusted(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
