"""`vws cluster`: machines that know each other, launched from one file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vws.cli import output
from vws.cli.cluster_progress import (
    MENDED_WITHIN_S,
    OVER,
    follow,
    line_of,
    members_progress,
    troubles,
    wait,
    with_tails,
)
from vws.cli.context import show_logs
from vws.cli.failures import failed, failure_of
from vws.cli.keys import keys_for_lease
from vws.cli.names import NAME, Name
from vws.cli.offers import Options, options_of_growth, options_of_launch
from vws.cli.parameters import parameters_of
from vws.cli.session import Session, json_option, pass_session, site_options
from vws.cli.sizes import DURATION
from vws.cli.times import TIME

if TYPE_CHECKING:
    from vws.cli.cluster_folder import Bundle

Json = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def wait_options(until: str, timeout: str = "30m") -> Callable[[F], F]:
    """--wait, as `waits`, and --timeout, as `timeout_s`."""

    def add(command: F) -> F:
        limit = click.option(
            "--timeout", "timeout_s", type=DURATION, default=timeout, show_default=True,
            help="For --wait: how long. What is waited for goes on after it.",
        )  # fmt: skip
        return click.option("--wait", "waits", is_flag=True, help=f"Wait until {until}.")(limit(command))

    return add


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
@wait_options("it is ready")
@pass_session
def launch(
    session: Session, /, file: Path, given: tuple[str, ...], ssh_keys: tuple[Path, ...], dry_run: bool, waits: bool,
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
    with _taking(_options_of(found)):
        launched = session.client.launch_cluster(**asked, ssh_keys=keys_for_lease(session, ssh_keys))
    if waits:
        launched = wait(session, launched["id"], "ready", timeout_s)
    _show(session, launched)


def _options_of(found: Bundle) -> Options:
    return partial(options_of_launch, fewer=found.counting)


@contextmanager
def _taking(options: Options, kept: str = "") -> Iterator[None]:
    """A refusal with offers says what takes them here."""
    try:
        yield
    except Exception as error:
        failure = failure_of(error)
        if failure is None or (not failure.problem.get("nodes") and not failure.problem.get("offers")):
            raise
        failure.options, failure.kept = options, kept or failure.kept
        raise failure from error


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
        click.echo(dry_run_text(shown, answer, duration_s=asked.get("duration_s"), options=_options_of(found)))
    if not answer["fits"]:
        raise SystemExit(1)


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
    for line in troubles(found):
        click.echo(line)


@cluster.command()
@site_options
@click.option("--follow", "follows", is_flag=True, help="Go on telling what changes, until it is ready or will not be.")
@click.argument("name", type=NAME)
@pass_session
def status(session: Session, name: str, follows: bool) -> None:
    """How far each member is: what it waits for, what it ran; of a hook that failed, the last lines that it wrote.

    \b
    Examples:
      vws cluster status slurm
      vws cluster status slurm --follow
    """
    found = session.client.cluster(name)
    if follows:
        found = follow(session, found["id"], lambda c: c["state"] == "ready" or c["state"] in OVER)
    members = session.client.context(found["context"])["members"] if found["context"] else []
    members = with_tails(session, found, members)
    if session.as_json:
        output.print_json(found | {"context_members": members})
        return
    click.echo(line_of(found))
    for line in members_progress(found, members):
        click.echo(line)


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
@wait_options("it is ready again")
@click.argument("name", type=NAME)
@click.argument("more", metavar="GROUP=+COUNT", type=Change("+"))
@pass_session
def grow(session: Session, name: str, more: tuple[str, int], waits: bool, timeout_s: int) -> None:
    """Add members to a group.

    \b
    Examples:
      vws cluster grow slurm worker=+4
    """
    options = partial(options_of_growth, cluster=name, group=more[0])
    with _taking(options, kept="the cluster is as it was"):
        found = session.client.grow_cluster(name, *more)
    _changed(session, found, waits, timeout_s)


@cluster.command()
@site_options
@wait_options("it is ready again")
@click.argument("name", type=NAME)
@click.argument("fewer", metavar="GROUP=-COUNT", type=Change("-"))
@pass_session
def shrink(session: Session, name: str, fewer: tuple[str, int], waits: bool, timeout_s: int) -> None:
    """Terminate the last members of a group.

    \b
    Examples:
      vws cluster shrink slurm worker=-2
    """
    _changed(session, session.client.shrink_cluster(name, *fewer), waits, timeout_s)


@cluster.command()
@site_options
@wait_options("all of it is saved")
@click.argument("name", type=NAME)
@pass_session
def suspend(session: Session, name: str, waits: bool, timeout_s: int) -> None:
    """Save all members to disk. They keep their room and go on where they stopped.

    \b
    Examples:
      vws cluster suspend slurm --wait
    """
    _changed(session, session.client.suspend_cluster(name), waits, timeout_s, "suspended")


@cluster.command()
@site_options
@wait_options("it is ready")
@click.argument("name", type=NAME)
@pass_session
def restore(session: Session, name: str, waits: bool, timeout_s: int) -> None:
    """Have all members go on where they stopped.

    \b
    Examples:
      vws cluster restore slurm --wait
    """
    _changed(session, session.client.restore_cluster(name), waits, timeout_s)


@cluster.command()
@site_options
@wait_options("nothing is left of it", "10m")
@click.argument("name", type=NAME)
@pass_session
def terminate(session: Session, name: str, waits: bool, timeout_s: int) -> None:
    """End a cluster now: its members and their disks are gone for good.

    \b
    Examples:
      vws cluster terminate slurm --wait
    """
    found = session.client.terminate_cluster(name)
    if waits:
        found = follow(session, found["id"], lambda c: bool(c["state"] == "ended"), timeout_s)
    _tell(session, found)


def _changed(session: Session, found: Json, waits: bool, timeout_s: int, state: str = "ready") -> None:
    if waits:
        found = wait(session, found["id"], state, timeout_s, mended_within_s=MENDED_WITHIN_S)
    _tell(session, found)


def _tell(session: Session, found: Json) -> None:
    if session.as_json:
        output.print_json(found)
    else:
        click.echo(line_of(found))


# ---------------------------------------------------------------- from Nimbus


@cluster.command("import")
@json_option
@click.argument("file", type=FILE)
@click.option("--name", type=NAME, help="Call the cluster this.  [default: the file's name]")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it there.  [default: to the screen]"
)
@pass_session
def import_document(session: Session, file: Path, name: str | None, out: Path | None) -> None:
    """Make a cluster file of a cluster document of Nimbus.

    \b
    Examples:
      vws cluster import hadoop.xml --out hadoop.yaml
      vws cluster import hadoop.xml --json | jq -r .notes[]
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
    if out is not None:
        partial_file = out.with_name(f".{out.name}.partial")
        partial_file.write_text(found.text, encoding="utf-8")
        os.replace(partial_file, out)
    if session.as_json:
        output.print_json({"file": found.text, "notes": found.notes, "out": None if out is None else str(out)})
        return
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    if out is None:
        click.echo(found.text, nl=False)
    else:
        click.echo(f"{out} is written. vws cluster launch {out} --dry-run", err=True)
