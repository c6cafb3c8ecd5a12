"""Where in a cluster file that stands what a site refuses.

What can be told from the file alone is refused with its line when it is read. But an image, a pool, a reserved address
or a name that is taken are known to the site only, which sees a request made of the file: `groups[0].image`. For who
wrote the file that is line 7, as everything else in it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import islice
from typing import Final

from vws.core.errors import InvalidRequest, VwsError
from vws.core.yaml_tree import Items, Node, Path, Table, parse, path_of, place_of, scalar_at, show_path

# What a request calls otherwise than the file.
_KEYS: Final = {
    "memory_mib": "memory",
    "disk_mib": "disk",
    "size_mib": "size",
    "bandwidth_mbit": "bandwidth",
    "requirement": "require",
    "cidr": "range",
}
_WAYS: Final[dict[str | int, Path]] = {"duration_s": ("lease", "for"), "members": ("groups",)}
_MEMBER: Final = re.compile(r"(.+)-[0-9]+")


def told_by_line(error: VwsError, text: str, chosen: Collection[str] = ()) -> None:
    """Have `error`, which a request made of the file `text` met with, name the line and column and the file's own key.

    One of which the file says nothing stays as it is. chosen: fields that the launch said, and not the file.
    """
    if not error.field or error.field in chosen or "line" in error.details:
        return
    try:
        tree = parse(text)
    except InvalidRequest:
        return
    path = _path_in(tree, path_of(error.field))
    if len(path) < 2 and scalar_at(tree, path) is None:
        return
    place = place_of(tree, path)
    error.problem = f"line {place.line}, column {place.column}: {error.problem}"
    error.args = (error.problem,)
    error.field = show_path(path)
    error.details = {**error.details, "line": place.line, "column": place.column}


def _path_in(tree: Table, asked: Path) -> Path:
    """The file's way to what a request calls `asked`, as far as there is one."""
    first = _WAYS.get(asked[0]) if asked else None
    node: Node = tree
    path: list[str | int] = []
    for part in asked if first is None else (*first, *asked[1:]):
        if isinstance(node, Table):
            key = _key_in(node, part)
            if key is None:
                break
            node = node.entries[key]
            path.append(key)
        elif isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            path.append(part)
        else:
            break
    return tuple(path)


def _key_in(table: Table, part: str | int) -> str | None:
    if isinstance(part, int):
        return next(islice(table.entries, part, None), None)
    member = _MEMBER.fullmatch(part)
    names = (part, _KEYS.get(part, ""), member[1] if member else "")
    return next((name for name in names if name in table.entries), None)
