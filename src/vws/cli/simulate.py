"""`vws simulate`: what a policy would have made of a month, before it is used.

Nothing here talks to a site. A workload is read, replayed on a virtual clock by
the planner that serves live requests, and told in numbers, rows and pictures. Where
results go is tried before the replay begins, because a replay may take minutes.
"""

from __future__ import annotations

import csv
import gc
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vws.cli import output
from vws.cli.failures import check_writable, failed
from vws.cli.session import Session, json_option, pass_session
from vws.cli.sizes import SIZE, show_duration
from vws.core.errors import InvalidRequest

if TYPE_CHECKING:
    from vws.sim.report import Run
    from vws.sim.workload import SimulatedPolicy, SimulatedSite, Workload

Json = dict[str, Any]

NAMED_MAX = 5  # malformed lines told one by one to a person; with --json, NAMED_JSON_MAX
NAMED_JSON_MAX = 100
SWEEP_ONLY = ("dask", "processes", "csv_file")
FILE = click.Path(path_type=Path, exists=True, dir_okay=False, readable=True)
OUT = click.Path(path_type=Path, dir_okay=False, writable=True)


class Backfill(click.ParamType[str | int]):
    """off, easy, conservative, or how many waiting leases are promised a start"""

    name = "backfill"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        from vws.planning import BACKFILL, BOOKINGS_MAX, bookings_of

        if value in BACKFILL:
            return str(value)
        try:
            return bookings_of(str(value))
        except InvalidRequest:
            self.fail(f"{value!r} is none of {', '.join(BACKFILL)} and the numbers to {BOOKINGS_MAX}", param, ctx)


class Rate(click.ParamType[float]):
    """MiB per second, above 0"""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not 0 < rate < math.inf:
            self.fail(f"{value!r} is no number of MiB per second above 0", param, ctx)
        return rate


RATE = Rate()


@click.command()
@click.option("--swf", type=FILE, metavar="FILE", help="A trace in the Standard Workload Format: best-effort leases.")
@click.option("--lwf", type=FILE, metavar="FILE", help="A trace in LWF, which may hold reservations; added to --swf.")
@click.option("--nodes", type=click.IntRange(1, 10**6), metavar="N", help="How many equal nodes the site has.")
@click.option(
    "--cpus", type=click.IntRange(1, 10**6), default=1, metavar="N", show_default=True, help="CPUs of a node."
)
@click.option("--memory", type=SIZE, default="1024MiB", metavar="SIZE", show_default=True, help="Memory of a node.")
@click.option(
    "--vm-memory",
    type=SIZE,
    metavar="SIZE",
    help="Memory of the virtual machine that stands for a processor of --swf.  [default: its share of a node]",
)
@click.option(
    "--backfill",
    type=Backfill(),
    default="easy",
    metavar="off|easy|conservative|N",
    show_default=True,
    help="What may overtake: nothing; what delays no promised lease, of which there are 1 (easy), all (conservative) "
    "or N.",
)
@click.option(
    "--suspend",
    type=click.Choice(["none", "serial", "all"]),
    default="none",
    show_default=True,
    help="Which leases may be suspended to make way: none, those of one machine, or all.",
)
@click.option(
    "--migrate",
    type=click.Choice(["yes", "no"]),
    default="no",
    show_default=True,
    help="Whether a suspended lease may go on on other nodes.",
)
@click.option(
    "--restartable",
    type=click.Choice(["yes", "no"]),
    default="yes",
    show_default=True,
    help="Whether a best-effort lease that runs may be ended for a reservation when it cannot be suspended: it begins "
    "anew later, its work lost. no: the reservation is refused.",
)
@click.option(
    "--config",
    "config_file",
    type=FILE,
    metavar="FILE",
    help="Plan as this site.toml says: its [planning], and order and preemption of its [policy]. Options given here "
    "win over it.",
)
@click.option(
    "--suspend-rate", type=RATE, default=50, metavar="MIB/S", show_default=True, help="How fast a node saves memory."
)
@click.option(
    "--resume-rate", type=RATE, metavar="MIB/S", help="How fast it restores it.  [default: as --suspend-rate]"
)
@click.option(
    "--transfer-rate",
    type=RATE,
    default=12.5,
    metavar="MIB/S",
    show_default=True,
    help="How fast memory moves to another node.",
)
@click.option(
    "--rules",
    type=click.Choice(["vws", "haizea"]),
    default="vws",
    show_default=True,
    help="This planner's own rules, or those of Haizea 1.0, to compare with its schedules.",
)
@click.option("--leases", "leases_file", type=OUT, metavar="FILE", help="Write what became of each lease, as JSON.")
@click.option(
    "--plot",
    "plot_dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write pictures there: utilisation, queue, waits and the calendar (of a sweep: the comparison).",
)
@click.option("--sweep", "grid_file", type=FILE, metavar="FILE", help="Replay a grid of workloads and policies (TOML).")
@click.option(
    "--processes", type=click.IntRange(1, 1024), metavar="N", help="With --sweep: how many at a time.  [default: CPUs]"
)
@click.option("--dask", metavar="ADDRESS", help="With --sweep: on the workers of this Dask scheduler.")
@click.option("--csv", "csv_file", type=OUT, metavar="FILE", help="With --sweep: write the table there too.")
@json_option
@pass_session
@click.pass_context
def simulate(ctx: click.Context, session: Session, /, **given: Any) -> None:
    """Replay a workload on a virtual clock, to see what a policy makes of it.

    The planner is the one that serves live requests. It knows what each lease asked for; only the
    simulation knows when the work really ends. Times are seconds from the trace's begin.

    \b
    Examples:
      vws simulate --swf month.swf --nodes 144
      vws simulate --swf month.swf --lwf reservations.lwf --nodes 144 --suspend all --migrate yes
      vws simulate --swf month.swf --nodes 18 --cpus 8 --memory 16GiB --backfill conservative --plot pictures
      vws simulate --swf month.swf --nodes 144 --config site.toml
      vws simulate --swf month.swf --nodes 144 --leases leases.json --json
      vws simulate --sweep grid.toml --csv table.csv --plot pictures

    \b
    A grid for --sweep:
      [site]
      nodes = 144
      [workloads.january]
      swf = "january.swf"
      [policies.plain]
      backfill = ["off", "easy", "conservative"]
      [policies.suspending]
      suspend = "all"
      migrate = true
    """
    _check_together(ctx, given)
    for path in (given["leases_file"], given["csv_file"]):
        if path:
            check_writable(path)
    if given["plot_dir"]:
        _make_folder(given["plot_dir"])
    if given["grid_file"]:
        _sweep(session.as_json, given)
    else:
        _replay(session.as_json, given, _policy(ctx, given))


def _policy(ctx: click.Context, given: Json) -> SimulatedPolicy:
    """What was typed, then what the site's file says, then the defaults."""
    from vws.sim.configured import configured
    from vws.sim.workload import SimulatedPolicy, check_simulated

    options = {
        "backfill": given["backfill"],
        "suspend": given["suspend"],
        "migrate": given["migrate"] == "yes",
        "rules": given["rules"],
        "restartable": given["restartable"] == "yes",
    }
    if given["config_file"]:
        typed = {key: value for key, value in options.items() if _is_typed(ctx, key)}
        options = options | configured(given["config_file"]) | typed
    policy = SimulatedPolicy(**options)
    check_simulated(policy)
    return policy


def _is_typed(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _check_together(ctx: click.Context, given: Json) -> None:
    """The options of one replay and those of a sweep do not mix: which would win is anybody's guess."""
    named = {p.name: p.opts[0] for p in ctx.command.params if p.name in given}
    typed = [name for name in named if _is_typed(ctx, name)]
    shared = ("grid_file", "plot_dir", *SWEEP_ONLY)
    if given["grid_file"] and (stray := [named[name] for name in typed if name not in shared]):
        raise click.UsageError(f"{', '.join(stray)}: with --sweep, the grid's file says this")
    if not given["grid_file"] and (stray := [named[name] for name in typed if name in SWEEP_ONLY]):
        raise click.UsageError(f"{', '.join(stray)}: only with --sweep")
    if not given["grid_file"] and not (given["swf"] or given["lwf"]):
        raise click.UsageError("name a trace: --swf FILE, --lwf FILE, or a grid of them: --sweep FILE")
    for name in ("memory", "vm_memory"):
        if given[name] == 0:
            raise click.UsageError(f"{named[name]}: it is at least 1MiB")
    if not given["grid_file"] and not given["nodes"]:
        raise click.UsageError("--nodes: how many nodes has the site?")
    if given["dask"] and given["processes"]:
        raise click.UsageError("--processes: with --dask, the cluster says how many")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise failed(f"the folder {path} cannot be made: {error.strerror}", code="unwritable") from None


# ---------------------------------------------------------------- one replay


def _replay(as_json: bool, given: Json, policy: SimulatedPolicy) -> None:
    from vws.sim.report import numbers, rows, with_refused
    from vws.sim.workload import read_workload
    from vws.sim.world import simulate as replay

    site = _site(given)
    workload = read_workload(site, swf=given["swf"], lwf=given["lwf"], vm_memory_mib=given["vm_memory"])
    if not workload.jobs:
        raise _too_small(site, workload)
    _tell_skipped(workload)
    with _bar("leases", len(workload.jobs)) as progress:
        gc.freeze()  # what has been loaded stays: no collection need look at it
        run = replay(workload.jobs, site, policy, progress=progress, keep_bars=bool(given["plot_dir"]))
    run = with_refused(run, workload.oversized)
    found = numbers(run, site)
    if given["leases_file"]:
        given["leases_file"].write_text(json.dumps(rows(run), indent=1) + "\n", encoding="utf-8")
    written = _draw(run, site, policy, given) if given["plot_dir"] else []
    if as_json:
        output.print_json(found | _skipped(workload))
    else:
        click.echo(output.card(_facts(found)))
        _tell_written([*written, given["leases_file"]])


def _site(given: Json) -> SimulatedSite:
    from vws.sim.workload import SimulatedSite

    rates = (given["suspend_rate"], given["resume_rate"] or given["suspend_rate"], given["transfer_rate"])
    return SimulatedSite(given["nodes"], given["cpus"], given["memory"], *rates)


def _too_small(site: SimulatedSite, workload: Workload) -> Exception:
    smallest = min(workload.oversized, key=lambda job: (job.nodes * job.cpus, job.nodes * job.memory_mib))
    wants = f"{output.plural(smallest.nodes, 'machine')} of {_of(smallest.cpus, smallest.memory_mib)}"
    has = f"{output.plural(site.nodes, 'node')} of {_of(site.cpus, site.memory_mib)}"
    return failed(
        f"none of the {len(workload.oversized)} leases would ever fit on {has}; the smallest wants {wants}",
        code="cannot-fit", field="--nodes, --cpus, --memory", next_step="give the site more nodes, or larger ones",
    )  # fmt: skip


def _of(cpus: int, memory_mib: int) -> str:
    return f"{output.plural(cpus, 'CPU')} and {memory_mib} MiB"


def _draw(run: Run, site: SimulatedSite, policy: SimulatedPolicy, given: Json) -> list[Path]:
    from vws.sim.plots import draw

    traces = " + ".join(path.name for path in (given["swf"], given["lwf"]) if path)
    migrating = ", migrating" if policy.migrate else ""
    title = f"{traces} on {output.plural(site.nodes, 'node')}: backfill {policy.backfill}, suspend {policy.suspend}"
    return draw(run, site, given["plot_dir"], title=f"{title}{migrating}, rules {policy.rules}")


# ---------------------------------------------------------------- a sweep


def _sweep(as_json: bool, given: Json) -> None:
    from vws.sim.grid import read_grid
    from vws.sim.sweep import run_grid

    cells = read_grid(given["grid_file"])
    for workload in {cell.workload: cell.jobs for cell in cells}.values():
        _tell_skipped(workload)
    processes = given["processes"] or os.cpu_count() or 1
    with _bar("replays", len(cells)) as progress:
        table = run_grid(cells, processes=processes, dask=given["dask"], progress=progress)
    if given["csv_file"]:
        _write_csv(given["csv_file"], table)
    written = [_draw_compared(table, given["plot_dir"])] if given["plot_dir"] else []
    if as_json:
        output.print_json(table)
    else:
        click.echo(output.table(list(SWEEP_COLUMNS), [[cell(row) for cell in SWEEP_COLUMNS.values()] for row in table]))
        _tell_written([*written, given["csv_file"]])
    lost = [f"{row['workload']}, {row['policy']}: {row['error']}" for row in table if row["error"]]
    if lost:
        raise failed(f"{len(lost)} of {len(table)} replays failed: {'; '.join(lost)}", kept="the others are told")


def _draw_compared(table: Sequence[Json], directory: Path) -> Path:
    from vws.sim.plots import draw_compared

    return draw_compared(table, directory)


def _write_csv(path: Path, table: Sequence[Json]) -> None:
    names = list(dict.fromkeys(name for row in table for name in row if name != "error"))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*names, "error"])
        writer.writeheader()
        writer.writerows(table)


# ---------------------------------------------------------------- what is told


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None else show_duration(seconds)


def _decimal(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)


def _facts(found: Json) -> list[tuple[str, Any]]:
    reservations = f"{found['reservations_granted']} of {found['reservations']} granted"
    return [
        ("leases", found["leases"]),
        ("reservations", reservations if found["reservations"] else None),
        ("refused", found["refused"] or None),
        ("unfinished", found["unfinished"] or None),
        ("makespan", _seconds(found["makespan_s"])),
        ("wait, mean", _seconds(found["wait_mean_s"])),
        ("wait, 95 %", _seconds(found["wait_p95_s"])),
        ("wait, longest", _seconds(found["wait_max_s"])),
        ("bounded slowdown", _decimal(found["bounded_slowdown_mean"], ".2f")),
        ("utilisation", _decimal(found["utilization"], ".1%")),
        ("suspensions", found["suspensions"]),
        ("migrations", found["migrations"]),
        ("CPU time", f"{found['cpu_s']:.2f} s"),
        ("leases/CPU second", _decimal(found["leases_per_cpu_s"], ".0f")),
        ("memory", f"{found['rss_mib_max']:.0f} MiB"),
    ]


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:,.0f} s ({show_duration(seconds)})"


SWEEP_COLUMNS: dict[str, Callable[[Json], Any]] = {
    "WORKLOAD": lambda row: row["workload"],
    "POLICY": lambda row: row["policy"],
    "GRANTED": lambda row: row.get("granted"),
    "REFUSED": lambda row: row.get("refused"),
    "MAKESPAN": lambda row: _duration(row.get("makespan_s")),
    "WAIT": lambda row: _duration(row.get("wait_mean_s")),
    "95 %": lambda row: _duration(row.get("wait_p95_s")),
    "LONGEST": lambda row: _duration(row.get("wait_max_s")),
    "SLOWDOWN": lambda row: _decimal(row.get("bounded_slowdown_mean"), ".2f"),
    "UTILISATION": lambda row: _decimal(row.get("utilization"), ".1%"),
    "SUSPENDED": lambda row: row.get("suspensions"),
    "CPU S": lambda row: _decimal(row.get("cpu_s"), ".1f"),
}


def _tell_skipped(workload: Workload) -> None:
    """On stderr, so that what is read from stdout is the result alone."""
    if workload.dropped:
        told = "which were cancelled before they ran or say no requested time"
        click.echo(f"left out: {output.plural(workload.dropped, 'job')}, {told}", err=True)
    if workload.malformed:
        click.echo(f"skipped: {output.plural(len(workload.malformed), 'malformed line')}", err=True)
    _tell_some([str(line) for line in workload.malformed])
    if workload.oversized:
        count = output.plural(len(workload.oversized), "lease")
        click.echo(f"refused: {count} that would not fit on the empty site", err=True)
    _tell_some([f"lease {job.id}: {job.nodes} × {_of(job.cpus, job.memory_mib)}" for job in workload.oversized])


def _tell_some(lines: Sequence[str]) -> None:
    for line in lines[:NAMED_MAX]:
        click.echo(f"  {line}", err=True)
    if len(lines) > NAMED_MAX:
        click.echo(f"  and {len(lines) - NAMED_MAX} more", err=True)


def _skipped(workload: Workload) -> Json:
    return {
        "dropped": workload.dropped,
        "malformed": len(workload.malformed),
        "malformed_lines": [str(line) for line in workload.malformed[:NAMED_JSON_MAX]],
        "oversized": [job.id for job in workload.oversized],
    }


def _tell_written(paths: Sequence[Path | None]) -> None:
    for path in paths:
        if path:
            click.echo(f"written: {path}", err=True)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """How far it is, on a terminal; silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from vws.cli.live import count

    with count(sys.stderr, what, total) as done:
        yield done
