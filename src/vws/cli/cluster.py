"""`vws cluster`: machines that know each other, launched from one file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vws.cli import output
from vws.cli.context import progress_of, show_logs
from vws.cli.failures import Failed, failed
from vws.cli.keys import keys_for_lease
from vws.cli.names import NAME, Name
from vws.cli.parameters import parameters_of
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import DURATION
from vws.cli.times import TIME

if TYPE_CHECKING:
    from vws.cli.cluster_folder import Bundle

Json = dict[str, Any]
LOOK_AGAIN_S = 0.5
# Nothing changes any more by itself.
OVER = ("failed", "ended", "ending", "degraded")
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def cluster() -> None:
    """Machines that know each other, launched from one file.

    A cluster file says which groups of machines there are, which networks they are on, what each of them provides and
    requires, and what they run once they know each other. docs/clusters.md explains it line by line.

    \b
    Examples:
      vws cluster launch examples/nfs/cluster.yaml --wait
      vws cluster status nfs --follow
      vws cluster grow nfs worker=+2
      vws cluster ssh nfs worker-1 -- mount
      vws cluster terminate nfs
    """


# ---------------------------------------------------------------- launching


@cluster.command()
@site_options
@click.argument("file", type=FILE)
@click.option(
    "--set", "given", multiple=True, metavar="NAME=VALUE", help="A parameter of the file. Repeat it for more."
)
@click.option("--name", type=NAME, help="Call it this, in place of the file's name.")
@click.option("--for", "duration_s", type=DURATION, metavar="DURATION", help="For how long: 30m, 2h, 10d.")
@click.option("--at", "start", type=TIME, metavar="TIME", help="Reserve it for then: 14:30, monday 08:00, +2h.")
@click.option("--best-effort", is_flag=True, help="Queue it: it starts when it fits.")
@click.option("--by", "deadline", type=TIME, metavar="TIME", help="Run it so that it is over by then.")
@click.option("--ssh-key", "ssh_keys", multiple=True, type=FILE, metavar="FILE", help="A public key that may log in.")
@click.option("--dry-run", is_flag=True, help="Show what it would be, and whether it would fit; launch nothing.")
@click.option("--wait", is_flag=True, help="Wait until it is ready.")
@click.option("--timeout", "timeout_s", type=DURATION, default="30m", show_default=True, help="For --wait.")
@pass_session
def launch(
    session: Session, /, file: Path, given: tuple[str, ...], ssh_keys: tuple[Path, ...], dry_run: bool, wait: bool,
    timeout_s: int, **terms: Any,
) -> None:  # fmt: skip
    """Launch the cluster that FILE describes: all of it, or a refusal.

    \b
    Examples:
      vws cluster launch cluster.yaml --wait
      vws cluster launch cluster.yaml --set workers=16 --name run-7 --for 4h
      vws cluster launch cluster.yaml --at 'monday 08:00'
      vws cluster launch cluster.yaml --dry-run
    """
    found, asked = _asked(file, given, terms)
    if dry_run:
        _dry_run(session, found, asked)
        return
    launched = session.client.launch_cluster(**asked, ssh_keys=keys_for_lease(session, ssh_keys))
    if wait:
        launched = _wait(session, launched["id"], timeout_s)
    _show(session, launched)


def _asked(file: Path, given: tuple[str, ...], terms: Json) -> tuple[Bundle, Json]:
    """The file with all that it names, and the request to launch it."""
    from vws.cli.cluster_folder import bundle  # it brings the core, for which `vws --help` need not wait

    found = bundle(file, parameters_of(given))
    asked = found.body() | _when(terms)
    return found, asked | {name: terms[name] for name in ("name", "duration_s") if terms[name] is not None}


def _when(terms: Json) -> Json:
    ways = {"start": "reservation", "deadline": "deadline"}
    named = [name for name in ways if terms[name] is not None]
    if len(named) + terms["best_effort"] > 1:
        raise click.UsageError("--at, --by and --best-effort exclude each other: a cluster starts in one of these ways")
    if terms["best_effort"]:
        return {"when": "best-effort"}
    return {"when": ways[named[0]], named[0]: terms[named[0]]} if named else {}


def _dry_run(session: Session, found: Bundle, asked: Json) -> None:
    from vws.cli.cluster_text import dry_run_text
    from vws.core.cluster_spec import renamed

    answer = session.client.explain_cluster(**asked)
    if session.as_json:
        output.print_json(answer)
    else:
        shown = renamed(found.cluster, asked["name"]) if "name" in asked else found.cluster
        click.echo(dry_run_text(shown, answer, duration_s=asked.get("duration_s")))
    if not answer["fits"]:
        raise SystemExit(1)


def _wait(session: Session, id: str, timeout_s: float) -> Json:
    """The cluster once it is ready. Fails if it will not be."""
    found = _follow(session, id, lambda c: c["state"] == "ready" or c["state"] in OVER, timeout_s)
    if found["state"] != "ready":
        raise Failed(
            {"code": "cluster-not-ready", "detail": f"{found['name']} is {found['state']}: {found['reason'] or '?'}"},
            kept="the cluster is there" if found["state"] != "ended" else "nothing is left of it",
            next_step=f"vws cluster status {found['name']}",
        )
    return found


def _follow(session: Session, id: str, until: Callable[[Json], bool], timeout_s: float | None) -> Json:
    """Tell each change of a cluster until it is as wanted; that last one is the caller's to tell."""
    began, told = time.monotonic(), ""
    while True:
        found: Json = session.client.cluster(id)
        if until(found):
            return found
        line = _line(found)
        if line != told and not session.as_json:
            click.echo(line, err=True)
            told = line
        if timeout_s is not None and time.monotonic() > began + timeout_s:
            raise Failed(
                {"code": "timeout", "detail": f"{found['name']} is {found['state']} still"},
                kept="it goes on",
                next_step=f"vws cluster status {found['name']} --follow",
            )
        time.sleep(LOOK_AGAIN_S)


def _line(found: Json) -> str:
    """How far it is, in one line."""
    running = sum(member["state"] == "running" for member in found["members"])
    ready = sum(member["context"] == "ready" for member in found["members"])
    counts = f"{running} of {len(found['members'])} running, {ready} configured" if found["members"] else "no members"
    why = f": {found['reason']}" if found["reason"] else ""
    return f"{found['name']} is {found['state']}; {counts}{why}"


# ---------------------------------------------------------------- looking

COLUMNS: list[output.Column] = [
    ("NAME", lambda c: c["name"]),
    ("STATE", lambda c: output.state(c["state"])),
    ("MEMBERS", lambda c: f"{sum(m['state'] == 'running' for m in c['members'])}/{len(c['members'])} running"),
    ("OWNER", lambda c: c["owner"]),
    ("END", lambda c: output.moment(c["ended_at"]) if c["ended_at"] else output.until(c["end"])),
    ("REASON", lambda c: c["reason"]),
    ("ID", lambda c: c["id"]),
]
MEMBER_COLUMNS: list[output.Column] = [
    ("MEMBER", lambda m: m["name"]),
    ("STATE", lambda m: output.state(m["state"])),
    ("CONTEXT", lambda m: output.state(m["context"])),
    ("ADDRESS", lambda m: ", ".join(f"{name}: {a}" if name else a for name, a in m["addresses"].items())),
    ("NODE", lambda m: m["node"]),
    ("WORKSPACE", lambda m: m["workspace"]),
]


@cluster.command("list")
@site_options
@click.option("--all", "everything", is_flag=True, help="Those that have ended too.")
@pass_session
def list_clusters(session: Session, everything: bool) -> None:
    """List clusters.

    \b
    Examples:
      vws cluster list
      vws cluster list --all --json
    """
    found = list(session.client.clusters(live=not everything))
    output.listing(found, COLUMNS, as_json=session.as_json, empty="There are no clusters. vws cluster launch FILE")


@cluster.command()
@site_options
@click.argument("name", type=NAME)
@pass_session
def show(session: Session, name: str) -> None:
    """Show a cluster with its members.

    \b
    Examples:
      vws cluster show slurm
    """
    _show(session, session.client.cluster(name))


def _show(session: Session, found: Json) -> None:
    if session.as_json:
        output.print_json(found)
        return
    facts = [
        ("name", found["name"]),
        ("id", found["id"]),
        ("state", output.state(found["state"])),
        ("reason", found["reason"]),
        ("owner", found["owner"]),
        ("launched", output.moment(found["created_at"])),
        ("ready", f"{found['ready_at'] - found['created_at']:.1f} s later" if found["ready_at"] else ""),
        ("end", f"{output.moment(found['end'])} ({output.until(found['end'])})" if found["end"] else ""),
        ("ended", output.moment(found["ended_at"])),
        *(
            ("network", f"{n['name']}: {n['cidr']}{', with a way out' if n['outgoing'] else ''}")
            for n in found["networks"]
        ),
    ]
    click.echo(output.card(facts))
    if found["members"]:
        click.echo()
        output.listing(found["members"], MEMBER_COLUMNS, as_json=False, empty="")


def _network(network: Json) -> str:
    return f"{network['name']}: {network['cidr']}{', with a way out' if network['outgoing'] else ''}"


@cluster.command()
@site_options
@click.option("--follow", is_flag=True, help="Go on telling what changes, until it is ready or will not be.")
@click.argument("name", type=NAME)
@pass_session
def status(session: Session, name: str, follow: bool) -> None:
    """How far each member is: what it waits for, what it ran, what failed.

    \b
    Examples:
      vws cluster status slurm
      vws cluster status slurm --follow
    """
    found = session.client.cluster(name)
    if follow:
        found = _follow(session, found["id"], lambda c: c["state"] == "ready" or c["state"] in OVER, None)
    context = session.client.context(found["context"]) if found["context"] else {"members": []}
    if session.as_json:
        output.print_json(found | {"context_members": context["members"]})
        return
    click.echo(_line(found))
    for member in context["members"]:
        for line in progress_of(member):
            click.echo(f"  {line}")


@cluster.command()
@site_options
@click.argument("name", type=NAME)
@click.argument("member", type=NAME)
@pass_session
def log(session: Session, name: str, member: str) -> None:
    """The ends of the outputs of a member's hooks.

    \b
    Examples:
      vws cluster log slurm worker-1
    """
    found = session.client.cluster(name)
    show_logs(session, session.client.context_log(found["context"], member))


@cluster.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
@site_options
@click.argument("name", type=NAME)
@click.argument("member", type=NAME)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_session
def ssh(session: Session, name: str, member: str, command: tuple[str, ...]) -> None:
    """Log in to a member, or run a command there.

    \b
    Examples:
      vws cluster ssh slurm head-1
      vws cluster ssh slurm head-1 -- srun -N3 hostname
    """
    found = session.client.cluster(name)
    workspace = next((each["workspace"] for each in found["members"] if each["name"] == member), None)
    if workspace is None:
        names = ", ".join(each["name"] for each in found["members"])
        raise click.UsageError(f"{found['name']} has no member {member}; it has {names or 'none'}")
    from vws.cli.ssh import ssh as into

    words = command[1:] if command[:1] == ("--",) else command
    click.get_current_context().invoke(into, workspace=workspace, command=words)


# ---------------------------------------------------------------- changing


class Change(Name):
    """GROUP=+COUNT, or with the other sign: a group's name, and by how many it changes."""

    def __init__(self, sign: str) -> None:
        self._sign = sign

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        group, equals, count = super().convert(value, param, ctx).partition("=")
        digits = count.removeprefix(self._sign)
        if not group or not equals or not digits.isdigit() or len(digits) > 9:
            example = f"worker={self._sign}2"
            self.fail(f"{value!r} says no change; write GROUP={self._sign}COUNT, such as {example}", param, ctx)
        return group, int(digits)


@cluster.command()
@site_options
@click.option("--wait", is_flag=True, help="Wait until it is ready again.")
@click.argument("name", type=NAME)
@click.argument("more", metavar="GROUP=+COUNT", type=Change("+"))
@pass_session
def grow(session: Session, name: str, more: tuple[str, int], wait: bool) -> None:
    """Add members to a group.

    \b
    Examples:
      vws cluster grow slurm worker=+4
    """
    _changed(session, session.client.grow_cluster(name, *more), wait)


@cluster.command()
@site_options
@click.option("--wait", is_flag=True, help="Wait until it is ready again.")
@click.argument("name", type=NAME)
@click.argument("fewer", metavar="GROUP=-COUNT", type=Change("-"))
@pass_session
def shrink(session: Session, name: str, fewer: tuple[str, int], wait: bool) -> None:
    """Terminate the last members of a group.

    \b
    Examples:
      vws cluster shrink slurm worker=-2
    """
    _changed(session, session.client.shrink_cluster(name, *fewer), wait)


@cluster.command()
@site_options
@click.option("--wait", is_flag=True, help="Wait until all of it is saved.")
@click.argument("name", type=NAME)
@pass_session
def suspend(session: Session, name: str, wait: bool) -> None:
    """Save all members to disk. They keep their room and go on where they stopped.

    \b
    Examples:
      vws cluster suspend slurm --wait
    """
    _changed(session, session.client.suspend_cluster(name), wait, "suspended")


@cluster.command()
@site_options
@click.option("--wait", is_flag=True, help="Wait until it is ready.")
@click.argument("name", type=NAME)
@pass_session
def restore(session: Session, name: str, wait: bool) -> None:
    """Have all members go on where they stopped.

    \b
    Examples:
      vws cluster restore slurm --wait
    """
    _changed(session, session.client.restore_cluster(name), wait)


@cluster.command()
@site_options
@click.option("--wait", is_flag=True, help="Wait until nothing is left of it.")
@click.argument("name", type=NAME)
@pass_session
def terminate(session: Session, name: str, wait: bool) -> None:
    """End a cluster now: its members and their disks are gone for good.

    \b
    Examples:
      vws cluster terminate slurm --wait
    """
    found = session.client.terminate_cluster(name)
    if wait:
        found = _follow(session, found["id"], lambda c: bool(c["state"] == "ended"), 600.0)
    _tell(session, found)


def _changed(session: Session, found: Json, wait: bool, state: str = "ready") -> None:
    if wait:
        found = _follow(session, found["id"], lambda c: c["state"] == state or c["state"] in OVER, 1800.0)
    _tell(session, found)


def _tell(session: Session, found: Json) -> None:
    if session.as_json:
        output.print_json(found)
    else:
        click.echo(_line(found))


# ---------------------------------------------------------------- from Nimbus


@cluster.command("import")
@click.argument("file", type=FILE)
@click.option("--name", type=NAME, help="Call the cluster this.  [default: the file's name]")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it there.  [default: to the screen]"
)
def import_document(file: Path, name: str | None, out: Path | None) -> None:
    """Make a cluster file of a cluster document of Nimbus.

    \b
    Examples:
      vws cluster import hadoop.xml --out hadoop.yaml
    """
    from vws.core.nimbus import import_nimbus

    if out is not None and out.exists():
        raise failed(
            f"{out} is there already",
            kept=f"{out} is as it was",
            next_step="another --out, or remove it",
            code="in-use",
        )
    found = import_nimbus(file.read_bytes(), name or file.stem.lower())
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    if out is None:
        click.echo(found.text, nl=False)
        return
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(found.text, encoding="utf-8")
    os.replace(partial, out)
    click.echo(f"{out} is written. vws cluster launch {out} --dry-run", err=True)
