"""`vws plan`, with a service that answers from memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vws.cli.main import cli
from vws.cli.plan import MARGIN_S, narrowed
from vws.cli.session import Session
from vws.core.calendar import Bar, Calendar, Step, calendar_from_json, calendar_to_json

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
    def __init__(self) -> None:
        self.asked: tuple[int | None, int | None] | None = None

    def plan(self, start: int | None = None, end: int | None = None) -> dict[str, Any]:
        self.asked = start, end
        return calendar_to_json(SITE)

    def close(self) -> None: ...


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def run(home: Any, service: Service) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        line = ["plan", *arguments]
        result = CliRunner().invoke(cli, line, obj=Session(lambda _: service), prog_name="vws")
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


def test_the_service_is_asked_for_what_is_to_be_shown(run, service):
    run()
    assert service.asked == (None, None)
    now = int(time.time())
    run("--hours", "100", "--back", "2d")
    start, end = service.asked
    assert 0 <= start - (now - 2 * 86400) <= 60
    assert 0 <= end - (now + 100 * HOUR_S + MARGIN_S) <= 60
    run("--until", "2030-01-01T00:00")
    assert service.asked == (None, int(time.mktime((2030, 1, 1, 0, 0, 0, 0, 0, -1))))


def test_with_a_past_it_begins_there(run):
    assert calendar_from_json(json.loads(run("--json", "--hours", "1", "--back", "1h").stdout)).start == SITE.start


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
    missing = run("--html", str(tmp_path / "nowhere" / "plan.html"))
    assert missing.exit_code == 1
    assert f"{tmp_path / 'nowhere'} is no directory that can be written" in missing.stderr


def test_an_end_that_is_over_is_refused_in_the_commands_own_words(run):
    result = run("--until", "2020-01-01")
    assert result.exit_code == 2
    assert "--until 2020-01-01 00:00:00 is over" in result.stderr


def test_two_ways_to_say_how_far_are_refused(run):
    result = run("--hours", "1", "--until", "2030-01-01")
    assert result.exit_code == 2
    assert "--hours and --until" in result.stderr


def test_an_unknown_node_is_named(run):
    result = run("--node", "host-9")
    assert result.exit_code == 1
    assert "there is no node 'host-9' in the calendar" in result.stderr


def test_a_finished_simulation_is_cut_from_its_start():
    past = Calendar("sim", ("n1",), (), 0, 90 * HOUR_S, None, virtual=True)
    assert (narrowed(past, hours=2).start, narrowed(past, hours=2).end) == (0, 2 * HOUR_S)
