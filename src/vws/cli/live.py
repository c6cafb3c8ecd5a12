"""The views of a terminal, drawn by rich; imported only where there is a terminal, because rich takes its time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import rich.live
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from vws.cli.output import COLOUR_OF_STATE
from vws.cli.progress import ROWS_MAX, address_of, doing_of, elapsed_of

Json = dict[str, Any]


class Live:
    """A table of workspaces that is drawn over itself until the wait ends, and then stays.

    The seconds go on between two looks at the service, so the table is drawn from its source at each refresh.
    """

    def __init__(self, stream: TextIO, since: float | None = None) -> None:
        self._since = since
        self._workspaces: list[Json] = []
        self._live = rich.live.Live(
            console=Console(file=stream), get_renderable=self._table, refresh_per_second=8, transient=False
        )

    def __enter__(self) -> Live:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def update(self, workspaces: list[Json]) -> None:
        self._workspaces = workspaces
        self._live.refresh()

    def _table(self) -> Table | Text:
        if not self._workspaces:
            return Text("…")
        if len(self._workspaces) > ROWS_MAX:
            return summary(self._workspaces)
        return members(self._workspaces, self._since)


def members(workspaces: list[Json], since: float | None = None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("NAME", "STATE", "NODE", "ADDRESS"):
        table.add_column(name, no_wrap=True)
    table.add_column("SECONDS", justify="right", no_wrap=True)
    table.add_column("")
    for w in workspaces:
        seconds = elapsed_of(w, since).removesuffix(" s")
        note = Text(doing_of(w), style="dim")
        table.add_row(w["name"], _state(w["state"]), w.get("node_name") or "", address_of(w), seconds, note)
    return table


def summary(workspaces: list[Json]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("STATE")
    table.add_column("WORKSPACES", justify="right")
    for state, count in Counter(w["state"] for w in workspaces).most_common():
        table.add_row(_state(state), str(count))
    since = time.time() - min(w["created_at"] for w in workspaces)
    table.add_row(Text("all", style="dim"), f"{len(workspaces)} in {since:.1f} s")
    return table


def _state(name: str) -> Text:
    return Text(name, style=COLOUR_OF_STATE.get(name, ""))


@contextmanager
def bar(stream: TextIO, what: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.update(task, completed=count)


@contextmanager
def count(stream: TextIO, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Like `bar`, of things instead of bytes; gone when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
