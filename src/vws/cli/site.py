"""`vws site`: a site on this machine. What is done is done in `vws.supervisor`; here it is asked for and shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from vws.cli import output
from vws.cli.names import NAME
from vws.cli.session import Session, dir_option, json_option, pass_session

Json = dict[str, Any]


def say_to(as_json: bool) -> Callable[[str], None]:
    """Where progress is told: stdout for people, stderr when stdout is for a program."""
    return partial(click.echo, err=as_json)


@click.group()
def site() -> None:
    """A site on this machine: its service, its store, its node.

    One directory holds all of it: --dir, VWS_DIR, or else /var/lib/vws for root and ~/.local/share/vws for others.

    \b
    Examples:
      vws site init; vws site start --detach
      vws site init --dir /tmp/trial; vws site start --dir /tmp/trial --fake-nodes 200 --detach
      vws site status
      vws site stop --now
    """


@site.command()
@dir_option
@json_option
@click.option("--name", metavar="NAME", type=NAME, help="The site's name.  [default: this host's]")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port to listen on.  [default: a free one]")
@click.option("--store", default="sqlite", show_default=True, metavar="URL", help="sqlite, or a PostgreSQL URL.")
@click.option("--user", metavar="USER", help="Whom the service runs as when root starts it.  [default: vws]")
@click.option(
    "--isolation", type=click.Choice(["namespace", "host"]), default="namespace", show_default=True,
    help="The node gets daemons and a network of its own, or uses the machine's.",
)  # fmt: skip
@pass_session
def init(session: Session, /, **options: Any) -> None:
    """Make a site: its directory, certificate authority, store and first admin token.

    \b
    Examples:
      vws site init
      vws site init --dir /srv/vws --name physics --host 0.0.0.0 --port 7443
      vws site init --store postgresql://vws@db.example.org/vws
    """
    from vws.supervisor import init_site

    made = init_site(session.directory, **options)
    if session.as_json:
        output.print_json(made)
        return
    click.echo(f"Made the site {made['name']} in {made['dir']} ({made['url']}).")
    click.echo("Next: " + session.named("vws site start --detach"))


@site.command()
@dir_option
@json_option
@click.option("--fake-nodes", type=int, metavar="N", help="Simulate N nodes instead of using this host.")
@click.option("--detach", is_flag=True, help="Return once it is ready, instead of staying in the foreground.")
@pass_session
def start(session: Session, fake_nodes: int | None, detach: bool) -> None:
    """Start what of the site does not run, and wait until it is ready; on a host that joined one, the agent.

    A real node needs root; a site of fake nodes can be started by anybody. Without --detach, Ctrl-C stops the site.

    \b
    Examples:
      vws site start --detach
      vws site start --fake-nodes 200 --detach
    """
    from vws.supervisor import start_site

    say = say_to(session.as_json)
    status = start_site(session.directory, fake_nodes=fake_nodes, detach=detach, say=say)
    if session.as_json:
        output.print_json(status)


@site.command()
@dir_option
@json_option
@click.option("--now", is_flag=True, help="End all leases first.")
@pass_session
def stop(session: Session, now: bool) -> None:
    """Stop the site's processes.

    While workspaces are leased the service stops, and the agent stays on duty until their ends. With --now everything
    is ended first. On a host that joined a site elsewhere: stop its agent, refused while it has workspaces.

    \b
    Examples:
      vws site stop
      vws site stop --now
    """
    from vws.supervisor import stop_site

    status = stop_site(session.directory, now=now, say=say_to(session.as_json))
    if session.as_json:
        output.print_json(status)


@site.command()
@dir_option
@json_option
@pass_session
def status(session: Session) -> None:
    """Say what of the site runs; exit status 1 if its service does not answer.

    \b
    Examples:
      vws site status
      vws site status --json | jq .service
    """
    from vws.supervisor import site_status

    found = site_status(session.directory)
    if session.as_json:
        output.print_json(found)
    else:
        click.echo(card_of(found))
    if not found["healthy"]:
        raise SystemExit(1)


@site.command()
@dir_option
@json_option
@pass_session
def rates(session: Session) -> None:
    """Show how long staging, boots, suspensions and the like take: as configured, and as the site has learned.

    What is expected is the median of what was seen; what is promised, to leases that start at a given time, is the 95th
    percentile and a margin. SEEN 0 means that the configuration holds.

    \b
    Examples:
      vws site rates
      vws site rates --json | jq '.[] | select(.step == "boot")'
    """
    output.listing(session.client.rates(), RATE_COLUMNS, as_json=session.as_json, empty="nothing is known")


RATE_COLUMNS: list[output.Column] = [
    ("STEP", lambda r: r["step"]),
    ("HYPERVISOR", lambda r: r["hypervisor"]),
    ("IMAGE", lambda r: r["image"]),
    ("CONFIGURED", lambda r: _figure(r, "configured")),
    ("EXPECTED", lambda r: _figure(r, "expected")),
    ("PROMISED", lambda r: _figure(r, "promised")),
    ("SEEN", lambda r: r["count"]),
]


def _figure(rate: Json, name: str) -> str:
    return f"{rate[name]:.3g} {rate['unit']}" if rate[name] < 1000 else f"{rate[name]:.0f} {rate['unit']}"


def card_of(found: Json) -> str:
    agent = ("agent", f"pid {found['agent']}" if found["agent"] else "not running; vws site start starts it")
    if "node" in found:
        return output.card([("node", found["node"]), ("directory", found["dir"]), ("of the site", found["url"]), agent])
    service = f"pid {found['service']}" if found["service"] else "not running; vws site start starts it"
    if found["service"] and not found["healthy"]:
        service += ", but it does not answer"
    facts = [
        ("site", found["name"]),
        ("directory", found["dir"]),
        ("url", found["url"]),
        ("service", service),
        agent,
    ]
    tallies = [(what, _tally(found[what])) for what in ("nodes", "leases", "workspaces") if what in found]
    return output.card([*facts, *tallies])


def _tally(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {output.state(state)}" for state, count in sorted(counts.items())) or "none"
