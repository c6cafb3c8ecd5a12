"""Draw the documents' pictures of the calendar: docs/pictures/*.svg, and the page as a browser shows it.

    .venv/bin/python scripts/pictures.py

The drawings are the same on every machine; the screenshot depends on its browser and fonts, so it is drawn by hand
when the page has changed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import sync_playwright

from vws.calendar_page import draw_page
from vws.pictures import MONDAY_S, PICTURES, interleaving

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
NOW_S = MONDAY_S + 6400
SIZE = {"width": 1100, "height": 540}


def screenshot(file: Path) -> None:
    """The page of the interleaving, with the pointer on the reservation."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "plan.html"
        page_file.write_text(draw_page(replace(interleaving(), now=NOW_S)), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        page = browser.new_page(viewport=SIZE, timezone_id="UTC", color_scheme="light")
        page.goto(page_file.as_uri())
        box = page.locator("#plan").bounding_box()
        bar = page.evaluate("calendar.visible().find((b) => b.label === 'lecture' && b.step === 'run')")
        page.mouse.move(box["x"] + bar["x"] + 120, box["y"] + bar["y"] + bar["height"] / 2)
        page.wait_for_timeout(200)
        page.screenshot(path=file)
        browser.close()


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")
    screenshot(FOLDER / "calendar-page.png")
    for file in sorted(FOLDER.iterdir()):
        print(f"{file.relative_to(FOLDER.parents[1])}  {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
