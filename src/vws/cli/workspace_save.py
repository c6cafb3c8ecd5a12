"""`vws workspace save` and `saves`: workspaces that become images."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from vws.cli import output, progress
from vws.cli.failures import Failed, failed
from vws.cli.image_trust import next_with
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import DURATION, show_bytes

Json = dict[str, Any]

COLUMNS: list[output.Column] = [
    ("IMAGE", lambda s: _called(s)),
    ("STATE", lambda s: output.state(s["state"])),
    ("WHEN", lambda s: "end" if s["at_end"] else "now"),
    ("WORKSPACE", lambda s: s["workspace"]),
    ("ASKED FOR", lambda s: output.moment(s["asked_at"])),
    ("ID", lambda s: s["image"]),
    ("NOTE", lambda s: s["reason"]),
]


def _called(save: Json) -> str:
    return str(save["name"]) if save["tag"] == "latest" else f"{save['name']}:{save['tag']}"


@click.command()
@site_options
@click.option("--as", "called", required=True, metavar="NAME[:TAG]", help="What the image is called.")
@click.option(
    "--when", type=click.Choice(["now", "end"]), default="now", help="As it is now, or at its end.  [default: now]"
)
@click.option("--uncleaned", is_flag=True, help="Leave host keys, machine id, secrets and logs in it.")
@click.option("--wait/--no-wait", default=True, help="Wait until the image is there (of --when now).  [default: wait]")
@click.option(
    "--timeout", "timeout_s", type=DURATION, default="15m", metavar="DURATION", help="How long.  [default: 15m]"
)
@click.argument("name", metavar="WORKSPACE", type=NAME)
@pass_session
def save(
    session: Session, name: str, called: str, when: str, uncleaned: bool, wait: bool, timeout_s: int
) -> None:  # fmt: skip
    """Let a workspace become an image of yours: what it changed on its disk, kept as a delta on its image.

    It goes on running but for a rest of under a second. What a program has not written to the disk yet is not in it:
    run `sync` in the workspace before. ssh host keys, machine id, secrets and logs are taken out, so that workspaces
    of the image differ.

    \b
    Examples:
      vws workspace save demo-1 --as mine
      vws workspace save demo-1 --as mine:2026-11 --when end
    """
    client, start = session.client, time.time()
    asked = client.save_workspace(client.workspace(name)["id"], called, at_end=when == "end", clean=not uncleaned)
    seen = _wait(session, asked, name, timeout_s) if wait and when == "now" else asked
    if session.as_json:
        output.print_json(seen)
    elif seen["state"] == "done":
        size = show_bytes(_disk(client.image(seen["image"]))["size_bytes"])
        took = time.time() - start
        click.echo(f"{name} is the image {_called(seen)} after {took:.1f} s: {size} on its base ({seen['image']}).")
        click.echo(next_with(session, _called(seen)))
    else:
        click.echo(f"{name} will be saved as {_called(seen)}" + (" when it ends." if seen["at_end"] else "."))


def _disk(image: Json) -> Json:
    return next(file for file in image["files"] if file["role"] == "disk")


def _wait(session: Session, asked: Json, name: str, timeout_s: float) -> Json:
    def look() -> list[Json]:
        return [session.client.save(asked["id"])]

    def verdict(seen: list[Json]) -> Failed | bool:
        if seen[0]["state"] == "failed":
            return failed(
                f"{name} was not saved: {seen[0]['reason']}",
                code="save-failed",
                kept="the workspace is as it was, and no image was made",
                next_step="what the reason says; vws workspace saves",
            )
        return bool(seen[0]["state"] == "done")

    def late() -> Failed:
        return progress.timed_out(f"{name} is still being saved", timeout_s, "vws workspace saves")

    return _polled(look, verdict, timeout_s, late)[0]


def _polled(
    look: Callable[[], list[Json]], verdict: Callable[[list[Json]], Failed | bool], timeout_s: float,
    late: Callable[[], Failed],
) -> list[Json]:  # fmt: skip
    until, pause_s, look_again = time.monotonic() + timeout_s, 0.1, progress.patient(look)
    while time.monotonic() < until:
        seen = look_again()
        said = seen is not None and verdict(seen)
        if isinstance(said, Failed):
            raise said
        if said and seen:
            return seen
        time.sleep(pause_s)
        pause_s = min(1.3 * pause_s, 1.0)
    raise late()


@click.command()
@site_options
@click.option("--all", "everything", is_flag=True, help="Those that are over too.")
@click.argument("name", metavar="[WORKSPACE]", type=NAME, required=False)
@pass_session
def saves(session: Session, everything: bool, name: str | None) -> None:
    """List the saves that are due: of a workspace, or all of yours.

    \b
    Examples:
      vws workspace saves
      vws workspace saves demo-1 --all
    """
    where = {"workspace": session.client.workspace(name)["id"]} if name else {}
    found = list(session.client.saves(live=not everything, **where))
    output.listing(found, COLUMNS, as_json=session.as_json, empty="Nothing is being saved.")
