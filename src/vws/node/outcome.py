"""What a domain's state means for a workspace, and how a run that nobody watched came to its end: pure.

libvirt tells why a domain is off for as long as libvirtd lives. After that there
is the log that it keeps of each domain, whose last line about an end says the
same. A guest that powers itself off leaves a STOPPED workspace; every other end
that this agent did not ask for is a death, and says what a user can make of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import libvirt

from vws.core.lifecycle import Observation

POWERED_OFF = "powered-off"
DIED = "died"
PANICKED = "panicked"
DESTROYED = "destroyed"
DISK_FULL = "disk-full"
NOT_STARTED = "not-started"
SAVED = "saved"

REASONS = {
    DIED: "the virtual machine's process ended unexpectedly",
    PANICKED: "the guest's kernel panicked",
    DESTROYED: "somebody on the node ended the virtual machine, not VWS",
    DISK_FULL: "the node's disk is full: the guest was halted when it could not write",
}

_OFF = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: POWERED_OFF,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: DIED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: NOT_STARTED,
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: SAVED,
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON: DIED,
}
_LOGGED = {
    "shutdown": POWERED_OFF,
    "destroyed": DESTROYED,
    "crashed": DIED,
    "failed": NOT_STARTED,
    "saved": SAVED,
    "daemon": DIED,
}
# A libvirtd that starts and finds the process gone writes "unknown", even below the reason that its forerunner wrote.
_ENDED = re.compile(r": shutting down, reason=(?!unknown\b)(\S+)")
# QEMU's last words when it is killed gently. libvirtd does so itself, once a guest has powered off.
_SIGNALLED = re.compile(r"terminating on signal \d+ from pid \d+ \((?!(?:\S*/)?(?:libvirtd|virtqemud)\))")


@dataclass(frozen=True, slots=True)
class Seen:
    """A domain's libvirt state and the reason for it."""

    state: int
    reason: int

    @property
    def active(self) -> bool:
        return self.state not in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_NOSTATE)


def live_state(seen: Seen) -> tuple[Observation, str]:
    """(state, verdict) of a domain that has a process; the verdict is "" while all is well."""
    if seen.state == libvirt.VIR_DOMAIN_CRASHED:
        return Observation.BROKEN, PANICKED
    if seen.state != libvirt.VIR_DOMAIN_PAUSED:
        return Observation.RUNNING, ""
    if seen.reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
        return Observation.BROKEN, DISK_FULL
    if seen.reason == libvirt.VIR_DOMAIN_PAUSED_CRASHED:
        return Observation.BROKEN, PANICKED
    if seen.reason == libvirt.VIR_DOMAIN_PAUSED_USER:
        return Observation.PAUSED, ""
    # On its way to another state: saved, started, shut down.
    return Observation.RUNNING, ""


def end_of_run(seen: Seen, log: str) -> str:
    """How the last run of an inactive domain ended; "" if there is no sign that it ever ran.

    `log`: the end of libvirt's log of the domain.
    """
    verdict = _OFF.get(seen.reason, "") or _logged_end(log)
    if verdict == POWERED_OFF and _SIGNALLED.search(_last_run(log)):
        return DIED  # QEMU takes a signal for a wish to shut down, and so does libvirt
    return verdict


def _last_run(log: str) -> str:
    return log[max(0, log.rfind(": starting up ")) :]


def _logged_end(log: str) -> str:
    run = _last_run(log)
    if ": starting up " not in run:
        return ""
    ends = _ENDED.findall(run)
    return _LOGGED.get(ends[-1], DIED) if ends else DIED


def panic_line(console: bytes) -> str:
    """The kernel's own word on why it panicked, else the console's last line."""
    text = console.decode("utf-8", "replace")
    lines = ["".join(c for c in line if c.isprintable()).strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    said = [line for line in lines if "Kernel panic" in line]
    return (said or lines or [""])[-1][:200]
