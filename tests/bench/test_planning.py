"""The large site of the bench, small: it is filled, lives, and loses a node."""

from __future__ import annotations

import pytest

from bench import planning


@pytest.fixture(scope="module")
def found():
    return planning.measure(planning.Size(nodes=20, leases=200, requests=16, failures=1))


def test_all_that_was_to_be_is_outstanding(found):
    assert sum(found["leases"].values()) >= 200
    assert found["leases"]["planned"] >= 10, "what is reserved"
    assert found["leases"]["waiting"] > 20, "it is full"


def test_each_kind_of_request_is_answered(found):
    assert {kind: len(took) for kind, took in found["request_ms"].items()} == dict.fromkeys(planning.KINDS, 4)
    assert all(0 <= found["granted"][kind] <= 4 for kind in planning.KINDS)
    assert found["granted"]["best-effort"] == 4, "they wait"
    assert len(found["tick_ms"]) == 16


def test_targets_are_judged(found):
    numbers = {number.what: number for number in planning._numbers(found | {"rss_mib": 3000})}
    assert numbers["memory of the process"].missed
    assert numbers["a request, p99"].target == 20
    assert not numbers["a node's failure replanned, longest"].missed
