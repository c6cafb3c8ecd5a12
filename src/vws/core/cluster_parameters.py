"""The parameters of a cluster file: what they may be, and what they are this time.

A parameter's values are texts until they stand somewhere; its type only says which texts it takes, so that
`--set workers=many` is refused at the parameter and not where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from vws.core.quantities import parse_duration, parse_size
from vws.core.shapes import (
    PARAMETER_PATTERN,
    Anything,
    Choice,
    Key,
    ListOf,
    Record,
    Spot,
    TableOf,
    Text,
    listed,
    meant,
    shorten,
)
from vws.core.yaml_tree import Scalar, Table, fault, place_of

LENGTH_MAX: Final = 256
_WORDS: Final = {
    "text": "a text",
    "number": "a whole number",
    "size": "a size such as 512MiB",
    "duration": "a duration such as 4h",
    "flag": "true or false",
}

Plain = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """As declared. type: "" where the default tells it."""

    type: str = ""
    default: Plain | None = None
    min: Plain | None = None
    max: Plain | None = None
    choices: tuple[Plain, ...] = ()
    help: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A parameter and its value for this launch. given: it is not the default."""

    name: str
    value: str
    given: bool = False
    help: str = ""


_PARAMETER: Final = Record(
    "a parameter",
    Parameter,
    {
        "type": Key(Choice(tuple(_WORDS)), "What it may be. Left out, the default tells."),
        "default": Key(Anything(), "Its value where --set gives none. Without a default, --set must."),
        "min": Key(Anything(), "The least that it may be: of numbers, sizes and durations."),
        "max": Key(Anything(), "The most that it may be: of numbers, sizes and durations."),
        "choices": Key(ListOf(Anything()), "All that it may be."),
        "help": Key(Text("a text", length_max=500), "What it is, for those who launch the file."),
    },
)
PARAMETERS: Final = TableOf(
    _PARAMETER, Text("a name: a lower-case letter, then letters, digits, _ and -", PARAMETER_PATTERN)
)


def choose(tree: Table, given: Mapping[str, str]) -> tuple[Chosen, ...]:
    """What each parameter of the file is, by `given` or by default. Raises InvalidRequest."""
    if "parameters" not in tree.entries:
        declared: dict[str, Parameter] = {}
    else:
        declared = PARAMETERS.read(Spot(tree.entries["parameters"], ("parameters",)))
    for name in given:
        if name not in declared:
            fault(
                place_of(tree, ("parameters",)),
                f"the file has no parameter {shorten(name)!r}{meant(name, declared)}",
                path=("parameters",),
                possible=listed(declared),
                asked=shorten(name),
            )
    return tuple(_chosen(tree, name, parameter, given.get(name)) for name, parameter in declared.items())


def _chosen(tree: Table, name: str, parameter: Parameter, given: str | None) -> Chosen:
    spot = Spot(_node_of(tree, name), ("parameters", name))
    kind = parameter.type or _type_of(parameter, spot)
    if parameter.default is not None:
        _check(spot, kind, parameter, _text(parameter.default), "have {} as its default")
    if given is not None:
        _check(spot, kind, parameter, given, "be {}")
    elif parameter.default is None:
        spot.wrong("has no value and no default", f"--set {name}=VALUE: {_allowed(kind, parameter)}")
    value = given if given is not None else _text(parameter.default)
    return Chosen(name, value, given is not None, parameter.help)


def _node_of(tree: Table, name: str) -> Scalar:
    return Scalar(place_of(tree, ("parameters", name)), name, name)


def _text(value: Plain | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type_of(parameter: Parameter, spot: Spot) -> str:
    for value in (parameter.default, *parameter.choices, parameter.min, parameter.max):
        if isinstance(value, float):
            spot.wrong(f"is {value}, which is no whole number", "a whole number, or a text in quotes")
        if value is not None:
            return "flag" if isinstance(value, bool) else "number" if isinstance(value, int) else "text"
    return "text"


def _check(spot: Spot, kind: str, parameter: Parameter, text: str, which: str) -> None:
    """That `text` is one of its values. which: what cannot be, with {} for the text."""

    def wrong(reason: str) -> NoReturn:
        spot.wrong(f"cannot {which.format(repr(shorten(text)))}: {reason}", _allowed(kind, parameter))

    if len(text) > LENGTH_MAX:
        wrong(f"it has {len(text)} characters, {LENGTH_MAX} are the most")
    if any(ord(character) < 32 for character in text):
        wrong("it has a control character in it")
    try:
        measure = _measure(kind, text)
    except ValueError as error:
        wrong(str(error))
    for bound, value in (("min", parameter.min), ("max", parameter.max)):
        limit = _limit(spot, kind, bound, value)
        if limit is not None and (measure < limit if bound == "min" else measure > limit):
            wrong(f"its {bound} is {_text(value)}")
    if parameter.choices and text not in map(_text, parameter.choices):
        wrong(f"it is none of its choices{meant(text, map(_text, parameter.choices))}")


def _limit(spot: Spot, kind: str, bound: str, value: Plain | None) -> int | None:
    if value is None:
        return None
    if kind in ("text", "flag"):
        spot.wrong(f"has a {bound}, which says nothing of a {kind}", "type: number, size or duration, or choices")
    try:
        return _measure(kind, _text(value))
    except ValueError as error:
        spot.wrong(f"cannot have {shorten(_text(value))!r} as its {bound}: {error}", _WORDS[kind])


def _measure(kind: str, text: str) -> int:
    """What is compared; 0 for what has no order. Raises ValueError for what is not of its kind."""
    match kind:
        case "number":
            if not text.removeprefix("-").isdecimal() or not text.isascii() or len(text) > 18:
                raise ValueError("it is no whole number")
            return int(text)
        case "size":
            return parse_size(text)
        case "duration":
            return parse_duration(text)
        case "flag" if text not in ("true", "false"):
            raise ValueError("it is neither true nor false")
    return 0


def _allowed(kind: str, parameter: Parameter) -> str:
    if parameter.choices:
        return "one of " + ", ".join(map(_text, parameter.choices))
    low = f", at least {_text(parameter.min)}" if parameter.min is not None else ""
    return _WORDS[kind] + low + (f", at most {_text(parameter.max)}" if parameter.max is not None else "")
