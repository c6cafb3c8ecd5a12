"""The service killed at each step of what guests say, and guests that do not give up.

Real processes over real TLS. Each guest repeats a call until it is answered, as an agent does; whatever the service had
decided, committed or only heard when it died, the context ends up ready, and everybody has the same list.
"""

from __future__ import annotations

import hashlib
import ssl
import time

import httpx
import pytest

from tests.faults.site import SiteUnderFire
from tests.soaking import one_in
from vws.core.context import Hook
from vws.faultpoints import POINTS

STEPS = sorted(point for point in POINTS if point.startswith("service.context."))
ROLES = [
    {
        "name": "head",
        "provider": {"hooks": [{"hook": Hook.ON_JOINED, "content_base64": ""}]},
        "publishes": [{"name": "key", "secret": True}],
    },
    {"name": "worker", "provider": {"uses": ["key"], "hooks": [{"hook": Hook.ON_JOINED, "content_base64": ""}]}},
]
MEMBERS = [
    {"name": "head-1", "provides": ["head"], "requires": ["worker"]},
    {"name": "worker-1", "provides": ["worker"], "requires": ["head"]},
    {"name": "worker-2", "provides": ["worker"], "requires": ["head"]},
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = SiteUnderFire(tmp_path_factory.mktemp("guests") / "site", nodes=1)
    yield site
    site.stop()


def trust(site):
    return ssl.create_default_context(cafile=str(site.directory.ca))


class Guest:
    def __init__(self, site: SiteUnderFire, name: str, secret: str) -> None:
        self.site, self.name, self.secret = site, name, secret
        self.token = hashlib.sha256(secret.encode()).hexdigest()

    def insist(self, method, path, body=b"", authorization=""):
        headers = {"Authorization": authorization or f"Bearer {self.token}"}
        until = time.monotonic() + 60
        while time.monotonic() < until:
            self.site.keep_up()
            url = self.site.directory.url.read_text().strip()
            try:
                with httpx.Client(verify=trust(self.site), timeout=10, trust_env=False) as client:
                    answer = client.request(method, f"{url}/context/v1/{path}", content=body, headers=headers)
            except httpx.TransportError:
                continue
            if answer.status_code != 503:
                return answer
        raise AssertionError(f"{path}: no answer in 60 s")

    def say(self, method, path, body=b"", authorization=""):
        answer = self.insist(method, path, body, authorization)
        assert answer.status_code in (200, 204), answer.text
        return answer.text

    def join(self):
        hashed = hashlib.sha256(self.token.encode()).hexdigest()
        assert self.say("POST", "join", f"token_sha256={hashed}".encode(), f"Secret {self.secret}").startswith("member")

    def report(self, number):
        self.say("PUT", "identity", f"nic private 10.0.0.{number}".encode())

    def lines(self):
        lines = [tuple(line.split("\t")) for line in self.say("GET", "document").splitlines()]
        assert lines[-1] == ("end",)
        return lines

    def members(self):
        return sorted(line[2:5:2] for line in self.lines() if line[:2] == ("member", "member"))

    def ran(self, role):
        version = self.lines()[0][2]
        self.say("POST", f"ran?role={role}&side=provider&hook=on-joined&version={version}&status=0", b"well\n")


def make(site, name):
    site.keep_up()
    url, token = site.directory.url.read_text().strip(), site.directory.admin_token.read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    client = httpx.Client(base_url=url, verify=trust(site), headers=headers, timeout=20, trust_env=False)
    made = client.post("/v1/contexts", json={"name": name, "members": MEMBERS, "roles": ROLES})
    assert made.status_code == 201, made.text
    return client, [Guest(site, each["name"], each["secret"]) for each in made.json()["secrets"]]


@pytest.mark.parametrize("point", one_in(2, STEPS))
def test_killed_at_any_step_guests_find_each_other(site, point):
    site.kill("service")
    site.arm(point)
    name = point.removeprefix("service.").replace(".", "-")
    client, (head, *workers) = make(site, name)
    for number, guest in enumerate((head, *workers), 2):
        guest.join()
        guest.report(number)
    head.say("PUT", "values/key", b"very secret")
    head.ran("head")
    for worker in workers:
        assert [line for line in worker.lines() if line[0] == "value"]
        worker.ran("worker")
    assert site.once.exists(), f"{point} was never reached"
    found = client.get(f"/v1/contexts/{name}").json()
    assert found["state"] == "ready"
    lists = [
        sorted(line[2:5:2] for line in guest.lines() if line[:2] == ("member", "member")) for guest in (head, *workers)
    ]
    assert lists == [[("head-1", "10.0.0.2"), ("worker-1", "10.0.0.3"), ("worker-2", "10.0.0.4")]] * 3
    events = client.get("/v1/events", params={"limit": 1000}).json()["items"]
    mine = [event["kind"] for event in events if event["data"].get("name") == name]
    assert mine.count("context.joined") == 3, "each once, however often it was asked"
    assert mine.count("context.ready") == 1
    assert "context.secret-refused" not in mine
    client.close()
    log = site.directory.log_file("service").read_text()
    assert "very secret" not in log
    assert head.token not in log
    assert head.secret not in log
