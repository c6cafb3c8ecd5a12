"""What the node keeps of each workspace: one folder, with one small record in it.

    workspaces/ID/record.json    this module's; replaced whole and synced
    workspaces/ID/disk.qcow2     the overlay, on an image of images/
    workspaces/ID/blank-NAME.qcow2, copy-NAME.qcow2   disks beside it: one's own, and a copy of an image's
    workspaces/ID/twin.qcow2     a copy of the overlay in the making
    workspaces/ID/seed.iso       the NoCloud disk
    workspaces/ID/memory         the saved state of a suspended guest (memory_pipes.py: of an encrypted one)
    consoles/ID.log, ID.log.0    the serial console; stays after the end

The record comes first and goes last, so that half-made and half-removed
workspaces are listed by their folders.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vws.core.errors import InvalidRequest
from vws.core.wire import from_json
from vws.faultpoints import reach
from vws.node.naming import check_id
from vws.node.state import write_whole
from vws.ports import HypervisorError

CONSOLES_KEPT_S = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Record:
    """boots: the last boot that was begun. asked: what this agent did to the domain last (`stop`, `suspend`, ""), so
    that its end is not taken for a death. images: the sha256s of its image's files, which it goes on needing.
    disks: the names of those beside its root's. command: its guest has one to run. encrypted: nothing of it may lie
    here in the clear. frozen: its file systems may be, by its own agent, and are to be thawed."""

    id: str
    end: int = 0
    boots: int = 0
    created: bool = False
    host_key: str = ""
    asked: str = ""
    images: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()
    command: bool = False
    encrypted: bool = False
    frozen: bool = False


class Records:
    """The folders of all workspaces below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "workspaces"
        self.consoles = directory / "consoles"

    def make_folders(self) -> None:
        for folder in (self.directory, self.consoles):
            folder.mkdir(parents=True, exist_ok=True)
            os.chmod(folder, 0o711)

    def ids(self) -> set[str]:
        """Every workspace of which there is at least a folder."""
        try:
            return {entry.name for entry in os.scandir(self.directory) if entry.is_dir(follow_symlinks=False)}
        except FileNotFoundError:
            return set()

    # -------------------------------------------------------- places

    def folder(self, id: str) -> Path:
        return self.directory / check_id(id)

    def disk(self, id: str) -> Path:
        return self.folder(id) / "disk.qcow2"

    def beside(self, id: str, name: str, *, private: bool) -> Path:
        return self.folder(id) / f"{'copy' if private else 'blank'}-{name}.qcow2"

    def disks(self, id: str) -> list[Path]:
        """All that it may write to: the overlay, and what is beside it."""
        return [self.disk(id), *self.folder(id).glob("blank-*.qcow2"), *self.folder(id).glob("copy-*.qcow2")]

    def twin(self, id: str) -> Path:
        """What its disk is mirrored to; worth nothing once that was broken off."""
        return self.folder(id) / "twin.qcow2"

    def seed(self, id: str) -> Path:
        return self.folder(id) / "seed.iso"

    def memory(self, id: str) -> Path:
        return self.folder(id) / "memory"

    def console(self, id: str) -> Path:
        return self.consoles / f"{check_id(id)}.log"

    # -------------------------------------------------------- records

    def read(self, id: str) -> Record | None:
        """None if there is none, or none that makes sense."""
        try:
            data = json.loads((self.folder(id) / "record.json").read_bytes())
            return _record(id, data)
        except (OSError, ValueError, InvalidRequest):
            return None

    def write(self, record: Record, *, durable: bool = True) -> Record:
        """`durable`: return once it would survive a power cut."""
        folder = self.folder(record.id)
        folder.mkdir(mode=0o711, exist_ok=True)
        os.chmod(folder, 0o711)
        write_whole(folder / "record.json", json.dumps(asdict(record)).encode(), durable=durable)
        return record

    def need(self, id: str) -> Record:
        record = self.read(id)
        if record is None or not self.disk(id).exists():
            raise HypervisorError("its disk has vanished from the node; what it held is lost", final=True)
        return record

    def remove(self, id: str) -> None:
        """The folder with all that is in it, its record last."""
        folder = self.folder(id)
        if not folder.exists():
            return
        for entry in os.scandir(folder):
            if entry.name != "record.json":
                _remove(entry)
        reach("agent.seed.removed")
        shutil.rmtree(folder)

    # -------------------------------------------------------- consoles

    def console_tail(self, id: str, tail_bytes: int) -> bytes:
        """The end of the console's log, across its two files."""
        log = self.console(id)
        tail = _tail(log, tail_bytes)
        if len(tail) < tail_bytes:
            tail = _tail(log.with_name(f"{log.name}.0"), tail_bytes - len(tail)) + tail
        return tail

    def forget_old_consoles(self) -> None:
        """Of workspaces that are gone, a week after the last line."""
        here, before = self.ids(), time.time() - CONSOLES_KEPT_S
        for entry in os.scandir(self.consoles):
            if entry.name.split(".")[0] not in here and entry.stat(follow_symlinks=False).st_mtime < before:
                os.unlink(entry.path)


def _record(id: str, data: Any) -> Record:
    """Fields of a newer version are left out: to take its record for none would be to lose the disk."""
    if not isinstance(data, dict) or data.get("id") != id:
        raise ValueError("another workspace's record")
    names = {field.name for field in fields(Record)}
    return from_json(Record, {name: value for name, value in data.items() if name in names})


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        os.unlink(entry.path)


def _tail(path: Path, size: int) -> bytes:
    if size <= 0:
        return b""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - size))
        return file.read(size)
    return b""
