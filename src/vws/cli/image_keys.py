"""`vws image encrypt`, and the files in which passphrases of images come and go."""

from __future__ import annotations

import os
from pathlib import Path

import click

from vws.cli import output
from vws.cli.failures import failed
from vws.cli.image_names import called, share_options, shared_with, sharing
from vws.cli.names import NAME
from vws.cli.progress import working
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import show_bytes

PASSPHRASE_BYTES_MAX = 512


@click.command()
@site_options
@click.option("--as", "new", required=True, metavar="NAME[:TAG]", type=NAME, help="What the encrypted image is called.")
@share_options
@click.argument("name", metavar="IMAGE", type=NAME)
@pass_session
def encrypt(session: Session, name: str, new: str, shared: tuple[str, ...], private: bool) -> None:
    """Make an encrypted image of your own with the content of another.

    Its disk is encrypted (LUKS in qcow2) with a key that the site makes and keeps sealed; only a node that runs it for
    a lease gets the key. Disks and suspended memory of its workspaces are encrypted, too. The image that you began with
    stays as it is: remove it if nothing in the clear is to be left. Not said otherwise, the new one is for those whom
    that is for, if that is yours or you administer the site, and private else.

    \b
    Examples:
      vws image encrypt debian --as debian:sealed
      vws image encrypt analysis --as analysis:sealed --share cms
      vws image encrypt debian --as my-debian --private
    """
    allowed = sharing(shared, private)
    found = session.client.image(name)
    with working(f"encrypting {name} ({show_bytes(found['size_bytes'])})", to_stderr=session.as_json):
        made = session.client.encrypt_image(found["id"], new, shared=allowed)
    if session.as_json:
        output.print_json(made)
        return
    click.echo(f"image {called(made)} ({made['id']}) is encrypted: {show_bytes(made['size_bytes'])}, for "
               f"{shared_with(made)}.")  # fmt: skip
    step = f" Next: {session.named(f'vws image remove {name}')}" if found["owner"] == made["owner"] else ""
    click.echo(f"The image {name} is still there in the clear.{step}")


def read_key_file(path: Path) -> str:
    """The passphrase in a file, without the line's end."""
    with path.open("rb") as file:
        data = file.read(PASSPHRASE_BYTES_MAX + 2).removesuffix(b"\n")
    try:
        passphrase = data.decode()
    except UnicodeDecodeError:
        passphrase = ""
    if not 0 < len(data) <= PASSPHRASE_BYTES_MAX or not passphrase or "\0" in passphrase:
        raise failed(
            f"{path} holds no passphrase: 1 to {PASSPHRASE_BYTES_MAX} bytes of UTF-8 text",
            code="invalid-request",
            kept="nothing was sent",
            next_step="a file with the passphrase and nothing else",
        )
    return passphrase


def write_key_file(path: Path, passphrase: str) -> None:
    """For its owner alone, in place of what is there."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(passphrase)
