"""Debian packages as a source of files: looked up, downloaded, checked and unpacked, never installed.

An appliance made of what happens to be installed would differ from machine to machine. Here apt names the candidate
version of every package with its sha256, the .deb goes to a cache folder, and dpkg-deb unpacks it there; the machine
itself stays as it is. The same package versions therefore give the same files.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


class BuildError(Exception):
    """The appliance cannot be built; the message says why, and what to do next."""


@dataclass(frozen=True, slots=True)
class Deb:
    """One version of one package, as apt's lists describe it. `depends` are names, first alternatives only.

    source: what it was built from, as apt says that; "" if it is called the same.
    """

    name: str
    version: str
    architecture: str
    sha256: str
    depends: tuple[str, ...]
    source: str = ""

    @property
    def file_name(self) -> str:
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A package's files, under `root` as they would lie under /."""

    deb: Deb
    root: Path


def look_up(names: Iterable[str], index: Path | None = None) -> dict[str, Deb]:
    """The candidate version of each package. Raises BuildError naming those that apt does not know.

    index: a folder where apt keeps what it made of its lists, for the next look.
    """
    wanted = sorted(set(names))
    if not wanted:
        return {}
    kept = [] if index is None else [f"-oDir::Cache::{name}={index / name}" for name in ("pkgcache", "srcpkgcache")]
    shown = run(["apt-cache", *kept, "show", "--no-all-versions", *wanted], allow_failure=True)
    found = {deb.name: deb for deb in _stanzas(shown)}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise BuildError(f"apt does not know {', '.join(missing)}. Next: apt-get update, then build again.")
    return found


def with_dependencies(names: Iterable[str], follow: Callable[[str], bool]) -> dict[str, Deb]:
    """The packages and, through all levels, those they depend on for which `follow(name)` holds."""
    found: dict[str, Deb] = {}
    level = set(names)
    # Machines made for containers keep no index, and making one takes half a second.
    with tempfile.TemporaryDirectory() as index:
        while level:
            found |= look_up(level, Path(index))
            level = {name for deb in found.values() for name in deb.depends if follow(name)} - found.keys()
    return found


def unpack(debs: Iterable[Deb], cache: Path) -> dict[str, Unpacked]:
    """Download what the cache lacks, check every sha256, unpack. Raises BuildError when a download fails."""
    wanted = sorted(debs, key=lambda deb: deb.name)
    downloads, trees = cache / "debs", cache / "unpacked"
    downloads.mkdir(parents=True, exist_ok=True)
    trees.mkdir(exist_ok=True)
    _download([deb for deb in wanted if not _is_intact(downloads / deb.file_name, deb)], downloads)
    return {deb.name: Unpacked(deb, _unpack_one(deb, downloads, trees)) for deb in wanted}


def run(
    arguments: list[str],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    allow_failure: bool = False,
    with_stderr: bool = False,
) -> str:
    """What a program printed. Raises BuildError with its last words when it is missing or fails."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=cwd, env=env, check=False)
    except FileNotFoundError:
        raise BuildError(f"{arguments[0]} is not installed. Next: make setup") from None
    if done.returncode and not allow_failure:
        words = " / ".join(done.stderr.strip().splitlines()[-3:]) or f"exit status {done.returncode}"
        raise BuildError(f"{arguments[0]} failed: {words}")
    return done.stdout + done.stderr if with_stderr else done.stdout


def _stanzas(text: str) -> Iterator[Deb]:
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if re.match(r"[A-Za-z0-9-]+: ", line))
        if {"Package", "Version", "SHA256"} <= fields.keys():
            depends = (*_names(fields.get("Pre-Depends", "")), *_names(fields.get("Depends", "")))
            named = (fields["Package"], fields["Version"], fields["Architecture"], fields["SHA256"])
            yield Deb(*named, depends, fields.get("Source", ""))


def _names(relation: str) -> Iterator[str]:
    for clause in filter(None, relation.split(", ")):
        yield re.split(r"[ :(|]", clause.strip(), maxsplit=1)[0]


def _is_intact(file: Path, deb: Deb) -> bool:
    if not file.exists():
        return False
    return sha256_of(file) == deb.sha256


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(debs: list[Deb], folder: Path) -> None:
    if not debs:
        return
    # apt would drop to a user that may not be able to write here, and then warn that it did not.
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "download"]
    try:
        run([*command, *(f"{deb.name}={deb.version}" for deb in debs)], cwd=folder)
    except BuildError as error:
        raise BuildError(f"{error}. Next: apt-get update, then build again; what was downloaded is kept.") from None
    for deb in debs:
        if not _is_intact(folder / deb.file_name, deb):
            (folder / deb.file_name).unlink(missing_ok=True)
            raise BuildError(f"{deb.file_name} is not what apt's lists promised; it was removed. Next: build again.")


def _unpack_one(deb: Deb, downloads: Path, trees: Path) -> Path:
    tree = trees / deb.file_name.removesuffix(".deb")
    if not tree.exists():
        partial = tree.with_name(tree.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        run(["dpkg-deb", "-x", str(downloads / deb.file_name), str(partial)])
        partial.rename(tree)
    return tree
