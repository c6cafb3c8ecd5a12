"""Offers as a reader sees them: what would be granted, and what to type for it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import FakeClient
from vws.cli.offers import options_of

Run = Callable[..., Result]
LATER = 3802831205


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


OFFERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"kind": "later", "start": LATER}, {"when": "reservation", "start": LATER}),
    ({"kind": "sooner", "start": LATER}, {"when": "reservation", "start": LATER}),
    ({"kind": "deadline", "deadline": LATER}, {"when": "deadline", "deadline": LATER}),
    ({"kind": "shorter", "duration_s": 93784}, {"duration_s": 93784}),
    ({"kind": "shorter", "duration_s": 86400}, {"duration_s": 86400}),
    ({"kind": "fewer", "count": 3}, {"count": 3}),
    (
        {"kind": "smaller", "count": 1, "cpus": 2, "memory_mib": 1537, "disk_mib": 7},
        {"count": 1, "cpus": 2, "memory_mib": 1537, "disk_mib": 7},
    ),
    ({"kind": "combined", "count": 3, "start": LATER}, {"count": 3, "when": "reservation", "start": LATER}),
]


@pytest.mark.parametrize(("offer", "meaning"), OFFERS, ids=[offer["kind"] for offer, _ in OFFERS])
def test_the_options_ask_for_just_what_was_offered(vws: Run, client: FakeClient, offer: Any, meaning: Any) -> None:
    line = ["lease", "request", "--image", "demo", "--for", "2h", *shlex.split(options_of(offer))]
    result = vws(*line)
    assert result.exit_code == 0, result.output
    _, asked = client.asked[-1]
    assert meaning.items() <= (asked | asked["groups"][0]).items()


def test_exceptions_are_skipped_by_their_option(vws: Run, client: FakeClient) -> None:
    options = options_of({"kind": "exceptions", "count": 2, "skipped": []})
    vws("lease", "request", "--image", "demo", "--for", "2h", "--every", "FREQ=DAILY;COUNT=3", options)
    assert client.asked[-1][1]["exceptions"] == "skip"


def test_a_dry_run_shows_each_offer_with_its_options(vws: Run, client: FakeClient) -> None:
    skipped = [{"start": LATER + day * 86400, "end": 0, "reason": "no room"} for day in range(7)]
    client.fit = {
        "fits": False,
        "reason": "the site has no room for it",
        "start": None,
        "nodes": [],
        "offers": [
            {"kind": "later", "start": LATER, "text": "all of it would run 2h from now"},
            {"kind": "now", "text": "all of it would start now"},
            {"kind": "exceptions", "count": 3, "skipped": skipped, "text": "the other 3 starts could be had"},
            {"kind": "unheard of", "text": "something else"},
        ],
    }
    result = vws("lease", "request", "--image", "demo", "--for", "2h", "--dry-run")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1:-1] == [
        "  would fit: all of it would run 2h from now (--at 2090-07-04T08:00:05+02:00)",
        "  would fit: all of it would start now (without --at)",
        "  would fit: the other 3 starts could be had (--skip-exceptions)",
        *(f"  not at 2090-07-{day:02} 08:00:05 CEST (06:00:05 UTC): no room" for day in range(4, 9)),
        "  not: at 2 more",
        "  would fit: something else",
    ]
    as_json = vws("lease", "request", "--image", "demo", "--for", "2h", "--dry-run", "--json")
    assert json.loads(as_json.stdout) == client.fit
