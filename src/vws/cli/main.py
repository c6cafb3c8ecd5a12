"""`vws`: the group of all commands.

Each sub-command's module is imported when it is named, because `vws --help` and
`vws ssh` are typed a hundred times a day and must not wait for what they do not
use. What fails is told in one place, `failures.py`.
"""

from __future__ import annotations

import errno
import importlib
import os
from typing import Any

import click

from vws.cli.failures import Failed, failure_of
from vws.cli.session import Session, site_options

MODULES = {
    "doctor": "vws.cli.doctor:doctor",
    "site": "vws.cli.site:site",
    "image": "vws.cli.image:image",
    "lease": "vws.cli.lease:lease",
    "cluster": "vws.cli.cluster:cluster",
    "address": "vws.cli.address:address",
    "context": "vws.cli.context:context",
    "workspace": "vws.cli.workspace:workspace",
    "ssh": "vws.cli.ssh:ssh",
    "tunnel": "vws.cli.tunnel:tunnel",
    "plan": "vws.cli.plan:plan",
    "node": "vws.cli.node:node",
    "events": "vws.cli.events:events",
    "usage": "vws.cli.usage:usage",
    "token": "vws.cli.token:token",
    "simulate": "vws.cli.simulate:simulate",
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use and listed in the order of `MODULES`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        module, _, attribute = MODULES[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        session = ctx.ensure_object(Session)
        try:
            return super().invoke(ctx)
        except Exception as error:
            failure = _failure(error)
            if failure is None:
                raise
            failure.as_json = session.as_json
            failure.wording = session.wording
            failure.next_step = session.named(failure.next_step)
            raise failure from error
        finally:
            session.close()


def _failure(error: Exception) -> Failed | None:
    """`error` as a failure to show; None for what click handles itself (a broken pipe, usage) and for our own bugs."""
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return None
    if "VWS_DEBUG" in os.environ and not isinstance(error, Failed):
        return None
    return failure_of(error)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from vws import __version__

        click.echo(f"vws {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@site_options
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Lease virtual machines from a site of the Virtual Workspace Service.

    \b
    Examples:
      vws doctor                                      can this machine run virtual machines?
      vws site init; vws site start --detach          a site on this machine
      vws image import demo.vws --name demo
      vws lease request --image demo -n 3 --for 2h --wait
      vws ssh demo-1 -- uptime
      vws lease list --json

    \b
    Environment:
      VWS_DIR                    a site's directory on this machine
      VWS_URL VWS_TOKEN VWS_CA   a site elsewhere: its address, your token, its authority's certificate
      VWS_DEBUG                  show where in the program an error came from

    \b
    Completion (bash; zsh and fish likewise):
      eval "$(_VWS_COMPLETE=bash_source vws)"

    Exit status: 0 done, 1 refused or failed, 2 the command line cannot be understood.
    """
    ctx.ensure_object(Session)


def main() -> None:
    cli.main(prog_name="vws")


if __name__ == "__main__":
    main()
