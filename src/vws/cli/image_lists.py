"""`vws image lists` and the commands around it: HEPiX image lists of others, and one of one's own."""

from __future__ import annotations

import hashlib
import time
import uuid
from pathlib import Path
from typing import Any

import click

from vws.cli import output
from vws.cli.failures import failed
from vws.cli.image_trust import pem_of
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import DURATION, show_bytes
from vws.core.image_formats import DISKS
from vws.core.image_lists import Endorser, ImageList, ListedImage

Json = dict[str, Any]
# As other sites' tools name what they read.
SUFFIXES = {"vpc": "vhd"}
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("list-subscribe")
@site_options
@click.option("--endorser", required=True, metavar="DN", help="Subject of the certificate that signs it: /C=.../CN=...")
@click.option("--ca", required=True, metavar="FILE", type=FILE, help="The authority that issued that one (PEM).")
@click.option("--share", "shared", multiple=True, metavar="VO", help="Who may use its images: a VO, or public.")
@click.argument("source", metavar="URL|FILE", type=NAME)
@pass_session
def subscribe(session: Session, source: str, endorser: str, ca: Path, shared: tuple[str, ...]) -> None:
    """Follow an image list (HEPiX) of an endorser whom you name.

    \b
    Examples:
      vws image list-subscribe https://images.example.org/list --endorser "/DC=org/CN=Ann" --ca ca.pem --share cms
    """
    url, message = ("", _read(source)) if "://" not in source else (source, None)
    made = session.client.subscribe_image_list(endorser, pem_of(ca), url=url, message=message, shared=shared)
    _tell(session, made, f"the list {made['name']} is followed.")
    if not session.as_json:
        click.echo("Next: " + session.named(f"vws image list-show {made['name']}"))


LISTS: list[output.Column] = [
    ("LIST", lambda e: e["name"]),
    ("TITLE", lambda e: e["title"]),
    ("VERSION", lambda e: e["version"]),
    ("IMAGES", lambda e: str(sum(i["dropped_at"] is None for i in e["images"]))),
    ("FETCHED", lambda e: str(sum(bool(i["image"]) and i["dropped_at"] is None for i in e["images"]))),
    ("EXPIRES", lambda e: end_of(e)),
    ("LOOKED AT", lambda e: output.moment(e["refreshed_at"])),
    ("PROBLEM", lambda e: e["problem"]),
    ("ID", lambda e: e["id"]),
]
IMAGES: list[output.Column] = [
    ("IDENTIFIER", lambda i: i["identifier"]),
    ("TITLE", lambda i: i["title"]),
    ("VERSION", lambda i: i["version"]),
    ("FORMAT", lambda i: i["format"]),
    ("SIZE", lambda i: show_bytes(i["size_bytes"])),
    ("IMAGE", lambda i: i["image"]),
    ("DROPPED", lambda i: output.moment(i["dropped_at"])),
]


def end_of(subscription: Json) -> str:
    expires = output.moment(subscription["expires_at"])
    return f"expired {expires}" if subscription["expires_at"] <= time.time() else expires


@click.command("lists")
@site_options
@pass_session
def lists(session: Session) -> None:
    """List the image lists that the site follows.

    \b
    Examples:
      vws image lists
    """
    output.listing(
        session.client.image_lists(),
        LISTS,
        as_json=session.as_json,
        empty="The site follows no image lists. Next: vws image list-subscribe URL --endorser DN --ca FILE",
    )


@click.command("list-show")
@site_options
@click.argument("name", metavar="LIST", type=NAME)
@pass_session
def show(session: Session, name: str) -> None:
    """Show a list, and what is on it.

    \b
    Examples:
      vws image list-show 76fdee70-8119-5d33
    """
    found = session.client.image_list(name)
    if session.as_json:
        output.print_json(found)
        return
    facts = [
        ("list", found["name"]),
        ("title", found["title"]),
        ("version", found["version"]),
        ("endorsed by", found["endorser"]),
        ("issued by", found["authority"]),
        ("published at", found["url"] or "nowhere: it is handed in as a file"),
        ("shared with", ", ".join(found["shared"]) or "nobody but administrators"),
        ("expires", end_of(found)),
        ("looked at", output.moment(found["refreshed_at"])),
        ("problem", found["problem"]),
    ]
    click.echo(output.card(facts))
    output.listing(found["images"], IMAGES, as_json=False, empty="It has no images.")


@click.command("list-refresh")
@site_options
@click.option("--from", "source", metavar="FILE", type=FILE, help="The list itself, if it is published nowhere.")
@click.argument("name", metavar="LIST", type=NAME, required=False)
@pass_session
def refresh(session: Session, name: str | None, source: Path | None) -> None:
    """Read a list again, or all lists, now. The site does so by itself, too.

    \b
    Examples:
      vws image list-refresh
      vws image list-refresh 76fdee70-8119-5d33 --from new.list
    """
    if source is not None and name is None:
        raise click.UsageError("--from FILE goes with the LIST that it is")
    names = [name] if name is not None else [each["name"] for each in session.client.image_lists() if each["url"]]
    message, problems = source.read_bytes() if source else None, []
    for each in names:
        try:
            made = session.client.refresh_image_list(each, message)
            _tell(session, made, f"the list {made['name']} is of version {made['version']}, until {end_of(made)}.")
        except Exception as error:
            if name is not None:
                raise
            problems.append(f"{each}: {error}")  # the others are to be renewed all the same
    if problems:
        raise failed("; ".join(problems), code="unavailable", kept="the lists as they were", next_step="the same again")


@click.command("list-fetch")
@site_options
@click.option("--name", "called", metavar="NAME", default="", help="What leases call it.  [made of its title]")
@click.argument("name", metavar="LIST", type=NAME)
@click.argument("identifier", type=NAME, required=False)
@pass_session
def fetch(session: Session, name: str, identifier: str | None, called: str) -> None:
    """Bring an image of a list to the site, or all that were not fetched yet.

    \b
    Examples:
      vws image list-fetch 76fdee70-8119-5d33
      vws image list-fetch 76fdee70-8119-5d33 i1 --name sl6
    """
    if called and identifier is None:
        raise click.UsageError("--name goes with the IDENTIFIER of one image")
    found = session.client.image_list(name)
    missing = [i["identifier"] for i in found["images"] if not i["image"] and i["dropped_at"] is None]
    for each in [identifier] if identifier is not None else missing:
        found = session.client.fetch_listed_image(found["id"], each, called)
        image = next(i["image"] for i in found["images"] if i["identifier"] == each and i["dropped_at"] is None)
        if not session.as_json:
            click.echo(f"{each} is the image {session.client.image(image)['name']} ({image}).")
    if session.as_json:
        output.print_json(found)
    elif not missing and identifier is None:
        click.echo("all images of the list are here.")


@click.command("list-unsubscribe")
@site_options
@click.argument("name", metavar="LIST", type=NAME)
@pass_session
def unsubscribe(session: Session, name: str) -> None:
    """Follow a list no more. Its images stay, and need its word no longer.

    \b
    Examples:
      vws image list-unsubscribe 76fdee70-8119-5d33
    """
    gone = session.client.unsubscribe_image_list(name)
    _tell(session, gone, f"the list {gone['name']} is followed no more.")


def _read(source: str) -> bytes:
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{source} cannot be read: {error.strerror or error}") from None


def _tell(session: Session, value: Json, sentence: str) -> None:
    if session.as_json:
        output.print_json(value)
    else:
        click.echo(sentence)


# ---------------------------------------------------------------- one's own


@click.command("list-publish")
@site_options
@click.option(
    "--to",
    "folder",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write.",
)
@click.option("--url", required=True, metavar="URL", help="Where DIR will be found by others.")
@click.option("--certificate", required=True, metavar="FILE", type=FILE, help="Yours as endorser (PEM).")
@click.option("--key", required=True, metavar="FILE", type=FILE, help="Its private key (PEM).")
@click.option("--for", "lifetime_s", type=DURATION, default="30d", show_default=True, help="How long the list is good.")
@click.option("--title", default="", help="What people read.")
@click.option("--email", default="", help="Where the endorser is asked.")
@click.option("--format", "kind", type=click.Choice(DISKS), default="qcow2", show_default=True, help="Of the files.")
@click.argument("names", metavar="IMAGE...", type=NAME, nargs=-1, required=True)
@pass_session
def publish(
    session: Session, names: tuple[str, ...], folder: Path, url: str, certificate: Path, key: Path, lifetime_s: int,
    title: str, email: str, kind: str,
) -> None:  # fmt: skip
    """Write images and a list of them, signed, into a folder that a web server shows.

    Sites that read HEPiX image lists subscribe to URL/image.list. Run it again to renew the list.

    \b
    Examples:
      vws image list-publish debian-12 --to www --url https://images.example.org --certificate me.pem --key me.key
    """
    from cryptography.x509 import load_pem_x509_certificates

    from vws.endorsing import endorser_of, sign

    try:
        mine, *chain = load_pem_x509_certificates(certificate.read_bytes())
    except ValueError:
        raise click.BadParameter(f"{certificate} is no certificate in PEM", param_hint="--certificate") from None
    base, target = url.rstrip("/"), folder / "image.list"
    folder.mkdir(parents=True, exist_ok=True)
    images = tuple(_published(session, name, folder, base, kind) for name in names)
    made = _list_of(images, base, title, endorser_of(mine, email), lifetime_s)
    partial = folder / ".image.list.part"
    partial.write_bytes(sign(made, mine, key.read_bytes(), _passphrase(key), chain))
    partial.replace(target)
    facts = {"identifier": made.identifier, "endorser": made.endorser.dn, "file": str(target)}
    _tell(session, facts, f"{target} lists {len(images)} images until {output.moment(made.expires_at)}.")
    if not session.as_json:
        click.echo(f"Others subscribe with the endorser {made.endorser.dn}")


def _list_of(images: tuple[ListedImage, ...], base: str, title: str, endorser: Endorser, lifetime_s: int) -> ImageList:
    now = int(time.time())
    return ImageList(
        identifier=str(uuid.uuid5(uuid.NAMESPACE_URL, base)),
        version=time.strftime("%Y%m%d%H%M%S", time.gmtime(now)),
        title=title or f"Images of {base}",
        created_at=now,
        expires_at=now + lifetime_s,
        endorser=endorser,
        images=images,
        uri=f"{base}/image.list",
    )


def _published(session: Session, name: str, folder: Path, base: str, kind: str) -> ListedImage:
    """The image's file in the folder, under a name that its bytes keep: others may be in the middle of an older one."""
    found = session.client.image(name)
    partial = folder / f".{found['name']}.part"
    session.client.export_image(found["id"], kind, partial)
    with partial.open("rb") as file:
        sha512 = hashlib.file_digest(file, "sha512").hexdigest()
    suffix, size_bytes = SUFFIXES.get(kind, kind), partial.stat().st_size
    target = folder / f"{found['name']}-{sha512[:12]}.{suffix}"
    partial.replace(target)
    return ListedImage(
        identifier=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{base}/{found['name']}")),
        version=sha512[:12],
        uri=f"{base}/{target.name}",
        size_bytes=size_bytes,
        sha512=sha512,
        title=found["name"],
        format=suffix,
    )


def _passphrase(key: Path) -> bytes | None:
    if b"ENCRYPTED" not in key.read_bytes():
        return None
    said: str = click.prompt(f"Passphrase of {key}", hide_input=True, err=True)
    return said.encode()


LIST_COMMANDS = (subscribe, lists, show, refresh, fetch, unsubscribe, publish)
