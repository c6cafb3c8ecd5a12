"""`vws image export`: images for other hypervisors and registries."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from vws.cli import output
from vws.cli.failures import failed
from vws.cli.image_keys import write_key_file
from vws.cli.names import NAME
from vws.cli.progress import transfer
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import show_bytes
from vws.core.image_formats import ALIASES, EXPORTED, listed

Json = dict[str, Any]

# What a file's name says of its format, if --format does not.
SUFFIXES = {".qcow2": "qcow2", ".raw": "raw", ".img": "raw", ".vmdk": "vmdk", ".vhd": "vpc", ".vhdx": "vhdx",
            ".vdi": "vdi", ".vws": "bundle"}  # fmt: skip


@click.command("export")
@site_options
@click.argument("name", metavar="IMAGE", type=NAME)
@click.option(
    "--to",
    "target",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice((*EXPORTED, *ALIASES)),
    metavar="FORMAT",
    help=f"{listed(EXPORTED)}; what FILE's name ends in says it otherwise.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option(
    "--with-key",
    "key_file",
    metavar="KEYFILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the passphrase of an encrypted image to KEYFILE, for its owner and administrators.",
)
@pass_session
def export_image(
    session: Session, name: str, target: Path, kind: str | None, force: bool, key_file: Path | None
) -> None:
    """Write an image to a file, in the format that another hypervisor or a registry reads.

    What broke goes on where it was, when the same command is given again: within an hour where the disk had to be
    converted. bundle: an appliance for another site of VWS; oci: a tar of an OCI image layout.
    An encrypted image goes out encrypted, as qcow2, bundle or oci.

    \b
    Examples:
      vws image export debian-12 --to debian-12.vmdk
      vws image export demo --format oci --to demo.tar
      vws image export analysis:sealed --to sealed.qcow2 --with-key sealed.key
    """
    kind = kind or SUFFIXES.get(target.suffix.lower())
    if kind is None:
        raise click.UsageError(f"the name {target.name} says no format: --format {listed(EXPORTED)}")
    for path in filter(None, (target, key_file)):
        if path.exists() and not force:
            raise failed(
                f"{path} is there already", code="exists", kept="it is as it was", next_step="--force replaces it"
            )
    with ExitStack() as shown:
        progress = _shown(session, target, shown)
        found = session.client.image(name)
        passphrase = session.client.image_passphrase(found["id"]) if key_file else ""
        if found["boot"] == "disk" and found["files"][0]["format"] == kind and not found["base"]:
            left_out = _receive(session, found, target, progress)
        else:
            left_out = session.client.export_image(found["id"], kind, target, progress=progress)
    if key_file:
        write_key_file(key_file, passphrase)
        left_out = ", and ".join(part for part in left_out.split(", and ") if not part.startswith("the key of"))
    elif found.get("encrypted") and not left_out:
        left_out = "the key of its disk (--with-key FILE, for its owner)"
    size_bytes = target.stat().st_size
    if session.as_json:
        output.print_json(
            {"image": name, "format": kind, "file": str(target), "size_bytes": size_bytes, "left_out": left_out}
        )
        return
    click.echo(f"{target} is written: {show_bytes(size_bytes)} of {kind}.")
    if key_file:
        click.echo(f"{key_file} holds its passphrase, for you alone.")
    if left_out:
        click.echo(f"Not in it: {left_out}.")


def _receive(session: Session, found: Json, target: Path, progress: Callable[[int, int], None]) -> str:
    """A disk as it is kept: needs no conversion, and goes on with what an earlier try left beside the target."""
    (file,) = found["files"]
    partial = target.with_name(f".{target.name}.{file['sha256'][:12]}.part")
    size = file["size_bytes"]
    session.client.download_image_file(
        found["id"], file["sha256"], size, partial, progress=lambda received: progress(received, size)
    )
    partial.replace(target)
    return ""


def _shown(session: Session, target: Path, shown: ExitStack) -> Callable[[int, int], None]:
    """How far it is, from the moment at which the length is known."""
    bars: list[Callable[[int], None]] = []

    def progress(received: int, total: int) -> None:
        if not bars:
            bars.append(shown.enter_context(transfer(f"receiving {target.name}", total, to_stderr=session.as_json)))
        bars[0](received)

    return progress
