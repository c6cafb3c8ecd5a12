"""`vws image documents`: what is said of an image and kept beside it, as it came.

Other tools read these files (scanners a bill of materials, in-toto's a provenance), so they are handed out byte by
byte. Who wrote them may be a stranger: a terminal gets what can be read of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vws.cli import output
from vws.cli.console import show
from vws.cli.failures import failed
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import show_bytes

Json = dict[str, Any]

COLUMNS: list[output.Column] = [
    ("KIND", lambda d: d["kind"]),
    ("SIZE", lambda d: show_bytes(d["size_bytes"])),
    ("ADDED", lambda d: output.moment(d["added_at"])),
    ("BY", lambda d: d["by"]),
    ("MEDIA TYPE", lambda d: d["media_type"]),
    ("SHA256", lambda d: d["sha256"][:12]),
    ("ID", lambda d: d["id"]),
]


@click.command()
@site_options
@click.option(
    "--to",
    "target",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the document to FILE, in place of what is there.",
)
@click.option("--remove", "going", multiple=True, metavar="ID", help="Keep this one no longer; may be repeated.")
@click.argument("name", metavar="IMAGE", type=NAME)
@click.argument("wanted", metavar="[KIND|ID]", type=NAME, required=False)
@pass_session
def documents(session: Session, name: str, wanted: str | None, target: Path | None, going: tuple[str, ...]) -> None:
    """List what is kept beside an image, or print one of it: sbom (its bill of materials), provenance (how it was
    made), attestation (who vouches for it). Of several of a kind it is the last one; the id says which. The image's
    owner, administrators and who added a document may have it removed.

    \b
    Examples:
      vws image documents debian-12
      vws image documents debian-12 sbom | jq -r '.components[].purl'
      vws image documents mine:1 provenance --to provenance.json
      vws image documents debian-12 --remove doc-1m80bp6v2avrs55
    """
    if going:
        if wanted is not None or target is not None:
            raise click.UsageError("--remove goes without KIND, ID and --to")
        _remove(session, name, going)
        return
    if target is not None and wanted is None:
        raise click.UsageError("--to goes with the KIND or ID of one document")
    found = session.client.image_documents(name)
    if wanted is None:
        output.listing(found, COLUMNS, as_json=session.as_json, empty=f"Nothing is kept beside {name}.")
        return
    content = session.client.image_document(name, _one(found, name, wanted)["id"])
    if target is None:
        show(content)
        return
    target.write_bytes(content)
    click.echo(f"{target} is written: {show_bytes(len(content))}.", err=session.as_json)


def _remove(session: Session, name: str, going: tuple[str, ...]) -> None:
    gone = [session.client.remove_image_document(name, id) for id in going]
    if session.as_json:
        output.print_json(gone)
        return
    for each in gone:
        click.echo(f"The {each['kind']} {each['id']}, which {each['by']} added, is kept beside {name} no longer.")


def _one(found: list[Json], name: str, wanted: str) -> Json:
    for each in reversed(found):
        if wanted in (each["kind"], each["id"]):
            return each
    there = ", ".join(dict.fromkeys(each["kind"] for each in found)) or "nothing"
    raise failed(
        f"no {wanted} is kept beside {name}", code="not-found", possible=there, next_step=f"vws image documents {name}"
    )
