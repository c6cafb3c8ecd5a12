"""`vws image export`: images for other hypervisors and registries."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from vws.cli import output
from vws.cli.failures import failed
from vws.cli.names import NAME
from vws.cli.progress import transfer
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import show_bytes
from vws.core.image_formats import ALIASES, EXPORTED, listed

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
@pass_session
def export_image(session: Session, name: str, target: Path, kind: str | None, force: bool) -> None:
    """Write an image to a file, in the format that another hypervisor or a registry reads.

    bundle: an appliance for another site of VWS; oci: a tar of an OCI image layout.

    \b
    Examples:
      vws image export debian-12 --to debian-12.vmdk
      vws image export demo --format oci --to demo.tar
    """
    kind = kind or SUFFIXES.get(target.suffix.lower())
    if kind is None:
        raise click.UsageError(f"the name {target.name} says no format: --format {listed(EXPORTED)}")
    if target.exists() and not force:
        raise failed(
            f"{target} is there already", code="exists", kept="it is as it was", next_step="--force replaces it"
        )
    with ExitStack() as shown:
        left_out = session.client.export_image(name, kind, target, progress=_shown(session, target, shown))
    size_bytes = target.stat().st_size
    if session.as_json:
        output.print_json(
            {"image": name, "format": kind, "file": str(target), "size_bytes": size_bytes, "left_out": left_out}
        )
        return
    click.echo(f"{target} is written: {show_bytes(size_bytes)} of {kind}.")
    if left_out:
        click.echo(f"Not in it: {left_out}.")


def _shown(session: Session, target: Path, shown: ExitStack) -> Callable[[int, int], None]:
    """How far it is, from the moment at which the length is known."""
    bars: list[Callable[[int], None]] = []

    def progress(received: int, total: int) -> None:
        if not bars:
            bars.append(shown.enter_context(transfer(f"receiving {target.name}", total, to_stderr=session.as_json)))
        bars[0](received)

    return progress
