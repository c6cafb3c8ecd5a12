"""The documents in docs/ are made from the code, and what is committed is what the code says now."""

from __future__ import annotations

import json

from vws import docs
from vws.core.lifecycle import COMMANDS, FINAL, OBSERVATIONS, State


def test_nothing_is_stale():
    assert docs.stale() == [], "run `make docs` and commit what it wrote"


def test_check_tells_what_is_stale(tmp_path, capsys):
    assert docs.main(["--dir", str(tmp_path), "--check"]) == 1
    assert "states.md is stale" in capsys.readouterr().err
    assert docs.main(["--dir", str(tmp_path)]) == 0
    assert docs.main(["--dir", str(tmp_path), "--check"]) == 0
    (tmp_path / "states.md").write_text("another")
    assert docs.stale(tmp_path) == ["states.md"]


def test_every_move_is_on_the_page():
    page = docs.states()
    for state in State:
        assert f"**{state}**" in page
    for row in COMMANDS.items():
        for command, after in row[1].items():
            if after is not row[0]:
                assert f"{row[0]} --> {after}: {command}" in page
    for state, facts in OBSERVATIONS.items():
        cells = [fact_after for fact_after in facts.values() if fact_after is not state]
        line = next(x for x in page.split("## Observations")[1].splitlines() if x.startswith(f"| **{state}**"))
        assert line.count("=") == len(facts) - len(cells)
        assert (state in FINAL) == (not cells)


def test_every_operation_is_described():
    document = json.loads(docs.openapi())
    assert document["openapi"].startswith("3.1")
    operations = [o for path in document["paths"].values() for o in path.values()]
    names = [o["operationId"] for o in operations]
    assert len(set(names)) == len(names) > 35
    open_to_all = {"check_health", "show_site", "show_ca"}
    for operation in operations:
        name, answers = operation["operationId"], operation["responses"]
        assert operation["description"], name
        assert any(status.startswith("2") for status in answers), name
        assert (operation.get("security") == [{"token": []}]) == (name not in open_to_all), name
        for status, answer in answers.items():
            assert answer["description"], (name, status)
            if status.startswith(("4", "5")) and status != "416":
                assert list(answer["content"]) == ["application/problem+json"], (name, status)
