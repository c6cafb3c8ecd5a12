"""`vws plan`: who has which node when, as the site has it now.

The picture itself is drawn elsewhere (vws/calendar_text.py, calendar_page.py),
for simulations have the same; here it is fetched, cut to what was asked for and
put where it was asked.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path

import click

from vws.calendar_axis import Clock
from vws.cli import output
from vws.cli.failures import check_writable
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import DURATION
from vws.core.calendar import Calendar, calendar_from_json, calendar_to_json, window

HOUR_S = 3600
# The site's clock may go a little before this one.
MARGIN_S = 60
LINES_AROUND = 16  # the title, the axis, the legend and the next prompt
PIPE_WIDTH = 120
TIME_FORMATS = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"]


def fetch_calendar(session: Session, *, start: int | None, end: int | None) -> Calendar:
    """The site's plan and what it did before, as far as the service shows it to the asker."""
    return calendar_from_json(session.client.plan(start, end))


@click.command()
@site_options
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it as a page.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), metavar="N", help="Only the next N hours.")
@click.option("--until", type=click.DateTime(TIME_FORMATS), metavar="TIME", help="Only until TIME, by your clock.")
@click.option("--back", "back_s", type=DURATION, metavar="DURATION", help="And what was so long before.  [default: 1h]")
@click.option("--node", "nodes", multiple=True, metavar="NODE", type=NAME, help="Only this node; may be repeated.")
@pass_session
def plan(
    session: Session,
    html: Path | None,
    hours: float | None,
    until: datetime | None,
    back_s: int | None,
    nodes: tuple[str, ...],
) -> None:
    """Show who has which node when: what runs, what is planned, what it takes to get there.

    A line per node, a colour per lease. A site of more nodes than there are lines is shown by groups of nodes, as
    high as they are in use. With --html a page that can be zoomed, searched, printed and mailed; it needs no network.

    \b
    Examples:
      vws plan
      vws plan --hours 12 --node host-1
      vws plan --back 2d
      vws plan --html plan.html
      vws plan --json | jq '.bars[] | select(.step == "suspend")'
    """
    if hours is not None and until is not None:
        raise click.UsageError("--hours and --until both say how far; give one")
    now = time.time()
    if until is not None and until.timestamp() <= now and back_s is None:
        raise click.UsageError(f"--until {until:%Y-%m-%d %H:%M:%S} is over; --back says how far to look back")
    if html is not None:
        check_writable(html)
    end = None if until is None else int(until.timestamp())
    fetched = fetch_calendar(
        session,
        start=None if back_s is None else int(now) - back_s,
        end=end if hours is None else int(now + hours * HOUR_S) + MARGIN_S,
    )
    calendar = narrowed(fetched, hours=hours, until=until, back_s=back_s, nodes=nodes)
    if html is not None:
        write_page(html, calendar)
    if session.as_json:
        output.print_json(calendar_to_json(calendar))
    elif html is not None:
        click.echo(f"Wrote {html}; open it in a browser.")
    else:
        click.echo(text_of(calendar))


def narrowed(
    calendar: Calendar,
    *,
    hours: float | None = None,
    until: datetime | None = None,
    back_s: int | None = None,
    nodes: tuple[str, ...] = (),
) -> Calendar:
    """What was asked for of it; from now on if a length was given and nothing said of the past. Raises InvalidRequest
    for what it does not have."""
    start, end = calendar.start, calendar.end
    now = start if calendar.now is None else calendar.now
    if hours is not None:
        start, end = now if back_s is None else start, now + max(1, round(hours * HOUR_S))
    elif until is not None:
        end = int(until.timestamp())
        start = min(start, now)
    return window(calendar, start, end, nodes)


def write_page(file: Path, calendar: Calendar) -> None:
    """Raises OSError if it cannot be written; a page that was there is then kept."""
    from vws.calendar_page import draw_page

    page = draw_page(calendar)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def text_of(calendar: Calendar) -> str:
    """For the terminal that reads it; whole and uncoloured for a pipe."""
    from vws.calendar_text import draw_text

    terminal = sys.stdout.isatty()
    size = shutil.get_terminal_size((PIPE_WIDTH, 24))
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    return draw_text(
        calendar,
        width=size.columns if terminal else PIPE_WIDTH,
        lines_max=size.lines - LINES_AROUND if terminal else None,
        colour=terminal and "NO_COLOR" not in os.environ,
        ascii_only=not encoding.startswith("utf"),
        clock=Clock(offset_s=offset_s(calendar.start)),
    )


def offset_s(at: int) -> int:
    """Seconds by which the reader's clock is east of UTC at `at`."""
    return time.localtime(at).tm_gmtoff
