"""A serial console's log, cut to its last lines or followed.

The service hands out the end of a log that only grows. To follow it, the part
that was printed last is looked for in what comes next; what lies behind it is
new.
"""

from __future__ import annotations

import time
from typing import Any

import click

POLL_S = 0.5
# Longer than any line that a console repeats, so that it is found once.
ANCHOR_BYTES = 2048
OVER = {"terminated", "failed"}


def last_lines(text: bytes, count: int | None) -> bytes:
    return text if count is None else b"".join(text.splitlines(keepends=True)[-count:])


def new_part(before: bytes, now: bytes) -> bytes:
    """What `now` has beyond `before`; all of it if the two have nothing in common."""
    if now.startswith(before):
        return now[len(before) :]
    anchor = before[-ANCHOR_BYTES:]
    found = now.rfind(anchor)
    return now[found + len(anchor) :] if found >= 0 else now


def follow_console(client: Any, workspace: dict[str, Any], tail: int | None) -> None:
    """Print the console as it grows, until the workspace has ended."""
    seen = client.console(workspace["id"])
    click.echo(last_lines(seen, tail), nl=False)
    try:
        while client.workspace(workspace["id"])["state"] not in OVER:
            time.sleep(POLL_S)
            now = client.console(workspace["id"])
            click.echo(new_part(seen, now), nl=False)
            seen = now
    except KeyboardInterrupt:
        click.echo(err=True)
