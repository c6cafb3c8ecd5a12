"""Streams through the service: the user's half and the node's half are both played here, over real WebSockets."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.frontends.conftest import PlayedNode, Running, until
from vws.frontends.rest import guests, tunnels


def made_ready(running: Running):
    (node,) = running.enroll("one")
    workspace = running.lease()["workspaces"][0]
    node.obey()
    return running, node, workspace


@pytest.fixture
def ready(here: Running):
    """(the service, the node, a running workspace)"""
    return made_ready(here)


def dial(running: Running, path: str, token: str, **more):
    return connect(
        "ws" + running.url.removeprefix("http") + path, **more,
        additional_headers={"Authorization": f"Bearer {token}"} if token else {},
        compression=None, proxy=None, open_timeout=20, max_size=None,
    )  # fmt: skip


def hear(node: PlayedNode) -> dict:
    """What the node's long poll tells of a waiting tunnel."""
    (told,) = node.pull(after=1000, wait=5).json()["tunnels"]
    return told


@contextmanager
def joined(running: Running, node: PlayedNode, workspace, port: int = 22):
    """(the user's end, the node's end, what the node was told)"""
    path = f"/v1/workspaces/{workspace['id']}/tunnel?port={port}"
    with dial(running, path, running.ann_token) as user:
        told = hear(node)
        with dial(running, f"/v1/nodes/{node.id}/tunnels/{told['id']}", node.token) as agent:
            yield user, agent, told


def test_bytes_go_both_ways(ready):
    here, node, workspace = ready
    with joined(here, node, workspace, 8080) as (user, agent, told):
        assert told["target"] == "tcp:8080"
        assert told["workspace"] == workspace["id"]
        user.send(b"hello")
        assert agent.recv() == b"hello"
        agent.send(bytes(range(256)) * 1000)
        assert user.recv() == bytes(range(256)) * 1000
        user.send(b"")
        assert agent.recv() == b""
        assert here.app.state.api.tunnels.count() == 1
    until(lambda: here.app.state.api.tunnels.count() == 0)


def test_a_waiting_poll_is_woken(ready):
    here, node, workspace = ready
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(node.pull, 1000, 20)
        until(lambda: here.app.state.api.wakeups.count()[0] == 1)
        started = time.monotonic()
        with dial(here, f"/v1/workspaces/{workspace['name']}/tunnel", here.ann_token):
            (told,) = polled.result(5).json()["tunnels"]
        assert time.monotonic() - started < 1
    assert told["target"] == "tcp:22"


@pytest.mark.parametrize("closing", ["user", "agent"])
def test_the_end_of_one_is_the_end_of_the_other(ready, closing):
    here, node, workspace = ready
    with joined(here, node, workspace) as (user, agent, _):
        one, other = (user, agent) if closing == "user" else (agent, user)
        one.send(b"last words")
        one.close(4502, "the guest does not answer")
        assert other.recv() == b"last words"
        with pytest.raises(ConnectionClosed) as closed:
            other.recv()
    assert closed.value.rcvd.code == 4502
    assert closed.value.rcvd.reason == "the guest does not answer"


def test_a_dead_end_is_noticed(ready):
    here, node, workspace = ready
    with joined(here, node, workspace) as (user, agent, _):
        agent.socket.shutdown(2)
        with pytest.raises(ConnectionClosed):
            user.recv(timeout=5)
    until(lambda: here.app.state.api.tunnels.count() == 0)


def test_a_node_that_vanished_is_noticed_by_its_silence(ready, monkeypatch):
    """Its connection looks as well as ever, for nobody says that it has ended."""
    here, node, workspace = ready
    monkeypatch.setattr(tunnels, "SILENT_S", 0.5)
    path = f"/v1/workspaces/{workspace['id']}/tunnel"
    with dial(here, path, here.ann_token) as user:
        beats = {"subprotocols": ["vws-beats"]}
        with dial(here, f"/v1/nodes/{node.id}/tunnels/{hear(node)['id']}", node.token, **beats) as agent:
            assert agent.subprotocol == "vws-beats"
            for _ in range(6):
                agent.send(b"")
                time.sleep(0.2)
            agent.send(b"still here")
            assert user.recv(timeout=5) == b"still here", "and no beat before it"
            with pytest.raises(ConnectionClosed) as closed:
                user.recv(timeout=10)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4504, "its node has not been heard from for 0.5 s")
    until(lambda: here.app.state.api.tunnels.count() == 0)


def test_a_slow_reader_slows_its_writer(ready):
    """What the service holds for a tunnel is bounded by sockets' buffers."""
    here, node, workspace = ready
    with joined(here, node, workspace) as (user, agent, _):
        sent = 0
        stopped = threading.Event()

        def write() -> None:
            nonlocal sent
            for _ in range(400):
                agent.send(b"x" * 65536)
                sent += 65536
            stopped.set()

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        time.sleep(1)
        held = sent
        assert not stopped.is_set()
        time.sleep(0.3)
        assert sent == held, "the writer goes on though nobody reads"
        got = 0
        while got < 400 * 65536:
            got += len(user.recv(timeout=5))
        writer.join(5)
        assert stopped.is_set()


def test_nobody_comes(ready, monkeypatch):
    here, _, workspace = ready
    monkeypatch.setattr(guests, "AGENT_WAIT_S", 0.3)
    with dial(here, f"/v1/workspaces/{workspace['id']}/tunnel", here.ann_token) as user:
        with pytest.raises(ConnectionClosed) as closed:
            user.recv(timeout=5)
        assert closed.value.rcvd.code == 4504
        assert closed.value.rcvd.reason == "node one did not answer within 0.3 s"


def test_a_lost_answer_is_told_again(ready, monkeypatch):
    here, node, workspace = ready
    monkeypatch.setattr("vws.frontends.rest.tunnels.TELL_AGAIN_S", 0.3)
    with dial(here, f"/v1/workspaces/{workspace['id']}/tunnel", here.ann_token):
        first = hear(node)
        assert node.pull(after=1000).json()["tunnels"] == []
        time.sleep(0.35)
        assert hear(node) == first


def denied(running: Running, path: str, token: str) -> dict:
    import json

    with pytest.raises(InvalidStatus) as refused, dial(running, path, token):
        pass
    problem = json.loads(refused.value.response.body)
    assert refused.value.response.status_code == problem["status"]
    return problem


def test_who_may_not_is_refused_before_the_handshake(ready):
    here, node, workspace = ready
    path = f"/v1/workspaces/{workspace['id']}/tunnel"
    assert denied(here, path, "")["code"] == "unauthenticated"
    assert denied(here, path, here.token("bob"))["code"] == "forbidden"
    assert denied(here, path, node.token)["code"] == "forbidden"
    assert denied(here, "/v1/workspaces/wsp-none/tunnel", here.ann_token)["code"] == "not-found"
    for port in ("0", "65536", "-1", "22x", "", "9" * 50, "²"):
        assert denied(here, f"{path}?port={port}", here.ann_token)["field"] == "port"
    here.ann.post(f"/v1/workspaces/{workspace['id']}/pause")
    problem = denied(here, path, here.ann_token)
    assert (problem["code"], problem["status"]) == ("command-refused", 409)
    assert "pausing" in problem["detail"]
    assert here.app.state.api.tunnels.count() == 0


def test_nobody_can_take_all_tunnels(ready, monkeypatch):
    here, node, workspace = ready
    monkeypatch.setattr(tunnels, "OWNER_TUNNELS_MAX", 1)
    path = f"/v1/workspaces/{workspace['id']}/tunnel"
    with joined(here, node, workspace), pytest.raises(InvalidStatus) as refused, dial(here, path, here.ann_token):
        pass
    assert refused.value.response.status_code == 503
    assert b"tunnels to workspaces of ann are open" in refused.value.response.body
    with joined(here, node, workspace):
        pass


def test_only_the_workspaces_node_may_take_it_and_once(ready):
    here, node, workspace = ready
    (other,) = here.enroll("two")
    with joined(here, node, workspace) as (user, agent, told):
        taken = f"/v1/nodes/{node.id}/tunnels/{told['id']}"
        assert denied(here, taken, node.token)["code"] == "conflict"
        assert denied(here, taken, other.token)["code"] == "forbidden"
        assert denied(here, f"/v1/nodes/{other.id}/tunnels/{told['id']}", other.token)["code"] == "not-found"
        assert denied(here, taken, here.ann_token)["code"] == "forbidden"
        user.send(b"still ours")
        assert agent.recv() == b"still ours"
    until(lambda: here.app.state.api.tunnels.count() == 0)
    assert denied(here, taken, node.token)["code"] == "not-found"


def test_a_stop_ends_tunnels(mortal):
    mortal, node, workspace = made_ready(mortal)
    with joined(mortal, node, workspace) as (user, _, _told):
        started = time.monotonic()
        mortal.stop()
        assert time.monotonic() - started < 4
        with pytest.raises(ConnectionClosed):
            user.recv(timeout=5)


# ---------------------------------------------------------------- consoles


def test_a_live_console_comes_from_its_node(ready):
    here, node, workspace = ready
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(here.ann.get, f"/v1/workspaces/{workspace['id']}/console?tail_bytes=100")
        told = hear(node)
        assert told["target"] == "console:tail=100"
        with dial(here, f"/v1/nodes/{node.id}/tunnels/{told['id']}", node.token) as agent:
            agent.send(b"Linux version 6.1\n")
            agent.send(b"login: ")
        answer = asked.result(5)
    assert (answer.status_code, answer.content) == (200, b"Linux version 6.1\nlogin: ")


def test_a_console_of_an_absent_node(ready, monkeypatch):
    here, node, workspace = ready
    monkeypatch.setattr(guests, "CONSOLE_WAIT_S", 0.2)
    path = f"/v1/workspaces/{workspace['id']}/console"
    away = here.ann.get(path)
    assert (away.status_code, away.json()["code"]) == (503, "unavailable")
    assert away.headers["retry-after"]
    node.http.put(f"/v1/nodes/{node.id}/consoles/{workspace['id']}", content=b"kept")
    assert here.ann.get(path).content == b"kept"
