"""The calendar's page in a real browser, headless: what it draws, says, obeys and refuses.

One browser serves the module. It talks to playwright through pipes, so that it ends when the tests do, however they
end; every wait has a limit.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vws.calendar_axis import Clock
from vws.calendar_axis import ticks as axis_ticks
from vws.calendar_page import draw_page, page_data
from vws.core.calendar import Bar, Calendar, Step, spanning
from vws.pictures import MONDAY_S, interleaving

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium here: scripts/setup packages")

LIMIT_MS = 20_000
EVIL = "</script><img src=x onerror=\"document.title='owned'\"><!--{{data}}'"
NOW = MONDAY_S + 6400


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=LIMIT_MS)
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a calendar's page; at the end nothing may have failed in it, nor have asked the network for anything."""
    contexts, complaints, asked = [], [], []

    def opened(calendar: Calendar, **options: Any) -> Any:
        file = tmp_path / "plan.html"
        file.write_text(draw_page(calendar), encoding="utf-8")
        context = browser.new_context(
            **{"viewport": {"width": 1200, "height": 700}, "timezone_id": "UTC", "color_scheme": "light"} | options
        )
        contexts.append(context)
        context.set_default_timeout(LIMIT_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        until(page, "window.calendar && calendar.frames() > 0")
        return page

    yield opened
    for context in contexts:
        context.close()
    # The first is of the tests' own looking at pixels.
    assert [told for told in complaints if not told.startswith("Canvas2D: Multiple readback")] == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def until(page: Any, condition: str) -> None:
    """Wait for it from outside: playwright's own wait evaluates text within the page, which its policy refuses."""
    deadline = time.monotonic() + LIMIT_MS / 1000
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < deadline, f"not so within {LIMIT_MS} ms: {condition}"
        page.wait_for_timeout(20)


def example(**changes: Any) -> Calendar:
    return replace(interleaving(), now=NOW, **changes)


def visible(page: Any, **wanted: Any) -> list[dict[str, Any]]:
    return [bar for bar in page.evaluate("calendar.visible()") if wanted.items() <= bar.items()]


def point_at(page: Any, bar: dict[str, Any]) -> tuple[float, float]:
    """The middle of a bar, on the page."""
    box = page.locator("#plan").bounding_box()
    return box["x"] + bar["x"] + bar["width"] / 2, box["y"] + bar["y"] + bar["height"] / 2


def span_of(page: Any) -> float:
    view = page.evaluate("calendar.view()")
    return view["end"] - view["start"]


def colour_at(page: Any, x: float, y: float) -> list[int]:
    """What the canvas shows there, as red, green and blue."""
    read = "([x, y]) => [...document.querySelector('#plan').getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3)"
    return page.evaluate(read, [x, y])


# ---------------------------------------------------------------- the file


def test_the_data_are_all_bars_in_tracks_by_start():
    data = page_data(example())
    assert sum(bars for *_, bars in data["tracks"]) == len(data["begin"]) == len(interleaving().bars)
    at = 0
    for node, _, form, bars in data["tracks"]:
        starts = data["begin"][at : at + bars]
        assert starts == sorted(starts)
        steps = {data["steps"][i] for i in data["step"][at : at + bars]}
        assert (steps <= {Step.STAGE, Step.SAVED, Step.MIGRATE}) == (form == 1), data["nodes"][node]
        at += bars


def test_names_are_escaped_wherever_they_stand():
    bars = (Bar(EVIL, 0, 3600, Step.RUN, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL),)
    page = draw_page(Calendar(EVIL, (EVIL,), bars, 0, 3600))
    assert "<img" not in page
    assert page.count("</script>") == page.count("<script")
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert block
    assert json.loads(block[1])["leases"][0][:4] == [EVIL] * 4


def test_only_what_the_page_was_made_with_may_run():
    page = draw_page(example())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].startswith("default-src 'none';")
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)


# ---------------------------------------------------------------- in a browser


@needs_browser
def test_bars_are_where_their_times_and_nodes_are(show):
    page = show(example())
    view = page.evaluate("calendar.view()")
    found = page.evaluate("calendar.visible()")
    assert len(found) == len(interleaving().bars)
    per_second = (view["width"] - view["left"]) / (view["end"] - view["start"])
    for bar in found:
        assert bar["x"] == pytest.approx(view["left"] + (bar["start"] - view["start"]) * per_second, abs=0.01)
        assert bar["width"] == pytest.approx((bar["end"] - bar["start"]) * per_second, abs=0.01)
    tops = {node: {bar["y"] for bar in visible(page, node=node, step="run")} for node in interleaving().nodes}
    assert [len(each) for each in tops.values()] == [1, 1, 1]
    assert sorted(tops, key=lambda node: min(tops[node])) == ["node-1", "node-2", "node-3"]
    assert {bar["planned"] for bar in visible(page, label="lecture", step="run")} == {True}
    saved, lecture = visible(page, node="node-1", step="saved")[0], visible(page, node="node-1", label="lecture")[0]
    assert saved["height"] < lecture["height"] / 3
    assert saved["y"] + saved["height"] == pytest.approx(lecture["y"] + lecture["height"])


@needs_browser
def test_the_canvas_shows_the_leases_in_their_colours(show):
    page, data = show(example()), page_data(example())
    for node, label in (("node-1", "simulation"), ("node-3", "compile")):
        bar = visible(page, node=node, label=label, step="run")[0]
        index = next(lease[4] for lease in data["leases"] if lease[1] == label)
        fill = data["palette"]["light"][index][0]
        middle = colour_at(page, int(bar["x"] + bar["width"] * 0.8), int(bar["y"] + bar["height"] / 2))
        assert middle == [int(fill[i : i + 2], 16) for i in (1, 3, 5)]


@needs_browser
def test_zoom_by_button_key_wheel_and_drag_and_back(show):
    page = show(example())
    whole, first = span_of(page), page.evaluate("calendar.ticks()")
    page.click("#zoom-in")
    assert span_of(page) == pytest.approx(whole / 1.5)
    page.focus("#plan")
    page.keyboard.press("+")
    assert span_of(page) == pytest.approx(whole / 1.5**2)
    assert page.evaluate("calendar.ticks()") != first
    page.keyboard.press("0")
    assert span_of(page) == pytest.approx(whole)

    suspend = visible(page, node="node-1", step="suspend")[0]
    x, y = point_at(page, suspend)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -600)
    until(page, "calendar.view().end - calendar.view().start < 6000")
    there = visible(page, node="node-1", step="suspend")[0]
    assert there["width"] > 2 * suspend["width"]
    assert point_at(page, there)[0] == pytest.approx(x, abs=2)  # what was under the pointer still is

    start = page.evaluate("calendar.view().start")
    page.mouse.move(700, 400)
    page.mouse.down()
    page.mouse.move(500, 400, steps=4)
    page.mouse.up()
    assert page.evaluate("calendar.view().start") > start

    page.click("#fit")
    page.keyboard.down("Shift")
    page.mouse.move(400, 400)
    page.mouse.down()
    page.mouse.move(500, 400, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    view = page.evaluate("calendar.view()")
    assert span_of(page) == pytest.approx(100 / (view["width"] - view["left"]) * whole, rel=0.02)


@needs_browser
def test_the_view_never_leaves_the_plan_nor_becomes_nothing(show):
    page = show(example())
    whole = span_of(page)
    for _ in range(60):
        page.evaluate("document.querySelector('#zoom-in').click()")
    assert span_of(page) == pytest.approx(10)
    page.evaluate("calendar.show(0, 1e12)")
    assert span_of(page) == pytest.approx(whole)


@needs_browser
def test_a_bar_says_what_it_is_under_the_pointer(show):
    page = show(example())
    page.mouse.move(*point_at(page, visible(page, node="node-2", label="lecture", step="run")[0]))
    told = page.inner_text("#tip")
    for text in ("lecture", "reservation", "running, planned", "node-2", "lse-0c", "ada", "2 CPUs, 4 GiB"):
        assert text in told
    assert "2026-09-28 10:52:00 to 12:02:00 (1h10m)" in told
    page.mouse.move(5, 5)
    assert page.is_hidden("#tip")


@needs_browser
def test_names_do_no_harm(show):
    bars = (
        Bar(EVIL, 0, 3600, Step.RUN, "lse-1", EVIL, EVIL, EVIL, EVIL, EVIL),
        Bar(EVIL, 0, 600, Step.MAINTENANCE, "", EVIL, "maintenance"),
    )
    page = show(Calendar(EVIL, (EVIL,), bars, 0, 3600))
    page.mouse.move(*point_at(page, visible(page, step="run")[0]))
    assert EVIL in page.inner_text("#tip")
    page.fill("#find", EVIL[:9])
    page.click("#table summary")
    assert page.inner_text("#table td button >> nth=0") == EVIL
    assert (page.title(), page.locator("img").count(), page.inner_text("h1")) == (EVIL, 0, EVIL)


@needs_browser
def test_injected_scripts_are_refused_by_the_policy(browser, tmp_path):
    file = tmp_path / "plan.html"
    file.write_text(draw_page(example()).replace("</header>", "</header><script>document.title='owned'</script>"))
    page = browser.new_page()
    page.goto(file.as_uri())
    until(page, "window.calendar")
    title = page.title()
    page.close()
    assert title == interleaving().title


@needs_browser
def test_the_keyboard_goes_from_bar_to_bar_and_picks_a_lease(show):
    page = show(example())
    page.focus("#plan")
    page.keyboard.press(".")
    first = page.inner_text("#said")
    assert "node-1" in first
    page.keyboard.press(".")
    assert page.inner_text("#said") != first
    page.keyboard.press("Shift+ArrowDown")
    assert "node-2" in page.inner_text("#said")
    page.keyboard.press("Enter")
    assert re.search(r"· .*on \d nodes · 2026-09-28", page.inner_text("#said"))
    page.keyboard.press("Escape")
    assert page.inner_text("#said") == ""


@needs_browser
def test_finding_dims_all_others(show):
    page = show(example())
    compile = visible(page, label="compile", step="run")[0]
    x, y = int(compile["x"] + compile["width"] * 0.8), int(compile["y"] + compile["height"] / 2)
    before = colour_at(page, x, y)
    page.fill("#find", "LECTURE")
    assert "lecture · reservation" in page.inner_text("#said")
    page.evaluate("calendar.draw()")
    assert sum(colour_at(page, x, y)) > sum(before) + 60
    page.fill("#find", "node-3")
    assert page.inner_text("#said") == "node node-3"
    page.fill("#find", "nobody")
    assert page.inner_text("#said") == "nothing is called nobody"


@needs_browser
def test_the_table_says_it_without_a_picture_and_leads_to_the_lease(show):
    page = show(example())
    page.click("#table summary")
    page.wait_for_selector("#table tbody tr")
    rows = [row.split("\t") for row in page.locator("#table tbody tr").all_inner_texts()]
    assert [row[0] for row in rows] == ["simulation", "compile", "lecture"]
    assert rows[0][1:5] == ["best-effort", "ada", "3", "2026-09-28 09:02:00"]
    whole = span_of(page)
    page.click("#table td button >> text=lecture")
    assert span_of(page) < whole / 1.5
    assert "lecture" in page.inner_text("#said")


@needs_browser
def test_every_control_has_a_name_and_the_legend_names_the_steps(show):
    page = show(example())
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select, canvas:not([aria-hidden])')].filter((e) =>"
        " !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map((e) => e.outerHTML)"
    )
    assert nameless == []
    assert page.get_attribute("html", "lang") == "en"
    assert page.get_attribute("#said", "aria-live") == "polite"
    legend = page.inner_text("#legend").split("\n")
    for word in (
        "staging",
        "boot",
        "suspend",
        "saved on disk",
        "migration",
        "resume",
        "shutdown",
        "now; faint: planned",
    ):
        assert word in legend


@needs_browser
def test_the_reader_chooses_colours_and_dark_is_dark(show):
    page = show(example(), color_scheme="dark")
    assert sum(colour_at(page, 600, 400)) < 120
    assert "best-effort" not in page.inner_text("#legend")
    page.select_option("#colour", "kind")
    assert "best-effort" in page.inner_text("#legend")


@needs_browser
def test_it_prints_on_white_without_controls(show):
    page = show(example(), color_scheme="dark")
    page.evaluate("window.paperIsWhite = () => plan.getContext('2d').getImageData(600, 400, 1, 1).data[0] > 240")
    assert not page.evaluate("paperIsWhite()")
    page.emulate_media(media="print")
    until(page, "calendar.draw() >= 0 && paperIsWhite()")
    assert page.is_hidden(".controls")
    assert page.is_visible("#legend")
    assert page.pdf().count(b"/Type /Page\n") == 1


@needs_browser
@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns", "UTC"])
def test_the_axis_is_that_of_the_other_drawings(show, zone):
    hours = {"Asia/Kolkata": 5.5, "America/St_Johns": -2.5, "UTC": 0}[zone]
    calendar = spanning("t", ["n1"], [Bar("n1", MONDAY_S, MONDAY_S + 40 * 86400, Step.RUN, "a", "a", "immediate")])
    page = show(calendar, timezone_id=zone)
    for span_s in (30, 7200, 86400 * 3, 86400 * 30):
        page.evaluate(f"calendar.show({MONDAY_S + 5000}, {MONDAY_S + 5000 + span_s})")
        view, found = page.evaluate("calendar.view()"), page.evaluate("calendar.ticks()")
        most = int((view["width"] - view["left"]) / 90)
        expected = axis_ticks(int(view["start"]), int(view["end"]), most, Clock(offset_s=int(hours * 3600)))
        assert [(tick["at"], tick["label"]) for tick in found] == [(tick.at, tick.label) for tick in expected]


@needs_browser
def test_simulated_time_has_days_and_no_present(show):
    calendar = spanning("sim", ["n1"], [Bar("n1", 0, 4 * 86400, Step.RUN, "a", "a", "best-effort")], virtual=True)
    page = show(calendar, timezone_id="Asia/Tokyo")
    assert "day 0, 00:00:00 to day 4, 00:00:00 · simulated time" in page.inner_text("#summary")
    assert "day 1" in [tick["label"] for tick in page.evaluate("calendar.ticks()")]
    assert page.is_hidden("#now")


def month_of_a_cluster(nodes: int, bars: int) -> Calendar:
    """`bars` bars on `nodes` nodes, 5,000 leases, as a month's batch workload: many short, gaps between."""
    per_node, found = bars // nodes, []
    for node in range(nodes):
        at = MONDAY_S + node * 37
        for i in range(per_node):
            length = 300 + (i * 7919 + node * 104729) % 9000
            number = (i * 31 + node * 17) % 5000
            step = Step.BOOT if i % 4 == 0 else Step.RUN
            found.append(
                Bar(f"node-{node:05}", at, at + length, step, f"lse-{number:05}", f"job-{number}", "best-effort")
            )
            at += length + (i % 3) * 60
    return spanning("cluster", [f"node-{node:05}" for node in range(nodes)], found, now=MONDAY_S + 10**6)


@needs_browser
def test_sixty_thousand_bars_are_drawn_and_found(show):
    page = show(month_of_a_cluster(144, 60_000))
    page.select_option("#rows", "fit")
    assert page.evaluate("calendar.draw()") < 5_000
    assert page.evaluate("calendar.visible().length") > 59_000
    page.evaluate(f"calendar.show({MONDAY_S + 10**6}, {MONDAY_S + 10**6 + 7200})")
    assert page.evaluate("calendar.draw()") < 2_000
    found = page.evaluate("calendar.visible()")
    assert 144 <= len(found) < 1_500
    bar = max(found, key=lambda b: b["width"])
    middle = [bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2]
    assert (
        page.evaluate("([x, y]) => calendar.at(x, y).workspace + calendar.at(x, y).start", middle) == f"{bar['start']}"
    )


@needs_browser
def test_ten_thousand_nodes_open_and_the_last_can_be_reached(show):
    page = show(month_of_a_cluster(10_000, 100_000))
    assert page.evaluate("calendar.draw()") < 5_000
    assert {bar["node"] for bar in visible(page)} < {f"node-{i:05}" for i in range(100)}
    page.fill("#find", "node-09999")
    until(page, "calendar.visible().some((bar) => bar.node === 'node-09999')")


@needs_browser
def test_an_empty_site_has_a_page_too(show):
    page = show(spanning("site", [], []))
    assert page.evaluate("calendar.visible()") == []
    page.focus("#plan")
    for key in (".", "Shift+ArrowDown", "Enter", "+", "End", "n"):
        page.keyboard.press(key)
    page.click("#table summary")
    assert "0 nodes" in page.inner_text("#summary")
