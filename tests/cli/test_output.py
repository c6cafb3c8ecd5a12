"""Tables, cards and failures, as text."""

from __future__ import annotations

import json

import click
import pytest

from vws.cli.failures import Failed, failed, failure_of
from vws.cli.output import card, json_text, moment, plural, state, table, until
from vws.core.errors import CannotFit, InvalidRequest


def test_a_table_aligns_numbers_right_and_never_cuts() -> None:
    text = table(["NAME", "COUNT"], [["a" * 30, 5], ["b", 12345], [None, 0]])
    assert text.splitlines() == [
        f"{'NAME':<30}  COUNT",
        f"{'a' * 30}      5",
        f"{'b':<30}  12345",
        f"{'-':<30}      0",
    ]


def test_coloured_cells_keep_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = table(["STATE", "NAME"], [[state("running"), "a"], [state("failed"), "b"]])
    assert "\x1b[" in text
    assert click.unstyle(text).splitlines() == ["STATE    NAME", "running  a", "failed   b"]


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert state("running") == "running"


def test_a_card_leaves_out_what_is_not_known() -> None:
    assert (
        card([("name", "demo"), ("reason", ""), ("address", "-"), ("workspaces", 0)])
        == "name        demo\nworkspaces  0"
    )


def test_times_are_told_from_now() -> None:
    assert until(7300, now=100) == "in 2h"
    assert until(40, now=100) == "1m ago"
    assert until(None) == "-"
    assert moment(None) == "-"
    assert moment(0).endswith(":00:00") or moment(0)[:4] in ("1969", "1970")


def test_one_is_no_plural() -> None:
    assert (plural(1, "workspace"), plural(3, "workspace")) == ("1 workspace", "3 workspaces")


def shown(failure: Failed, capsys: pytest.CaptureFixture[str]) -> str:
    failure.show()
    output = capsys.readouterr()
    assert output.out == ""
    return output.err


def test_a_failure_says_what_was_wrong_what_was_kept_and_what_next(capsys: pytest.CaptureFixture[str]) -> None:
    error = failure_of(
        InvalidRequest("cpus is 0", field="groups[0].cpus", asked=0, possible="a whole number from 1 to 1024")
    )
    assert error is not None
    assert shown(error, capsys).splitlines() == [
        "Error: cpus is 0",
        "  field: groups[0].cpus",
        "  possible: a whole number from 1 to 1024",
        "  kept: nothing was changed",
    ]


def test_a_refusal_for_lack_of_room_lists_the_nodes_and_the_offers_once(capsys: pytest.CaptureFixture[str]) -> None:
    details = {
        "nodes": [{"node": "nod-1", "name": "host-1", "reason": "480 MiB of memory free, 2048 needed"}],
        "offers": [{"kind": "fewer", "count": 2, "text": "2 of this size would fit now"}],
    }
    error = failure_of(CannotFit("the site has no room", possible="2 of this size would fit now", details=details))
    assert error is not None
    assert shown(error, capsys).splitlines() == [
        "Error: the site has no room",
        "  node host-1: 480 MiB of memory free, 2048 needed",
        "  would fit: 2 of this size would fit now (-n 2)",
        "  kept: nothing was leased",
    ]


@pytest.mark.parametrize(
    ("problem", "members", "told"),
    [
        ("'A/B' cannot be a name", {"field": "name", "asked": "A/B"}, ["  field: name"]),
        ("cpus is 10", {"field": "cpus", "asked": 1}, ["  asked: 1"]),
        ("count is -3", {"field": "groups[0].count", "asked": -3}, ["  field: groups[0].count"]),
        ("duration_s is missing", {"field": "duration_s"}, []),
        ("this cannot be", {"asked": "two\nlines\x1b[2J\x9b2J"}, [r"  asked: two\nlines\x1b[2J\x9b2J"]),
    ],
)
def test_only_what_the_sentence_says_by_itself_is_not_said_again_and_a_fact_is_a_line(
    problem: str, members: dict[str, object], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(failed(problem, **members), capsys).splitlines()  # type: ignore[arg-type]
    assert lines == [f"Error: {problem}", *told]


def test_json_on_a_terminal_commands_nothing() -> None:
    text = json_text({"said": "\x1b[2J\x9b2J ü"})
    assert text == r'{"said": "\u001b[2J\u009b2J ü"}'
    assert json.loads(text) == {"said": "\x1b[2J\x9b2J ü"}


def test_with_json_the_problem_itself_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    failure = failed("it is so", code="odd", next_step="wait", field="here")
    failure.as_json = True
    told = json.loads(shown(failure, capsys))
    assert told == {"code": "odd", "detail": "it is so", "field": "here", "kept": None, "next": "wait"}


def test_the_systems_errors_name_the_file() -> None:
    error = failure_of(FileNotFoundError(2, "No such file or directory", "/x"))
    assert error is not None
    assert error.message == "/x: No such file or directory"
    assert failure_of(KeyError("ours")) is None
