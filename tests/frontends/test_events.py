"""The record over HTTP: in pages, and followed as it grows."""

from __future__ import annotations

import json
import threading
import time

import httpx

from tests.frontends.conftest import Running, until
from vws.frontends.rest import events


class Follower:
    """Reads a stream in a thread of its own."""

    def __init__(self, client: httpx.Client, headers=None, **query) -> None:
        self.frames: list[dict[str, str]] = []
        self.lines: list[str] = []
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(client, headers or {}, query), daemon=True)
        self._thread.start()
        until(lambda: self.lines)

    def _read(self, client: httpx.Client, headers, query) -> None:
        try:
            with client.stream(
                "GET", "/v1/events", params=query, headers={"Accept": "text/event-stream"} | headers
            ) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                for line in answer.iter_lines():
                    self.lines.append(line)
        except httpx.HTTPError:
            pass
        self.ended.set()

    @property
    def events(self) -> list[dict]:
        return [json.loads(line[6:]) for line in list(self.lines) if line.startswith("data: ")]

    @property
    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.events]


def test_events_come_in_pages(running):
    (node,) = running.enroll("one")
    running.lease(2)
    node.obey()
    whole = running.root.get("/v1/events?limit=1000").json()
    assert whole["next"] is None
    seqs = [event["seq"] for event in whole["items"]]
    assert seqs == sorted(set(seqs))
    paged, after = [], 0
    while after is not None:
        page = running.root.get("/v1/events", params={"after": after, "limit": 4}).json()
        paged += page["items"]
        after = page["next"]
    assert paged == whole["items"]
    kinds = {event["kind"] for event in whole["items"]}
    assert {"lease.granted", "lease.active", "workspace.running", "node.joined", "token.created"} <= kinds


def test_a_user_sees_what_concerns_him(running):
    (node,) = running.enroll("one")
    lease = running.lease()
    node.obey()
    seen = running.ann.get("/v1/events").json()["items"]
    assert seen
    assert {event["owner"] for event in seen} == {"ann"}
    assert running.bob.get("/v1/events").json()["items"] == []
    assert running.bob.get(f"/v1/events?lease={lease['id']}").status_code == 403
    workspace = lease["workspaces"][0]["name"]
    of_it = running.ann.get("/v1/events", params={"workspace": workspace}).json()["items"]
    assert {event["workspace"] for event in of_it} == {lease["workspaces"][0]["id"]}
    assert running.root.get("/v1/events?node=one").json()["items"]


def test_a_follower_hears_at_once(running: Running):
    (node,) = running.enroll("one")
    follower = Follower(running.ann)
    until(lambda: running.app.state.api.wakeups.count()[1] == 1)
    running.lease(name="heard")
    until(lambda: "lease.granted" in follower.kinds, 2)
    node.obey()
    until(lambda: "lease.active" in follower.kinds, 2)
    assert {event["owner"] for event in follower.events} == {"ann"}
    assert follower.events[0]["data"]["name"] == "heard"


def test_following_begins_now_or_where_it_is_told(running: Running):
    running.enroll("one")
    running.lease()
    everything = running.ann.get("/v1/events").json()["items"]
    again = Follower(running.ann, after=0)
    until(lambda: len(again.events) == len(everything), 2)
    assert again.events == everything
    rest = Follower(running.ann, headers={"Last-Event-ID": str(everything[0]["seq"])}, after=0)
    until(lambda: len(rest.events) == len(everything) - 1, 2)
    fresh = Follower(running.ann)
    assert fresh.lines[:2] == ["retry: 1000", f"id: {running.services.site.seq}"]
    time.sleep(0.2)
    assert fresh.events == []


def test_a_lasting_silence_is_told(here: Running, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.2)
    follower = Follower(here.ann)
    until(lambda: follower.lines.count(": still here") >= 2, 3)


def test_a_revoked_token_hears_nothing_more(here: Running, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.2)
    token = here.root.post("/v1/tokens", json={"subject": "ann", "role": "user"}).json()
    follower = Follower(here.client(token["token"]))
    here.root.delete(f"/v1/tokens/{token['id']}")
    assert follower.ended.wait(3)


def test_the_stop_ends_followers(mortal: Running):
    followers = [Follower(mortal.ann) for _ in range(5)]
    started = time.monotonic()
    mortal.stop()
    assert time.monotonic() - started < 2
    assert all(follower.ended.wait(1) for follower in followers)


def test_a_follower_that_leaves_is_forgotten(here: Running):
    with here.ann.stream("GET", "/v1/events", headers={"Accept": "text/event-stream"}) as answer:
        lines = answer.iter_lines()  # let go, it would take the connection along
        next(lines)
        until(lambda: here.app.state.api.wakeups.count()[1] == 1)
    until(lambda: here.app.state.api.wakeups.count()[1] == 0, 3)


def test_mistaken_cursors(here):
    for query, headers, field in [
        ({"after": -1}, {}, "after"), ({"after": 10**30}, {}, "after"), ({"after": "x"}, {}, "after"),
        ({}, {"Last-Event-ID": "x", "Accept": "text/event-stream"}, "Last-Event-ID"),
        ({}, {"Last-Event-ID": "9" * 40, "Accept": "text/event-stream"}, "Last-Event-ID"),
    ]:  # fmt: skip
        answer = here.ann.get("/v1/events", params=query, headers=headers)
        assert (answer.status_code, answer.json()["field"]) == (422, field)
