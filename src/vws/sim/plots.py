"""Pictures of a run: how full the site was, how long the queue, how long leases waited, and the calendar.

Utilisation is drawn from the bars (what ran where), since a lease that was
suspended does not use its nodes all the time between its start and its end; the
queue and the waits are drawn from the fates. Steps that last seconds are averaged
over a few hundred parts of the run, or a month would be one black stripe.

matplotlib is imported by the functions that draw, for it takes a second. Figures
are made without `pyplot`, which keeps them all and wants a display.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vws.core.calendar import Step, spanning
from vws.sim.report import Fate, Run
from vws.sim.workload import SimulatedSite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELLS = 400
DAYS_FROM_S = 2 * 86400  # shorter runs are told in hours
DPI = 120
OVERHEAD = (Step.SUSPEND, Step.RESUME, Step.MIGRATE, Step.STAGE, Step.BOOT, Step.SHUTDOWN)
INK, BLUE, ORANGE, GREY = "#222222", "#3b6fb6", "#d9772b", "#9a9a9a"

Numbers = Sequence[float]


def draw(run: Run, site: SimulatedSite, directory: Path, *, title: str) -> list[Path]:
    """Write all pictures of a run whose bars were kept; returns the files."""
    from vws.calendar_page import draw_page

    figures = {
        "utilization": utilization(run, site, title),
        "queue": queue(run.fates, title),
        "waits": waits(run.fates, title),
    }
    written = [_save(figure, directory / f"{name}.png") for name, figure in figures.items()]
    calendar = directory / "calendar.html"
    calendar.write_text(draw_page(spanning(title, site.node_names(), run.bars, virtual=True)), encoding="utf-8")
    return [*written, calendar]


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=DPI)
    return path


# ---------------------------------------------------------------- the figures


def utilization(run: Run, site: SimulatedSite, title: str) -> Figure:
    """The share of the site's CPUs that work, by kind of lease, and that are saving, restoring and the like."""
    import numpy

    figure, (axes,) = _figure(title, "share of the CPUs")
    edges = numpy.linspace(0, max((bar.end for bar in run.bars), default=1), CELLS + 1)
    kinds = {
        "best effort": (BLUE, [b for b in run.bars if b.step is Step.RUN and b.kind != "reservation"]),
        "reservations": (ORANGE, [b for b in run.bars if b.step is Step.RUN and b.kind == "reservation"]),
        "saving, moving, restoring": (GREY, [b for b in run.bars if b.step in OVERHEAD]),
    }
    cpus_of = {str(fate.job.id): fate.job.cpus for fate in run.fates}
    shares = {
        name: busy_share(((b.start, b.end, cpus_of[b.lease]) for b in bars), site.nodes * site.cpus, edges)
        for name, (_, bars) in kinds.items()
    }
    scale = _time_axis(axes, float(edges[-1]))
    axes.stackplot(
        edges[:-1] / scale, *shares.values(), labels=list(kinds), colors=[c for c, _ in kinds.values()], step="post"
    )
    axes.set_ylim(0, 1)
    axes.legend(loc="lower right", ncols=len(kinds), fontsize="small")
    return figure


def queue(fates: Iterable[Fate], title: str) -> Figure:
    """How many leases wait for their first start, and how many machines they want together."""
    soft = [fate for fate in fates if fate.job.at is None and fate.start is not None]
    figure, panels = _figure(title, "leases waiting", "machines waited for")
    for axes, size in zip(panels, ([1] * len(soft), [fate.job.nodes for fate in soft]), strict=True):
        times, values = level((f.job.submit, f.start or 0, n) for f, n in zip(soft, size, strict=True))
        scale = _time_axis(axes, times[-1])
        axes.fill_between([t / scale for t in times], values, step="post", color=BLUE, linewidth=0)
        axes.set_ylim(bottom=0)
    return figure


def waits(fates: Iterable[Fate], title: str) -> Figure:
    """The share of best-effort leases that waited no longer than so long."""
    soft = [fate for fate in fates if fate.job.at is None and fate.wait_s is not None]
    figure, (axes,) = _figure(title, "share of the leases that waited no longer")
    classes = {
        "all": (INK, soft),
        "one machine": (BLUE, [fate for fate in soft if fate.job.nodes == 1]),
        "several": (ORANGE, [fate for fate in soft if fate.job.nodes > 1]),
    }
    for name, (colour, members) in classes.items():
        if members:
            axes.ecdf([fate.wait_s or 0 for fate in members], label=f"{name} ({len(members)})", color=colour)
    axes.set_xscale("symlog", linthresh=60)
    axes.set_xlim(left=0)
    ticks = {0: "0", 60: "1 min", 600: "10 min", 3600: "1 h", 36_000: "10 h", 86_400: "1 d", 864_000: "10 d"}
    axes.set_xticks(list(ticks), labels=list(ticks.values()), minor=False)
    axes.minorticks_off()
    axes.set_xlabel("wait")
    if soft:
        axes.legend(loc="lower right", fontsize="small")
    return figure


def compared(table: Sequence[dict[str, Any]]) -> Figure:
    """A sweep's rows side by side: a panel for each number, a group for each workload, a bar for each policy."""
    from matplotlib.figure import Figure

    panels: dict[str, Callable[[dict[str, Any]], float]] = {
        "mean wait, h": lambda row: row["wait_mean_s"] / 3600,
        "longest wait, h": lambda row: row["wait_max_s"] / 3600,
        "mean bounded slowdown": lambda row: row["bounded_slowdown_mean"],
        "utilization": lambda row: row["utilization"],
    }
    known = [row for row in table if row.get("wait_mean_s") is not None]
    workloads = list(dict.fromkeys(row["workload"] for row in known))
    policies = list(dict.fromkeys(row["policy"] for row in known))
    figure = Figure(figsize=(10, 7), layout="constrained")
    for axes, (name, value) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for number, policy in enumerate(policies):
            of_workload = {row["workload"]: value(row) for row in known if row["policy"] == policy}
            places = [workloads.index(workload) + (number + 0.5) / (len(policies) + 1) for workload in of_workload]
            width = 0.9 / (len(policies) + 1)
            drawn = axes.bar(places, list(of_workload.values()), width, label=policy, color=f"C{number}")
            axes.bar_label(drawn, fmt="{:.3g}", fontsize="x-small")
        if name != "utilization":  # one bad policy would make all others look alike
            axes.set_yscale("symlog", linthresh=1)
        axes.set_xticks([place + 0.5 for place in range(len(workloads))], labels=workloads)
        _plain(axes, name)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return figure


def draw_compared(table: Sequence[dict[str, Any]], directory: Path) -> Path:
    return _save(compared(table), directory / "sweep.png")


# ---------------------------------------------------------------- what is drawn


def level(intervals: Iterable[tuple[int, int, int]]) -> tuple[list[int], list[int]]:
    """(times, values): the sum of the sizes of those of (start, end, size) that hold from each time to the next."""
    changes: dict[int, int] = {0: 0}
    for start, end, size in intervals:
        changes[start] = changes.get(start, 0) + size
        changes[end] = changes.get(end, 0) - size
    times, values, now = sorted(changes), list[int](), 0
    for time in times:
        now += changes[time]
        values.append(now)
    return times, values


def busy_share(intervals: Iterable[tuple[int, int, int]], cpus: int, edges: Any) -> Any:
    """The mean share of `cpus` that (start, end, CPUs) take between each of `edges` and the next."""
    import numpy

    times, values = level(intervals)
    done = numpy.concatenate([[0], numpy.cumsum(numpy.array(values[:-1]) * numpy.diff(times))])
    return numpy.diff(numpy.interp(edges, times, done)) / numpy.diff(edges) / cpus


# ---------------------------------------------------------------- the form


def _figure(title: str, *panels: str) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4 if len(panels) == 1 else 6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    all_axes = list(figure.subplots(len(panels), 1, squeeze=False).flat)
    for axes, name in zip(all_axes, panels, strict=True):
        _plain(axes, name)
    return figure, all_axes


def _plain(axes: Axes, name: str) -> None:
    axes.set_title(name, loc="left", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.3)
    axes.set_axisbelow(True)


def _time_axis(axes: Axes, end_s: float) -> int:
    """Label the axis for a run until `end_s`; returns the seconds of its unit."""
    unit, seconds = ("days", 86400) if end_s >= DAYS_FROM_S else ("hours", 3600)
    axes.set_xlabel(f"{unit} from the trace's begin")
    axes.set_xlim(0, max(end_s, 1) / seconds)
    return seconds
