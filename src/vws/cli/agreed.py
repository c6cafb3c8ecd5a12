"""A lease in words: what was agreed, when it runs, how it stands.

What waits has no workspaces yet, and perhaps no times: then the words are of what it was asked for. Times that lie
ahead by hours are told with their zone; those of a lease that runs are told on the reader's clock alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vws.cli import output
from vws.cli.disks import disk_text
from vws.cli.sizes import show_duration
from vws.cli.times import show_time

Json = dict[str, Any]

AHEAD = ("waiting", "planned")
FLAGS = ("urgent", "preemptible", "restartable")


def agreed(lease: Json) -> str:
    groups = " and ".join(f"{g['count']} × {g['image_name']} ({size_of(g)})" for g in lease["groups"])
    return f"{groups} {run_of(lease)}"


def run_of(lease: Json) -> str:
    """When it runs, as far as that is known."""
    if lease["start"] is None or lease["end"] is None:
        return f"for {show_duration(lease['duration_s'])}, {_goal(lease)}"
    if lease["state"] == "waiting":  # its end is that of the first block, which may be cut
        planned = f"by the present plan from {show_time(lease['start'])}"
        return f"for {show_duration(lease['duration_s'])}, {planned}, {_goal(lease)}"
    lasts = show_duration(lease["end"] - lease["start"])
    if lease["state"] == "planned":
        return f"from {show_time(lease['start'])} until {show_time(lease['end'])} ({lasts})"
    return f"until {output.moment(lease['end'])} ({lasts})"


def _goal(lease: Json) -> str:
    return "when it fits" if lease["deadline"] is None else f"so that it is over by {show_time(lease['deadline'])}"


def next_of(lease: Json) -> tuple[str, str]:
    """What goes on now, and the command that one would give next."""
    match lease["state"]:
        case "waiting":
            return "It waits in the queue.", f"vws lease explain {lease['name']}"
        case "planned":
            return "It is granted.", f"vws lease show {lease['name']}"
    return "Its workspaces are starting.", f"vws lease wait {lease['name']}"


def size_of(group: Json) -> str:
    network = f", {group['bandwidth_mbit']} Mbit/s" if group["bandwidth_mbit"] else ""
    root_mib = group["disk_mib"] - sum(disk["size_mib"] for disk in group["disks"])
    beside = [disk_text(disk) for disk in group["disks"]]
    return ", ".join([output.size(group["cpus"], group["memory_mib"], root_mib), *beside]) + network


def group_text(group: Json) -> str:
    places = [name for name in ("apart", "together") if group[name]]
    wishes = places + ([f"on nodes with {group['requirement']}"] if group["requirement"] else [])
    return ", ".join([f"{group['count']} × {group['image_name']}, {size_of(group)}", *wishes])


def running_of(lease: Json) -> str:
    there = sum(w["state"] == "running" for w in lease["workspaces"])
    in_all = len(lease["workspaces"]) or sum(g["count"] for g in lease["groups"])
    return f"{there}/{in_all} running"


def start_of(lease: Json) -> str:
    """When it begins, of a lease that has not."""
    return output.until(lease["start"]) if lease["state"] in AHEAD else ""


def end_of(lease: Json) -> str:
    """When it ends, or is suspended before that."""
    if lease["gives_way_at"] is not None:
        return f"suspended {output.until(lease['gives_way_at'])}"
    return output.until(lease["end"]) if lease["ended_at"] is None else output.moment(lease["ended_at"])


COLUMNS: list[output.Column] = [
    ("NAME", lambda x: x["name"]),
    ("STATE", lambda x: output.state(x["state"])),
    ("KIND", lambda x: x["kind"] if x["kind"] != "immediate" else ""),
    ("WORKSPACES", running_of),
    ("IMAGE", lambda x: ",".join(dict.fromkeys(g["image_name"] for g in x["groups"]))),
    ("OWNER", lambda x: x["owner"]),
    ("START", start_of),
    ("END", end_of),
    ("ID", lambda x: x["id"]),
]


def card_of(lease: Json) -> str:
    facts = [
        ("name", lease["name"]),
        ("id", lease["id"]),
        ("kind", ", ".join([lease["kind"], *(flag for flag in FLAGS if lease[flag])])),
        ("series", lease["series"]),
        ("state", output.state(lease["state"])),
        ("reason", lease["reason"]),
        ("owner", lease["owner"]),
        ("asked for", output.moment(lease["created_at"])),
        *_times(lease),
        ("ended", output.moment(lease["ended_at"])),
    ]
    return output.card([*facts, *((f"group {g['name']}".strip(), group_text(g)) for g in lease["groups"])])


def _times(lease: Json) -> Iterator[tuple[str, str]]:
    started = lease["active_at"]
    if lease["state"] in AHEAD:
        yield "start", _ahead(lease["start"])
    yield "active", f"{started - lease['created_at']:.1f} s later" if started and not _planned(lease) else ""
    yield "active", output.moment(started) if started and _planned(lease) else ""
    # Where its run is cut, it goes on afterwards, nobody knows until when.
    cut = lease["gives_way_at"]
    yield "end", _near(lease["end"]) if cut is None else ""
    yield "gives way", _near(cut)
    yield "deadline", _ahead(lease["deadline"])
    yield "run", _progress(lease)
    resumes = lease["planned_start"] if lease["state"] == "suspended" else None
    yield "resumes", _ahead(resumes)
    yield "planned on", ", ".join(dict.fromkeys(lease["planned_nodes"]))


def _planned(lease: Json) -> bool:
    """Asked for in advance: from then until it ran says nothing of how quick the site was."""
    return bool(lease["kind"] != "immediate")


def _ahead(at: int | None) -> str:
    return "" if at is None else f"{show_time(at)} ({output.until(at)})"


def _near(at: int | None) -> str:
    return "" if at is None else f"{output.moment(at)} ({output.until(at)})"


def _progress(lease: Json) -> str:
    if lease["kind"] in ("immediate", "reservation"):
        return ""
    told = [f"{show_duration(lease['worked_s'])} of {show_duration(lease['duration_s'])} saved"]
    if lease["ended_at"] is not None:
        told = []  # what was saved on the way is nowhere now
    counted = [(lease[f"{noun}s"], noun) for noun in ("suspension", "migration", "restart")]
    return ", ".join([*told, *(output.plural(count, noun) for count, noun in counted if count)])


def series_lines(series: Json) -> Iterator[str]:
    """The reservations that a rule became, and the exceptions."""
    granted, skipped = series["leases"], series["skipped"]
    yield f"series {series['series']}: {output.plural(len(granted), 'reservation')}"
    yield from (f"  {lease['name']} ({lease['id']}) {run_of(lease)}" for lease in granted)
    if skipped:
        yield f"{output.plural(len(skipped), 'exception')}, left out:"
        yield from (f"  {show_time(each['start'])}: {each['reason']}" for each in skipped)
