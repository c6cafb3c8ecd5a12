"""Room in the node's image cache: what is there, what it takes, and what goes first when room is needed.

The files themselves are the record. When one was used last is the time of its note (`SHA256.json`, images.py), so that
no kill and no restart forgets it; what it takes is what the file system says, holes left out. Whether something may go
is for others to say: here it is only put in order, the longest unused first.

What workspaces need may push out what planned leases want, the latest lease's first; what is only wanted may not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vws.core.errors import InvalidRequest
from vws.core.quantities import parse_size

SHARE_DEFAULT = 0.25
_NAME = re.compile(r"([0-9a-f]{64})(\.part)?")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, whole or partial. used_at: UTC seconds; disk_bytes: what it takes."""

    sha256: str
    path: Path
    partial: bool
    size_bytes: int
    disk_bytes: int
    used_at: float


def entries(directory: Path) -> list[Entry]:
    """All files in a cache; of one that is whole nothing partial counts. What comes or goes meanwhile may be missed."""
    found: dict[str, Entry] = {}
    notes: dict[str, float] = {}
    for each in os.scandir(directory) if directory.exists() else ():
        with suppress(FileNotFoundError):
            _take(each, found, notes)
    return [_used(entry, notes) for entry in found.values()]


def _take(each: os.DirEntry[str], found: dict[str, Entry], notes: dict[str, float]) -> None:
    match = _NAME.fullmatch(each.name)
    if each.name.endswith(".json"):
        notes[each.name.removesuffix(".json")] = each.stat().st_mtime
    elif match and (match[1] not in found or not match[2]):
        seen = each.stat()
        found[match[1]] = Entry(
            match[1], Path(each.path), bool(match[2]), seen.st_size, seen.st_blocks * 512, seen.st_mtime
        )


def _used(entry: Entry, notes: dict[str, float]) -> Entry:
    at = entry.used_at if entry.partial else notes.get(entry.sha256, entry.used_at)
    return Entry(entry.sha256, entry.path, entry.partial, entry.size_bytes, entry.disk_bytes, at)


def sweep(directory: Path) -> None:
    """Remove what kills left: notes of files that are gone, half-written notes, parts of files that are whole."""
    whole = {each.name for each in os.scandir(directory)}
    for name in whole:
        sha256 = name.split(".")[0]
        stale = name.endswith(".json") and sha256 not in whole
        if stale or name.endswith(".new") or (name.endswith(".part") and sha256 in whole):
            (directory / name).unlink(missing_ok=True)


def in_turn(
    entries: Iterable[Entry], kept: Collection[str], wanted: Sequence[str], *, for_workspace: bool
) -> Iterator[Entry]:
    """What may go, in the order in which it goes. kept: stays whatever comes; wanted: the soonest first."""
    idle = [entry for entry in entries if entry.sha256 not in kept]
    turn = {sha256: number for number, sha256 in enumerate(wanted)}
    unwanted = (entry for entry in idle if entry.sha256 not in turn)
    yield from sorted(unwanted, key=lambda entry: (entry.used_at, entry.sha256))
    if for_workspace:
        yield from sorted((e for e in idle if e.sha256 in turn), key=lambda entry: -turn[entry.sha256])


def victims(candidates: Iterable[Entry], excess_bytes: int) -> list[Entry] | None:
    """As many of the candidates, in their order, as free so much; None if all of them do not."""
    chosen: list[Entry] = []
    for entry in candidates:
        if excess_bytes <= 0:
            break
        chosen.append(entry)
        excess_bytes -= entry.disk_bytes
    return chosen if excess_bytes <= 0 else None


def parse_limit(text: str) -> int:
    """Bytes of a cache's limit as site.toml has it; 0 for "", the default. InvalidRequest for what is none."""
    if not text:
        return 0
    possible = '"20GiB", at least 64MiB; or leave it out: a quarter of the file system'
    try:
        size_mib = parse_size(text)
    except ValueError as error:
        raise InvalidRequest(f"node.cache: {error}", field="node.cache", asked=text[:40], possible=possible) from None
    if size_mib < 64 or size_mib > 1 << 40:
        raise InvalidRequest(f"node.cache is {text}", field="node.cache", asked=text[:40], possible=possible)
    return size_mib << 20


def share_of(directory: Path) -> int:
    """The default limit: so much of the file system, in bytes."""
    while not directory.exists():
        directory = directory.parent
    seen = os.statvfs(directory)
    return int(seen.f_blocks * seen.f_frsize * SHARE_DEFAULT)
