"""The options that describe a lease, shared by `vws lease request` and `vws lease explain`.

One group is described by --image, -n, --cpus, --memory and --disk (disks.py). Several are
given by repeating --group; what a group leaves out it takes from those options,
so that equal parts are written once.

When it is to run is said by at most one of --at, --best-effort, --by and --every; without them it is now. The options
of leases that run when the site likes (--command, --restartable) are left for the service to judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from vws.cli.disks import DiskWord, read_disk, split
from vws.cli.sizes import BANDWIDTH, DURATION, SIZE, parse_bandwidth, parse_size
from vws.cli.times import RULE, TIME, zone_name

F = TypeVar("F", bound=Callable[..., Any])

GROUP_FIELDS = {
    "name": "name",
    "image": "image",
    "n": "count",
    "count": "count",
    "cpus": "cpus",
    "memory": "memory_mib",
    "disk": "disk",
    "bandwidth": "bandwidth_mbit",
    "require": "requirement",
}
PLACES = ("apart", "together")
# What a group may leave out.
SHARED = ("image", "cpus", "memory_mib", "bandwidth_mbit", "requirement", *PLACES)
# (option, its parameter, the kind of lease that it asks for); --at beside --every is where the rule begins.
WAYS = (
    ("--best-effort", "best_effort", "best-effort"),
    ("--by", "deadline", "deadline"),
    ("--every", "rule", "periodic"),
    ("--at", "start", "reservation"),
)
TIMES = ("start", "deadline", "rule", "until", "exceptions")


class Group(click.ParamType[dict[str, Any]]):
    """name=worker,image=demo,n=3,cpus=1,memory=160MiB,disk=1GiB,apart,require=cpus >= 2"""

    name = "group"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        group: dict[str, Any] = {}
        for part in _parts(value):
            key, equals, text = (word.strip() for word in part.partition("="))
            if key in PLACES and not equals:
                group[key] = True
                continue
            if not equals or key not in GROUP_FIELDS:
                possible = [f"{k}=…" for k in GROUP_FIELDS if k != "count"] + [*PLACES]
                self.fail(f"{part!r} is none of {', '.join(possible)}", param, ctx)
            field = GROUP_FIELDS[key]
            if field in group and field != "disk":
                self.fail(f"{key} is given twice in {value!r}", param, ctx)
            try:
                read = _read(field, text)
                group[field] = (*group.get(field, ()), read) if field == "disk" else read
            except ValueError as error:
                self.fail(f"in {value!r}: {error}", param, ctx)
        return group


def _parts(text: str) -> list[str]:
    """The parts between commas. A requirement may hold commas itself, so it goes to the end."""
    before, *requirement = re.split(r",\s*require\s*=", f",{text}", maxsplit=1)
    return before.split(",")[1:] + [f"require={expression}" for expression in requirement]


def _read(field: str, text: str) -> Any:
    if field == "disk":
        return read_disk(text)
    if field.endswith("_mib"):
        return parse_size(text)
    if field == "bandwidth_mbit":
        return parse_bandwidth(text)
    if field in ("count", "cpus"):
        if not text.removeprefix("-").isdigit() or len(text) > 15:
            raise ValueError(f"{text!r} is no whole number")
        return int(text)
    return text


def lease_options(command: F) -> F:
    """Everything that describes a lease but its name and keys. All are None when they are not given."""
    options = [
        click.option("--image", metavar="NAME", help="The image, by name or id."),
        click.option("-n", "--count", type=int, metavar="NUMBER", help="How many workspaces.  [default: 1]"),
        click.option("--cpus", type=int, metavar="NUMBER", help="CPUs of each.  [default: 1]"),
        click.option("--memory", "memory_mib", type=SIZE, metavar="SIZE", help="Memory of each.  [default: 512MiB]"),
        click.option(
            "--disk", "disks", type=DiskWord(), multiple=True, metavar="DISK",
            help="Root disk of each: 10GiB.  [default: 1GiB]  Further ones, repeated: blank:10GiB:/data, swap:512MiB, "
            "data:IMAGE:/data (shared, read-only), data:IMAGE:copy:/data (a private copy).",
        ),
        click.option(
            "--bandwidth", "bandwidth_mbit", type=BANDWIDTH, metavar="RATE",
            help="Of the node's network, kept free for each: 100Mbit, 1Gbit.",
        ),
        click.option("--for", "duration_s", type=DURATION, metavar="DURATION", help="For how long: 30m, 2h, 10d."),
        click.option("--at", "start", type=TIME, metavar="TIME", help="Reserve it for then: 14:30, monday 08:00, +2h."),
        click.option("--best-effort", is_flag=True, default=None, help="Queue it: it starts when it fits."),
        click.option("--by", "deadline", type=TIME, metavar="TIME", help="Run it so that it is over by then."),
        click.option(
            "--every", "rule", type=RULE, metavar="RULE",
            help="Reserve it again and again: weekdays 08:00, or a rule of RFC 5545 such as FREQ=MONTHLY;BYDAY=1MO. "
            "With --at the rule counts from then.",
        ),
        click.option("--until", type=TIME, metavar="TIME", help="The last possible start of --every."),
        click.option(
            "--skip-exceptions", "exceptions", flag_value="skip", default=None,
            help="With --every: leave out, and list, the starts that cannot be had. Else one refuses all.",
        ),
        click.option("--urgent", is_flag=True, default=None, help="It may preempt others, as far as the site allows."),
        click.option("--preemptible", is_flag=True, default=None, help="Others may preempt it: it is suspended."),
        click.option(
            "--restartable", is_flag=True, default=None,
            help="With --best-effort or --by: its work may be lost; it begins anew rather than being saved.",
        ),
        click.option(
            "--command", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
            help="With --best-effort or --by: a script that each guest runs; the lease ends when it does.",
        ),
        click.option(
            "--require", "requirement", metavar="EXPRESSION",
            help="What each node must be: 'cpus >= 2 and \"gpu\" in labels'.",
        ),
        click.option("--apart", is_flag=True, default=None, help="Each workspace of a group on a node of its own."),
        click.option("--together", is_flag=True, default=None, help="All workspaces of a group on one node."),
        click.option(
            "--group",
            "groups",
            type=Group(),
            multiple=True,
            metavar="GROUP",
            help="A group: name=worker,image=demo,n=3,cpus=1,memory=160MiB,disk=1GiB,apart,require=cpus >= 2. Repeat "
            "it for more, and disk= in it; what it leaves out is taken from the options above. require= goes last.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def groups_of(given: dict[str, Any]) -> list[dict[str, Any]]:
    """The groups that the options describe, complete; UsageError when they do not add up."""
    shared = {name: given[name] for name in SHARED if given[name] is not None} | _disks_of(given["disks"])
    if given["groups"] and given["count"] is not None:
        raise click.UsageError("-n says how many of one group; with --group write it as --group n=3,...")
    defaults = {
        "count": given["count"] if given["count"] is not None else 1,
        "cpus": 1,
        "memory_mib": 512,
        "disk_mib": 1024,
    }
    groups = [defaults | shared | _with_disks(group) for group in given["groups"] or [{}]]
    for group in groups:
        if "image" not in group:
            where = f"group {group['name']}" if "name" in group else "the lease"
            raise click.UsageError(f"which image? {where} names none; add --image NAME (vws image list shows them)")
    return groups


def _with_disks(group: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in group.items() if name != "disk"}
    return plain | _disks_of(group.get("disk", ()))


def _disks_of(words: Sequence[Any]) -> dict[str, Any]:
    try:
        root_mib, beside = split(words)
    except ValueError as error:
        raise click.UsageError(f"--disk: {error}") from None
    return ({} if root_mib is None else {"disk_mib": root_mib}) | ({"disks": beside} if beside else {})


def terms_of(given: dict[str, Any]) -> dict[str, Any]:
    """A request but for its name and keys; UsageError when something is missing or contradicts itself."""
    if given["duration_s"] is None:
        raise click.UsageError("for how long? add --for, such as --for 2h")
    return {"groups": groups_of(given), "duration_s": given["duration_s"]} | when_of(given) | _manner_of(given)


def when_of(given: dict[str, Any]) -> dict[str, Any]:
    """`when`, with the times that belong to it; nothing for now."""
    ways = [(option, kind) for option, name, kind in WAYS if given[name] is not None]
    options = [option for option, _ in ways]
    if len(ways) > 1 and options != ["--every", "--at"]:
        raise click.UsageError(f"{' and '.join(options)} exclude each other: a lease starts in one of these ways")
    if given["rule"] is None and (given["until"] is not None or given["exceptions"] is not None):
        raise click.UsageError("--until and --skip-exceptions are of --every RULE, which is missing")
    if not ways:
        return {}
    zone = {"zone": _zone_of_rules()} if given["rule"] is not None else {}
    return {"when": ways[0][1]} | {name: given[name] for name in TIMES if given[name] is not None} | zone


def _zone_of_rules() -> str:
    try:
        return zone_name()
    except ValueError as error:
        raise click.UsageError(f"on whose clock is --every? {error}") from None


def _manner_of(given: dict[str, Any]) -> dict[str, Any]:
    manner = {name: True for name in ("urgent", "preemptible", "restartable") if given[name]}
    return manner | ({"command": _script_of(given["command"])} if given["command"] is not None else {})


def _script_of(file: Path) -> str:
    try:
        script = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise click.UsageError(f"--command {file} is no text; name a script") from None
    except OSError as error:
        raise click.UsageError(f"--command {file} cannot be read: {error.strerror}") from None
    if not script.strip():
        raise click.UsageError(f"--command {file} is empty; name a script")
    return script
