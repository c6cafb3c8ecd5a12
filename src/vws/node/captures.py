"""Copies of workspaces' disks on their way to become images: what a node holds of them, and how one is made fit to go.

    captures/ID/disk.qcow2     the disk as it was at that moment, whole
    captures/ID/quiesced       what kept its guest from writing then
    captures/ID/delta.qcow2    what of it goes: cleaned, the changed clusters and nothing else

Each is made under another name and renamed; what a kill leaves is made again, and a cleaning that was cut off is simply
done once more. A copy is taken while the guest rests, so it must be quick: by reference where the file system can, else
of no more than can be copied in that time. A larger disk is mirrored first (mirror.py); a guest that rests already has
all the time.

No header is believed: whatever opens a copy is told each file under it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vws.core.deployment import CaptureOrder, Quiesced
from vws.core.site import ImageFile
from vws.faultpoints import reach
from vws.node.commands import Commands
from vws.node.daemons import qemu_ids
from vws.node.disks import disk_size_bytes, make_blank, make_overlay
from vws.node.naming import check_file, check_id
from vws.ports import HypervisorError

# What is copied well within a second on any disk that runs virtual machines.
COPIED_AT_ONCE_BYTES = 384 << 20
CLEANER = Path(__file__).with_name("clean_disk.py")
LIMIT_S = 900.0
# The cleaner is alone in its namespaces, and ends with this process.
ALONE = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
)
_MARGIN_BYTES = 64 << 20
_FICLONE = 0x40049409
_PIECE_BYTES = 8 << 20
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)


class CaptureFolders:
    """All of it blocks. images: where the files are that the disks are deltas on."""

    def __init__(self, directory: Path, images: Path) -> None:
        self.directory = directory / "captures"
        self._images = images
        self._commands = Commands()

    def ids(self) -> set[str]:
        return {entry.name for entry in os.scandir(self.directory)} if self.directory.exists() else set()

    def folder(self, id: str) -> Path:
        return self.directory / check_id(id)

    def is_taken(self, id: str) -> bool:
        return (self.folder(id) / "disk.qcow2").exists() or (self.folder(id) / "delta.qcow2").exists()

    def drop(self, id: str) -> None:
        shutil.rmtree(self.folder(id), ignore_errors=True)

    def images(self) -> set[str]:
        """The sha256s of the files that captures are deltas on."""
        found = set[str]()
        for note in self.directory.glob("*/beneath.json"):
            found.update(json.loads(note.read_bytes()))
        return found

    def _begin(self, order: CaptureOrder) -> Path:
        folder = self.folder(order.id)
        folder.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, 0o711)  # those who clean it have no rights, and begin in it
        # Before the copy, so that what is under it stays for as long as there is one.
        (folder / "beneath.new").write_text(json.dumps([file.sha256 for file in order.beneath]))
        (folder / "beneath.new").rename(folder / "beneath.json")
        return folder

    # -------------------------------------------------------- taking

    def takes_long(self, order: CaptureOrder, disk: Path) -> bool:
        """Longer than a guest may rest for it."""
        if disk.stat().st_blocks * 512 <= COPIED_AT_ONCE_BYTES:
            return False
        trial = self._begin(order) / "trial"
        try:
            with disk.open("rb") as source, trial.open("wb") as target:
                return not _cloned(source.fileno(), target.fileno())
        finally:
            trial.unlink(missing_ok=True)

    def prepare(self, order: CaptureOrder, disk: Path, twin: Path) -> None:
        """An empty disk like it, to be mirrored to, where the hypervisor sees it."""
        self._begin(order)
        self._check_room(disk)
        twin.unlink(missing_ok=True)
        with disk.open("rb") as file:
            size_mib = disk_size_bytes(file.read(32)) >> 20
        if order.beneath:
            ((image, _), *_) = self._beneath(order.beneath)
            make_overlay(self._commands, twin, image, order.beneath[0], size_mib)
        else:
            make_blank(self._commands, twin, size_mib)

    def adopt(self, order: CaptureOrder, twin: Path) -> None:
        """Take what was mirrored."""
        twin.rename(self.folder(order.id) / "disk.new")

    def copy(self, order: CaptureOrder, disk: Path) -> None:
        """Take what is in `disk` now, which nobody writes to meanwhile."""
        folder = self._begin(order)
        new = folder / "disk.new"
        try:
            self._check_room(disk)
            with disk.open("rb") as source, new.open("wb") as target:
                if not _cloned(source.fileno(), target.fileno()):
                    _copy_data(source.fileno(), target.fileno())
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        reach("agent.capture.copied")

    def quiesced(self, id: str) -> Quiesced:
        return Quiesced((self.folder(id) / "quiesced").read_text())

    def keep(self, order: CaptureOrder, by: Quiesced) -> None:
        """What was taken is whole."""
        new = self.folder(order.id) / "disk.new"
        (self.folder(order.id) / "quiesced").write_text(by)
        fd = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        new.rename(new.with_name("disk.qcow2"))
        reach("agent.capture.kept")

    def move(self, order: CaptureOrder, disk: Path) -> None:
        """Take the disk itself: its workspace is about to be removed."""
        folder = self._begin(order)
        (folder / "quiesced").write_text(Quiesced.OFF)
        os.rename(disk, folder / "disk.qcow2")
        reach("agent.capture.kept")

    def _check_room(self, disk: Path) -> None:
        needed = 2 * disk.stat().st_blocks * 512 + _MARGIN_BYTES
        if shutil.disk_usage(self.directory).free < needed:
            raise HypervisorError(
                f"the node's disk is too full to save it: {needed >> 20} MiB needed; it goes on as it was", final=True
            )

    # -------------------------------------------------------- making fit

    def delta(self, order: CaptureOrder) -> Path:
        """What goes, cleaned if it is to be. HypervisorError, final if its disk cannot be cleaned."""
        folder = self.folder(order.id)
        delta = folder / "delta.qcow2"
        if not delta.exists():
            chain = [(folder / "disk.qcow2", "qcow2"), *self._beneath(order.beneath)]
            if order.clean:
                self._clean(folder, chain)
                reach("agent.capture.cleaned")
            self._compact(folder, chain)
            reach("agent.capture.compacted")
            (folder / "delta.new").rename(delta)
            (folder / "disk.qcow2").unlink(missing_ok=True)
        return delta

    def _beneath(self, files: Sequence[ImageFile]) -> list[tuple[Path, str]]:
        found = [(self._images / check_file(file).sha256, file.format) for file in files]
        for path, _ in found:
            if not path.exists():
                raise HypervisorError("the image under it is gone from the node's cache", final=True)
        return found

    def _clean(self, folder: Path, chain: Sequence[tuple[Path, str]]) -> None:
        uid, gid = qemu_ids()
        asked = {"chain": [[str(path), format] for path, format in chain], "uid": uid, "gid": gid}
        command = (*ALONE, sys.executable, "-I", "-S", CLEANER)
        told = self._commands.run(*command, stdin=json.dumps(asked).encode(), limit_s=LIMIT_S, cwd=folder)
        try:
            said = json.loads(told)
        except ValueError:
            raise HypervisorError("the copy of its disk could not be cleaned") from None
        if "refused" in said:
            raise HypervisorError(str(said["refused"])[:500], final=True)

    def _compact(self, folder: Path, chain: Sequence[tuple[Path, str]]) -> None:
        """The allocated clusters in a new file, so that nothing goes that is in the old one and on no disk any more. It
        does not say what it is a delta on."""
        new = folder / "delta.new"
        new.unlink(missing_ok=True)
        arguments: list[str] = []
        if len(chain) > 1:
            # A header has room for a short name only, for the while that it needs one.
            beneath = [(_linked(folder, number, path), format) for number, (path, format) in enumerate(chain[1:])]
            arguments = ["-B", f"json:{_json(_opened(beneath))}", "-F", chain[1][1]]
        source = f"json:{_json(_opened(chain))}"
        command = ("convert", "-O", "qcow2", "-o", "compat=1.1", *arguments, source, new.name)
        self._commands.run("qemu-img", *command, limit_s=LIMIT_S, cwd=folder)
        if arguments:
            self._commands.run("qemu-img", "rebase", "-u", "-b", "", "-f", "qcow2", new.name, cwd=folder)


def _linked(folder: Path, number: int, path: Path) -> Path:
    link = folder / f"b{number}"
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    return Path(link.name)


def _opened(chain: Sequence[tuple[Path, str]]) -> dict[str, Any]:
    """A disk with all that is under it, as QEMU is told to open it."""
    (path, format), *beneath = chain
    node: dict[str, Any] = {"driver": format, "file": {"driver": "file", "filename": str(path)}}
    if format == "qcow2":
        node["backing"] = _opened(beneath) if beneath else None
    return node


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _cloned(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
        return False
    return True


def _copy_data(source: int, target: int) -> None:
    """All but the holes."""
    end, at = os.fstat(source).st_size, 0
    os.ftruncate(target, end)
    while at < end:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        hole = os.lseek(source, at, os.SEEK_HOLE)
        os.lseek(target, at, os.SEEK_SET)
        while at < hole:
            sent = os.sendfile(target, source, at, min(_PIECE_BYTES, hole - at))
            if not sent:
                return
            at += sent
