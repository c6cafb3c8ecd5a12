"""Passphrases of disks, handed to libvirt for the time of a start and no longer.

A secret is ephemeral (libvirtd keeps it in memory only) and private (nobody can ask for its value), and says whose it
is. QEMU needs a passphrase when it opens a disk; then the secret goes. What a killed agent left is found by its name.

libvirt gives a passphrase to QEMU encrypted, with a key that it keeps in a file of the domain's; and it writes QEMU's
whole command line into the domain's log. Together they would open the disk for who reads the node's: so the encrypted
passphrase is struck out of the log.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt

from vws.core.deployment import WorkspaceKeys, WorkspaceOrder
from vws.faultpoints import reach
from vws.node.disk_keys import OWN, needed

SPACE = "urn:vws:secret"
_PASSED = re.compile(rb'"data":"([A-Za-z0-9+/=]+)","keyid":"masterKey0"')
_LOG_TAIL_BYTES = 1 << 20


class DiskSecrets:
    """Of the node `tag`. All of it blocks."""

    def __init__(self, api: Callable[[], libvirt.virConnect], tag: str) -> None:
        self._api = api
        self._tag = tag

    def name(self, workspace: str, part: str = OWN) -> str:
        """The uuid of a secret. part: the sha256 of an image's file, or OWN."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{SPACE}:{self._tag}:{workspace}:{part}"))

    @contextlib.contextmanager
    def lent(self, order: WorkspaceOrder, keys: WorkspaceKeys | None, log: Path) -> Iterator[None]:
        """While the order's domain is started, whose log is `log`."""
        if not order.encrypted:
            yield
            return
        try:
            for part, passphrase in needed(order, keys).items():
                self._define(order.id, part, passphrase)
            reach("agent.sealed.secrets")
            yield
        finally:
            self.forget(order.id)
            strike_out(log)

    def _define(self, workspace: str, part: str, passphrase: str) -> None:
        secret = ET.Element("secret", ephemeral="yes", private="yes")
        ET.SubElement(secret, "uuid").text = self.name(workspace, part)
        usage = ET.SubElement(secret, "usage", type="volume")
        ET.SubElement(usage, "volume").text = f"{self._mark(workspace)}{part}"
        self._api().secretDefineXML(ET.tostring(secret, encoding="unicode")).setValue(passphrase.encode(), 0)

    def forget(self, workspace: str = "") -> None:
        """Of a workspace, or of all."""
        for secret in self._api().listAllSecrets():
            if secret.usageID().startswith(self._mark(workspace)):
                with contextlib.suppress(libvirt.libvirtError):  # somebody was faster
                    secret.undefine()

    def _mark(self, workspace: str) -> str:
        return f"vws/{self._tag}/{workspace}/" if workspace else f"vws/{self._tag}/"


def strike_out(log: Path) -> None:
    """The passphrases in a domain's log, where they stand: others have it open."""
    with contextlib.suppress(FileNotFoundError), log.open("r+b", buffering=0) as file:
        begin = max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES)
        struck = False
        for found in _PASSED.finditer(os.pread(file.fileno(), _LOG_TAIL_BYTES, begin)):
            os.pwrite(file.fileno(), b"x" * len(found[1]), begin + found.start(1))
            struck = True
        if struck:
            os.fsync(file.fileno())
