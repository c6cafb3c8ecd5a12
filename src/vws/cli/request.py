"""The options that describe a lease, shared by `vws lease request` and `vws lease explain`.

One group is described by --image, -n, --cpus, --memory and --disk. Several are
given by repeating --group; what a group leaves out it takes from those options,
so that equal parts are written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from vws.cli.sizes import DURATION, SIZE, parse_size

F = TypeVar("F", bound=Callable[..., Any])

GROUP_FIELDS = {
    "name": "name",
    "image": "image",
    "n": "count",
    "count": "count",
    "cpus": "cpus",
    "memory": "memory_mib",
    "disk": "disk_mib",
}


class Group(click.ParamType[dict[str, Any]]):
    """name=worker,image=demo,n=3,cpus=1,memory=160MiB,disk=1GiB"""

    name = "group"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        group: dict[str, Any] = {}
        for part in value.split(","):
            key, equals, text = (word.strip() for word in part.partition("="))
            if not equals or key not in GROUP_FIELDS:
                self.fail(
                    f"{part!r} is none of {', '.join(f'{k}=…' for k in GROUP_FIELDS if k != 'count')}", param, ctx
                )
            field = GROUP_FIELDS[key]
            if field in group:
                self.fail(f"{key} is given twice in {value!r}", param, ctx)
            try:
                group[field] = _read(field, text)
            except ValueError as error:
                self.fail(f"in {value!r}: {error}", param, ctx)
        return group


def _read(field: str, text: str) -> Any:
    if field.endswith("_mib"):
        return parse_size(text)
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
        click.option("--disk", "disk_mib", type=SIZE, metavar="SIZE", help="Disk of each.  [default: 1GiB]"),
        click.option("--for", "duration_s", type=DURATION, metavar="DURATION", help="For how long: 30m, 2h, 10d."),
        click.option(
            "--group",
            "groups",
            type=Group(),
            multiple=True,
            metavar="GROUP",
            help="A group: name=worker,image=demo,n=3,cpus=1,memory=160MiB,disk=1GiB. Repeat it for more; what it "
            "leaves out is taken from the options above.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def groups_of(given: dict[str, Any]) -> list[dict[str, Any]]:
    """The groups that the options describe, complete; UsageError when they do not add up."""
    shared = {name: given[name] for name in ("image", "cpus", "memory_mib", "disk_mib") if given[name] is not None}
    if given["groups"] and given["count"] is not None:
        raise click.UsageError("-n says how many of one group; with --group write it as --group n=3,...")
    defaults = {
        "count": given["count"] if given["count"] is not None else 1,
        "cpus": 1,
        "memory_mib": 512,
        "disk_mib": 1024,
    }
    groups = [defaults | shared | group for group in given["groups"] or [{}]]
    for group in groups:
        if "image" not in group:
            where = f"group {group['name']}" if "name" in group else "the lease"
            raise click.UsageError(f"which image? {where} names none; add --image NAME (vws image list shows them)")
    return groups


def terms_of(given: dict[str, Any]) -> dict[str, Any]:
    """`groups` and `duration_s` of a request; UsageError when one is missing."""
    if given["duration_s"] is None:
        raise click.UsageError("for how long? add --for, such as --for 2h")
    return {"groups": groups_of(given), "duration_s": given["duration_s"]}
