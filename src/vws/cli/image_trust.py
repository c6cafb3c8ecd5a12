"""`vws image trust`, `policy`, `revoke`, `decisions`: whose word counts, what may run, what ran."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path
from typing import Any

import click

from vws.cli import output
from vws.cli.events import line_of
from vws.cli.failures import failed, one_line
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options

Json = dict[str, Any]
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
REASON = click.option("--reason", required=True, metavar="TEXT", help="For those who will be refused.")
END = click.option("--end", is_flag=True, help="End what runs, too.")


# ---------------------------------------------------------------- signers


@click.group()
def trust() -> None:
    """Signers: whose word about images counts, where the image policy says so.

    \b
    Examples:
      vws image trust add desy --key maker.key.pub
      vws image trust list
      vws image trust revoke desy --reason 'its key was stolen'
    """


@trust.command()
@site_options
@click.option("--key", "key_file", required=True, metavar="FILE", type=FILE,
              help="His public key or certificate; an authority's counts for all that it certifies.")  # fmt: skip
@click.option("--chain", metavar="FILE", type=FILE,
              help="Certificates of intermediate authorities, which signatures need not bring then.")  # fmt: skip
@click.argument("name", metavar="NAME", type=NAME)
@pass_session
def add(session: Session, name: str, key_file: Path, chain: Path | None) -> None:
    """Put a signer on record, under the name that the image policy calls him by. The same again, with another --chain
    or a renewed certificate of the same key, takes its place.

    \b
    Examples:
      vws image trust add desy --key maker.key.pub
      vws image trust add grid --key authority.pem --chain intermediate.pem
    """
    between = pem_of(chain) if chain else ""
    added = session.client.add_signer(name, f"{pem_of(key_file).rstrip()}\n{between}")
    if session.as_json:
        output.print_json(added)
        return
    click.echo(f"{added['name']} is on record: {added['kind']} {added['keyid'][:12]}.")
    click.echo("He counts where the policy names him: " + session.named("vws image policy show"))


def pem_of(path: Path) -> str:
    """What a file in PEM holds. Raises Failed for another one."""
    content = path.read_bytes()
    if b"-----BEGIN" not in content:
        raise failed(
            f"{path} is no key, certificate or list in PEM: it has no line -----BEGIN ...",
            code="invalid-request",
            next_step="a certificate in DER becomes one: openssl x509 -inform der -in FILE -out NEW.pem",
        )
    return content.decode(errors="replace")


@trust.command()
@site_options
@click.option("--file", "crl_file", metavar="FILE", type=FILE, help="The list (CRL), PEM or DER.")
@click.option("--drop", is_flag=True, help="Forget the lists instead: what they took back counts again.")
@click.argument("name", metavar="NAME", type=NAME)
@pass_session
def crl(session: Session, name: str, crl_file: Path | None, drop: bool) -> None:
    """Put on record which certificates an authority took back. Nothing that was signed with one of them counts from
    now on. Once the list itself has expired, nothing that the authority certified does: bring the next one in time.

    \b
    Examples:
      vws image trust crl grid --file grid-ca.crl
      vws image trust crl grid --drop
    """
    if drop == (crl_file is not None):
        raise click.UsageError("either --file FILE or --drop")
    client = session.client
    kept = client.drop_crls(name) if crl_file is None else client.put_crl(name, _crl_pem(crl_file))
    if session.as_json:
        output.print_json(kept)
        return
    for each in kept["crls"]:
        count = output.plural(each["revoked"], "certificate")
        click.echo(f"{each['issuer']} took {count} back; its list holds until {output.moment(each['expires_at'])}.")
    if not kept["crls"]:
        click.echo(f"No list of revoked certificates is on record for {name}.")


def _crl_pem(path: Path) -> str:
    """Authorities publish them in either form."""
    content = path.read_bytes()
    if b"-----BEGIN" in content:
        return pem_of(path)
    body = base64.encodebytes(content).decode()
    return f"-----BEGIN X509 CRL-----\n{body}-----END X509 CRL-----\n"


SIGNERS: list[output.Column] = [
    ("NAME", lambda s: s["name"]),
    ("KIND", lambda s: s["kind"]),
    ("KEY", lambda s: s["keyid"][:12]),
    ("SINCE", lambda s: output.moment(s["added_at"])),
    ("BY", lambda s: s["by"]),
    ("CRL UNTIL", lambda s: output.moment(min(c["expires_at"] for c in s["crls"])) if s["crls"] else ""),
    ("REVOKED", lambda s: output.moment(s["revoked_at"]) if s["revoked_at"] else ""),
    ("REASON", lambda s: s["reason"]),
    ("ID", lambda s: s["id"]),
]
REVOKED: list[output.Column] = [
    ("NAME", lambda r: r["name"]),
    ("DIGEST", lambda r: f"sha256:{r['digest'][:12]}"),
    ("SINCE", lambda r: output.moment(r["made_at"])),
    ("BY", lambda r: r["by"]),
    ("REASON", lambda r: r["reason"]),
]


@trust.command("list")
@site_options
@click.option("--all", "everything", is_flag=True, help="Those who were revoked too.")
@click.option("--images", is_flag=True, help="The images that nobody may run, instead.")
@pass_session
def list_signers(session: Session, everything: bool, images: bool) -> None:
    """List who is on record.

    \b
    Examples:
      vws image trust list
      vws image trust list --images --json
    """
    if images:
        output.listing(session.client.revoked_images(), REVOKED, as_json=session.as_json, empty="No image is revoked.")
        return
    found = session.client.signers(everything=everything)
    output.listing(
        found, SIGNERS, as_json=session.as_json, empty="Nobody is on record. Next: vws image trust add NAME --key FILE"
    )


@trust.command("revoke")
@site_options
@REASON
@END
@click.argument("name", metavar="NAME", type=NAME)
@pass_session
def revoke_signer(session: Session, name: str, reason: str, end: bool) -> None:
    """Believe a signer no more: nothing that he signed starts or boots again. What runs is listed.

    \b
    Examples:
      vws image trust revoke desy --reason 'its key was stolen'
      vws image trust revoke desy --reason 'its key was stolen' --end
    """
    told = session.client.revoke_signer(name, reason, end=end)
    # By id: his name may be that of a new key by the time it is given.
    _concerned(session, told, f"{told['signer']['name']} is revoked", f"trust revoke {told['signer']['id']}")


@click.command("revoke")
@site_options
@REASON
@END
@click.option("--only", is_flag=True, help="Not what has the same disk with another kernel or kernel line.")
@click.argument("name", metavar="IMAGE", type=NAME)
@pass_session
def revoke_image(session: Session, name: str, reason: str, end: bool, only: bool) -> None:
    """Let nobody run an image any more, whatever it is called and whoever brings it again. What runs is listed.

    So is what was made from it: copies, flattened and encrypted ones, saved workspaces; and, unless you say --only,
    whatever has the very same disk, also with another kernel. What else is revoked by that is listed.

    \b
    Examples:
      vws image revoke debian-12 --reason 'its kernel lets guests out'
      vws image revoke debian-12 --reason 'its kernel lets guests out' --end
      vws image revoke anns-variant --reason 'its kernel line lets guests out' --only
    """
    told = session.client.revoke_image(name, reason, end=end, only=only)
    made = told["revocation"]
    said = f"{made['name']} is revoked"
    if told.get("before"):
        since = output.moment(made["made_at"])
        said += f" already, since {since}, and stays so for the reason given then: {made['reason']}"
    _concerned(session, told, said, f"revoke sha256:{made['digest'][:12]}")


def _concerned(session: Session, told: Json, said: str, again: str) -> None:
    if session.as_json:
        output.print_json(told)
        return
    leases = told["leases"]
    if not leases:
        click.echo(f"{said}; no lease runs by it.")
        _reached(session, told)
        return
    are = "is being ended" if len(leases) == 1 else "are being ended"
    verb = are if told["ended"] else ("runs or waits" if len(leases) == 1 else "run or wait") + " still"
    click.echo(f"{said}; {output.plural(len(leases), 'lease')} {verb}:")
    click.echo(
        output.table(["LEASE", "OWNER", "STATE", "ID"], [[e["name"], e["owner"], e["state"], e["id"]] for e in leases])
    )
    _reached(session, told)
    if not told["ended"]:
        reason = shlex.quote((told.get("signer") or told["revocation"])["reason"])
        click.echo("What runs is not booted again and what waits does not start. To end all of it:")
        click.echo("  " + session.named(f"vws image {again}") + f" --reason {reason} --end")


REACHED: list[output.Column] = [
    ("IMAGE", lambda i: i["name"]),
    ("OWNER", lambda i: i["owner"]),
    ("HOW", lambda i: i["how"]),
    ("DIGEST", lambda i: f"sha256:{i['digest'][:12]}"),
    ("ID", lambda i: i["id"]),
]


def _reached(session: Session, told: Json) -> None:
    """The images that are revoked with another."""
    images = told.get("images") or []
    if not images:
        return
    click.echo(f"{output.plural(len(images), 'other image')} can be run by nobody any more, by this:")
    output.listing(images, REACHED, as_json=False, empty="")
    if any(each["how"] == "the same disk" for each in images):
        of = f"sha256:{told['revocation']['digest'][:12]}"
        click.echo(
            "To spare what only has the same disk: " + session.named(f"vws image reinstate {of}") + ", then --only."
        )


@click.command()
@site_options
@click.argument("name", metavar="IMAGE", type=NAME)
@pass_session
def reinstate(session: Session, name: str) -> None:
    """Let an image that was revoked run again, as the policy says, with all that was made from it.

    One that was removed meanwhile is named by what it was called when it was revoked, or by its digest, as
    `vws image trust list --images` has them.

    \b
    Examples:
      vws image reinstate debian-12
      vws image reinstate sha256:4f1c2a9be07d
    """
    told = session.client.reinstate_image(name)
    if session.as_json:
        output.print_json(told)
    elif told.get("still"):
        click.echo(f"{told['name']} is not revoked itself any more, but may not run yet: {told['still']['why']}.")
        click.echo("Next: " + session.named(f"vws image reinstate sha256:{told['still']['digest'][:12]}"))
    else:
        click.echo(f"{told['name']} may run again, as the policy says.")


ATTESTATIONS: list[output.Column] = [
    ("SIGNED BY", lambda a: ", ".join(a["signers"]) or "nobody who counts"),
    ("SIGNED", lambda a: output.moment(a["signed_at"])),
    ("EXPIRES", lambda a: output.moment(a["expires"])),
    ("SAYS", lambda a: one_line(_said(a["assertions"])) if a["signers"] else ""),
    ("PROBLEM", lambda a: one_line(a["problem"] or "; ".join(a["problems"]))),
]


def _said(assertions: Json) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in assertions.items())


def _shown(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


@click.command()
@site_options
@click.argument("name", metavar="IMAGE", type=NAME)
@pass_session
def attestations(session: Session, name: str) -> None:
    """List who vouches for an image, for what, and what of it counts here.

    \b
    Examples:
      vws image attestations debian-12
    """
    found = session.client.attestations(name)
    empty = f"Nobody vouches for {name}. Next: vws image sign {name} --key FILE"
    output.listing(found, ATTESTATIONS, as_json=session.as_json, empty=empty)


# ---------------------------------------------------------------- the policy


@click.group()
def policy() -> None:
    """The site's image policy: which images whom may run, and with which network.

    \b
    Examples:
      vws image policy show
      vws image policy test debian-12 --vo cms
    """


@policy.command("show")
@site_options
@pass_session
def show_policy(session: Session) -> None:
    """Print the policy in force, and what is wrong with the one in its file.

    \b
    Examples:
      vws image policy show
    """
    found = session.client.image_policy()
    if session.as_json:
        output.print_json(found)
        return
    # With the policy, wherever that goes; to TOML they are comments.
    for warning in found["warnings"]:
        click.echo(f"# Warning: {one_line(warning)}")
    if found["text"]:
        click.echo(f"# in force since {output.moment(found['since'])}")
        click.echo(found["text"].rstrip("\n"))
    elif found["blocked"]:
        click.echo("No policy can be in force, so that nothing may run.")
    else:
        click.echo("The site has no image policy: everybody may run every image that he can see, signed or not.")


@policy.command()
@site_options
@click.option("--user", metavar="USER", type=NAME, help="As for this user. Administrators only.")
@click.option("--vo", metavar="VO", help='As for a user of this VO; "" for none. Administrators only.')
@click.argument("name", metavar="IMAGE", type=NAME)
@pass_session
@click.pass_context
def test(ctx: click.Context, session: Session, name: str, user: str | None, vo: str | None) -> None:
    """Say what the policy would, and on what grounds. Nothing is changed or recorded.

    Exit status: 0 it may run, 1 it may not.

    \b
    Examples:
      vws image policy test debian-12
      vws image policy test debian-12 --vo cms --user carl
    """
    decision = session.client.judge_image(name, user=user, vo=vo)
    if session.as_json:
        output.print_json(decision)
    else:
        click.echo(verdict_of(decision))
    if not decision["allowed"]:
        ctx.exit(1)


def next_with(session: Session, name: str) -> str:
    """What its user may do next with an image that has just come: what the policy refuses is not to be leased."""
    said = session.client.judge_image(name)
    if said["allowed"]:
        return "Next: " + session.named(f"vws lease request --image {name} --for 1h --wait")
    accepted = f" Accepted: {one_line(said['possible'])}." if said["possible"] else ""
    step = session.named(f"vws image policy test {name}")
    return f"It may not run yet: {one_line(said['reason'])}.{accepted} Next: {step}"


def verdict_of(decision: Json) -> str:
    word = click.style("may run", fg="green") if decision["allowed"] else click.style("may not run", fg="red")
    lines = [f"{decision['image']} {word}: {one_line(decision['reason'])}"]
    for need in decision["needs"]:
        lines.append(f"  {'yes' if need['met'] else 'no ':3}  {one_line(need['what'])}: {one_line(need['found'])}")
    facts = [("rule", decision["rule"]), ("digest", decision["digest"])]
    facts += [("network", decision["network"])] if decision["allowed"] else []
    facts += [("vouched for by", ", ".join(decision["signers"])), ("accepted", one_line(decision["possible"]))]
    shown = output.card((name, value) for name, value in facts if value)
    return "\n".join([*lines, *(f"  {line}" for line in shown.splitlines())])


@click.command()
@site_options
@click.argument("name", metavar="IMAGE", type=NAME)
@pass_session
def decisions(session: Session, name: str) -> None:
    """Print who was allowed or refused an image, why, by whom vouched for, and where it ran.

    \b
    Examples:
      vws image decisions debian-12
      vws image decisions debian-12 --json | jq -r '.[].data.signers[]?'
    """
    found = session.client.image_decisions(name)
    if session.as_json:
        output.print_json(list(found))
        return
    none = True
    for event in found:
        none = False
        click.echo(one_line(f"{line_of(event)}{_more(event)}"))
    if none:
        click.echo("Nothing that you may see was decided about it: users see what their own leases asked.", err=True)


def _more(event: Json) -> str:
    data = event["data"]
    told = [
        ("owner", event["owner"]),
        ("at", data.get("at")),
        ("lease", data.get("lease_name")),
        ("rule", data.get("rule")),
    ]
    told += [("on", ", ".join(data.get("nodes") or ()) or event["node"])]
    return "".join(f"  {name}={value}" for name, value in told if value)


COMMANDS = (trust, revoke_image, reinstate, attestations, policy, decisions)
