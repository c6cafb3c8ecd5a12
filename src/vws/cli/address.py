"""`vws address`: addresses of the site's pools that stay one's own."""

from __future__ import annotations

from typing import Any

import click

from vws.cli import output
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options

Json = dict[str, Any]


@click.group()
def address() -> None:
    """Public addresses that the site has set aside.

    A member of a cluster on a public network gets one for as long as it lives. One that is reserved stays yours from
    one launch to the next: say its name in the cluster file.

    \b
    Examples:
      vws address pools
      vws address reserve front
      vws address list
      vws address release front
    """


POOLS: list[output.Column] = [
    ("POOL", lambda p: p["name"] + (" (default)" if p["default"] else "")),
    ("RANGE", lambda p: p["range"]),
    ("ADDRESSES", lambda p: str(p["size"])),
    ("FREE", lambda p: str(p["free"])),
    ("HELD", lambda p: str(p["held"])),
    ("RESERVED", lambda p: str(p["reserved"])),
    ("NODES", lambda p: p["require"] or "all"),
]
COLUMNS: list[output.Column] = [
    ("ADDRESS", lambda a: a["address"]),
    ("NAME", lambda a: a["name"]),
    ("POOL", lambda a: a["pool"]),
    ("OWNER", lambda a: a["owner"]),
    ("HELD BY", lambda a: holder(a)),
    ("RELEASED", lambda a: "" if a["released_at"] is None else "yes"),
]


def holder(address: Json) -> str:
    return f"{address['member']} of {address['cluster_name']}" if address["cluster"] else ""


@address.command()
@site_options
@pass_session
def pools(session: Session) -> None:
    """List the site's pools, and how much of each is free.

    \b
    Examples:
      vws address pools --json
    """
    output.listing(
        session.client.pools(), POOLS, as_json=session.as_json, empty="This site has set no addresses aside."
    )


@address.command()
@site_options
@click.option("--pool", metavar="POOL", help="Of which pool.  [the default one]")
@click.option("--address", "wanted", metavar="ADDRESS", default="", help="Which one.  [any]")
@click.option("--for-user", "owner", metavar="USER", help="For whom; for administrators.  [you]")
@click.argument("name", metavar="NAME", type=NAME)
@pass_session
def reserve(session: Session, name: str, pool: str | None, wanted: str, owner: str | None) -> None:
    """Reserve an address under a name. It stays reserved until it is released.

    \b
    Examples:
      vws address reserve front
      vws address reserve front --pool campus --address 192.0.2.17
      vws address reserve front --for-user ann
    """
    reserved = session.client.reserve_address(name, pool=pool, address=wanted, owner=owner)
    if session.as_json:
        output.print_json(reserved)
        return
    click.echo(f"{reserved['address']} of the pool {reserved['pool']} is reserved for {reserved['owner']} as {name}.")
    click.echo(f"In a cluster file: address: {name} in a group of one member that is on that network.")


@address.command("list")
@site_options
@click.option("--all", "everything", is_flag=True, help="Those that were given back too.")
@click.option("--pool", metavar="POOL", help="Only of this pool.")
@pass_session
def list_addresses(session: Session, everything: bool, pool: str | None) -> None:
    """List addresses that are reserved or held; yours, or all for an administrator.

    \b
    Examples:
      vws address list
      vws address list --pool campus --json
    """
    where: Json = {"pool": pool} if pool else {}
    found = list(session.client.addresses(live=not everything, **where))
    columns = COLUMNS if everything else COLUMNS[:-1]
    output.listing(found, columns, as_json=session.as_json, empty="No address is reserved or held.")


@address.command()
@site_options
@click.argument("name", metavar="NAME", type=NAME)
@pass_session
def release(session: Session, name: str) -> None:
    """Give a reserved address back to its pool; by its name, its id or itself.

    \b
    Examples:
      vws address release front
    """
    released = session.client.release_address(name)
    if session.as_json:
        output.print_json(released)
    else:
        click.echo(f"{released['address']} is the pool {released['pool']}'s again.")
