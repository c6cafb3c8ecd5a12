"""`vws node`: the machines that run workspaces."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from vws.cli import output
from vws.cli.failures import failed
from vws.cli.label import label, shown_attributes
from vws.cli.maintenance import maintenance
from vws.cli.names import NAME
from vws.cli.node_cache import cache
from vws.cli.session import Session, dir_option, json_option, pass_session, site_options
from vws.cli.sizes import DURATION, show_duration, show_size
from vws.cli.times import show_time

Json = dict[str, Any]


@click.group()
def node() -> None:
    """Nodes: the machines that run workspaces.

    A node is named by its id or its name. A second host joins by a one-time token.

    \b
    Examples:
      vws node list
      vws node token                  on the site's machine: prints the line to run on the new host
      vws node drain host-2           no new workspaces there
      vws node label host-2 +gpu      what leases can require
    """


node.add_command(cache)
node.add_command(label)
node.add_command(maintenance)


COLUMNS: list[output.Column] = [
    ("NAME", lambda n: n["name"]),
    ("STATE", lambda n: output.state(n["state"])),
    ("HYPERVISOR", lambda n: n["hypervisor"]),
    ("WORKSPACES", lambda n: n["workspaces"]),
    ("CPUS", lambda n: f"{used(n, 'cpus')}/{cpus_of(n)}"),
    ("MEMORY", lambda n: f"{show_size(used(n, 'memory_mib'))} of {show_size(n['capacity']['memory_mib'])}"),
    ("DISK", lambda n: f"{show_size(used(n, 'disk_mib'))} of {show_size(n['capacity']['disk_mib'])}"),
    ("LABELS", lambda n: ", ".join(n["labels"])),
    ("MAINTENANCE", lambda n: next_maintenance(n)),
    ("HEARD", lambda n: output.until(n["heard_at"])),
    ("ID", lambda n: n["id"]),
    ("PROBLEM", lambda n: n["problem"]),
]


def used(n: Json, what: str) -> int:
    return int(n["used"][what])


def cpus_of(n: Json) -> int:
    """What can be leased: real CPUs times the node's ratio."""
    return int(n["capacity"]["cpus"] * n["capacity"].get("cpu_ratio", 1))


def next_maintenance(n: Json) -> str:
    """The one that is on, or the next."""
    if not n["maintenances"]:
        return ""
    window = n["maintenances"][0]
    return f"ends {output.until(window['end'])}" if window["state"] == "on" else output.until(window["start"])


@node.command("list")
@site_options
@click.option("--state", metavar="STATE", help="Only nodes in this state.")
@pass_session
def list_nodes(session: Session, state: str | None) -> None:
    """List the nodes, what they have and what of it is taken.

    \b
    Examples:
      vws node list
      vws node list --json | jq -r '.[] | select(.state != "ready") | .name'
    """
    nodes = [n for n in session.client.nodes() if state in (None, n["state"])]
    output.listing(
        nodes, COLUMNS, as_json=session.as_json, empty="There are no nodes. Next: vws site start, or vws node token"
    )


@node.command()
@site_options
@click.argument("name", metavar="NODE", type=NAME)
@pass_session
def show(session: Session, name: str) -> None:
    """Show a node.

    \b
    Examples:
      vws node show host-1
    """
    found = session.client.node(name)
    if session.as_json:
        output.print_json(found)
    else:
        click.echo(card_of(found))


def card_of(n: Json) -> str:
    return output.card(
        [
            ("name", n["name"]),
            ("id", n["id"]),
            ("state", output.state(n["state"])),
            ("problem", n["problem"]),
            ("hypervisor", f"{n['hypervisor']}: {n['hypervisor_reason']}" if n["hypervisor"] else ""),
            ("CPUs", f"{used(n, 'cpus')} of {cpus_of(n)} leased ({n['capacity']['cpus']} real)"),
            ("memory", f"{show_size(used(n, 'memory_mib'))} of {show_size(n['capacity']['memory_mib'])} leased"),
            ("disk", f"{show_size(used(n, 'disk_mib'))} of {show_size(n['capacity']['disk_mib'])} leased"),
            ("bandwidth", f"{n['capacity']['bandwidth_mbit']} Mbit/s" if n["capacity"]["bandwidth_mbit"] else ""),
            ("architecture", n["traits"]["arch"]),
            ("accelerators", ", ".join(n["traits"]["accelerators"])),
            ("labels", ", ".join(n["labels"])),
            ("attributes", shown_attributes(n)),
            ("maintenance", "\n".join(map(shown_maintenance, n["maintenances"]))),
            ("workspaces", n["workspaces"]),
            ("subnet", n["subnet"]),
            ("heard", output.until(n["heard_at"])),
            ("orders", f"generation {n['generation']}, carried out up to {n['applied_generation']}"),
            ("version", n["version"]),
        ]
    )


def shown_maintenance(window: Json) -> str:
    return f"{show_time(window['start'])} for {show_duration(window['end'] - window['start'])}: {window['reason']}"


@node.command()
@site_options
@click.argument("name", metavar="NODE", type=NAME)
@pass_session
def drain(session: Session, name: str) -> None:
    """Give a node no new workspaces; those that run there stay until their ends.

    \b
    Examples:
      vws node drain host-2
    """
    after = session.client.drain_node(session.client.node(name)["id"])
    report(
        session, after, f"{after['name']} is {after['state']}; {output.plural(after['workspaces'], 'workspace')} on it."
    )


@node.command()
@site_options
@click.argument("name", metavar="NODE", type=NAME)
@pass_session
def undrain(session: Session, name: str) -> None:
    """Give a drained node new workspaces again.

    \b
    Examples:
      vws node undrain host-2
    """
    after = session.client.undrain_node(session.client.node(name)["id"])
    report(session, after, f"{after['name']} is {after['state']}.")


def report(session: Session, value: Json, sentence: str) -> None:
    if session.as_json:
        output.print_json(value)
    else:
        click.echo(sentence)


@node.command()
@site_options
@click.option("--force", is_flag=True, help="Even with workspaces on it: they are given up as lost for good.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("name", metavar="NODE", type=NAME)
@pass_session
def remove(session: Session, name: str, force: bool, yes: bool) -> None:
    """Take a node out of the site; refused while workspaces are on it.

    \b
    Examples:
      vws node drain host-2; vws node remove host-2
      vws node remove host-2 --force --yes            it burned down
    """
    found = session.client.node(name)
    if force and not yes:
        confirm_loss(found)
    removed = session.client.remove_node(found["id"], force=force)
    report(session, removed or found, f"{found['name']} is removed.")


def confirm_loss(found: Json) -> None:
    """Ask on a terminal; elsewhere nobody can answer, so --yes must have said it."""
    count = output.plural(found["workspaces"], "workspace")
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"--force gives up {count} on {found['name']} for good; say --yes to do it without asking"
        )
    if not click.confirm(f"Give up {count} on {found['name']} for good?", err=True):
        raise failed("not confirmed", kept="nothing was changed")


# ---------------------------------------------------------------- joining


@node.command()
@site_options
@click.option(
    "--for",
    "lifetime_s",
    type=DURATION,
    default="1h",
    show_default=True,
    metavar="DURATION",
    help="How long it is good for.",
)
@pass_session
def token(session: Session, lifetime_s: int) -> None:
    """Make a token with which one host may join, once.

    \b
    Examples:
      vws node token
      vws node token --for 10m --json | jq -r .token
    """
    invitation = session.client.invite_node(lifetime_s)
    if session.as_json:
        output.print_json(invitation)
        return
    click.echo(f"On the new host, as root, within {show_duration(lifetime_s)}, once:\n")
    click.echo(f"  vws node join {shlex.quote(invitation['token'])}")


@node.command()
@dir_option
@json_option
@click.option("--name", metavar="NAME", type=NAME, help="The node's name.  [default: this host's]")
@click.option(
    "--isolation", type=click.Choice(["namespace", "host"]), default="namespace", show_default=True,
    help="Daemons and network of the node's own, or the machine's.",
)  # fmt: skip
@click.option("--detach", is_flag=True, help="Return once the agent runs, instead of staying with it.")
@click.argument("join_token", metavar="TOKEN", type=NAME)
@pass_session
def join(session: Session, join_token: str, name: str | None, isolation: str, detach: bool) -> None:
    """Make this host a node of the site that gave out TOKEN, and start its agent.

    \b
    Examples:
      vws node join TOKEN --detach
      vws node join TOKEN --name host-2 --isolation host
    """
    from vws.cli.site import say_to
    from vws.joined import join_node

    joined = join_node(
        session.directory, join_token, name=name, isolation=isolation, detach=detach, say=say_to(session.as_json)
    )
    if session.as_json:
        output.print_json(joined)
