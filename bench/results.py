"""bench/RESULTS.md: one section for each bench, replaced when that bench runs, with the machine it ran on.

Sections of benches that did not run this time stay as they are, so each says its own date and machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bench.measure import Number, Section, shown

HEAD = """# Results

Written by `make bench` (see `bench/__init__.py` for the rules); do not edit by hand. Targets are upper limits.
"""


def table(numbers: Iterable[Number]) -> list[str]:
    """Rows of a Markdown table, aligned so that it reads well in a terminal too."""
    rows = [("what", "measured", "target", "verdict", "beside")]
    for n in numbers:
        target = "" if n.target is None else f"{n.target:g} {n.unit}".strip()
        rows.append((n.what, f"{shown(n.measured)} {n.unit}".strip(), target, n.verdict, n.beside))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, tuple("-" * width for width in widths))
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]


def render(section: Section, stamp: str) -> str:
    return "\n".join(
        [f"## {section.name}: {section.title}", "", section.how, "", *table(section.numbers), "", stamp, ""]
    )


def update(path: Path, sections: Iterable[Section], stamp: str) -> None:
    """Replace or add `sections` in the file; `stamp` tells when and where they were measured."""
    kept = _split(path.read_text()) if path.exists() else {}
    kept |= {section.name: render(section, stamp) for section in sections}
    path.write_text("\n".join([HEAD, *(kept[name] for name in sorted(kept))]))


def _split(text: str) -> dict[str, str]:
    """The sections of an earlier file by their names."""
    parts = re.split(r"(?m)^## (?=[a-z]+: )", text)[1:]
    return {part.partition(":")[0]: f"## {part.rstrip()}\n" for part in parts}
