"""The calendar in a terminal: what stands in which column."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest

from vws.calendar_axis import Clock
from vws.calendar_text import draw_text
from vws.core.calendar import Bar, Calendar, Step, spanning
from vws.pictures import MONDAY_S, interleaving

HOUR_S = 3600


def bar(node: str, start: int, end: int, lease: str, step: Step = Step.RUN, label: str = "") -> Bar:
    return Bar(node, start, end, step, lease, label or lease, "best-effort", owner="ada")


def plan(*bars: Bar, nodes: tuple[str, ...] = ("n1", "n2"), now: int | None = None) -> Calendar:
    return Calendar("site", nodes, bars, 0, 10 * HOUR_S, now, virtual=True)


def lines_of(calendar: Calendar, **options: object) -> list[str]:
    return draw_text(calendar, width=53, **options).splitlines()  # type: ignore[arg-type]


def row(calendar: Calendar, name: str, **options: object) -> str:
    return next(line for line in lines_of(calendar, **options) if line.startswith(f"{name} "))


def test_a_column_is_a_stretch_of_time():
    steps = (
        bar("n1", 0, HOUR_S, "lse-a", Step.BOOT),
        bar("n1", HOUR_S, 5 * HOUR_S, "lse-a", label="job"),
        bar("n1", 5 * HOUR_S, 6 * HOUR_S, "lse-a", Step.SUSPEND),
        bar("n1", 6 * HOUR_S, 10 * HOUR_S, "lse-a", Step.SAVED),
    )
    assert row(plan(*steps), "n1") == "n1 ↗↗↗↗↗█job████████████████◣◣◣◣◣┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄"


def test_ascii_says_the_same():
    found = draw_text(plan(bar("n1", 0, 5 * HOUR_S, "a", label="job"), now=HOUR_S), width=53, ascii_only=True)
    assert found.isascii() is False or "·" in found  # only the title's dot
    assert "n1 #job#####################" in found
    assert "# running" in found


def test_what_has_not_begun_looks_otherwise_and_the_present_is_marked():
    found = lines_of(plan(bar("n1", 5 * HOUR_S, 10 * HOUR_S, "a", label="later"), now=2 * HOUR_S))
    rule, first, second = found[3:6]
    assert rule.index("▼") == first.index("│") == second.index("│") == 3 + 10
    assert first.endswith("▒later▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒")
    assert any("▒ planned" in line and "▼ now" in line for line in found)


def test_several_workspaces_of_a_node_have_a_line_each():
    found = lines_of(plan(bar("n1", 0, 5 * HOUR_S, "a"), bar("n1", HOUR_S, 6 * HOUR_S, "b")))
    at = next(i for i, line in enumerate(found) if line.startswith("n1"))
    assert "█a███" in found[at]
    assert found[at + 1].startswith("        █b███")
    assert found[at + 2] == "n2"


def test_a_short_step_is_seen_beside_a_long_one():
    minutes_12 = 720  # one column
    suspended = bar("n1", 5 * HOUR_S + 400, 5 * HOUR_S + minutes_12, "a", Step.SUSPEND)
    assert "◣" in row(plan(bar("n1", 0, 5 * HOUR_S + 400, "a"), suspended), "n1")


def test_the_legend_names_steps_and_leases_that_are_shown():
    found = lines_of(plan(bar("n1", 0, HOUR_S, "lse-a", label="job"), bar("n2", 0, HOUR_S, "m", Step.MAINTENANCE)))
    assert "█ running  ╳ maintenance" in found
    assert "██ job  best-effort  lse-a  ada" in found
    assert not [line for line in found if line.startswith("██ m")]


def test_the_legend_says_how_a_lease_stands_now():
    booted = replace(bar("n1", 0, 10, "lse-1", Step.BOOT), state="starting")
    runs = replace(bar("n1", 10, 50, "lse-1"), state="running")
    later = replace(bar("n1", 50, 90, "lse-1"), state="planned")
    for now, state in ((5, "starting"), (20, "running"), (-5, "starting")):
        (line,) = [line for line in lines_of(plan(booted, runs, later, now=now)) if "lse-1" in line]
        assert line.endswith(state)


def test_many_leases_are_counted():
    bars = [bar("n1", i * HOUR_S, (i + 1) * HOUR_S, f"lse-{i}") for i in range(10)]
    assert lines_of(plan(*bars))[-1] == "and 2 more leases"
    assert lines_of(plan(*bars[:-1]))[-1] == "and 1 more lease"


def test_colours_are_added_only_when_asked_for_and_change_no_words():
    calendar = replace(interleaving(), now=MONDAY_S + HOUR_S)
    plain, coloured = draw_text(calendar), draw_text(calendar, colour=True)
    assert "\x1b" not in plain
    assert "\x1b[" in coloured
    assert click.unstyle(coloured) == plain


def test_more_lanes_than_lines_become_levels_of_a_node():
    bars = [bar(f"n{n}", 0, (lane + 1) * HOUR_S, f"l{n}-{lane}") for n in range(10) for lane in range(4)]
    found = lines_of(plan(*bars, nodes=tuple(f"n{n}" for n in range(10))), lines_max=14)
    first = next(line for line in found if line.startswith("n0 "))
    assert first == "n0 █████▆▆▆▆▆▄▄▄▄▄▂▂▂▂▂"
    assert any("share of a node's workspaces" in line for line in found)


def test_more_nodes_than_lines_become_groups():
    nodes = tuple(f"n{i:05}" for i in range(10_000))
    bars = [bar(node, 0, 5 * HOUR_S, node) for node in nodes[::2]]
    found = lines_of(plan(*bars, nodes=nodes), lines_max=40)
    groups = [line for line in found if line.startswith("n0")]
    assert len(groups) == 40
    assert groups[0].startswith("n00000..n00249 ▄▄▄▄▄")
    assert any("share of a line's nodes in use" in line for line in found)


@pytest.mark.parametrize("width", [10, 60, 200])
@pytest.mark.parametrize("hours", [1, 30, 24 * 40])
def test_no_line_is_wider_than_the_terminal(width, hours):
    calendar = spanning("x", ["a" * 40], [bar("a" * 40, MONDAY_S, MONDAY_S + hours * HOUR_S, "lse-a", label="y" * 40)])
    found = draw_text(calendar, width=width, clock=Clock(offset_s=3600)).splitlines()[2:5]
    assert max(map(len, found)) <= max(width, 40)


def test_control_characters_of_a_name_command_no_terminal():
    assert "\x1b" not in draw_text(plan(bar("n1", 0, 9 * HOUR_S, "a", label="\x1b[2Jevil\n")))


def test_an_empty_site_is_drawn_too():
    assert draw_text(spanning("site", [], [])).startswith("site · 1970-01-01 00:00:00 to 01:00:00 · UTC")
