"""What may stand in a file: shapes that read it and, from the same words, the JSON Schema that editors check it by.

A shape reads a node of core/yaml_tree.py to a value of Python's, or raises InvalidRequest with the line, the key and
what is allowed. `schema()` says the same in JSON Schema 2020-12, as far as that can: of what it accepts the shape may
still refuse something, never the other way round.

Scalars are strict about their kind, so that a file means the same to VWS as to an editor: a mode of 0644 is a number
to YAML, and a text only in quotes. The exception is a text with "${name}" in it, which may stand for any scalar: the
parameter's value is put in before it is read. As that happens in the tree and not in the text, a value can never
become a key or another line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

from vws.core.errors import InvalidRequest
from vws.core.quantities import parse_bandwidth, parse_duration, parse_size
from vws.core.yaml_tree import Items, Node, Path, Scalar, Table, fault, show_path

Json = dict[str, Any]

PARAMETER_PATTERN: Final = r"[a-z](?:[a-z0-9_-]{0,38}[a-z0-9])?"
_FILLED_IN: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
_FILLABLE: Final[Json] = {"$ref": "#/$defs/filled"}
# What schemas refer to: a text with a parameter in it.
DEFINITIONS: Final[Json] = {"filled": {"type": "string", "pattern": r"\$\{"}}
SHOWN_MAX: Final = 60
# For files without parameters, in which "${" is a text like others.
VERBATIM: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Spot:
    """A node and the way to it. values: of the parameters; None: where parameters mean nothing."""

    node: Node
    path: Path = ()
    values: Mapping[str, str] | None = None

    def wrong(self, problem: str, possible: str | None = None) -> NoReturn:
        """Raise InvalidRequest. problem: goes on from "groups.head.count "."""
        asked = shorten(self.node.text) if isinstance(self.node, Scalar) else None
        fault(
            self.node.place,
            f"{show_path(self.path) or 'the file'} {problem}",
            path=self.path,
            possible=possible,
            asked=asked,
        )

    def inner(self, key: str | int, node: Node) -> Spot:
        return Spot(node, (*self.path, key), self.values)

    def scalar(self, said: str) -> str | int | float | bool:
        """What stands here, filled in. said: what should."""
        node = self.node
        if not isinstance(node, Scalar):
            self.wrong(f"is {described(node)}", said)
        if node.value is None:
            self.wrong("is empty; leave out the key, or say something", said)
        return self.fill(node.value) if isinstance(node.value, str) else node.value

    @property
    def filled(self) -> bool:
        """Whether a parameter's value was put in."""
        if self.values is VERBATIM:
            return False
        return isinstance(self.node, Scalar) and isinstance(self.node.value, str) and "${" in self.node.value

    def fill(self, text: str) -> str:
        return text if self.values is VERBATIM else _FILLED_IN.sub(self._value_of, text)

    def _value_of(self, found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "${"
        if not found[2]:
            self.wrong("has ${ without its }", "${name} for a parameter, $${ for these two characters themselves")
        if self.values is None:
            self.wrong(f"names the parameter {shorten(name)!r}, where none is filled in", "a value written out")
        if name not in self.values:
            self.wrong(
                f"names the parameter {shorten(name)!r}, which is not declared{meant(name, self.values)}",
                f"a key of parameters: {listed(self.values)}; $${{ for these two characters themselves",
            )
        return self.values[name]


def described(node: Node) -> str:
    if isinstance(node, Table):
        return "a table"
    if isinstance(node, Items):
        return "a list"
    if isinstance(node.value, bool):
        return f"{node.text}, a truth value"
    if isinstance(node.value, str):
        return f"the text {shorten(node.text)!r}"
    return "empty" if node.value is None else f"the number {shorten(node.text)}"


def shorten(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 3] + "..."


def listed(names: Any) -> str:
    shown = sorted(names)
    return (", ".join(shown[:40]) + (", ..." if len(shown) > 40 else "")) or "there are none"


def meant(name: str, possible: Any) -> str:
    """ "; did you mean this?", if one is near."""
    near = difflib.get_close_matches(shorten(name), sorted(possible), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def without_parameters(schema: Any) -> Any:
    """The schema of the same file where parameters mean nothing."""
    if isinstance(schema, list):
        return [without_parameters(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    options = [each for each in schema.get("anyOf", ()) if each != _FILLABLE]
    if len(options) == 1:
        return without_parameters({name: each for name, each in schema.items() if name != "anyOf"} | options[0])
    kept = schema | ({"anyOf": options} if options else {})
    return {name: without_parameters(each) for name, each in kept.items()}


class Shape(Protocol):
    """said: in words what may stand there."""

    @property
    def said(self) -> str: ...

    def read(self, spot: Spot) -> Any: ...

    def schema(self) -> Json: ...


# ---------------------------------------------------------------- scalars


@dataclass(frozen=True, slots=True)
class Text:
    """pattern: all of it matches; never: nothing in it does. check: raises InvalidRequest or ValueError."""

    said: str
    pattern: str = ""
    never: str = ""
    length_max: int = 4096
    check: Callable[[str], Any] | None = None

    def read(self, spot: Spot) -> str:
        value = spot.scalar(self.said)
        if not isinstance(value, str):
            hint = f'; write it in quotes: "{spot.node.text}"' if isinstance(spot.node, Scalar) else ""
            spot.wrong(f"is {described(spot.node)}{hint}", self.said)
        return self.read_text(spot, value)

    def read_text(self, spot: Spot, value: str) -> str:
        if len(value) > self.length_max:
            limit = f"at most {self.length_max} characters"
            said = self.said if limit in self.said else f"{self.said}, {limit}"
            spot.wrong(f"has {len(value)} characters", said)
        fits = not self.pattern or re.fullmatch(self.pattern, value)
        if not fits or (self.never and re.search(self.never, value)):
            spot.wrong(f"is {shorten(value)!r}", self.said)
        if self.check is not None:
            try:
                self.check(value)
            except InvalidRequest as error:
                spot.wrong(f"cannot be used: {error.problem}", error.possible or self.said)
            except ValueError as error:
                spot.wrong(f"cannot be used: {error}", self.said)
        return value

    def schema(self) -> Json:
        plain: Json = {"type": "string", "maxLength": self.length_max}
        if self.pattern:
            plain["pattern"] = f"^(?:{self.pattern})$"
        if self.never:
            plain["not"] = {"pattern": self.never}
        return {"anyOf": [plain, _FILLABLE]}


@dataclass(frozen=True, slots=True)
class Choice:
    options: tuple[str, ...]

    @property
    def said(self) -> str:
        return " or ".join(self.options)

    def read(self, spot: Spot) -> str:
        value = spot.scalar(self.said)
        if value not in self.options:
            shown = shorten(str(value))
            spot.wrong(f"is {shown!r}{meant(shown, self.options)}", self.said)
        return str(value)

    def schema(self) -> Json:
        return {"anyOf": [{"enum": list(self.options)}, _FILLABLE]}


@dataclass(frozen=True, slots=True)
class Whole:
    low: int
    high: int

    @property
    def said(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def read(self, spot: Spot) -> int:
        value = spot.scalar(self.said)
        if spot.filled and _INTEGER.fullmatch(str(value)):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 2.0 is whole to JSON Schema too
        if isinstance(value, bool) or not isinstance(value, int):
            spot.wrong(f"is {shorten(str(value))!r}" if spot.filled else f"is {described(spot.node)}", self.said)
        if not self.low <= value <= self.high:
            spot.wrong(f"is {value}", self.said)
        return value

    def schema(self) -> Json:
        return {"anyOf": [{"type": "integer", "minimum": self.low, "maximum": self.high}, _FILLABLE]}


@dataclass(frozen=True, slots=True)
class Flag:
    said: str = "true or false"

    def read(self, spot: Spot) -> bool:
        value = spot.scalar(self.said)
        if spot.filled:
            value = {"true": True, "false": False}.get(str(value), value)
        if not isinstance(value, bool):
            near = {"yes": "; write true", "on": "; write true", "no": "; write false", "off": "; write false"}
            spot.wrong(f"is {shorten(str(value))!r}{near.get(str(value).lower(), '')}", self.said)
        return value

    def schema(self) -> Json:
        return {"anyOf": [{"type": "boolean"}, _FILLABLE]}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A size in MiB or a duration in seconds, written with its unit. bare: a number alone has a meaning too."""

    said: str
    parse: Callable[[str], int]
    pattern: str
    low: int
    high: int
    bare: bool

    def read(self, spot: Spot) -> int:
        value = spot.scalar(self.said)
        if isinstance(value, bool):
            spot.wrong(f"is {described(spot.node)}", self.said)
        text = str(value)
        if len(text) > SHOWN_MAX:
            spot.wrong(f"has {len(text)} characters", self.said)
        try:
            found = self.parse(text)
        except ValueError as error:
            spot.wrong(f"cannot be read: {error}", self.said)
        if not self.low <= found <= self.high:
            spot.wrong(f"is {text}", self.said)
        return found

    def schema(self) -> Json:
        written: list[Json] = [{"type": "string", "pattern": rf"^\s*(?:{self.pattern})\s*$"}]
        number = [{"type": "integer", "minimum": self.low, "maximum": self.high}] if self.bare else []
        return {"anyOf": [*written, *number, _FILLABLE]}


def size(low: int, high: int) -> Quantity:
    """low, high: MiB."""
    said = f"a size such as 512MiB or 1.5GiB, from {low} MiB to {high // 1024**2} TiB"
    return Quantity(said, parse_size, r"[0-9]+(?:\.[0-9]+)?\s*(?:[MmGgTt](?:[Ii][Bb])?)?", low, high, bare=True)


def bandwidth(low: int, high: int) -> Quantity:
    """low, high: Mbit/s."""
    pattern = r"[0-9]+(?:\.[0-9]+)?\s*[MmGg][Bb][Ii][Tt](?:/[Ss])?"
    said = f"a speed such as 100Mbit or 1Gbit, from {low} Mbit to {high // 1000} Gbit"
    return Quantity(said, parse_bandwidth, pattern, low, high, bare=False)


def duration(low: int, high: int) -> Quantity:
    """low, high: seconds."""
    unit = r"(?:[Mm][Ii][Nn]|[SsMmHhDdWw])"
    pattern = rf"(?:[0-9]+(?:\.[0-9]+)?\s*{unit}\s*)+"
    said = f"a time such as 90s, 30m, 4h or 1h30m, from {low} s to {high // 86_400} days"
    return Quantity(said, parse_duration, pattern, low, high, bare=False)


@dataclass(frozen=True, slots=True)
class Anything:
    """A scalar of whatever kind, as it is."""

    said: str = "a text, a number, true or false"

    def read(self, spot: Spot) -> str | int | float | bool:
        return spot.scalar(self.said)

    def schema(self) -> Json:
        return {"type": ["string", "number", "boolean"]}


# ---------------------------------------------------------------- lists and tables


@dataclass(frozen=True, slots=True)
class ListOf:
    """Scalars in it are different from each other."""

    item: Shape
    count_max: int = 100

    @property
    def said(self) -> str:
        return f"a list of at most {self.count_max}, each {self.item.said}"

    def read(self, spot: Spot) -> tuple[Any, ...]:
        node = spot.node
        if not isinstance(node, Items):
            hint = f"; in a list it is written [{shorten(node.text)}]" if isinstance(node, Scalar) and node.text else ""
            spot.wrong(f"is {described(node)}{hint}", self.said)
        if len(node.items) > self.count_max:
            spot.wrong(f"has {len(node.items)} entries", self.said)
        found: list[Any] = []
        for number, each in enumerate(node.items):
            inner = spot.inner(number, each)
            value = self.item.read(inner)
            if isinstance(each, Scalar) and value in found:
                inner.wrong(f"is {shorten(str(value))!r}, which the list has already", "each once")
            found.append(value)
        return tuple(found)

    def schema(self) -> Json:
        return {"type": "array", "items": self.item.schema(), "maxItems": self.count_max, "uniqueItems": True}


@dataclass(frozen=True, slots=True)
class TableOf:
    """Named things: what is read gets its key as `name`, if it is a record with one.

    allowed: what a name may be. But these few names are all that there are, if `names` has any.
    """

    item: Shape
    allowed: Text
    count_max: int = 100
    names: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        return f"a table of at most {self.count_max} names, each {self.item.said}"

    def read(self, spot: Spot) -> dict[str, Any]:
        node = table_of(spot, self.said)
        if len(node.entries) > self.count_max:
            spot.wrong(f"has {len(node.entries)} entries", self.said)
        return {name: self._read(spot, node, name) for name in node.entries}

    def _read(self, spot: Spot, node: Table, name: str) -> Any:
        key = Spot(Scalar(node.keys[name], name, name), spot.path)
        if self.names and name not in self.names:
            key.wrong(f"has no key {shorten(name)!r}{meant(name, self.names)}", listed(self.names))
        try:
            self.allowed.read_text(Spot(key.node, ()), name)
        except InvalidRequest as error:
            key.wrong(f"cannot have a {shorten(name)!r}", error.possible)
        return self.item.read(spot.inner(name, node.entries[name]))

    def schema(self) -> Json:
        named: Json = {"pattern": f"^(?:{self.allowed.pattern})$", "maxLength": self.allowed.length_max}
        return {
            "type": "object",
            "propertyNames": {"enum": list(self.names)} if self.names else named,
            "additionalProperties": self.item.schema(),
            "maxProperties": self.count_max,
        }


@dataclass(frozen=True, slots=True)
class Key:
    """field: what the record calls it, if not by its key."""

    shape: Shape
    help: str
    required: bool = False
    field: str = ""


@dataclass(frozen=True)
class Record:
    """A table of known keys, made into a value by `make(**fields)`; a key that is not there is left to its default.

    one_of: of these exactly one is there. some_of: of these one at least. literal: in these no parameter is filled in.
    """

    said: str
    make: Callable[..., Any]
    keys: Mapping[str, Key]
    one_of: tuple[str, ...] = ()
    literal: tuple[str, ...] = ()
    some_of: tuple[str, ...] = ()

    def read(self, spot: Spot) -> Any:
        node = table_of(spot, f"{self.said}: {', '.join(self.keys)}")
        self._check_keys(spot, node)
        return self.make(**dict(self._fields(spot, node)))

    def _check_keys(self, spot: Spot, node: Table) -> None:
        for name, place in node.keys.items():
            if name not in self.keys:
                unknown = Spot(Scalar(place, name, name), spot.path)
                unknown.wrong(f"has no key {shorten(name)!r}{meant(name, self.keys)}", ", ".join(self.keys))
        for name, key in self.keys.items():
            if key.required and name not in node.entries:
                spot.wrong(f"says no {name}", f"{name}: {key.shape.said}")
        said = [name for name in self.one_of if name in node.entries]
        if self.one_of and len(said) != 1:
            spot.wrong(f"says {' and '.join(said) or 'nothing'}", f"one of {' and '.join(self.one_of)}")
        if self.some_of and not any(name in node.entries for name in self.some_of):
            spot.wrong(f"says neither {' nor '.join(self.some_of)}", f"{' or '.join(self.some_of)}")

    def _fields(self, spot: Spot, node: Table) -> Iterator[tuple[str, Any]]:
        for name, inner in node.entries.items():
            key = self.keys[name]
            values = None if name in self.literal else spot.values
            yield (key.field or name.replace("-", "_"), key.shape.read(Spot(inner, (*spot.path, name), values)))

    def schema(self) -> Json:
        required = [name for name, key in self.keys.items() if key.required]
        properties = {name: key.shape.schema() | {"description": key.help} for name, key in self.keys.items()}
        found: Json = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            found["required"] = required
        if self.one_of:
            found["oneOf"] = [{"required": [name]} for name in self.one_of]
        if self.some_of:
            found["anyOf"] = [{"required": [name]} for name in self.some_of]
        return found


def table_of(spot: Spot, said: str) -> Table:
    if not isinstance(spot.node, Table):
        spot.wrong(f"is {described(spot.node)}", said)
    return spot.node
