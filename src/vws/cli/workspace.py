"""`vws workspace`: single workspaces of a lease, their life and their console.

A command such as suspend is an order that the node carries out; by default these
commands wait until the node says that it is done, so that the exit status tells
the truth. `--no-wait` returns as soon as the service has taken the order.
"""

from __future__ import annotations

import time
from typing import Any

import click

from vws.cli import output, progress
from vws.cli.failures import Failed, failed
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import DURATION, show_size
from vws.cli.workspace_save import save, saves

Json = dict[str, Any]

WAIT_LIMIT_S = 300

MEMBER_COLUMNS: list[output.Column] = [
    ("NAME", lambda w: w["name"]),
    ("STATE", lambda w: output.state(w["state"])),
    ("NODE", lambda w: w["node_name"] or w["node"]),
    ("ADDRESS", lambda w: progress.address_of(w)),
    ("SIZE", lambda w: f"{output.plural(w['cpus'], 'CPU')}, {show_size(w['memory_mib'])}"),
    ("UP AFTER", lambda w: f"{w['running_at'] - w['created_at']:.1f} s" if w["running_at"] else ""),
    ("ID", lambda w: w["id"]),
    ("NOTE", lambda w: progress.doing_of(w)),
]


@click.group()
def workspace() -> None:
    """Workspaces: the virtual machines of a lease, one by one.

    A workspace is named by its id or its name.

    \b
    Examples:
      vws workspace list
      vws workspace suspend demo-1
      vws workspace console demo-1 --follow
    """


# ---------------------------------------------------------------- looking


@workspace.command("list")
@site_options
@click.option("--all", "everything", is_flag=True, help="Those that have ended too.")
@click.option("--lease", metavar="LEASE", type=NAME, help="Only those of this lease.")
@click.option("--node", metavar="NODE", type=NAME, help="Only those on this node.")
@click.option("--state", metavar="STATE", help="Only those in this state.")
@pass_session
def list_workspaces(session: Session, everything: bool, lease: str | None, node: str | None, state: str | None) -> None:
    """List the workspaces that live.

    \b
    Examples:
      vws workspace list
      vws workspace list --lease demo --state running
      vws workspace list --json | jq -r '.[] | .name + " " + .addresses[0]'
    """
    client = session.client
    where = {
        "lease": client.lease(lease)["id"] if lease else None,
        "node": client.node(node)["id"] if node else None,
        "state": state,
    }
    found = list(client.workspaces(live=not everything, **where))
    output.listing(
        found,
        [*MEMBER_COLUMNS[:6], END, *MEMBER_COLUMNS[6:]],
        as_json=session.as_json,
        empty="There are no workspaces.",
    )


END: output.Column = ("END", lambda w: output.until(w["end"]) if w["state"] not in ("terminated", "failed") else "")


@workspace.command()
@site_options
@click.argument("name", metavar="WORKSPACE", type=NAME)
@pass_session
def show(session: Session, name: str) -> None:
    """Show a workspace.

    \b
    Examples:
      vws workspace show demo-1
      vws workspace show demo-1 --json | jq -r .state
    """
    found = session.client.workspace(name)
    if session.as_json:
        output.print_json(found)
    else:
        click.echo(card_of(found))


def memory_of(w: Json) -> str:
    asked, defined = w["memory_mib"], w["memory_defined_mib"]
    if asked > defined > 0:
        return f"{show_size(asked)} ({show_size(defined)} until the next boot)"
    return show_size(asked) + (f", up to {show_size(defined)} without a boot" if defined > asked else "")


def cpus_of(w: Json) -> str:
    asked, defined = w["cpus"], w["cpus_defined"]
    return f"{asked}" + (f" ({defined} until the next boot)" if asked != defined else "")


def card_of(w: Json) -> str:
    return output.card(
        [
            ("name", w["name"]),
            ("id", w["id"]),
            ("state", output.state(w["state"])),
            ("reason", w["reason"]),
            ("no new start", w.get("boot_refused", "")),
            ("doing", w["step"] if w["state"] not in ("running", "terminated") else ""),
            ("lease", w["lease"]),
            ("group", w["group"]),
            ("owner", w["owner"]),
            ("node", w["node_name"] or w["node"]),
            ("address", ", ".join(w["addresses"])),
            ("host name", w["hostname"]),
            ("image", w["image"]),
            ("log in as", w["user"]),
            ("host key", w["host_key"]),
            ("CPUs", cpus_of(w)),
            ("memory", memory_of(w)),
            ("disk", show_size(w["disk_mib"])),
            ("boots", w["boots"]),
            ("exit status", "" if w["exit_status"] is None else w["exit_status"]),
            ("asked for", output.moment(w["created_at"])),
            ("up after", f"{w['running_at'] - w['created_at']:.1f} s" if w["running_at"] else ""),
            ("changed", output.moment(w["changed_at"])),
            ("end", f"{output.moment(w['end'])} ({output.until(w['end'])})"),
        ]
    )


@workspace.command()
@site_options
@click.option("--follow", "-f", is_flag=True, help="Go on with what it prints, until it ends or Ctrl-C.")
@click.option("--tail", type=click.IntRange(1, 100_000), metavar="LINES", help="Only the last lines.")
@click.option("--raw", is_flag=True, help="On a terminal too, print control characters as the guest wrote them.")
@click.argument("name", metavar="WORKSPACE", type=NAME)
@pass_session
def console(session: Session, name: str, follow: bool, tail: int | None, raw: bool) -> None:
    """Print what a workspace wrote to its serial console; it is kept after its end.

    On a terminal, control characters (colours too) are left out, since a guest could command your terminal with them;
    a pipe or a file gets every byte.

    \b
    Examples:
      vws workspace console demo-1
      vws workspace console demo-1 --tail 20
      vws workspace console demo-1 --follow
    """
    from vws.cli.console import follow_console, last_lines
    from vws.cli.console import show as show_part

    found = session.client.workspace(name)
    text = last_lines(session.client.console(found["id"]), tail)
    if session.as_json and not follow:
        output.print_json({"workspace": found["id"], "name": found["name"], "console": text.decode(errors="replace")})
    elif follow:
        follow_console(session.client, found, tail, raw=raw)
    else:
        show_part(text, raw=raw)


# ---------------------------------------------------------------- commanding


def wait_options(command: Any) -> Any:
    wait = click.option(
        "--wait/--no-wait",
        default=True,
        help="Wait until the node has done it, or only for the order.  [default: wait]",
    )
    timeout = click.option(
        "--timeout", "timeout_s", type=DURATION, default=f"{WAIT_LIMIT_S}s", metavar="DURATION",
        help="How long to wait.  [default: 5m]",
    )  # fmt: skip
    return wait(timeout(command))


def carry_out(session: Session, verb: str, names: tuple[str, ...], goal: set[str], wait: bool, timeout_s: int) -> None:
    """Give the order to all of `names`; wait until each is in a state of `goal`."""
    client, start = session.client, time.time()
    ordered = [client.command(client.workspace(name)["id"], verb) for name in names]
    if wait:
        ordered = wait_for(session, ordered, verb, goal, timeout_s, start)
    if session.as_json:
        output.print_json(ordered[0] if len(ordered) == 1 else ordered)
        return
    for each in ordered:
        took = f" after {time.time() - start:.1f} s" if wait else ""
        click.echo(f"{each['name']} is {output.state(each['state'])}{took}.")


def wait_for(
    session: Session, ordered: list[Json], verb: str, goal: set[str], timeout_s: float, start: float
) -> list[Json]:
    latest = {w["id"]: w for w in ordered}

    def look() -> list[Json]:
        for id in [id for id, w in latest.items() if w["state"] not in goal]:
            latest[id] = session.client.workspace(id)
        return list(latest.values())

    def unfinished() -> Failed:
        names = ", ".join(f"{w['name']} is still {w['state']}" for w in latest.values() if w["state"] not in goal)
        return progress.timed_out(names, timeout_s, f"vws workspace show {ordered[0]['name']}")

    try:
        return progress.wait(
            look,
            lambda seen: outcome(seen, verb, goal),
            timeout_s=timeout_s,
            on_timeout=unfinished,
            since=start,
            to_stderr=session.as_json,
        )
    except KeyboardInterrupt:
        raise failed(
            "no longer waiting",
            code="interrupted",
            kept="the order stands",
            next_step=f"vws workspace show {ordered[0]['name']}",
        ) from None


# In these states a workspace rests: what was ordered will not come about by waiting longer.
RESTING = {"running", "paused", "suspended", "stopped", "failed", "terminated", "lost"}


def outcome(seen: list[Json], verb: str, goal: set[str]) -> Failed | bool:
    for w in seen:
        if w["state"] in RESTING - goal:
            why = f": {w['reason']}" if w["reason"] else ""
            return failed(
                f"{verb} did not succeed, {w['name']} is {w['state']}{why}",
                code="command-failed",
                next_step="; ".join(filter(None, (f"vws lease explain {w['lease']}", progress.last_words(w)))),
            )
    return all(w["state"] in goal for w in seen)


def _command(verb: str, goal: set[str], text: str) -> None:
    """Add `vws workspace VERB` to the group."""

    @wait_options
    @click.argument("names", nargs=-1, required=True, metavar="WORKSPACE...", type=NAME)
    @pass_session
    def run(session: Session, names: tuple[str, ...], wait: bool, timeout_s: int) -> None:
        carry_out(session, verb, names, goal, wait, timeout_s)

    run.__doc__ = (
        f"{text}\n\n\b\nExamples:\n  vws workspace {verb} demo-1\n  vws workspace {verb} demo-1 demo-2 --no-wait"
    )
    workspace.command(verb)(site_options(run))


_command("pause", {"paused"}, "Freeze a workspace where it is; it keeps its memory.")
_command("resume", {"running"}, "Let a paused workspace go on.")
_command("suspend", {"suspended"}, "Write a workspace's memory to its node's disk and stop it there.")
_command("restore", {"running"}, "Let a suspended workspace go on where it was.")
_command(
    "reboot", {"running"}, "Boot a workspace again: ask the guest to power off, then start it with its present size."
)
_command("terminate", {"terminated", "failed"}, "End one workspace now: it and its disk are gone for good.")
for _each in (save, saves):
    workspace.add_command(_each)
