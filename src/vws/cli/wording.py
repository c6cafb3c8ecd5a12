"""What the service says of a request, in the words of the command line that asked.

The service names the fields of its API, which are the same for every client: `groups[0].memory_mib`, `duration_s`. Who
typed `--memory 10MiB` is told of `--memory`: each command's own options say which field they fill. A program that reads
`--json` is told the fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

# Of a group that is written out: the words of its option (vws/cli/request.py).
OF_GROUP = {
    "image": "image=",
    "count": "n=",
    "cpus": "cpus=",
    "memory_mib": "memory=",
    "disk_mib": "disk=",
    "disks": "disk=",
    "bandwidth_mbit": "bandwidth=",
    "requirement": "require=",
    "name": "name=",
    "apart": "apart",
    "together": "together",
}
KINDS = {"reservation": "--at", "best-effort": "--best-effort", "deadline": "--by", "periodic": "--every"}
PLACE = re.compile(r"groups\[(\d+)\]\.(\w+)(?:\[\d+\]\.\w+)?")
# Words that are fields and nothing else; others are fields where they begin a sentence or follow a "no".
SPELT = re.compile(r"(?<![\w.\-])[a-z]+(?:_[a-z]+)+(?![\w\-])")
LED = re.compile(r"^[a-z]+(?= (?:is|says|needs) )|(?<=\bor no )[a-z]+$")
WHEN = re.compile(r"\bwhen: ([a-z-]+(?: or [a-z-]+)*)")


class Wording:
    """options: by the field that each fills, of the command that was given; groups: those of its --group options."""

    def __init__(self, options: Mapping[str, str] | None = None, groups: Sequence[Mapping[str, Any]] = ()) -> None:
        self._options = dict(options or {})
        self._groups = groups

    @classmethod
    def of(cls, ctx: click.Context) -> Wording:
        """Of the command that is being run."""
        options = {
            param.name: param.opts[0]
            for param in ctx.command.params
            if isinstance(param, click.Option) and param.name is not None
        }
        # All disks are given by one option; the root's is among them.
        if "disks" in options:
            options["disk_mib"] = options["disks"]
        groups = [group for group in ctx.params.get("groups") or () if isinstance(group, dict)]
        return cls(options, [group | {"disk_mib": group["disk"]} if "disk" in group else group for group in groups])

    def has(self, option: str) -> bool:
        """Whether the command takes it; a command line that nobody knows takes all."""
        return not self._options or option in self._options.values()

    def field(self, name: str | None) -> str | None:
        """The option that fills a field; None for the groups as a whole, which the sentence itself names."""
        if name == "groups" and self._options:
            return None
        return None if name is None else self._named(name)

    def sentence(self, text: str) -> str:
        """`text` with options where it names fields."""
        if not self._options:
            return text
        text = PLACE.sub(lambda found: self._named(found[0]), text)
        text = SPELT.sub(lambda found: self._named(found[0]), text)
        text = WHEN.sub(lambda found: re.sub(r"[a-z-]{3,}", lambda kind: KINDS.get(kind[0], kind[0]), found[1]), text)
        return LED.sub(lambda found: self._named(found[0]), text)

    def _named(self, field: str) -> str:
        place = PLACE.fullmatch(field)
        if place is None:
            return self._options.get(field, field)
        number, name = int(place[1]), place[2]
        if number < len(self._groups) and name in OF_GROUP and name in self._groups[number]:
            called = self._groups[number].get("name")
            return f"{OF_GROUP[name]} of {f'--group {called}' if called else 'the --group'}"
        return self._options.get(name, field)
