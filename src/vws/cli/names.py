"""The names and ids of things, as words of a command line.

An empty one is the slip of a script whose variable was never set. It names
nothing, and a command that took it for "none was given" would do more than was
asked: list everything, or make up a name.
"""

from __future__ import annotations

from typing import Any

import click


class Name(click.ParamType[str]):
    """A name or an id: any word but the empty one. What can be a name is the service's to say."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("a name cannot be empty", param, ctx)
        return str(value)


NAME = Name()
