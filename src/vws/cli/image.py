"""`vws image`: the disk images that workspaces start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vws.cli import image_names, output
from vws.cli.disks import disk_text
from vws.cli.image_build import build
from vws.cli.image_documents import documents
from vws.cli.image_export import export_image
from vws.cli.image_fetch import Sha256, Source, at_hand, sha256_of
from vws.cli.image_keys import encrypt, read_key_file
from vws.cli.image_lists import LIST_COMMANDS
from vws.cli.image_names import share_options, shared_with, sharing, state_of
from vws.cli.image_sign import attest, key, sign
from vws.cli.image_trust import COMMANDS, next_with
from vws.cli.names import NAME
from vws.cli.progress import transfer
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import show_bytes, show_size
from vws.core.image_formats import ALIASES, IMPORTED
from vws.core.image_names import split_name

Json = dict[str, Any]


@click.group()
def image() -> None:
    """Images: what workspaces start from, addressed by their content.

    An image is named by NAME, NAME:TAG (NAME alone is NAME:latest), its id, or sha256:DIGEST.

    \b
    Examples:
      vws image import demo.vws --name demo
      vws image list
    """


@image.command("import")
@site_options
@click.option("--name", required=True, metavar="NAME[:TAG]", type=NAME, help="What leases call it.")
@share_options
@click.option(
    "--format",
    "kind",
    type=click.Choice((*IMPORTED, *ALIASES)),
    metavar="FORMAT",
    help=f"What FILE is: {', '.join(IMPORTED)}. Not said: its bytes tell.",
)
@click.option("--sha256", metavar="SUM", type=Sha256(), help="Of the file: another one is not imported.")
@click.option("--encrypt", is_flag=True, help="Keep its disk encrypted, with a key that the site makes.")
@click.option(
    "--key-file",
    metavar="KEYFILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The passphrase of FILE, which is encrypted already (LUKS in qcow2).",
)
@click.argument("source", metavar="FILE|URL", type=Source())
@pass_session
def import_image(
    session: Session, source: str, name: str, kind: str | None, shared: tuple[str, ...], private: bool,
    sha256: str | None, encrypt: bool, key_file: Path | None,
) -> None:  # fmt: skip
    """Bring an image to the site: a disk image, a root file system's tar, an OVA, or a VWS bundle.

    The site checks the file before it lists it, and converts what is neither qcow2 nor raw. A name that you gave before
    points at the new file from now on; what it pointed at stays (vws image history). An import that breaks goes on
    where it was when the same command is given again within a day. What has an address (https://...) is fetched by this
    machine, not by the site. Not said otherwise, what you bring is private, and for all if you administer the site.

    \b
    Examples:
      vws image import build/appliance/demo.vws --name demo
      vws image import debian-12-nocloud-amd64.qcow2 --name debian:12 --share cms
      vws image import rootfs.tar.xz --format tar --name mine
      vws image import https://example.org/debian-12.qcow2 --sha256 SUM --name debian:12
      vws image import analysis.qcow2 --name analysis --encrypt --private
      vws image import sealed.qcow2 --name sealed --key-file sealed.key
    """
    split_name(name)
    allowed = sharing(shared, private)
    if encrypt and key_file:
        raise click.UsageError("--encrypt is for what is in the clear, --key-file for what is encrypted already")
    passphrase = read_key_file(key_file) if key_file else None
    with at_hand(source, sha256, to_stderr=session.as_json) as file:
        there = None if encrypt else listed(session, file, name)
        made = there or send(session, file, name, kind, allowed, encrypt, passphrase)
    if session.as_json:
        output.print_json(made)
        return
    sealed = ", encrypted" if made.get("encrypted") else ""
    size = show_bytes(made["size_bytes"])
    click.echo(f"image {name} ({made['id']}) is ready: {size}{sealed}, for {shared_with(made)}.")
    if allowed is not None and set(allowed) != set(made["shared"]):
        said, wanted = ("--private", "--private") if private else ("--share", " ".join(f"--with {vo}" for vo in shared))
        advice = session.named(f"vws image share {name} {wanted}")
        click.echo(f"It was here before, and {said} changed nothing: {advice}")
    click.echo(next_with(session, name))


def listed(session: Session, file: Path, name: str) -> Json | None:
    """The image that has this name already if it was made of this file: nothing is sent then."""
    name, tag = split_name(name)
    other: Json | None = next(session.client.images(name=f"{name}:{tag}"), None)
    if other is None or other["damaged"] or other["retired_at"] is not None:
        return None
    return other if sha256_of(file) == other["sha256"] else None


def send(
    session: Session, file: Path, name: str, kind: str | None = None, shared: tuple[str, ...] | None = None,
    encrypt: bool = False, passphrase: str | None = None,
) -> Json:  # fmt: skip
    with transfer(f"sending {file.name}", file.stat().st_size, to_stderr=session.as_json) as sent:
        made: Json = session.client.upload_image(
            file, name, shared=shared, format=kind, progress=sent, encrypt=encrypt, passphrase=passphrase
        )
        return made


COLUMNS: list[output.Column] = [
    ("NAME", lambda i: ",".join(i["tags"]) or "-"),
    ("STATE", state_of),
    ("SIZE", lambda i: "simulated" if i["simulated"] else show_bytes(i["size_bytes"])),
    ("BOOT", lambda i: i["boot"]),
    ("ENCRYPTED", lambda i: "yes" if i.get("encrypted") else ""),
    ("USER", lambda i: i["user"]),
    ("MEMORY MIN", lambda i: show_size(i["memory_mib_min"]) if i["memory_mib_min"] else ""),
    ("DISK MIN", lambda i: show_size(i["disk_mib_min"]) if i["disk_mib_min"] else ""),
    ("OWNER", lambda i: i["owner"]),
    ("SHARED", lambda i: ",".join(i["shared"])),
    ("ID", lambda i: i["id"]),
]


@image.command("list")
@site_options
@pass_session
def list_images(session: Session) -> None:
    """List the images that you may use.

    \b
    Examples:
      vws image list
      vws image list --json
    """
    images = list(session.client.images())
    output.listing(
        images, COLUMNS, as_json=session.as_json, empty="There are no images. Next: vws image import FILE --name NAME"
    )


@image.command()
@site_options
@click.argument("name", metavar="IMAGE", type=NAME)
@pass_session
def show(session: Session, name: str) -> None:
    """Show an image and the files it is made of.

    \b
    Examples:
      vws image show demo
    """
    found = session.client.image(name)
    if session.as_json:
        output.print_json(found)
    else:
        click.echo(card_of(found))


def card_of(i: Json) -> str:
    facts = [
        ("name", ", ".join(i["tags"])),
        ("id", i["id"]),
        ("state", (i["damaged"] and f"damaged: {i['damaged']}") or state_of(i)),
        ("revoked", _revoked(i.get("revoked"))),
        ("withdrawn", i.get("withdrawn", "")),
        ("digest", i["digest"]),
        ("uploaded file" if _is_as_it_came(i) else "made file", i["sha256"]),
        ("size", "simulated: known to fake nodes only" if i["simulated"] else show_bytes(i["size_bytes"])),
        ("boots from", {"direct": "its kernel, given to the hypervisor", "disk": "its disk"}.get(i["boot"], i["boot"])),
        ("log in as", i["user"]),
        ("encrypted", "its disk; kernel and initrd, if it has them, are in the clear" if i.get("encrypted") else ""),
        ("up when", {"ssh": "its ssh server answers", "boot": "it runs"}.get(i["ready"], i["ready"])),
        ("memory at least", show_size(i["memory_mib_min"]) if i["memory_mib_min"] else ""),
        ("disk at least", show_size(i["disk_mib_min"]) if i["disk_mib_min"] else ""),
        ("further disks", ", ".join(map(disk_text, i.get("beside") or ()))),
        ("owner", i["owner"]),
        ("for", shared_with(i)),
        ("delta on", i["base"]),
        ("made from", _origins(i.get("origins") or [])),
        ("imported", output.moment(i["created_at"])),
    ]
    files = [(f["role"], f"{f['format']}, {show_bytes(f['size_bytes'])}, {f['sha256']}") for f in i.get("files") or ()]
    return output.card([*facts, *files])


def _is_as_it_came(i: Json) -> bool:
    """Whether its file is one that was uploaded, and not made here of another image's."""
    origins = i.get("origins") or []
    return not origins or origins[0]["how"] in ("copied", "same-disk")


def _revoked(revoked: Json | None) -> str:
    return f"since {output.moment(revoked['since'])} by {revoked['by']}: {revoked['why']}" if revoked else ""


HOW = {"same-disk": "which has the same disk"}


def _origins(origins: list[Json]) -> str:
    """The nearest first."""
    return "; ".join(
        (f"{o['name']} ({o['image']}, sha256:{o['digest'][:12]})" if o["name"] else "an image of others")
        + f", {HOW.get(o['how'], o['how'])}"
        for o in origins
    )


@image.command()
@site_options
@click.option("--now", is_flag=True, help="Refuse it, rather than wait, while a lease uses the image.")
@click.argument("name", metavar="IMAGE", type=NAME)
@pass_session
def remove(session: Session, name: str, now: bool) -> None:
    """Take an image out with all its names: at once, or when the last lease that uses it is over.

    Till then it is granted to nobody any more. What images of saved workspaces lie on stays as long as they do. To take
    one name away and keep the image under its others: vws image tag IMAGE NAME --remove.

    \b
    Examples:
      vws image remove demo
      vws image remove debian:12 --now
    """
    found = session.client.image(name)
    removed = session.client.remove_image(found["id"], now=now)
    if session.as_json:
        output.print_json(removed)
        return
    if removed["removed_at"] is None:
        click.echo(
            f"image {name} ({removed['id']}) is granted to nobody any more, and goes when no lease and no image that "
            "was saved on it needs it."
        )
    else:
        click.echo(f"image {name} ({removed['id']}) is removed.")
    if len(found["tags"]) > 1:
        click.echo(f"All its names went with it: {', '.join(found['tags'])}.")


MORE = (build, documents, encrypt, key, sign, attest, *COMMANDS, export_image, *LIST_COMMANDS, *image_names.COMMANDS)
for command in MORE:
    image.add_command(command)
