"""`vws image sign`, `vws image key`, `vws image attest`: what the maker of an appliance does.

A private key is read here and nowhere else. What is signed is computed here, too: of a file from its bytes, of an image
on a site from what the site says of it, whose digest must then be the one that the site names.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from vws.cli import output
from vws.cli.failures import failed
from vws.cli.image_trust import pem_of
from vws.cli.names import NAME
from vws.cli.parameters import parameters_of
from vws.cli.session import Session, json_option, pass_session, site_options
from vws.cli.times import TIME

Json = dict[str, Any]
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def key() -> None:
    """Keys with which appliances are signed.

    \b
    Examples:
      vws image key new maker.key
    """


@key.command("new")
@json_option
@click.option("--passphrase", is_flag=True, help="Ask for one, with which the key is locked.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@pass_session
def new_key(session: Session, file: Path, passphrase: bool) -> None:
    """Make an Ed25519 key in FILE, which stays with you, and its public half in FILE.pub, which sites are given.

    \b
    Examples:
      vws image key new maker.key
      vws image key new --passphrase maker.key
    """
    from vws.core.trust import keyid_of
    from vws.signing import new_key, write_key

    words = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True) if passphrase else ""
    private, public = new_key(words)
    try:
        beside = write_key(file, private, public)
    except FileExistsError as error:
        raise failed(f"{error.filename} is there already", kept="it is as it was", next_step="another FILE") from None
    keyid = keyid_of(public.decode())
    if session.as_json:
        output.print_json({"private": str(file), "public": str(beside), "keyid": keyid})
        return
    click.echo(f"{file} is your private key: keep it to yourself. {beside} is its public half ({keyid[:12]}).")
    click.echo(
        f"Next: vws image sign IMAGE --key {file}; a site trusts it after: vws image trust add NAME --key {beside}"
    )


@dataclass(frozen=True)
class OnSite:
    """What the site says of an image, as `core/manifest.py` reads it."""

    boot: str
    cmdline: str
    user: str
    ready: str
    files: tuple[Any, ...]
    beside: tuple[Any, ...]


@click.command()
@site_options
@click.option("--key", "key_file", required=True, metavar="FILE", type=FILE, help="Your private key, PEM.")
@click.option(
    "--cert",
    metavar="FILE",
    type=FILE,
    help="The certificate that an authority issued for it, PEM; then those of intermediate ones.",
)
@click.option("--assert", "asserted", metavar="FILE", type=FILE, help="What you vouch for, TOML: name = value.")
@click.option("--set", "more", multiple=True, metavar="NAME=VALUE", help="One assertion more, or another value.")
@click.option("--expires", type=TIME, metavar="TIME", help="Until when it counts: 2027-05-01, +180d.  [for ever]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where to write the attestation. Of an image on the site it is also kept there.")  # fmt: skip
@click.argument("subject", metavar="IMAGE|FILE", type=NAME)
@pass_session
def sign(
    session: Session, subject: str, key_file: Path, cert: Path | None, asserted: Path | None, more: tuple[str, ...],
    expires: int | None, out: Path | None,
) -> None:  # fmt: skip
    """Vouch for an image: sign the digest of what it boots, with assertions.

    IMAGE is one on the site, which keeps the attestation beside it. FILE is an image's file here; its attestation is
    written to FILE.attestation.json, for `vws image attest`.

    Assertions that sites ask for: maker, updates-until (a date), packages (the bill of materials beside the image, if
    there is one, and nothing else is said), listening (a list), remote-root-login (off). Any other may be added.

    \b
    Examples:
      vws image sign debian-12 --key maker.key --assert debian-12.toml --expires +180d
      vws image sign debian-12 --key maker.key --set maker=DESY --set updates-until=2026-11-21
      vws image sign ./debian-12.vws --key maker.key --assert debian-12.toml
    """
    from vws import signing
    from vws.core.manifest import digest
    from vws.core.trust import PACKAGES, write_envelope

    assertions = _assertions(asserted, more)
    signer = _signer(key_file)
    certificate = pem_of(cert) if cert else ""
    path = Path(subject)
    local = path.is_file()
    image, name, bill = _examined(path) if local else _on_site(session, subject)
    if bill and PACKAGES not in assertions:
        assertions[PACKAGES] = f"sha256:{bill}"
    now = int(time.time())
    if expires is not None and expires <= now:
        raise click.BadParameter("it is over already, and nothing would count", param_hint="--expires")
    made = signing.sign(image, name, assertions, signer, signed_at=now, expires=expires, certificate=certificate)
    content = write_envelope(made)
    target = out or (path.with_name(path.name + ".attestation.json") if local else None)
    if target:
        target.write_bytes(content)
    if not local:
        _keep(session, subject, content)
    _tell(session, subject, digest(image), made.signatures[0].keyid, assertions, expires, target, local)


def _tell(
    session: Session, subject: str, of: str, keyid: str, assertions: Json, expires: int | None, target: Path | None,
    local: bool,
) -> None:  # fmt: skip
    if session.as_json:
        said = {name: list(value) if isinstance(value, tuple) else value for name, value in assertions.items()}
        told = {"digest": of, "keyid": keyid, "assertions": said, "expires": expires}
        output.print_json(told | {"file": str(target) if target else None})
        return
    click.echo(f"{subject} (sha256:{of[:12]}) is signed by the key {keyid[:12]}.")
    if local:
        step = f"vws image attest IMAGE {target}, where IMAGE is what the site calls it"
        click.echo(f"The attestation is in {target}. Next: {session.named(step)}")
    else:
        click.echo("Next: " + session.named(f"vws image policy test {subject}"))


@click.command()
@site_options
@click.argument("name", metavar="IMAGE", type=NAME)
@click.argument("file", type=FILE)
@pass_session
def attest(session: Session, name: str, file: Path) -> None:
    """Keep an attestation that was made elsewhere beside an image of the site.

    \b
    Examples:
      vws image attest debian-12 debian-12.vws.attestation.json
    """
    kept = _keep(session, name, file.read_bytes())
    if session.as_json:
        output.print_json(kept)
    else:
        click.echo(f"{file.name} is kept beside {name}. Next: " + session.named(f"vws image attestations {name}"))


def _keep(session: Session, name: str, content: bytes) -> Json:
    from vws.core.trust import MEDIA_TYPE

    kept: Json = session.client.add_image_document(name, "attestation", MEDIA_TYPE, content)
    return kept


# ---------------------------------------------------------------- what is signed


def _on_site(session: Session, name: str) -> tuple[Any, str, str]:
    """(what boots, the image's name, the sha256 of its bill of materials or "")."""
    from vws.core.disks import Disk
    from vws.core.manifest import digest
    from vws.core.site import ImageFile
    from vws.core.wire import from_json

    said = session.client.image(name)
    files = from_json(tuple[ImageFile, ...], said.get("files") or [], "files")
    beside = from_json(tuple[Disk, ...], said.get("beside") or [], "beside")
    image = OnSite(said["boot"], said["cmdline"], said["user"], said["ready"], files, beside)
    if digest(image) != said["digest"]:
        raise failed(
            f"the site names another digest for {name} than what it says of it comes to",
            kept="nothing was signed",
            next_step="a client and a site of the same version; or sign the file itself",
        )
    return image, said["name"], _bill_on_site(session, name)


def _bill_on_site(session: Session, name: str) -> str:
    bills = [each for each in session.client.image_documents(name) if each["kind"] == "sbom"]
    if not bills:
        return ""
    content: bytes = session.client.image_document(name, bills[-1]["id"])
    return hashlib.sha256(content).hexdigest()


def _examined(path: Path) -> tuple[Any, str, str]:
    """The same of a file, by the service's own look at it."""
    from vws.core.site import DocumentKind
    from vws.service.image_check import examine

    with tempfile.TemporaryDirectory(prefix="vws-sign-", dir=path.parent) as folder:
        found = examine(path, Path(folder) / "parts")
        files = tuple(file for file, _ in found.files)
        bills = [content for kind, _, content in found.documents if kind is DocumentKind.SBOM]
    image = OnSite(found.boot, found.cmdline, found.user, found.ready, files, found.beside)
    return image, path.name, hashlib.sha256(bills[-1]).hexdigest() if bills else ""


# ---------------------------------------------------------------- what it is signed with


def _signer(path: Path) -> Any:
    from vws.signing import is_locked, read_key

    pem = path.read_bytes()
    words = click.prompt("Passphrase", hide_input=True, err=True) if is_locked(pem) else ""
    return read_key(pem, words)


def _assertions(path: Path | None, more: tuple[str, ...]) -> dict[str, Any]:
    from vws.core.trust import checked_assertions

    said: dict[str, Any] = {}
    if path is not None:
        try:
            said = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise failed(f"{path} is not TOML: {error}", kept="nothing was signed") from None
    return checked_assertions(dict(_plainly(said)) | parameters_of(more), path.name if path else "--set")


def _plainly(said: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """TOML knows dates; an attestation has them as text."""
    for name, value in said.items():
        yield name, value.isoformat() if hasattr(value, "isoformat") else value
