"""Compiled modules in the source tree, which Python takes before the `.py` beside them."""

from __future__ import annotations

from pathlib import Path


def stale(tree: Path) -> list[Path]:
    """The sources that have been changed since they were compiled: what runs is not what they say."""
    found = []
    for library in sorted(tree.rglob("*.so")):
        source = library.with_name(f"{library.name.partition('.')[0]}.py")
        if source.exists() and library.stat().st_mtime < source.stat().st_mtime:
            found.append(source)
    return found
