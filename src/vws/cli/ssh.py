"""`vws ssh`: the system's own ssh, led through the site into the workspace.

Nobody outside can route to a workspace, so ssh's ProxyCommand is `vws tunnel`,
which carries the bytes through the service and the node's agent. The node made
the guest's host key, so it is known before the first connection: ssh gets it in
a file of its own with strict checking, and there is no first-use question to
answer with a thoughtless yes. Options of the user's come first on ssh's command
line, where the first of two wins.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from vws.cli.failures import failed
from vws.cli.keys import operator_key, usual_keys
from vws.cli.names import NAME
from vws.cli.session import Session, pass_session, site_options

WHAT_TO_DO = {
    "planned": "wait for it: vws lease show {lease}",
    "staging": "wait for it: vws lease show {lease}",
    "starting": "wait for it: vws lease show {lease}; see it boot: vws workspace console {name} --follow",
    "paused": "vws workspace resume {name}",
    "suspended": "vws workspace restore {name}",
    "stopped": "start it again: vws workspace reboot {name}",
    "failed": "its last words: vws workspace console {name}; ask for another lease",
    "terminated": "ask for another lease: vws lease request --image {image} --for 1h --wait",
    "lost": "see its node: vws node show {node_name}; it comes back with it",
}

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SshCommand(click.Command):
    """Reads its line as ssh does: options stand before or after the host, the first other word begins the command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = self._words(ctx, args)
        if not words:
            return super().parse_args(ctx, args)
        before, host, after = args[: len(args) - len(words)], words[0], words[1:]
        command = self._words(ctx, after)
        options = after[: len(after) - len(command)]
        if options[-1:] == ["--"]:
            options.pop()
        return super().parse_args(ctx, [*before, *options, "--", host, *command])

    def _words(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`args` from the first that is neither an option nor an option's value."""
        found, _, _ = self.make_parser(ctx).parse_args(list(args))
        host, command = found["workspace"], found["command"]
        return [word for word in (host, *(command if isinstance(command, tuple) else ())) if isinstance(word, str)]


@click.command(cls=SshCommand, context_settings={"allow_interspersed_args": False})
@site_options
@click.option("-l", "user", metavar="USER", help="Log in as this user (else the one that the image names).")
@click.option("-i", "identities", multiple=True, metavar="FILE", help="Another private key to try.")
@click.option("-o", "options", multiple=True, metavar="OPTION", help="An option of ssh's, as in ssh -o.")
@click.option("-L", "locals_", multiple=True, metavar="FORWARD", help="Forward a port here into the workspace.")
@click.option("-R", "remotes", multiple=True, metavar="FORWARD", help="Forward a port of the workspace to here.")
@click.option("-D", "dynamics", multiple=True, metavar="PORT", help="A SOCKS proxy here that leads into the workspace.")
@click.option("-t", "force_terminal", is_flag=True, help="Give the command a terminal.")
@click.option("-N", "no_command", is_flag=True, help="Run no command: forward ports only.")
@click.option("-A", "forward_agent", is_flag=True, help="Forward the ssh agent.")
@click.option("-v", "verbose", count=True, help="ssh tells what it does; twice or thrice for more.")
@click.argument("workspace", type=NAME)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_session
def ssh(session: Session, /, workspace: str, command: tuple[str, ...], user: str | None, **given: Any) -> None:
    """Log in to a workspace, or run a command there.

    Works from any machine that reaches the site: the connection runs through the service, and the guest's host key is
    known beforehand. The exit status is the command's own (255 when ssh itself fails).

    \b
    Examples:
      vws ssh demo-1
      vws ssh demo-1 -- uname -a
      vws ssh -L 8080:localhost:80 demo-1          the guest's port 80 at localhost:8080
      tar c . | vws ssh demo-1 -- tar x -C /srv    copy a folder
    """
    target = session.client.workspace(workspace)
    check_reachable(target)
    check_real(target, session.client.node(target["node"]))
    with tempfile.TemporaryDirectory(prefix="vws-ssh-") as folder:
        known_hosts = Path(folder) / "known_hosts"
        known_hosts.write_text(f"{host_alias(target)} {target['host_key']}\n")
        line = ssh_command(session, target, known_hosts, user, given, command)
        status = _run(line)
    raise SystemExit(status if status >= 0 else 128 - status)


def check_reachable(workspace: dict[str, Any]) -> None:
    """Raise a failure that says what to do, unless ssh can get in."""
    state = workspace["state"]
    if state != "running":
        why = f": {workspace['reason']}" if workspace.get("reason") else ""
        advice = WHAT_TO_DO.get(state, "wait a moment and try again: vws workspace show {name}")
        raise failed(
            f"{workspace['name']} is {state}, not running{why}",
            code="not-running",
            next_step=advice.format(**workspace),
        )
    if not workspace.get("host_key"):
        raise failed(
            f"{workspace['name']} runs, but its ssh host key is not known: its image takes none from VWS",
            code="no-host-key",
            next_step=f"look at its console: vws workspace console {workspace['name']}",
        )


def check_real(workspace: dict[str, Any], node: dict[str, Any]) -> None:
    """A fake node's guest answers with what it hears, which ssh reports as a broken packet."""
    if node["hypervisor"] == "fake":
        raise failed(
            f"{workspace['name']} is simulated: its node {node['name']} is a fake one, and nothing runs inside",
            code="simulated",
            next_step="lease from a site with real nodes; vws workspace console shows what a guest would print",
        )


def host_alias(workspace: dict[str, Any]) -> str:
    """The name under which the host key is known: names come again with other leases, ids never."""
    return f"vws-{workspace['id']}"


def ssh_command(
    session: Session,
    workspace: dict[str, Any],
    known_hosts: Path,
    user: str | None,
    given: dict[str, Any],
    command: tuple[str, ...],
) -> list[str]:
    """The whole argument list of ssh."""
    line = ["ssh", *_given_options(given)]
    for name, value in _options(session, workspace, known_hosts).items():
        line += ["-o", f"{name}={value}"]
    # With IdentityFile named, ssh no longer tries its usual files by itself. The last are therefore named too.
    for key in [operator_key(session), *usual_keys()]:
        line += ["-o", f"IdentityFile={_quoted(key)}"]
    line += ["-l", user or workspace.get("user") or "root", "--", workspace["name"]]
    return [*line, *command]


def _given_options(given: dict[str, Any]) -> list[str]:
    line = []
    for flag, name in (
        ("-o", "options"),
        ("-L", "locals_"),
        ("-R", "remotes"),
        ("-D", "dynamics"),
        ("-i", "identities"),
    ):
        for value in given.get(name) or ():
            line += [flag, value]
    line += [
        flag
        for flag, name in (("-t", "force_terminal"), ("-N", "no_command"), ("-A", "forward_agent"))
        if given.get(name)
    ]
    return line + ["-v"] * (given.get("verbose") or 0)


def _options(session: Session, workspace: dict[str, Any], known_hosts: Path) -> dict[str, str]:
    return {
        "ProxyCommand": proxy_command(session, workspace),
        "HostKeyAlias": host_alias(workspace),
        "UserKnownHostsFile": _quoted(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        # Until the guest has said that it speaks ssh, ssh itself would wait for ever.
        "ConnectTimeout": "90",
        # A guest that died says nothing more; the session ends after a minute of that.
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
        # A connection shared by name may lead to an earlier workspace of the same name.
        "ControlPath": "none",
        # An agent with many keys would use up the guest's patience before the right one is tried.
        "IdentitiesOnly": "yes",
    }


def _quoted(path: Path) -> str:
    """A file name as ssh's configuration reads it: tokens begin with %, quotes keep blanks together."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def proxy_command(session: Session, workspace: dict[str, Any]) -> str:
    """`vws tunnel` for this workspace, quoted for the shell that ssh hands it to and for ssh's own % tokens."""
    # -P: a file click.py in the working directory must not become part of this program.
    line = [sys.executable, "-P", "-m", "vws.cli.main"]
    if session.explicit_directory:
        line += ["--dir", str(session.explicit_directory)]
    return shlex.join([*line, "tunnel", workspace["id"]]).replace("%", "%%")


def _run(line: list[str]) -> int:
    """Run ssh in the foreground; its exit status. Signals are passed on: what they mean is ssh's to say, and a tunnel
    that outlives the one who opened it serves nobody."""
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, _: object) -> None:
        if started:
            started[0].send_signal(number)
        else:
            early.append(number)

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        started.append(subprocess.Popen(line))
        for number in early:
            started[0].send_signal(number)
        return started[0].wait()
    except FileNotFoundError:
        raise failed("ssh is not installed", next_step="apt-get install openssh-client") from None
    finally:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)
