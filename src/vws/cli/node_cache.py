"""`vws node cache list|prefetch|clear`: what nodes hold of images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from vws.cli import output, progress
from vws.cli.failures import Failed, failed
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import DURATION, show_bytes, show_duration

Json = dict[str, Any]

COLUMNS: list[output.Column] = [
    ("NODE", lambda f: f["node_name"]),
    ("IMAGE", lambda f: ", ".join(f["images"])),
    ("ROLE", lambda f: f["role"]),
    ("STATE", lambda f: shown_state(f)),
    ("ON DISK", lambda f: show_bytes(f["disk_bytes"])),
    ("SIZE", lambda f: show_bytes(f["size_bytes"]) if f["size_bytes"] else ""),
    ("USED BY", lambda f: ", ".join(f["used_by"]) or ("planned leases" if f["wanted"] else "")),
    ("LAST USED", lambda f: last_used(f["used_at"])),
    ("SHA256", lambda f: f["sha256"][:12]),
    ("NOTE", lambda f: note(f)),
]


@click.group()
def cache() -> None:
    """What nodes hold of images: each keeps what it booted from, up to a limit, the longest unused going first.

    \b
    Examples:
      vws node cache list
      vws node cache prefetch host-2 debian
      vws node cache clear host-2 --unused
    """


@cache.command("list")
@site_options
@click.argument("name", metavar="[NODE]", type=NAME, required=False)
@pass_session
def list_cache(session: Session, name: str | None) -> None:
    """List what is in a node's image cache, or in those of all nodes, and who uses it.

    \b
    Examples:
      vws node cache list
      vws node cache list host-2 --json | jq '.[] | select(.used_by == [])'
    """
    caches = [session.client.cache(name)] if name else list(session.client.caches())
    files = [file | {"node": c["node"], "node_name": c["node_name"]} for c in caches for file in c["files"]]
    output.listing(files, COLUMNS, as_json=session.as_json, empty="Nothing is cached.")
    if not session.as_json:
        for each in caches if files else []:
            click.echo(summary(each))


def summary(found: Json) -> str:
    share = f"{show_bytes(found['used_bytes'])} of {show_bytes(found['limit_bytes'])}"
    limit = f", fetching at most {found['fetch_limit_mbit']:g} Mbit/s" if found["fetch_limit_mbit"] else ""
    return f"{found['node_name']}: {share} in {output.plural(len(found['files']), 'file')}{limit}"


def shown_state(file: Json) -> str:
    percent = f" {100 * file['have_bytes'] // file['size_bytes']} %" if file["size_bytes"] else ""
    return str(file["state"]) + (percent if file["state"] in ("arriving", "partial") else "")


def last_used(at: float) -> str:
    """Nodes tell it to the minute."""
    if not at:
        return ""
    ago_s = max(0.0, time.time() - at) // 60 * 60
    return f"{show_duration(ago_s)} ago" if ago_s else "just now"


def note(file: Json) -> str:
    altered = f"one was altered here, {output.until(file['altered_at'])}, and replaced" if file["altered_at"] else ""
    return "; ".join(filter(None, (file["reason"], altered)))


# ---------------------------------------------------------------- asking


def waited(command: Any) -> Any:
    for option in (
        click.option(
            "--timeout", "timeout_s", type=DURATION, default="30m", metavar="DURATION", help="How long.  [default: 30m]"
        ),
        click.option("--wait/--no-wait", default=True, help="Wait until the node has done it.  [default: wait]"),
    ):
        command = option(command)
    return command


@cache.command()
@site_options
@waited
@click.argument("name", metavar="NODE", type=NAME)
@click.argument("image", metavar="IMAGE", type=NAME)
@pass_session
def prefetch(session: Session, name: str, image: str, wait: bool, timeout_s: int) -> None:
    """Have an image on a node before anybody needs it.

    Images of leases that are planned on a node come by themselves. What workspaces need at once comes first, and
    nothing that is in use is dropped for it.

    \b
    Examples:
      vws node cache prefetch host-2 debian
      vws node cache prefetch host-2 debian:12.5 --no-wait
    """
    start, task = time.monotonic(), session.client.prefetch_image(name, image)
    if not wait:
        _tell(session, task, f"{name} will fetch {image}.")
        return
    seen = _until_over(session, name, task, timeout_s, lambda found: arrived(found, task))
    took = f" after {time.monotonic() - start:.1f} s" if task["state"] == "due" else " already"
    _tell(session, seen, f"{name} has {image}{took}.")


def arrived(found: Json, task: Json) -> str:
    """How much of a task's files is there, in words."""
    files = [file for file in found["files"] if file["sha256"] in task["files"]]
    have = sum(file["size_bytes"] if file["state"] == "complete" else file["have_bytes"] for file in files)
    size = sum(file["size_bytes"] for file in files)
    here = sum(file["state"] == "complete" for file in files)
    percent = f"{100 * have // size} % of {show_bytes(size)}" if size else "waiting"
    return f"{percent}, {here} of {output.plural(len(task['files']), 'file')} complete"


@cache.command()
@site_options
@waited
@click.option("--unused", is_flag=True, help="All that is unused, instead of an image.")
@click.argument("name", metavar="NODE", type=NAME)
@click.argument("image", metavar="[IMAGE]", type=NAME, required=False)
@pass_session
def clear(session: Session, name: str, image: str | None, unused: bool, wait: bool, timeout_s: int) -> None:
    """Drop an image, or all that is unused, from a node's cache. What workspaces use or planned leases need stays.

    \b
    Examples:
      vws node cache clear host-2 --unused
      vws node cache clear host-2 debian:11
    """
    if bool(image) == unused:
        both = ", not both" if image else ""
        raise click.UsageError(f"name an image, or say --unused for all that nobody uses{both}")
    task = session.client.clear_cache(name, image)
    if not wait:
        _tell(session, task, f"{name} will clear {image or 'what is unused'}.")
        return
    seen = _until_over(session, name, task, timeout_s, lambda found: "waiting for the node")
    _tell(session, seen, "\n".join(cleared(name, seen, session.client.cache(name)["files"] if seen["kept"] else [])))


def cleared(name: str, task: Json, files: list[Json]) -> Iterator[str]:
    """files: what is in the cache now."""
    freed = show_bytes(task["freed_bytes"]) if task["dropped"] else "nothing"
    yield f"{name} freed {freed}: {output.plural(len(task['dropped']), 'file')} dropped, {len(task['kept'])} kept."
    known = {file["sha256"]: file for file in files}
    for kept in task["kept"]:
        file = known.get(kept["sha256"], {"images": [], "role": "", "used_by": []})
        called = " ".join((*file["images"], file["role"])).strip() or "file"
        by = f" ({', '.join(file['used_by'])})" if file["used_by"] else ""
        yield f"  kept {called} {kept['sha256'][:12]}: {kept['reason']}{by}"


def _tell(session: Session, task: Json, sentence: str) -> None:
    if session.as_json:
        output.print_json(task)
    else:
        click.echo(sentence)


def _until_over(session: Session, name: str, task: Json, timeout_s: float, doing: Callable[[Json], str]) -> Json:
    """The task once it is over, its progress on stderr every now and then. Raises Failed with the reason why not."""
    until, pause_s, said = time.monotonic() + timeout_s, 0.1, ""
    look_again = progress.patient(lambda: [session.client.cache(name)])
    told_at = time.monotonic()
    while time.monotonic() < until:
        found = look_again()
        seen = next((each for each in found[0]["tasks"] if each["id"] == task["id"]), task) if found else task
        if seen["state"] == "failed":
            raise _failed(name, seen)
        if seen["state"] == "done":
            return seen
        now = doing(found[0]) if found else said
        if now != said and time.monotonic() - told_at > 2:
            said, told_at = now, time.monotonic()
            click.echo(f"  {now}", err=True)
        time.sleep(pause_s)
        pause_s = min(1.3 * pause_s, 1.0)
    raise progress.timed_out(f"{name} is not done yet", timeout_s, f"vws node cache list {name}")


def _failed(name: str, task: Json) -> Failed:
    return failed(
        f"{name} does not have {task['image_name']}: {task['reason']}",
        code="prefetch-failed",
        kept="what the node held that is in use or wanted; what had come goes on when it is asked for again",
        next_step=f"what the reason says; vws node cache list {name}",
    )
