"""`vws image build`: an appliance from a recipe, on this machine; a site is asked only where one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vws.cli import output
from vws.cli.failures import check_writable, failed, failure_of
from vws.cli.image_trust import next_with
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options, user_cache
from vws.cli.sizes import show_bytes
from vws.core.errors import VwsError

Json = dict[str, Any]
# What is no name of an image.
FILES = (".yaml", ".yml", ".vws", ".qcow2")


def cache_folder() -> Path:
    """Where builds keep what they download."""
    return user_cache() / "build"


@click.command()
@site_options
@click.option(
    "--from",
    "base",
    metavar="IMAGE",
    help="Build on this, whatever the recipe's from: says: a file (.yaml, .vws, .qcow2), or an image of the site.",
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The bundle to write. Default: the recipe's name, with .vws, in this folder.",
)
@click.option("--name", metavar="NAME", type=NAME, help="Import it at the site too, under this name.")
@click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="What is downloaded is kept there. Default: ~/.cache/vws/build.",
)
@click.argument("file", metavar="RECIPE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@pass_session
def build(
    session: Session, file: Path, base: str | None, out: Path | None, name: str | None, cache: Path | None
) -> None:
    """Build an appliance as RECIPE (a YAML file) says.

    The same recipe and the same versions of packages give the same file. Beside it are written what is in it
    (NAME.sbom.cdx.json) and how it was made (NAME.provenance.json); both are in it, too. A recipe with debian packages
    is built by root.

    \b
    Examples:
      vws image build appliances/demo.yaml
      vws image build appliances/debian.yaml --out build/debian.vws --name debian
      vws image build tools.yaml --from debian.vws
      vws image build tools.yaml --from debian:12
    """
    # Loaded here, as other commands do without it.
    from vws.factory.apart import build_apart
    from vws.factory.recipes import load

    kept = cache or cache_folder()
    image = _base(session, base, kept) if base else None
    plan = load(file, image)
    target = out or Path(f"{plan.recipe.name}.vws")
    check_writable(target)
    try:
        built = build_apart(file, target, kept, _tell(session.as_json), image=image)
    except VwsError as error:
        raise _with_log(error, target) from error
    if name:
        from vws.cli.image import listed, send

        built["image"] = listed(session, target, name) or send(session, target, name)
    if session.as_json:
        output.print_json(built)
        return
    click.echo(
        f"{target} is built in {built['took_s']:.1f} s: {show_bytes(built['size_bytes'])}, sha256 "
        f"{built['sha256']}, of {built['packages']} packages."
    )
    if name:
        click.echo(f"image {built['image']['name']} ({built['image']['id']}) is ready.")
        click.echo(next_with(session, name))
    else:
        click.echo("Next: " + session.named(f"vws image import {target} --name {plan.recipe.name}"))


def _base(session: Session, said: str, cache: Path) -> Path:
    """The file that was said, or the image of the site, fetched once, as what has an id never changes."""
    if Path(said).is_file():
        return Path(said)
    if Path(said).suffix in FILES:
        raise failed(f"--from: there is no file {said}", kept="nothing was built", next_step="vws image list")
    found = session.client.image(said)
    target = cache / "images" / f"{found['id']}.vws"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        click.echo(f"fetching {said} ({found['id']})", err=True)
        session.client.export_image(found["id"], "bundle", target)
    return target


def _with_log(error: VwsError, target: Path) -> Exception:
    """The failure, with what is left of the build."""
    told = failure_of(error)
    if told is None or "log" not in error.details:
        return error
    told.kept = f"{error.details['log']}, the log" + (f"; {target} is as it was" if target.exists() else "")
    return told


def _tell(as_json: bool) -> Any:
    def tell(at_s: float, step: str) -> None:
        click.echo(f"{at_s:6.1f} s  {step}", err=as_json)

    return tell
