"""How far a cluster is, in words; and waiting for it, which never owns what it waits for.

A wait ends in one of three ways: the cluster is as wanted, it will not be so by itself, or the time given is over. The
last two are failures of the command and of nothing else: each says what goes on, and how to look at it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from vws.cli.context import progress_of
from vws.cli.failures import Failed, one_line
from vws.cli.progress import timed_out
from vws.cli.session import Session

Json = dict[str, Any]

LOOK_AGAIN_S = 0.5
# Nothing changes any more by itself.
OVER = ("failed", "ended", "ending", "degraded")
# What was wrong before a change may take a moment to be told no more.
MENDED_WITHIN_S = 5.0
TAIL_LINES = 10
# Members whose failed hooks are shown: the others have mostly failed alike.
TAILS_MAX = 5


def line_of(found: Json) -> str:
    """How far it is, in one line."""
    running = sum(member["state"] == "running" for member in found["members"])
    ready = sum(member["context"] == "ready" for member in found["members"])
    counts = f"{running} of {len(found['members'])} running, {ready} configured" if found["members"] else "no members"
    why = f": {found['reason']}" if found["reason"] else ""
    return f"{found['name']} is {found['state']}; {counts}{why}"


# ---------------------------------------------------------------- waiting


def follow(session: Session, id: str, until: Callable[[Json], bool], timeout_s: float | None = None) -> Json:
    """Tell each change of a cluster until it is as wanted; that last one is the caller's to tell."""
    began, told = time.monotonic(), ""
    while True:
        found: Json = session.client.cluster(id)
        if until(found):
            return found
        line = line_of(found)
        if line != told and not session.as_json:
            click.echo(line, err=True)
            told = line
        if timeout_s is not None and time.monotonic() > began + timeout_s:
            raise timed_out(f"{line} still", timeout_s, f"vws cluster status {found['name']} --follow")
        time.sleep(LOOK_AGAIN_S)


def wait(session: Session, id: str, state: str, timeout_s: float, *, mended_within_s: float = 0.0) -> Json:
    """The cluster once it is in `state`. Raises Failed if it will not be, or is not in time.

    mended_within_s: so long it may still be told as it was before.
    """
    over_since: float | None = None

    def settled(found: Json) -> bool:
        nonlocal over_since
        if found["state"] == state:
            return True
        now = time.monotonic()
        over_since = (over_since or now) if found["state"] in OVER else None
        return over_since is not None and (found["state"] == "ended" or now >= over_since + mended_within_s)

    found = follow(session, id, settled, timeout_s)
    if found["state"] == state:
        return found
    raise Failed(
        {"code": f"cluster-not-{state}", "detail": f"{found['name']} is {found['state']}: {found['reason'] or '?'}"},
        kept="the cluster is there" if found["state"] != "ended" else "nothing is left of it",
        next_step=f"vws cluster status {found['name']}",
    )


# ---------------------------------------------------------------- members


def troubles(found: Json) -> Iterator[str]:
    """What is wrong with members that run, such as a disk that one could not format."""
    for member in found["members"]:
        if member["state"] == "running" and member["reason"]:
            yield f"  {member['name']}: {one_line(member['reason'])}"


def with_tails(session: Session, found: Json, members: list[Json]) -> list[Json]:
    """`members` of its context; each hook of theirs that ended badly with `log_tail`, the last lines of its output."""
    failed = [member for member in members if any(ran["status"] for ran in member["ran"])]
    for member in failed[:TAILS_MAX]:
        logs = session.client.context_log(found["context"], member["name"])["items"]
        ends = {(each["role"], each["side"], each["hook"]): each["log"] for each in logs}
        for ran in member["ran"]:
            log = ends.get((ran["role"], ran["side"], ran["hook"])) if ran["status"] else None
            if log is not None:
                ran["log_tail"] = log.rstrip("\n").split("\n")[-TAIL_LINES:]
    return members


def members_progress(found: Json, members: Iterable[Json]) -> Iterator[str]:
    """How far each is, in lines: members as `with_tails` gives them."""
    yield from troubles(found)
    for member in members:
        for line in progress_of(member):
            yield f"  {line}"
        tails = [ran["log_tail"] for ran in member["ran"] if "log_tail" in ran]
        for line in tails[-1] if tails else ():
            yield f"      | {one_line(line.replace(chr(9), '    '))}"
        if tails:
            yield f"    the whole log: vws cluster log {found['name']} {member['name']}"
