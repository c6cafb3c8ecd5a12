"""The Python client against a real service, and against connections that break."""

from __future__ import annotations

import hashlib
import http.server
import itertools
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.frontends.conftest import Running, here, server, until  # noqa: F401 - fixtures among them
from tests.frontends.test_tunnels import dial, hear
from vws.client import ApiError, Client, ConnectionFailed, VwsClientError
from vws.service import certificates

GROUP = {"image": "demo", "count": 2, "memory_mib": 128, "disk_mib": 100}


@pytest.fixture
def ann(here: Running):  # noqa: F811
    with Client(here.url, here.ann_token) as client:
        yield client


@pytest.fixture
def root(here: Running):  # noqa: F811
    with Client(here.url, here.root_token) as client:
        yield client


def test_a_lease_from_request_to_end(here, ann):  # noqa: F811
    (node,) = here.enroll("one")
    assert ann.explain_request([GROUP], 600)["fits"]
    lease = ann.request_lease([GROUP], 600, name="cluster", ssh_keys=[])
    seen = []
    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(ann.wait_lease, lease["id"], 10, lambda now: seen.append(now["state"]))
        until(lambda: seen)
        node.obey()
        assert waited.result()["state"] == "active"
    assert (seen[0], seen[-1]) == ("pending", "active")
    assert ann.extend_lease("cluster", 60)["end"] == lease["end"] + 60
    assert ann.resize_lease("cluster", memory_mib=256)["groups"][0]["memory_mib"] == 256
    assert ann.explain_lease("cluster")["state"] == "active"
    first, second = ann.workspaces(lease="cluster", live=True)
    assert ann.workspace(first["name"])["state"] == "running"
    assert ann.command(first["id"], "suspend")["state"] == "suspending"
    assert ann.command(second["id"], "terminate")["state"] == "terminating"
    assert ann.cancel_lease("cluster")["state"] == "ending"
    node.report()
    assert [x["state"] for x in ann.leases()] == ["ended"]
    assert list(ann.leases(live=True)) == []


def test_waiting_has_an_end(here, ann):  # noqa: F811
    here.enroll("one")
    lease = ann.request_lease([GROUP], 600)
    with pytest.raises(TimeoutError, match="still pending"):
        ann.wait_lease(lease["id"], timeout_s=0.3)


def test_iterators_go_through_all_pages(here, ann, monkeypatch):  # noqa: F811
    here.enroll("one")
    monkeypatch.setattr("vws.client.connection.PAGE_ITEMS", 3)
    ann.request_lease([GROUP | {"count": 7}], 600)
    names = [w["name"] for w in ann.workspaces()]
    assert len(set(names)) == 7
    assert len(list(ann.events())) > 3


def test_administration(here, root):  # noqa: F811
    here.enroll("one")
    assert [n["name"] for n in root.nodes()] == ["one"]
    assert root.drain_node("one")["state"] == "drained"
    assert root.undrain_node("one")["state"] == "ready"
    made = root.create_token("carol", lifetime_s=60)
    with Client(here.url, made["token"]) as carol:
        assert list(carol.leases()) == []
        root.revoke_token(made["id"])
        with pytest.raises(ApiError) as refused:
            list(carol.leases())
    assert (refused.value.status, refused.value.code) == (401, "unauthenticated")
    assert {t["subject"] for t in root.tokens()} >= {"carol", "root"}
    assert root.invite_node(60)["token"].startswith("vwsj.")
    here.services.nodes.enroll(["two"])
    assert root.node("two")["state"] == "joining"
    assert root.remove_node("two")["removed_at"]
    assert root.site()["name"] == "site"


def test_refusals_carry_the_problem(here, ann):  # noqa: F811
    here.enroll("one")
    with pytest.raises(ApiError) as refused:
        ann.request_lease([GROUP | {"cpus": 0}], 600)
    error = refused.value
    assert (error.status, error.code, error.field, error.asked) == (422, "invalid-request", "groups[0].cpus", 0)
    assert error.possible == "a whole number from 1 to 1024"
    with pytest.raises(ApiError) as refused:
        ann.request_lease([GROUP | {"count": 1000}], 600)
    assert refused.value.code == "cannot-fit"
    assert refused.value.nodes[0]["name"] == "one"
    assert refused.value.offers
    for strange in ("..", "a/b", "%2e", "ü", "?x=1", "#"):
        with pytest.raises(ApiError) as refused:
            ann.lease(strange)
        assert refused.value.status == 404, strange


def test_an_upload_with_progress(here, ann, tmp_path):  # noqa: F811
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M"], check=True)
    said: list[int] = []
    image = ann.upload_image(disk, "small", progress=said.append)
    assert said[-1] == disk.stat().st_size
    assert ann.image("small") == image
    assert [i["name"] for i in ann.images()] == ["small"]
    assert ann.remove_image("small")["removed_at"]
    with pytest.raises(FileNotFoundError):
        ann.upload_image(tmp_path / "none", "none")


def test_a_refusal_that_came_early_is_heard_although_the_upload_is_cut_off(here, ann, tmp_path, monkeypatch):  # noqa: F811
    """The connection breaks in the middle of sending; nothing is sent again."""
    monkeypatch.setattr("vws.frontends.rest.gate.LINGER_S", 0.05)
    here.services.images.simulate("taken")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    said: list[int] = []
    with pytest.raises(ApiError, match="belongs to another user") as refused:
        ann.upload_image(tmp_path / "large", "taken", progress=said.append)
    assert refused.value.status == 409
    assert said == [], "it is refused before anything is sent"


def raw_disk(path, size_mib: int):
    """Data, zeros and data again."""
    data = bytearray(size_mib << 20)
    data[510:512] = b"\x55\xaa"
    for at in (0, len(data) // 2):
        data[at + 4096 : at + (1 << 20)] = os.urandom((1 << 20) - 4096)
    path.write_bytes(data)
    return path


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_an_upload_goes_on_where_its_sender_was_killed_and_the_service_too(here, ann, tmp_path, monkeypatch):  # noqa: F811
    disk, sent = raw_disk(tmp_path / "disk.raw", 8), []
    stream_to = Client.stream_to

    def broken(self, path, pieces, *more):
        def some():
            for number, piece in enumerate(pieces):
                if number == 3:
                    raise KeyboardInterrupt
                yield piece

        stream_to(self, path, some(), *more)

    def counting(self, path, pieces, *more):
        stream_to(self, path, (sent.append(len(piece)) or piece for piece in pieces), *more)

    monkeypatch.setattr(Client, "stream_to", broken)
    with pytest.raises(KeyboardInterrupt):
        ann.upload_image(disk, "small")
    until(lambda: here.services.uploads._all()[0].offset and not here.services.uploads._busy)
    (upload,) = here.services.uploads._all()
    assert 0 < upload.offset < disk.stat().st_size
    here.services.uploads._files.clear()  # as in a service that was started anew
    monkeypatch.setattr(Client, "stream_to", counting)
    image = ann.upload_image(disk, "small")
    assert image["sha256"] == hashlib.sha256(disk.read_bytes()).hexdigest()
    assert sum(sent) < (1 << 20) + (1 << 19), "neither what had come nor the zeros are sent"
    assert here.services.uploads._all() == []
    kept = here.services.images.files.blobs.path(image["sha256"])
    assert kept.read_bytes() == disk.read_bytes()
    assert kept.stat().st_blocks * 512 < 3 << 20


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_a_connection_that_breaks_while_sending_is_no_end(here, ann, tmp_path, monkeypatch):  # noqa: F811
    disk, tries = raw_disk(tmp_path / "disk.raw", 8), []
    stream_to = Client.stream_to

    def breaking(self, path, pieces, where, *more):
        tries.append(where["offset"])
        if len(tries) < 3:
            stream_to(self, path, itertools.islice(pieces, 2 * len(tries)), where, *more)
            raise ConnectionFailed("the line is cut", code="unreachable")
        stream_to(self, path, pieces, where, *more)

    monkeypatch.setattr(Client, "stream_to", breaking)
    assert ann.upload_image(disk, "small")["sha256"] == hashlib.sha256(disk.read_bytes()).hexdigest()
    assert tries[0] == 0
    assert tries == sorted(set(tries))


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_a_file_comes_back_resumed_sparse_and_verified(here, ann, tmp_path, monkeypatch):  # noqa: F811
    disk, target, asked = raw_disk(tmp_path / "disk.raw", 8), tmp_path / "back", []
    image = ann.upload_image(disk, "small")
    stream_from = Client.stream_from

    def breaking(self, path, where):
        asked.append(where["offset"])
        pieces = stream_from(self, path, where)
        if len(asked) == 1:
            yield next(pieces)
            raise ConnectionFailed("the line is cut", code="unreachable")
        yield from pieces

    monkeypatch.setattr(Client, "stream_from", breaking)
    size, sha256 = disk.stat().st_size, image["sha256"]
    ann.download_image_file(image["id"], sha256, size, target)
    assert target.read_bytes() == disk.read_bytes()
    assert target.stat().st_blocks * 512 < 3 << 20
    assert len(asked) == 2
    assert asked[1] > 0
    target.write_bytes(b"x" * 1000)
    with pytest.raises(VwsClientError, match="not what its sha256 says"):
        ann.download_image_file(image["id"], sha256, size, target)
    assert not target.exists()


def test_who_sends_much_through_a_tunnel_hears_meanwhile(here, ann):  # noqa: F811
    """As of a guest that answers before it goes on reading: were one way to wait for the other, neither would move."""
    (node,) = here.enroll("one")
    workspace = here.lease()["workspaces"][0]
    node.obey()
    piece, much = b"x" * 65536, b"x" * (8 << 20)
    with ann.tunnel(workspace["id"]) as tunnel, ThreadPoolExecutor(2) as pool:
        told = hear(node)
        with dial(here, f"/v1/nodes/{node.id}/tunnels/{told['id']}", node.token) as agent:
            writing = pool.submit(tunnel.write, much)
            answering = pool.submit(lambda: [agent.send(piece) for _ in range(len(much) // len(piece))])
            heard = 0
            while heard < len(much):
                heard += len(tunnel.read())
            answering.result(30)
            assert not writing.done(), "the guest takes nothing yet"
            taken = 0
            while taken < len(much):
                taken += len(agent.recv(timeout=30))
            writing.result(30)


def test_a_tunnel(here, ann):  # noqa: F811
    (node,) = here.enroll("one")
    workspace = ann.request_lease([GROUP], 600)["workspaces"][0]
    with pytest.raises(ApiError) as refused:
        ann.tunnel(workspace["id"])
    assert (refused.value.status, refused.value.code) == (409, "command-refused")
    node.obey()
    with ann.tunnel(workspace["id"], port=80) as tunnel:
        told = hear(node)
        with dial(here, f"/v1/nodes/{node.id}/tunnels/{told['id']}", node.token) as agent:
            tunnel.write(b"x" * 200_000)
            got = b""
            while len(got) < 200_000:
                got += agent.recv()
            assert got == b"x" * 200_000
            agent.send(b"answer")
            assert tunnel.read() == b"answer"
            agent.close()
        assert tunnel.read() == b""
        tunnel.write(b"nobody")
    with ann.tunnel(workspace["id"]) as tunnel:
        told = hear(node)
        with dial(here, f"/v1/nodes/{node.id}/tunnels/{told['id']}", node.token) as agent:
            agent.close(4502, "connection refused")
        with pytest.raises(ConnectionFailed, match="connection refused"):
            tunnel.read()


def test_who_closes_a_tunnel_may_be_overtaken_by_another_thread(here, ann):  # noqa: F811
    (node,) = here.enroll("one")
    workspace = here.lease()["workspaces"][0]
    node.obey()
    tunnel, begun = ann.tunnel(workspace["id"]), time.monotonic()
    stop = tunnel._stop

    def overtaken() -> None:
        stop()
        tunnel._thread.join()
        stop()

    tunnel._stop = overtaken
    with ThreadPoolExecutor(2) as pool:
        closed = [pool.submit(tunnel.close) for _ in range(2)]
        assert [each.result(30) for each in closed] == [None, None]
    tunnel.close()
    assert tunnel.read() == b""
    assert time.monotonic() - begun < 30


def test_the_console(here, ann):  # noqa: F811
    (node,) = here.enroll("one")
    workspace = ann.request_lease([GROUP], 600)["workspaces"][0]
    node.http.put(f"/v1/nodes/{node.id}/consoles/{workspace['id']}", content=b"boot \xff\n")
    ann.cancel_lease(workspace["lease"])
    node.report()
    assert ann.console(workspace["id"]) == b"boot \xff\n"


def test_following_goes_on_after_a_restart_of_the_service(here, ann, monkeypatch):  # noqa: F811
    here.enroll("one")
    heard: list[dict] = []

    def follow() -> None:
        for event in ann.follow_events(after=0):
            heard.append(event)

    threading.Thread(target=follow, daemon=True).start()
    ann.request_lease([GROUP], 600, name="before")
    until(lambda: any(e["kind"] == "lease.granted" for e in heard))
    # The connection is lost; what happens meanwhile is heard afterwards, and nothing twice.
    here.app.state.api.wakeups.stopping = True
    here.app.state.api.wakeups._wake_all()
    time.sleep(0.3)
    with Client(here.url, here.ann_token) as other:
        other.request_lease([GROUP], 600, name="meanwhile")
    here.app.state.api.wakeups.stopping = False
    until(lambda: [e["data"]["name"] for e in heard if e["kind"] == "lease.granted"] == ["before", "meanwhile"], 8)
    seqs = [e["seq"] for e in heard]
    assert seqs == sorted(set(seqs))


# ---------------------------------------------------------------- broken connections


class Flaky(http.server.BaseHTTPRequestHandler):
    """Cuts the connection `cuts` times, then answers with what it was asked."""

    cuts = 0
    seen: list[tuple[str, str | None, bytes]] = []
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append((self.path, self.headers["idempotency-key"], body))
        if len(self.seen) <= self.cuts:
            self.close_connection = True
            return
        answer = json.dumps({"id": "lse-1"}).encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def flaky():
    class Mine(Flaky):
        seen: list[tuple[str, str | None, bytes]] = []

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield Mine, f"http://127.0.0.1:{listener.server_address[1]}"
    listener.shutdown()
    listener.server_close()


def test_a_change_is_repeated_under_the_same_client_token(flaky):
    handler, url = flaky
    handler.cuts = 2
    with Client(url, "vws.tok-x.y") as client:
        assert client.request_lease([GROUP], 600) == {"id": "lse-1"}
        client.request_lease([GROUP], 600)
    keys = [key for _, key, _ in handler.seen]
    assert len(keys) == 4
    assert len(set(keys[:3])) == 1, "one request, one client token"
    assert keys[3] != keys[0]
    assert len({body for _, _, body in handler.seen}) == 1


def test_three_tries_and_no_more(flaky):
    handler, url = flaky
    handler.cuts = 100
    with Client(url, "vws.tok-x.y") as client, pytest.raises(ConnectionFailed) as failed:
        client.request_lease([GROUP], 600)
    assert len(handler.seen) == 3
    assert failed.value.code == "unreachable"
    assert "vws site status" in failed.value.possible


def test_nobody_listens():
    with Client("https://127.0.0.1:1", "vws.tok-x.y") as client:
        started = time.monotonic()
        assert client.healthy() is False
        with pytest.raises(ConnectionFailed, match="does not answer"):
            client.site()
        with pytest.raises(ConnectionFailed, match="does not answer"):
            client.tunnel("x")
        with pytest.raises(ConnectionFailed):
            next(client.leases())
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://x", "https://", "http://[", "https://x:999999", "http://\x00"])
def test_a_url_that_is_none(url):
    client = Client(url, "t")
    assert client.healthy() is False
    for ask in (client.site, lambda: client.tunnel("x"), lambda: next(client.follow_events())):
        with pytest.raises(ConnectionFailed, match="is not a URL") as failed:
            ask()
        assert failed.value.possible == "VWS_URL=https://HOST:PORT"


def test_something_else_answers(flaky):
    _, url = flaky
    with Client(url, "t") as client, pytest.raises(ApiError) as refused:
        client.site()
    assert refused.value.status == 501
    assert client.healthy() is False


@pytest.mark.parametrize("token", ["two\nlines", "caf\u00e9"])
def test_a_token_that_cannot_be_sent(token):
    with pytest.raises(ConnectionFailed, match="token"):
        Client("http://127.0.0.1:1", token).site()


# ---------------------------------------------------------------- which site, and is it that


@pytest.fixture
def tls(tmp_path):
    """(URL, CA's path) of a server with a certificate of a site's authority."""
    now = time.time()
    certificates.make_ca(tmp_path, "site", now)
    certificates.make_server(tmp_path, ["127.0.0.1"], now)

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = b'{"name": "over tls"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{listener.server_address[1]}", tmp_path / "ca.crt"
    listener.shutdown()
    listener.server_close()


def test_a_site_is_known_by_its_authority(tls, tmp_path):
    url, ca = tls
    for given in (ca, str(ca), ca.read_text()):
        with Client(url, "t", given) as client:
            assert client.site() == {"name": "over tls"}
    with Client(url, "t") as stranger, pytest.raises(ConnectionFailed) as failed:
        stranger.site()
    assert failed.value.code == "untrusted"
    assert "VWS_CA" in failed.value.possible
    with pytest.raises(ConnectionFailed) as failed:
        Client(url, "t").tunnel("x")
    assert failed.value.code == "untrusted"
    (tmp_path / "false.crt").write_text("not a certificate")
    for given in (tmp_path / "none.crt", tmp_path / "false.crt"):
        with pytest.raises(ConnectionFailed, match="cannot be read"):
            Client(url, "t", given).site()


def test_a_directory_names_a_site(tls, tmp_path, monkeypatch):
    url, ca = tls
    for name, text in [("url", url + "\n"), ("admin.token", "vws.tok-x.y\n"), ("ca.crt", ca.read_text())]:
        (tmp_path / name).write_text(text)
    assert Client.from_dir(tmp_path).site()["name"] == "over tls"
    for name in ("VWS_URL", "VWS_TOKEN", "VWS_CA", "VWS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VWS_DIR", str(tmp_path))
    assert Client.from_environment().site()["name"] == "over tls"
    monkeypatch.setenv("VWS_URL", url)
    monkeypatch.setenv("VWS_TOKEN", "vws.tok-x.y")
    monkeypatch.setenv("VWS_DIR", "/nowhere")
    with pytest.raises(ConnectionFailed, match="not trusted"):
        Client.from_environment().site()
    monkeypatch.setenv("VWS_CA", str(ca))
    assert Client.from_environment().site()["name"] == "over tls"
    with pytest.raises(ConnectionFailed) as failed:
        Client.from_dir("/nowhere")
    assert failed.value.code == "no-site"
    assert "vws site start" in failed.value.possible


def test_the_import_is_cheap():
    heavy = "[m for m in ('httpx', 'websockets', 'fastapi', 'vws.service') if m in sys.modules]"
    code = f"import sys, vws.client; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
