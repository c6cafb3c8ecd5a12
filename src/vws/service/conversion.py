"""Disk images from one format to another, by qemu-img, which reads strangers' bytes and so runs confined.

The format that is read is always said, never guessed, and the header was read before (core/disk_headers.py): an image
that reaches here stands alone. What may come out is bounded, since a small file can unpack to a large one: by what the
site takes as an image, and by the room that its disk has.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vws.core.errors import InvalidRequest, Unavailable
from vws.core.image_formats import wrong
from vws.core.luks import LUKS_OPTIONS, SECRET_ID, UNTIMED, UNTIMED_TRIES
from vws.service.confined import Bounds, Outcome, TooMuchOutput, program, run

LOOKING = Bounds()
CONVERTING = Bounds(memory_mib=2048, cpu_s=600, wall_s=840)
# As many at the same time; others wait, as each may take a whole processor.
AT_ONCE = 2
# What a conversion must leave of the service's disk, for its record.
RESERVE_BYTES = 256 << 20
OPTIONS = {
    "qcow2": ("-o", "compat=1.1"),
    # Otherwise the size is rounded to whole cylinders of a disk of 1985.
    "vpc": ("-o", "subformat=dynamic,force_size=on"),
    "vmdk": ("-o", "subformat=monolithicSparse"),
}

# qemu-img reads the passphrase from its stdin, which nobody else sees.
SECRET = ("--object", f"secret,id={SECRET_ID},file=/dev/stdin")
_turns = threading.BoundedSemaphore(AT_ONCE)


def qemu_img(command: str, kind: str, path: Path, passphrase: str = "") -> dict[str, Any]:
    """What `qemu-img info` or `check` says of an image; encrypted ones are checked with their passphrase. Raises
    InvalidRequest if it cannot read it."""
    image = [*SECRET, _unlocked(kind, path)] if passphrase else ["-f", kind, path]
    outcome = run(
        [program("qemu-img", "qemu-utils"), command, "--output=json", *image],
        "looking at this image",
        LOOKING,
        read=[path],
        secret=passphrase,
    )
    if outcome.status and outcome.reason == "Invalid password, cannot unlock any keyslot":
        raise InvalidRequest(
            "the passphrase does not open this image", field="passphrase", possible="the one it was encrypted with"
        )
    try:
        answer = json.loads(outcome.said)
    except (ValueError, RecursionError):
        raise wrong(f"qemu-img cannot read this {kind} image: {outcome.reason}") from None
    return answer if isinstance(answer, dict) else {}


def _unlocked(kind: str, path: Path) -> str:
    file = {"driver": "file", "filename": str(path.resolve())}
    encrypt = {"format": "luks", "key-secret": SECRET_ID}
    return f"json:{json.dumps({'driver': kind, 'file': file, 'encrypt': encrypt})}"


def convert(
    source: Path, kind: str, target: Path, into: str, bytes_max: int, beneath: Sequence[tuple[Path, str]] = (),
    passphrase: str = "",
) -> None:  # fmt: skip
    """Write `target` in the format `into` (both formats are of image_formats.DISKS).

    beneath: the disks that `source` is a delta of, the nearest first, each with its format. passphrase: with which
    `target`, a qcow2, is encrypted. Raises InvalidRequest if it cannot be read or comes to more than `bytes_max`,
    Unavailable if the service's disk has no room. Nothing is left at `target` then.
    """
    image = [f"json:{json.dumps(_chain([(source, kind), *beneath]))}"] if beneath else ["-f", kind, source]
    options = [*OPTIONS.get(into, ()), *((*SECRET, "-o", LUKS_OPTIONS) if passphrase else ())]
    command = [program("qemu-img", "qemu-utils"), "convert", "-O", into, *options, *image, target]
    outcome = _until_timed(lambda: write_confined(
        command,
        "encrypting this image" if passphrase else "converting this image",
        target,
        bytes_max,
        read=[source, *(path for path, _ in beneath)],
        sparse=into == "raw",
        secret=passphrase,
    ))  # fmt: skip
    if outcome.status != 0:
        target.unlink(missing_ok=True)
        if outcome.reason == os.strerror(errno.ENOSPC):
            raise no_room()
        raise wrong(f"qemu-img cannot convert this {kind} image: {outcome.reason}", "an undamaged copy of it")


def _until_timed(work: Callable[[], Outcome]) -> Outcome:
    outcome = work()
    for _ in range(UNTIMED_TRIES):
        if not outcome.status or outcome.reason != UNTIMED:
            break
        outcome = work()
    return outcome


def _chain(files: Sequence[tuple[Path, str]]) -> dict[str, Any]:
    """A delta on what is beneath it, each opened as what the record says and none by what a header says."""
    (path, kind), *beneath = files
    node: dict[str, Any] = {"driver": kind, "file": {"driver": "file", "filename": str(path.resolve())}}
    return node | {"backing": _chain(beneath) if beneath else None} if kind == "qcow2" else node


def write_confined(
    command: Sequence[str | Path],
    doing: str,
    target: Path,
    bytes_max: int,
    *,
    read: Sequence[Path] = (),
    write: Sequence[Path] = (),
    bounds: Bounds = CONVERTING,
    environment: Mapping[str, str] = {},
    listen: bool = True,
    sparse: bool = False,
    secret: str = "",
) -> Outcome:
    """Run a program that writes `target`, or into the folders `write`, bounded by `bytes_max` and the disk's room.

    sparse: what it writes is mostly holes, so that its length says nothing of the room that it takes.
    """
    room = room_for(target)
    if not write:
        target.touch(mode=0o600)
    with _turns:
        try:
            bounds = replace(bounds, output_bytes=bytes_max if sparse else min(bytes_max, room))
            return run(
                command, doing, bounds, read=read, write=write or [target], environment=environment, listen=listen,
                secret=secret,
            )  # fmt: skip
        except InvalidRequest as error:
            if not write:
                target.unlink(missing_ok=True)
            if isinstance(error, TooMuchOutput) and room < bytes_max:
                raise no_room() from None
            raise


def room_for(target: Path) -> int:
    """The bytes that may be written there. Raises Unavailable if that is next to nothing."""
    free = shutil.disk_usage(target.parent).free - RESERVE_BYTES
    if free < RESERVE_BYTES:
        raise no_room()
    return free


def no_room() -> Unavailable:
    return Unavailable(
        "the service's disk has no room to unpack this image; nothing was changed",
        possible="a smaller one; or ask the administrator for room",
    )
