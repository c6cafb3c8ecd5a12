"""The Python client of a VWS site, as the command line uses it.

    with Client.from_environment() as vws:
        lease = vws.request_lease(groups=[{"image": "demo", "count": 3}], duration_s=3600)
        lease = vws.wait_lease(lease["id"], timeout_s=120)

Answers are plain dicts and lists, as the REST API gives them. Every change is sent under a client token and repeated
under the same one when the connection breaks, so that it happens once however often it was sent. What the site
refuses is raised as `ApiError`; a site that cannot be reached as `ConnectionFailed`.

Importing this module is cheap: the HTTP and WebSocket libraries are imported when they are first needed. Proxies of
the environment are not used, for a site is mostly near and often this machine.
"""

from __future__ import annotations

import json
import os
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx
    from websockets.sync.client import ClientConnection

Json = dict[str, Any]

TRIES_MAX = 3
PAUSE_S = 0.2
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
# A large image is looked at and unpacked before the answer comes.
UPLOAD_TIMEOUT_S = 900.0
# A stream that is silent for longer than two of the service's heartbeats is broken.
FOLLOW_TIMEOUT_S = 40.0
FOLLOW_GIVE_UP_S = 120.0
TUNNEL_TIMEOUT_S = 20.0
PAGE_ITEMS = 1000
CHUNK_BYTES = 256 * 1024
MESSAGE_BYTES_MAX = 64 * 1024


class VwsClientError(Exception):
    """The root of what this module raises. `code` is for programs; `possible` says what to do next."""

    def __init__(self, problem: str, *, code: str, possible: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.code = code
        self.possible = possible


class ConnectionFailed(VwsClientError):
    """The site did not answer. code: `unreachable`, `untrusted` (its certificate is not the site's), `no-site`."""


class ApiError(VwsClientError):
    """The site refused. `members` is the whole RFC 9457 problem."""

    def __init__(self, status: int, members: Json) -> None:
        detail = str(members.get("detail") or members.get("title") or f"the service answered {status}")
        super().__init__(detail, code=str(members.get("code") or "error"), possible=members.get("possible"))
        self.status = status
        self.members = members
        self.detail = detail
        self.field: str | None = members.get("field")
        self.asked: Any = members.get("asked")
        self.nodes: list[Json] = members.get("nodes") or []
        self.offers: list[Json] = members.get("offers") or []


class Client:
    """One site, as one user. Thread-safe; close it, or use it as a context manager.

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
    def from_dir(cls, directory: str | os.PathLike[str]) -> Client:
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
    def from_environment(cls) -> Client:
        """VWS_URL with VWS_TOKEN and VWS_CA; else the directory VWS_DIR; else the default one."""
        if os.environ.get("VWS_URL"):
            return cls(os.environ["VWS_URL"], os.environ.get("VWS_TOKEN", ""), os.environ.get("VWS_CA") or None)
        default = "/var/lib/vws" if os.geteuid() == 0 else Path.home() / ".local/share/vws"
        return cls.from_dir(os.environ.get("VWS_DIR") or default)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    # ------------------------------------------------------------ leases

    def request_lease(
        self, groups: list[Json], duration_s: int, name: str | None = None, ssh_keys: list[str] | tuple[str, ...] = ()
    ) -> Json:
        """groups: dicts with image, and optionally name, count, cpus, memory_mib, disk_mib."""
        return self._change("POST", "/v1/leases", _request(groups, duration_s, name, ssh_keys))

    def explain_request(
        self, groups: list[Json], duration_s: int, name: str | None = None, ssh_keys: list[str] | tuple[str, ...] = ()
    ) -> Json:
        """What the request would be answered now: {"fits", "reason", "nodes", "offers"}."""
        return self._json("POST", "/v1/leases/explain", json=_request(groups, duration_s, name, ssh_keys))

    def leases(self, **where: Any) -> Iterator[Json]:
        """where: live, state, owner, name."""
        return self._pages("/v1/leases", where)

    def lease(self, id: str) -> Json:
        """By id or name."""
        return self._json("GET", _path("leases", id))

    def explain_lease(self, id: str) -> Json:
        return self._json("GET", _path("leases", id, "explain"))

    def extend_lease(self, id: str, duration_s: int) -> Json:
        return self._change("POST", _path("leases", id, "extend"), {"duration_s": duration_s})

    def resize_lease(
        self, id: str, *, memory_mib: int | None = None, cpus: int | None = None, group: str | None = None
    ) -> Json:
        size = {"memory_mib": memory_mib, "cpus": cpus, "group": group}
        return self._change("POST", _path("leases", id, "resize"), size)

    def cancel_lease(self, id: str) -> Json:
        return self._change("DELETE", _path("leases", id))

    def wait_lease(self, id: str, timeout_s: float = 600.0, on_change: Callable[[Json], object] | None = None) -> Json:
        """The lease once it is no longer pending: see its `state` for what became of it. `on_change` is called with
        each new look at it. TimeoutError after `timeout_s`; the lease goes on."""
        until, pause_s, before = time.monotonic() + timeout_s, 0.1, None
        while True:
            lease = self.lease(id)
            if on_change and lease != before:
                on_change(lease)
            if lease["state"] != "pending":
                return lease
            if time.monotonic() + pause_s > until:
                raise TimeoutError(f"the lease {lease['name']} is still pending after {timeout_s:g} s")
            before = lease
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.3, 0.5)

    # ------------------------------------------------------------ workspaces

    def workspaces(self, **where: Any) -> Iterator[Json]:
        """where: live, state, owner, lease, node, name."""
        return self._pages("/v1/workspaces", where)

    def workspace(self, id: str) -> Json:
        """By id or name."""
        return self._json("GET", _path("workspaces", id))

    def command(self, id: str, verb: str) -> Json:
        """verb: pause, resume, suspend, restore, reboot or terminate."""
        if verb == "terminate":
            return self.terminate_workspace(id)
        return self._change("POST", _path("workspaces", id, verb))

    def terminate_workspace(self, id: str) -> Json:
        return self._change("DELETE", _path("workspaces", id))

    def console(self, id: str, tail_bytes: int = 65536) -> bytes:
        """The end of the serial console's log."""
        return self._send("GET", _path("workspaces", id, "console"), params={"tail_bytes": tail_bytes}).content

    def tunnel(self, id: str, port: int = 22) -> Tunnel:
        """A byte stream to a TCP port of the guest. ApiError if the workspace does not run."""
        return Tunnel(self, _path("workspaces", id, "tunnel") + f"?port={port}")

    # ------------------------------------------------------------ images

    def upload_image(
        self, file: str | os.PathLike[str], name: str, *, progress: Callable[[int], object] | None = None
    ) -> Json:
        """Import a disk image or an appliance. `progress` is called with the bytes sent so far; they begin anew when
        a broken connection makes the upload begin anew. OSError if the file cannot be read."""
        path = Path(file)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        answer = self._send(
            "POST",
            "/v1/images",
            params={"name": name},
            headers=headers | self._client_token(),
            content=lambda: _pieces(path, progress),
            timeout_s=UPLOAD_TIMEOUT_S,
        )
        return _parsed(answer)

    def images(self, **where: Any) -> Iterator[Json]:
        """where: name, all."""
        return self._pages("/v1/images", where)

    def image(self, id: str) -> Json:
        """By id or name."""
        return self._json("GET", _path("images", id))

    def remove_image(self, id: str) -> Json:
        return self._change("DELETE", _path("images", id))

    # ------------------------------------------------------------ nodes

    def nodes(self, **where: Any) -> Iterator[Json]:
        """where: name, all."""
        return self._pages("/v1/nodes", where)

    def node(self, id: str) -> Json:
        """By id or name."""
        return self._json("GET", _path("nodes", id))

    def drain_node(self, id: str) -> Json:
        return self._change("POST", _path("nodes", id, "drain"))

    def undrain_node(self, id: str) -> Json:
        return self._change("POST", _path("nodes", id, "undrain"))

    def remove_node(self, id: str, *, force: bool = False) -> Json:
        return self._change("DELETE", _path("nodes", id), params={"force": force})

    def invite_node(self, lifetime_s: int = 3600) -> Json:
        """{"token": ..., "url": ...}: what another host needs to join, once."""
        return self._change("POST", "/v1/nodes/invitations", {"lifetime_s": lifetime_s})

    def join_site(self, name: str, instance: str, version: str) -> Json:
        """Become a node, with a join token: {"node", "name", "token", "subnet"}. The join token is spent by it."""
        return self._change("POST", "/v1/nodes/join", {"name": name, "instance": instance, "version": version})

    # ------------------------------------------------------------ tokens

    def create_token(self, subject: str, role: str = "user", lifetime_s: int | None = None) -> Json:
        """The token's text is in `token`, this once."""
        return self._change("POST", "/v1/tokens", {"subject": subject, "role": role, "lifetime_s": lifetime_s})

    def tokens(self, **where: Any) -> Iterator[Json]:
        """where: live."""
        return self._pages("/v1/tokens", where)

    def revoke_token(self, id: str) -> Json:
        return self._change("DELETE", _path("tokens", id))

    # ------------------------------------------------------------ events

    def events(self, after: int | None = None, **where: Any) -> Iterator[Json]:
        """What happened, in order. where: lease, workspace, node."""
        return self._pages("/v1/events", where | {"after": after})

    def follow_events(self, after: int | None = None, **where: Any) -> Iterator[Json]:
        """Events as they happen, without end: from now on, or those after the seq `after`. Broken connections are
        made anew and nothing is left out; ConnectionFailed if there is none at first, or for two minutes."""
        last_id, heard_at = None if after is None else str(after), float("-inf")
        while True:
            try:
                for seen_id, event in self._stream(last_id, where):
                    last_id, heard_at = seen_id, time.monotonic()
                    if event is not None:
                        yield event
            except ConnectionFailed:
                if time.monotonic() - heard_at > FOLLOW_GIVE_UP_S:
                    raise
            time.sleep(1)

    def _stream(self, last_id: str | None, where: Json) -> Iterator[tuple[str | None, Json | None]]:
        import httpx

        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        timeout = httpx.Timeout(FOLLOW_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            with self._http().stream(
                "GET", "/v1/events", params=_given(where), headers=headers, timeout=timeout
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
            raise self._failed(error) from None

    # ------------------------------------------------------------ the site

    def site(self) -> Json:
        """name, url, version, time."""
        return self._json("GET", "/v1/site")

    def healthy(self) -> bool:
        """Does the service answer, and its store with it? One try; raises nothing."""
        import httpx

        try:
            return self._http().get("/v1/health", timeout=CONNECT_TIMEOUT_S).status_code == 200
        except (httpx.HTTPError, VwsClientError):
            return False

    # ------------------------------------------------------------ requests

    def _json(self, method: str, path: str, **more: Any) -> Json:
        return _parsed(self._send(method, path, **more))

    def _change(self, method: str, path: str, body: Json | None = None, **more: Any) -> Json:
        if body is not None:
            more["json"] = {name: value for name, value in body.items() if value is not None}
        return self._json(method, path, headers=self._client_token(), **more)

    def _client_token(self) -> dict[str, str]:
        return {"Idempotency-Key": self.new_client_token()}

    def _pages(self, path: str, where: Json) -> Iterator[Json]:
        where = {"limit": PAGE_ITEMS} | where
        while True:
            page = self._json("GET", path, params=_given(where))
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
                    raise self._failed(error) from None
                time.sleep(PAUSE_S * attempt)
        raise AssertionError("unreachable")

    def _http(self) -> httpx.Client:
        with self._lock:
            if self._session is None:
                import httpx

                try:
                    self._session = httpx.Client(
                        base_url=self.url, headers=self.headers, verify=self.trust() or True, trust_env=False
                    )
                except (httpx.InvalidURL, UnicodeError) as error:
                    raise ConnectionFailed(
                        f"{self.url!r} is no URL: {error}", code="unreachable", possible="VWS_URL=https://host:port"
                    ) from None
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

    def _failed(self, error: Exception) -> ConnectionFailed:
        if _untrusted(error):
            return ConnectionFailed(
                f"the certificate of {self.url} is not trusted: {error}",
                code="untrusted",
                possible="VWS_CA=FILE names the certificate of the site's authority (ca.crt in its directory)",
            )
        why = str(error) or type(error).__name__
        return ConnectionFailed(
            f"{self.url} does not answer: {why}",
            code="unreachable",
            possible="vws site status says what runs, vws site start starts it; VWS_URL names a site elsewhere",
        )


class Tunnel:
    """A byte stream to a guest. One thread may read while another writes."""

    def __init__(self, client: Client, path: str) -> None:
        self._closing = ExitStack()
        self._socket = self._closing.enter_context(_connected(client, path))

    def read(self) -> bytes:
        """The next bytes; b"" at the end. ConnectionFailed if the site or the node broke it off, saying why."""
        from websockets.exceptions import ConnectionClosed

        try:
            data = self._socket.recv()
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code >= 4000:
                raise ConnectionFailed(closed.rcvd.reason or "the tunnel broke off", code="tunnel-closed") from None
            return b""
        return data.encode() if isinstance(data, str) else data

    def write(self, data: bytes) -> None:
        """Returns when there is room for more; does nothing after the end."""
        from websockets.exceptions import ConnectionClosed

        try:
            for start in range(0, len(data), MESSAGE_BYTES_MAX):
                self._socket.send(data[start : start + MESSAGE_BYTES_MAX])
        except ConnectionClosed:
            return

    recv, send = read, write

    def close(self) -> None:
        self._socket.close()
        self._closing.close()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def _connected(client: Client, path: str) -> Iterator[ClientConnection]:
    from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
    from websockets.sync.client import connect

    with ExitStack() as closing:
        try:
            made = connect(
                "ws" + client.url.removeprefix("http") + path,
                ssl=client.trust(),
                additional_headers=client.headers,
                compression=None,
                proxy=None,
                open_timeout=TUNNEL_TIMEOUT_S,
                max_size=None,
            )
            socket = closing.enter_context(made)
        except InvalidStatus as refused:
            raise ApiError(refused.response.status_code, _members(bytes(refused.response.body or b""))) from None
        except (OSError, ValueError, InvalidHandshake, InvalidURI) as error:
            raise client._failed(error) from None
        yield socket


# ---------------------------------------------------------------- parts


def _request(groups: list[Json], duration_s: int, name: str | None, ssh_keys: list[str] | tuple[str, ...]) -> Json:
    body: Json = {"groups": groups, "duration_s": duration_s, "ssh_keys": list(ssh_keys)}
    return body | ({"name": name} if name is not None else {})


def _path(*parts: str) -> str:
    from urllib.parse import quote

    # A name of dots alone would be taken for a folder.
    return "/v1/" + "/".join(quote(part, safe="").replace(".", "%2E") for part in parts)


def _given(where: Json) -> Json:
    return {name: value for name, value in where.items() if value is not None}


def _pieces(path: Path, progress: Callable[[int], object] | None) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece
            sent += len(piece)
            if progress:
                progress(sent)


def _check(answer: httpx.Response) -> httpx.Response:
    if answer.status_code >= 300:
        raise ApiError(answer.status_code, _members(answer.content))
    return answer


def _members(body: bytes) -> Json:
    """The members of a problem; none if the answer comes from something that is no VWS."""
    try:
        members = json.loads(body)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _parsed(answer: httpx.Response) -> Json:
    try:
        parsed: Json = json.loads(answer.content)
    except ValueError:
        raise ApiError(
            answer.status_code, {"code": "error", "detail": "the answer is not JSON: is this the URL of a VWS site?"}
        ) from None
    return parsed


def _untrusted(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
