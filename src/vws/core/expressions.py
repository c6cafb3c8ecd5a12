"""Expressions over what a node says of itself: their parts, what each is worth, and why it does not hold.

A node need not define what an expression names, so a value may be UNDEFINED and logic has three values, as in the
ClassAds of HTCondor (its manual, "ClassAd evaluation semantics"): every operator gives UNDEFINED for an UNDEFINED
operand, but `and` with something false is false, and `or` with something true is true, whatever the rest is. Only what
is true holds. ClassAds have a second such value, ERROR, for `10 * "a"`; here that is UNDEFINED too, as neither ever
holds. Texts are compared letter by letter, where ClassAds' `==` takes "A" for "a".

Where all names are defined, an expression is worth what Python would say; the tests compare the two. Parts are objects
that know their values, not syntax that a function walks: one is asked of every node of a site.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

Attributes = Mapping[str, Any]


class Undefined:
    """The type of UNDEFINED: neither true nor false, and equal to nothing that a node can say."""

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED: Final = Undefined()


class Part(Protocol):
    """A part of an expression. `source`: the part as it was written."""

    @property
    def source(self) -> str: ...

    @property
    def parts(self) -> tuple[Part, ...]: ...

    def value(self, attributes: Attributes) -> Any:
        """Its value for a node with these attributes, or UNDEFINED. Raises nothing."""
        ...


def truth(value: Any) -> Any:
    """What `value` means to `and`, `or` and `not`: True, False or UNDEFINED. A number means whether it is not 0."""
    if value is True or value is False or value is UNDEFINED:
        return value
    return bool(value) if isinstance(value, (int, float)) else UNDEFINED


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, a text, a truth value, or a list of numbers and texts."""

    source: str
    constant: Any
    parts: tuple[Part, ...] = ()

    def value(self, attributes: Attributes) -> Any:
        return self.constant


@dataclass(frozen=True, slots=True)
class Name:
    """An attribute of the node."""

    source: str
    name: str
    parts: tuple[Part, ...] = ()

    def value(self, attributes: Attributes) -> Any:
        return attributes.get(self.name, UNDEFINED)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Of two numbers; of one, when the other part is the constant 0 (`-x` is `0 - x`)."""

    source: str
    parts: tuple[Part, Part]
    work: Callable[[Any, Any], Any]

    def value(self, attributes: Attributes) -> Any:
        left, right = self.parts[0].value(attributes), self.parts[1].value(attributes)
        # A text times a number is a long text in Python.
        if not (_is_number(left) and _is_number(right)):
            return UNDEFINED
        try:
            return self.work(left, right)
        except OverflowError:  # a whole number too large to be multiplied with a broken one
            return UNDEFINED


def _contains(item: Any, group: Any) -> Any:
    return operator.contains(group, item)


def _lacks(item: Any, group: Any) -> Any:
    return not operator.contains(group, item)


COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": _contains,
    "not in": _lacks,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left compared right`; a chain of them is an `AllOf`."""

    source: str
    parts: tuple[Part, Part]
    compared: str
    work: Callable[[Any, Any], Any]

    def value(self, attributes: Attributes) -> Any:
        left, right = self.parts[0].value(attributes), self.parts[1].value(attributes)
        if left is UNDEFINED or right is UNDEFINED:
            return UNDEFINED
        try:
            return self.work(left, right)
        except TypeError:  # things that have no order, or no members
            return UNDEFINED


@dataclass(frozen=True, slots=True)
class Not:
    source: str
    parts: tuple[Part]

    def value(self, attributes: Attributes) -> Any:
        inner = truth(self.parts[0].value(attributes))
        return UNDEFINED if inner is UNDEFINED else not inner


@dataclass(frozen=True, slots=True)
class AllOf:
    """`and`: false if any part is false, else UNDEFINED if any is."""

    source: str
    parts: tuple[Part, ...]

    def value(self, attributes: Attributes) -> Any:
        return _first_settled(self.parts, attributes, settles=False)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """`or`: true if any part is true, else UNDEFINED if any is."""

    source: str
    parts: tuple[Part, ...]

    def value(self, attributes: Attributes) -> Any:
        return _first_settled(self.parts, attributes, settles=True)


def _first_settled(parts: tuple[Part, ...], attributes: Attributes, *, settles: bool) -> Any:
    """`settles` if any part is that; UNDEFINED if none is but one is undefined; else the opposite."""
    result: Any = not settles
    for part in parts:
        found = truth(part.value(attributes))
        if found is settles:
            return settles
        if found is UNDEFINED:
            result = UNDEFINED
    return result


def holds(part: Part, attributes: Attributes) -> bool:
    return truth(part.value(attributes)) is True


def names_in(part: Part) -> Iterator[str]:
    """The attributes that it names, in their order, repeats included."""
    if isinstance(part, Name):
        yield part.name
    for inner in part.parts:
        yield from names_in(inner)


# ---------------------------------------------------------------- why not

# What one member of such a list is called.
MEMBERS: Final = {"labels": "label", "accelerators": "accelerator"}


def reasons(part: Part, attributes: Attributes) -> Iterator[str]:
    """Why the part does not hold, each a clause about "it", the node. Nothing if it holds."""
    if holds(part, attributes):
        return
    if isinstance(part, AllOf):
        for inner in part.parts:
            yield from reasons(inner, attributes)
    elif isinstance(part, AnyOf):
        inside = (" and ".join(reasons(inner, attributes)) for inner in part.parts)
        yield "; ".join(inside) + " (one of these would do)"
    elif isinstance(part, Comparison):
        yield _why_not_compared(part, attributes)
    else:
        yield _seen(part, attributes)


def _why_not_compared(part: Comparison, attributes: Attributes) -> str:
    left, right = part.parts
    if isinstance(left, Constant) and isinstance(right, Name) and right.name in MEMBERS:
        member = f"{MEMBERS[right.name]} {left.constant}"
        if right.name in attributes and part.compared == "in":
            return f"it has no {member}"
        if right.name in attributes and part.compared == "not in":
            return f"it has the {member}"
    return _seen(part, attributes)


def _seen(part: Part, attributes: Attributes) -> str:
    """What the node has of all that the part names, and what was asked."""
    named = list(dict.fromkeys(names_in(part)))
    lacking = [name for name in named if name not in attributes]
    if lacking:
        return f"it does not say {' or '.join(lacking)}, where {part.source} is asked for"
    have = " and ".join(f"{name} {'are' if name in MEMBERS else 'is'} {_shown(attributes[name])}" for name in named)
    return f"its {have}, where {part.source} is asked for" if have else f"{part.source} is never true"


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
