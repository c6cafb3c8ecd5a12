"""What a command line says to all commands: which site, and in which form to answer.

`--dir` and `--json` may stand before the sub-command or after it, the later one
wins. A site is found in this order: `--dir`, then VWS_URL (with VWS_TOKEN and
VWS_CA), then VWS_DIR, then the default directory. The client is made when a
command first needs it, because importing an HTTP library takes longer than
everything else that `vws --help` does.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vws.cli.wording import Wording

F = TypeVar("F", bound=Callable[..., Any])


def connect(session: Session) -> Any:
    """The `vws.client.Client` of the site that `session` names."""
    from vws.client import Client

    return Client.from_dir(session.explicit_directory) if session.explicit_directory else Client.from_environment()


def user_cache() -> Path:
    """Where the command line keeps what it can fetch again (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vws"


class Session:
    """One invocation of `vws`. Tests hand in a `connect` of their own."""

    def __init__(self, connect: Callable[[Session], Any] = connect) -> None:
        self.explicit_directory: Path | None = None
        self.as_json = False
        self.command: click.Context | None = None  # the innermost one that was given
        self._connect = connect
        self._client: Any = None

    @property
    def wording(self) -> Wording:
        """In whose words a refusal is told."""
        return Wording() if self.command is None else Wording.of(self.command)

    @property
    def client(self) -> Any:
        if self._client is None:
            self._client = self._connect(self)
        return self._client

    @property
    def is_elsewhere(self) -> bool:
        """The site is named by a URL, so it has no directory here."""
        return self.explicit_directory is None and bool(os.environ.get("VWS_URL"))

    @property
    def directory(self) -> Path:
        """The site's directory on this machine (absolute); it need not exist."""
        if self.explicit_directory:
            return self.explicit_directory
        from vws.config import default_directory

        return default_directory().absolute()

    def named(self, advice: str) -> str:
        """`advice` with its commands naming the site as this command line did, so that they can be copied."""
        if self.explicit_directory is None:
            return advice
        return re.sub(r"\bvws (?=[a-z])", f"vws --dir {shlex.quote(str(self.explicit_directory))} ", advice)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


pass_session = click.make_pass_decorator(Session, ensure=True)


def _keep_directory(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(Session).explicit_directory = value.expanduser().absolute()


def _keep_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    session = ctx.ensure_object(Session)
    session.command = ctx
    if value:
        session.as_json = True


def dir_option(command: F) -> F:
    return click.option(
        "--dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        expose_value=False,
        callback=_keep_directory,
        help="The site's directory (else VWS_URL, VWS_DIR, or the default one).",
    )(command)


def json_option(command: F) -> F:
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_keep_json,
        help="Print JSON; errors too, on stderr.",
    )(command)


def site_options(command: F) -> F:
    """What every command that talks to a site takes."""
    return dir_option(json_option(command))
