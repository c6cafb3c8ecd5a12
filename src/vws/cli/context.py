"""`vws context`: machines that know each other, wherever they run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vws.cli import output
from vws.cli.failures import one_line
from vws.cli.names import NAME
from vws.cli.parameters import parameters_of, set_option
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import DURATION

if TYPE_CHECKING:
    from vws.cli.cluster_folder import Bundle

Json = dict[str, Any]
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def context() -> None:
    """Machines that know each other, wherever they run: in a cloud, on a desk, in another site.

    The members of a cluster have a context by themselves. This is for machines that VWS does not boot: each is given a
    script that makes it a member.

    \b
    Examples:
      vws context create examples/hello/cluster.yaml --out members
      vws context show hello
      vws context close hello
    """


@context.command()
@site_options
@click.argument("file", type=FILE)
@set_option
@click.option("--name", type=NAME, help="Call it this, in place of the file's name.")
@click.option(
    "--for", "duration_s", type=DURATION, default="30d", show_default=True, help="It is closed after so long."
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="FOLDER",
    help="Where to write the members' scripts, NAME.user-data.",
)  # fmt: skip
@pass_session
def create(session: Session, file: Path, given: tuple[str, ...], name: str | None, duration_s: int, out: Path) -> None:
    """Expect the members that a cluster file describes, and write what makes a machine each of them.

    Each script goes to one machine: as user-data of a cloud, or run there as root. It holds a one-time secret, so the
    files can be read by you alone. Images, networks, disks and the lease of the file are left out of account.

    \b
    Examples:
      vws context create cluster.yaml --out members
      vws context create cluster.yaml --set workers=8 --name run-7 --for 6h --out members
    """
    from vws.cli.cluster_folder import bundle
    from vws.guest.delivery import DIRECT, Contact, start_script

    found = bundle(file, parameters_of(given))
    made = session.client.create_context(**_asked(found, name), duration_s=duration_s)
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = []
    for member in made["secrets"]:
        contact = Contact(made["url"], member["secret"], made["ca_pem"], connect_to=DIRECT)
        written.append(_write(out / f"{member['name']}.user-data", start_script(contact)))
    if session.as_json:
        shown = {key: made[key] for key in made if key not in ("secrets", "ca_pem")}
        output.print_json(shown | {"user_data": [str(path) for path in written]})
        return
    click.echo(f"context {made['name']} ({made['id']}) expects {output.plural(len(written), 'member')}")
    for path in written:
        click.echo(f"  {path}")
    click.echo(f"Give each file to one machine, which must reach {made['url']}. vws context show {made['name']}")


def _asked(found: Bundle, name: str | None) -> Json:
    """The request for a context of the members that the file describes."""
    from vws.core.wire import to_json

    spec: Json = to_json(found.cluster.context)
    members = [
        {"name": each.name, "provides": list(each.provides), "requires": list(each.requires)}
        for each in found.cluster.expected()
    ]
    wanted = ("roles", "data", "introduce", "ssh", "within_s")
    return {"name": name or spec["name"], "members": members} | {key: spec[key] for key in wanted}


def _write(path: Path, text: str) -> Path:
    """Readable by its owner only, from its first byte on."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)
    return path


COLUMNS: list[output.Column] = [
    ("NAME", lambda c: c["name"]),
    ("STATE", lambda c: output.state(c["state"])),
    ("OWNER", lambda c: c["owner"]),
    ("MADE", lambda c: output.moment(c["created_at"])),
    ("ENDS", lambda c: output.moment(c["ends_at"]) if c["ends_at"] else "with its cluster"),
    ("REASON", lambda c: c["reason"]),
    ("ID", lambda c: c["id"]),
]


@context.command("list")
@site_options
@click.option("--all", "everything", is_flag=True, help="Those that are closed too.")
@pass_session
def list_contexts(session: Session, everything: bool) -> None:
    """List contexts, those of clusters too.

    \b
    Examples:
      vws context list
      vws context list --all --json
    """
    found = list(session.client.contexts(live=not everything))
    output.listing(found, COLUMNS, as_json=session.as_json, empty="There are no contexts.")


@context.command()
@site_options
@click.argument("name", type=NAME)
@pass_session
def show(session: Session, name: str) -> None:
    """How far each member is: what it waits for, what it ran, what failed.

    \b
    Examples:
      vws context show desks
    """
    found = session.client.context(name)
    if session.as_json:
        output.print_json(found)
        return
    why = f": {found['reason']}" if found["reason"] else ""
    click.echo(f"{found['name']} ({found['id']}) is {output.state(found['state'])}{why}")
    for member in found["members"]:
        for line in progress_of(member):
            click.echo(f"  {line}")


def progress_of(member: Json) -> Iterable[str]:
    """How far a member is, in lines."""
    yield f"{member['name']}: {output.state(member['state'])}{': ' + member['late'] if member['late'] else ''}"
    for wait in member["waits"]:
        more = f" and {wait['count'] - len(wait['members'])} more" if wait["count"] > len(wait["members"]) else ""
        yield f"  waits for {wait['what']}: {', '.join(wait['members'])}{more}"
    for ran in member["ran"]:
        ended = "ended well" if not ran["status"] else f"ended with status {ran['status']}"
        why = f" ({ran['message']})" if ran["status"] and ran["message"] else ""
        yield f"  {ran['role']} ({ran['side']}) {ran['hook']} {ended}{why}, {output.until(ran['at'])}"


@context.command()
@site_options
@click.argument("name", type=NAME)
@click.argument("member", type=NAME)
@pass_session
def log(session: Session, name: str, member: str) -> None:
    """The ends of the outputs of a member's hooks.

    \b
    Examples:
      vws context log desks greeter-1
    """
    show_logs(session, session.client.context_log(name, member))


def show_logs(session: Session, logs: Json) -> None:
    if session.as_json:
        output.print_json(logs["items"])
        return
    for each in logs["items"]:
        click.echo(click.style(f"{each['role']} ({each['side']}) {each['hook']}:", bold=True))
        for line in each["log"].rstrip("\n").split("\n"):
            click.echo(one_line(line.replace("\t", "    ")))
    if not logs["items"]:
        click.echo("It has run no hooks yet.", err=True)


@context.command()
@site_options
@click.argument("name", type=NAME)
@pass_session
def close(session: Session, name: str) -> None:
    """End a context: no more changes, and the agents of its members stop. The machines go on.

    \b
    Examples:
      vws context close desks
    """
    found = session.client.close_context(name)
    if session.as_json:
        output.print_json(found)
    else:
        click.echo(f"{found['name']} is {found['state']}")
