"""What VWS adds to libvirt: from a lease request sent to a guest that answers ssh, against a bare script.

The bare script does what nobody can do without: an overlay by qemu-img, define, start. It runs on the same node, with
the same libvirtd, image and definition: the one that VWS made for a workspace, under another name, without VWS's mark
(so that the agent leaves it alone) and on an overlay of its own. Of that workspace it borrows the address and the
NoCloud disk while the workspace itself is suspended; a script would have to make them first, which is not counted.

Both are polled alike, by a loop that asks for the SSH server's name from within the node's network, and take turns, so
that both meet the same machine. What the agent's own polling costs the guest is VWS's to pay.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from bench.measure import Number, Section, median, spread
from bench.sites import Api, await_active, await_ended, lease_request, real_site, wait_while
from vws.node.daemons import SEEN_IN_RUN, qemu_ids
from vws.node.domain_xml import MARK
from vws.node.namespace import Namespace
from vws.node.naming import domain_name, tag_of

LIMIT_S = 120.0
ASK_AGAIN_S = 0.02
TARGET_S = 0.5
TARGET_RATIO = 1.1


def run(quick: bool) -> Section:
    if os.geteuid() != 0:
        raise SystemExit("bench overhead needs root: it makes virtual machines")
    times = 1 if quick else 10
    with real_site() as site, Api(site.path) as api, Host.of(site.path) as host:
        bare = BareScript.of(api, host)
        through_vws(api, host), bare.run()  # the first of anything is slower
        turns = [(through_vws(api, host), bare.run()) for _ in range(times)]
        node = next(api.all("/nodes"))
    how = (
        f"From the request to the guest's SSH banner; the demo appliance, 1 CPU, 160 MiB, by {node['hypervisor']} "
        f"({node['hypervisor_reason']}). Medians of {times} each, in turn; `{Path(__file__).name}` says what the bare "
        "script does."
    )
    return Section("overhead", "VWS against bare libvirt", how, tuple(_numbers(turns)))


@dataclass(frozen=True)
class Through:
    """answered_s: until the request was granted; up_s: until the guest answered; active_s: until VWS said so."""

    answered_s: float
    up_s: float
    active_s: float


@dataclass(frozen=True)
class Bare:
    """made_s: until the overlay was there; started_s: until the domain ran; up_s: until the guest answered."""

    made_s: float
    started_s: float
    up_s: float


def _numbers(turns: list[tuple[Through, Bare]]) -> Iterator[Number]:
    vws, bare = [t.up_s for t, _ in turns], [b.up_s for _, b in turns]
    ratio = median(vws) / median(bare)
    # Turn by turn: what disturbed both of a turn is in neither difference.
    more = [t.up_s - b.up_s for t, b in turns]
    made_s, started_s = median([b.made_s for _, b in turns]), median([b.started_s for _, b in turns])
    steps = f"overlay after {made_s:.2f} s, started after {started_s:.2f} s"
    granted = f"granted after {1000 * median([t.answered_s for t, _ in turns]):.0f} ms"
    yield Number("bare script", median(bare), "s", None, f"{spread(bare, 's')}; {steps}")
    yield Number("through VWS", median(vws), "s", None, f"{spread(vws, 's')}; {granted}")
    yield Number("VWS adds", median(vws) - median(bare), "s", TARGET_S, f"turn by turn {spread(more, 's')}")
    yield Number("VWS by bare", ratio, "×", TARGET_RATIO)
    told = [t.active_s - t.up_s for t, _ in turns]
    yield Number("guest answers to lease active", median(told), "s", None, spread(told, "s"))


# ---------------------------------------------------------------- the host


@dataclass(frozen=True)
class Host:
    """The node's own libvirtd and network, as its agent made them. `directory`: the node's."""

    directory: Path
    place: Namespace
    libvirt: Any

    @classmethod
    @contextlib.contextmanager
    def of(cls, site: Path) -> Iterator[Host]:
        directory = (site / "node").resolve()
        place = Namespace(f"vws-{tag_of(directory)}")
        sockets = os.open(directory / "libvirt/run/libvirt", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection = libvirt.open(f"qemu+unix:///system?socket=/proc/self/fd/{sockets}/libvirt-sock")
        try:
            yield cls(directory, place, connection)
        finally:
            connection.close()
            os.close(sockets)
            place.let_go()

    def seen(self, path: Path) -> str:
        """As QEMU sees a path of the node's directory."""
        return f"{SEEN_IN_RUN}/{path.relative_to(self.directory)}"

    def await_banner(self, address: str) -> None:
        until = time.monotonic() + LIMIT_S
        while not self._answers(address):
            if time.monotonic() > until:
                raise TimeoutError(f"the guest at {address} did not answer within {LIMIT_S:.0f} s")
            time.sleep(ASK_AGAIN_S)

    def _answers(self, address: str) -> bool:
        asking = self.place.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)).result()
        with asking, contextlib.suppress(OSError):
            asking.settimeout(0.3)
            asking.connect((address, 22))
            asking.settimeout(2.0)
            return bool(asking.recv(64).startswith(b"SSH-"))
        return False


# ---------------------------------------------------------------- through VWS


def through_vws(api: Api, host: Host) -> Through:
    at, begin = time.time(), time.perf_counter()
    lease = api.call("POST", "/leases", lease_request(1))
    answered_s = time.perf_counter() - begin
    host.await_banner(lease["workspaces"][0]["addresses"][0])
    up_s = time.perf_counter() - begin
    active_at = await_active(api, LIMIT_S, lease["id"])
    api.call("DELETE", f"/leases/{lease['id']}")
    await_ended(api, LIMIT_S, lease["id"])
    return Through(answered_s, up_s, active_at - at)


# ---------------------------------------------------------------- the bare script


@dataclass(frozen=True)
class BareScript:
    """overlay: where the disk goes; base: the image below it and its format."""

    host: Host
    definition: str
    address: str
    overlay: Path
    base: tuple[str, str] | None

    @classmethod
    def of(cls, api: Api, host: Host) -> BareScript:
        """By way of a workspace that VWS made, suspended afterwards."""
        lease = api.call("POST", "/leases", lease_request(1))
        await_active(api, LIMIT_S, lease["id"])
        workspace = lease["workspaces"][0]
        api.call("POST", f"/workspaces/{workspace['id']}/suspend")
        shown = f"/workspaces/{workspace['id']}"
        wait_while(lambda: api.call("GET", shown)["state"] != "suspended", LIMIT_S, "it is not suspended")
        overlay = host.directory / "workspaces" / workspace["id"] / "bare.qcow2"
        domain = ET.fromstring(host.libvirt.lookupByName(domain_name(workspace["id"])).XMLDesc())
        base = _backing(domain)
        text = bare_definition(domain, host.seen(overlay), host.seen(host.directory / "consoles" / "bare.log"))
        return cls(host, text, workspace["addresses"][0], overlay, base)

    def run(self) -> Bare:
        begin = time.perf_counter()
        self._make_overlay()
        made_s = time.perf_counter() - begin
        domain = self.host.libvirt.defineXML(self.definition)
        try:
            domain.create()
            started_s = time.perf_counter() - begin
            self.host.await_banner(self.address)
            up_s = time.perf_counter() - begin
        finally:
            if domain.isActive():
                domain.destroy()
            domain.undefine()
            self.overlay.unlink()
        return Bare(made_s, started_s, up_s)

    def _make_overlay(self) -> None:
        # Relative to the overlay, as QEMU will see it.
        backing = ["-F", self.base[1], "-b", f"../../images/{self.base[0]}"] if self.base else []
        command = ["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self.overlay), "1024M"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        os.chown(self.overlay, *qemu_ids())


def bare_definition(domain: ET.Element, overlay: str, console: str) -> str:
    """VWS's definition under another name, unmarked, on another disk, with another console."""
    domain.attrib.pop("id", None)
    for tag in ("name", "uuid", "title", "metadata"):
        for element in domain.findall(tag):
            domain.remove(element)
    ET.SubElement(domain, "name").text = "bare"
    disk = domain.find("devices/disk/source")
    assert disk is not None
    disk.set("file", overlay)
    for source in (*domain.findall("devices/serial/source"), *domain.findall("devices/console/source")):
        source.set("path", console)
    text = ET.tostring(domain, encoding="unicode")
    assert MARK not in text
    return text


def _backing(domain: ET.Element) -> tuple[str, str] | None:
    """(sha256, format) of the image under the disk."""
    below = domain.find("devices/disk/backingStore")
    source, form = (below.find("source"), below.find("format")) if below is not None else (None, None)
    if source is None or form is None:
        return None
    return Path(source.get("file", "")).name, form.get("type", "")
