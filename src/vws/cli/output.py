"""What the commands print: tables and cards for people, JSON for programs.

With `--json` a listing is one array and a single thing one object, on stdout
and nothing else, so that a pipe into jq always works. Tables are plain text of
as many columns as there are facts (one that is empty throughout is left out): a pipe gets the same words as a terminal,
only the colours are left out there (click strips them), and no cell is ever
cut, for a cut id is useless.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from vws.cli.sizes import show_duration, show_size

STATE_COLOURS = {
    "green": {"running", "active", "ready", "ok"},
    "yellow": {"paused", "suspended", "stopped", "degraded", "drained", "silent", "unfit", "joining"},
    "red": {"failed", "lost"},
    "cyan": {
        "waiting", "planned", "pending", "staging", "starting", "pausing", "resuming", "suspending", "restoring",
        "rebooting", "terminating", "ending",
    },
}  # fmt: skip
COLOUR_OF_STATE = {state: colour for colour, states in STATE_COLOURS.items() for state in states}

Column = tuple[str, Callable[[dict[str, Any]], Any]]


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON that a terminal can show: the control characters beyond ASCII are escaped like those within it."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text)


def print_json(value: Any, *, err: bool = False) -> None:
    click.echo(json_text(value, indent=2), err=err)


def state(name: str) -> str:
    colour = COLOUR_OF_STATE.get(name)
    return click.style(name, fg=colour) if colour and "NO_COLOR" not in os.environ else name


def moment(at: float | None) -> str:
    """A time on the reader's clock; the date only when it is not today's."""
    if at is None:
        return "-"
    there, here = time.localtime(at), time.localtime()
    return time.strftime("%H:%M:%S" if there[:3] == here[:3] else "%Y-%m-%d %H:%M:%S", there)


def until(end: float | None, now: float | None = None) -> str:
    """How far off `end` is: "in 1h59m", "5m ago"."""
    if end is None:
        return "-"
    left = end - (time.time() if now is None else now)
    return f"in {show_duration(left)}" if left > 0 else f"{show_duration(-left)} ago"


def size(cpus: int, memory_mib: int, disk_mib: int) -> str:
    return f"{plural(cpus, 'CPU')}, {show_size(memory_mib)}, disk {show_size(disk_mib)}"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns two spaces apart; columns of numbers are right-aligned; coloured cells keep their place."""
    cells = [["-" if cell in (None, "") else str(cell) for cell in row] for row in rows]
    lines = [list(headers), *cells]
    widths = [max(len(click.unstyle(line[i])) for line in lines) for i in range(len(headers))]
    numeric = [bool(cells) and all(click.unstyle(row[i]).isdigit() for row in cells) for i in range(len(headers))]
    return "\n".join(_line(line, widths, numeric) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = []
    for cell, width, right in zip(cells, widths, numeric, strict=True):
        blank = " " * (width - len(click.unstyle(cell) if "\x1b" in cell else cell))
        padded.append(blank + cell if right else cell + blank)
    return "  ".join(padded).rstrip()


def card(facts: Iterable[tuple[str, Any]]) -> str:
    """One thing, a fact a line; facts that are not known are left out."""
    known = [(name, str(value)) for name, value in facts if value not in (None, "", "-")]
    width = max((len(name) for name, _ in known), default=0)
    return "\n".join(f"{name:<{width}}  {value}".replace("\n", "\n" + " " * (width + 2)) for name, value in known)


def listing(items: Sequence[dict[str, Any]], columns: Sequence[Column], *, as_json: bool, empty: str) -> None:
    """Print `items`: an array, a table, or the sentence `empty` (on stderr, so that a pipe gets no rows)."""
    if as_json:
        print_json(list(items))
    elif items:
        read = [(name, [cell(item) for item in items]) for name, cell in columns]
        told = [(name, cells) for name, cells in read if any(cell not in (None, "", "-") for cell in cells)]
        click.echo(table([name for name, _ in told], list(zip(*(cells for _, cells in told), strict=True))))
    else:
        click.echo(empty, err=True)
