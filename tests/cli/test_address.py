"""Addresses of pools on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable

from click.testing import Result

from tests.cli.conftest import FakeClient

Run = Callable[..., Result]


def test_pools_are_listed_with_what_is_free(vws: Run) -> None:
    lines = vws("address", "pools").stdout.splitlines()
    assert lines[0].split() == ["POOL", "RANGE", "ADDRESSES", "FREE", "HELD", "RESERVED", "NODES"]
    assert lines[1].split() == ["campus", "(default)", "192.0.2.0/24", "48", "46", "1", "1", "all"]
    assert lines[2].endswith('"far" in labels')
    assert json.loads(vws("address", "pools", "--json").stdout)[1]["free"] == 0


def test_an_address_is_reserved_for_oneself_or_another(vws: Run, client: FakeClient) -> None:
    said = vws("address", "reserve", "www").stdout
    assert said.splitlines()[0] == "192.0.2.17 of the pool campus is reserved for ada as www."
    assert "address: www" in said
    vws("address", "reserve", "www", "--pool", "far", "--address", "192.0.2.17", "--for-user", "bob")
    assert client.asked == [
        ("reserve_address", "www", {"pool": None, "address": "", "owner": None}),
        ("reserve_address", "www", {"pool": "far", "address": "192.0.2.17", "owner": "bob"}),
    ]
    assert vws("address", "reserve", "").exit_code == 2


def test_what_is_reserved_or_held_is_listed_with_its_holder(vws: Run, client: FakeClient) -> None:
    lines = vws("address", "list", "--pool", "campus").stdout.splitlines()
    assert client.asked == [("addresses", {"live": True, "pool": "campus"})]
    assert "RELEASED" not in lines[0]
    assert lines[1].split()[:4] == ["192.0.2.17", "www", "campus", "ada"]
    assert lines[2].endswith("front-1 of shop")
    assert vws("address", "list", "--all").stdout.splitlines()[2].endswith("yes")


def test_an_address_is_given_back(vws: Run, client: FakeClient) -> None:
    assert vws("address", "release", "www").stdout == "192.0.2.17 is the pool campus's again.\n"
    assert client.asked == [("release_address", "www")]
