"""`vws usage`: what is asked, and what is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import FakeClient, Refused, usage

Run = Callable[..., Result]
Json = dict[str, Any]


def side(node_hours: float) -> Json:
    return {"node_hours": node_hours, "cpu_hours": 2 * node_hours, "charge": 3 * node_hours}


def row(reserved: float, used: float, **fields: str) -> Json:
    keys = {"user": "", "vo": "", "lease": "", "name": "", "day": ""}
    return keys | fields | {"reserved": side(reserved), "used": side(used)}


def test_users_are_shown_with_their_total(vws: Run, client: FakeClient) -> None:
    rows = [row(10, 2.5, user="ada", vo="atlas"), row(0.25, 0, user="bob")]
    client.used = usage(*rows, total={"reserved": side(10.25), "used": side(2.5)})
    lines = vws("usage").stdout.splitlines()
    assert lines[0] == "from 2026-09-01 00:00:00 to 2026-09-02 00:00:00 (Europe/Zurich); charges in credit"
    assert lines[1].split() == ["RESERVED", "USED"]
    assert lines[2].split() == ["USER", "VO", *("NODE-HOURS", "CPU-HOURS", "CHARGE") * 2]
    assert [line.split() for line in lines[3:]] == [
        ["ada", "atlas", "10.00", "20.00", "30.00", "2.50", "5.00", "7.50"],
        ["bob", "-", "0.25", "0.50", "0.75", "0.00", "0.00", "0.00"],
        ["total", "-", "10.25", "20.50", "30.75", "2.50", "5.00", "7.50"],
    ]
    points = {line.index(".") for line in lines[3:]}
    assert len(points) == 1, "the points stand below each other"
    assert client.asked == [
        ("usage", {"by": "user", "user": None, "vo": None, "lease": None, "since": None, "until": None})
    ]


@pytest.mark.parametrize(
    ("by", "fields", "shown"),
    [
        ("vo", {"vo": ""}, ["(none)"]),
        ("lease", {"lease": "lse-1", "name": "demo", "user": "ada"}, ["demo", "ada"]),
        ("lease", {"lease": "lse-1", "user": "ada"}, ["lse-1", "ada"]),
        ("day", {"day": "2026-09-01"}, ["2026-09-01"]),
    ],
)
def test_each_way_to_cut_it(vws: Run, client: FakeClient, by: str, fields: dict[str, str], shown: list[str]) -> None:
    client.used = usage(row(1, 1, **fields), by=by)
    result = vws("usage", "--by", by)
    assert result.stdout.splitlines()[3].split()[: len(shown)] == shown


def test_what_is_asked_is_passed_on(vws: Run, client: FakeClient) -> None:
    vws("usage", "--user", "ada", "--vo", "atlas", "--lease", "demo", "--from", "2026-09", "--to", "2026-10-02T12:00")
    asked = client.asked[0][1]
    assert asked == {
        "by": "user", "user": "ada", "vo": "atlas", "lease": "demo", "since": "2026-09", "until": "2026-10-02T12:00",
    }  # fmt: skip


def test_json_is_the_whole_report(vws: Run, client: FakeClient) -> None:
    client.used = usage(row(1, 1, user="ada"))
    assert json.loads(vws("usage", "--json").stdout) == client.used


def test_nothing_is_said_to_be_nothing(vws: Run) -> None:
    result = vws("usage")
    assert result.exit_code == 0
    assert "nothing was reserved or used then" in result.stderr
    assert "NODE-HOURS" not in result.stdout


def test_a_refusal_is_told(vws: Run, client: FakeClient) -> None:
    client.refusal = Refused("'soon' is no time", code="invalid-request", field="from", possible="2026-10")
    result = vws("usage", "--from", "soon")
    assert result.exit_code == 1
    assert "'soon' is no time" in result.stderr
    assert "2026-10" in result.stderr


def test_an_empty_user_is_a_slip(vws: Run, client: FakeClient) -> None:
    assert vws("usage", "--user", "").exit_code == 2
    assert client.asked == []


def test_a_terminal_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from vws.cli.usage import _progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with _progress() as progress:
        assert progress is not None
        progress(50, 200)
        progress(0, 0)
    assert "reading the record" in capsys.readouterr().err
