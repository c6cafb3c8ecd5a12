"""Recipes on the disk: a chain of them, read as one, with the files that they name.

A recipe may come from a stranger. What it names must lie in its folder, and symbolic links that lead out of it are
refused like paths that do: otherwise building one would put the builder's own files into an appliance.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vws.core.errors import InvalidRequest
from vws.core.recipe import FileEntry, Recipe, check_whole, joined
from vws.core.recipe_keys import read_recipe
from vws.core.yaml_tree import BYTES_MAX
from vws.guest.debs import sha256_of

RECIPES = (".yaml", ".yml")
IMAGES = (".vws", ".qcow2")


@dataclass(frozen=True, slots=True)
class Source:
    """A file that the build read: its name beside the first recipe, and the sha256 of what it held."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole chain: its recipe, in which each file's source is an absolute path; the image that it begins with."""

    recipe: Recipe
    image: Path | None
    sources: tuple[Source, ...]


def load(path: Path, image: Path | None = None) -> Plan:
    """The recipe at `path` with all that it builds on. image: what it builds on, whatever its `from:` says.

    Raises InvalidRequest with file, line and key for what is wrong; OSError if the recipe itself cannot be read.
    """
    top = path.parent.resolve()
    chain, found = _chain(path, image)
    recipe = chain[0][1]
    for _, ours in chain[1:]:
        recipe = joined(recipe, ours)
    try:
        check_whole(recipe, on_image=found is not None)
    except InvalidRequest as error:
        raise _told(path, error) from None
    read = {file for each, ours in chain for file in (each, *_files_of(ours))} | set(filter(None, [found]))
    # What the recipe's own file is called is nobody's but who wrote it: the same recipe makes the same bytes.
    called = {file: _shown(file, top) for file in read} | {chain[-1][0]: f"{recipe.name}.yaml"}
    sources = (Source(name, sha256_of(file)) for file, name in called.items())
    return Plan(recipe, found, tuple(sorted(sources, key=lambda each: (each.name, each.sha256))))


def _chain(path: Path, image: Path | None) -> tuple[list[tuple[Path, Recipe]], Path | None]:
    """From what is built on to what builds on it."""
    chain: list[tuple[Path, Recipe]] = []
    here: Path | None = path.resolve()
    while here is not None:
        if here in (each for each, _ in chain):
            names = " -> ".join(each.name for each in (*(each for each, _ in chain), here))
            raise InvalidRequest(
                f"{path}: from: leads back to where it began: {names}", field="from", possible="a chain with an end"
            )
        recipe = _read(here)
        chain.append((here, recipe))
        base = image if image is not None else _inside(here, recipe.base, "from") if recipe.base else None
        if base is not None and base.suffix not in RECIPES:
            return chain[::-1], _must_be_image(here, base)
        here = base
    return chain[::-1], None


def _must_be_image(recipe: Path, path: Path) -> Path:
    if path.suffix not in IMAGES:
        raise InvalidRequest(
            f"{recipe}: from: {path.name} is neither a recipe nor an image",
            field="from",
            possible=f"a file that ends in {', '.join((*RECIPES, *IMAGES))}",
        )
    if not path.is_file():
        raise InvalidRequest(f"{recipe}: from: there is no image {path}", field="from", possible="an image's file")
    return path


def _read(path: Path) -> Recipe:
    content = _bytes(path, BYTES_MAX + 1)
    try:
        recipe = read_recipe(content.decode())
        files = tuple(_found(path, entry, number) for number, entry in enumerate(recipe.files))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidRequest(f"{path}: line {line}: this is no text in UTF-8", possible="a recipe in UTF-8") from None
    except InvalidRequest as error:
        raise _told(path, error) from None
    return replace(recipe, files=files)


def _found(recipe: Path, entry: FileEntry, number: int) -> FileEntry:
    return replace(entry, source=str(_inside(recipe, entry.source, f"files[{number}].from"))) if entry.source else entry


def _inside(recipe: Path, name: str, field: str) -> Path:
    """The file or folder that the recipe names. Raises InvalidRequest if it is not there, or leads out."""
    top = recipe.parent
    path = (top / name).resolve()
    if not path.is_relative_to(top) or path == top:
        raise InvalidRequest(
            f"{recipe}: {field}: {name} leads out of the recipe's folder",
            field=field,
            asked=name,
            possible="a file beside the recipe or in a folder below",
        )
    if not path.exists():
        raise InvalidRequest(
            f"{recipe}: {field}: there is no {name} beside the recipe",
            field=field,
            asked=name,
            possible="a file beside the recipe or in a folder below",
        )
    return path


def walk(top: Path) -> Iterator[Path]:
    """A file, or a folder and all in it, parents first, in the order of their names; links are not followed."""
    yield top
    if top.is_dir() and not top.is_symlink():
        for each in sorted(top.iterdir()):
            yield from walk(each)


def _files_of(recipe: Recipe) -> Iterator[Path]:
    for entry in recipe.files:
        if entry.source:
            yield from (path for path in walk(Path(entry.source)) if path.is_file() and not path.is_symlink())


def _told(path: Path, error: InvalidRequest) -> InvalidRequest:
    """The same error, with the file's name before it."""
    return InvalidRequest(
        f"{path}: {error.problem}",
        field=error.field,
        asked=error.asked,
        possible=error.possible,
        details=error.details,
    )


def _bytes(path: Path, most: int) -> bytes:
    """The first bytes of a regular file: reading a pipe or a device might never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InvalidRequest(f"{path} is no ordinary file", possible="a recipe")
        return file.read(most)


def _shown(path: Path, top: Path) -> str:
    """Its name beside the first recipe; of one elsewhere (--from) the last part of it."""
    return str(path.relative_to(top)) if path.is_relative_to(top) else path.name
