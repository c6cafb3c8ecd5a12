"""A running guest's disk copied at leisure: QEMU mirrors it while the guest writes on, until the copy equals the disk.

A guest cannot rest for as long as copying gigabytes takes. So QEMU copies the disk's own file, without what is under
it, to a new one while the guest runs, and from the moment that both are equal writes to both. Then the guest rests for
the instant in which the mirror is ended; the copy is as the disk was in that instant.

The guest goes on writing to its own disk all the time. Whatever ends this half way (the agent killed, QEMU killed, a
full disk) leaves a copy that is worth nothing, and a workspace that knows nothing of it: there is no chain to be put
back. That is why this is not done by a snapshot whose overlay is committed afterwards.
"""

from __future__ import annotations

import contextlib
import os
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import libvirt

from vws.faultpoints import reach
from vws.node.daemons import qemu_ids
from vws.node.domain_xml import backing_chain
from vws.ports import HypervisorError

DISK = "vda"
EQUAL_WITHIN_S = 600.0
_LOOK_S = 0.1
_FLAGS = (
    libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW
    | libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
    | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    # Once both are equal they stay so, however much the guest writes.
    | libvirt.VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES
)


def begin_mirror(domain: libvirt.virDomain, target: Path, shown: str, chain: Sequence[tuple[str, str]]) -> None:
    """Returns once `target`, an empty disk like the domain's, equals it. shown, chain: the target and what is under it,
    as QEMU sees them. HypervisorError if that takes too long; nothing goes on then."""
    os.chown(target, *qemu_ids())
    domain.blockCopy(DISK, _target(shown, chain), {}, _FLAGS)
    reach("agent.capture.mirrored")
    until = time.monotonic() + EQUAL_WITHIN_S
    try:
        while not _is_equal(domain):
            if not domain.isActive() or not domain.blockJobInfo(DISK, 0):
                raise HypervisorError("the copy of its disk broke off; it is copied again")
            if time.monotonic() > until:
                raise HypervisorError(
                    f"its disk was not copied within {EQUAL_WITHIN_S:g} s; save it with --when end, or pause it first",
                    final=True,
                )
            time.sleep(_LOOK_S)
    except BaseException:
        end_mirror(domain)
        raise


def finish_mirror(domain: libvirt.virDomain) -> None:
    """While the guest rests: the copy is what its disk is now. HypervisorError if the mirror is gone, or not equal."""
    if not domain.isActive() or not _is_equal(domain):
        raise HypervisorError("the copy of its disk broke off; it is copied again")
    domain.blockJobAbort(DISK, 0)
    reach("agent.capture.copied")


def end_mirror(domain: libvirt.virDomain) -> None:
    """If there is one; what it copied is worth nothing."""
    with contextlib.suppress(libvirt.libvirtError):
        if domain.isActive() and domain.blockJobInfo(DISK, 0):
            domain.blockJobAbort(DISK, 0)


def _target(shown: str, chain: Sequence[tuple[str, str]]) -> str:
    """Named with all that is under it, so that nobody looks into a header."""
    disk = ET.Element("disk", type="file")
    ET.SubElement(disk, "driver", type="qcow2")
    ET.SubElement(disk, "source", file=shown)
    backing_chain(disk, chain)
    return ET.tostring(disk, encoding="unicode")


def _is_equal(domain: libvirt.virDomain) -> bool:
    mirror = ET.fromstring(domain.XMLDesc()).find(f"devices/disk/target[@dev='{DISK}']/../mirror")
    return mirror is not None and mirror.get("ready") == "yes"
