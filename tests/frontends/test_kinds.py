"""Requests of every kind over HTTP: what they mean to the core, and which field a refusal names."""

from __future__ import annotations

import time
from zoneinfo import ZoneInfo

import pytest

from tests.frontends.conftest import asked
from vws.core.terms import Exceptions, GroupRequest, LeaseRequest, When
from vws.frontends.rest import models


def test_a_body_becomes_a_request_with_all_it_says():
    body = {
        "groups": [
            {"image": "demo", "count": 2, "name": "worker", "requirement": "kvm", "apart": True},
            {"image": "demo", "name": "head", "together": True},
        ],
        "duration_s": 3600,
        "when": "periodic",
        "start": 1_800_000_000.0,
        "rule": "FREQ=DAILY",
        "until": 1_800_900_000,
        "zone": "Europe/Berlin",
        "exceptions": "skip",
        "urgent": True,
        "preemptible": True,
        "restartable": True,
        "command": "true",
    }
    assert models.LeaseRequest.model_validate(body).value() == LeaseRequest(
        groups=(
            GroupRequest("demo", 2, name="worker", requirement="kvm", apart=True),
            GroupRequest("demo", name="head", together=True),
        ),
        duration_s=3600,
        when=When.PERIODIC,
        start=1_800_000_000,
        rule="FREQ=DAILY",
        until=1_800_900_000,
        zone=ZoneInfo("Europe/Berlin"),
        exceptions=Exceptions.SKIP,
        urgent=True,
        preemptible=True,
        restartable=True,
        command="true",
    )


def test_what_is_left_out_is_the_cores_own_default():
    body = {"groups": [{"image": "demo"}], "duration_s": 60}
    assert models.LeaseRequest.model_validate(body).value() == LeaseRequest((GroupRequest("demo"),), 60)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"when": "sometime"}, "when"),
        ({"when": "reservation"}, "start"),
        ({"when": "reservation", "start": 1_000_000_000}, "start"),
        ({"when": "reservation", "start": "tomorrow"}, "start"),
        ({"when": "reservation", "start": 1e300}, "start"),
        ({"start": 4_000_000_000}, "start"),
        ({"when": "deadline", "deadline": int(time.time()) + 1}, "deadline"),
        ({"when": "periodic", "rule": "FREQ=DAILY;BYHOUR=24", "until": int(time.time()) + 86400 * 3}, "rule"),
        ({"when": "periodic", "rule": "FREQ=DAILY"}, "rule"),
        ({"when": "periodic", "rule": "FREQ=DAILY", "zone": "Mars/Olympus"}, "zone"),
        ({"when": "periodic", "rule": "FREQ=DAILY", "zone": "../../etc/passwd"}, "zone"),
        ({"when": "periodic", "rule": "FREQ=DAILY", "zone": "Europe"}, "zone"),
        ({"when": "periodic", "rule": "FREQ=DAILY", "exceptions": "ignore"}, "exceptions"),
        ({"command": "true"}, "command"),
        ({"urgent": "yes"}, "urgent"),
    ],
)
def test_a_refusal_names_the_field(running, said, field):
    running.enroll("one")
    for path in ("/v1/leases", "/v1/leases/explain"):
        answer = running.ann.post(path, json=asked() | said)
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert running.ann.get("/v1/leases").json()["items"] == []


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"requirement": "cpus >"}, "groups[0].requirement"),
        ({"requirement": "__import__('os')"}, "groups[0].requirement"),
        ({"apart": True, "together": True}, "groups[0].together"),
    ],
)
def test_a_wish_about_nodes_is_judged_when_it_is_asked_for(running, said, field):
    running.enroll("one")
    body = asked()
    body["groups"][0] |= said
    answer = running.ann.post("/v1/leases", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


def test_what_was_agreed_is_shown(running):
    running.enroll("one")
    lease = running.ann.post("/v1/leases", json=asked() | {"preemptible": True}).json()
    assert (lease["kind"], lease["preemptible"], lease["duration_s"]) == ("immediate", True, 600)
    assert lease["submitted_at"] == lease["created_at"]
    assert (lease["begun_at"], lease["planned_start"], lease["planned_nodes"]) == (None, None, [])
