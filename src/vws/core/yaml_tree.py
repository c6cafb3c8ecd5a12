"""YAML, as much of it as people need to write a cluster down, as a tree in which everything knows its line.

PyYAML's events are used rather than its values: a value has forgotten where it stood, and of two equal keys the first.
Scalars mean what the core schema of YAML 1.2 says, which is what editors check by: `yes` and `10:20` are texts.

Refused are anchors, aliases and merge keys (a few lines of them expand to gigabytes), tags (they name types of
programs), further documents, and depth. So the tree is never larger than the text, and the text is limited.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import yaml

from vws.core.errors import InvalidRequest

BYTES_MAX: Final = 256 * 1024
DEPTH_MAX: Final = 16
INTEGER_DIGITS_MAX: Final = 18

# libyaml, where PyYAML was built with it, is twenty times as fast.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OTHER_INTEGER: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands, both counting from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """value: what YAML takes it for. text: as written, without quotes."""

    place: Place
    value: str | int | float | bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Items:
    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Its keys are texts. keys: where each stands."""

    place: Place
    entries: dict[str, Node]
    keys: dict[str, Place]


Node = Scalar | Items | Table
# The way to a node: keys and numbers.
Path = tuple[str | int, ...]


def fault(place: Place, problem: str, *, path: Path = (), possible: str | None = None, asked: Any = None) -> NoReturn:
    """Raise InvalidRequest with the place in its sentence and in its details."""
    raise InvalidRequest(
        f"line {place.line}, column {place.column}: {problem}",
        field=show_path(path) or None,
        asked=asked,
        possible=possible,
        details={"line": place.line, "column": place.column},
    )


def show_path(path: Path) -> str:
    """groups.head.disks[0].size"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def path_of(shown: str) -> Path:
    """What show_path shows."""
    return tuple(int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", shown))


def place_of(tree: Node, path: Path) -> Place:
    """Where the last part of `path` that there is stands: its key, if it has one."""
    place, node = tree.place, tree
    for part in path:
        if isinstance(node, Table) and str(part) in node.entries:
            place, node = node.keys[str(part)], node.entries[str(part)]
        elif isinstance(node, Items) and isinstance(part, int) and 0 <= part < len(node.items):
            node = node.items[part]
            place = node.place
        else:
            break
    return place


def scalar_at(tree: Node, path: Path) -> Scalar | None:
    """The scalar at `path`, None if there is none."""
    node: Node | None = tree
    for part in path:
        if isinstance(node, Table):
            node = node.entries.get(str(part))
        elif isinstance(node, Items) and isinstance(part, int) and 0 <= part < len(node.items):
            node = node.items[part]
        else:
            return None
    return node if isinstance(node, Scalar) else None


def parse(text: str, form: str = "cluster/1") -> Table:
    """The tree of one document, which is a table. form: what its `vws` should say. Raises InvalidRequest with the
    place."""
    start = Place(1, 1)
    try:
        too_long = len(text.encode()) > BYTES_MAX
    except UnicodeEncodeError as error:
        fault(_place_at(text, error.start), "half a character (a lone surrogate) is no text")
    if too_long:
        fault(start, f"the file has more than {BYTES_MAX} bytes", possible="long texts in files of their own")
    try:
        return _Reader(yaml.parse(text, Loader=_LOADER), form).document()
    except yaml.reader.ReaderError as error:
        fault(_place_at(text, int(error.position)), "a control character is no text", asked=repr(error.character)[:20])
    except yaml.MarkedYAMLError as error:
        fault(_place(error.problem_mark or error.context_mark), _said(error, text), possible="YAML")


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)


def _place_at(text: str, position: int) -> Place:
    before = text[:position]
    return Place(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)


def _said(error: yaml.MarkedYAMLError, text: str) -> str:
    """PyYAML's words, with those added that people need most."""
    said = f"this is not YAML: {error.problem or error.context}"
    mark = error.problem_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "\t" in line[: mark.column + 1 if mark is not None else 0]:
        return f"{said}; indent with spaces, not with tabs"
    if re.search(r"[\[{,:]\s*\$\{", line):
        return f'{said}; a parameter stands in quotes: "${{name}}"'
    return said


class _Reader:
    """Takes the events of one document, one after the other, and makes the tree of them."""

    def __init__(self, events: Iterator[Any], form: str) -> None:
        self.events = events
        self._possible = f"vws: {form}, and what follows"

    def document(self) -> Table:
        next(self.events)  # of the stream
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            fault(Place(1, 1), "the file is empty", possible=self._possible)
        if event.tags:
            fault(_place(event.start_mark), "a %TAG line names types of programs; leave it out")
        tree = self.node(next(self.events), 0)
        if not isinstance(tree, Table):
            fault(tree.place, "the file is no table of keys and values", possible=self._possible)
        next(self.events)  # the document's end
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            fault(_place(event.start_mark), "a second document begins here", possible="one document in a file")
        return tree

    def node(self, event: Any, depth: int) -> Node:
        place = _place(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            fault(place, f"*{str(event.anchor)[:40]} is an alias, which is not read; write it out")
        if event.anchor is not None:
            fault(place, f"&{event.anchor[:40]} is an anchor, which is not read; write out what is meant twice")
        if event.tag is not None:
            fault(place, f"{event.tag[:40]} is a tag, which is not read; leave it out")
        if depth > DEPTH_MAX:
            fault(place, "this is nested too deep", possible=f"at most {DEPTH_MAX} levels")
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(place, _value(event, place), event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            return Items(place, tuple(self.items(depth + 1)))
        return self.table(place, depth + 1)

    def items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            yield self.node(event, depth)

    def table(self, place: Place, depth: int) -> Table:
        found = Table(place, {}, {})
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, depth)
            if not isinstance(key, Scalar) or key.value is None:
                fault(key.place, "a key is a word", possible="key: value")
            if key.text == "<<":
                fault(key.place, "<< merges tables, which is not read; write out what is meant")
            if key.text in found.keys:
                first = found.keys[key.text].line
                fault(key.place, f"{key.text[:40]} is said twice, first on line {first}", possible="each key once")
            found.keys[key.text] = key.place
            found.entries[key.text] = self.node(next(self.events), depth)
        return found


def _value(event: Any, place: Place) -> str | int | float | bool | None:
    """What a scalar means: one with quotes, or of several lines, is a text."""
    text = str(event.value)
    if event.style not in (None, ""):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) or _OTHER_INTEGER.fullmatch(text):
        if len(text) > INTEGER_DIGITS_MAX:
            fault(place, "this number is too long", possible=f"at most {INTEGER_DIGITS_MAX} digits, or quotes")
        return int(text, 0) if _OTHER_INTEGER.fullmatch(text) else int(text)
    if _FLOAT.fullmatch(text) and len(text) <= 40 and math.isfinite(float(text)):
        return float(text)
    return text
