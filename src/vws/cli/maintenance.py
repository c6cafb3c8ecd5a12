"""`vws node maintenance`: when somebody works on a node, so that nothing is planned into it."""

from __future__ import annotations

from typing import Any

import click

from vws.cli import output
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import DURATION, show_duration
from vws.cli.times import TIME, show_time

Json = dict[str, Any]


@click.group()
def maintenance() -> None:
    """Times over which a node runs nothing.

    New leases go elsewhere or end before. Those that are there already stay, and are named. Unlike a drained node, one
    with a maintenance ahead goes on taking what will be over in time.

    \b
    Examples:
      vws node maintenance add host-1 --from 'saturday 08:00' --for 4h --reason 'new disks'
      vws node maintenance list
    """


COLUMNS: list[output.Column] = [
    ("ID", lambda m: m["id"]),
    ("NODE", lambda m: m["node_name"]),
    ("STATE", lambda m: m["state"]),
    ("FROM", lambda m: show_time(m["start"])),
    ("FOR", lambda m: show_duration(m["end"] - m["start"])),
    ("REASON", lambda m: m["reason"]),
    ("LEASES", lambda m: ", ".join(m["leases"])),
]


@maintenance.command()
@site_options
@click.option("--from", "start", type=TIME, metavar="TIME", help="When it begins: 14:30, saturday 08:00, +2h.  [now]")
@click.option("--for", "duration_s", type=DURATION, required=True, metavar="DURATION", help="How long it takes.")
@click.option("--reason", required=True, metavar="TEXT", help="For those who wonder why.")
@click.argument("name", metavar="NODE", type=NAME)
@pass_session
def add(session: Session, name: str, start: int | None, duration_s: int, reason: str) -> None:
    """Plan a maintenance of a node.

    \b
    Examples:
      vws node maintenance add host-1 --for 30m --reason 'a new kernel'
      vws node maintenance add host-1 --from 2026-11-28T08:00 --for 4h --reason 'new disks'
    """
    added = session.client.plan_maintenance(name, duration_s, reason, start=start)
    if session.as_json:
        output.print_json(added)
        return
    click.echo(
        f"{added['node_name']} is in maintenance from {show_time(added['start'])} for {show_duration(duration_s)}."
    )
    click.echo(f"To call it off: vws node maintenance remove {added['id']}")
    if added["leases"]:
        there = output.plural(len(added["leases"]), "lease")
        click.echo(f"{there} will be there meanwhile and stay: {', '.join(added['leases'])}.", err=True)


@maintenance.command("list")
@site_options
@click.option("--all", "everything", is_flag=True, help="Those that are over or were called off too.")
@click.argument("name", metavar="[NODE]", type=NAME, required=False)
@pass_session
def list_maintenances(session: Session, name: str | None, everything: bool) -> None:
    """List the maintenances that are on or ahead, of one node or of all.

    \b
    Examples:
      vws node maintenance list
      vws node maintenance list host-1 --all --json
    """
    where = ({"node": name} if name else {}) | ({"all": True} if everything else {})
    found = sorted(session.client.maintenances(**where), key=lambda m: (m["start"], m["id"]))
    output.listing(found, COLUMNS, as_json=session.as_json, empty="No maintenance is on or ahead.")


@maintenance.command()
@site_options
@click.argument("id", metavar="ID", type=NAME)
@pass_session
def remove(session: Session, id: str) -> None:
    """Call a maintenance off, or end it early.

    \b
    Examples:
      vws node maintenance remove mnt-01jd3k9q4t7c2vz
    """
    removed = session.client.remove_maintenance(id)
    if session.as_json:
        output.print_json(removed)
    else:
        click.echo(f"The maintenance of {removed['node_name']} ({removed['reason']}) is {removed['state']}.")
