"""`vws image tag|share|copy|history|verify|gc`: what images are called, whose they are, and whether they are whole."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from typing import Any

import click

from vws.cli import output
from vws.cli.failures import failed
from vws.cli.names import NAME
from vws.cli.progress import transfer
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import show_bytes

Json = dict[str, Any]

LOOK_S = 0.3
HISTORY_PAGE_MAX = 1000


def share_options(command: Any) -> Any:
    """Options that say who may use an image to be; `sharing` reads them."""
    share = click.option(
        "--share", "shared", multiple=True, metavar="VO", type=NAME, help="Who may use it, as in vws image share."
    )
    return share(click.option("--private", is_flag=True, help="Nobody but you and administrators may use it.")(command))


def sharing(shared: tuple[str, ...], private: bool) -> tuple[str, ...] | None:
    """None: nothing is said."""
    if private and shared:
        raise click.UsageError("say either --share VO or --private")
    return shared if shared or private else None


@click.command()
@site_options
@click.option("--remove", is_flag=True, help="Take the tag away from the image instead.")
@click.argument("name", metavar="IMAGE", type=NAME)
@click.argument("tag", metavar="NAME:TAG", type=NAME)
@pass_session
def tag(session: Session, name: str, tag: str, remove: bool) -> None:
    """Let NAME:TAG (NAME alone: NAME:latest) point at an image from now on.

    Leases that were granted by that name keep the image that they were granted for.

    \b
    Examples:
      vws image tag debian:12.5 debian:stable
      vws image tag debian:12.5 debian:stable --remove
    """
    found = session.client.image(name)
    if remove and session.client.image(tag)["id"] != found["id"]:
        raise failed(
            f"{tag} points at another image than {name}", code="conflict", kept="nothing was changed",
            next_step=f"vws image history {tag}",
        )  # fmt: skip
    changed = session.client.untag_image(tag) if remove else session.client.tag_image(found["id"], tag)
    _told(session, changed, f"image {changed['id']} is called {called(changed)}.")


@click.command()
@site_options
@click.option(
    "--with", "shared", multiple=True, metavar="VO", type=NAME, help="As often as needed; `public`: all users."
)
@click.option("--private", is_flag=True, help="With nobody.")
@click.argument("name", metavar="IMAGE", type=NAME)
@pass_session
def share(session: Session, name: str, shared: tuple[str, ...], private: bool) -> None:
    """Say who may use an image beside its owner: the VOs named, and nobody else.

    What was granted to others stays granted.

    \b
    Examples:
      vws image share debian --with cms --with atlas
      vws image share debian --with public
      vws image share debian --private
    """
    if private == bool(shared):
        raise click.UsageError("say either --with VO or --private")
    changed = session.client.share_image(session.client.image(name)["id"], shared)
    _told(session, changed, f"image {called(changed)} may be used by {shared_with(changed)}.")


@click.command()
@site_options
@click.argument("name", metavar="IMAGE", type=NAME)
@click.argument("new", metavar="NAME[:TAG]", type=NAME)
@click.option("--flat", is_flag=True, help="Of a delta: with a disk that stands alone, on nothing else.")
@pass_session
def copy(session: Session, name: str, new: str, flat: bool) -> None:
    """Have an image of your own with the files and documents of another user's, which stays when that one goes.

    Its files are not kept twice. What is yours already only gets another name, by `vws image tag`. With --flat a saved
    workspace, which is a delta on its image, becomes one disk again: another image, of which nothing is said but what
    it was made from. Who revokes that, revokes the copy.

    \b
    Examples:
      vws image copy debian:12 my-debian:12
      vws image copy mine:2 mine-alone --flat
    """
    found = session.client.image(name)
    copied = partial(session.client.copy_image, found["id"], new)
    made = _flattened(session, found, partial(copied, flat=True)) if flat and found["base"] else copied()
    _told(session, made, f"image {called(made)} ({made['id']}) is yours: {show_bytes(made['size_bytes'])}.")


def _flattened(session: Session, found: Json, copied: Callable[[], Json]) -> Json:
    """Shown while it goes on: it takes as long as its disk is large."""
    from vws.client.errors import VwsClientError

    with ThreadPoolExecutor(1) as beside, ExitStack() as shown:
        made, told = beside.submit(copied), None
        while not made.done():
            with suppress(VwsClientError):  # it has not begun, or is over
                far = session.client.flattening(found["id"])
                if told is None:
                    what = f"flattening {called(found)}"
                    told = shown.enter_context(transfer(what, far["most_bytes"], to_stderr=session.as_json))
                told(far["done_bytes"])
            wait([made], LOOK_S)
        return made.result()


COLUMNS: list[output.Column] = [
    ("TAG", lambda t: f"{t['name']}:{t['tag']}"),
    ("IMAGE", lambda t: t["image"]),
    ("SINCE", lambda t: output.moment(t["set_at"])),
    ("UNTIL", lambda t: "now" if t["removed_at"] is None else output.moment(t["removed_at"])),
    ("OWNER", lambda t: t["owner"]),
]


@click.command()
@site_options
@click.option("--last", metavar="NUMBER", type=click.IntRange(1), help="Only the newest so many.  [default: all]")
@click.argument("name", metavar="NAME[:TAG]", type=NAME)
@pass_session
def history(session: Session, name: str, last: int | None) -> None:
    """Show what a name points at, and what it pointed at before, the newest first.

    \b
    Examples:
      vws image history debian
      vws image history debian --last 20
      vws image history debian:stable --json
    """
    page = {} if last is None else {"limit": min(last, HISTORY_PAGE_MAX)}
    rows = list(islice(session.client.image_history(name, **page), None if last is None else min(last, sys.maxsize)))
    output.listing(rows, COLUMNS, as_json=session.as_json, empty=f"Nothing that you may use was called {name}.")


@click.command()
@site_options
@click.argument("names", metavar="[IMAGE]...", nargs=-1, type=NAME)
@pass_session
def verify(session: Session, names: tuple[str, ...]) -> None:
    """Have the site read an image's files and compare them with their sha256s; without a name, those of all your images
    (of an administrator: of all).

    A damaged image is granted to nobody until its file is imported again. The exit status is 1 if one is.

    \b
    Examples:
      vws image verify debian:12
      vws image verify
    """
    client = session.client
    looked = [client.verify_image(client.image(name)["id"]) for name in names] if names else _verified(client)
    bad = [image for image in looked if image["damaged"]]
    if session.as_json:
        output.print_json(looked)
    else:
        for image in looked:
            click.echo(f"{called(image)}: {image['damaged'] or 'as it came'}")
    if bad:
        raise click.exceptions.Exit(1)


def _verified(client: Any) -> list[Json]:
    """All but those that are another's."""
    from vws.client.errors import ApiError

    looked = list[Json]()
    for image in client.images():
        try:
            looked += [] if image["simulated"] else [client.verify_image(image["id"])]
        except ApiError as error:
            if error.code != "forbidden":
                raise
    return looked


@click.command()
@site_options
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@pass_session
def gc(session: Session, dry_run: bool) -> None:
    """Drop what nothing points at, now: images without a name that are old enough, and files of no image. The site does
    so by itself, too ([images] gc_every).

    What a lease needs that runs, waits or is planned stays, and so does the base of a delta. For administrators.

    \b
    Examples:
      vws image gc --dry-run
      vws image gc
    """
    gone = session.client.collect_images(dry_run=dry_run)
    if session.as_json:
        output.print_json(gone)
        return
    verb = "would go" if dry_run else "are gone"
    size_bytes = sum(image["size_bytes"] for image in gone["images"])
    click.echo(f"{len(gone['images'])} images ({show_bytes(size_bytes)}) and {len(gone['files'])} files {verb}.")
    for image in gone["images"]:
        click.echo(f"  {image['id']}  {image['name']}  {show_bytes(image['size_bytes'])}")


def called(image: Json) -> str:
    """Its names, else its id."""
    return ", ".join(image["tags"]) or image["id"]


def shared_with(image: Json) -> str:
    if "public" in image["shared"]:
        return "everybody"
    return "its owner" + "".join(f" and the VO {vo}" for vo in image["shared"])


def state_of(image: Json) -> str:
    if image["removed_at"] is not None:
        return "removed"
    if image["damaged"]:
        return "damaged"
    if image.get("revoked"):
        return "revoked"
    if image.get("withdrawn"):
        return "withdrawn"
    return "going" if image["retired_at"] is not None else "ready"


def _told(session: Session, image: Json, text: str) -> None:
    if session.as_json:
        output.print_json(image)
    else:
        click.echo(text)


COMMANDS = (tag, share, copy, history, verify, gc)
