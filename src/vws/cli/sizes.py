"""Sizes and durations on the command line: core/quantities.py reads and shows them, here they are made options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from vws.core.quantities import parse_bandwidth as parse_bandwidth
from vws.core.quantities import parse_duration as parse_duration
from vws.core.quantities import parse_size as parse_size
from vws.core.quantities import show_bytes as show_bytes
from vws.core.quantities import show_size as show_size
from vws.core.spans import show_duration as show_duration


class Measure(click.ParamType[int]):
    """A number that people write with a unit, as `parse` reads it."""

    def __init__(self, name: str, parse: Callable[[str], int]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE = Measure("size", parse_size)
BANDWIDTH = Measure("bandwidth", parse_bandwidth)
DURATION = Measure("duration", parse_duration)
