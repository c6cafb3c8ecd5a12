"""Values to JSON and back, for the link between service and nodes and for the store.

Dataclasses become objects, tuples arrays, enums their values. Reading is strict:
a missing, unknown or wrongly typed field raises InvalidRequest with its path, so
that neither side ever acts on half a message. Unknown fields are refused too:
both ends of the link carry the same version number in `NodeReport.version`.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

from vws.core.errors import InvalidRequest

T = TypeVar("T")
FLOAT_MAX = 1e300
# The subprotocol of a tunnel whose node's end sends an empty message every so many seconds.
TUNNEL_BEATS = "vws-beats"
BEAT_S = 15.0


def to_json(value: Any) -> Any:
    """`value` as dicts, lists, strings, numbers, booleans and None."""
    if is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], data: Any, where: str = "") -> T:
    """A `kind` read from `data`, or InvalidRequest naming the field in error."""
    shape: Any = kind
    return typing.cast(T, _reader(shape)(data, where or kind.__name__))


def _wrong(where: str, data: Any, expected: str) -> InvalidRequest:
    return InvalidRequest(f"{where} is not {expected}", field=where, asked=str(data)[:60], possible=expected)


Reader = Callable[[Any, str], Any]


@functools.cache
def _reader(kind: Any) -> Reader:
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_reader(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum_reader(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return _tuple_reader(_reader(arguments[0]))
    if origin in (types.UnionType, typing.Union):
        if type(None) not in arguments:
            return _either_reader([_reader(a) for a in arguments])
        inner = next(a for a in arguments if a is not type(None))
        return _optional_reader(_reader(inner))
    if origin is dict:
        return _plain_reader(dict, "an object") if arguments[1] is Any else _dict_reader(_reader(arguments[1]))
    return _scalar_reader(kind)


def _scalar_reader(kind: Any) -> Reader:
    if kind is float:
        return _float_reader
    if kind is int:
        return _int_reader
    return _plain_reader(kind, {str: "a string", bool: "true or false"}[kind])


def _plain_reader(kind: type, expected: str) -> Reader:
    def read(data: Any, where: str) -> Any:
        if type(data) is not kind:
            raise _wrong(where, data, expected)
        return data

    return read


def _int_reader(data: Any, where: str) -> int:
    """What a database's bigint holds."""
    if type(data) is not int or not -(1 << 63) <= data < 1 << 63:
        raise _wrong(where, data, "a whole number of 64 bits")
    return data


def _float_reader(data: Any, where: str) -> float:
    # JSON has no infinity, but 1e999 is read as one.
    if type(data) not in (int, float) or not -FLOAT_MAX <= data <= FLOAT_MAX:
        raise _wrong(where, data, "a finite number")
    return float(data)


def _enum_reader(kind: type[Enum]) -> Reader:
    def read(data: Any, where: str) -> Enum:
        try:
            return kind(data)
        except ValueError:
            raise _wrong(where, data, "one of " + ", ".join(str(m.value) for m in kind)) from None

    return read


def _tuple_reader(item: Reader) -> Reader:
    def read(data: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(data, list):
            raise _wrong(where, data, "an array")
        return tuple(item(value, f"{where}[{i}]") for i, value in enumerate(data))

    return read


def _dict_reader(item: Reader) -> Reader:
    def read(data: Any, where: str) -> Any:
        if not isinstance(data, dict):
            raise _wrong(where, data, "an object")
        return {name: item(value, f"{where}.{name}") for name, value in data.items()}

    return read


def _optional_reader(inner: Reader) -> Reader:
    def read(data: Any, where: str) -> Any:
        return None if data is None else inner(data, where)

    return read


def _either_reader(inner: list[Reader]) -> Reader:
    def read(data: Any, where: str) -> Any:
        expected = []
        for each in inner:
            try:
                return each(data, where)
            except InvalidRequest as error:
                expected.append(error.possible or "")
        raise _wrong(where, data, " or ".join(expected))

    return read


def _dataclass_reader(kind: Any) -> Reader:
    hints = typing.get_type_hints(kind)
    readers = {f.name: _reader(hints[f.name]) for f in fields(kind)}
    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}

    def read(data: Any, where: str) -> Any:
        if not isinstance(data, dict):
            raise _wrong(where, data, "an object")
        for name in data:
            if name not in readers:
                raise _wrong(f"{where}.{name}", data[name], "a known field")
        for name in sorted(required - data.keys()):
            raise _wrong(f"{where}.{name}", None, "given")
        return kind(**{name: readers[name](value, f"{where}.{name}") for name, value in data.items()})

    return read
