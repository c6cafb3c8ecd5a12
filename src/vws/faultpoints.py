"""Named places at which a process may be made to die, for tests of recovery.

Promises are proven by breaking the process where it hurts most. Every step that
leaves something half done calls `reach(name)`; it does nothing unless the
environment variable VWS_FAULT names it (`name` or `name:3` for the third time),
and then kills this process as the kernel would: no handler, no flush.

VWS_FAULT_ONCE names a file made just before; while it exists nothing dies, so
that a restarted process with the same environment gets through.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

POINTS: dict[str, str] = {
    "service.lease.planned": "service",
    "service.lease.committed": "service",
    "service.cluster.opened": "service",
    "service.cluster.launched": "service",
    "service.upload.begun": "service",
    "service.upload.received": "service",
    "service.upload.checked": "service",
    "service.image.adopted": "service",
    "service.image.unpacked": "service",
    "service.image.encrypted": "service",
    "service.save.received": "service",
    "service.export.begun": "service",
    "service.export.converted": "service",
    "service.bucket.map": "service",
    "service.bucket.part": "service",
    "service.image.entered": "service",
    "service.image.committed": "service",
    "service.orders.sent": "service",
    "service.report.committed": "service",
    "service.tick.planned": "service",
    "service.end.committed": "service",
    "service.context.join.decided": "service",
    "service.context.join.committed": "service",
    "service.context.identity.decided": "service",
    "service.context.identity.committed": "service",
    "service.context.publish.decided": "service",
    "service.context.publish.committed": "service",
    "service.context.ran.decided": "service",
    "service.context.ran.committed": "service",
    "agent.capture.frozen": "agent",
    "agent.capture.mirrored": "agent",
    "agent.capture.paused": "agent",
    "agent.capture.copied": "agent",
    "agent.capture.kept": "agent",
    "agent.capture.cleaned": "agent",
    "agent.capture.compacted": "agent",
    "agent.sealed.secrets": "agent",
    "agent.sealed.memory": "agent",
    "agent.cache.arrived": "agent",
    "agent.cache.adopted": "agent",
    "agent.cache.dropped": "agent",
    "agent.cache.cleared": "agent",
    "agent.orders.received": "agent",
    "agent.orders.kept": "agent",
    "agent.create.begun": "agent",
    "agent.image.fetched": "agent",
    "agent.overlay.made": "agent",
    "agent.disks.made": "agent",
    "agent.seed.made": "agent",
    "agent.address.entered": "agent",
    "agent.created": "agent",
    "agent.boot.noted": "agent",
    "agent.domain.started": "agent",
    "agent.guest.up": "agent",
    "agent.report.sent": "agent",
    "agent.suspend.begun": "agent",
    "agent.suspended": "agent",
    "agent.restored": "agent",
    "agent.stopped": "agent",
    "agent.domain.destroyed": "agent",
    "agent.overlay.removed": "agent",
    "agent.address.released": "agent",
    "agent.address.removed": "agent",
    "agent.seed.removed": "agent",
    "agent.removed": "agent",
}

_armed, _, _nth = os.environ.get("VWS_FAULT", "").partition(":")
_once = os.environ.get("VWS_FAULT_ONCE", "")
_seen = 0


def reach(name: str) -> None:
    """Die here if this point is armed. `name` must be in POINTS."""
    global _seen
    if name != _armed:
        assert name in POINTS, name
        return
    _seen += 1
    if _seen < int(_nth or 1) or (_once and Path(_once).exists()):
        return
    if _once:
        Path(_once).touch()
    os.kill(os.getpid(), signal.SIGKILL)
