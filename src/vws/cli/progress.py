"""Waiting, shown: live on a terminal, one line per change in a pipe.

A watch polls the service. The seconds shown are the service's own (from the
request to the moment a workspace ran), so that they are true however slow the
reader is. Waiting never owns what it waits for: Ctrl-C and a time-out leave the
lease as it is and say how to go on. A service that is away for a moment is
waited for too.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

import click

from vws.cli.failures import Failed, failed
from vws.cli.output import state as coloured
from vws.cli.sizes import show_bytes, show_duration

POLL_FIRST_S = 0.1
POLL_MAX_S = 0.5
PATIENCE_S = 60
AWAY = {"unreachable", "unavailable"}
ROWS_MAX = 40  # on a terminal; a larger lease is summed up by state
TROUBLE = {"failed", "lost", "stopped"}

Json = dict[str, Any]


class View(Protocol):
    def update(self, workspaces: list[Json]) -> None: ...


def wait(
    look: Callable[[], list[Json]],
    verdict: Callable[[list[Json]], Failed | bool],
    *,
    timeout_s: float,
    on_timeout: Callable[[], Failed],
    since: float | None = None,
    to_stderr: bool = False,
) -> list[Json]:
    """Show `look()` until `verdict` is True (return what was seen last) or a failure, which is raised.

    Raises `on_timeout()` after `timeout_s`. since: count the seconds from then (None: from each workspace's request).
    """
    start, pause, look_again = time.monotonic(), POLL_FIRST_S, patient(look)
    with _view(sys.stderr if to_stderr else sys.stdout, since) as view:
        while True:
            seen = look_again()
            if seen is not None:
                view.update(seen)
                said = verdict(seen)
                if isinstance(said, Failed):
                    raise said
                if said:
                    return seen
            if time.monotonic() - start > timeout_s:
                raise on_timeout()
            time.sleep(pause)
            pause = min(pause * 1.3, POLL_MAX_S)


def patient(look: Callable[[], list[Json]]) -> Callable[[], list[Json] | None]:
    """`look`, giving None while the service is away for a moment: it may be starting again, and nothing is lost."""
    heard, told = time.monotonic(), False

    def look_again() -> list[Json] | None:
        nonlocal heard, told
        try:
            seen = look()
        except Exception as error:
            if getattr(error, "code", "") not in AWAY or time.monotonic() - heard > PATIENCE_S:
                raise
            if not told:
                click.echo(f"the service is away, waiting for it: {error}", err=True)
            told = True
            return None
        heard, told = time.monotonic(), False
        return seen

    return look_again


@contextmanager
def _view(stream: TextIO, since: float | None) -> Iterator[View]:
    if not stream.isatty():
        yield Lines(stream, since)
        return
    from vws.cli.live import Live

    with Live(stream, since) as live:
        yield live


class Lines:
    """One line per change of what is said of a workspace."""

    def __init__(self, stream: TextIO, since: float | None = None) -> None:
        self._stream = stream
        self._since = since
        self._said: dict[str, tuple[Any, ...]] = {}

    def update(self, workspaces: list[Json]) -> None:
        for workspace in workspaces:
            now = (workspace["state"], note_of(workspace))
            if self._said.get(workspace["id"]) != now:
                self._said[workspace["id"]] = now
                click.echo(line_of(workspace, self._since), file=self._stream)
        self._stream.flush()


def line_of(workspace: Json, since: float | None = None) -> str:
    parts = [workspace["name"], coloured(workspace["state"]), workspace.get("node_name"), address_of(workspace)]
    return "  ".join(part for part in [*parts, elapsed_of(workspace, since), doing_of(workspace)] if part)


def address_of(workspace: Json) -> str:
    return next(iter(workspace.get("addresses") or ()), "")


def note_of(workspace: Json) -> str:
    """Why it is in trouble, else what its node is doing for it."""
    return workspace.get("reason") or workspace.get("step") or ""


def doing_of(workspace: Json) -> str:
    """The same, but for what is over; of one that runs, what is amiss with it all the same."""
    if workspace["state"] == "terminated":
        return ""
    return str(workspace.get("reason") or "") if workspace["state"] == "running" else note_of(workspace)


def elapsed_of(workspace: Json, since: float | None = None) -> str:
    """How long it took from the request to running, or how long that has lasted; or how long ago `since` was."""
    end = time.time()
    if since is None:
        since = workspace["created_at"]
        end = workspace.get("running_at") or end
    return f"{max(0.0, end - since):.1f} s"


# ---------------------------------------------------------------- bytes


@contextmanager
def transfer(what: str, total: int, *, to_stderr: bool = False) -> Iterator[Callable[[int], None]]:
    """Show how far a transfer of `total` bytes is: `with transfer(...) as sent: sent(bytes_so_far)`."""
    stream = sys.stderr if to_stderr else sys.stdout
    if stream.isatty():
        from vws.cli.live import bar

        with bar(stream, what, total) as sent:
            yield sent
        return
    click.echo(f"{what} ({show_bytes(total)})", file=stream)
    yield _quarters(stream, total)


def _quarters(stream: TextIO, total: int) -> Callable[[int], None]:
    """Says 25, 50 and 75 % of what takes a while."""
    start, said = time.monotonic(), 0

    def sent(count: int) -> None:
        nonlocal said
        percent = 100 * count // max(total, 1)
        if said + 25 <= percent < 100 and time.monotonic() - start > 2:
            said = percent - percent % 25
            click.echo(f"  {said} % after {show_duration(time.monotonic() - start)}", file=stream)

    return sent


@contextmanager
def working(what: str, *, to_stderr: bool = False) -> Iterator[None]:
    """Show that something goes on of which nobody knows how far it is, and for how long already."""
    stream, start, over = sys.stderr if to_stderr else sys.stdout, time.monotonic(), threading.Event()

    def tell() -> None:
        every_s = 0.5 if stream.isatty() else 10.0
        while not over.wait(every_s):
            took = show_duration(time.monotonic() - start)
            click.echo(
                f"\r{what}: {took} \033[K" if stream.isatty() else f"  {took}", file=stream, nl=not stream.isatty()
            )

    click.echo(what, file=stream, nl=not stream.isatty())
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
        if stream.isatty():
            click.echo(file=stream)


def last_words(workspace: dict[str, Any]) -> str:
    """Where to read what a guest said; "" of one that never got as far as having a disk and keys."""
    return f"vws workspace console {workspace['id']}" if workspace.get("host_key") else ""


def timed_out(what: str, timeout_s: float, next_step: str) -> Failed:
    return failed(
        f"{what} after {show_duration(timeout_s)}",
        code="timed-out",
        kept="it goes on without this command",
        next_step=next_step,
    )
