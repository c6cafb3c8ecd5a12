"""`vws token`: who may talk to the site."""

from __future__ import annotations

from typing import Any

import click

from vws.cli import output
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options
from vws.cli.sizes import DURATION

Json = dict[str, Any]


@click.group()
def token() -> None:
    """Tokens: who may talk to the site (for administrators).

    \b
    Examples:
      vws token create ada
      vws token list
    """


@token.command()
@site_options
@click.option("--role", type=click.Choice(["user", "admin"]), default="user", show_default=True, help="What it allows.")
@click.option(
    "--for", "lifetime_s", type=DURATION, metavar="DURATION", help="How long it is good for.  [default: for ever]"
)
@click.argument("subject", metavar="USER", type=NAME)
@pass_session
def create(session: Session, subject: str, role: str, lifetime_s: int | None) -> None:
    """Make a token for a user. It is shown this once: the site keeps only its hash.

    \b
    Examples:
      vws token create ada
      vws token create ops --role admin --for 30d
      export VWS_TOKEN=$(vws token create ada --json | jq -r .token)
    """
    made = session.client.create_token(subject, role, lifetime_s)
    if session.as_json:
        output.print_json(made)
        return
    click.echo(f"A token of role {role} for {subject}, shown this once ({made['id']}):", err=True)
    click.echo(made["token"])


def state_of(t: Json) -> str:
    if t["revoked_at"] is not None:
        return f"revoked {output.until(t['revoked_at'])}"
    return f"ends {output.until(t['expires_at'])}" if t["expires_at"] is not None else "good"


COLUMNS: list[output.Column] = [
    ("ID", lambda t: t["id"]),
    ("FOR", lambda t: t["subject"]),
    ("ROLE", lambda t: t["role"]),
    ("MADE", lambda t: output.moment(t["created_at"])),
    ("STATE", state_of),
]


@token.command("list")
@site_options
@pass_session
def list_tokens(session: Session) -> None:
    """List the tokens; their secrets are not kept anywhere.

    \b
    Examples:
      vws token list
    """
    output.listing(list(session.client.tokens()), COLUMNS, as_json=session.as_json, empty="There are no tokens.")


@token.command()
@site_options
@click.argument("token_id", metavar="ID", type=NAME)
@pass_session
def revoke(session: Session, token_id: str) -> None:
    """Make a token useless, at once.

    \b
    Examples:
      vws token revoke tok-01jd2k
    """
    revoked = session.client.revoke_token(token_id)
    if session.as_json:
        output.print_json(revoked)
    else:
        click.echo(f"{token_id} is revoked.")
