"""A calendar as one page: a file that can be opened, mailed and printed, and that asks the network for nothing.

What is drawn is JSON in the page; the scripts beside this module (vws/pages)
draw it on a canvas, only what is in view. The data is laid out for that here:
bars in tracks (what lies on one lane of one node, by start), as columns of
numbers, so that a script finds the visible ones by bisection.

Names come from users. They reach the page in two places only: as text escaped
for HTML, and as JSON in a block that no `<` can end. The page's policy allows
the scripts and the style it was made with, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from functools import cache
from importlib import resources
from typing import Any

from vws import calendar_palette
from vws.calendar_axis import STEPS_S, Clock
from vws.core.calendar import (
    DATA,
    HARD,
    KINDS,
    STEP_NAMES,
    Bar,
    Calendar,
    Row,
    Step,
    rows,
    share_in_use,
)

SCRIPTS = ("plan.js", "view.js", "clock.js", "paint.js", "controls.js")
OVERVIEW_CELLS = 600
STEPS = tuple(Step)
MACHINE, THIN, WHOLE_ROW = range(3)
COLUMNS = ("begin", "length", "step", "lease", "detail")


def draw_page(calendar: Calendar) -> str:
    """The page as HTML. Names may hold anything."""
    style, scripts = _file("calendar.css"), [_file(name) for name in SCRIPTS]
    parts = {
        "title": html.escape(calendar.title or "Calendar"),
        "policy": _policy(style, scripts),
        "style": f"<style>{style}</style>",
        "summary": html.escape(_summary(calendar)),
        "data": _json_block(page_data(calendar)),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    # In one pass: what a name says is never taken for a place to fill in.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _file("calendar.html"))


@cache
def _file(name: str) -> str:
    return (resources.files("vws") / "pages" / name).read_text(encoding="utf-8")


def _policy(style: str, scripts: list[str]) -> str:
    allowed = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json_block(data: Any) -> str:
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="data">{text}</script>'


def _summary(calendar: Calendar) -> str:
    leases = len({bar.lease for bar in calendar.bars if bar.step is not Step.MAINTENANCE})
    clock = Clock(virtual=calendar.virtual)
    return f"{len(calendar.nodes)} nodes, {leases} leases, {clock.span(calendar.start, calendar.end)} {clock.name}"


# ---------------------------------------------------------------- the data


def page_data(calendar: Calendar) -> dict[str, Any]:
    """What the scripts draw. Bars' times are relative to `start`; tracks are [node, lane, form, number of bars]."""
    leases = sorted({bar.lease: bar for bar in reversed(calendar.bars)}.values(), key=lambda bar: bar.lease)
    colour_of = calendar_palette.of_leases(bar.lease for bar in leases)
    use = share_in_use(calendar.bars, len(calendar.nodes), calendar.start, calendar.end, OVERVIEW_CELLS)
    return {
        "title": calendar.title,
        "start": calendar.start,
        "end": calendar.end,
        "now": calendar.now,
        "virtual": calendar.virtual,
        "nodes": calendar.nodes,
        "leases": [[b.lease, b.label, b.kind, b.owner, colour_of[b.lease]] for b in leases],
        "use": [round(share, 3) for share in use],
        "steps": STEPS,
        "step_names": [STEP_NAMES[step] for step in STEPS],
        "ticks_s": STEPS_S,
        "kinds": KINDS,
        "hard": sorted(HARD),
        "colour_of_kind": calendar_palette.OF_KIND,
        "palette": {"light": calendar_palette.LIGHT, "dark": calendar_palette.DARK},
        "ink": calendar_palette.INK,
    } | _tracks(calendar, {bar.lease: index for index, bar in enumerate(leases)})


def _tracks(calendar: Calendar, lease_index: dict[str, int]) -> dict[str, Any]:
    step_index = {step: index for index, step in enumerate(STEPS)}
    details: dict[tuple[Any, ...], int] = {}
    columns: dict[str, list[int]] = {name: [] for name in COLUMNS}
    tracks, lanes = [], []
    for node, row in enumerate(rows(calendar)):
        lanes.append(row.lanes)
        for (lane, form), bars in sorted(_by_track(row).items()):
            tracks.append([node, lane, form, len(bars)])
            for bar in bars:
                detail = details.setdefault((bar.workspace, bar.state, bar.cpus, bar.memory_mib), len(details))
                columns["begin"].append(bar.start - calendar.start)
                columns["length"].append(bar.end - bar.start)
                columns["step"].append(step_index[bar.step])
                columns["lease"].append(lease_index[bar.lease])
                columns["detail"].append(detail)
    return {"lanes": lanes, "tracks": tracks, "details": list(details)} | columns


def _by_track(row: Row) -> dict[tuple[int, int], list[Bar]]:
    found: dict[tuple[int, int], list[Bar]] = {}
    for bar, lane in zip(row.bars, row.lane_of, strict=True):
        found.setdefault((lane, _form(bar)), []).append(bar)
    return found


def _form(bar: Bar) -> int:
    if bar.step is Step.MAINTENANCE:
        return WHOLE_ROW
    return THIN if bar.step in DATA else MACHINE
