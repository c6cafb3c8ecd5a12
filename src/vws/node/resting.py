"""A guest that rests while its disk is copied: all that it wrote is there, and nothing is written meanwhile.

Where QEMU's guest agent answers, it freezes the guest's file systems first: their caches are written out, so that the
copy is one of file systems that were put away in order. It has a time limit, and what was frozen is thawed whatever
happened: the record says so before, and the next agent thaws what this one left. A guest without the agent, or whose
agent does not answer, is paused alone: its copy is like the disk of a machine that lost its power, which journals mend.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace

import libvirt

from vws.core.deployment import Quiesced
from vws.faultpoints import reach
from vws.node.domain_xml import GUEST_AGENT
from vws.node.records import Records

log = logging.getLogger(__name__)

FREEZE_WITHIN_S = 5


class Resting:
    """find: the domain of a workspace."""

    def __init__(self, find: Callable[[str], libvirt.virDomain | None], records: Records) -> None:
        self._find = find
        self._records = records
        self._frozen: set[str] = set()
        self._at_rest: set[str] = set()
        self._thawing = threading.Lock()

    @contextlib.contextmanager
    def rest(self, id: str) -> Iterator[Quiesced]:
        """A while in which nothing is written to its disks, and what the hypervisor held back is there."""
        domain = self._find(id)
        if domain is None or not domain.isActive():
            yield Quiesced.OFF
        elif domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            yield Quiesced.PAUSE
        else:
            self._at_rest.add(id)
            try:
                with self._frozen_if_possible(id, domain) as by, _paused(id, domain):
                    yield by
            finally:
                self._at_rest.discard(id)

    @contextlib.contextmanager
    def _frozen_if_possible(self, id: str, domain: libvirt.virDomain) -> Iterator[Quiesced]:
        if not _has_agent(domain):
            yield Quiesced.PAUSE
            return
        self._note(id, frozen=True)
        try:
            yield Quiesced.AGENT if self._freeze(id, domain) else Quiesced.PAUSE
        finally:
            self.thaw(id)

    def _freeze(self, id: str, domain: libvirt.virDomain) -> bool:
        try:
            domain.agentSetResponseTimeout(FREEZE_WITHIN_S, 0)
            frozen = domain.fsFreeze()
        except libvirt.libvirtError as error:
            log.warning("%s: its guest agent froze nothing, it is only paused: %s", id, error.get_error_message())
            return False
        reach("agent.capture.frozen")
        return bool(frozen)

    def thaw(self, id: str) -> None:
        """What was frozen by this agent or by one before it; if the guest does not answer, `thaw_all` tries again."""
        domain = self._find(id)
        try:
            if domain is not None and domain.isActive():
                domain.agentSetResponseTimeout(FREEZE_WITHIN_S, 0)
                domain.fsThaw()
        except libvirt.libvirtError as error:
            log.warning("%s: its file systems are not thawed yet: %s", id, error.get_error_message())
            return
        self._note(id, frozen=False)

    def look(self) -> None:
        """For what an earlier agent left frozen, and thaw it."""
        for id in self._records.ids():
            record = self._records.read(id)
            if record is not None and record.frozen:
                self._frozen.add(id)
        self.thaw_all()

    def thaw_all(self) -> None:
        """Those that nobody lets rest now. An agent that did not answer may yet do what it was told: it is told until
        it says that it thawed. Returns at once where that goes on already."""
        if self._frozen and self._thawing.acquire(blocking=False):
            try:
                for id in self._frozen - self._at_rest:
                    self.thaw(id)
            finally:
                self._thawing.release()

    def _note(self, id: str, *, frozen: bool) -> None:
        """Durably before it is so, as this process may be killed at any time."""
        (self._frozen.add if frozen else self._frozen.discard)(id)
        record = self._records.read(id)
        if record is not None and record.frozen != frozen:
            self._records.write(replace(record, frozen=frozen))


@contextlib.contextmanager
def _paused(id: str, domain: libvirt.virDomain) -> Iterator[None]:
    began = time.monotonic()
    domain.suspend()
    reach("agent.capture.paused")
    try:
        yield
    finally:
        domain.resume()
        log.info("%s rested for %.0f ms to be saved", id, 1000 * (time.monotonic() - began))


def _has_agent(domain: libvirt.virDomain) -> bool:
    """Whether there is somebody at the other end of the channel."""
    path = f"devices/channel/target[@name='{GUEST_AGENT}'][@state='connected']"
    return ET.fromstring(domain.XMLDesc()).find(path) is not None
