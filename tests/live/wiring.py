"""Machines in namespaces, with cables between them: what tests of a node's networks plug in instead of guests."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.hypervisors import machine_network
from vws.node.namespace import Namespace

PREFIX = f"vws-test-{os.getpid()}-"


@contextlib.contextmanager
def nothing_stays() -> Iterator[None]:
    """The machine's own network is as before, and no namespace of these tests is left."""
    before = machine_network()
    yield
    assert machine_network() == before
    assert list(Path("/run/netns").glob(f"{PREFIX}*")) == []


def namespace(name: str) -> Namespace:
    place = Namespace(PREFIX + name)
    place.make()
    return place


def cable(one: Namespace, its: str, other: Namespace, theirs: str) -> None:
    one.commands.run("ip", "link", "add", its, "type", "veth", "peer", "name", theirs, "netns", other.name)
    one.commands.run("ip", "link", "set", its, "up")
    other.commands.run("ip", "link", "set", theirs, "up")


def until(so: Callable[[], bool], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def udp(place: Namespace, address: str = "", port: int = 0) -> socket.socket:
    """A socket of that place."""

    def bound() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, port))
        sock.settimeout(5)
        return sock

    return place.inside(bound).result()


def arrives(
    sender: socket.socket, heard: socket.socket, to: tuple[str, int], tries: int = 50
) -> tuple[str, int] | None:
    """Sent again and again, for a bridge takes a moment to forward: whom it came from, None if it never came."""
    for _ in range(tries):
        try:
            sender.sendto(b"hello", to)
        except OSError:  # no way there, or the last one came back
            time.sleep(0.02)
            continue
        if select.select([heard], [], [], 0.1)[0]:
            data, source = heard.recvfrom(100)
            assert data == b"hello"
            return source
    return None


def asked(place: Namespace, server: str, name: str, tries: int = 30) -> bytes | None:
    """What the name server says when it is asked for the address of `name`: its answer's last bytes hold it."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    with udp(place) as sock:
        for _ in range(tries):
            try:
                sock.sendto(b"\0\7\1\0\0\1\0\0\0\0\0\0" + question + b"\0\1\0\1", (server, 53))
            except OSError:
                time.sleep(0.02)
                continue
            if select.select([sock], [], [], 0.1)[0]:
                try:
                    answer = sock.recv(512)
                except OSError:
                    continue
                assert answer[:2] == b"\0\7"
                return answer
    return None
