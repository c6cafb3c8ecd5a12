"""`vws usage`: what was agreed and what ran, and what it costs."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from zoneinfo import ZoneInfo

import click

from vws.cli import output
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options

Json = dict[str, Any]
Progress = Callable[[int, int], None]

BY = ("user", "vo", "lease", "day")
KEYS: dict[str, list[output.Column]] = {
    "user": [("USER", lambda row: row["user"]), ("VO", lambda row: row["vo"])],
    "vo": [("VO", lambda row: row["vo"] or "(none)")],
    "lease": [("LEASE", lambda row: row["name"] or row["lease"]), ("USER", lambda row: row["user"])],
    "day": [("DAY", lambda row: row["day"])],
}
FIGURES = (("NODE-HOURS", "node_hours"), ("CPU-HOURS", "cpu_hours"), ("CHARGE", "charge"))
SIDES = ("reserved", "used")


@click.command()
@site_options
@click.option("--user", metavar="USER", type=NAME, help="Only this user's (others' are shown to administrators only).")
@click.option("--vo", metavar="VO", type=NAME, help="Only what the users of this VO have.")
@click.option("--lease", metavar="LEASE", type=NAME, help="Only this lease's, by its id or name.")
@click.option("--by", type=click.Choice(BY), default="user", show_default=True, help="What a row is.")
@click.option("--from", "since", metavar="TIME", type=NAME, help="The first instant.  [default: this month's first]")
@click.option("--to", "until", metavar="TIME", type=NAME, help="The end, which is not counted.  [default: now]")
@pass_session
def usage(session: Session, /, by: str, **where: str | None) -> None:
    """Print node-hours, CPU-hours and charges: reserved (what was agreed) and used (what ran).

    A TIME is a month, a day or an instant of the site's clock: 2026-10, 2026-10-03, 2026-10-03T12:00; with a Z at its
    end, or as a number of seconds, it is UTC. A lease that goes on counts until now.

    \b
    Examples:
      vws usage
      vws usage --from 2026-09 --to 2026-10 --by vo
      vws usage --user anna --by lease
      vws usage --by day --json | jq '.rows[].used.node_hours'
    """
    with _progress() as progress:
        report = session.client.usage(by=by, progress=progress, **where)
    if session.as_json:
        output.print_json(report)
        return
    click.echo(_interval(report))
    if report["rows"]:
        click.echo(_table(report))
    else:
        click.echo("nothing was reserved or used then", err=True)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar where somebody looks at one."""
    if not sys.stderr.isatty():
        yield None
        return
    from vws.cli.live import count

    with count(sys.stderr, "reading the record, %", 100) as done:
        yield lambda read, of: done(100 * read // max(of, 1))


def _interval(report: Json) -> str:
    zone = ZoneInfo(report["time_zone"])
    start, end = (f"{dt.datetime.fromtimestamp(report[key], zone):%Y-%m-%d %H:%M:%S}" for key in ("from", "to"))
    return f"from {start} to {end} ({report['time_zone']}); charges in {report['unit']}"


def _table(report: Json) -> str:
    keys = KEYS[report["by"]]
    headers = [name for name, _ in keys]
    columns = [[cell(row) for row in report["rows"]] for _, cell in keys]
    for column, name in zip(columns, headers, strict=True):
        column.append("total" if name == headers[0] else "")
    for side in SIDES:
        for title, figure in FIGURES:
            headers.append(title)
            columns.append(_figures([row[side][figure] for row in [*report["rows"], report["total"]]]))
    above = [*("" for _ in keys), *(side.upper() if not i else "" for side in SIDES for i in range(len(FIGURES)))]
    return output.table(above, [headers, *zip(*columns, strict=True)])


def _figures(values: list[float]) -> list[str]:
    """As wide as the widest, so that their points stand below each other."""
    shown = [f"{value:.2f}" for value in values]
    width = max(map(len, shown))
    return [text.rjust(width) for text in shown]
