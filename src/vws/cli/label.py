"""`vws node label`: what requirements can ask of a node, said by its administrator.

Changes are written as they are in other tools that label machines: `+gpu` gives, `-gpu` takes away, `rack=r12` sets.
A word that begins with a hyphen is a change here and no option, which is why the options of this command are long.
"""

from __future__ import annotations

import re
from typing import Any

import click

from vws.cli import output
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options

Json = dict[str, Any]
WRITE = "write +gpu to give a label, -gpu to take a label or an attribute away, rack=r12 to set an attribute"
WHOLE = re.compile(r"[-+]?[0-9]{1,19}")


class ChangesCommand(click.Command):
    """A command among whose words are some like `-old`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" not in args:
            taken = [word for word in args if word != "-h" and re.match(r"-[^-]", word)]
            args = [word for word in args if word not in taken] + (["--", *taken] if taken else [])
        return super().parse_args(ctx, args)


def read_changes(words: tuple[str, ...]) -> Json:
    """{"labels", "attributes", "remove"} as the words say; UsageError for one that says nothing."""
    labels, attributes, remove = [], {}, []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name and not name.startswith(("+", "-")):
            attributes[name] = read_value(value)
        elif word.startswith("+") and len(word) > 1 and not equals:
            labels.append(word[1:])
        elif word.startswith("-") and len(word) > 1 and not equals:
            remove.append(word[1:])
        else:
            raise click.UsageError(f"{word!r} is not a change; {WRITE}")
    both = sorted({*labels, *attributes} & set(remove))
    if both:
        raise click.UsageError(f"{both[0]} is given and taken away at once; say one of them")
    return {"labels": labels, "attributes": attributes, "remove": remove}


def read_value(text: str) -> str | int:
    """A whole number if it looks like one; in double quotes it is a text whatever it looks like."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    return int(text) if WHOLE.fullmatch(text) else text


def shown_attributes(n: Json) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(n["attributes"].items()))


@click.command(cls=ChangesCommand)
@site_options
@click.argument("node", metavar="NODE", type=NAME)
@click.argument("changes", metavar="CHANGE...", type=NAME, nargs=-1, required=True)
@pass_session
def label(session: Session, node: str, changes: tuple[str, ...]) -> None:
    """Give labels and attributes to a node, or take them away.

    Leases can require them: --require '"gpu" in labels and rack == "r12"'. What a node's own configuration says of it
    (site.toml there) stays as it is.

    \b
    Examples:
      vws node label host-1 +gpu +ssd rack=r12 disks=4
      vws node label host-1 -gpu -rack
      vws node label host-1 'serial="0042"'           a text, not a number
    """
    change = read_changes(changes)
    after = session.client.label_node(node, **change)
    if session.as_json:
        output.print_json(after)
        return
    labels = ", ".join(after["labels"]) or "none"
    click.echo(f"{after['name']}: labels {labels}; attributes {shown_attributes(after) or 'none'}.")
