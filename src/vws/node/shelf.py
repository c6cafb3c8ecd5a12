"""What simulated workspaces consist of: small things, one of each kind, in memory or in a file.

The fake hypervisor's "disks" and "domains". A file is a journal, so that a change costs one small write however many
workspaces there are.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from vws.node.state import write_whole

# In the order of their making; what is left of a workspace is whatever any of these has of it.
KINDS = ("note", "overlay", "seed", "dhcp", "domain", "tap", "saved")


class MemoryShelf:
    """Small things by kind and workspace; a value that was put is never changed, only replaced."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in (*KINDS, "network")}

    def put(self, kind: str, id: str, value: dict[str, Any]) -> None:
        self._values[kind][id] = value

    def get(self, kind: str, id: str) -> dict[str, Any] | None:
        return self._values[kind].get(id)

    def drop(self, kind: str, id: str) -> None:
        self._values[kind].pop(id, None)

    def ids(self, kind: str) -> set[str]:
        return set(self._values[kind])


class JournalShelf(MemoryShelf):
    """The same, kept in a file: a line for each change, so that a change costs one small write.

    A line that a kill cut short is no change. The first writer in a process rewrites the file without what is past;
    those who only look leave it alone.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file: io.FileIO | None = None
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for line in lines:
            if line.endswith(b"\n"):
                kind, id, value = json.loads(line)
                self._apply(kind, id, value)

    def put(self, kind: str, id: str, value: dict[str, Any]) -> None:
        self._write(kind, id, value)
        super().put(kind, id, value)

    def drop(self, kind: str, id: str) -> None:
        if self.get(kind, id) is not None:
            self._write(kind, id, None)
        super().drop(kind, id)

    def _apply(self, kind: str, id: str, value: dict[str, Any] | None) -> None:
        if value is None:
            super().drop(kind, id)
        else:
            super().put(kind, id, value)

    def _write(self, kind: str, id: str, value: dict[str, Any] | None) -> None:
        if self._file is None:
            self._file = self._rewritten()
        self._file.write(json.dumps([kind, id, value]).encode() + b"\n")

    def _rewritten(self) -> io.FileIO:
        things = [[kind, id, value] for kind, values in self._values.items() for id, value in values.items()]
        text = "".join(json.dumps(thing) + "\n" for thing in things)
        write_whole(self._path, text.encode(), durable=False)
        return io.FileIO(self._path, "a")
