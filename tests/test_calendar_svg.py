"""The calendar as a still picture: the document, its shapes, its size."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from vws.calendar_palette import DARK, INK, LIGHT
from vws.calendar_svg import render_svg
from vws.core.calendar import Bar, Calendar, Step, rows
from vws.pictures import MONDAY_S, PICTURES, draining, interleaving, kinds

SVG = "{http://www.w3.org/2000/svg}"


def hints(svg: str) -> dict[str, ElementTree.Element]:
    """The shapes with a hint, by its text."""
    root = ElementTree.fromstring(svg)
    return {e.find(f"{SVG}title").text: e for e in root.iter() if e.find(f"{SVG}title") is not None}  # type: ignore[union-attr, misc]


def test_bars_are_where_their_times_are():
    calendar = Calendar("t", ("n1",), (Bar("n1", 900, 1800, Step.RUN, "a", "job", "immediate"),), 0, 3600)
    box = hints(render_svg(calendar, width=1000))["job (immediate), running on n1, 1970-01-01 00:15:00 to 00:30:00"]
    left = 2 * 6.4 + 20
    assert float(box.get("x")) == round(left + (1000 - left) / 4, 1)
    assert float(box.get("width")) == round((1000 - left) / 4, 1)


def test_every_step_of_the_example_is_drawn_and_explained():
    svg = render_svg(interleaving())
    steps = {text.split(", ")[1].split(" on node")[0] for text in hints(svg) if " on node" in text}
    assert steps == {
        "staging", "boot", "running", "suspend", "saved on disk", "migration", "resume", "shutdown",
    }  # fmt: skip
    words = [e.text for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert steps < set(words)
    assert {"lecture", "compile", "node-3", "fixed: never moved"} < set(words)


def test_names_cannot_break_out():
    evil = '</svg><script>alert(1)</script>"\x00'
    bars = (Bar(evil, 0, 3600, Step.RUN, evil, evil, evil), Bar(evil, 0, 99, Step.MAINTENANCE, "m", evil, evil))
    root = ElementTree.fromstring(render_svg(Calendar(evil, (evil,), bars, 0, 3600)))
    assert not list(root.iter(f"{SVG}script"))


def test_a_present_fades_the_future():
    calendar = interleaving()
    assert 'class="veil"' not in render_svg(calendar)
    assert 'class="veil"' in render_svg(replace(calendar, now=MONDAY_S + 3600))


def test_a_large_site_stays_small():
    bars = tuple(
        Bar(f"n{node}", at, at + 90, Step.RUN, f"l{at}", "x", "best-effort")
        for node in range(100)
        for at in range(0, 60_000, 100)
    )
    calendar = Calendar("large", tuple(f"n{i}" for i in range(100)), bars, 0, 60_000)
    assert len(render_svg(calendar, lane_height=4)) < 2_000_000


def test_names_can_be_read_on_their_bars():
    for pairs, ink in ((LIGHT, INK["light"]), (DARK, INK["dark"])):
        assert min(contrast(fill, ink) for fill, _ in pairs) >= 4.5
        assert min(contrast(fill, accent) for fill, accent in pairs) >= 2.0


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_documents_pictures_are_what_the_code_draws():
    folder = Path(__file__).parents[1] / "docs" / "pictures"
    stale = [name for name, draw in PICTURES.items() if (folder / name).read_text(encoding="utf-8") != draw()]
    assert stale == [], "run scripts/pictures.py"


@pytest.mark.parametrize("calendar", [interleaving(), draining(), kinds()], ids=lambda calendar: calendar.title)
def test_the_examples_hold_no_node_twice(calendar):
    assert [row.node for row in rows(calendar) if row.lanes > 1] == []
    assert all(calendar.start <= bar.start < bar.end <= calendar.end for bar in calendar.bars)
