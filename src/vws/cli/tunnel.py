"""`vws tunnel`: stdin and stdout, connected to a port of a workspace.

Both ways run until the guest closes. The end of stdin alone closes nothing,
since an answer may still come; but when nobody reads stdout any more (ssh was
killed), the tunnel is closed, so that the guest learns of it.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from typing import Protocol

import click

from vws.cli.names import NAME
from vws.cli.session import Session, dir_option, pass_session

CHUNK_BYTES = 65536


class Tunnel(Protocol):
    def read(self) -> bytes:
        """b"" at the end."""
        ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


@click.command()
@dir_option
@click.option("--port", default=22, show_default=True, type=click.IntRange(1, 65535), help="The guest's TCP port.")
@click.argument("workspace", type=NAME)
@pass_session
def tunnel(session: Session, workspace: str, port: int) -> None:
    """Connect stdin and stdout to a port of a workspace.

    This is how ssh, or any program with a proxy command, reaches a guest through the site.

    \b
    Examples:
      vws tunnel demo-1 --port 80 < request.txt
      ssh -o ProxyCommand='vws tunnel demo-1' root@demo-1
    """
    carry(session.client.tunnel(workspace, port=port), sys.stdin.fileno(), sys.stdout.fileno())


def carry(tunnel: Tunnel, source: int, target: int) -> None:
    """Copy `source` into the tunnel and the tunnel into `target` (file descriptors) until the far end closes."""
    threading.Thread(target=_send, args=(tunnel, source, target), daemon=True).start()
    try:
        while data := tunnel.read():
            _write_all(target, data)
    except BrokenPipeError:
        pass  # nobody reads any more: as good as closed
    finally:
        tunnel.close()


def _send(tunnel: Tunnel, source: int, target: int) -> None:
    try:
        while data := os.read(source, CHUNK_BYTES):
            tunnel.write(data)
        _await_no_reader(target)
    except Exception:
        pass  # the far end closed; the reading side tells why, if there is anything to tell
    finally:
        tunnel.close()


def _await_no_reader(target: int) -> None:
    """Return when the reading end of `target` is closed; a file or a terminal has none that could be."""
    poll = select.poll()
    poll.register(target, 0)
    poll.poll()


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
