"""Every way a command can fail, told the same way: what was wrong, what was kept, what to do next.

Refusals come from the service as problems (RFC 9457) with members: the field,
what was asked, what would be possible, the reason per node, the nearest offers.
They are shown member by member rather than as one long sentence. With `--json`
the problem itself goes to stderr as one object, so that a program reads the
same members.

Exit status: 1 for what is refused or failed, 2 (click's own) for a command line
that cannot be understood.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click

from vws.cli.offers import Options, offer_facts, options_of
from vws.cli.output import print_json
from vws.cli.times import show_time
from vws.cli.wording import Wording

NAMED_MAX = 4
# Fields that are times, which people do not read as seconds.
TIMES = ("start", "deadline", "until")
NOTHING_CHANGED = "nothing was changed"
KEPT = {
    "invalid-request": NOTHING_CHANGED,
    "not-found": NOTHING_CHANGED,
    "forbidden": NOTHING_CHANGED,
    "conflict": NOTHING_CHANGED,
    "command-refused": NOTHING_CHANGED,
    "name-taken": NOTHING_CHANGED,
    "in-use": NOTHING_CHANGED,
    "client-token-reused": NOTHING_CHANGED,
    "duplicate-node": NOTHING_CHANGED,
    "cannot-fit": "nothing was leased",
    "image-refused": "nothing was leased",
    "limit-reached": NOTHING_CHANGED,
    "too-large": NOTHING_CHANGED,
    "unavailable": "what is leased goes on; nodes need no service to keep workspaces running and to end them in time",
    "unreachable": "what is leased goes on; nodes need no service to keep workspaces running and to end them in time",
}
NEXT = {
    "unauthenticated": "name the site's directory (--dir DIR or VWS_DIR), or set VWS_TOKEN to a token of this site "
    "(its administrator makes one: vws token create NAME)",
    "forbidden": "ask for it as its owner, or with a token of role admin",
    "not-found": "vws lease list --all, vws workspace list --all, vws image list and vws node list show what there is",
    "unavailable": "try again; vws site status says what runs on the site's own machine",
    "unreachable": "vws site status says what runs, vws site start starts it; check VWS_URL if the site is elsewhere",
    "untrusted": "name the certificate of the site's own authority: VWS_CA=FILE (it is ca.crt in the site's directory)",
    "too-large": "send less, or ask the site's administrator for a higher limit",
}


class Failed(click.ClickException):
    """Exit status 1. `problem`: its members, `code` and `detail` always among them.

    kept, next_step: override what the problem's code says of them.
    """

    exit_code = 1

    def __init__(self, problem: dict[str, Any], *, kept: str = "", next_step: str = "", as_json: bool = False) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or "it failed, for a reason unknown"))
        self.problem = problem
        self.kept = kept or _kept(problem)
        # Who refuses often knows what is possible better than this table does.
        self.next_step = next_step or ("" if problem.get("possible") else NEXT.get(str(problem.get("code")), ""))
        self.as_json = as_json
        self.options: Options | None = None  # of the command that was refused, for the offers
        self.wording = Wording()

    def show(self, file: Any = None) -> None:
        if self.as_json:
            print_json(self.problem | {"kept": self.kept or None, "next": self.next_step or None}, err=True)
        else:
            click.echo("\n".join(self.lines()), err=True)

    def lines(self) -> list[str]:
        lines = [click.style("Error: ", fg="red") + one_line(self.wording.sentence(self.message))]
        told = [(name, value) for name, value in self._facts() if value not in (None, "", [])]
        return lines + [f"  {one_line(name)}: {one_line(value)}" for name, value in told]

    def _facts(self) -> list[tuple[str, Any]]:
        problem, wording = self.problem, self.wording
        # What the sentence begins with, or says as a word of its own, needs no line.
        field = None if re.match(_word(problem.get("field")), self.message) else wording.field(problem.get("field"))
        asked = None if re.search(_word(problem.get("asked")), self.message) else problem.get("asked")
        asked = show_time(asked) if problem.get("field") in TIMES and isinstance(asked, int) else asked
        # The offers are what is possible, one by one.
        possible = None if problem.get("offers") else problem.get("possible")
        possible = wording.sentence(possible) if isinstance(possible, str) else possible
        # A limit is named as the site's configuration has it, and an option says its own name.
        kind = "limit" if problem.get("limit") == field else "option" if (field or "").startswith("-") else "field"
        facts = [(kind, field), ("asked", asked), ("possible", possible)]
        facts += by_reason("node", problem.get("nodes") or ())
        facts += by_reason("workspace", problem.get("workspaces") or ())
        offers = problem.get("offers") or ()
        facts += offer_facts(offers, self.options or partial(options_of, wording=wording))
        return [*facts, ("kept", self.kept), ("next", self.next_step)]


def _word(value: Any) -> str:
    """A pattern for `value` where it is not a part of a longer word or number."""
    return rf"(?<![\w.-]){re.escape(str(value))}(?![\w-]|\.\w)"


def one_line(value: Any) -> str:
    """`value` as a line of a terminal may hold it: what was asked, and what guests and nodes said, may be anything."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def _kept(problem: dict[str, Any]) -> str:
    code = str(problem.get("code"))
    # What is refused for lack of room is a request, or a change of a lease that goes on.
    return NOTHING_CHANGED if (code, problem.get("field")) == ("cannot-fit", "lease") else KEPT.get(code, "")


def failed(sentence: str, *, kept: str = "", next_step: str = "", code: str = "failed", **members: Any) -> Failed:
    """A failure found on this side of the connection."""
    return Failed({"code": code, "detail": sentence} | members, kept=kept, next_step=next_step)


def check_writable(path: Path) -> None:
    """Before the work whose result goes there. Raises Failed."""
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise failed(
            f"{path} cannot be written: {path.parent} is no directory that can be written",
            code="unwritable",
            kept="nothing was made",
            next_step=f"mkdir -p {path.parent}" if not path.parent.exists() else "another FILE",
        )


def by_reason(noun: str, things: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """(names, their reason): those that say the same in one line, for a site may have hundreds."""
    names: dict[str, list[str]] = {}
    for thing in things:
        names.setdefault(str(thing.get("reason")), []).append(str(thing.get("name") or thing.get(noun)))
    return [(_named(noun, those), reason) for reason, those in names.items()]


def _named(noun: str, names: list[str]) -> str:
    if len(names) == 1:
        return f"{noun} {names[0]}"
    if len(names) <= NAMED_MAX:
        return f"{noun}s {', '.join(names)}"
    return f"{noun}s {names[0]} to {names[-1]} ({len(names)})" if names == sorted(names) else f"{len(names)} {noun}s"


def failure_of(error: Exception) -> Failed | None:
    """What VWS's own errors and the system's say, as a failure; None for what nobody foresaw."""
    if isinstance(error, Failed):
        return error
    if hasattr(error, "code") and hasattr(error, "possible"):
        return Failed(_problem_of(error))
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return failed(f"{where}{error.strerror}")
    return None


def _problem_of(error: Any) -> dict[str, Any]:
    """The members of a VwsError or of what `vws.client` raises."""
    raw = getattr(error, "members", None) or {}
    named = {name: getattr(error, name, None) for name in ("code", "field", "asked", "possible")}
    details = getattr(error, "details", None) or {}
    return {"detail": str(error)} | dict(raw) | named | dict(details)
