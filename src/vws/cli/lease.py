"""`vws lease`: ask for workspaces, change what was agreed, give them back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from vws.cli import failures, output, progress
from vws.cli.agreed import COLUMNS, agreed, card_of, group_text, next_of, run_of, series_lines
from vws.cli.console import OVER
from vws.cli.failures import Failed, failed
from vws.cli.keys import keys_for_lease
from vws.cli.names import NAME
from vws.cli.request import lease_options, terms_of
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import DURATION, SIZE, show_size
from vws.cli.times import show_time

Json = dict[str, Any]

WAIT_LIMIT_S = 600

wait_options = [
    click.option("--wait", is_flag=True, help="Wait until it is so, and show how it gets there."),
    click.option(
        "--timeout", "timeout_s", type=DURATION, default=f"{WAIT_LIMIT_S}s", metavar="DURATION",
        help="How long to wait.  [default: 10m]",
    ),
]  # fmt: skip


def waitable(command: Any) -> Any:
    for option in reversed(wait_options):
        command = option(command)
    return command


# Of more members that are alike only some are named.
ALIKE_MAX = 5


@click.group()
def lease() -> None:
    """Leases: ask for workspaces, change what was agreed, give them back.

    A lease is named by its id or its name.

    \b
    Examples:
      vws lease request --image demo -n 3 --memory 160MiB --for 2h --wait
      vws lease list
      vws lease extend demo --for 1h
      vws lease cancel demo --wait
    """


# ---------------------------------------------------------------- asking


@lease.command()
@site_options
@lease_options
@click.option("--name", metavar="NAME", type=NAME, help="The lease's name, from which its workspaces' names are made.")
@click.option(
    "--ssh-key", "ssh_keys", multiple=True, metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A public key that may log in; may be repeated. Else those in ~/.ssh. VWS's own is always added, for vws ssh.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say whether it would fit, and where.")
@waitable
@pass_session
def request(
    session: Session,
    /,
    name: str | None,
    ssh_keys: tuple[Path, ...],
    dry_run: bool,
    wait: bool,
    timeout_s: int,
    **given: Any,
) -> None:
    """Ask for workspaces: all of them or none, and if none, what would fit.

    They start now, unless --at, --best-effort, --by or --every says otherwise. Sizes are written 160MiB or 1.5GiB,
    durations 90s, 30m, 2h, 1h30m or 10d, times 14:30, tomorrow 08:00, monday 08:00, +2h or 2026-11-23T08:00+01:00; what
    names no zone is on your own clock.

    \b
    Examples:
      vws lease request --image demo --for 30m
      vws lease request --image demo -n 3 --cpus 1 --memory 160MiB --disk 1GiB --for 2h --name demo --wait
      vws lease request --image demo --for 1h --group name=head,cpus=2 --group name=worker,n=3,memory=256MiB
      vws lease request --image demo --for 2h --disk 2GiB --disk blank:10GiB:/scratch --disk swap:512MiB
      vws lease request --image demo -n 100 --for 10d --dry-run
      vws lease request --image demo -n 8 --for 2h --at 'tomorrow 08:00'
      vws lease request --image demo -n 8 --for 6h --best-effort --preemptible --command job.sh
      vws lease request --image demo --for 6h --by 'friday 18:00' --restartable
      vws lease request --image demo -n 8 --for 2h --every 'monday,thursday 08:00' --until 2027-02-28 --skip-exceptions
      vws lease request --image demo -n 8 --for 2h --every 'FREQ=MONTHLY;BYDAY=1MO;BYHOUR=8;COUNT=6'
      vws lease request --image demo -n 2 --for 1h --urgent --apart --require '"gpu" in labels'
    """
    asked = terms_of(given) | ({"name": name} if name else {})
    if dry_run:
        show_fit(session, asked)
        return
    granted = session.client.request_lease(**asked, ssh_keys=keys_for_lease(session, ssh_keys))
    if not wait or is_series(granted):
        show_granted(session, granted)
        return
    if not session.as_json:
        click.echo(f"lease {granted['name']} ({granted['id']}): {agreed(granted)}")
    show_active(session, wait_active(session, granted, timeout_s))


def show_fit(session: Session, asked: Json) -> None:
    """Print whether a request would be granted now; exit status 1 if not."""
    answer = session.client.explain_request(**asked)
    if session.as_json:
        output.print_json(answer)
    elif answer["fits"]:
        click.echo(f"It fits: {answer['reason']}.")
        for node in answer["nodes"]:
            click.echo(f"  node {node['name']}: {node['reason']}")
    else:
        raise Failed({"code": "cannot-fit", "detail": answer["reason"]} | answer, kept="nothing was asked for")
    if not answer["fits"]:
        raise SystemExit(1)


def is_series(granted: Json) -> bool:
    """A rule becomes several leases."""
    return "leases" in granted


def show_granted(session: Session, granted: Json) -> None:
    if session.as_json:
        output.print_json(granted)
        return
    if is_series(granted):
        click.echo("\n".join(series_lines(granted)))
        return
    click.echo(f"lease {granted['name']} ({granted['id']}): {agreed(granted)}")
    said, next_command = next_of(granted)
    click.echo(f"{said} Next: " + session.named(next_command))


def show_active(session: Session, active: Json) -> None:
    if session.as_json:
        output.print_json(active)
        return
    at_once = active.get("active_at") and active["kind"] == "immediate"
    took = f" after {active['active_at'] - active['created_at']:.1f} s" if at_once else ""
    click.echo(f"{active['name']} is {active['state']}{took}, until {output.moment(active['end'])}.")
    for workspace in active["workspaces"]:
        if workspace["reason"]:
            click.echo(f"{workspace['name']}: {workspace['reason']}")
    if any(group.get("disks") for group in active["groups"]):
        click.echo("A disk that a guest cannot prepare is told a little later: "
                   + session.named(f"vws lease show {active['name']}"))  # fmt: skip
    if active["workspaces"]:
        click.echo("Next: " + session.named(f"vws ssh {active['workspaces'][0]['name']}"))


# ---------------------------------------------------------------- waiting


def wait_active(session: Session, lease: Json, timeout_s: float) -> Json:
    """The lease once all its workspaces run. Raises the reason when that will not come to be."""
    seen = {"lease": lease}

    def look() -> list[Json]:
        seen["lease"] = session.client.lease(lease["id"])
        return list(seen["lease"]["workspaces"])

    try:
        progress.wait(
            look,
            lambda _: activity(seen["lease"]),
            timeout_s=timeout_s,
            on_timeout=lambda: progress.timed_out(
                f"{lease['name']} is still {seen['lease']['state']}", timeout_s, f"vws lease wait {lease['name']}"
            ),
            to_stderr=session.as_json,
        )
    except KeyboardInterrupt:
        raise interrupted(lease) from None
    return seen["lease"]


def activity(lease: Json) -> Failed | bool:
    """True: all its workspaces run. A failure: they will not, at least not without somebody's doing."""
    if lease["state"] == "active":
        return True
    if lease["state"] in ("waiting", "planned", "pending", "suspended"):
        return False
    troubled = [w for w in lease["workspaces"] if w["state"] in progress.TROUBLE]
    reasons = {w["name"]: f"is {w['state']}: {w['reason'] or 'no reason is known'}" for w in troubled}
    kept = "the lease goes on with the others" if lease["state"] == "degraded" else ""
    next_step = f"vws lease explain {lease['id']}"
    words = next(filter(None, map(progress.last_words, troubled)), "")
    if words:
        next_step += f"; its last words: {words}"
    return failed(
        # The lease's own reason is its members' reasons once more, when they are told below.
        f"{lease['name']} is {lease['state']}" + (f": {lease['reason']}" if lease["reason"] and not reasons else ""),
        code=f"lease-{lease['state']}",
        workspaces=[{"name": name, "reason": reason} for name, reason in reasons.items()],
        kept=kept,
        next_step=next_step,
    )


def interrupted(lease: Json) -> Failed:
    name = lease["name"]
    return failed(
        "no longer waiting",
        code="interrupted",
        kept=f"the lease {name} goes on, {run_of(lease)}",
        next_step=f"vws lease wait {name} goes on waiting; vws lease cancel {name} ends it",
    )


@lease.command("wait")
@site_options
@wait_options[1]
@click.argument("lease_id", metavar="LEASE", type=NAME)
@pass_session
def wait_command(session: Session, lease_id: str, timeout_s: int) -> None:
    """Wait until all workspaces of a lease run.

    \b
    Examples:
      vws lease wait demo
      vws lease wait demo --timeout 2m && vws ssh demo-1
    """
    show_active(session, wait_active(session, session.client.lease(lease_id), timeout_s))


def wait_ended(session: Session, lease: Json, timeout_s: float) -> Json:
    """The lease once nothing of it is left on any node."""
    seen = {"lease": lease}

    def look() -> list[Json]:
        seen["lease"] = session.client.lease(lease["id"])
        return list(seen["lease"]["workspaces"])

    def unfinished() -> Failed:
        silent = sorted(
            {w["node_name"] or w["node"] for w in seen["lease"]["workspaces"] if w["state"] != "terminated"}
        )
        return progress.timed_out(
            f"{lease['name']} is still {seen['lease']['state']}, on {', '.join(silent)}",
            timeout_s,
            "vws node list says whether the nodes answer; what a silent node holds ends when it returns",
        )

    try:
        progress.wait(
            look,
            lambda _: seen["lease"]["state"] in ("ended", "failed"),
            timeout_s=timeout_s,
            on_timeout=unfinished,
            since=time.time(),
            to_stderr=session.as_json,
        )
    except KeyboardInterrupt:
        kept = f"{lease['name']} goes on ending"
        raise failed("no longer waiting", code="interrupted", kept=kept, next_step="vws lease list") from None
    return seen["lease"]


# ---------------------------------------------------------------- looking


@lease.command("list")
@site_options
@click.option("--all", "everything", is_flag=True, help="Those that have ended too.")
@click.option("--state", metavar="STATE", help="Only leases in this state.")
@click.option("--series", metavar="SERIES", help="Only those of one periodic request.")
@pass_session
def list_leases(session: Session, everything: bool, state: str | None, series: str | None) -> None:
    """List the leases that live.

    \b
    Examples:
      vws lease list
      vws lease list --all --state failed
      vws lease list --series srs-01jd3k9q4t7c2vz
      vws lease list --json | jq -r '.[].name'
    """
    leases = list(session.client.leases(live=not everything, state=state, series=series))
    output.listing(
        leases,
        COLUMNS,
        as_json=session.as_json,
        empty="There are no leases. Next: vws lease request --image NAME --for 1h",
    )


@lease.command()
@site_options
@click.argument("lease_id", metavar="LEASE", type=NAME)
@pass_session
def show(session: Session, lease_id: str) -> None:
    """Show a lease and its workspaces.

    \b
    Examples:
      vws lease show demo
      vws lease show demo --json | jq -r '.workspaces[].addresses[0]'
    """
    found = session.client.lease(lease_id)
    if session.as_json:
        output.print_json(found)
        return
    click.echo(card_of(found))
    from vws.cli.workspace import MEMBER_COLUMNS

    click.echo()
    output.listing(found["workspaces"], MEMBER_COLUMNS, as_json=False, empty="It has no workspaces.")


@lease.command()
@site_options
@lease_options
@click.argument("lease_id", metavar="[LEASE]", required=False, type=NAME)
@pass_session
def explain(session: Session, /, lease_id: str | None, **given: Any) -> None:
    """Say why a lease is as it is, or whether one would be granted.

    With the options of `vws lease request` instead of a lease it asks before asking: nothing is changed.

    \b
    Examples:
      vws lease explain demo
      vws lease explain --image demo -n 50 --memory 2GiB --for 2h
    """
    if lease_id is None:
        show_fit(session, terms_of(given))
        return
    if any(value not in (None, ()) for value in given.values()):
        raise click.UsageError("name a lease, or describe one by --image and the other options; not both")
    found = session.client.lease(lease_id)
    answer = session.client.explain_lease(found["id"])
    if session.as_json:
        output.print_json(answer)
        return
    click.echo(f"{answer.get('name') or answer['lease']} is {output.state(answer['state'])}" + _because(answer))
    for line in explained(answer):
        click.echo(line)
    for line in told_of(answer["members"], {w["node"]: w["node_name"] for w in found["workspaces"]}):
        click.echo(f"  {line}")


def told_of(members: list[Json], nodes: Json) -> Iterator[str]:
    """How members are; of many that are alike in one line."""
    alike: dict[tuple[str, str], list[Json]] = {}
    for member in members:
        alike.setdefault((output.state(member["state"]), _because(member)), []).append(member)
    for (state, why), those in alike.items():
        names = [member.get("name") or member["workspace"] for member in those]
        if len(those) > ALIKE_MAX:
            yield f"{names[0]}, {names[1]} and {len(names) - 2} more are {state}{why}"
            continue
        for name, member in zip(names, those, strict=True):
            where = f" on {nodes.get(member['node']) or member['node']}" if member.get("node") else ""
            yield f"{name} is {state}{where}{why}"


def explained(answer: Json) -> Iterator[str]:
    """What the plan has to do with it."""
    yield from (f"  {failures.one_line(said)}." for said in answer["says"])
    if answer["start"] is not None:
        yield f"  start: {show_time(answer['start'])} ({output.until(answer['start'])})"
    for names, reason in failures.by_reason("node", answer["nodes"]):
        yield f"  {names}: {failures.one_line(reason)}"


def _because(fact: Json) -> str:
    said = [text for text in (fact.get("reason"), fact.get("step")) if text]
    return f": {'; '.join(said)}" if said else ""


# ---------------------------------------------------------------- changing


@lease.command()
@site_options
@click.option("--for", "duration_s", type=DURATION, required=True, metavar="DURATION", help="How much longer.")
@click.argument("lease_id", metavar="LEASE", type=NAME)
@pass_session
def extend(session: Session, lease_id: str, duration_s: int) -> None:
    """Move a lease's end further away.

    \b
    Examples:
      vws lease extend demo --for 1h
    """
    found = session.client.lease(lease_id)
    after = session.client.extend_lease(found["id"], duration_s)
    if session.as_json:
        output.print_json(after)
    else:
        click.echo(f"{after['name']} ends at {output.moment(after['end'])} now ({output.until(after['end'])}).")


@lease.command()
@site_options
@click.option("--memory", "memory_mib", type=SIZE, metavar="SIZE", help="Memory of each workspace.")
@click.option("--cpus", type=int, metavar="NUMBER", help="CPUs of each workspace.")
@click.option("--group", metavar="GROUP", help="Only the workspaces of this group.")
@click.argument("lease_id", metavar="LEASE", type=NAME)
@pass_session
def resize(session: Session, lease_id: str, memory_mib: int | None, cpus: int | None, group: str | None) -> None:
    """Change how much each workspace of a lease has.

    Memory changes at once up to what the present boot was given, and beyond that at the next boot. The share of CPU
    time changes at once, the number of CPUs that the guest sees at the next boot.

    \b
    Examples:
      vws lease resize demo --memory 256MiB
      vws lease resize demo --group worker --cpus 2
    """
    if memory_mib is None and cpus is None:
        raise click.UsageError("name what to change: --memory, --cpus or both")
    found = session.client.lease(lease_id)
    after = session.client.resize_lease(found["id"], memory_mib=memory_mib, cpus=cpus, group=group)
    if session.as_json:
        output.print_json(after)
        return
    for each in after["groups"]:
        if group in (None, each["name"]):
            click.echo(f"{after['name']} {each['name']}: ".replace(" :", ":") + group_text(each))
    concerned = [w for w in after["workspaces"] if group in (None, w["group"]) and w["state"] not in OVER]
    for line in later_of(concerned, memory_mib, cpus):
        click.echo(line)


def later_of(workspaces: list[Json], memory_mib: int | None, cpus: int | None) -> Iterator[str]:
    """What of a new size these workspaces get at their next boot only."""
    boot = "from the next boot on (vws workspace reboot NAME)"
    growing = [w["name"] for w in workspaces if w["memory_mib"] > w["memory_defined_mib"] > 0]
    if memory_mib and growing:
        yield f"{', '.join(growing)}: {show_size(memory_mib)} {boot}."
    counting = [w["name"] for w in workspaces if w["cpus"] != w["cpus_defined"]]
    if cpus and counting:
        yield f"{', '.join(counting)}: {output.plural(cpus, 'CPU')} {boot}; that share of CPU time now."


@lease.command()
@site_options
@waitable
@click.option("--series", metavar="SERIES", help="Every lease of one periodic request, instead of LEASE.")
@click.argument("lease_id", metavar="[LEASE]", required=False, type=NAME)
@pass_session
def cancel(session: Session, lease_id: str | None, series: str | None, wait: bool, timeout_s: int) -> None:
    """End a lease now: its workspaces and their disks are gone for good.

    \b
    Examples:
      vws lease cancel demo
      vws lease cancel --series srs-01jd3k9q4t7c2vz
      vws lease cancel demo --wait      until its nodes say that nothing is left
    """
    if (lease_id is None) == (series is None):
        raise click.UsageError("name a lease, or a series by --series; not both")
    if lease_id is not None:
        leases = [session.client.lease(lease_id)]
    else:
        leases = list(session.client.leases(live=True, series=series))
    ended = [session.client.cancel_lease(found["id"]) for found in leases]
    if wait:
        ended = [wait_ended(session, after, timeout_s) for after in ended]
    if session.as_json:
        output.print_json(ended if series is not None else ended[0])
        return
    for after in ended:
        left = "; nothing of it is left on any node" if wait else ""
        click.echo(f"{after['name']} {'has' if wait else 'is'} {after['state']}{left}.")
    if not ended:
        click.echo(
            f"No lease of {series} lives; vws lease list --all --series {series} shows those that did.", err=True
        )
