"""`vws plan`, with a service that answers from memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vws.cli.plan import narrowed, plan
from vws.cli.session import Session
from vws.core.calendar import Bar, Calendar, Step, calendar_from_json, calendar_to_json
from vws.core.errors import InvalidRequest

NOW = int(time.time())
HOUR_S = 3600
SITE = Calendar(
    "physics",
    ("host-1", "host-2"),
    (
        Bar("host-1", NOW - HOUR_S, NOW + HOUR_S, Step.RUN, "lse-1", "demo", "immediate"),
        Bar("host-2", NOW + 5 * HOUR_S, NOW + 6 * HOUR_S, Step.RUN, "lse-2", "later", "reservation"),
    ),
    NOW - HOUR_S,
    NOW + 8 * HOUR_S,
    NOW,
)


class Service:
    def plan(self) -> dict[str, Any]:
        return calendar_to_json(SITE)

    def close(self) -> None: ...


@pytest.fixture
def run(home: Any) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(plan, list(arguments), obj=Session(lambda _: Service()), prog_name="vws plan")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_the_plan_is_drawn_without_colours_in_a_pipe(run):
    found = run().stdout
    assert found.startswith("physics · ")
    assert "█demo█" in found
    assert "▒later▒" in found
    assert "\x1b" not in found


def test_json_is_the_calendar_itself(run):
    assert calendar_from_json(json.loads(run("--json").stdout)) == SITE


def test_only_some_nodes_and_hours(run):
    found = calendar_from_json(json.loads(run("--json", "--hours", "2", "--node", "host-1").stdout))
    assert (found.nodes, found.start, found.end) == (("host-1",), NOW, NOW + 2 * HOUR_S)
    assert [bar.label for bar in found.bars] == ["demo"]


def test_until_is_by_the_readers_clock(run):
    until = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(NOW + 5 * HOUR_S + 60))
    found = calendar_from_json(json.loads(run("--json", "--until", until).stdout))
    assert found.end == NOW + 5 * HOUR_S + 60
    assert len(found.bars) == 2


def test_a_page_is_written_whole_or_not_at_all(run, tmp_path):
    file = tmp_path / "plan.html"
    said = run("--html", str(file)).stdout
    assert str(file) in said
    assert "lse-2" in file.read_text()
    assert [path.name for path in tmp_path.glob("*plan.html*")] == ["plan.html"]
    with pytest.raises(FileNotFoundError):
        run("--html", str(tmp_path / "nowhere" / "plan.html"))


def test_two_ways_to_say_how_far_are_refused(run):
    result = run("--hours", "1", "--until", "2030-01-01")
    assert result.exit_code == 2
    assert "--hours and --until" in result.stderr


def test_an_unknown_node_is_named(run):
    with pytest.raises(InvalidRequest, match="no node 'host-9'"):
        run("--node", "host-9")


def test_a_finished_simulation_is_cut_from_its_start():
    past = Calendar("sim", ("n1",), (), 0, 90 * HOUR_S, None, virtual=True)
    assert (narrowed(past, hours=2).start, narrowed(past, hours=2).end) == (0, 2 * HOUR_S)
