"""What guests call, over real sockets: the protocol of docs/contextualising.md, word by word."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import threading
import time
from dataclasses import dataclass

import httpx
import pytest

from tests.frontends.conftest import NO_TLS
from vws.core.context import (
    ContextSpec,
    DataSpec,
    Expected,
    Hook,
    HookSpec,
    Introduce,
    RoleSpec,
    SideSpec,
    ValueSpec,
)
from vws.frontends.metadata.app import PREFIX, Metadata

KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + b"k" * 32).decode()
OTHER_KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + b"o" * 32).decode()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SLURM = ContextSpec(
    "slurm",
    (
        RoleSpec(
            "head",
            SideSpec(hooks=(HookSpec(Hook.ON_JOINED, b64("#!/bin/sh\n")),)),
            publishes=(ValueSpec("munge-key", secret=True),),
        ),
        RoleSpec("worker", SideSpec(hooks=(HookSpec(Hook.ON_JOINED, b64("#!/bin/sh\n")),), uses=("munge-key",))),
    ),
    (DataSpec("motd", b64("hello")),),
)
MEMBERS = (
    Expected("head-1", ("head",), ("worker",)),
    Expected("worker-1", ("worker",), ("head",)),
    Expected("worker-2", ("worker",), ("head",)),
)


@dataclass
class Guest:
    """One machine, as its agent behaves."""

    http: httpx.Client
    secret: str
    token: str = ""

    def call(self, method, path, body=b"", **more):
        headers = {"Authorization": f"Bearer {self.token}"} | more.pop("headers", {})
        return self.http.request(method, PREFIX + path, content=body, headers=headers, **more)

    def join(self, token=None):
        self.token = token or self.token or f"token-of-{self.secret[:40]}"
        body = f"token_sha256={hashlib.sha256(self.token.encode()).hexdigest()}"
        headers = {"Authorization": f"Secret {self.secret}"}
        return self.http.post(PREFIX + "join", content=body, headers=headers)

    def report(self, address, network="private", **more):
        lines = [f"nic {network} {address} 02:77:0a:00:00:01", f"host-key {KEY} root@x", f"user-key {OTHER_KEY}"]
        return self.call("PUT", "identity", "\n".join([*lines, *(f"{k} {v}" for k, v in more.items())]).encode())

    def document(self, since=0, wait=0, **more):
        return self.call("GET", f"document?since={since}&wait={wait}", **more)

    def lines(self, since=0, wait=0):
        answer = self.document(since, wait)
        assert answer.status_code == 200, answer.text
        lines = [tuple(line.split("\t")) for line in answer.text.splitlines()]
        assert lines[-1] == ("end",)
        return lines

    def version(self):
        return int(self.lines()[0][2])

    def ran(self, role, side, hook, version, status, log=b"", message=""):
        query = f"role={role}&side={side}&hook={hook}&version={version}&status={status}&message={message}"
        return self.call("POST", f"ran?{query}", log)

    def turn(self, since, wait=0, log=b"", **ran):
        words = "&".join(f"{key}={value}" for key, value in {"since": since, "wait": wait, **ran}.items())
        return self.call("POST", "turn", words.encode() + b"\n" + log)


class Guests:
    """The guests' front end before the site of the test."""

    def __init__(self, running):
        self.contexts = running.services.contexts
        self.root = running.root
        self.metadata = Metadata(self.contexts)
        self._rest, self._server, self._clients = running.app, running.server, []

        async def open_it():
            self.metadata.open()

        asyncio.run_coroutine_threadsafe(open_it(), running.server.loop).result(5)
        running.server.app = self._serve

    async def _serve(self, scope, receive, send):
        guests = scope["type"] == "http" and scope["path"].startswith(PREFIX)
        await (self.metadata if guests else self._rest)(scope, receive, send)

    def close(self):
        self.metadata.close()
        for client in self._clients:
            client.close()

    def guest(self, context, name):
        client = httpx.Client(base_url=self._server.url, timeout=20, trust_env=False, verify=NO_TLS)
        self._clients.append(client)
        return Guest(client, self.contexts.secret_of_member(context, name))

    def open(self, spec=SLURM, members=MEMBERS, owner="ann"):
        id = self.contexts.open(owner, spec, members)
        return [self.guest(id, member.name) for member in members]

    def all_reported(self, **more):
        guests = self.open(**more)
        for number, guest in enumerate(guests, 2):
            assert guest.join().status_code == 200
            assert guest.report(f"10.0.0.{number}").status_code == 204
        return guests


@pytest.fixture
def guests(here):
    guests = Guests(here)
    yield guests
    guests.close()


def test_a_cluster_comes_together(guests):
    head, one, two = guests.all_reported()
    assert one.join().text == "member\tworker-1\tslurm\n"
    lines = one.lines()
    assert lines[0][:2] == ("vws-context", "1")
    assert lines[1] == ("self", "worker-1", "worker-1.slurm.vws.internal")
    assert ("data", "motd", b64("hello")) in lines
    assert ("member", "head", "head-1", "private", "10.0.0.2", "head-1.slurm.vws.internal") in lines
    assert ("member", "member", "worker-2", "private", "10.0.0.4", "worker-2.slurm.vws.internal") in lines
    assert ("host-key", "head-1", KEY) in lines
    assert ("user-key", "head-1", OTHER_KEY) in lines
    assert ("wait", "provider", "worker", "value", "munge-key") in lines
    assert not [line for line in lines if line[0] in ("value", "passed", "report")]
    version = one.version()
    assert one.document(version).status_code == 204

    assert head.call("PUT", "values/munge-key", b"very secret key").status_code == 204
    assert ("value", "munge-key", b64("very secret key")) in one.lines(version)
    assert head.ran("head", "provider", "on-joined", head.version(), 0, b"done very secret key!").status_code == 204
    for worker in (one, two):
        assert worker.ran("worker", "provider", "on-joined", worker.version(), 0).status_code == 204
    found = guests.root.get("/v1/contexts/slurm").json()
    assert found["state"] == "ready"
    assert {member["state"] for member in found["members"]} == {"ready"}
    log = guests.root.get("/v1/contexts/slurm/members/head-1/log").json()["items"]
    assert [entry["log"] for entry in log] == ["done [secret]!"]
    told = guests.root.get("/v1/events").text + guests.root.get("/v1/contexts/slurm").text
    assert "very secret" not in told
    assert b64("very secret key") not in told
    kinds = [event["kind"] for event in guests.root.get("/v1/events").json()["items"]]
    assert kinds.count("context.joined") == 3
    assert "context.ready" in kinds


def test_a_turn_says_how_a_hook_ended_and_hears_what_is_new(guests):
    head, one, _ = guests.all_reported()
    version = head.version()
    assert head.turn(0).text == head.document(0).text
    ended = {"role": "head", "side": "provider", "hook": "on-joined", "version": version}
    said = head.turn(version, log=b"first\nsecond\n\0\xff", status=0, **ended)
    assert said.status_code in (200, 204)
    log = guests.root.get("/v1/contexts/slurm/members/head-1/log").json()["items"]
    assert [entry["log"][:13] for entry in log] == ["first\nsecond\n"]
    head.call("PUT", "values/munge-key", b"key")
    assert ("value", "munge-key", b64("key")) in [tuple(w.split("\t")) for w in one.turn(version).text.splitlines()]
    began = time.monotonic()
    assert one.turn(one.version(), wait=1).status_code == 204
    assert time.monotonic() - began >= 1
    assert one.turn(0, **ended | {"role": "no-such"}, status=0).status_code == 422
    assert one.turn("x").status_code == 422
    assert head.turn(0, log=b"x" * 65_537, status=0, **ended).status_code == 413


def test_nothing_of_a_role_is_told_before_all_its_providers_have_reported(guests):
    head, one, two = guests.open()
    for guest, address in ((head, "10.0.0.2"), (one, "10.0.0.3")):
        guest.join()
        guest.report(address)
    kinds = [line[:2] for line in one.lines()]
    assert ("member", "head") in kinds, "head is whole"
    assert ("member", "member") not in kinds, "worker-2 has not reported"
    assert not [line for line in head.lines() if line[:2] == ("member", "worker")]
    two.join()
    assert ("report",) in two.lines()
    two.report("10.0.0.4")
    assert ("report",) not in two.lines()
    assert len([line for line in head.lines() if line[:2] == ("member", "worker")]) == 2


def test_a_waiting_guest_is_answered_at_the_moment_there_is_news(guests):
    _, one, two = guests.all_reported()
    version, heard = one.version(), []
    waiting = threading.Thread(target=lambda: heard.append((one.lines(version, wait=10), time.monotonic())))
    waiting.start()
    time.sleep(0.2)
    assert not heard
    said_at = time.monotonic()
    two.report("10.0.0.99")
    waiting.join(5)
    lines, heard_at = heard[0]
    assert heard_at - said_at < 1
    told = [line for line in lines if line[0] == "member"]
    assert told == [("member", "member", "worker-2", "private", "10.0.0.99", "worker-2.slurm.vws.internal")]
    assert sum(len("\t".join(line)) for line in lines) < 500, "as much as changed, and no more"


def test_a_wait_ends_in_time(guests):
    head, *_ = guests.all_reported()
    began = time.monotonic()
    assert head.document(head.version(), wait=1).status_code == 204
    assert 0.9 < time.monotonic() - began < 3


def test_a_large_document_comes_gzipped_and_is_the_same(guests):
    members = tuple(Expected(f"n-{number}") for number in range(40))
    first, *_ = guests.all_reported(spec=ContextSpec("many"), members=members)
    with first.http.stream(
        "GET", PREFIX + "document", headers={"Authorization": f"Bearer {first.token}", "Accept-Encoding": "gzip"}
    ) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        packed = b"".join(answer.iter_raw())
    plain = first.document(headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(packed) == plain.content
    assert len(packed) < len(plain.content) / 2
    assert len(plain.text.splitlines()) > 120


# ---------------------------------------------------------------- secrets and tokens


def test_a_secret_is_good_once(guests):
    head, *_ = guests.open()
    assert head.join("mine").status_code == 200
    assert head.join("mine").status_code == 200, "a lost answer costs nothing"
    thief = Guest(head.http, head.secret)
    for _ in range(3):
        refused = thief.join("stolen")
        assert refused.status_code == 409
        assert refused.text.startswith("error secret-used ")
    assert thief.document().status_code == 401
    assert head.document().status_code == 200
    told = [event for event in guests.root.get("/v1/events").json()["items"] if "refused" in event["kind"]]
    assert [event["data"]["member"] for event in told] == ["head-1"], "its owner hears of it, once"


@pytest.mark.parametrize("secret", ["x", "wsp-1.AAAA", "ctx-1/head-1.AAAA", "ctx-1/../etc.é"])
def test_a_made_up_secret_is_nobodys(guests, secret):
    guest = guests.open()[0]
    body = "token_sha256=" + "a" * 64
    answer = guest.http.post(PREFIX + "join", content=body, headers=[(b"authorization", b"Secret " + secret.encode())])
    assert answer.status_code == 401
    assert answer.text.startswith("error ")


def test_another_workspaces_secret_is_that_workspaces_alone(guests):
    guests.contexts.open("ann", ContextSpec("a"), [Expected("m-1", workspace="wsp-1")])
    guests.contexts.open("bob", ContextSpec("b"), [Expected("m-1", workspace="wsp-2")])
    guest = guests.guest("x", "y")
    guest.secret = guests.contexts.secret_of("wsp-2")
    assert guest.join().text == "member\tm-1\tb\n"
    guest = Guest(guest.http, guests.contexts.secret_of("wsp-1").replace("wsp-1", "wsp-2"))
    assert guest.join().status_code == 401
    guest = Guest(guest.http, guests.contexts.secret_of("wsp-3"))
    assert guest.join().text.startswith("error context-closed ")


def test_after_the_end_a_secret_and_a_token_open_nothing(guests):
    head, one, _ = guests.all_reported()
    assert guests.root.delete("/v1/contexts/slurm").json()["state"] == "closed"
    assert [line[0] for line in head.lines(3)] == ["vws-context", "end"]
    assert head.lines(3)[0][3] == "closed"
    assert head.report("10.0.0.77").status_code in (404, 409)
    late = Guest(one.http, one.secret)
    assert late.join("late").text.startswith("error context-closed ")


def test_a_member_of_another_context_or_role_learns_nothing(guests):
    spec = ContextSpec("quiet", SLURM.roles, introduce=Introduce.REQUIRED)
    alone = Expected("alone-1")
    guests.open(ContextSpec("other"), [Expected("x-1")])[0].join()
    *cluster, outsider = guests.all_reported(spec=spec, members=(*MEMBERS, alone))
    cluster[0].call("PUT", "values/munge-key", b"very secret key")
    kinds = {line[0] for line in outsider.lines()}
    assert kinds == {"vws-context", "self", "within", "end"}
    assert not [line for line in cluster[1].lines() if line[:3] == ("member", "worker", "worker-2")]
    assert "munge-key" not in {line[1] for line in cluster[0].lines() if line[0] == "value"}, "the head uses it not"


def test_who_left_is_told_so_and_gone_for_the_others(guests):
    head, one, _ = guests.all_reported()
    version = head.version()
    id = guests.root.get("/v1/contexts/slurm").json()["id"]
    guests.contexts.leave(id, "worker-1")
    assert one.lines()[0][3] == "closed"
    assert one.call("PUT", "values/munge-key", b"x").text.startswith("error context-closed ")
    lines = head.lines(version)
    assert ("gone", "worker", "worker-1") in lines
    assert ("gone", "member", "worker-1") in lines
    guests.contexts.expect(id, Expected("worker-1", ("worker",), ("head",), workspace="wsp-9"))
    assert one.document().status_code == 401, "the name is another machine's now"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "nic is 0"),
        (b"nic private 10.0.0.300", "is no address"),
        (b"nic ../etc 10.0.0.3", "cannot be a name"),
        (b"nic private 10.0.0.3 zz:zz", "is no MAC address"),
        (b"nic private 10.0.0.3\nname -bad-", "cannot be a host name"),
        (b"nic private 10.0.0.3\nname a.b\nname c.d", "given twice"),
        (b"nic private 10.0.0.3\nhost-key ssh-ed25519 AAAA", "not an ssh public key"),
        (b'nic private 10.0.0.3\nuser-key command="x" ' + KEY.encode(), "not an ssh public key"),
        (b"nic private 10.0.0.3\n" + b"host-key " + KEY.encode() + b"\n" * 2 + b"colour red", "line 4"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * 70_000, "larger than 65536"),
    ],
)
def test_a_wrong_identity_is_refused_with_a_reason(guests, body, says):
    head, *_ = guests.open()
    head.join()
    answer = head.call("PUT", "identity", body)
    assert answer.status_code in (413, 422)
    assert says in answer.text
    assert answer.text.startswith("error ")


def test_two_members_that_claim_one_name(guests):
    head, one, two = guests.open()
    for guest in (head, one, two):
        guest.join()
    assert one.report("10.0.0.3", name="node.example.org").status_code == 204
    refused = two.report("10.0.0.4", name="Node.example.org.")
    assert refused.status_code == 409
    assert "worker-1" in refused.text
    assert two.report("10.0.0.4", name="head-1").status_code == 409
    assert two.report("10.0.0.4", name="localhost").status_code == 204


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "document?since=x", 422),
        ("GET", "document?since=-1", 422),
        ("GET", "document?since=1&wait=9999", 422),
        ("GET", "documents", 404),
        ("POST", "document", 404),
        ("PUT", "values/..%2f..%2fetc%2fpasswd", 422),
        ("PUT", "values/%2e%2e%2fx", 422),
        ("PUT", "values/unknown", 404),
        ("POST", "ran?role=../x&side=provider&hook=on-joined&version=1&status=0", 422),
        ("POST", "ran?role=head&side=both&hook=on-joined&version=1&status=0", 422),
        ("POST", "ran?role=head&side=provider&hook=rm&version=1&status=0", 422),
        ("POST", "ran?role=head&side=provider&hook=on-joined&version=999999&status=0", 422),
        ("POST", "ran?role=head&side=provider&hook=on-joined&version=1&status=1000", 422),
        ("POST", "certificate", 422),
        ("GET", "turn", 404),
    ],
)
def test_wrong_calls_are_refused_in_one_line(guests, method, path, status):
    head, *_ = guests.all_reported()
    answer = head.call(method, path)
    assert answer.status_code == status, answer.text
    assert answer.text.startswith("error ")
    assert answer.text.count("\n") == 1


def test_too_much_is_refused_before_it_is_read(guests):
    head, *_ = guests.all_reported()
    assert head.call("PUT", "values/munge-key", b"x" * 65_537).status_code == 413
    log = head.ran("head", "provider", "on-joined", 1, 0, b"x" * 65_537)
    assert log.status_code == 413
    assert head.ran("head", "provider", "on-joined", 1, 0, bytes(range(256)) * 256).status_code == 204, "binary is kept"


def test_a_value_is_published_by_providers_of_its_role_alone(guests):
    head, one, _ = guests.all_reported()
    assert one.call("PUT", "values/munge-key", b"mine").status_code == 403
    assert head.call("PUT", "values/munge-key", b"k1").status_code == 204
    version = one.version()
    assert head.call("PUT", "values/munge-key", b"k1").status_code == 204
    assert one.document(version).status_code == 204, "a repeat is no news"


def test_a_failed_hook_is_named_with_its_message(guests):
    head, *_ = guests.all_reported()
    head.ran("head", "provider", "on-joined", head.version(), 3, b"bad\n" * 9, "no%20such%20disk")
    found = guests.root.get("/v1/contexts/slurm").json()
    assert found["state"] == "failed"
    assert found["reason"] == "head-1: on-joined of head (provider) ended with 3: no such disk"
    assert [m["state"] for m in found["members"]] == ["failed", "waiting", "waiting"]
    waits = found["members"][1]["waits"]
    assert {(wait["what"], *wait["members"]) for wait in waits} == {("value munge-key", "head-1")}
    head.ran("head", "provider", "on-joined", head.version(), 0)
    assert guests.root.get("/v1/contexts/slurm").json()["state"] == "open"
