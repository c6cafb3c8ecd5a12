"""The ssh keys that go into a lease: the user's own, and one of VWS's for `vws ssh`.

VWS keeps an operator key beside the site's directory (or in the user's
configuration for a site elsewhere) and adds it to every lease, so that
`vws ssh` works at once, whatever keys or agents the user has. Only public keys
ever leave the machine: a private one that is named by mistake is replaced by
its public half, or refused when that is not beside it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from vws.cli.failures import failed
from vws.cli.session import Session
from vws.core.errors import InvalidRequest
from vws.core.terms import check_ssh_key

USUAL_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")


def usual_keys() -> list[Path]:
    """The user's private key files that ssh itself would try."""
    return [path for name in USUAL_NAMES if (path := Path.home() / ".ssh" / name).is_file()]


def keys_for_lease(session: Session, files: Iterable[Path]) -> list[str]:
    """Public keys, each once: those in `files` (or the user's usual ones), and always VWS's own."""
    chosen = list(files) or [p for key in USUAL_NAMES if (p := Path.home() / ".ssh" / f"{key}.pub").is_file()]
    keys = [key for file in chosen for key in read_public_keys(file)]
    return list(dict.fromkeys([*keys, public_key(operator_key(session))]))


def read_public_keys(file: Path) -> list[str]:
    """The keys of a public key file, one a line."""
    text = _read(file)
    if "PRIVATE KEY" in text:
        public = file.with_name(file.name + ".pub")
        if not public.is_file():
            raise failed(
                f"{file} is a private key, which must stay on your machine, and there is no {public.name} beside it",
                kept="nothing was sent",
                next_step=f"write its public half: ssh-keygen -y -f {file} > {public}",
            )
        text = _read(public)
        file = public
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise failed(f"{file} is empty", kept="nothing was sent", next_step="name a public key file, such as id.pub")
    return [_checked(line, file) for line in lines]


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except UnicodeDecodeError:
        raise failed(f"{file} is not a text file, so no ssh public key", kept="nothing was sent") from None


def _checked(line: str, file: Path) -> str:
    try:
        return check_ssh_key(line, "ssh_keys")
    except InvalidRequest as error:
        raise failed(f"{file}: {error.problem}", possible=error.possible, kept="nothing was sent") from None


def operator_key(session: Session) -> Path:
    """VWS's own private key for this site; made when there is none."""
    folder = _folder(session)
    key = folder / "id_ed25519"
    if not key.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _generate(key)
    return key


def _folder(session: Session) -> Path:
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "vws"
    if session.is_elsewhere or not os.access(session.directory, os.W_OK):
        return own
    return session.directory / "keys"


def _generate(key: Path) -> None:
    """Make the pair aside and link it into place: of two commands at once, one wins and both use its key."""
    with tempfile.TemporaryDirectory(dir=key.parent, prefix=".new-") as aside:
        fresh = Path(aside) / key.name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vws", "-f", str(fresh)]
        _run(command)
        try:
            os.link(fresh, key)
        except FileExistsError:
            return
        os.replace(fresh.with_name("id_ed25519.pub"), key.with_name("id_ed25519.pub"))


def public_key(private: Path) -> str:
    public = private.with_name(private.name + ".pub")
    return (public.read_text() if public.exists() else _run(["ssh-keygen", "-y", "-f", str(private)])).strip()


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise failed(f"{command[0]} is not installed", next_step="apt-get install openssh-client") from None
    if done.returncode != 0:
        raise failed(f"{command[0]} failed: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout
