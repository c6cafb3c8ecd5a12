"""`--set NAME=VALUE`: the parameters of a cluster file."""

from __future__ import annotations

import click

set_option = click.option(
    "--set", "given", multiple=True, metavar="NAME=VALUE", help="A parameter of the file; repeatable."
)


def parameters_of(given: tuple[str, ...]) -> dict[str, str]:
    """The values by name; UsageError for what says none."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--set {text} says no value; write --set NAME=VALUE")
        if name in found:
            raise click.UsageError(f"--set says {name} twice")
        found[name] = value
    return found
