"""`vws events`: what happened, who asked, when. Events are never changed and never deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from vws.cli import output
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options

Json = dict[str, Any]

EARLIEST_S = 1_500_000_000
SUBJECTS = ("workspace", "lease", "node", "image")


@click.command()
@site_options
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens next, until Ctrl-C. Alone: only that.")
@click.option("--lease", metavar="LEASE", type=NAME, help="Only those of this lease.")
@click.option("--workspace", metavar="WORKSPACE", type=NAME, help="Only those of this workspace.")
@click.option("--node", metavar="NODE", type=NAME, help="Only those of this node.")
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="Only those after this number.")
@pass_session
def events(session: Session, /, follow: bool, after: int | None, **subjects: str | None) -> None:
    """Print what happened: when, who asked, what, to what, why.

    With --json one array, or one object a line when following. Followed alone, events begin with the next one; those
    of one lease, workspace or node begin with its first.

    \b
    Examples:
      vws events
      vws events --follow
      vws events --lease demo --json | jq -r '.[].kind'
      vws events --follow --json --after 1200     go on where you were
    """
    client = session.client
    where = {kind: getattr(client, kind)(name)["id"] for kind, name in subjects.items() if name}
    if follow:
        if after is None and where:
            after = 0  # who follows one thing wants to know how it got there
        show(client.follow_events(after=after, **where), as_json=session.as_json)
    elif session.as_json:
        output.print_json(list(client.events(after=after, **where)))
    else:
        show(client.events(after=after, **where), as_json=False)


def show(found: Iterable[Json], *, as_json: bool) -> None:
    """Each as soon as it is known."""
    try:
        for event in found:
            click.echo(output.json_text(event) if as_json else line_of(event))
    except KeyboardInterrupt:
        click.echo(err=True)


def line_of(event: Json) -> str:
    reason = event["data"].get("reason") or _rest(event["data"])
    parts = [output.moment(event["at"]), f"{event['actor']:<19}", f"{event['kind']:<20}", subject_of(event), reason]
    return "  ".join(part for part in parts if part).rstrip()


def subject_of(event: Json) -> str:
    """The name of what it happened to, if the event tells it, else the id."""
    subject = next((event[kind] for kind in SUBJECTS if event.get(kind)), "")
    name = event["data"].get("name")
    return f"{name} ({subject})" if name and subject else subject


def _rest(data: Json) -> str:
    told = {key: value for key, value in data.items() if key != "name" and value not in (None, "", [], {})}
    return " ".join(f"{key}={_moment_or(value)}" for key, value in told.items())


def _moment_or(value: Any) -> Any:
    """Times are numbers that nothing else comes near."""
    return output.moment(value) if isinstance(value, int | float) and value > EARLIEST_S else value
