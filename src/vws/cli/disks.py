"""Disks as the command line writes them: the root's is a size, those beside it begin with what they are.

    10GiB                          the root disk
    blank:10GiB:/data              a blank one, with a file system there; blank:10GiB:xfs:/data says which
    swap:512MiB                    one to swap on
    data:genomes:/genomes          an image's disk, shared and read-only
    data:genomes:copy:/genomes     a private copy of it; data:genomes:copy:20GiB:/genomes a larger one

`NAME=` before it is how the guest knows it (by the serial vws-NAME); else the name is made from what is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click

from vws.cli.sizes import parse_size, show_size

Json = dict[str, Any]

KINDS = ("blank", "swap", "data")
FILESYSTEMS = ("ext4", "xfs", "vfat")
NAME_LENGTH_MAX = 16
SAID = "10GiB, blank:10GiB:/data, swap:512MiB, data:IMAGE:/data or data:IMAGE:copy:/data"


class DiskWord(click.ParamType[Any]):
    """A root disk's size in MiB, or a disk beside it as the API takes it."""

    name = "disk"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return read_disk(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def read_disk(text: str) -> int | Json:
    """ValueError says what would be read."""
    named, _, said = text.rpartition("=")
    kind, colon, rest = said.partition(":")
    if not colon:
        if named or kind in KINDS:
            raise ValueError(f"{text!r} is no disk; write {SAID}")
        return parse_size(said)
    read = {"blank": _blank, "swap": _swap, "data": _data}.get(kind)
    if read is None:
        raise ValueError(f"{kind!r} is no kind of disk; write {SAID}")
    disk = read(rest.split(":"))
    return {"name": named or _made_up(kind, disk)} | disk


def _blank(words: list[str]) -> Json:
    mount = _mount(words)
    filesystem = {"filesystem": words.pop()} if words[1:] and words[-1] in FILESYSTEMS else {}
    if len(words) != 1:
        raise ValueError(f"write blank:SIZE, blank:SIZE:/PATH or blank:SIZE:{'|'.join(FILESYSTEMS)}:/PATH")
    return {"size_mib": parse_size(words[0])} | filesystem | mount


def _swap(words: list[str]) -> Json:
    if len(words) != 1:
        raise ValueError("write swap:SIZE; swap is not mounted")
    return {"size_mib": parse_size(words[0]), "filesystem": "swap"}


def _data(words: list[str]) -> Json:
    """An image's name may have a colon too, before its tag."""
    mount, size = _mount(words), Json()
    if words[2:] and words[-2] == "copy":
        size = {"size_mib": parse_size(words.pop())}
    private = {"private": True} if words[1:] and words[-1] == "copy" else {}
    if words[1:] and words[-1] in ("ro", "copy"):
        words.pop()
    if not words[0] or len(words) > 2:
        raise ValueError("write data:IMAGE:/PATH, data:IMAGE:copy:/PATH or data:IMAGE:copy:SIZE:/PATH")
    return {"image": ":".join(words)} | private | size | mount


def _mount(words: list[str]) -> Json:
    return {"mount": words.pop()} if words[-1].startswith("/") else {}


def _made_up(kind: str, disk: Json) -> str:
    wanted = disk.get("image", "").partition(":")[0] or disk.get("mount", "").rpartition("/")[2] or kind
    plain = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")[:NAME_LENGTH_MAX].strip("-")
    return plain or kind


def split(words: Iterable[int | Json]) -> tuple[int | None, list[Json]]:
    """(the root disk's size, the disks beside it, each with a name of its own). ValueError if two sizes are given."""
    roots = [word for word in words if isinstance(word, int)]
    if len(roots) > 1:
        raise ValueError("there is one root disk; a further one is written blank:SIZE")
    found: list[Json] = []
    for disk in (word for word in words if not isinstance(word, int)):
        found.append(disk | {"name": _apart(disk["name"], {other["name"] for other in found})})
    return (roots[0] if roots else None), found


def _apart(name: str, taken: set[str]) -> str:
    number, wanted = 1, name
    while wanted in taken:
        number += 1
        wanted = f"{name[: NAME_LENGTH_MAX - len(str(number)) - 1]}-{number}"
    return wanted


def disk_text(disk: Json, image: str = "") -> str:
    """One that was granted, in words. image: what its image is called."""
    size = f" {show_size(disk['size_mib'])}" if disk["size_mib"] else ""
    kind = f" ({'copy of ' if disk.get('private') else ''}{image or disk['image']})" if disk["image"] else ""
    if disk.get("brought"):
        kind = " (filled by its image)"
    swap = " swap" if disk["filesystem"] == "swap" and disk["name"] != "swap" else ""
    mount = f" at {disk['mount']}" if disk["mount"] else ""
    return f"{disk['name']}{size}{swap}{kind}{mount}"
