"""A serial console's log, cut to its last lines or followed.

The service hands out the end of a log that only grows. To follow it, the part
that was printed last is looked for in what comes next; what lies behind it is
new.

What a guest prints is a stranger's text: on a terminal it could set the title,
rewrite lines that were read before, or have the terminal type something in. A
terminal therefore gets what can be read; a pipe gets the bytes as they are.
"""

from __future__ import annotations

import re
import sys
import time
from typing import Any

import click

POLL_S = 0.5
# Longer than any line that a console repeats, so that it is found once.
ANCHOR_BYTES = 2048
OVER = {"terminated", "failed"}
# Colours and cursor movements go as a whole, so that nothing of them is left in the text; then every other control
# character but tab, line feed and carriage return.
UNREADABLE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def show(text: bytes, *, raw: bool = False) -> None:
    """Print a part of the log; on a terminal without what would command it, unless it is wanted raw."""
    plain = not raw and sys.stdout.isatty()
    click.echo(UNREADABLE.sub("", text.decode(errors="replace")) if plain else text, nl=False)


def last_lines(text: bytes, count: int | None) -> bytes:
    return text if count is None else b"".join(text.splitlines(keepends=True)[-count:])


def new_part(before: bytes, now: bytes) -> bytes:
    """What `now` has beyond `before`; all of it if the two have nothing in common."""
    if now.startswith(before):
        return now[len(before) :]
    anchor = before[-ANCHOR_BYTES:]
    found = now.rfind(anchor)
    return now[found + len(anchor) :] if found >= 0 else now


def follow_console(client: Any, workspace: dict[str, Any], tail: int | None, *, raw: bool = False) -> None:
    """Print the console as it grows, until the workspace has ended."""
    seen = client.console(workspace["id"])
    show(last_lines(seen, tail), raw=raw)
    try:
        while client.workspace(workspace["id"])["state"] not in OVER:
            time.sleep(POLL_S)
            now = client.console(workspace["id"])
            show(new_part(seen, now), raw=raw)
            seen = now
    except KeyboardInterrupt:
        click.echo(err=True)
